"""Receipts: what a device did with a release, signed by the device, each linked to the one before.

Guarantees:

* `verify` returns a receipt only if the given device key signed those exact bytes, and they are the
  one encoding of the values returned.
* The header names the device, so a receipt cannot be passed off as another device's.
* Sequence and hash of the previous receipt make one chain per device: a receipt left out, repeated
  or put in another order shows (`follows`).

Rules: a receipt is a COSE_Sign1 with Ed25519 (-19) over a canonical CBOR map with integer keys;
docs/spec/receipt.md gives the bytes. A device key signs no other COSE object; whoever adds one
gives it a ``typ`` header (RFC 9596).

It does *not* say that the device is enrolled, that the release exists, or that this is the device's
first final outcome for it: the registry and the auditors check those against ledger and log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from protocol import cbor, cose
from protocol.digests import leaf_hash, sha256
from protocol.errors import Malformed, Misuse, Untrusted
from protocol.ids import U32_MAX, U64_MAX, DeviceId, Digest, ProductId, Version

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = 1
MAX_RECEIPT_BYTES = 1024
MAX_REASON_BYTES = 128
MAX_NODE_BYTES = 32
MAX_CONSENT_BYTES = 64
NO_PREVIOUS = Digest(bytes(Digest.size))

# Payload keys. 15 and above are free for later formats.
(_FORMAT, _PRODUCT, _RELEASE, _OUTCOME, _REASON, _VERSIONS, _COUNTERS, _HEIGHT, _TIME,
 _SEQUENCE, _PREVIOUS, _NODE, _CONSENT) = range(1, 14)  # fmt: skip
_REQUIRED = (_FORMAT, _PRODUCT, _RELEASE, _OUTCOME, _VERSIONS, _COUNTERS, _HEIGHT, _SEQUENCE,
             _PREVIOUS)  # fmt: skip
_OPTIONAL = (_REASON, _TIME, _NODE, _CONSENT)


class Outcome(StrEnum):
    """What became of an update on one device.

    CONFIRMED, FAILED and ROLLED_BACK are final: one of them per device and release counts.
    """

    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        """Whether it is the device's last word on a release. A refusal may be followed by any."""
        return self is not Outcome.REFUSED

    @property
    def counts_as_confirmed(self) -> bool:
        """Whether the ledger's confirmed count rises by one."""
        return self is Outcome.CONFIRMED

    @property
    def counts_as_failed(self) -> bool:
        """Whether the ledger's failed count rises by one."""
        return self in (Outcome.FAILED, Outcome.ROLLED_BACK)


_CODES = {Outcome.CONFIRMED: 1, Outcome.FAILED: 2, Outcome.ROLLED_BACK: 3, Outcome.REFUSED: 4}
_OUTCOMES = {code: outcome for outcome, code in _CODES.items()}


