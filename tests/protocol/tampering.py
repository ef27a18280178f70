"""Envelopes and receipts that must be refused, each with the reason it must be refused for.

All of them are made by someone who holds a genuine signing key or a genuine envelope: what a
stranger can do is a subset of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import cbor, cose, manifest, receipt, suit
from tests.protocol import samples

Edit = Callable[[dict[int, Any]], None]


def _members(envelope: bytes) -> dict[Any, bytes]:
    tag = cbor.loads(envelope, max_bytes=manifest.MAX_ENVELOPE_BYTES, tags=(suit.TAG_ENVELOPE,))
    return dict(tag.value)


def _envelope(members: dict[Any, Any]) -> bytes:
    return cbor.dumps(cbor.Tag(suit.TAG_ENVELOPE, members))


def signed(manifest_bytes: bytes, more: dict[Any, bytes] | None = None) -> bytes:
    """An envelope with a genuine signature over any manifest, with any further members."""
    authenticated = cbor.dumps(suit.write_digest(suit.digest_of(manifest_bytes)))
    block = cose.write_sign1(
        authenticated, cose.signer(samples.SIGNING), kid=samples.SIGNING_PUBLIC.id, detached=True
    )
    members: dict[Any, bytes] = {
        suit.AUTHENTICATION: cbor.dumps([authenticated, block]),
        suit.MANIFEST: manifest_bytes,
    }
    return _envelope(members | (more or {}))


def _edited(edit: Edit) -> bytes:
    """A genuinely signed envelope whose manifest was edited before it was signed."""
    elements = cbor.loads(manifest.build(samples.MANIFEST), max_bytes=4096)
    edit(elements)
    return signed(cbor.dumps(elements))


def _sequence(element: int, edit: Callable[[list[Any]], None]) -> Edit:
    def apply(elements: dict[int, Any]) -> None:
        commands = cbor.loads(elements[element], max_bytes=4096)
        edit(commands)
        elements[element] = cbor.dumps(commands)

    return apply


def _shared(edit: Callable[[list[Any]], None]) -> Edit:
    def apply(elements: dict[int, Any]) -> None:
        common = cbor.loads(elements[suit.COMMON], max_bytes=4096)
        commands = cbor.loads(common[suit.SHARED_SEQUENCE], max_bytes=4096)
        edit(commands)
        common[suit.SHARED_SEQUENCE] = cbor.dumps(commands)
        elements[suit.COMMON] = cbor.dumps(common)

    return apply


def _block(change: Callable[[list[Any]], None], envelope: bytes = samples.ENVELOPE) -> bytes:
    """The genuine envelope with the four parts of its COSE_Sign1 changed."""
    members = _members(envelope)
    authenticated, block = cbor.loads(members[suit.AUTHENTICATION], max_bytes=4096)
    parts = cbor.loads(block, max_bytes=4096, tags=(cose.TAG_SIGN1,)).value
    change(parts)
    changed = cbor.dumps(cbor.Tag(cose.TAG_SIGN1, parts))
    return _envelope(members | {suit.AUTHENTICATION: cbor.dumps([authenticated, changed])})


def _null_kid() -> bytes:
    """Genuinely signed, with a protected header that says null where a key id may stand."""
    members = _members(samples.ENVELOPE)
    authenticated, _ = cbor.loads(members[suit.AUTHENTICATION], max_bytes=4096)
    protected = cbor.dumps({1: cose.ED25519, 4: None})
    message = cbor.dumps(["Signature1", protected, b"", authenticated])
    signature = cose.signer(samples.SIGNING).sign(message)
    block = cbor.dumps(cbor.Tag(cose.TAG_SIGN1, [protected, {}, None, signature]))
    return _envelope(members | {suit.AUTHENTICATION: cbor.dumps([authenticated, block])})


def _two_blocks() -> bytes:
    members = _members(samples.ENVELOPE)
    authenticated, block = cbor.loads(members[suit.AUTHENTICATION], max_bytes=4096)
    return _envelope(members | {suit.AUTHENTICATION: cbor.dumps([authenticated, block, block])})


def _other_manifest() -> bytes:
    other = manifest.build(samples.NOTED)
    return _envelope(_members(samples.ENVELOPE) | {suit.MANIFEST: other})


def _long_length() -> bytes:
    """The first length of the envelope, written one byte longer than it needs to be."""
    head = samples.ENVELOPE.index(bytes((suit.AUTHENTICATION,)) + b"\x58") + 1
    length = samples.ENVELOPE[head + 1]
    return samples.ENVELOPE[:head] + b"\x59\x00" + bytes((length,)) + samples.ENVELOPE[head + 2 :]


def envelopes() -> dict[str, tuple[bytes, str]]:
    """Name -> (envelope, reason of its refusal)."""
    header = cbor.dumps({1: cose.ESP256, 4: samples.SIGNING_PUBLIC.id})
    stranger = manifest.sign(manifest.build(samples.MANIFEST), samples.STRANGER)
    text = {suit.TEXT: manifest.write_text({"en": "Trust me."})}
    foreign = "foreign-manifest"
    return {
        "empty": (b"", "truncated"),
        "cut short": (samples.ENVELOPE[:-1], "truncated"),
        "a byte follows": (samples.ENVELOPE + b"\x00", "trailing-bytes"),
        "too long": (samples.ENVELOPE + bytes(manifest.MAX_ENVELOPE_BYTES), "oversized"),
        "no tag": (samples.ENVELOPE[2:], "not-an-envelope"),
        "a length written long": (_long_length(), "not-canonical"),
        "signed by a stranger": (stranger, "unknown-key"),
        "another manifest": (_other_manifest(), "manifest-digest"),
        "two signatures": (_two_blocks(), "unexpected-structure"),
        "a key id that is null": (_null_kid(), "unexpected-structure"),
        "an unprotected header": (
            _block(lambda parts: parts.__setitem__(1, {4: b"x"})),
            "unexpected-structure",
        ),
        "an attached payload": (
            _block(lambda parts: parts.__setitem__(2, b"x")),
            "unexpected-structure",
        ),
        "the algorithm of another kind of key": (
            _block(lambda parts: parts.__setitem__(0, header)),
            "wrong-algorithm",
        ),
        "the signature of another envelope": (
            _block(lambda parts: parts.__setitem__(3, samples.NOTED_ENVELOPE[-64:])),
            "bad-signature",
        ),
        "other notes than signed": (
            _envelope(_members(samples.NOTED_ENVELOPE) | text),
            "member-digest",
        ),
        "notes the manifest does not name": (
            _envelope(_members(samples.ENVELOPE) | text),
            "unsigned-member",
        ),
        "a severed install sequence": (
            signed(manifest.build(samples.MANIFEST), {suit.INSTALL: b"\x80"}),
            "unsigned-member",
        ),
        "an unknown member": (
            _envelope(_members(samples.ENVELOPE) | {1: b""}),
            "unexpected-structure",
        ),
        "an integrated payload": (
            _envelope(_members(samples.ENVELOPE) | {"payload": samples.CIPHERTEXT}),
            "integrated-payload",
        ),
        "signed: a further manifest element": (
            _edited(lambda elements: elements.update({8: b"\x80"})),
            "unexpected-structure",
        ),
        "signed: another manifest version": (
            _edited(lambda elements: elements.update({1: 2})),
            foreign,
        ),
        "signed: no image check before boot": (
            _edited(_sequence(suit.VALIDATE, lambda commands: commands.__setitem__(2, 14))),
            foreign,
        ),
        "signed: a command more at boot": (
            _edited(_sequence(suit.INVOKE, lambda commands: commands.extend([3, 15]))),
            foreign,
        ),
        "signed: no check of the ciphertext": (
            _edited(_sequence(suit.INSTALL, lambda commands: commands.__setitem__(6, 14))),
            foreign,
        ),
        "signed: a payload from elsewhere": (
            _edited(
                _sequence(
                    suit.INSTALL,
                    lambda commands: commands.__setitem__(3, {suit.URI: "https://a.example/"}),
                )
            ),
            foreign,
        ),
        "signed: a class id of another product": (
            _edited(_shared(lambda commands: commands[3].__setitem__(suit.CLASS_ID, bytes(16)))),
            foreign,
        ),
        "signed: no security counter": (
            _edited(_shared(lambda commands: commands[3].pop(manifest.SECURITY_COUNTER) and None)),
            "unexpected-structure",
        ),
        "signed: ciphertext of another size": (
            _edited(_shared(lambda commands: commands[13].__setitem__(suit.IMAGE_SIZE, 64))),
            foreign,
        ),
        "signed: an image without bytes": (
            _edited(_shared(lambda commands: commands[3].__setitem__(suit.IMAGE_SIZE, 0))),
            "empty-image",
        ),
        "signed: encrypted under AES-GCM": (
            _edited(
                _sequence(
                    suit.INSTALL,
                    lambda commands: commands[11].__setitem__(
                        suit.ENCRYPTION_INFO,
                        samples.INFO.replace(b"\x40\xa2\x01\x39\xff\xfd", b"\x43\xa1\x01\x01\xa1"),
                    ),
                )
            ),
            "encryption-info",
        ),
    }


def receipts() -> dict[str, tuple[bytes, str]]:
    """Name -> (receipt, reason of its refusal by the sample device's key)."""
    genuine = cbor.loads(samples.CONFIRMED_BYTES, max_bytes=1024, tags=(18,)).value
    body = cbor.loads(genuine[2], max_bytes=1024)
    signer, device = cose.signer(samples.DEVICE), receipt.device_id(samples.DEVICE_PUBLIC)

    def changed(position: int, part: Any) -> bytes:
        parts = [*genuine]
        parts[position] = part
        return cbor.dumps(cbor.Tag(18, parts))

    def signed(changes: dict[int, Any]) -> bytes:
        return cose.write_sign1(cbor.dumps(body | changes), signer, kid=device, detached=False)

    stranger = receipt.sign(samples.CONFIRMED, samples.STRANGER)
    forged = cbor.loads(stranger, max_bytes=1024, tags=(18,)).value[3]
    return {
        "empty": (b"", "truncated"),
        "cut short": (samples.CONFIRMED_BYTES[:-1], "truncated"),
        "a byte follows": (samples.CONFIRMED_BYTES + b"\x00", "trailing-bytes"),
        "too long": (samples.CONFIRMED_BYTES + bytes(1024), "oversized"),
        "of another device": (stranger, "wrong-device"),
        "signed by another device": (changed(3, forged), "bad-signature"),
        "another body": (changed(2, cbor.dumps(body | {3: 6})), "bad-signature"),
        "a detached body": (changed(2, None), "unexpected-structure"),
        "an unprotected header": (changed(1, {4: b"x"}), "unexpected-structure"),
        "no device in the header": (changed(0, cbor.dumps({1: cose.ED25519})), "wrong-device"),
        "signed: another format": (signed({1: 2}), "receipt-format"),
        "signed: an unknown outcome": (signed({4: 9}), "receipt"),
        "signed: an unknown key": (signed({14: 1}), "unexpected-structure"),
        "signed: confirmed, with a reason": (signed({5: "why"}), "receipt"),
        "signed: a counter that falls": (signed({7: [7, 6]}), "receipt"),
        "signed: not the first, no previous": (signed({10: 1}), "receipt"),
        "signed: a second encoding of no clock": (signed({9: None}), "receipt"),
        "signed: a release beyond 32 bits": (signed({3: 2**32}), "unexpected-structure"),
        "signed: a flag for a number": (signed({8: True}), "unexpected-structure"),
        "signed: a node without a name": (signed({12: b""}), "receipt"),
        "signed: consent by a number": (signed({13: [1, 2]}), "unexpected-structure"),
    }
