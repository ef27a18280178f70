"""A whole registry in memory, for tests of the device: real bundles of a real (small) chain.

`Maker` builds releases as a publisher does, `Chain` commits to them and seals blocks, `Registry`
implements the device's `Source`. All keys are test vectors.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from device_client.core.book import Book
from device_client.core.machine import State as MachineState
from device_client.core.trust import TrustState
from device_client.core.types import Surroundings, Verdict
from device_client.ports import Question, Source
from protocol import cose, ledger, manifest, payload
from protocol.bundle import Acknowledgement, Anchor, Bundle, Fresh, Static, assemble
from protocol.digests import inclusion_proof, leaf_hash, merkle_root, sha256
from protocol.errors import Unreachable
from protocol.ids import Address, DeviceId, Digest, Hash, ProductId, Version
from protocol.receipt import Receipt, device_id, sign, verify
from protocol.records import (
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
from protocol.trustfile import TrustFile
from tests.protocol import sealed

NOW = 1_800_000_000
PRODUCT = ProductId(sha256(b"test vector: product"))
LEDGER = Ledger(1337, sealed.CONTRACT)
SIGNING_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(b"test vector: signing key"))
CLASS_KEY = ec.derive_private_key(
    int.from_bytes(sha256(b"test vector: class key"), "big") >> 1, ec.SECP256R1()
)
VALIDATORS = sealed.validators(4)
KID = payload.class_kid(cose.public_key_of(CLASS_KEY), 1)


@dataclass(frozen=True)
class Made:
    """A release as its publisher has it."""

    static: Static
    payload: bytes
    image: bytes


def make(
    image: bytes,
    version: str,
    counter: int = 1,
    *,
    signing_key: ed25519.Ed25519PrivateKey = SIGNING_KEY,
    product: ProductId = PRODUCT,
    claimed: bytes | None = None,
    **terms: object,
) -> Made:
    """A signed release of ``image``; ``terms`` replace members of the terms.

    ``claimed``: the image that manifest and terms name, if it is another one.
    """
    seed = sha256(version.encode() + image)
    key, iv = bytes(seed[:16]), bytes(seed[16:])
    ephemeral = ec.derive_private_key(int.from_bytes(seed, "big") >> 1, ec.SECP256R1())
    ciphertext = payload.Encryptor(key, iv).update(image)
    info = payload.wrap(key, iv, cose.public_key_of(CLASS_KEY), KID, ephemeral)
    signed = manifest.Manifest(
        product=product,
        version=Version.parse(version),
        security_counter=counter,
        image_digest=sha256(image if claimed is None else claimed),
        image_size=len(image),
        payload_digest=sha256(ciphertext),
        encryption_info=info,
    )
    envelope = manifest.sign(manifest.build(signed), signing_key)
    agreed = Terms(
        product_id=product,
        version=signed.version,
        security_counter=counter,
        image_digest=signed.image_digest,
        manifest_digest=manifest.manifest_digest(envelope),
        image_size=len(image),
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
    agreed = dataclasses.replace(agreed, **terms)  # type: ignore[arg-type]
    signer = cose.public_key_to_bytes(cose.public_key_of(signing_key))
    return Made(Static(envelope, signer, agreed), ciphertext, image)


def governance() -> Governance:
    approver = Address(b"\xaa" * 20)
    return Governance(
        approvers=(approver,),
        threshold=1,
        epoch=1,
        guardians=(),
        auditors=(),
        reporters=(approver,),
        enroller=approver,
        keys=(SigningKey(cose.key_id(cose.public_key_of(SIGNING_KEY))),),
        halt_rule=HaltRule(1, 0),
        release_delay=0,
        governance_delay=0,
    )


MADE: dict[object, Fresh] = {}
"""Proofs made before: the same state at the same height has the same one."""


@dataclass
class Chain:
    """Product, releases, and a clock of blocks."""

    time: int = NOW
    number: int = 7
    head: Head = field(default_factory=Head)
    releases: dict[int, tuple[Made, State]] = field(default_factory=dict)
    logs: dict[int, list[bytes]] = field(default_factory=dict)
    keys: tuple[SigningKey, ...] = governance().keys

    @property
    def anchor(self) -> Anchor:
        return Anchor(LEDGER, PRODUCT, sealed.CODE_HASH, sealed.addresses(VALIDATORS))

    @property
    def product(self) -> Product:
        return Product(dataclasses.replace(governance(), keys=self.keys), head=self.head)

    def tick(self, seconds: int = 5) -> None:
        self.time += seconds
        self.number += 1

    def publish(self, made: Made) -> int:
        self.tick()
        release_id, terms = self.head.latest_release + 1, made.static.terms
        state = ledger.published(self.head, terms, self.time, 0)
        self.releases[release_id] = made, state
        self.head = dataclasses.replace(
            self.head,
            latest_release=release_id,
            version=terms.version,
            security_counter=terms.security_counter,
        )
        return release_id

    def change(self, release_id: int, **members: int) -> None:
        """Set members of a release's state word."""
        self.tick()
        made, state = self.releases[release_id]
        word = dataclasses.replace(ledger.StateWord.unpack(state.word), **members).pack()
        self.releases[release_id] = made, dataclasses.replace(state, word=word)

    def halt(self, release_id: int) -> None:
        self.tick()
        made, state = self.releases[release_id]
        self.releases[release_id] = made, ledger.halted(self.head, state, self.time)

    def anchor_receipts(self, release_id: int, leaves: list[bytes]) -> None:
        log = self.logs.setdefault(release_id, [])
        log += [leaf for leaf in leaves if leaf not in log]
        made, state = self.releases[release_id]
        state = dataclasses.replace(state, log_root=bytes(merkle_root(log)))
        self.releases[release_id] = made, state
        self.change(release_id, log_size=len(log))

    def fresh(
        self,
        release_id: int | None,
        *,
        group: list[sealed.Validator] | None = None,
        sealed_by: list[sealed.Validator] | None = None,
        extra: int = 0,
    ) -> Fresh:
        """What the chain says of a release now; ``extra`` makes another block of that height."""
        releases = tuple((n, m.static.terms, state) for n, (m, state) in self.releases.items())
        which = (release_id, tuple(group or ()), tuple(sealed_by or ()), extra)
        key = (self.number, self.time, self.head, self.keys, releases, which)
        if key not in MADE:
            MADE[key] = self._fresh(release_id, group, sealed_by, extra)
        return MADE[key]

    def _fresh(
        self,
        release_id: int | None,
        group: list[sealed.Validator] | None,
        sealed_by: list[sealed.Validator] | None,
        extra: int,
    ) -> Fresh:
        release = None
        slots = self.anchor.slots(release_id)
        words = {slots[0]: LEDGER.product_slot(PRODUCT, self.product, self.time)}
        for number, (made, state) in self.releases.items():
            terms_hash = made.static.terms.hash_struct()
            word = LEDGER.release_slot(PRODUCT, number, terms_hash, state)
            words[self.anchor.slots(number)[1]] = word
            if number == release_id:
                release = Release(number, terms_hash, state)
        numbers = {slot: int.from_bytes(word, "big") for slot, word in words.items()}
        if extra:
            numbers[Hash(sha256(b"extra"))] = extra
        world = sealed.World(numbers, accounts=4, group=group or VALIDATORS)
        header = world.header(number=self.number, timestamp=self.time, sealed_by=sealed_by)
        raw = sealed.encode_header(header)
        anchor = dataclasses.replace(self.anchor, validators=sealed.addresses(group or VALIDATORS))
        return assemble(anchor, raw, world.get_proof(slots), self.product, release)


