"""One registry, made and assembled: which part gets which.

Guarantees: `create` lays a registry that `open` can open, or can be run again; `close` stops every
thread and lets go of every file. Everything the service does in the background is done here:
sealing (embedded ledger), sending (outbox), following (index) and anchoring (receipts).

Rules: no part looks for another; the clock is the one it is given, for devices in the demo share
it. The publisher's folder is not known here.

Not here: HTTP (`registry.app`).
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import Engine

from protocol import cose
from protocol.digests import sha256
from protocol.errors import FirmledgerError, LocalFault, Misuse
from protocol.header import parse_header
from protocol.ids import Address, Digest, Hash, ProductId
from protocol.receipt import device_id
from protocol.records import Governance, product_id
from registry.approvals import Approvals
from registry.blobs import FileBlobs
from registry.bundles import Bundles
from registry.catalogue import Catalogue, ProductEntry
from registry.chain import Chain, deploy, node_inside
from registry.deployment import DEPLOY_SECONDS, open_chain
from registry.embedded import Clock, EmbeddedLedger
from registry.fleet import Fleet, Fleets
from registry.index import Index
from registry.intents import Amend, CreateProduct, Decide, SetFleet
from registry.names import Names
from registry.operators import Operators, draw_operator
from registry.publish import Outbox
from registry.receipts import Anchoring, Receipts
from registry.settings import FILE, Settings
from registry.signer import file_signer
from registry.store import CATALOGUE, REGISTRY, open_database
from registry.submission import Artifacts, Submission

FOLLOW_SECONDS = 0.5
RETRY_SECONDS = 5.0

log = logging.getLogger(__name__)


def create(directory: Path, *, clock: Clock, **members: object) -> Settings:
    """Lays a registry with an embedded ledger and the contract on it; ``members``: its settings.

    `Misuse` ``registry-exists`` where there is one. Killed half-way it can be run again.
    """
    if (directory / FILE).exists():
        raise Misuse(
            "registry-exists",
            f"no registry made in {directory}",
            "there is one already",
            "use it with -C, or choose another directory",
        )
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as fault:
        raise LocalFault(
            "directory-unwritable", f"{directory} not made", str(fault), "choose another directory"
        ) from fault
    if not (directory / "ledger").exists():
        EmbeddedLedger.create(directory, clock=clock)
    draw_operator(directory, secrets.token_bytes)
    with EmbeddedLedger.open(directory, clock=clock) as ledger:
        ledger.start()
        node = node_inside(ledger)
        signer = file_signer(directory / "keys" / "fee.json")
        contract, receipt = deploy(node, signer, timeout=DEPLOY_SECONDS)
        code_hash = Chain.inside(ledger, contract).code_hash()
        chain_id = ledger.chain_id
    placed = {"chain_id": chain_id, "contract": contract, "code_hash": code_hash}
    settings = Settings.of(directory, **placed, deployed_at=receipt.block, **members)
    settings.save()
    return settings


def open_records(settings: Settings) -> tuple[FileBlobs, Receipts]:
    """Store and receipts as they lie on disk, for auditors; a server may run beside."""
    own = open_database(settings.registry_file, REGISTRY, durable=True)
    catalogue = Catalogue(open_database(settings.catalogue_file, CATALOGUE, durable=False))
    return FileBlobs(settings.blobs), Receipts(own, catalogue, Fleets(own))


@dataclass(frozen=True, slots=True)
class Queued:
    """An act that waits in the outbox."""

    product: ProductId
    row: int


class Registry:
    """An open registry; its parts are attributes. `start` it, and `close` it."""

    def __init__(self, settings: Settings, clock: Clock, ledger: EmbeddedLedger | None) -> None:
        """See `open`."""
        self.settings, self.clock, self.ledger = settings, clock, ledger
        self.chain = open_chain(settings, ledger)
        self._engines: list[Engine] = []
        own = self._open(settings.registry_file, durable=True)
        signer = file_signer(settings.fee_file)
        self.sender = signer.address
        self.operators = Operators(settings.directory)
        self.blobs = FileBlobs(settings.blobs)
        self.catalogue = Catalogue(self._open(settings.catalogue_file, durable=False))
        depth = settings.finality_depth
        self._index = Index(
            self.chain, self.catalogue, own, start=settings.deployed_at, depth=depth
        )
        self.outbox = Outbox(
            own,
            self.chain,
            self.catalogue,
            signer,
            clock=clock.now,
            follow=self.follow,
            holder=f"{socket.gethostname()}:{os.getpid()}",
            fee_cap=settings.fee_cap,
            bump_after=settings.bump_after,
        )
        self.names, self.fleets = Names(own), Fleets(own)
        self.artifacts = Artifacts(own, self.blobs)
        self.submission = Submission(self.catalogue, self.artifacts, self.outbox, self.now)
        self.bundles = Bundles(
            self.chain,
            self.catalogue,
            self.artifacts,
            code_hash=settings.code_hash or Hash(bytes(32)),
            max_age=settings.max_age,
            now=clock.now,
        )
        self.receipts = Receipts(own, self.catalogue, self.fleets)
        self.anchoring = Anchoring(
            own,
            self.catalogue,
            self.fleets,
            self.outbox,
            self.bundles,
            every=settings.anchor_every,
        )
        self._following = threading.Lock()
        self._stop, self._closed = threading.Event(), False
        self._threads: list[threading.Thread] = []
        self._listeners: list[Callable[[], None]] = []

    @classmethod
    def open(cls, directory: Path, *, clock: Clock) -> Self:
        """Opens the registry in ``directory``; `Misuse` if there is none or a setting is bad."""
        settings = Settings.load(directory)
        ledger = None
        if settings.rpc is None:
            ledger = EmbeddedLedger.open(directory, clock=clock, heartbeat=settings.heartbeat)
        try:
            return cls(settings, clock, ledger)
        except BaseException:
            if ledger is not None:
                ledger.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Starts what runs in the background; queues what a crash kept from being queued."""
        for product, fleet in self.fleets.all_newest():
            self._queue_fleet(product, fleet)
        if self.ledger is not None:
            self.ledger.start()
        for name, work in (("sending", self._send), ("following", self._follow_and_anchor)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stops the background, then lets go of databases and ledger; once is enough."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for engine in self._engines:
            engine.dispose()
        if self.ledger is not None:
            self.ledger.close()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` after every new head, from the thread that saw it."""
        self._listeners.append(listener)

    def follow(self) -> int:
        """Brings catalogue and bundles up to the chain's head; how many blocks moved."""
        with self._following:
            moved = self._index.catch_up()
            changed = self.bundles.advance()
        if changed:
            for listener in list(self._listeners):
                listener()
        return moved

    def now(self) -> int:
        """The time that an act would meet now: records are spelled for it."""
        head = self.catalogue.head()
        return max(self.clock.now(), head.timestamp if head else 0)

    def product(self, which: ProductId) -> ProductEntry:
        """A product as it is `now`, though no block may say so yet; `Misuse` if there is none."""
        return self.catalogue.product(which, now=self.now())

    def validators(self) -> tuple[Address, ...]:
        """Who seals now, as the newest followed header says; empty before the first block."""
        head = self.catalogue.head()
        if head is None:
            return ()
        return parse_header(self.chain.header(head.hash)).extra.validators

    # -- acts of an operator ----------------------------------------------------------------------

    def create_product(self, name: str, salt: Hash, governance: Governance) -> Queued:
        """Names a product and queues its creation by the registry's own account."""
        product = product_id(self.sender, Digest(salt))
        self.names.give(name, product)
        row = self.outbox.submit(f"create:{product}", CreateProduct(salt, governance))
        return Queued(product, row)

    def enrol(self, product: ProductId, keys: list[bytes]) -> tuple[Fleet, Queued]:
        """Adds devices (raw Ed25519 keys) and queues the new fleet; reads what waited for them."""
        self.catalogue.product(product)  # says so where the ledger has none
        public = [cose.PublicKey(cose.Curve.ED25519, key) for key in keys]
        now = self.clock.now()
        fleet = self.fleets.enrol(product, public, now)
        row = self._queue_fleet(product, fleet)
        for key in public:
            self.receipts.admit_waiting(device_id(key), now)
        return fleet, Queued(product, row)

    def _queue_fleet(self, product: ProductId, fleet: Fleet) -> int:
        intent = SetFleet(product, fleet.root, fleet.size)
        return self.outbox.submit(f"fleet:{product}:{fleet.sequence}", intent)

    def decide(self, decision: Decide) -> int:
        """Queues what M of N decided, and returns the outbox row; other approvals, another act."""
        where = f"{decision.product_id}:{decision.release_id}"
        key = f"decide:{decision.action}:{where}:{_digest(decision.approvals)}"
        return self.outbox.submit(key, decision)

    def amend(self, change: Amend) -> int:
        """Queues a change of governance that M of N agreed to; returns the outbox row."""
        self.catalogue.product(change.product_id)  # says so where the ledger has none
        coming = change.next.hash_struct()
        key = f"amend:{change.product_id}:{coming}:{_digest(change.approvals)[:8].hex()}"
        return self.outbox.submit(key, change)

    # -- the background ---------------------------------------------------------------------------

    def _open(self, path: Path, *, durable: bool) -> Engine:
        engine = open_database(path, REGISTRY if durable else CATALOGUE, durable=durable)
        self._engines.append(engine)
        return engine

    def _send(self) -> None:
        self._keep_on("sending", lambda: self.outbox.run(self._stop), FOLLOW_SECONDS)

    def _follow_and_anchor(self) -> None:
        def once() -> None:
            self.follow()
            self.anchoring.step(self.clock.now())

        self._keep_on("following", once, FOLLOW_SECONDS)

    def _keep_on(self, what: str, work: Callable[[], object], rest: float) -> None:
        """Does it again and again; a fault is logged, and waited out."""
        while not self._stop.is_set():
            pause = rest
            try:
                work()
            except FirmledgerError as fault:
                log.error("%s stopped for %.0f s: %s", what, RETRY_SECONDS, fault)
                pause = RETRY_SECONDS
            except Exception:  # our bug: said in full, and tried again, for devices depend on it
                log.exception("%s failed", what)
                pause = RETRY_SECONDS
            self._stop.wait(pause)


def _digest(approvals: Approvals) -> Digest:
    return sha256(json.dumps(approvals.to_json(), sort_keys=True).encode())
