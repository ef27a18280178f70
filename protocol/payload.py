"""The encrypted payload: AES-128 in counter mode, its key wrapped for a product's device class.

Implements draft-ietf-suit-firmware-encryption with content encryption A128CTR (COSE -65534, RFC
9459) and key agreement ECDH-ES+A128KW on P-256 (COSE -29). The record that carries both is the
SUIT_Encryption_Info, a COSE_Encrypt; it stands inside the signed manifest.

Rules:

* Counter mode can be resumed at any byte and authenticates nothing, so it is never trusted by
  itself: the signed manifest binds the digest and size of the ciphertext (checked before the image
  is used) and of the plaintext (checked again by reading the slot back).
* A content key encrypts one payload, once. Key, counter block and ephemeral key are arguments,
  drawn anew by the caller for every build: this room has no randomness of its own.
* A payload has fewer than 2**32 blocks of 16 bytes.

`read_info` and `unwrap_key` also read what the draft's examples use (A128GCM content, A128KW
recipients); `parse_info` accepts our one form only, and `unwrap` goes through it.

It does *not* fetch, store or hash anything, and it does not check who signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from protocol import cbor, cose
from protocol.errors import Malformed, Misuse, Refused, Untrusted
from protocol.ids import U32_MAX

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

A128CTR = -65534
A128GCM = 1
A128KW = -3
ECDH_ES_A128KW = -29

TAG_ENCRYPT = 96
KEY_BYTES = 16
BLOCK_BYTES = 16
KID_BYTES = 16
MAX_PAYLOAD_BYTES = (2**32 - 1) * BLOCK_BYTES
MAX_INFO_BYTES = 512

_HEADER_ALGORITHM, _HEADER_KID, _HEADER_IV, _HEADER_EPHEMERAL = 1, 4, 5, -1
_WRAPPED_BYTES = KEY_BYTES + 8
_SUPP_PUB_OTHER = b"SUIT Payload Encryption"
_RECIPIENT_PROTECTED = cbor.dumps({_HEADER_ALGORITHM: ECDH_ES_A128KW})


def class_kid(class_public: cose.PublicKey, epoch: int) -> bytes:
    """The key id of a device-class key, 16 bytes: epoch (uint32) and 12 bytes of its thumbprint."""
    if not 0 <= epoch <= U32_MAX:
        raise Misuse(
            "epoch-range", "key epoch refused", f"{epoch} is not a uint32", "use 0 to 4294967295"
        )
    return epoch.to_bytes(4, "big") + cose.key_id(class_public)[:12]


def kid_epoch(kid: bytes) -> int:
    """The epoch that a `class_kid` names."""
    return int.from_bytes(kid[:4], "big")


@dataclass(frozen=True, slots=True)
class EncryptionInfo:
    """A SUIT_Encryption_Info with one recipient, as read.

    ``content_protected`` and ``recipient_protected`` are header bytes as they were encoded;
    ``ephemeral`` is None for A128KW. ``wrapped`` is the content key under AES Key Wrap (24 bytes).
    """

    content_algorithm: int
    content_protected: bytes
    iv: bytes
    recipient_algorithm: int
    recipient_protected: bytes
    kid: bytes | None
    ephemeral: cose.PublicKey | None
    wrapped: bytes


def _refuse(why: str) -> NoReturn:
    raise Malformed(
        "encryption-info",
        "encryption info refused",
        why,
        "build the release again with a supported encryption profile",
    )


def read_info(data: bytes) -> EncryptionInfo:
    """Read the encryption info of any of the draft's examples; `Malformed` for anything else.

    Lenient in one point: map keys need not be sorted (the draft's are not). `parse_info` is not.
    """
    tag = cbor.loads(data, max_bytes=MAX_INFO_BYTES, tags=(TAG_ENCRYPT,), sorted_keys=False)
    if not isinstance(tag, cbor.Tag):
        _refuse("it lacks tag 96")
    protected, unprotected, content, recipients = cbor.as_list(tag.value, "COSE_Encrypt", size=4)
    if content is not None:
        _refuse("its ciphertext is not detached")
    header = _headers(protected, unprotected)
    (recipient,) = cbor.as_list(recipients, "recipients", size=1)
    r_protected, r_unprotected, wrapped = cbor.as_list(recipient, "recipient", size=3)
    r_header = _headers(r_protected, r_unprotected)
    if header.keys() != {_HEADER_ALGORITHM, _HEADER_IV}:
        _refuse("its content header holds something else than algorithm and IV")
    if not r_header.keys() <= {_HEADER_ALGORITHM, _HEADER_KID, _HEADER_EPHEMERAL}:
        _refuse("its recipient header holds something else than algorithm, key id and key")
    ephemeral = r_header.get(_HEADER_EPHEMERAL)
    kid = r_header.get(_HEADER_KID)
    return EncryptionInfo(
        content_algorithm=header[_HEADER_ALGORITHM],
        content_protected=protected,
        iv=cbor.as_bytes(header[_HEADER_IV], "IV", maximum=BLOCK_BYTES),
        recipient_algorithm=r_header.get(_HEADER_ALGORITHM, 0),
        recipient_protected=r_protected,
        kid=None if kid is None else cbor.as_bytes(kid, "key id", maximum=32),
        ephemeral=None if ephemeral is None else cose.public_key_from_map(ephemeral),
        wrapped=cbor.as_bytes(wrapped, "wrapped key", size=_WRAPPED_BYTES),
    )


def _headers(protected: Any, unprotected: Any) -> dict[int, Any]:
    """Both halves of a header in one map; `Malformed` if a parameter stands in both."""
    encoded = cbor.as_bytes(protected, "protected header", maximum=32)
    inner = cbor.loads(encoded, max_bytes=32) if encoded else {}
    if not isinstance(inner, dict) or not isinstance(unprotected, dict):
        _refuse("a header is no map")
    if inner.keys() & unprotected.keys():
        _refuse("a header parameter stands there twice")
    return {**inner, **unprotected}


def parse_info(data: bytes) -> EncryptionInfo:
    """The encryption info of a Firmledger manifest: `read_info`, and exactly our form.

    `Malformed` unless writing it again gives the same bytes: A128CTR with a 16-byte IV, one
    ECDH-ES+A128KW recipient with a 16-byte key id and an uncompressed P-256 key, no other header.
    """
    info = read_info(data)
    if info.kid is None or info.ephemeral is None:
        _refuse("it names no recipient key or brings no ephemeral key")
    if len(info.kid) != KID_BYTES or len(info.iv) != BLOCK_BYTES:
        _refuse("its key id or IV does not have 16 bytes")
    if _write_info(info.iv, info.kid, info.ephemeral, info.wrapped) != data:
        _refuse("it is not A128CTR with ECDH-ES+A128KW on P-256 in the one form of docs/spec")
    return info


def _write_info(iv: bytes, kid: bytes, ephemeral: cose.PublicKey, wrapped: bytes) -> bytes:
    recipient_header = {_HEADER_KID: kid, _HEADER_EPHEMERAL: cose.cose_key(ephemeral)}
    recipient = [_RECIPIENT_PROTECTED, recipient_header, wrapped]
    # RFC 9459 section 4: the protected header of an unauthenticated cipher is empty.
    header = {_HEADER_ALGORITHM: A128CTR, _HEADER_IV: iv}
    return cbor.dumps(cbor.Tag(TAG_ENCRYPT, [b"", header, None, [recipient]]))


# Wrapping the content key


def kdf_context(protected: bytes = _RECIPIENT_PROTECTED) -> bytes:
    """The COSE_KDF_Context (RFC 9053 section 5.2) of a recipient with that protected header."""
    nobody = [None, None, None]
    return cbor.dumps([A128KW, nobody, nobody, [8 * KEY_BYTES, protected, _SUPP_PUB_OTHER]])


def _key_encryption_key(
    private_key: EllipticCurvePrivateKey, public: cose.PublicKey, protected: bytes
) -> bytes:
    """ECDH, then HKDF-SHA-256 without salt over the KDF context (RFC 9053 section 6.3)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    shared = private_key.exchange(ec.ECDH(), cose.p256_public_key(public))
    hkdf = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=kdf_context(protected))
    return hkdf.derive(shared)


