"""A product with one release on a sealed ledger, and the bundles a registry would make of it.

Everything is real but small: a signed manifest, a governance, commitments in a storage trie, a
header sealed by four validators. All keys are test vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from protocol import bundle, cose, manifest, payload
from protocol.digests import keccak256, sha256
from protocol.header import encode_header
from protocol.ids import Address, DeviceId, Digest, KeyId, ProductId, Version
from protocol.ledger import StateWord, Status
from protocol.manifest import Manifest
from protocol.proof import assemble
from protocol.records import (
    NOBODY,
    Governance,
    HaltRule,
    Head,
    Ledger,
    Phase,
    Product,
    Release,
    SigningKey,
    State,
    Terms,
)
from tests.protocol.sealed import CODE_HASH, CONTRACT, Validator, World, addresses, validators

NOW = 1_800_000_000
LEDGER = Ledger(20_260, CONTRACT)
PRODUCT_ID = ProductId(keccak256(b"test vector: product"))
DEVICE_ID = DeviceId(sha256(b"test vector: device"))
IMAGE = b"test vector: firmware " * 100
MANIFEST_KEY = cose.ed25519_private_key(sha256(b"test vector: manifest key"))
OTHER_KEY = cose.ed25519_private_key(sha256(b"test vector: another manifest key"))
CLASS_KEY = cose.p256_private_key(sha256(b"test vector: class key"))
EPHEMERAL = cose.p256_private_key(sha256(b"test vector: ephemeral"))
CONTENT_KEY, IV = bytes(range(16)), bytes(range(16, 32))


def ciphertext(image: bytes = IMAGE) -> bytes:
    return payload.Encryptor(CONTENT_KEY, IV).update(image)


def encryption_info(epoch: int = 1) -> bytes:
    public = cose.public_key_of(CLASS_KEY)
    return payload.wrap(CONTENT_KEY, IV, public, payload.class_kid(public, epoch), EPHEMERAL)


def make_manifest(**changes: object) -> Manifest:
    made = Manifest(
        product=PRODUCT_ID,
        version=Version.parse("1.0.0"),
        security_counter=1,
        image_digest=sha256(IMAGE),
        image_size=len(IMAGE),
        payload_digest=sha256(ciphertext()),
        encryption_info=encryption_info(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def make_terms(envelope: bytes, **changes: object) -> Terms:
    made = Terms(
        product_id=PRODUCT_ID,
        version=Version.parse("1.0.0"),
        security_counter=1,
        image_digest=sha256(IMAGE),
        manifest_digest=manifest.manifest_digest(envelope),
        image_size=len(IMAGE),
        hardware_min=1,
        hardware_max=3,
        min_version=0,
        not_before=0,
        expiry=0,
        required_attestations=0,
        critical=False,
        key_epoch=1,
        rollout=(Phase(10_000),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def key_id(key: object = MANIFEST_KEY) -> KeyId:
    return cose.key_id(cose.public_key_of(key))  # type: ignore[arg-type]


def governance(*keys: SigningKey) -> Governance:
    return Governance(
        approvers=tuple(Address(bytes([n]) * 20) for n in (1, 2, 3)),
        threshold=2,
        epoch=1,
        guardians=(),
        auditors=(),
        reporters=(Address(b"\x04" * 20),),
        enroller=NOBODY,
        keys=keys or (SigningKey(key_id()),),
        halt_rule=HaltRule(2, 2000),
        release_delay=0,
        governance_delay=0,
    )


@dataclass(frozen=True)
class Published:
    """One release and what the ledger holds of it; `replace` members to tell another story."""

    envelope: bytes
    signer: bytes
    terms: Terms
    product: Product
    state: State
    release_id: int = 1
    group: tuple[Validator, ...] = tuple(validators(4))
    more_words: tuple[tuple[bytes, int], ...] = ()
    accounts: int = 20

    @property
    def anchor(self) -> bundle.Anchor:
        return bundle.Anchor(LEDGER, PRODUCT_ID, CODE_HASH, addresses(self.group))

    @property
    def static(self) -> bundle.Static:
        return bundle.Static(self.envelope, self.signer, self.terms)

    @property
    def release(self) -> Release:
        return Release(self.release_id, self.terms.hash_struct(), self.state)

    def fresh(
        self,
        number: int = 7,
        timestamp: int = NOW,
        *,
        sealed_by: Sequence[Validator] | None = None,
        claimed: Release | None = None,
        **members: int,
    ) -> bundle.Fresh:
        """The fresh part at one block; ``claimed`` is shown in place of the ledger's release."""
        slots = self.anchor.slots((claimed or self.release).release_id)
        words = dict(self.more_words)
        words[slots[0]] = int.from_bytes(
            LEDGER.product_slot(PRODUCT_ID, self.product, timestamp), "big"
        )
        own = self.anchor.slots(self.release_id)[1]
        words[own] = int.from_bytes(
            LEDGER.release_slot(PRODUCT_ID, self.release_id, self.terms.hash_struct(), self.state),
            "big",
        )
        world = World(words, self.accounts, self.group)
        header = world.header(sealed_by=sealed_by, number=number, timestamp=timestamp, **members)
        if sealed_by is not None:  # not a proof that would verify: assemble it by hand
            good = assemble(
                encode_header(world.header(number=number, timestamp=timestamp)),
                world.get_proof(slots),
            )
            proof = replace(good, header=encode_header(header))
        else:
            proof = assemble(encode_header(header), world.get_proof(slots))
        return bundle.Fresh(proof, self.product, claimed or self.release)

    def with_status(self, status: Status) -> Published:
        word = replace(StateWord.unpack(self.state.word), status=status)
        return replace(self, state=replace(self.state, word=word.pack()))


def publish(
    signed: Manifest | None = None, key: object = MANIFEST_KEY, **terms: object
) -> Published:
    """A good release; ``signed`` and ``terms`` change what is signed and what is agreed."""
    envelope = manifest.sign(manifest.build(signed or make_manifest()), key)  # type: ignore[arg-type]
    agreed = make_terms(envelope, **terms)
    return Published(
        envelope=envelope,
        signer=cose.public_key_to_bytes(cose.public_key_of(key)),  # type: ignore[arg-type]
        terms=agreed,
        product=Product(governance(), head=Head(1, agreed.version, agreed.security_counter)),
        state=State(NOW - 100, StateWord(Status.ACTIVE).pack()),
    )


def flipped(data: bytes, bit: int) -> bytes:
    """``data`` with one bit changed."""
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


__all__ = ["Digest", "Published", "flipped", "publish"]
