"""The manifest of a release: one form of SUIT manifest, signed by a product key.

Implements draft-ietf-suit-manifest-37 and draft-ietf-suit-firmware-encryption for one A/B
component, profiles suit-sha256-ed25519-ecdh-a128ctr and suit-sha256-esp256-ecdh-a128ctr;
docs/spec/manifest.md gives the bytes.

Guarantees:

* `verify` returns a manifest only if a given key signed it, and it is byte for byte what `build`
  makes of the values returned: no other command, parameter, order or encoding passes.
* What the manifest says is in its own signed bytes: product, version (= sequence number), security
  counter, digest and size of image and payload, and how the payload is encrypted and for whom.
* Every single-bit change of an envelope is refused.

It does *not* say that the release is active, that the signing key is, or that version and counter
are the ledger's: whoever holds the ledger's terms compares them with the `Manifest` returned here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protocol import cbor, cose, payload, suit
from protocol.errors import Malformed, Misuse
from protocol.ids import U32_MAX, U64_MAX, Digest, KeyId, ProductId, Version

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_ENVELOPE_BYTES = 8192
MAX_NOTES_BYTES = 2048
MAX_LANGUAGE_BYTES = 35  # RFC 5646 section 4.4.1

# Private use (labels below -255): no SUIT document has a security counter apart from the sequence
# number. The condition makes a processor that does not know the counter refuse, not ignore it.
SECURITY_COUNTER = -256
CONDITION_SECURITY_COUNTER = -256

# The vendor id of every Firmledger manifest: UUIDv5 of a DNS name that nobody can own (RFC 6761).
VENDOR_ID = uuid.uuid5(uuid.NAMESPACE_DNS, "firmledger.invalid")

_PAYLOAD_COMPONENT = [b"payload"]
_PAYLOAD_URI = "payload"
_IMAGE, _PAYLOAD = 0, 1  # component indices
_TEXT_UPDATE_DESCRIPTION = 2
# Reporting policies: record and system information on success and failure; record on failure.
_REPORT_ALL, _REPORT_FAILURE = 15, 2


def class_id(product: ProductId) -> uuid.UUID:
    """The class id of a product: UUIDv5 of its lower-case hex id in the vendor's namespace."""
    return uuid.uuid5(VENDOR_ID, product.hex())


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the publisher says about one release; every value is one that `build` can encode.

    ``product``, ``version``, ``security_counter``, ``image_digest``, ``image_size`` and
    ``key_epoch`` must equal the ledger's terms (checked by whoever holds them). ``image_digest`` is
    of the plaintext and checked by reading the slot back; ``payload_digest`` is of the ciphertext
    and checked by the download. ``encryption_info`` is `payload.parse_info`'s form. ``text_digest``
    names the notes, if any.
    """

    product: ProductId
    version: Version
    security_counter: int
    image_digest: Digest
    image_size: int
    payload_digest: Digest
    encryption_info: bytes
    text_digest: Digest | None = None

    def __post_init__(self) -> None:
        what = "manifest"
        cbor.as_uint(self.version, f"{what} version", maximum=U64_MAX)
        cbor.as_uint(self.security_counter, f"{what} security counter", maximum=U32_MAX)
        cbor.as_uint(self.image_size, f"{what} image size", maximum=payload.MAX_PAYLOAD_BYTES)
        if self.image_size == 0:
            raise Malformed(
                "empty-image",
                "manifest refused",
                "the image has no bytes",
                "check the firmware file",
            )
        payload.parse_info(self.encryption_info)

    @property
    def payload_size(self) -> int:
        """Bytes of the ciphertext: those of the image, for counter mode adds none."""
        return self.image_size

    @property
    def kid(self) -> bytes:
        """Id of the device-class key that opens the payload (16 bytes, `payload.class_kid`)."""
        kid = payload.parse_info(self.encryption_info).kid
        assert kid is not None  # noqa: S101  # parse_info refuses an info without one
        return kid

    @property
    def key_epoch(self) -> int:
        """Epoch of that key: the ledger's keyEpoch."""
        return payload.kid_epoch(self.kid)


@dataclass(frozen=True, slots=True)
class Verified:
    """A manifest that ``key_id`` signed. ``digest`` is the ledger's manifestDigest.

    ``notes`` maps language tags to release notes; empty where there are none or they were severed.
    """

    manifest: Manifest
    key_id: KeyId
    digest: Digest
    notes: Mapping[str, str]


# Writing


def _shared_sequence(manifest: Manifest) -> list[Any]:
    """Parameters of both components, and who may install; runs before every other sequence."""
    image: dict[int, Any] = {
        suit.VENDOR_ID: VENDOR_ID.bytes,
        suit.CLASS_ID: class_id(manifest.product).bytes,
        suit.IMAGE_DIGEST: cbor.dumps(suit.write_digest(manifest.image_digest)),
        suit.IMAGE_SIZE: manifest.image_size,
        SECURITY_COUNTER: manifest.security_counter,
    }
    ciphertext: dict[int, Any] = {
        suit.IMAGE_DIGEST: cbor.dumps(suit.write_digest(manifest.payload_digest)),
        suit.IMAGE_SIZE: manifest.payload_size,
    }
    return [
        suit.SET_COMPONENT_INDEX, _IMAGE,
        suit.OVERRIDE_PARAMETERS, image,
        suit.CONDITION_VENDOR, _REPORT_ALL,
        suit.CONDITION_CLASS, _REPORT_ALL,
        CONDITION_SECURITY_COUNTER, _REPORT_ALL,
        suit.SET_COMPONENT_INDEX, _PAYLOAD,
        suit.OVERRIDE_PARAMETERS, ciphertext,
    ]  # fmt: skip


