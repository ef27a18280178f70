"""Receipts: what devices report, kept, put in order, and anchored on the ledger in batches.

Guarantees:

* What was acknowledged with 202 is on disk. The same receipt again changes nothing.
* A release's log only grows, and the ledger's log size is always the end of a batch, so every
  anchored receipt can be shown under the root that the ledger has.
* Counted is, per device and release, the first final outcome, and only of devices that the ledger's
  fleet has at that time. Everything else that a device signed is logged all the same.

Rules:

* A receipt is read only with its device's key. Of a device that is not enrolled nothing can be
  read: its receipts wait, bounded in number, and are read when it is enrolled.
* A refusal of something that is not on the ledger names release 0, which has no log: it goes into
  the log of the product's newest release, where it counts for nothing.
* One batch of a log at a time. It is recorded before it is queued; a crash in between queues it
  again.

Not here: whether a device tells the truth, and the gaps in its chain of receipts: auditors see
both.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, insert

from protocol.bundle import Acknowledgement
from protocol.digests import leaf_hash
from protocol.errors import Malformed, Misuse, Refused, Untrusted
from protocol.ids import DeviceId, Digest, ProductId
from protocol.ledger import StateWord
from protocol.receipt import MAX_RECEIPT_BYTES, Receipt, claimed_device, verify
from registry import receipt_rows as rows
from registry.bundles import Bundles
from registry.catalogue import Catalogue
from registry.fleet import Enrolled, Fleets
from registry.intents import Anchor
from registry.merkle import Tree
from registry.publish import Outbox
from registry.queue import Status
from registry.store import reading, writing

MAX_WAITING = 10_000
MAX_WAITING_PER_DEVICE = 64
MAX_BATCH = 10_000
RETRY_SECONDS = 60
KEPT_TREES = 16


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a receipt that was handed in: taken, or waiting for its device's enrolment."""

    leaf: Digest
    enrolled: bool


class Receipts:
    """The receipts of one registry; safe for threads."""

    def __init__(self, engine: Engine, catalogue: Catalogue, fleets: Fleets) -> None:
        """``engine``: the database of what cannot be derived."""
        self._engine, self._catalogue, self._fleets = engine, catalogue, fleets

    def accept(self, data: bytes, now: int) -> Taken:
        """Takes a signed receipt in; durable when this returns.

        `Malformed` or `Untrusted` for what no enrolled device wrote, `Refused` for a release that
        this registry has not seen yet (try again) or when too much waits already.
        """
        if len(data) > MAX_RECEIPT_BYTES:
            raise Malformed(
                "oversized",
                "receipt refused",
                f"it has {len(data)} bytes, the limit is {MAX_RECEIPT_BYTES}",
                "let the device write it again",
            )
        leaf, device = leaf_hash(data), claimed_device(data)
        if rows.is_logged(self._engine, leaf):
            return Taken(leaf, enrolled=True)
        read = self._read(data, self._fleets.device(device))
        if read is None:
            self._let_wait(leaf, device, data, now)
            return Taken(leaf, enrolled=False)
        receipt, enrolled = read
        self._store(leaf, receipt, enrolled, data, now)
        return Taken(leaf, enrolled=True)

    def is_logged(self, leaf: Digest) -> bool:
        """Whether a receipt was taken in: its device is enrolled."""
        return rows.is_logged(self._engine, leaf)

    def admit_waiting(self, device: DeviceId, now: int) -> int:
        """Reads what waited for a device's enrolment; how many were taken in.

        What turns out to be forged is dropped: its author never had a key of ours.
        """
        taken = 0
        for leaf, data in rows.waiting_of(self._engine, device):
            try:
                taken += self.accept(data, now).enrolled
            except Refused:
                continue  # its release is not indexed yet: it waits on
            except (Malformed, Untrusted):
                pass
            rows.drop_waiting(self._engine, leaf)
        return taken

    def _read(
        self, data: bytes, enrolments: dict[ProductId, Enrolled]
    ) -> tuple[Receipt, Enrolled] | None:
        for enrolled in enrolments.values():
            receipt = verify(data, enrolled.public_key)
            there = enrolments.get(receipt.product)
            return None if there is None else (receipt, there)
        return None

    def _let_wait(self, leaf: Digest, device: DeviceId, data: bytes, now: int) -> None:
        with writing(self._engine) as sql:
            if rows.is_waiting(sql, leaf):
                return
            if rows.count_waiting(sql, device) >= MAX_WAITING_PER_DEVICE or (
                rows.count_waiting(sql, None) >= MAX_WAITING
            ):
                raise Refused(
                    "not-enrolled",
                    "receipt refused",
                    f"device {device} is not enrolled here, and too many receipts wait already",
                    "enrol the device with `firmledger product enrol`, then let it send again",
                )
            sql.execute(
                insert(rows.WAITING).values(
                    leaf=bytes(leaf), device=bytes(device), raw=data, received_at=now
                )
            )

    def _store(
        self, leaf: Digest, receipt: Receipt, enrolled: Enrolled, data: bytes, now: int
    ) -> None:
        newest = self._catalogue.product(receipt.product).record.head.latest_release
        if receipt.release > newest or newest == 0:
            raise Refused(
                "release-not-indexed",
                "receipt not taken yet",
                f"it speaks of release {receipt.release}, this registry has followed the ledger "
                f"up to release {newest}",
                "send it again later",
            )
        with writing(self._engine) as sql:
            sql.execute(
                rows.insert_once(
                    leaf=bytes(leaf),
                    product=bytes(receipt.product),
                    device=bytes(enrolled.device),
                    release=receipt.release,
                    log=receipt.release or newest,
                    outcome=receipt.outcome.value,
                    reason=receipt.reason,
                    device_sequence=receipt.sequence,
                    fleet_sequence=enrolled.sequence,
                    raw=data,
                    received_at=now,
                )
            )

    # -- for auditors (registry.ports.ReceiptLog) -------------------------------------------------

    def entries(self, product: ProductId, release: int) -> list[bytes]:
        """The receipts of a release in the order of its log."""
        return rows.log_entries(self._engine, product, release)

    def fleet(self, product: ProductId, root: Digest) -> list[bytes] | None:
        """The device ids, ascending, of the fleet with this root; None if it is not known."""
        return self._fleets.members(product, root)

    def device_key(self, device: DeviceId) -> bytes | None:
        """The device's raw Ed25519 public key (its id is the SHA-256 of it); None if unknown."""
        enrolled = self._fleets.device(device)
        return next((each.public_key.raw for each in enrolled.values()), None)


