"""Receipts counted again, one by one, against what was anchored.

Guarantees: every anchored batch is checked for what its root and its counts claim: that the
receipts in it are there and in their order, signed by devices that are enrolled, and that each
device counts once per release, with its first final outcome.

Rules: as `registry.receipts` has them. A device is taken as enrolled if it was in any fleet that
the ledger had by then. Refusals, and outcomes without a release on the ledger, count for nothing.

Not here: whether a device tells the truth; and gaps in a device's chain of receipts, since it may
not have sent the missing ones yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from protocol.digests import EMPTY_ROOT, leaf_hash, merkle_root, node_hash
from protocol.errors import FirmledgerError
from protocol.ids import DeviceId, Digest, ProductId
from protocol.receipt import Receipt, claimed_device, receipt_digest, verify
from registry.judged import Batch, Finding, Key
from registry.ports import ReceiptLog


class Frontier:
    """An RFC 6962 tree that grows by one leaf at a time, in the space of its peaks."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, Digest]] = []  # (leaves under it, hash), largest first

    def append(self, leaf: Digest) -> None:
        """``leaf``: a leaf hash."""
        self.size += 1
        width, node = 1, leaf
        while self._peaks and self._peaks[-1][0] == width:
            width, node = 2 * width, node_hash(self._peaks.pop()[1], node)
        self._peaks.append((width, node))

    @property
    def root(self) -> Digest:
        """Of all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        running = self._peaks[-1][1]
        for _width, peak in reversed(self._peaks[:-1]):
            running = node_hash(peak, running)
        return running


class Recount:
    """Checks batches with `check`; ``findings`` and ``receipts`` tell what came of it."""

    def __init__(self, log: ReceiptLog) -> None:
        self._log = log
        self._fleets: dict[Digest, frozenset[bytes]] = {}
        self._sequences: dict[tuple[DeviceId, int], Digest] = {}
        self.findings: list[Finding] = []
        self.receipts = 0

    def check(self, batches: Iterable[Batch]) -> None:
        """All batches of a ledger, in the order of the chain."""
        ordered = sorted(batches, key=_key)  # stable: within a release they stay in order
        for (product, release), group in groupby(ordered, key=_key):
            self._check_log(product, release, list(group))

    def _check_log(self, product: ProductId, release: int, batches: Sequence[Batch]) -> None:
        entries = self._log.entries(product, release)
        tree, counted = Frontier(), set[DeviceId]()
        for batch in batches:
            if len(entries) < batch.new_size:
                self._find(
                    batch,
                    "receipts-missing",
                    f"anchored {batch.new_size} receipts, and {len(entries)} are kept",
                )
                return
            confirmed = failed = 0
            for data in entries[batch.old_size : batch.new_size]:
                tree.append(leaf_hash(data))
                receipt = self._judge(batch, data)
                if receipt is None or receipt.release != release or not receipt.outcome.final:
                    continue
                device = claimed_device(data)
                if device not in counted:
                    counted.add(device)
                    confirmed += receipt.outcome.counts_as_confirmed
                    failed += receipt.outcome.counts_as_failed
            self.receipts += batch.new_size - batch.old_size
            self._compare(batch, tree, confirmed, failed)

    def _compare(self, batch: Batch, tree: Frontier, confirmed: int, failed: int) -> None:
        if tree.root != batch.root:
            self._find(batch, "wrong-log-root", "anchored another root than the receipts have")
        if (confirmed, failed) != (batch.confirmed, batch.failed):
            self._find(
                batch,
                "miscounted",
                f"counted {batch.confirmed} confirmed and {batch.failed} failed;"
                f" the receipts say {confirmed} and {failed}",
            )

    def _judge(self, batch: Batch, data: bytes) -> Receipt | None:
        """The receipt, if its device signed it; None after a finding."""
        try:
            device = claimed_device(data)
            key = self._log.device_key(device)
            if key is None:
                self._find(batch, "device-unknown", f"has a receipt of {device}, whose key is lost")
                return None
            receipt = verify(data, key)
        except FirmledgerError as error:
            self._find(batch, "receipt-forged", f"has a receipt that does not verify: {error.why}")
            return None
        if receipt.product != batch.product or receipt.release not in (0, batch.release):
            self._find(batch, "receipt-elsewhere", f"has a receipt of {device} for another release")
            return None
        if not any(device in self._fleet(batch, root) for root in batch.fleets):
            self._find(batch, "not-enrolled", f"has a receipt of {device}, which was not enrolled")
        first = self._sequences.setdefault((device, receipt.sequence), receipt_digest(data))
        if first != receipt_digest(data):
            why = f"shows that {device} signed two receipts with sequence {receipt.sequence}"
            self._find(batch, "receipt-forked", why)
        return receipt

    def _fleet(self, batch: Batch, root: Digest) -> frozenset[bytes]:
        """The members of a fleet, which must have that root; none, after a finding, if not."""
        known = self._fleets.get(root)
        if known is None:
            members = self._log.fleet(batch.product, root)
            if members is None or merkle_root([leaf_hash(m) for m in members]) != root:
                self._find(batch, "fleet-unknown", f"counts a fleet {root} that is not kept")
                members = ()
            known = self._fleets[root] = frozenset(bytes(member) for member in members)
        return known

    def _find(self, batch: Batch, reason: str, what: str) -> None:
        where = f"(ReceiptsAnchored, release {batch.release} of product {batch.product})"
        sentence = f"Transaction {batch.tx} {where} {what}."
        self.findings.append(Finding(reason, sentence, batch.tx, batch.block))


def _key(batch: Batch) -> Key:
    return batch.product, batch.release