def _install_sequence(manifest: Manifest) -> list[Any]:
    """Fetch the ciphertext and check it; decrypt it into the slot and check that."""
    decryption: dict[int, Any] = {
        suit.ENCRYPTION_INFO: manifest.encryption_info,
        suit.SOURCE_COMPONENT: _PAYLOAD,
    }
    return [
        suit.SET_COMPONENT_INDEX, _PAYLOAD,
        suit.OVERRIDE_PARAMETERS, {suit.URI: _PAYLOAD_URI},
        suit.FETCH, _REPORT_FAILURE,
        suit.CONDITION_IMAGE_MATCH, _REPORT_ALL,
        suit.SET_COMPONENT_INDEX, _IMAGE,
        suit.OVERRIDE_PARAMETERS, decryption,
        suit.COPY, _REPORT_FAILURE,
        suit.CONDITION_IMAGE_MATCH, _REPORT_ALL,
    ]  # fmt: skip


def build(manifest: Manifest) -> bytes:
    """The encoded SUIT_Manifest of ``manifest``, ready for `sign`."""
    common = {
        suit.COMPONENTS: [[manifest.product], _PAYLOAD_COMPONENT],
        suit.SHARED_SEQUENCE: cbor.dumps(_shared_sequence(manifest)),
    }
    validate = [suit.SET_COMPONENT_INDEX, _IMAGE, suit.CONDITION_IMAGE_MATCH, _REPORT_ALL]
    invoke = [suit.SET_COMPONENT_INDEX, _IMAGE, suit.INVOKE_IMAGE, _REPORT_FAILURE]
    elements: dict[int, Any] = {
        suit.MANIFEST_VERSION: 1,
        suit.SEQUENCE_NUMBER: manifest.version,
        suit.COMMON: cbor.dumps(common),
        suit.VALIDATE: cbor.dumps(validate),
        suit.INVOKE: cbor.dumps(invoke),
        suit.INSTALL: cbor.dumps(_install_sequence(manifest)),
    }
    if manifest.text_digest is not None:
        elements[suit.TEXT] = suit.write_digest(manifest.text_digest)
    return cbor.dumps(elements)


def write_text(notes: Mapping[str, str]) -> bytes:
    """The encoded SUIT_Text_Map of release notes by language tag; `Misuse` if too long or empty.

    Its `suit.digest_of` is what `Manifest.text_digest` holds.
    """
    for language, text in notes.items():
        if not 0 < len(language) <= MAX_LANGUAGE_BYTES or len(text.encode()) > MAX_NOTES_BYTES:
            raise Misuse(
                "notes-too-long",
                "release notes refused",
                f"a language tag is no tag, or its text has over {MAX_NOTES_BYTES} bytes",
                "shorten the notes and link to the rest",
            )
    if not notes:
        raise Misuse("no-notes", "release notes refused", "there are none", "leave them out")
    return cbor.dumps({tag: {_TEXT_UPDATE_DESCRIPTION: text} for tag, text in notes.items()})


def sign(
    manifest: bytes,
    key: Ed25519PrivateKey | EllipticCurvePrivateKey | cose.Signer,
    *,
    text: bytes | None = None,
) -> bytes:
    """The signed envelope of what `build` returned, at most `MAX_ENVELOPE_BYTES`.

    ``text``: what `write_text` returned, if the manifest has a text digest. `Malformed` for a
    manifest that is not of our form, `Misuse` for a text it does not name.
    """
    wanted = parse(manifest).text_digest
    if text is not None and suit.digest_of(text) != wanted:
        raise Misuse(
            "text-digest",
            "release notes refused",
            "the manifest does not name them",
            "set Manifest.text_digest to their digest",
        )
    signer = key if isinstance(key, cose.Signer) else cose.signer(key)
    authenticated = cbor.dumps(suit.write_digest(suit.digest_of(manifest)))
    block = cose.write_sign1(authenticated, signer, kid=signer.public.id, detached=True)
    members = {suit.AUTHENTICATION: cbor.dumps([authenticated, block]), suit.MANIFEST: manifest}
    if text is not None:
        members[suit.TEXT] = text
    envelope = cbor.dumps(cbor.Tag(suit.TAG_ENVELOPE, members))
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise Misuse(
            "envelope-too-long",
            "envelope refused",
            f"it has {len(envelope)} bytes, more than {MAX_ENVELOPE_BYTES}",
            "shorten the release notes",
        )
    return envelope


# Reading


