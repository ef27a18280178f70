"""Keys and signatures as COSE has them (RFC 9052, RFC 9053, RFC 9864), in the few forms used here.

Guarantees:

* A public key has one encoding: the deterministic COSE_Key of its required parameters, which is the
  input of its RFC 9679 thumbprint; so equal keys have equal bytes and equal ids.
* A COSE_Sign1 is read only with an empty unprotected header and a protected one that holds the
  algorithm and, where it has one, the key id: no bit of it stays unsigned.
* An algorithm is accepted only with the type of key it belongs to.

Rules: Ed25519 (-19) and ESP256 (-9) are written; ES256 (-7), ESP256 under its older name, is read
as well, for the SUIT draft's own examples use it. `cryptography` computes; it is imported where it
is used, so that a command that verifies nothing does not load it.

It does *not* decide whether a key may sign what it signed: that is the ledger's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from protocol import cbor
from protocol.digests import sha256
from protocol.errors import Malformed, Misuse, Untrusted
from protocol.ids import KeyId

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ED25519 = -19
ESP256 = -9
ES256 = -7

TAG_SIGN1 = 18
MAX_KEY_BYTES = 128
MAX_SIGN1_HEADER_BYTES = 64
SIGNATURE_BYTES = 64

_HEADER_ALGORITHM, _HEADER_KID = 1, 4
_P256_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_P25519 = 2**255 - 19
_EDWARDS_D = -121665 * pow(121666, -1, _P25519) % _P25519
_ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _P25519 - 1, _ORDER_8_Y, _P25519 - _ORDER_8_Y})
"""Of the eight points whose order divides 8: order 4; 1; 2; and the four of order 8."""


class Curve(Enum):
    """The two kinds of key, each with the algorithms it verifies; it signs with the first."""

    ED25519 = (ED25519,)
    P256 = (ESP256, ES256)


def _bad_key(why: str) -> NoReturn:
    raise Malformed("bad-key", "public key refused", why, "check that it was copied whole")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: ``raw`` is the 32 bytes of Ed25519 (RFC 8032), or x and y of P-256, 64 bytes.

    It is a point of its curve in its one encoding, and none of small order: checked here, at the
    price of one power modulo p. Under an Ed25519 key of small order, signatures hold that nobody
    made.
    """

    curve: Curve
    raw: bytes

    def __post_init__(self) -> None:
        if self.curve is Curve.ED25519:
            _require_edwards_point(self.raw)
            return
        if len(self.raw) != 64:
            _bad_key(f"a P-256 key has 64 bytes, not {len(self.raw)}")
        x, y = int.from_bytes(self.raw[:32], "big"), int.from_bytes(self.raw[32:], "big")
        if x >= _P256_P or y >= _P256_P or (y * y - x * x * x + 3 * x - _P256_B) % _P256_P:
            _bad_key("it is no point of P-256")

    @property
    def id(self) -> KeyId:
        """The key's RFC 9679 thumbprint."""
        return key_id(self)


