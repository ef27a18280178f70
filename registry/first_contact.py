"""What a device that has seen no block yet makes of a bundle's proof: trust.md's steps T4 to T6.

Guarantees: `follow` and `require_height` accept what such a device would accept and nothing else;
they are how the publisher's side checks a stick before it travels. The state of a device that has
seen blocks, its clock and its freezing are its own (docs/spec/trust.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from protocol.bundle import MAX_LINK_SEALS, Anchor, View
from protocol.errors import Untrusted
from protocol.header import block_hash, parse_header
from protocol.proof import read_link, require_believed
from protocol.trustfile import TrustFile


def follow(links: Sequence[bytes], trust: TrustFile) -> tuple[Anchor, bytes]:
    """T4: what is pinned, with the validators that links lead to, and the last link compared."""
    anchor, newest, previous, seals = trust.anchor, b"", 0, MAX_LINK_SEALS
    for raw in links:
        link = read_link(raw, seals)
        seals -= len(link.sealers)
        leads_on = link.number > trust.min_height
        if leads_on:
            require_believed(link, anchor.validators)
        if link.number >= trust.min_height and link.believed_by(anchor.validators):
            _require_one_block(newest, raw)
            newest = raw
        if link.number <= previous:
            raise Untrusted(
                "link-order",
                "bundle refused",
                f"its links go from block {previous} to {link.number}",
                "export it again",
            )
        previous = link.number
        if leads_on:
            anchor = replace(anchor, validators=link.validators)
    return anchor, newest


def require_height(view: View, trust: TrustFile, newest_link: bytes) -> None:
    """T5 and T6: not below the trust file's height or the last link's, and not another block."""
    least = trust.min_height
    if newest_link:
        least = max(least, parse_header(newest_link).number)
    if view.number < least:
        raise Untrusted(
            "below-trusted-height",
            "bundle refused",
            f"its proof is of block {view.number}, trust starts at {least}",
            "take it to a registry and run `firmledger bundle refresh`",
        )
    _require_one_block(newest_link, view.header)


def _require_one_block(known: bytes, other: bytes) -> None:
    if not known:
        return
    one, two = parse_header(known), parse_header(other)
    if one.number == two.number and block_hash(one) != block_hash(two):
        raise Untrusted(
            "equivocation",
            "bundle refused",
            f"it holds two different blocks of height {one.number}, both sealed",
            "keep it as evidence, and ask the validators why",
        )