@dataclass(frozen=True, slots=True)
class Consent:
    """Who agreed to the update, as the device knows them, and when (Unix seconds or None)."""

    by: str
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """One outcome on one device; every value is one that `sign` can encode.

    ``release``: the ledger's release id, 0 if what was refused is not on the ledger. ``reason``:
    the stable id of the error or check (`FirmledgerError.reason`), empty exactly when confirmed.
    ``height``: the highest ledger block the device has seen proven. ``time``: Unix seconds, None
    without a clock. ``sequence`` counts the device's receipts from 0; ``previous`` is
    `receipt_digest` of the one before (`NO_PREVIOUS` for the first). ``node``: set when a gateway
    flashed for a node that cannot sign, and then the node's name: trust was delegated. The security
    counter never falls. All but the signature is the device's word; see the module for who checks
    what.
    """

    product: ProductId
    release: int
    outcome: Outcome
    reason: str
    version_before: Version
    version_after: Version
    counter_before: int
    counter_after: int
    height: int
    time: int | None
    sequence: int
    previous: Digest = NO_PREVIOUS
    node: bytes | None = None
    consent: Consent | None = None

    def __post_init__(self) -> None:
        cbor.as_uint(self.release, "receipt's release id", maximum=U32_MAX)
        cbor.as_uint(self.counter_before, "receipt's security counter", maximum=U32_MAX)
        cbor.as_uint(self.counter_after, "receipt's security counter", maximum=U32_MAX)
        cbor.as_uint(self.height, "receipt's ledger height", maximum=U64_MAX)
        cbor.as_uint(self.sequence, "receipt's sequence", maximum=U64_MAX)
        if self.time is not None:
            cbor.as_uint(self.time, "receipt's time", maximum=U64_MAX)
        cbor.as_text(self.reason, "receipt's reason", maximum=MAX_REASON_BYTES)
        if bool(self.reason) == (self.outcome is Outcome.CONFIRMED):
            _refuse("a reason is given for every outcome but confirmed")
        if self.counter_after < self.counter_before:
            _refuse("the security counter falls")
        if (self.previous == NO_PREVIOUS) != (self.sequence == 0):
            _refuse("the first receipt, and no other, has sequence 0 and no previous one")
        if self.node is not None and not cbor.as_bytes(self.node, "node", maximum=MAX_NODE_BYTES):
            _refuse("the node has no name")
        if self.consent is not None:
            cbor.as_text(self.consent.by, "consent", maximum=MAX_CONSENT_BYTES)
            if self.consent.at is not None:
                cbor.as_uint(self.consent.at, "time of consent", maximum=U64_MAX)

    @property
    def delegated(self) -> bool:
        """Whether a gateway signed for a node that cannot verify or sign itself."""
        return self.node is not None

    def follows(self, earlier: bytes) -> bool:
        """Whether this receipt names ``earlier`` (signed bytes) as the one just before it.

        The sequence is compared by the caller, who has the earlier receipt read.
        """
        return self.previous == receipt_digest(earlier)


def _refuse(why: str) -> NoReturn:
    raise Malformed("receipt", "receipt refused", why, "let the device write it again")


def device_id(public_key: bytes | cose.PublicKey) -> DeviceId:
    """SHA-256 of the raw 32-byte Ed25519 public key; `Malformed` for any other key."""
    if not isinstance(public_key, cose.PublicKey):
        public_key = cose.PublicKey(cose.Curve.ED25519, public_key)
    if public_key.curve is not cose.Curve.ED25519:
        raise Malformed(
            "bad-key", "device key refused", "it is not Ed25519", "enrol an Ed25519 key"
        )
    return DeviceId(sha256(public_key.raw))


def receipt_digest(data: bytes) -> Digest:
    """SHA-256 of a signed receipt: what the next one names as ``previous``."""
    return sha256(data)


def receipt_leaf(data: bytes) -> Digest:
    """The receipt's leaf hash in the release's RFC 6962 log."""
    return leaf_hash(data)


# Bytes


def _encode(receipt: Receipt) -> bytes:
    body: dict[int, Any] = {
        _FORMAT: FORMAT,
        _PRODUCT: receipt.product,
        _RELEASE: receipt.release,
        _OUTCOME: _CODES[receipt.outcome],
        _VERSIONS: [receipt.version_before, receipt.version_after],
        _COUNTERS: [receipt.counter_before, receipt.counter_after],
        _HEIGHT: receipt.height,
        _SEQUENCE: receipt.sequence,
        _PREVIOUS: receipt.previous,
    }
    if receipt.reason:
        body[_REASON] = receipt.reason
    if receipt.time is not None:
        body[_TIME] = receipt.time
    if receipt.node is not None:
        body[_NODE] = receipt.node
    if receipt.consent is not None:
        body[_CONSENT] = [receipt.consent.by, receipt.consent.at]
    return cbor.dumps(body)


