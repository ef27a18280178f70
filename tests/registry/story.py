"""A long and lawful life of one product on a real ledger, with the devices that report on it.

Every key in here is a test vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import receipt as receipts
from protocol.digests import leaf_hash, merkle_root, sha256
from protocol.ids import DeviceId, Digest, Hash, ProductId, Version
from protocol.receipt import Outcome, Receipt
from protocol.records import Action, Amendment, Phase, Product, Release
from registry.audit import Report, audit
from tests.registry.scene import FOREVER, SALT, Scene, governance, terms


@dataclass
class Fleet:
    """Devices that sign receipts (their keys are test vectors), and the logs of them."""

    product: ProductId
    keys: dict[DeviceId, Ed25519PrivateKey] = field(default_factory=dict)
    logs: dict[int, list[bytes]] = field(default_factory=dict)
    fleets: dict[Digest, list[bytes]] = field(default_factory=dict)

    def add(self, count: int) -> Digest:
        """Enrols that many; the root of the fleet."""
        for number in range(count):
            key = Ed25519PrivateKey.from_private_bytes(sha256(f"device {number}".encode()))
            self.keys[receipts.device_id(key.public_key().public_bytes_raw())] = key
        members = sorted(bytes(device) for device in self.keys)
        root = merkle_root([leaf_hash(member) for member in members])
        self.fleets[root] = members
        return root

    def report(self, device: int, release: int, outcome: Outcome, **changes: Any) -> bytes:
        """A signed receipt, put into the release's log."""
        key = list(self.keys.values())[device]
        plain = Receipt(
            product=self.product,
            release=release,
            outcome=outcome,
            reason="" if outcome is Outcome.CONFIRMED else "health-check-failed",
            version_before=Version(0),
            version_after=Version.of(1, 0, 0),
            counter_before=0,
            counter_after=1,
            height=1,
            time=None,
            sequence=0,
        )
        signed = receipts.sign(replace(plain, **changes), key)
        self.logs.setdefault(release, []).append(signed)
        return signed

    def copy(self) -> Fleet:
        """One to spoil."""
        logs = {release: list(entries) for release, entries in self.logs.items()}
        fleets = {root: list(members) for root, members in self.fleets.items()}
        return Fleet(self.product, dict(self.keys), logs, fleets)

    def root(self, release: int) -> tuple[int, Digest]:
        """Size and root of a log."""
        leaves = [leaf_hash(entry) for entry in self.logs[release]]
        return len(leaves), merkle_root(leaves)

    # -- ReceiptLog

    def entries(self, product: ProductId, release: int) -> Sequence[bytes]:
        return self.logs.get(release, [])

    def fleet(self, product: ProductId, root: Digest) -> Sequence[bytes] | None:
        return self.fleets.get(root)

    def device_key(self, device: DeviceId) -> bytes | None:
        key = self.keys.get(device)
        return key.public_key().public_bytes_raw() if key else None


