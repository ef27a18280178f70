"""A registry as it stands in its directory, with a publisher and devices around it.

Nothing runs in the background: `Place.settle` moves time, the ledger, the outbox and the catalogue
on, step by step. Every key in here is a test vector, derived from a name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from protocol import cose, receipt
from protocol.bundle import Anchor, Bundle, Offer, View, offer, prove
from protocol.ids import Digest, ProductId, Version
from protocol.receipt import NO_PREVIOUS, Outcome, Receipt, device_id
from protocol.records import Device, Governance, HaltRule, Phase, SigningKey
from registry import intake
from registry.assembly import Registry, create
from registry.intake import Conditions, Draft
from registry.intents import Publish
from registry.keys import Account, Keyring, ProductKeys
from registry.ports import Call
from registry.queue import Row, Status
from registry.signer import KeySigner
from tests.registry.entropy import Stream
from tests.registry.scene import START, SimClock

PEOPLE = ("alice", "bob", "carol")
EVERYONE = (Phase(10_000),)


@dataclass
class Unit:
    """A device: its key, and the chain of its receipts."""

    name: str
    sequence: int = 0
    previous: Digest = NO_PREVIOUS

    def __post_init__(self) -> None:
        self.key = cose.ed25519_private_key(hashlib.sha256(self.name.encode()).digest())
        self.public = cose.public_key_of(self.key)
        self.id = device_id(self.public)

    def asks(self, version: str = "0.0.0", counter: int = 0, hardware: int = 2) -> Device:
        return Device(bytes(self.id), int(Version.parse(version)), counter, hardware)

    def reports(
        self,
        product: ProductId,
        release: int,
        outcome: Outcome = Outcome.CONFIRMED,
        reason: str = "",
        version: str = "1.0.0",
    ) -> bytes:
        said = Receipt(
            product=product,
            release=release,
            outcome=outcome,
            reason=reason or ("" if outcome is Outcome.CONFIRMED else "health-check"),
            version_before=Version.parse("0.0.0"),
            version_after=Version.parse(version),
            counter_before=0,
            counter_after=1,
            height=7,
            time=None,
            sequence=self.sequence,
            previous=self.previous,
        )
        data = receipt.sign(said, self.key)
        self.sequence, self.previous = self.sequence + 1, receipt.receipt_digest(data)
        return data


@dataclass
class Place:
    """An open registry with one product, ``thermostat``, approved by 2 of alice, bob and carol."""

    directory: Path
    work: Path
    clock: SimClock = field(default_factory=lambda: SimClock(START + 1000))

    def __post_init__(self) -> None:
        self.registry = Registry.open(self.directory, clock=self.clock)
        self.keyring = Keyring(self.directory / "publisher")
        if not self.keyring.has_product("thermostat"):
            self._create_product()
        self.keys = self.keyring.product("thermostat")
        self.product = self.keys.product

    def _create_product(self) -> None:
        people = [self.keyring.ensure_account(name, Stream(name.encode())) for name in PEOPLE]
        sender = self.registry.sender
        keys = self.keyring.draw_product(
            "thermostat",
            creator=sender,
            ledger=self.registry.chain.ledger,
            hardware=(1, 3),
            entropy=Stream(b"thermostat"),
        )
        queued = self.registry.create_product("thermostat", keys.salt, rules(keys, people, self))
        self.settle(queued.row)

    def close(self) -> None:
        self.registry.close()

    def tick(self, seconds: int = 1) -> None:
        """Time passes, a block is sealed, everything looks at it."""
        self.clock.time += seconds
        assert self.registry.ledger is not None
        self.registry.outbox.step()
        self.registry.ledger.seal_now()
        self.registry.follow()
        self.registry.outbox.step()

    def settle(self, row: int) -> Row:
        """Ticks until an act is final; raises what the ledger said against it."""
        for _ in range(10):
            if self.registry.outbox.row(row).final:
                break
            self.tick()
        return self.registry.outbox.wait(row, 0)

    def build(self, version: str = "1.0.0", counter: int = 1, **changes: object) -> Draft:
        """A release of 100 kB, in files under ``work``."""
        firmware = self.work / f"fw-{version}.bin"
        firmware.write_bytes(Stream(version.encode())(100_000))
        plain = {"rollout": EVERYONE, "hardware": (1, 3)} | changes
        conditions = Conditions(Version.parse(version), counter, **plain)  # type: ignore[arg-type]
        entropy = Stream(f"build {version} {changes}".encode())
        return intake.build(
            firmware, self.work / f"r-{version}", self.keys, conditions, entropy=entropy
        )

    def approved(self, draft: Draft, *names: str) -> Draft:
        for name in names or PEOPLE[:2]:
            draft = draft.approved_by(self.keyring.account(name), 1, self.clock.now())
        return draft

    def submit(self, draft: Draft) -> int:
        """Uploads and queues; the outbox row."""
        assert draft.agreed is not None
        data = draft.payload_path.read_bytes()
        self.registry.blobs.put_bytes(data, max_size=len(data))
        return self.registry.submission.take(
            draft.static, draft.agreed.epoch, draft.agreed.approvals
        )

    def publish(self, version: str = "1.0.0", counter: int = 1, **changes: object) -> Draft:
        draft = self.approved(self.build(version, counter, **changes))
        self.settle(self.submit(draft))
        return draft

    def publish_elsewhere(self, draft: Draft) -> None:
        """Publishes past this registry: on the ledger, and not in its store."""
        assert draft.agreed is not None
        intent = Publish(draft.terms, draft.agreed.approvals)
        self.settle(self.registry.outbox.submit("elsewhere", intent))

    def halt(self, version: str, name: str) -> None:
        """One guardian halts, by a transaction of their own."""
        self.registry.follow()
        catalogue = self.registry.catalogue
        record = catalogue.product(self.product).record
        entry = catalogue.release_by_version(self.product, Version.parse(version))
        call = Call("halt", (self.product, record, entry.record, "a test"))
        signer = KeySigner(self.keyring.account(name).secret)
        self.registry.chain.transact(signer, call, timeout=5, rest=lambda _seconds: self.tick())
        self.registry.follow()

    def enrol(self, *units: Unit) -> None:
        _fleet, queued = self.registry.enrol(self.product, [unit.public.raw for unit in units])
        self.settle(queued.row)

    def anchor(self) -> int:
        """Anchors every receipt there is; the batches it took."""
        batches = 0
        for _ in range(20):
            self.clock.time += self.registry.settings.anchor_every
            made = self.registry.anchoring.step(self.clock.now())
            waiting = self.registry.outbox.rows(status=Status.QUEUED)
            if not made and not waiting:
                break
            batches += made
            for row in waiting:
                self.settle(row.id)
        return batches

    @property
    def anchor_of_trust(self) -> Anchor:
        """What a device of this product has pinned."""
        code_hash = self.registry.settings.code_hash
        assert code_hash is not None
        return Anchor(
            self.registry.chain.ledger, self.product, code_hash, self.registry.validators()
        )

    def proved(self, bundle: bytes) -> tuple[View, Offer | None]:
        """What a device makes of an answer."""
        decoded = Bundle.decode(bundle)
        view = prove(decoded.fresh, self.anchor_of_trust)
        return view, offer(decoded.static, view) if decoded.static else None


def rules(keys: ProductKeys, people: list[Account], place: Place) -> Governance:
    sender = place.registry.sender
    return Governance(
        approvers=tuple(sorted(person.address for person in people)),
        threshold=2,
        epoch=1,
        guardians=(),
        auditors=(),
        reporters=(sender,),
        enroller=sender,
        keys=(SigningKey(keys.signer.public.id),),
        halt_rule=HaltRule(2, 2_000),
        release_delay=0,
        governance_delay=0,
    )


def make(directory: Path, work: Path) -> None:
    """Lays a registry with the product, to be copied for each test."""
    create(directory, clock=SimClock())
    Place(directory, work, SimClock(START + 500)).close()
