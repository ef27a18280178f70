"""What is to be done on the ledger, told without the records that change under way.

Guarantees: an intent survives storage as JSON, and becomes a call only when it is about to be
signed, from the newest records (`Intent.call`); `Intent.done` finds it on the chain if it took
effect before, so that it is not done twice.

Rules: the contract takes the current product and release along with every act, so no act can take
effect twice on one state; what `done` adds is to know success from a refusal after a crash.

Not here: signing and sending (`registry.publish`), and whether the contract will agree.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from protocol.errors import Malformed, Refused
from protocol.ids import Address, Digest, Hash, ProductId
from protocol.ledger import StateWord
from protocol.records import Action, Governance, Product, Record, Release, Terms, product_id
from registry.approvals import Approvals
from registry.catalogue import MAX_PAGE, Catalogue, EventEntry, Place
from registry.ports import Call

Scope = tuple[bytes, int]
"""What an intent touches: a product, and a release or 0 for the product as a whole."""


@dataclass(frozen=True)
class Newest:
    """The newest records, spelled for block time ``now``, as ``sender`` would use them."""

    catalogue: Catalogue
    now: int
    sender: Address

    def product(self, which: ProductId) -> Product:
        """`Misuse` ``unknown-product`` if there is none."""
        return self.catalogue.product(which, now=self.now).record

    def release(self, which: ProductId, release: int) -> Release:
        """`Misuse` ``unknown-release`` if there is none."""
        return self.catalogue.release(which, release).record

    def both(self, which: ProductId, release: int) -> tuple[ProductId, Product, Release]:
        """What every act on a release starts with."""
        return which, self.product(which), self.release(which, release)


class Intent:
    """Base of all intents: frozen dataclasses of ids, records, numbers and text."""

    act: ClassVar[str]

    def scope(self, sender: Address) -> Scope:
        """Two intents whose scopes meet are not under way at the same time."""
        return bytes(getattr(self, "product_id")), int(getattr(self, "release_id", 0))  # noqa: B009

    def call(self, newest: Newest) -> Call:
        """The call, made from the newest records; `Refused` if it no longer makes sense."""
        raise NotImplementedError

    def done(self, newest: Newest) -> Place | None:
        """Where on the chain it took effect already, if it can be told."""
        return None

    def to_json(self) -> dict[str, Any]:
        """As `intent` reads it back."""
        members = {
            field.name: _outward(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }
        return {"act": self.act, **members}

    @classmethod
    def _from(cls, members: dict[str, Any]) -> Self:
        hints = typing.get_type_hints(cls)
        names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if members.keys() != names:
            raise _unreadable(cls.act, "its members are not those of the act")
        return cls(**{name: _inward(hints[name], members[name]) for name in names})


@dataclass(frozen=True)
class CreateProduct(Intent):
    """The sender creates a product; its id follows from sender and salt."""

    act = "create-product"
    salt: Hash
    governance: Governance

    def scope(self, sender: Address) -> Scope:
        """The product to be."""
        return bytes(product_id(sender, self.salt)), 0

    def call(self, newest: Newest) -> Call:
        """createProduct."""
        return Call("createProduct", (self.salt, self.governance))

    def done(self, newest: Newest) -> Place | None:
        """The product exists: nobody else can have made it."""
        wanted = product_id(newest.sender, self.salt)
        found = [entry for entry in newest.catalogue.products() if entry.id == wanted]
        return found[0].created if found else None


@dataclass(frozen=True)
class Publish(Intent):
    """Publishes a release; exactly once, by its terms."""

    act = "publish"
    terms: Terms
    approvals: Approvals

    def scope(self, sender: Address) -> Scope:
        """The product as a whole: its head changes."""
        return self.terms.product_id, 0

    def call(self, newest: Newest) -> Call:
        """publish."""
        product = newest.product(ProductId(self.terms.product_id))
        return Call("publish", (product, self.terms, self.approvals))

    def done(self, newest: Newest) -> Place | None:
        """These very terms are on the ledger."""
        product = ProductId(self.terms.product_id)
        found = newest.catalogue.published(product, self.terms.hash_struct())
        return found.published if found else None


@dataclass(frozen=True)
class SetFleet(Intent):
    """The enroller replaces the fleet."""

    act = "set-fleet"
    product_id: ProductId
    root: Digest
    size: int

    def call(self, newest: Newest) -> Call:
        """setFleet."""
        product = newest.product(self.product_id)
        return Call("setFleet", (self.product_id, product, self.root, self.size))

    def done(self, newest: Newest) -> Place | None:
        """The newest fleet is this one."""
        events = _newest_events(newest.catalogue, self.product_id, 0, "FleetSet")
        newest_fleet = events[-1].args if events else {}
        same = (newest_fleet.get("root"), newest_fleet.get("size")) == (str(self.root), self.size)
        return events[-1].place if same else None


@dataclass(frozen=True)
class Anchor(Intent):
    """A reporter appends receipts ``old_size`` to ``new_size`` to a release's log."""

    act = "anchor"
    product_id: ProductId
    release_id: int
    old_size: int
    new_size: int
    root: Digest
    confirmed: int
    failed: int

    def call(self, newest: Newest) -> Call:
        """anchor; `Refused` ``log-moved`` if the log is not where this batch starts."""
        which, product, release = newest.both(self.product_id, self.release_id)
        size = StateWord.unpack(release.state.word).log_size
        if size != self.old_size:
            raise Refused(
                "log-moved",
                "receipts not anchored",
                f"the log has {size} entries, this batch starts behind {self.old_size}",
                "another reporter is at work: gather the batch anew",
                size=size,
            )
        counts = (self.new_size, self.root, self.confirmed, self.failed)
        return Call("anchor", (which, product, release, *counts))

    def done(self, newest: Newest) -> Place | None:
        """The log had this very size and root."""
        release = newest.release(self.product_id, self.release_id)
        if StateWord.unpack(release.state.word).log_size < self.new_size:
            return None
        events = _newest_events(
            newest.catalogue, self.product_id, self.release_id, "ReceiptsAnchored"
        )
        for event in reversed(events):
            state = event.args["state"]
            size = StateWord.unpack(int(state["word"])).log_size
            if (size, state["log_root"]) == (self.new_size, str(self.root)):
                return event.place
        return None


