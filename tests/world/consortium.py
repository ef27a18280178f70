"""A consortium on the embedded ledger: who seals changes from block to block, as on a QBFT chain.

Everything else is the real thing: blocks, state, proofs, JSON-RPC. Members seal in any order, and
not all of them have to, so a registry meets headers as validators leave them. Keys are test
vectors, derived from a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from coincurve import PrivateKey

from protocol.ids import Address
from registry.embedded import EmbeddedLedger
from registry.embedded.sealing import address_of


def member(number: int) -> PrivateKey:
    return PrivateKey(hashlib.sha256(f"test vector: validator {number}".encode()).digest())


def addresses(members: Sequence[int]) -> tuple[Address, ...]:
    return tuple(sorted(address_of(member(number).public_key) for number in members))


class Consortium:
    """The validators of one embedded ledger, by their numbers."""

    def __init__(self, ledger: EmbeddedLedger) -> None:
        self._ledger = ledger

    def elect(self, members: Sequence[int], sealing: Sequence[int] | None = None) -> None:
        """From the next block on these are listed, and ``sealing`` seal; all by default."""
        self._ledger.validators = addresses(members)
        chosen = members if sealing is None else sealing
        self._ledger._keys = [member(number) for number in chosen]
