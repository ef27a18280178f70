"""Approvals: who agreed to a message, as the contract checks it.

Guarantees: `recover` names the one account that made a signature, by the rules of the contract
(EIP-2098 compact form, s in the lower half); `gather` gives the order the contract asks for.

Not here: who is an approver, and how many it takes. The contract and `registry.audit` judge that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coincurve import PrivateKey, PublicKey

from protocol.digests import keccak256
from protocol.errors import Misuse, Untrusted
from protocol.ids import Address, Hash
from protocol.records import U64, Bytes32, Record

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # SEC 2, 2.4.1
_PARITY = 1 << 255


@dataclass(frozen=True)
class Signature(Record):
    """EIP-2098: ``vs`` is s with the parity in its top bit; 0 where ``r`` names an account that
    called ``approve`` itself."""

    r: Bytes32
    vs: Bytes32

    @property
    def on_chain(self) -> Address | None:
        """The account that approved by a call of its own, if this stands for one."""
        return None if any(self.vs) else Address(self.r[12:])


@dataclass(frozen=True)
class Approvals(Record):
    """Signatures over one digest, strictly ascending by signer; ``valid_until`` in Unix seconds."""

    valid_until: U64
    signatures: tuple[Signature, ...]


def account_of(key: PublicKey) -> Address:
    """The account of a secp256k1 public key: the last 20 bytes of its keccak-256."""
    return Address(keccak256(key.format(compressed=False)[1:])[12:])


def sign(digest: Hash, private_key: bytes) -> Signature:
    """The compact signature of ``digest`` by a 32-byte key, deterministic (RFC 6979)."""
    raw = PrivateKey(private_key).sign_recoverable(digest, hasher=None)
    s = int.from_bytes(raw[32:64], "big") | (_PARITY if raw[64] else 0)
    return Signature(raw[:32], s.to_bytes(32, "big"))


def recover(digest: Hash, signature: Signature) -> Address:
    """Who signed ``digest``; `Untrusted` ``bad-signature`` if nobody can have.

    For an on-chain approval, the account named: that it did approve is not checked here.
    """
    if signature.on_chain is not None:
        return signature.on_chain
    vs = int.from_bytes(signature.vs, "big")
    s, parity = vs & ~_PARITY, vs >> 255
    compact = signature.r + s.to_bytes(32, "big") + bytes([parity])
    try:
        if s > _HALF_ORDER:
            raise ValueError("s in the upper half")
        return account_of(PublicKey.from_signature_and_message(compact, digest, hasher=None))
    except ValueError as error:
        raise Untrusted(
            "bad-signature", "approval refused", f"it is no signature: {error}", "sign again"
        ) from error


def gather(digest: Hash, valid_until: int, signatures: Iterable[Signature]) -> Approvals:
    """The approvals in the contract's order; `Misuse` if one account signed twice."""
    by_signer: dict[Address, Signature] = {}
    for signature in signatures:
        signer = recover(digest, signature)
        if by_signer.setdefault(signer, signature) != signature:
            raise Misuse(
                "approved-twice", "approvals refused", f"{signer} is among them twice", "drop one"
            )
    return Approvals(valid_until, tuple(by_signer[signer] for signer in sorted(by_signer)))