class Anchoring:
    """Puts receipts in order, batch by batch, and shows that they are anchored."""

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        fleets: Fleets,
        outbox: Outbox,
        bundles: Bundles,
        *,
        every: int,
    ) -> None:
        """``every``: seconds that receipts gather at most; a failure does not wait."""
        self._engine, self._catalogue, self._fleets = engine, catalogue, fleets
        self._outbox, self._bundles, self._every = outbox, bundles, every
        self._trees: dict[tuple[ProductId, int], Tree] = {}

    def step(self, now: int) -> int:
        """Queues every batch that is due; how many."""
        queued = 0
        for product, log in rows.open_logs(self._engine):
            last = rows.last_batch(self._engine, product, log)
            if last is not None and not self._is_anchored(last):
                queued += self._push(last, now)
            elif rows.is_due(self._engine, product, log, now - self._every):
                batch = self._gather(product, log, last)
                queued += self._push(batch, now) if batch else 0
        return queued

    def acknowledge(self, leaf: Digest) -> Acknowledgement | None:
        """The proof that a receipt is anchored, None before; `Misuse` ``receipt-unknown``."""
        placed = rows.placed(self._engine, leaf)
        if placed is None:
            raise Misuse(
                "receipt-unknown",
                f"receipt {leaf} not found",
                "this registry never took it",
                "send the receipt itself to /v1/receipts",
            )
        product, log, position = placed
        if position is None:
            return None
        fresh = self._bundles.fresh(product, log)
        release = fresh.release
        size = StateWord.unpack(release.state.word).log_size if release else 0
        if position >= size:
            return None
        path = tuple(self._tree(product, log, size).path(position))
        return Acknowledgement(position, size, path, fresh)

    def _is_anchored(self, batch: rows.Batch) -> bool:
        if batch.anchored:
            return True
        entry = self._catalogue.release(batch.product, batch.log)
        if entry.word.log_size < batch.new_size:
            return False
        rows.note_anchored(self._engine, batch)
        return True

    def _push(self, batch: rows.Batch, now: int) -> int:
        """Queues a recorded batch unless it is on its way; a failed one again after a minute."""
        if batch.queued_at is not None:
            waits = now - batch.queued_at < RETRY_SECONDS
            if waits or self._outbox.row(batch.row or 0).status is not Status.FAILED:
                return 0
        key = f"anchor:{batch.product}:{batch.log}:{batch.old_size}"
        row = self._outbox.submit(key, batch.intent)
        rows.note_queued(self._engine, batch, row, now)
        return 1

    def _gather(self, product: ProductId, log: int, last: rows.Batch | None) -> rows.Batch | None:
        """Gives the next receipts their places; None if all of them wait for the ledger's fleet."""
        fleet = self._catalogue.product(product).fleet
        known = self._fleets.by_root(product, fleet.root) if fleet else None
        if known is None:
            return None
        old_size = last.new_size if last else 0
        with writing(self._engine) as sql:
            chosen = rows.unplaced(sql, product, log, known.sequence, MAX_BATCH)
            if not chosen:
                return None
            confirmed = failed = 0
            for position, row in enumerate(chosen, start=old_size):
                counts = row.final and not rows.has_final(sql, product, log, row.device)
                rows.place(sql, row.id, position, counts=counts)
                confirmed += counts and row.confirmed
                failed += counts and not row.confirmed
            size = old_size + len(chosen)
            root = Tree(rows.leaves(sql, product, log, size)).root
            intent = Anchor(product, log, old_size, size, root, confirmed, failed)
            return rows.record_batch(sql, intent)

    def _tree(self, product: ProductId, log: int, size: int) -> Tree:
        tree = self._trees.get((product, log))
        if tree is None or len(tree) != size:
            with reading(self._engine) as sql:
                tree = Tree(rows.leaves(sql, product, log, size))
            if len(self._trees) >= KEPT_TREES:
                self._trees.pop(next(iter(self._trees)))
            self._trees[product, log] = tree
        return tree
