"""QBFT block headers: their encoding, their hash, and the seals of the local validators.

Guarantees: `seal` returns a header that carries one valid seal of every key it was given, over
the digest that Besu's QBFT signs; `block_hash` is the on-chain hash of Besu's QBFT.

Rules (design section 4, Proof):

* extraData = RLP[vanity (32 bytes), validators, vote, round, seals]; validators ascend; there is
  never a vote, and the round is always 0.
* seal digest = keccak256(RLP(header)) with seals = []; block hash = the same with round = 0 as
  well. At round 0 the two are one number, so an unsealed draft already has its block's hash.
* Layout is London's: sixteen fields, baseFeePerGas present and 0.

Not done here: judging somebody else's header. That is `protocol`'s part, for both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import rlp  # type: ignore[import-untyped,unused-ignore]
from coincurve import PrivateKey, PublicKey

from protocol.digests import keccak256
from protocol.ids import Address, Hash

MIX_HASH = bytes.fromhex("63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365")
OMMERS_HASH = keccak256(rlp.encode([]))
VANITY = b"firmledger embedded".ljust(32, b"\0")
DIFFICULTY = 1
NONCE = bytes(8)
BASE_FEE = 0


@dataclass(frozen=True, slots=True)
class Header:
    """One block's header; the fields that never vary in QBFT are the constants above.

    Hashes and roots are 32 bytes, ``beneficiary`` 20, ``logs_bloom`` 256; ``timestamp`` is in
    seconds since 1970; ``extra_data`` as in the module's rules.
    """

    parent_hash: bytes
    beneficiary: bytes
    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    extra_data: bytes

    def encode(self) -> bytes:
        """RLP of all sixteen fields, seals included."""
        return bytes(rlp.encode(self.fields()))

    def fields(self) -> list[bytes]:
        """The sixteen fields in order, numbers as minimal big-endian bytes."""
        numbers = (DIFFICULTY, self.number, self.gas_limit, self.gas_used, self.timestamp)
        return [
            self.parent_hash,
            OMMERS_HASH,
            self.beneficiary,
            self.state_root,
            self.transactions_root,
            self.receipts_root,
            self.logs_bloom,
            *map(_scalar, numbers),
            self.extra_data,
            MIX_HASH,
            NONCE,
            _scalar(BASE_FEE),
        ]

    @classmethod
    def decode(cls, encoded: bytes) -> Header:
        """The inverse of `encode`, for headers this module made and stored."""
        f: list[bytes] = rlp.decode(encoded)
        number, gas_limit, gas_used, timestamp = (int.from_bytes(n, "big") for n in f[8:12])
        return cls(
            f[0], f[2], f[3], f[4], f[5], f[6], number, gas_limit, gas_used, timestamp, f[12]
        )

    def block_hash(self) -> Hash:
        """The QBFT on-chain hash: keccak256 over the header without round and seals."""
        vanity, validators, vote, _round, _seals = rlp.decode(self.extra_data)
        bare = rlp.encode([vanity, validators, vote, b"", []])
        return keccak256(replace(self, extra_data=bare).encode())


def unsealed_extra(validators: Sequence[Address]) -> bytes:
    """extraData of a draft (and of genesis, which Besu leaves without seals, too)."""
    return _extra(sorted(validators), [])


def seal(draft: Header, keys: Sequence[PrivateKey]) -> Header:
    """``draft`` with one seal (r, s, recovery id: 65 bytes) by each of ``keys`` over its digest."""
    _vanity, validators, _vote, _round, _seals = rlp.decode(draft.extra_data)
    digest = keccak256(draft.encode())
    seals = [key.sign_recoverable(digest, hasher=None) for key in keys]
    return replace(draft, extra_data=_extra(validators, seals))


def address_of(key: PublicKey) -> Address:
    """The account of a public key: the last 20 bytes of keccak256 over its 64-byte point."""
    return Address(keccak256(key.format(compressed=False)[1:])[12:])


def _extra(validators: Sequence[bytes], seals: Sequence[bytes]) -> bytes:
    no_vote: list[Any] = []
    round_zero = b""
    return bytes(rlp.encode([VANITY, list(validators), no_vote, round_zero, list(seals)]))


def _scalar(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
