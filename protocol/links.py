"""Validator links: from the validators that are trusted to those of a later block.

Guarantees: `follow` returns validators that each step of the way was believed by two thirds of
those before, and never looks at more than `MAX_LINK_SEALS` signatures, whoever made the links. It
is pure; the rules a to e are those of docs/spec/trust.md, section 2.

Two different blocks of one height, both believed, are a `Contradiction`; it carries both headers.

Not here: what becomes of whoever met one (`device_client.core.trust`), and how a header is sealed
(`protocol.header`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import Untrusted
from protocol.header import block_hash, parse_header
from protocol.ids import Address
from protocol.proof import read_link, require_believed

MAX_LINK_SEALS = 512
"""Of all links together: whoever names validators of his own can make links that hold."""


class Contradiction(Untrusted):
    """Two headers, both validly sealed, of different blocks of one height."""

    def __init__(self, height: int, headers: tuple[bytes, bytes]) -> None:
        """``headers``: the known one first."""
        super().__init__(
            "equivocation",
            "the ledger is not believed any more",
            f"its validators sealed two different blocks at height {height}",
            "report the kept headers to the maker and re-anchor with the recovery keys",
            height=height,
        )
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Followed:
    """Where links led."""

    validators: tuple[Address, ...]
    compared: bytes = b""
    """The newest link that those trusted believed, from the trusted height on; empty: none."""


def follow(
    links: Sequence[bytes], validators: tuple[Address, ...], height: int, header: bytes = b""
) -> Followed:
    """The validators that ``links`` lead to from ``validators``, trusted at ``height``.

    ``header``: of the block at that height, where it is known. `Malformed` or `Untrusted` as in
    `read_link`, or ``no-overlap``, ``link-order``, ``too-many-seals``; `Contradiction`.
    """
    trusted, compared, previous, seals = validators, b"", 0, MAX_LINK_SEALS
    for raw in links:
        link = read_link(raw, seals, above=height, trusted=trusted)  # a: it holds on its own
        seals -= len(link.sealers)
        leads_on = link.number > height
        if leads_on:  # b
            require_believed(link, trusted)
        if link.number >= height and link.believed_by(trusted):  # c
            require_one_block(header, raw)
            require_one_block(compared, raw)
            compared = raw
        if link.number <= previous:  # d
            raise Untrusted(
                "link-order",
                "validator link refused",
                f"it is of block {link.number}, after one of block {previous}",
                "get the bundle again, from another source",
            )
        previous = link.number
        # e: otherwise it is passed over, as what it led to is trusted already. One that lists the
        # trusted again is not refused: where a set came and went that nothing leads to, the way
        # leads past it, from those before to the very same.
        if leads_on:
            trusted = link.validators
    return Followed(trusted, compared)


def require_one_block(known: bytes, other: bytes) -> None:
    """`Contradiction` if two sealed headers are different blocks of one height; none is no block.

    Both must have been found to be validly sealed before.
    """
    if not known or known == other:
        return
    one, two = parse_header(known), parse_header(other)
    if one.number == two.number and block_hash(one) != block_hash(two):
        raise Contradiction(one.number, (known, other))