@dataclass
class Registry:
    """Implements `Source`. ``piece``: bytes per piece of a payload; ``cut_after``: bytes after
    which a download breaks off, once. ``down``: nothing answers. ``others``: asked after it."""

    chain: Chain
    piece: int = 1 << 16
    cut_after: int | None = None
    down: bool = False
    receipts: list[bytes] = field(default_factory=list)
    asked: list[tuple[int, int]] = field(default_factory=list)
    offered: int | None = None
    withhold: bool = False
    others: tuple[Registry, ...] = ()

    def poll(self, question: Question, maximum: int) -> bytes:
        self._require_up()
        newest = self.offered or self.chain.head.latest_release or None
        fresh = self.chain.fresh(newest)
        static = None
        if newest is not None and not self.withhold:
            made = self.chain.releases[newest][0]
            if self.offered or made.static.terms.version > question.version:
                static = made.static
        return Bundle(fresh, static).encode()

    def payload(self, digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        self._require_up()
        self.asked.append((offset, size))
        data = next(
            m.payload for m, _ in self.chain.releases.values() if sha256(m.payload) == digest
        )
        sent = 0
        for at in range(offset, len(data), self.piece):
            if self.cut_after is not None and sent >= self.cut_after:
                self.cut_after = None
                raise Unreachable("cut-off", "download stopped", "the link broke", "try again")
            piece = data[at : at + self.piece]
            sent += len(piece)
            yield piece

    def send(self, receipt: bytes) -> None:
        self._require_up()
        if receipt not in self.receipts:
            self.receipts.append(receipt)

    def acknowledgement(self, leaf: Digest, maximum: int) -> bytes | None:
        self._require_up()
        for release_id, log in self.chain.logs.items():
            if leaf in log:
                index = log.index(leaf)
                path = tuple(bytes(node) for node in inclusion_proof(log, index))
                fresh = self.chain.fresh(release_id)
                return Acknowledgement(index, len(log), path, fresh).encode()
        return None

    def each(self) -> Sequence[Source]:
        return (self, *self.others)

    def anchor_all(self) -> None:
        """Anchor every receipt that was sent in the log of the release that it names."""
        for data in self.receipts:
            release_id = verify(data, DEVICE_KEY.public_key().public_bytes_raw()).release
            release_id = release_id or self.chain.head.latest_release
            self.chain.anchor_receipts(release_id, [leaf_hash(data)])

    def _require_up(self) -> None:
        if self.down:
            raise Unreachable("unreachable", "no answer", "it is down", "try again")


DEVICE_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(b"test vector: device key"))