@dataclass(frozen=True)
class Halt(Intent):
    """A guardian halts a release."""

    act = "halt"
    product_id: ProductId
    release_id: int
    reason: str

    def call(self, newest: Newest) -> Call:
        """halt."""
        return Call("halt", (*newest.both(self.product_id, self.release_id), self.reason))


@dataclass(frozen=True)
class Decide(Intent):
    """M of N resume, supersede or revoke a release, or unpause the product (``release_id`` 0)."""

    act = "decide"
    action: int
    product_id: ProductId
    release_id: int
    approvals: Approvals

    def call(self, newest: Newest) -> Call:
        """resume, supersede, revoke or unpause."""
        function = Action(self.action).name.lower()
        if self.action == Action.UNPAUSE:
            product = newest.product(self.product_id)
            return Call(function, (self.product_id, product, self.approvals))
        return Call(function, (*newest.both(self.product_id, self.release_id), self.approvals))


@dataclass(frozen=True)
class Amend(Intent):
    """M of N change the governance."""

    act = "amend"
    product_id: ProductId
    next: Governance
    approvals: Approvals

    def call(self, newest: Newest) -> Call:
        """amend."""
        product = newest.product(self.product_id)
        return Call("amend", (self.product_id, product, self.next, self.approvals))

    def done(self, newest: Newest) -> Place | None:
        """This very governance was proposed, or took effect: its epoch comes once."""
        wanted = self.next.to_json()
        for event in _newest_events(
            newest.catalogue, self.product_id, 0, "AmendmentProposed", "GovernanceChanged"
        ):
            coming = event.args.get("next") or event.args["product"]["governance"]
            if coming == wanted:
                return event.place
        return None