def parse(data: bytes) -> Manifest:
    """The manifest that ``data`` (a bare SUIT_Manifest) encodes; `Malformed` if it is not our form.

    Values are picked from where our form has them, and `build` must then give the same bytes again:
    that, not the picking, is what refuses foreign commands.
    """
    what = "manifest"
    elements = cbor.as_map(
        cbor.loads(data, max_bytes=MAX_ENVELOPE_BYTES), what,
        required=(suit.MANIFEST_VERSION, suit.SEQUENCE_NUMBER, suit.COMMON,
                  suit.VALIDATE, suit.INVOKE, suit.INSTALL),
        optional=(suit.TEXT,),
    )  # fmt: skip
    common = cbor.as_map(
        _nested(elements[suit.COMMON]), "common", required=(suit.COMPONENTS, suit.SHARED_SEQUENCE)
    )
    image_component, _ = cbor.as_list(common[suit.COMPONENTS], "components", size=2)
    (product,) = cbor.as_list(image_component, "image component", size=1)
    shared = cbor.as_list(_nested(common[suit.SHARED_SEQUENCE]), "shared sequence", size=14)
    image = cbor.as_map(
        shared[3], "image parameters",
        required=(suit.VENDOR_ID, suit.CLASS_ID, suit.IMAGE_DIGEST, suit.IMAGE_SIZE,
                  SECURITY_COUNTER),
    )  # fmt: skip
    ciphertext = cbor.as_map(
        shared[13], "payload parameters", required=(suit.IMAGE_DIGEST, suit.IMAGE_SIZE)
    )
    install = cbor.as_list(_nested(elements[suit.INSTALL]), "install", size=16)
    decryption = cbor.as_map(
        install[11], "decryption parameters", required=(suit.ENCRYPTION_INFO, suit.SOURCE_COMPONENT)
    )
    text = elements.get(suit.TEXT)
    manifest = Manifest(
        product=ProductId(cbor.as_bytes(product, "product id", size=ProductId.size)),
        version=Version(cbor.as_uint(elements[suit.SEQUENCE_NUMBER], "sequence number")),
        security_counter=image[SECURITY_COUNTER],
        image_digest=suit.read_digest(_nested(image[suit.IMAGE_DIGEST]), "image digest"),
        image_size=image[suit.IMAGE_SIZE],
        payload_digest=suit.read_digest(_nested(ciphertext[suit.IMAGE_DIGEST]), "payload digest"),
        encryption_info=cbor.as_bytes(decryption[suit.ENCRYPTION_INFO], "encryption info"),
        text_digest=None if text is None else suit.read_digest(text, "text digest"),
    )
    if build(manifest) != data:
        raise Malformed(
            "foreign-manifest",
            "manifest refused",
            "it has other commands or parameters than a Firmledger manifest",
            "build it with `firmledger release build`",
        )
    return manifest


def _nested(value: Any) -> Any:
    """The value inside a bstr-wrapped element."""
    return cbor.loads(cbor.as_bytes(value, "wrapped element"), max_bytes=MAX_ENVELOPE_BYTES)


def _read_text(data: bytes) -> dict[str, str]:
    languages = cbor.loads(data, max_bytes=MAX_ENVELOPE_BYTES)
    if not isinstance(languages, dict) or not languages:
        raise Malformed(
            "unexpected-structure",
            "release notes refused",
            "they are no map",
            "build the release again",
        )
    notes = {}
    for tag, entry in languages.items():
        cbor.as_text(tag, "language tag", maximum=MAX_LANGUAGE_BYTES)
        fields = cbor.as_map(entry, "release notes", required=(_TEXT_UPDATE_DESCRIPTION,))
        notes[tag] = cbor.as_text(
            fields[_TEXT_UPDATE_DESCRIPTION], "release notes", maximum=MAX_NOTES_BYTES
        )
    return notes


def manifest_digest(envelope: bytes) -> Digest:
    """The ledger's manifestDigest of an envelope: digests are checked, the signature is not."""
    return suit.open_envelope(envelope, max_bytes=MAX_ENVELOPE_BYTES).digest


def verify(envelope: bytes, keys: Mapping[KeyId, cose.PublicKey]) -> Verified:
    """What ``envelope`` says, if one of ``keys`` (those the ledger lets sign) signed it.

    Steps as docs/spec/manifest.md numbers them; `Malformed` where bytes cannot be read, `Untrusted`
    where they do not prove what they claim.
    """
    # 1-4: canonical envelope, digests of manifest and severable members.
    opened = suit.open_envelope(envelope, max_bytes=MAX_ENVELOPE_BYTES)
    if opened.integrated:
        raise Malformed(
            "integrated-payload",
            "envelope refused",
            "it carries a payload inside",
            "keep the payload beside the envelope",
        )
    # 5: the signature, by a key it names.
    key_id = suit.authenticate(opened, keys)
    # 6, 7: our form, down to the encryption info. Members 16 and 20 are not looked for: each came
    # with a digest in the manifest (4), where our form has none of either.
    manifest = parse(opened.manifest)
    # 8: the notes, where they were not severed.
    text = opened.severable.get(suit.TEXT)
    return Verified(manifest, key_id, opened.digest, {} if text is None else _read_text(text))
