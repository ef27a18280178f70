"""Re-anchoring: what a maker's recovery keys say when the ledger itself can no longer lead on.

A statement names the ledger, its code, its validators, and a height and time below which nothing is
accepted. It puts a device back to where proofs can be checked again: where no chain of links leads
to today's validators, where the trusting period has lapsed, or where the device froze.

Guarantees: `verify` returns a statement only if at least ``threshold`` distinct recovery keys
signed exactly its bytes for this product; one signature that does not hold voids the whole, however
many good ones stand beside it. The encoding is deterministic, and signatures stand in one order.

Rules: each key holder signs by himself, without a network, and hands on the file: `Reanchor.signed`
adds a signature. The steps are those of docs/spec/reanchor.md; an error carries the number of the
one that refused as ``data["step"]``.

Not here: whether the sequence is new to this device, and what of its state stays
(`device_client.core.reanchor`). A statement proves nothing about any release: no ledger check is
skipped by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

from protocol import cbor, cose
from protocol.cose import PublicKey, Signer
from protocol.errors import Malformed, Misuse, Untrusted, step
from protocol.header import MAX_VALIDATORS
from protocol.ids import Address, Hash, KeyId, ProductId
from protocol.records import Ledger

MEDIA_TYPE = "application/vnd.firmledger.reanchor+cbor"
CONTEXT = "firmledger-reanchor"
FORMAT = 1
MAX_SIGNATURES = 16
MAX_STATEMENT_BYTES = 2048
MAX_SIGNATURE_BYTES = 192
MAX_REANCHOR_BYTES = 6 * 1024
MAX_CHAIN_ID = 2**53 - 1
MAX_HEIGHT = 2**63 - 1
MAX_TIME = 2**40
"""Seconds; some 34,000 years: what is above can only be a mistake, and could not be taken back."""

READ, PRODUCT, COUNT, SIGNATURES, SEQUENCE = "R1", "R2", "R3", "R4", "R5"
STEPS = {
    READ: "the file is a re-anchor statement with signatures, each once, in order",
    PRODUCT: "it is about this device's product",
    COUNT: "as many signatures as the trust file asks for, and no more than it has keys",
    SIGNATURES: "each signature is by another recovery key of the trust file, and holds",
    SEQUENCE: "its sequence is above that of the last one accepted",
}


@dataclass(frozen=True)
class Statement:
    """What the recovery keys agree on. All of it is to be believed or nothing."""

    product_id: ProductId
    sequence: int
    """Above that of every earlier statement for this product; 1 or more."""
    ledger: Ledger
    code_hash: Hash
    validators: tuple[Address, ...]
    """Ascending, each once, 1 to 64."""
    height: int
    """No lower block is accepted from now on."""
    time: int
    """Unix seconds: no earlier block is accepted, and the trusting period runs from here."""

    def to_list(self) -> list[Any]:
        """As a row of CBOR, in the order of docs/spec/reanchor.md."""
        return [
            *(CONTEXT, FORMAT, bytes(self.product_id), self.sequence, self.ledger.chain_id),
            *(bytes(self.ledger.contract), bytes(self.code_hash)),
            *([bytes(one) for one in self.validators], self.height, self.time),
        ]

    @classmethod
    def from_list(cls, value: Any) -> Self:
        """The statement of `to_list`; `Malformed` for anything else."""
        what = "re-anchor statement"
        row = cbor.as_list(value, what, size=10)
        if row[0] != CONTEXT or row[1] != FORMAT or isinstance(row[1], bool):
            raise _malformed("unknown-format", "it is no statement of a format known here")
        listed = cbor.as_list(row[7], "validators")
        if not 0 < len(listed) <= MAX_VALIDATORS:
            raise _malformed("bad-validators", f"it lists {len(listed)} validators, not 1 to 64")
        validators = tuple(Address(cbor.as_bytes(one, "validator", size=20)) for one in listed)
        if any(left >= right for left, right in pairwise(validators)):
            raise _malformed("bad-validators", "its validators are not ascending, each once")
        sequence = cbor.as_uint(row[3], "sequence")
        if sequence == 0:
            raise _malformed("bad-sequence", "its sequence is 0, the first is 1")
        return cls(
            product_id=ProductId(cbor.as_bytes(row[2], "product id", size=32)),
            sequence=sequence,
            ledger=Ledger(
                cbor.as_uint(row[4], "chain id", maximum=MAX_CHAIN_ID),
                Address(cbor.as_bytes(row[5], "contract", size=20)),
            ),
            code_hash=Hash(cbor.as_bytes(row[6], "code hash", size=32)),
            validators=validators,
            height=cbor.as_uint(row[8], "height", maximum=MAX_HEIGHT),
            time=cbor.as_uint(row[9], "time", maximum=MAX_TIME),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR: the bytes that are signed."""
        return cbor.dumps(self.to_list())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes, at most `MAX_STATEMENT_BYTES`; `Malformed` otherwise."""
        return cls.from_list(cbor.loads(data, max_bytes=MAX_STATEMENT_BYTES))


@dataclass(frozen=True)
class Reanchor:
    """A statement and the signatures it has so far; they need not be enough yet."""

    statement: Statement
    signatures: tuple[bytes, ...] = ()
    """COSE_Sign1, payload detached, ascending by key id."""

    def encode(self) -> bytes:
        """Deterministic CBOR: [1, statement, [signature, …]]."""
        return cbor.dumps([FORMAT, self.statement.encode(), list(self.signatures)])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes, at most `MAX_REANCHOR_BYTES`; `Malformed` otherwise."""
        row = cbor.as_list(cbor.loads(data, max_bytes=MAX_REANCHOR_BYTES), "re-anchor", size=3)
        if row[0] != FORMAT or isinstance(row[0], bool):
            raise _malformed("unknown-format", f"its format is {str(row[0])[:20]}, not {FORMAT}")
        given = cbor.as_list(row[2], "signatures")
        if len(given) > MAX_SIGNATURES:
            raise _malformed("oversized", f"it has {len(given)} signatures, at most 16 are read")
        signatures = tuple(
            cbor.as_bytes(one, "signature", maximum=MAX_SIGNATURE_BYTES) for one in given
        )
        signers = [_signer_of(one) for one in signatures]
        if any(left >= right for left, right in pairwise(signers)):
            raise _malformed("signature-order", "its signatures do not ascend by key, each once")
        statement = cbor.as_bytes(row[1], "statement", maximum=MAX_STATEMENT_BYTES)
        return cls(Statement.decode(statement), signatures)

    def signed(self, key: Signer) -> Reanchor:
        """With the signature of ``key`` added, or made anew."""
        made = {_signer_of(one): one for one in self.signatures}
        made[key.public.id] = sign(self.statement, key)
        if len(made) > MAX_SIGNATURES:
            raise Misuse(
                "too-many-signatures",
                "signature not added",
                f"there are {MAX_SIGNATURES} already",
                "publish the file as it is",
            )
        return replace(self, signatures=tuple(made[signer] for signer in sorted(made)))


