"""SUIT envelopes in general (draft-ietf-suit-manifest-37): what every signed manifest must fulfil.

Guarantees: an `Envelope` has canonical encoding, a manifest that its authenticated digest covers
(the digest of the bstr-wrapped manifest, header included: section 8.3), and only severable members
that the manifest's own digests cover; `authenticate` says which key signed that digest.

Rules:

* One authentication block. A second one would be bytes that nobody vouches for.
* Every integer-keyed member is digest-checked or refused. A verifier that stops at the manifest's
  digest accepts many single-bit changes of an envelope, for members and unprotected headers stand
  outside of it.

It does *not* run or judge commands (`protocol.manifest` knows our one form), and members with text
keys (integrated payloads) are handed over unchecked: image digests in the manifest bind those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol import cbor, cose
from protocol.digests import sha256
from protocol.errors import Malformed, Untrusted
from protocol.ids import Digest, KeyId

TAG_ENVELOPE = 107
AUTHENTICATION, MANIFEST = 2, 3
SHA_256 = -16

# Manifest elements (section 8.4)
MANIFEST_VERSION, SEQUENCE_NUMBER, COMMON = 1, 2, 3
VALIDATE, INVOKE, PAYLOAD_FETCH, INSTALL, TEXT = 7, 9, 16, 20, 23
SEVERABLE = frozenset({PAYLOAD_FETCH, INSTALL, TEXT})
COMPONENTS, SHARED_SEQUENCE = 2, 4

# Commands
CONDITION_VENDOR, CONDITION_CLASS, CONDITION_IMAGE_MATCH = 1, 2, 3
SET_COMPONENT_INDEX, OVERRIDE_PARAMETERS, FETCH, COPY, INVOKE_IMAGE = 12, 20, 21, 22, 23

# Parameters
VENDOR_ID, CLASS_ID, IMAGE_DIGEST, IMAGE_SIZE = 1, 2, 3, 14
ENCRYPTION_INFO, URI, SOURCE_COMPONENT = 19, 21, 22

_MAX_DIGEST_BYTES = 64
_MAX_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope whose digests hold; its ``block`` is still to be authenticated.

    ``manifest`` is the encoded manifest map and ``elements`` that map decoded; ``authenticated`` is
    the encoded SUIT_Digest, which the block covers; ``severable`` holds members the manifest's
    digests cover, ``integrated`` payloads that nothing here has checked.
    """

    manifest: bytes
    elements: Mapping[int, Any]
    digest: Digest
    authenticated: bytes
    block: bytes
    severable: Mapping[int, bytes]
    integrated: Mapping[str, bytes]


def digest_of(member: bytes) -> Digest:
    """The SUIT digest of an envelope member: SHA-256 over its bstr encoding, header included."""
    return sha256(cbor.dumps(member))


def write_digest(digest: bytes) -> list[Any]:
    """A SUIT_Digest over SHA-256, undecorated (section 10)."""
    return [SHA_256, digest]


def read_digest(value: Any, what: str) -> Digest:
    """The digest of a decoded SUIT_Digest; `Malformed` unless it is SHA-256."""
    algorithm, digest = cbor.as_list(value, what, size=2)
    if isinstance(algorithm, bool) or algorithm != SHA_256:
        raise Malformed(
            "digest-algorithm",
            f"{what} refused",
            "it is not SHA-256 (-16)",
            "build the manifest with SHA-256",
        )
    return Digest(cbor.as_bytes(digest, what, size=Digest.size))


def open_envelope(data: bytes, *, max_bytes: int) -> Envelope:
    """Read an envelope and check all of its digests; `Malformed` or `Untrusted`.

    1. Length, canonical CBOR, tag 107, members of known keys, each a byte string.
    2. One authentication block beside the SUIT_Digest.
    3. SHA-256 of the bstr-wrapped manifest equals that digest.
    4. Every severable member matches the digest the manifest has under the same key.
    """
    tag = cbor.loads(data, max_bytes=max_bytes, tags=(TAG_ENVELOPE,))
    if not isinstance(tag, cbor.Tag) or not isinstance(tag.value, dict):
        raise Malformed(
            "not-an-envelope",
            "envelope refused",
            "it is no tagged SUIT envelope",
            "give the .suit file that `release build` wrote",
        )
    integrated = {key: member for key, member in tag.value.items() if isinstance(key, str)}
    members = {key: member for key, member in tag.value.items() if key not in integrated}
    cbor.as_map(members, "envelope", required=(AUTHENTICATION, MANIFEST), optional=SEVERABLE)
    for key, member in tag.value.items():
        cbor.as_bytes(member, f"envelope member {key!r:.40}")

    wrapper = cbor.loads(members[AUTHENTICATION], max_bytes=max_bytes)
    authenticated, block = (
        cbor.as_bytes(item, "authentication wrapper")
        for item in cbor.as_list(wrapper, "authentication wrapper", size=2)
    )
    digest = read_digest(cbor.loads(authenticated, max_bytes=_MAX_DIGEST_BYTES), "manifest digest")
    if digest_of(members[MANIFEST]) != digest:
        raise Untrusted(
            "manifest-digest",
            "envelope refused",
            "its manifest is not the one its digest names",
            "get it again",
        )
    elements = cbor.loads(members[MANIFEST], max_bytes=max_bytes)
    if not isinstance(elements, dict):
        raise Malformed(
            "not-a-manifest",
            "envelope refused",
            "its manifest is no map",
            "build the release again",
        )
    severable = {key: members[key] for key in sorted(SEVERABLE & members.keys())}
    _check_severable(severable, elements)
    return Envelope(
        members[MANIFEST], elements, digest, authenticated, block, severable, integrated
    )


def _check_severable(severable: Mapping[int, bytes], elements: Mapping[int, Any]) -> None:
    for key, member in severable.items():
        if not isinstance(elements.get(key), list):
            raise Untrusted(
                "unsigned-member",
                "envelope refused",
                f"the manifest has no digest for its member {key}",
                "get it again",
            )
        if digest_of(member) != read_digest(elements[key], f"digest of member {key}"):
            raise Untrusted(
                "member-digest",
                "envelope refused",
                f"its member {key} is not the one the manifest names",
                "get it again",
            )


def authenticate(envelope: Envelope, keys: Mapping[KeyId, cose.PublicKey]) -> KeyId:
    """Which of ``keys`` signed the envelope; `Malformed` or `Untrusted`.

    A block that names its key (protected ``kid``, a thumbprint) is checked with that key alone;
    otherwise each key whose kind fits the algorithm is tried.
    """
    block = cose.read_sign1(envelope.block, max_bytes=_MAX_BLOCK_BYTES)
    if block.payload is not None:
        raise Malformed(
            "unexpected-structure",
            "envelope refused",
            "its signature is not detached",
            "build the release again",
        )
    if block.kid is not None:
        candidates = [keys[KeyId(block.kid)]] if block.kid in keys else []
    else:
        candidates = [key for key in keys.values() if block.algorithm in key.curve.value]
    for key in candidates[:-1]:
        try:
            cose.check(block, envelope.authenticated, key, what="envelope")
        except Untrusted:
            continue
        return key.id
    if not candidates:
        named = f"key {block.kid.hex()}" if block.kid else f"COSE algorithm {block.algorithm}"
        raise Untrusted(
            "unknown-key",
            "envelope refused",
            f"no trusted signing key is {named}",
            "check the product's signing keys on the ledger",
        )
    cose.check(block, envelope.authenticated, candidates[-1], what="envelope")
    return candidates[-1].id
