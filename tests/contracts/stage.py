"""A ledger on which acts are played by name, each product in turn brought to a state.

`ACTS` says how each act is made, so that only the sender, or the number of approvals, decides
whether it is taken in a state. `tests.contracts.diagram` plays them; nothing is judged here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from protocol.ledger import StateWord
from protocol.records import (
    Action,
    Amendment,
    Approval,
    Decision,
    Governance,
    HaltRule,
    Phase,
    Product,
    Record,
    Release,
    SigningKey,
    State,
    Terms,
    product_id,
)
from tests.contracts.evm import address, addresses
from tests.contracts.instep import InStep

DAY = 86_400
FAR = 2**40
VOTERS = ("alice", "bob", "carol")


class Stage(InStep):
    """One ledger; each cell of a table gets a product of its own on it."""

    def __init__(self) -> None:
        super().__init__()
        self.salt = 0
        self.pid = b""

    def empty(self) -> None:
        """The next product, not created yet."""
        self.salt += 1
        self.pid = product_id(address("owner"), self.salt.to_bytes(32, "big"))

    @property
    def on(self) -> tuple[Any, ...]:
        """The product as an act names it; one that does not exist is named by a made-up record."""
        kept = self.model.products.get(self.pid)
        return (self.pid, kept.record(self.now) if kept else Product(GOVERNED))

    @property
    def release(self) -> Release:
        """Release 1, likewise."""
        kept = self.model.releases.get((self.pid, 1))
        return (
            Release(1, kept.terms.hash_struct(), kept.state)
            if kept
            else Release(1, bytes(32), State(0, 0))
        )

    def signed(self, message: Record, count: int) -> Any:
        """Approvals by the first ``count`` approvers."""
        return self.box.approvals(message, *VOTERS[:count])

    def decided(self, action: Action, count: int) -> Any:
        """Approvals of a decision as it would have to be now."""
        release, nonce = 1, 0
        if action == Action.UNPAUSE:
            release, nonce = 0, self.on[1].head.pauses
        if action == Action.RESUME:
            nonce = StateWord.unpack(self.release.state.word).halts
        epoch = self.on[1].governance.epoch
        return self.signed(Decision(self.pid, release, action, nonce, epoch, FAR), count)

    def next(self, **members: Any) -> Governance:
        """The governance in effect with some members replaced."""
        g = self.on[1].governance
        return dataclasses.replace(g, epoch=g.epoch + 1, **members)


GOVERNED = Governance(
    approvers=addresses(*VOTERS),
    threshold=2,
    epoch=1,
    guardians=addresses("guard"),
    auditors=addresses("auditor"),
    reporters=addresses("reporter"),
    enroller=address("enroller"),
    keys=(SigningKey(b"\1" * 32),),
    halt_rule=HaltRule(1, 0),
    release_delay=0,
    governance_delay=3 * DAY,
)


# -- acts ------------------------------------------------------------------------------------------

# What an act needs: a sender alone, or so many approvals, sent by anyone.
Play = Callable[[Stage, str, int], None]


def _create(s: Stage, sender: str, _: int) -> None:
    s.do("owner", "createProduct", s.salt.to_bytes(32, "big"), GOVERNED)


def _publish(s: Stage, sender: str, count: int) -> None:
    terms = Terms(
        s.pid, 1, 0, b"\1" * 32, b"\2" * 32, 1, 0, 0, 0, 0, 0, 0, False, 1, (Phase(10_000),)
    )
    epoch = s.on[1].governance.epoch
    s.do(sender, "publish", s.on[1], terms, s.signed(Approval(terms, epoch, FAR), count))


def _anchor(failed: int) -> Play:
    def play(s: Stage, sender: str, _: int) -> None:
        size = StateWord.unpack(s.release.state.word).log_size + 1
        s.do(sender, "anchor", *s.on, s.release, size, b"\3" * 32, 1 - failed, failed)

    return play


def _decide(function: str, action: Action) -> Play:
    def play(s: Stage, sender: str, count: int) -> None:
        on = s.on if action == Action.UNPAUSE else (*s.on, s.release)
        s.do(sender, function, *on, s.decided(action, count))

    return play


def _amend(**members: Any) -> Play:
    def play(s: Stage, sender: str, count: int) -> None:
        to = s.next(**members)
        message = Amendment(s.pid, to, s.on[1].governance.epoch, FAR)
        s.do(sender, "amend", *s.on, to, s.signed(message, count))

    return play


def _cancel(s: Stage, sender: str, _: int) -> None:
    kept = s.model.products[s.pid]
    s.do(sender, "cancel", *s.on, kept.pending or s.next())


def _wait(s: Stage, sender: str, _: int) -> None:
    s.wait = max(1, s.model.products[s.pid].effective_at - s.box.evm.now)
    if s.wait == 1:
        raise NothingToDo
    s.do("outsider", "approve", bytes(32))  # an act on nothing: time alone


TIME = "effectiveAt comes"


class NothingToDo(Exception):
    """There is nothing to wait for."""


ACTS: dict[str, Play] = {
    "createProduct": _create,
    "publish": _publish,
    "halt": lambda s, sender, _: s.do(sender, "halt", *s.on, s.release, ""),
    "anchor": _anchor(failed=0),
    "anchor, the halting rule met": _anchor(failed=1),
    "attest": lambda s, sender, _: s.do(sender, "attest", *s.on, s.release, 0, b"\4" * 32),
    "resume": _decide("resume", Action.RESUME),
    "supersede": _decide("supersede", Action.SUPERSEDE),
    "revoke": _decide("revoke", Action.REVOKE),
    "pause": lambda s, sender, _: s.do(sender, "pause", *s.on),
    "unpause": _decide("unpause", Action.UNPAUSE),
    "setFleet": lambda s, sender, _: s.do(sender, "setFleet", *s.on, b"\5" * 32, 1),
    "withdraw": lambda s, sender, _: s.do(sender, "withdraw", *s.on, b"\6" * 32),
    "amend, loosening": _amend(reporters=addresses("reporter", "outsider")),
    "amend, tightening": _amend(auditors=()),
    "restrict": lambda s, sender, _: s.do(sender, "restrict", *s.on, s.next(auditors=())),
    "cancel": _cancel,
    TIME: _wait,
}
VOTED = {
    "publish",
    "resume",
    "supersede",
    "revoke",
    "unpause",
    "amend, loosening",
    "amend, tightening",
}