class KeyIdentity:
    """Implements `Identity` with test vectors."""

    @property
    def device_id(self) -> DeviceId:
        return device_id(DEVICE_KEY.public_key().public_bytes_raw())

    def sign(self, receipt: Receipt) -> bytes:
        return sign(receipt, DEVICE_KEY)

    def content_key(self, encryption_info: bytes) -> tuple[bytes, bytes]:
        return payload.unwrap(encryption_info, CLASS_KEY, KID)


@dataclass
class Doctor:
    """Implements `HealthCheck`: sick is what runs an image whose digest is in ``bad``."""

    read: object = None
    bad: set[bytes] = field(default_factory=set)
    examined: int = 0

    def examine(self, slot: str) -> Verdict:
        self.examined += 1
        digest = self.read(slot)  # type: ignore[operator]
        return Verdict(False, "self-test") if digest in self.bad else Verdict(True)


@dataclass
class Place:
    """Implements `Site`."""

    around: Surroundings = field(default_factory=Surroundings)

    def observe(self) -> Surroundings:
        return self.around


def trust_file(
    chain: Chain,
    *,
    max_age: int = 3600,
    embedded: bool = False,
    recovery: tuple[str, ...] = (),
) -> TrustFile:
    return TrustFile(
        chain_id=LEDGER.chain_id,
        contract=LEDGER.contract,
        code_hash=sealed.CODE_HASH,
        validators=sealed.addresses(VALIDATORS),
        min_height=0,
        product_id=PRODUCT,
        product_name="thermostat",
        signing_keys=(),
        max_age=max_age,
        recovery_threshold=min(2, len(recovery)),
        recovery_keys=recovery,
        registries=(),
        embedded=embedded,
    )


def first_book(trusted: TrustFile) -> Book:
    return Book(MachineState(), TrustState.first(trusted).encode())


def image_of(version: str, size: int = 3000) -> bytes:
    """Bytes that tell versions apart and repeat nowhere."""
    seed = hashlib.shake_256(version.encode()).digest(size)
    return seed


def receipts_of(registry: Registry) -> list[Receipt]:
    """What the device reported, read and verified."""
    public = DEVICE_KEY.public_key().public_bytes_raw()
    return [verify(data, public) for data in registry.receipts]