def _decode(data: bytes) -> Receipt:
    body = cbor.as_map(
        cbor.loads(data, max_bytes=MAX_RECEIPT_BYTES),
        "receipt",
        required=_REQUIRED,
        optional=_OPTIONAL,
    )
    if cbor.as_uint(body[_FORMAT], "receipt's format") != FORMAT:
        raise Malformed(
            "receipt-format",
            "receipt refused",
            f"its format is not {FORMAT}",
            "update the software that reads it",
        )
    outcome = _OUTCOMES.get(cbor.as_uint(body[_OUTCOME], "receipt's outcome"))
    if outcome is None:
        raise Malformed(
            "receipt",
            "receipt refused",
            "its outcome is unknown",
            "update the software that reads it",
        )
    versions = cbor.as_list(body[_VERSIONS], "receipt's versions", size=2)
    counters = cbor.as_list(body[_COUNTERS], "receipt's counters", size=2)
    node, consent = body.get(_NODE), None
    if _CONSENT in body:
        by, at = cbor.as_list(body[_CONSENT], "consent", size=2)
        consent = Consent(cbor.as_text(by, "consent", maximum=MAX_CONSENT_BYTES), at)
    return Receipt(
        product=ProductId(cbor.as_bytes(body[_PRODUCT], "product id", size=ProductId.size)),
        release=body[_RELEASE],
        outcome=outcome,
        reason=body.get(_REASON, ""),
        version_before=Version(cbor.as_uint(versions[0], "version")),
        version_after=Version(cbor.as_uint(versions[1], "version")),
        counter_before=counters[0],
        counter_after=counters[1],
        height=body[_HEIGHT],
        time=body.get(_TIME),
        sequence=body[_SEQUENCE],
        previous=Digest(cbor.as_bytes(body[_PREVIOUS], "previous receipt", size=Digest.size)),
        node=node,
        consent=consent,
    )


def sign(receipt: Receipt, private_key: Ed25519PrivateKey | cose.Signer) -> bytes:
    """The signed receipt (`MAX_RECEIPT_BYTES` at most); `Malformed` for a key not Ed25519."""
    signer = private_key if isinstance(private_key, cose.Signer) else cose.signer(private_key)
    data = cose.write_sign1(_encode(receipt), signer, kid=device_id(signer.public), detached=False)
    if len(data) > MAX_RECEIPT_BYTES:
        raise Misuse(
            "receipt-too-long",
            "receipt refused",
            f"it has {len(data)} bytes",
            "shorten reason or consent",
        )
    return data


def claimed_device(data: bytes) -> DeviceId:
    """Which device a receipt says it is from, to look up its key. Verifies nothing."""
    kid = cose.read_sign1(data, max_bytes=MAX_RECEIPT_BYTES).kid
    return DeviceId(cbor.as_bytes(kid, "device id", size=DeviceId.size))


def verify(data: bytes, public_key: bytes | cose.PublicKey) -> Receipt:
    """The receipt in ``data``, if the device with ``public_key`` signed it.

    Steps as docs/spec/receipt.md numbers them; `Malformed` where the bytes cannot be read,
    `Untrusted` where another device or nobody signed them.
    """
    key = (
        public_key
        if isinstance(public_key, cose.PublicKey)
        else cose.PublicKey(cose.Curve.ED25519, public_key)
    )
    # 1, 2: one COSE_Sign1, canonical, with an empty unprotected header.
    message = cose.read_sign1(data, max_bytes=MAX_RECEIPT_BYTES)
    # 3: the device it names is the one whose key this is.
    if message.kid != device_id(key):
        raise Untrusted(
            "wrong-device",
            "receipt refused",
            "it names another device",
            "look up the key of the device it names",
        )
    if message.payload is None:
        raise Malformed(
            "unexpected-structure",
            "receipt refused",
            "its content is detached",
            "let the device write it again",
        )
    # 4: the signature; 5: only then the content, and nothing but its one encoding.
    cose.check(message, message.payload, key, what="receipt")
    receipt = _decode(message.payload)
    if _encode(receipt) != message.payload:
        _refuse("it is not in its one encoding")
    return receipt