def wrap(
    content_key: bytes,
    iv: bytes,
    recipient_public: cose.PublicKey,
    kid: bytes,
    ephemeral_private: EllipticCurvePrivateKey,
) -> bytes:
    """The encryption info that gives ``content_key`` to the holder of the device-class key.

    ``content_key`` and ``iv``: 16 bytes each, ``kid``: `class_kid` of the recipient, the ephemeral
    key: P-256; key, IV and ephemeral key fresh for this build. `Misuse` on wrong lengths.
    """
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    if len(content_key) != KEY_BYTES or len(iv) != BLOCK_BYTES or len(kid) != KID_BYTES:
        raise Misuse(
            "key-length",
            "payload key refused",
            "key, IV or key id has not 16 bytes",
            "draw 16 bytes each; take the key id from class_kid",
        )
    ephemeral = cose.public_key_of(ephemeral_private)
    kek = _key_encryption_key(ephemeral_private, recipient_public, _RECIPIENT_PROTECTED)
    return _write_info(iv, kid, ephemeral, aes_key_wrap(kek, content_key))


def unwrap(
    encryption_info: bytes, class_private_key: EllipticCurvePrivateKey, kid: bytes
) -> tuple[bytes, bytes]:
    """(content key, IV) of the payload, 16 bytes each.

    `Malformed` if the info is not in our form, `Refused` if it is for another key or epoch than
    ``kid``, `Untrusted` if the wrapped key does not open. Only for info from a verified manifest.
    """
    info = parse_info(encryption_info)
    if info.kid != kid:
        raise Refused(
            "class-key-epoch",
            "payload refused",
            f"it is encrypted for class key {info.kid.hex() if info.kid else ''}, "
            f"this device holds {kid.hex()}",
            "give the device the class key of that epoch",
            needed_epoch=kid_epoch(info.kid or b""),
            held_epoch=kid_epoch(kid),
        )
    return unwrap_key(info, class_private_key), info.iv