def sign(statement: Statement, key: Signer) -> bytes:
    """One recovery key's COSE_Sign1 over a statement, payload detached."""
    Statement.decode(statement.encode())  # nothing is signed that no device would read
    return cose.write_sign1(statement.encode(), key, kid=key.public.id, detached=True)


def verify(
    data: bytes, *, product_id: ProductId, keys: Sequence[PublicKey], threshold: int
) -> Statement:
    """Steps R1 to R4: the statement in ``data`` if ``threshold`` of ``keys`` signed it.

    `Malformed` when it cannot be read, `Untrusted` when it does not hold, `Misuse` where there are
    no recovery keys to hold it by.
    """
    known = {key.id: key for key in keys}
    if not 1 <= threshold <= len(known) or len(known) != len(keys):
        raise Misuse(
            "no-recovery-keys",
            "re-anchoring refused",
            "this device's trust file names no recovery keys",
            "set the device up again with a new trust file; its device key can be kept",
        )
    with step(READ):
        read = Reanchor.decode(data)
    with step(PRODUCT):
        if read.statement.product_id != product_id:
            raise _untrusted("wrong-product", "it is about another product")
    with step(COUNT):  # before any signature is looked at
        count = len(read.signatures)
        if not threshold <= count <= len(known):
            why = f"it has {count} signatures, not {threshold} to {len(known)}"
            raise _untrusted("too-few-signatures", why, "have more recovery keys sign it")
    with step(SIGNATURES):
        payload = read.statement.encode()
        for one in read.signatures:
            key = known.get(_signer_of(one))
            if key is None:
                raise _untrusted("unknown-recovery-key", f"{_signer_of(one)} is no recovery key")
            message = cose.read_sign1(one, max_bytes=MAX_SIGNATURE_BYTES)
            cose.check(message, payload, key, what="re-anchor statement")
    return read.statement


def _signer_of(signature: bytes) -> KeyId:
    """The key id that a signature's protected header names, unverified."""
    message = cose.read_sign1(signature, max_bytes=MAX_SIGNATURE_BYTES)
    if message.payload is not None or message.kid is None:
        raise _malformed("unexpected-structure", "a signature is not detached, or names no key")
    return KeyId(message.kid)


def _malformed(reason: str, why: str) -> Malformed:
    return Malformed(reason, "re-anchor statement refused", why, "get it again from the maker")


def _untrusted(reason: str, why: str, fix: str = "get it again from the maker") -> Untrusted:
    return Untrusted(reason, "re-anchor statement refused", why, fix)