class Story:
    """A long and lawful life of one product, told to a real ledger."""

    def __init__(self, scene: Scene, **changes: Any) -> None:
        """``changes``: to the governance that the product starts with."""
        self.scene = scene
        self.fleet = Fleet(scene.product)
        self.product = Product(governance(**changes))
        self.releases: dict[int, Release] = {}
        scene.act(scene.fee, "createProduct", SALT, governance(**changes))

    def spelled_out(self, **changes: Any) -> Product:
        """The record once the waiting change, which makes these changes, is in effect."""
        old = self.product.governance
        new = replace(old, epoch=old.epoch + 1, **changes)
        return replace(self.product, governance=new, other=old.hash_struct())

    def follow(self, receipt: Any) -> None:
        """Takes the records from the events, as whoever acts next does."""
        for event in receipt.events:
            args = event.args
            if event.name in ("AmendmentProposed", "AmendmentCancelled", "GovernanceChanged"):
                self.product = args["product"]
            if "head" in args:
                self.product = replace(self.product, head=args["head"])
            if event.name == "ReleasePublished":
                wanted = args["terms"]
                head = replace(
                    self.product.head,
                    latest_release=args["release_id"],
                    version=wanted.version,
                    security_counter=wanted.security_counter,
                )
                self.product = replace(self.product, head=head)
                made = Release(args["release_id"], wanted.hash_struct(), args["state"])
                self.releases[args["release_id"]] = made
            elif "state" in args:
                number = args["release_id"]
                self.releases[number] = replace(self.releases[number], state=args["state"])

    def act(self, who: str, function: str, *args: Any, release: int = 0) -> None:
        records = [self.scene.product, self.product]
        if release:
            records.append(self.releases[release])
        self.follow(self.scene.act(who, function, *records, *args))

    def publish(self, version: str, *names: str, **changes: Any) -> None:
        wanted = terms(self.scene.product, version, **changes)
        epoch = self.product.governance.epoch
        agreed = self.scene.agreed(wanted, *names, epoch=epoch)
        self.follow(self.scene.act("rita", "publish", self.product, wanted, agreed))

    def decide(self, action: Action, release: int, nonce: int) -> None:
        epoch = self.product.governance.epoch
        agreed = self.scene.decided(action, release, nonce, epoch=epoch)
        self.act("rita", action.name.lower(), agreed, release=release)

    def amend(self, **changes: Any) -> None:
        old = self.product.governance
        new = replace(old, epoch=old.epoch + 1, **changes)
        message = Amendment(self.scene.product, new, old.epoch, FOREVER)
        self.act("rita", "amend", new, self.scene.approvals(message, "alice", "bob"))

    def cancelled(self, who: str, **changes: Any) -> None:
        """Those changes proposed, and cancelled by one."""
        old = self.product.governance
        coming = replace(old, epoch=old.epoch + 1, **changes)
        self.amend(**changes)
        self.act(who, "cancel", coming)

    def anchor(self, release: int, confirmed: int, failed: int) -> None:
        size, root = self.fleet.root(release)
        self.act("rita", "anchor", size, root, confirmed, failed, release=release)

    def tell(self) -> None:
        """Every kind of event that the contract has."""
        root = self.fleet.add(6)
        self.act("rita", "setFleet", root, 6)
        phases = (Phase(1_000), Phase(10_000, delay=60, min_confirmed=1, max_failure_bps=2_000))
        self.publish("1.0.0", rollout=phases)
        self.publish("1.1.0", "alice", "bob", "carol")
        for device in range(2):
            self.fleet.report(device, 1, Outcome.CONFIRMED)
        self.anchor(1, 2, 0)
        self.fleet.report(0, 2, Outcome.CONFIRMED, sequence=1, previous=sha256(b"x"))
        self.fleet.report(1, 2, Outcome.REFUSED, sequence=1, previous=sha256(b"x"))
        self.anchor(2, 1, 0)
        for device in range(2, 5):
            self.fleet.report(device, 2, Outcome.ROLLED_BACK)
        self.anchor(2, 0, 3)  # halted by the ledger
        self.decide(Action.RESUME, 2, nonce=1)
        self.act("ada", "attest", 1, sha256(b"rebuilt"), release=2)
        self.act("carol", "halt", "field returns", release=1)
        self.act("carol", "pause")
        self.scene.clock.time += 100
        epoch = self.product.governance.epoch
        agreed = self.scene.decided(Action.UNPAUSE, 0, 1, epoch=epoch)
        self.act("rita", "unpause", agreed)
        self.decide(Action.SUPERSEDE, 1, nonce=0)
        self.decide(Action.REVOKE, 1, nonce=0)
        old = self.product.governance
        self.act("bob", "restrict", replace(old, epoch=old.epoch + 1, auditors=()))
        self.amend(threshold=3)
        self.act("alice", "withdraw", sha256(b"terms that nobody published"))
        self.scene.act("gus", "approve", Hash(sha256(b"digest")))

    def audit(self, chain: Any = None, **options: Any) -> Report:
        start = self.scene.deployed_at
        return audit(chain or self.scene.chain, start=start, **options)
