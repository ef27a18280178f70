"""One event before the judge: what there was before it, and what to say when it does not follow.

`History` is what the events so far have made; `Judged` gives the rules of `registry.product_rules`
and `registry.release_rules` the words to speak in.

Not here: the rules themselves, and the order of events (`registry.replay`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from protocol.ids import Address, Digest, Hash, ProductId
from protocol.ledger import StateWord
from protocol.records import Governance, Head, Ledger, State, Terms
from registry.ports import Event
from registry.standing import Standing

Key = tuple[ProductId, int]
"""A release: its product and its id."""


@dataclass(frozen=True)
class Finding:
    """Something that does not agree; ``sentence`` is for people and names the transaction."""

    reason: str
    sentence: str
    tx: Hash | None = None
    block: int | None = None


@dataclass
class Batch:
    """Receipts as anchored: ``old_size`` to ``new_size`` of a release's log, at block ``time``."""

    product: ProductId
    release: int
    old_size: int
    new_size: int
    root: Digest
    confirmed: int
    failed: int
    tx: Hash
    block: int
    fleets: tuple[Digest, ...]
    """Roots of the fleets that there had been by then, the one in force last."""


@dataclass
class ProductPast:
    """A product so far; ``fleets`` are (root, size, epoch), the one in force last."""

    standing: Standing
    fleets: list[tuple[Digest, int, int]] = field(default_factory=list)
    withdrawn: set[Hash] = field(default_factory=set)
    images: dict[Digest, int] = field(default_factory=dict)


@dataclass
class ReleasePast:
    """A release so far."""

    terms: Terms
    terms_hash: Hash
    state: State


@dataclass
class History:
    """What the events so far have made of one ledger, and what did not agree."""

    ledger: Ledger
    products: dict[ProductId, ProductPast] = field(default_factory=dict)
    releases: dict[Key, ReleasePast] = field(default_factory=dict)
    approved: set[tuple[Hash, Address]] = field(default_factory=set)
    """(digest, account) of approvals by transaction."""
    due: tuple[Key, Hash] | None = None
    """A release that must be halted by the very next event, and the transaction that made it so."""
    findings: list[Finding] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)


class Judged:
    """An event at block time ``now``; its properties are those from *before* the event."""

    def __init__(self, history: History, event: Event, now: int) -> None:
        self.history = history
        self.event = event
        self.args = event.args
        self.now = now

    def find(self, reason: str, what: str) -> None:
        """``what`` completes the sentence "Transaction … (event) …"."""
        event = self.event
        sentence = f"Transaction {event.tx} ({event.name}) {what}."
        self.history.findings.append(Finding(reason, sentence, event.tx, event.block))

    def expect(self, holds: bool, reason: str, what: str) -> None:
        """A finding unless it holds."""
        if not holds:
            self.find(reason, what)

    @property
    def which(self) -> ProductId:
        """The product it is about."""
        which: ProductId = self.args["product_id"]
        return which

    @property
    def product(self) -> ProductPast:
        """Its past."""
        return self.history.products[self.which]

    @property
    def head(self) -> Head:
        """Its head."""
        return self.product.standing.head

    @property
    def governance(self) -> Governance:
        """The governance in effect."""
        return self.product.standing.in_effect(self.now)

    @property
    def release(self) -> ReleasePast:
        """The past of the release it is about."""
        return self.history.releases[self.which, self.args["release_id"]]

    def by(self, role: str, member: str, allowed: Sequence[bytes] | set[bytes]) -> None:
        """The account in ``member`` holds the role."""
        account = self.args[member]
        self.expect(account in allowed, "not-authorized", f"is by {account}, who is no {role}")

    def agreed(self, signers: Sequence[bytes]) -> bool:
        """Whether M of N agreed, each once."""
        g = self.governance
        ascending = all(left < right for left, right in pairwise(signers))
        return ascending and len(signers) >= g.threshold and {*signers} <= {*g.approvers}

    def expect_agreed(self) -> None:
        """The signers that the event names are M of N."""
        signers = self.args["signers"]
        named = ", ".join(map(str, signers)) or "nobody"
        self.expect(
            self.agreed(signers),
            "too-few-approvals",
            f"was agreed by {named}: not {self.governance.threshold} of the approvers, each once",
        )

    def expect_word(self, *, log_root: bytes | None = None, **changes: int) -> None:
        """The state before, with these members of its word changed and nothing else, is it."""
        before = self.release.state
        packed = replace(StateWord.unpack(before.word), **changes).pack()
        root = before.log_root if log_root is None else log_root
        self.expect_state(State(before.starts_at, packed, root))

    def expect_state(self, state: State) -> None:
        """The state that the rules make is the one in the event."""
        given: State = self.args["state"]
        self.expect(
            given == state,
            "wrong-state",
            f"leaves {differences(state, given)} of release {self.args['release_id']},"
            " against the rules",
        )


def differences(expected: State, given: State) -> str:
    """What differs, by name: "confirmed 3 (not 2)"."""
    pairs: list[tuple[str, object, object]] = [("start", expected.starts_at, given.starts_at)]
    left, right = StateWord.unpack(expected.word), StateWord.unpack(given.word)
    pairs += [(name, value, vars(right)[name]) for name, value in vars(left).items()]
    pairs += [("log root", "0x" + expected.log_root.hex(), "0x" + given.log_root.hex())]
    return ", ".join(f"{name} {b} (not {a})" for name, a, b in pairs if a != b) or "nothing"
