"""The history of a ledger, event by event, judged by the rules: what an auditor would do by hand.

Guarantees: every event is compared with the state that the rules (`protocol.ledger`) make of the
state before it; approvers' signatures over releases are recovered from the events themselves. What
does not agree is a finding, and the replay goes on from what the event says, so that one lie is
reported once. `Replay.commitments` are the words that the contract must then store.

Rules: nothing is believed because the contract allowed it, nor because a catalogue has it. Times
are those of the blocks.

Not here: whether the events are those of the chain, and its words those of the replay
(`registry.audit`), and receipts one by one (`registry.recount`).
"""

from __future__ import annotations

from protocol import _abi
from protocol.errors import Malformed
from protocol.ids import Digest, Hash, ProductId
from protocol.proof import mapping_slot, nested_slot
from protocol.records import Ledger, Terms, word
from registry.judged import Finding, History, Judged, ProductPast, ReleasePast
from registry.ports import Event
from registry.product_rules import PRODUCT_RULES
from registry.release_rules import RELEASE_RULES
from registry.standing import after

_RULES = PRODUCT_RULES | RELEASE_RULES


class Replay:
    """Feed it every event in order with `take`, then read `history` and `commitments`."""

    def __init__(self, ledger: Ledger) -> None:
        self.history = History(ledger)
        self.events = 0

    @property
    def products(self) -> int:
        """How many there are."""
        return len(self.history.products)

    @property
    def releases(self) -> int:
        """How many there are."""
        return len(self.history.releases)

    def take(self, event: Event, now: int) -> None:
        """Judges one event at block time ``now``, and goes on from it."""
        self.events += 1
        judged = Judged(self.history, event, now)
        self._check_due(judged)
        which = event.args.get("product_id")
        if (
            which is not None
            and which not in self.history.products
            and event.name != "ProductCreated"
        ):
            judged.find("unknown-product", f"is about product {which}, which was never created")
            return
        release = event.args.get("release_id")
        known = event.name == "ReleasePublished" or (which, release) in self.history.releases
        if release is not None and not known:
            judged.find("unknown-release", f"is about release {release}, never published")
            return
        try:
            _RULES[event.name](judged)
        except (ValueError, Malformed):
            # The rules compute with what earlier events said; of lies they make what cannot be.
            judged.find("impossible-state", "follows from a state that cannot be")
        self._go_on(event)

    def close(self) -> None:
        """After the last event: what was due and did not come."""
        if self.history.due is not None:
            (which, release), tx = self.history.due
            self.history.findings.append(_missing_halt(which, release, tx))
            self.history.due = None

    def commitments(self) -> dict[Hash, tuple[str, bytes]]:
        """Storage slot to what it is, and the word it must hold."""
        words: dict[Hash, tuple[str, bytes]] = {}
        for which, product in self.history.products.items():
            standing = product.standing
            slot = mapping_slot(which, _abi.PRODUCTS_SLOT)
            # Any time gives the same word: the commitment orders the governances by themselves.
            value = self.history.ledger.product_slot(which, standing.record(0), 0)
            words[slot] = (f"record of product {which}", value)
            for image, release in product.images.items():
                slot = nested_slot(_abi.IMAGES_SLOT, which, image)
                words[slot] = (f"newest release of image {image}", word(release))
            for root, size, epoch in product.fleets[-1:]:
                slot = mapping_slot(which, _abi.FLEETS_SLOT)
                words[slot] = (f"fleet root of product {which}", bytes(root))
                second = Hash(word(int.from_bytes(slot, "big") + 1))
                packed = word(epoch << 32 | size)
                words[second] = (f"fleet size and epoch of product {which}", packed)
            for terms_hash in product.withdrawn:
                slot = nested_slot(_abi.WITHDRAWN_SLOT, which, terms_hash)
                words[slot] = (f"withdrawn terms {terms_hash}", word(1))
        for (which, number), release_ in self.history.releases.items():
            slot = nested_slot(_abi.RELEASES_SLOT, which, word(number))
            value = self.history.ledger.release_slot(
                which, number, release_.terms_hash, release_.state
            )
            words[slot] = (f"record of release {number} of product {which}", value)
        for digest, approver in self.history.approved:
            slot = nested_slot(_abi.APPROVED_SLOT, digest, approver.rjust(32, b"\0"))
            words[slot] = (f"approval of {digest} by {approver}", word(1))
        return words

    def _check_due(self, judged: Judged) -> None:
        if self.history.due is None:
            return
        (which, release), tx = self.history.due
        event = judged.event
        same = event.args.get("product_id") == which and event.args.get("release_id") == release
        if not (event.name == "ReleaseHalted" and event.tx == tx and same):
            self.history.findings.append(_missing_halt(which, release, tx))
        self.history.due = None

    def _go_on(self, event: Event) -> None:
        """From what the event says, whatever was found."""
        args, which = event.args, event.args.get("product_id")
        if which is None:
            return
        product = self.history.products.get(which)
        standing = after(product.standing if product else None, event.name, args)
        if standing is not None:
            self.history.products.setdefault(which, ProductPast(standing)).standing = standing
        if event.name == "ReleasePublished":
            terms: Terms = args["terms"]
            self.history.releases[which, args["release_id"]] = ReleasePast(
                terms, terms.hash_struct(), args["state"]
            )
            self.history.products[which].images[Digest(terms.image_digest)] = args["release_id"]
        elif "state" in args:
            self.history.releases[which, args["release_id"]].state = args["state"]


def _missing_halt(which: ProductId, release: int, tx: Hash) -> Finding:
    return Finding(
        "halt-missing",
        f"Transaction {tx} (ReceiptsAnchored) met the halting rule of product {which},"
        f" and release {release} was not halted.",
        tx,
    )