def unwrap_key(info: EncryptionInfo, key: EllipticCurvePrivateKey | bytes) -> bytes:
    """The 16-byte content key, by a P-256 key (ECDH-ES+A128KW) or a 16-byte one (A128KW)."""
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

    if info.recipient_algorithm == ECDH_ES_A128KW and info.ephemeral and not isinstance(key, bytes):
        kek = _key_encryption_key(key, info.ephemeral, info.recipient_protected)
    elif info.recipient_algorithm == A128KW and not info.ephemeral and isinstance(key, bytes):
        kek = key
    else:
        _refuse(f"recipient algorithm {info.recipient_algorithm} does not go with this kind of key")
    try:
        return aes_key_unwrap(kek, info.wrapped)
    except InvalidUnwrap:
        raise Untrusted(
            "class-key-mismatch",
            "payload key refused",
            "it does not open with this device-class key",
            "check that the class key belongs to this product and epoch",
        ) from None


# The payload itself


class _CounterMode:
    """AES-128-CTR from a byte offset on; encryption and decryption are the same operation."""

    def __init__(self, content_key: bytes, iv: bytes, offset: int = 0) -> None:
        """``offset``: bytes of the payload already processed, 0 to `MAX_PAYLOAD_BYTES`."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        if len(content_key) != KEY_BYTES or len(iv) != BLOCK_BYTES:
            raise Misuse(
                "key-length",
                "payload key refused",
                "key or IV has not 16 bytes",
                "take both from unwrap",
            )
        self._left = MAX_PAYLOAD_BYTES - offset
        if not 0 <= self._left <= MAX_PAYLOAD_BYTES:
            raise Misuse(
                "payload-offset",
                "payload refused",
                f"offset {offset} is out of range",
                f"use 0 to {MAX_PAYLOAD_BYTES}",
            )
        blocks, inside = divmod(offset, BLOCK_BYTES)
        counter = (int.from_bytes(iv, "big") + blocks) % 2**128
        mode = modes.CTR(counter.to_bytes(BLOCK_BYTES, "big"))
        self._cipher = Cipher(algorithms.AES(content_key), mode).encryptor()
        self._cipher.update(bytes(inside))

    def update(self, data: bytes) -> bytes:
        """The next piece, of the same length; `Misuse` beyond `MAX_PAYLOAD_BYTES`."""
        self._left -= len(data)
        if self._left < 0:
            raise Misuse(
                "payload-too-long",
                "payload refused",
                f"it passes {MAX_PAYLOAD_BYTES} bytes",
                "split the image",
            )
        return self._cipher.update(data)


class Encryptor(_CounterMode):
    """Encrypts a payload piece by piece."""


class Decryptor(_CounterMode):
    """Decrypts a payload piece by piece; only the image digest says whether it is the image."""
