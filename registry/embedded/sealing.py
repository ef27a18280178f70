"""Block headers of the embedded ledger, and the seals of its local validators.

Guarantees: `compose` makes a header as Besu's QBFT lays it out, `seal` gives it one valid seal of
each validator, ascending by address; encodings, digests and hashes are those that devices verify
with (`protocol.header`), not a second implementation of them.

Rules: the round is always 0 and there is never a vote, for four validators in one process never
disagree. Layout is London's: sixteen fields, of which the last, baseFeePerGas, is 0 and opaque to
devices.

Not done here: judging a header. Genesis carries no seals, as in Besu, so nothing is proved by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from coincurve import PrivateKey, PublicKey

from protocol.digests import keccak256
from protocol.header import Extra, Header, build_header, sign_seal, with_seals
from protocol.ids import Address
from protocol.rlp import encode, from_uint

MIX_HASH = bytes.fromhex("63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365")
OMMERS_HASH = keccak256(encode([]))
VANITY = b"firmledger embedded".ljust(32, b"\0")
DIFFICULTY = 1
BLOCK_GAS = 30_000_000
STRANGERS_GAS = 500_000  # of one transaction whose sender has no funds
STRANGERS_BLOCK_GAS = 1_000_000  # of all these in a block: the rest is the registry's
BASE_FEE = 0


def compose(
    *,
    parent_hash: bytes,
    beneficiary: bytes,
    state_root: bytes,
    transactions_root: bytes,
    receipts_root: bytes,
    logs_bloom: bytes,
    number: int,
    gas_used: int,
    timestamp: int,
    validators: Sequence[Address],
) -> Header:
    """A header without seals. Hashes and roots have 32 bytes, ``beneficiary`` 20, the bloom 256.

    ``timestamp``: seconds since 1970; ``validators``: those who will seal it.
    """
    fields = [
        parent_hash,
        OMMERS_HASH,
        beneficiary,
        state_root,
        transactions_root,
        receipts_root,
        logs_bloom,
        from_uint(DIFFICULTY),
        from_uint(number),
        from_uint(BLOCK_GAS),
        from_uint(gas_used),
        from_uint(timestamp),
        b"",  # extraData, which `build_header` puts in
        MIX_HASH,
        bytes(8),
        from_uint(BASE_FEE),
    ]
    extra = Extra(VANITY, tuple(sorted(validators)), vote=None, round=0, seals=())
    return build_header([bytes(field) for field in fields], extra)


def seal(draft: Header, keys: Sequence[PrivateKey]) -> Header:
    """``draft`` with one seal by each of ``keys``, ascending by address."""
    ordered = sorted(keys, key=lambda key: address_of(key.public_key))
    return with_seals(draft, [sign_seal(draft, key.secret) for key in ordered])


def address_of(key: PublicKey) -> Address:
    """The account of a public key: the last 20 bytes of keccak256 over its 64-byte point."""
    return Address(keccak256(key.format(compressed=False)[1:])[12:])


def raw_field(header: Header, place: int) -> bytes:
    """One of the header's sixteen fields, which `compose` makes bytes, all of them."""
    return cast(bytes, header.fields[place])