def _require_edwards_point(raw: bytes) -> None:
    """RFC 8032, 5.1.3, without computing x: y below p, x^2 a square, no small order."""
    if len(raw) != 32:
        _bad_key(f"an Ed25519 key has 32 bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y in _SMALL_ORDER_Y:  # among them the two whose x is 0, so that either sign is left to x
        _bad_key("it is an Ed25519 point of small order, under which anything is signed")
    square = y * y % _P25519
    # x^2 = u/v; u/v is a square exactly if u*v is, and u is not 0 here.
    product = (square - 1) * (_EDWARDS_D * square + 1) % _P25519
    if y >= _P25519 or pow(product, (_P25519 - 1) // 2, _P25519) != 1:
        _bad_key("it is no point of Ed25519 in its one encoding")


def cose_key(key: PublicKey) -> dict[int, int | bytes]:
    """The COSE_Key map of a public key: required parameters only (RFC 9679 section 4)."""
    if key.curve is Curve.ED25519:
        return {1: 1, -1: 6, -2: key.raw}
    return {1: 2, -1: 1, -2: key.raw[:32], -3: key.raw[32:]}


def public_key_from_map(value: object) -> PublicKey:
    """The public key of a decoded COSE_Key map; `Malformed` if it is not one of our two kinds."""
    match value:
        case {1: 1, -1: 6, -2: bytes(x), **rest} if not rest:
            return PublicKey(Curve.ED25519, x)
        case {1: 2, -1: 1, -2: bytes(x), -3: bytes(y), **rest} if not rest and len(x) == len(y):
            return PublicKey(Curve.P256, x + y)
    _bad_key("it is neither Ed25519 nor P-256 in the form of RFC 9679")


def public_key_to_bytes(key: PublicKey) -> bytes:
    """The one encoding of ``key``: a deterministic COSE_Key (40 or 75 bytes)."""
    return cbor.dumps(cose_key(key))


def public_key_from_bytes(data: bytes) -> PublicKey:
    """The inverse of `public_key_to_bytes`; `Malformed` for anything it would not have written."""
    key = public_key_from_map(cbor.loads(data, max_bytes=MAX_KEY_BYTES))
    if public_key_to_bytes(key) != data:
        _bad_key("it is not in its one encoding")
    return key


def key_id(key: PublicKey) -> KeyId:
    """SHA-256 thumbprint of the COSE_Key (RFC 9679 section 5)."""
    return KeyId(sha256(public_key_to_bytes(key)))


# Private keys: made from secrets that the caller drew


def ed25519_private_key(secret: bytes) -> Ed25519PrivateKey:
    """The Ed25519 key of a 32-byte secret (RFC 8032 5.1.5); `Malformed` on another length."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if len(secret) != 32:
        _bad_key("an Ed25519 secret has 32 bytes")
    return Ed25519PrivateKey.from_private_bytes(secret)


def p256_private_key(secret: bytes) -> EllipticCurvePrivateKey:
    """The P-256 key of a 32-byte scalar, 1 to n - 1; `Malformed` otherwise (draw again)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    scalar = int.from_bytes(secret, "big")
    if len(secret) != 32 or not 0 < scalar < _P256_N:
        _bad_key("a P-256 secret is a 32-byte number of 1 to n - 1")
    return ec.derive_private_key(scalar, ec.SECP256R1())


def public_key_of(private_key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> PublicKey:
    """The public half of a private key; `Malformed` if it is neither Ed25519 nor P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    public = private_key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        return PublicKey(Curve.ED25519, public.public_bytes_raw())
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        point = public.public_numbers()
        return PublicKey(Curve.P256, point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big"))
    _bad_key("it is neither Ed25519 nor P-256")


def p256_public_key(key: PublicKey) -> EllipticCurvePublicKey:
    """``key`` as `cryptography` has it; `Malformed` if it is not P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec

    if key.curve is not Curve.P256:
        _bad_key("a P-256 key is needed here")
    x, y = int.from_bytes(key.raw[:32], "big"), int.from_bytes(key.raw[32:], "big")
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs wherever it is kept: ``sign(message)`` returns the 64 bytes COSE wants."""

    public: PublicKey
    sign: Callable[[bytes], bytes]


def signer(private_key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> Signer:
    """A signer over a private key in memory; P-256 signs deterministically (RFC 6979)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

    public = public_key_of(private_key)
    if isinstance(private_key, ed25519.Ed25519PrivateKey):
        return Signer(public, private_key.sign)
    key, rfc6979 = private_key, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)

    def sign_p256(message: bytes) -> bytes:
        r, s = utils.decode_dss_signature(key.sign(message, rfc6979))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return Signer(public, sign_p256)


# COSE_Sign1 (RFC 9052 section 4.2)


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1 as read; nothing of it is verified until `check` was called.

    ``payload`` is None where it is detached, ``kid`` None where the header names no key.
    """

    protected: bytes
    algorithm: int
    kid: bytes | None
    payload: bytes | None
    signature: bytes


def read_sign1(data: bytes, *, max_bytes: int) -> Sign1:
    """Parse a tagged COSE_Sign1; `Malformed` unless it is of the one form described above."""
    what = "COSE_Sign1"
    tag = cbor.loads(data, max_bytes=max_bytes, tags=(TAG_SIGN1,))
    if not isinstance(tag, cbor.Tag):
        raise Malformed(
            "unexpected-structure",
            f"{what} refused",
            "it lacks tag 18",
            "get it again from its author",
        )
    protected, unprotected, payload, signature = cbor.as_list(tag.value, what, size=4)
    cbor.as_map(unprotected, "unprotected header", required=())
    encoded = cbor.as_bytes(protected, "protected header", maximum=MAX_SIGN1_HEADER_BYTES)
    header = cbor.as_map(
        cbor.loads(encoded, max_bytes=MAX_SIGN1_HEADER_BYTES),
        "protected header",
        required=(_HEADER_ALGORITHM,),
        optional=(_HEADER_KID,),
    )
    algorithm = header[_HEADER_ALGORITHM]
    if isinstance(algorithm, bool) or not isinstance(algorithm, int):
        raise Malformed(
            "unexpected-structure",
            f"{what} refused",
            "its algorithm is no integer",
            "get it again from its author",
        )
    kid = None
    if _HEADER_KID in header:  # a header that has one names a key: null is not "none"
        kid = cbor.as_bytes(header[_HEADER_KID], "key id")
    return Sign1(
        protected=encoded,
        algorithm=algorithm,
        kid=kid,
        payload=None if payload is None else cbor.as_bytes(payload, "payload"),
        signature=cbor.as_bytes(signature, "signature", size=SIGNATURE_BYTES),
    )


def write_sign1(payload: bytes, key: Signer, *, kid: bytes, detached: bool) -> bytes:
    """Sign ``payload`` and return the tagged COSE_Sign1, without the payload if ``detached``."""
    protected = cbor.dumps({_HEADER_ALGORITHM: key.public.curve.value[0], _HEADER_KID: kid})
    signature = key.sign(_signed_bytes(protected, payload))
    if len(signature) != SIGNATURE_BYTES:
        raise Misuse(
            "bad-signer",
            "signature refused",
            f"its signer gave {len(signature)} bytes",
            "let it return 64: R and S as COSE has them",
        )
    content = None if detached else payload
    return cbor.dumps(cbor.Tag(TAG_SIGN1, [protected, {}, content, signature]))


def _signed_bytes(protected: bytes, payload: bytes) -> bytes:
    """Sig_structure of RFC 9052 section 4.4, without external data."""
    return cbor.dumps(["Signature1", protected, b"", payload])


def check(message: Sign1, payload: bytes, key: PublicKey, *, what: str) -> None:
    """`Untrusted` unless ``message`` is a signature over ``payload`` by ``key``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

    if message.algorithm not in key.curve.value:
        raise Untrusted(
            "wrong-algorithm",
            f"{what} refused",
            f"COSE algorithm {message.algorithm} does not belong to its key",
            "have it signed with -19 (Ed25519) or -9 (ESP256)",
        )
    signed, signature = _signed_bytes(message.protected, payload), message.signature
    try:
        if key.curve is Curve.ED25519:
            ed25519.Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, signed)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            der = utils.encode_dss_signature(r, s)
            p256_public_key(key).verify(der, signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise Untrusted(
            "bad-signature",
            f"{what} refused",
            f"its signature is not by key {key.id}",
            "get it again from its author; it may be forged",
        ) from None