@dataclass(frozen=True)
class Restrict(Intent):
    """A watcher tightens the governance."""

    act = "restrict"
    product_id: ProductId
    next: Governance

    def call(self, newest: Newest) -> Call:
        """restrict."""
        return Call("restrict", (self.product_id, newest.product(self.product_id), self.next))


@dataclass(frozen=True)
class Cancel(Intent):
    """A watcher cancels the pending change, which is ``next``."""

    act = "cancel"
    product_id: ProductId
    next: Governance

    def call(self, newest: Newest) -> Call:
        """cancel."""
        return Call("cancel", (self.product_id, newest.product(self.product_id), self.next))


@dataclass(frozen=True)
class Pause(Intent):
    """A watcher pauses the product."""

    act = "pause"
    product_id: ProductId

    def call(self, newest: Newest) -> Call:
        """pause."""
        return Call("pause", (self.product_id, newest.product(self.product_id)))


@dataclass(frozen=True)
class Attest(Intent):
    """An auditor attests that evidence of one kind exists."""

    act = "attest"
    product_id: ProductId
    release_id: int
    kind: int
    evidence: Digest

    def call(self, newest: Newest) -> Call:
        """attest."""
        both = newest.both(self.product_id, self.release_id)
        return Call("attest", (*both, self.kind, self.evidence))


@dataclass(frozen=True)
class Withdraw(Intent):
    """An approver stops unpublished terms for good."""

    act = "withdraw"
    product_id: ProductId
    terms_hash: Hash

    def call(self, newest: Newest) -> Call:
        """withdraw."""
        product = newest.product(self.product_id)
        return Call("withdraw", (self.product_id, product, self.terms_hash))


@dataclass(frozen=True)
class Approve(Intent):
    """The sender approves a digest by a transaction of its own."""

    act = "approve"
    digest: Hash

    def scope(self, sender: Address) -> Scope:
        """The digest: it touches no product."""
        return bytes(self.digest), 0

    def call(self, newest: Newest) -> Call:
        """approve."""
        return Call("approve", (self.digest,))


_ACTS: dict[str, type[Intent]] = {
    kind.act: kind
    for kind in (
        CreateProduct,
        Publish,
        SetFleet,
        Anchor,
        Halt,
        Decide,
        Amend,
        Restrict,
        Cancel,
        Pause,
        Attest,
        Withdraw,
        Approve,
    )
}


def intent(value: dict[str, Any]) -> Intent:
    """The intent of `Intent.to_json`; `Malformed` ``bad-intent`` otherwise."""
    members = dict(value)
    kind = _ACTS.get(members.pop("act", ""))
    if kind is None:
        raise _unreadable("intent", "it names no act")
    return kind._from(members)


def meets(one: Scope, other: Scope) -> bool:
    """Whether two scopes share a record."""
    return one[0] == other[0] and (0 in (one[1], other[1]) or one[1] == other[1])


def _newest_events(
    catalogue: Catalogue, product: ProductId, release: int, *names: str
) -> list[EventEntry]:
    return catalogue.events(
        product, release_id=release or None, names=names, newest=True, limit=MAX_PAGE
    )


def _outward(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    return "0x" + value.hex() if isinstance(value, bytes) else value


def _inward(kind: Any, value: Any) -> Any:
    if issubclass(kind, Record):
        return kind.from_json(value)
    if issubclass(kind, bytes) and isinstance(value, str):
        return kind.parse(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _unreadable("intent", f"{str(value)[:40]!r} is no {kind.__name__}")
    return value


def _unreadable(what: str, why: str) -> Malformed:
    return Malformed("bad-intent", f"{what} refused", why, "submit it again")
