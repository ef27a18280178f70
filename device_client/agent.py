"""The agent: what a device can be asked to do. Performs and decides nothing by itself.

Rules:

1. `start` comes first after every boot: where the boot record is ahead of the book, or behind, the
   table is told so before anything else happens (`update` does it by itself).
2. Whatever fails leaves a state that `start` and the next `update` go on from.
3. Outcomes, and what ledger or policy refuse, are reported; wire, machine and lies are raised.

One agent works on a device at a time; that is seen to by whoever opens its directory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from device_client.core.book import OWNER, Book
from device_client.core.machine import BOOTING, Event, Stage, Told, situation
from device_client.core.policy import Leave
from device_client.core.reanchor import reanchor
from device_client.core.slots import Entry, Standing, other
from device_client.core.trust import Equivocation, TrustState
from device_client.core.types import Target
from device_client.engine import Engine
from device_client.inquiry import Finding
from device_client.memory import Memory
from device_client.profile import Parts, Profile
from device_client.report import NOTHING, READY, Progress, Report, Round, silent
from protocol.errors import Refused
from protocol.ids import Digest
from protocol.receipt import Consent


class Agent:
    """One device. Every public method may be called again after any failure or cut."""

    def __init__(self, profile: Profile, parts: Parts, progress: Progress = silent) -> None:
        """``progress(what, done, total)`` hears of long work, in bytes."""
        self._parts, self._trusted = parts, profile.trust
        self._keep_former = profile.keep_former
        self._memory = Memory(parts.journal, parts.clock)
        self._engine = Engine(profile, parts, self._memory, progress)

    @property
    def book(self) -> Book:
        """All that the device remembers."""
        return self._memory.book

    @property
    def trust(self) -> TrustState:
        """What the device believes of the ledger."""
        return self._memory.trust

    @property
    def parts(self) -> Parts:
        """The ports it works with."""
        return self._parts

    @property
    def running(self) -> Entry:
        """The image that runs."""
        record = self._parts.boot.record()
        return record.entry(record.running)

    # -- what it can be asked to do ----------------------------------------------------------------

    def start(self) -> Report:
        """Finish what a boot or a cut interrupted, as far as that needs no source."""
        current, feed = self._begin(), self._engine.feed
        state = self.book.state
        if state.target is not None and state.stage in BOOTING:
            feed(Told(situation(self._parts.boot.record(), state)))
        state = self.book.state
        if state.stage is Stage.VERIFYING and state.target is not None and state.target.former:
            current.leave = Leave.NOW  # the owner's rollback, cut short
            feed(Told(Event.RESUME))
        self._clear_if_due()
        self._freeze_if_due()
        if state.stage is Stage.FROZEN and not self.trust.frozen:
            feed(Told(Event.THAW))
        return current.end()

    def check(self) -> Report:
        """Ask and prove, and say what would be done; installs nothing."""
        current = self._begin()
        report = current.report
        finding = report.finding = self._engine.inquiry.ask(self.running)
        if finding.target is None:
            self._engine.say_why(finding)
            return report
        report.version, report.outcome = finding.target.version, READY
        report.held(self._engine.judge(finding.target), self._memory.now())
        return report

    def update(self, leave: Leave = Leave.NONE, by: str = OWNER, wait: int = 0) -> Report:
        """One whole round: finish what is under way, ask, and install what may be installed.

        ``leave``: the owner's word on whatever is offered; ``by``: who that is, for the receipt;
        ``wait``: seconds for which the source may hold its answer back until it has news.
        """
        report = self.start()
        if report.outcome != NOTHING or self.book.state.stage in BOOTING:
            return report
        current = self._begin(leave)
        try:
            finding = self._engine.inquiry.ask(self.running, wait)
        except Equivocation:
            self._freeze_if_due()
            raise
        current.finding = current.report.finding = finding
        if self.book.failures:
            self._memory.commit(replace(self.book, failures=0))
        self._consider(current, finding, by)
        self._clear_if_due()
        self._freeze_if_due()
        return current.end()

    def confirm(self) -> Report:
        """The owner vouches for the image on trial."""
        current = self._begin()
        if self.book.state.stage is not Stage.TRIAL:
            raise Refused(
                "no-trial",
                "confirmation refused",
                f"no image is on trial, the device is {self.book.state.stage}",
                "see `firmledger-device status`",
            )
        self._engine.feed(Told(Event.HEALTHY))
        self._clear_if_due()
        return current.end()

    def rollback(self) -> Report:
        """The owner wants the former image: ends a trial, or tries the other confirmed image."""
        current = self._begin(Leave.NOW)
        if self.book.state.stage is Stage.TRIAL:
            self._engine.feed(Told(Event.SICK, reason=OWNER))
            return current.end()
        former = self._former()
        if self.book.state.stage is not Stage.IDLE:
            self._engine.feed(Told(Event.NOTHING))
        self._engine.feed(Told(Event.ROLLBACK, former))
        return current.end()

    def deliver(self, beat: Callable[[], None] = lambda: None) -> int:
        """One round of handing over receipts; how many are still queued (`Outbox.deliver`)."""
        return self._engine.outbox.deliver(self._engine.inquiry.prove, beat)

    def reanchor(self, statement: bytes) -> TrustState:
        """Move trust by the recovery keys, durably (`core.reanchor`); the state that was before.

        What was said to the former ledger is said once more where another one is named: its
        releases are counted anew.
        """
        before, trust = self.trust, reanchor(self.trust, statement, self._trusted)
        pinned = self._trusted.anchor
        book = self._memory.noted("re-anchored", 0, self.running.version, str(trust.sequence))
        if trust.anchor(pinned).ledger != before.anchor(pinned).ledger:
            book = replace(book, spoken=())
        self._memory.believe(trust, book)
        self.start()
        return before

    def count_failure(self) -> None:
        """Remember a poll that brought nothing, for the back-off; `update` resets the count."""
        book = self.book
        self._memory.commit(replace(book, failures=min(book.failures + 1, 1000)))

    # -- one call ----------------------------------------------------------------------------------

    def _begin(self, leave: Leave = Leave.NONE) -> Round:
        self._engine.round = Round(leave)
        return self._engine.round

    def _consider(self, current: Round, finding: Finding, by: str) -> None:
        """Tell the table what the poll found."""
        target = finding.target
        if target is None:
            self._engine.feed(Told(Event.NOTHING))
            self._engine.refuse(finding)
            return
        current.report.version = target.version
        if current.leave is not Leave.NONE:
            consent = (target.manifest_digest, Consent(by, self._memory.clock()))
            self._memory.commit(replace(self.book, consent=consent))
        elif self.book.agreed(target.manifest_digest) is not None:
            current.leave = Leave.GIVEN
        same = self.book.state.target == target
        self._engine.feed(Told(Event.RESUME if same else Event.OFFER, target))

    def _clear_if_due(self) -> None:
        """Tell the table that the former image is not kept, where the owner wants it so.

        What is overwritten is named by the boot record until its entry is withdrawn, and by the
        journal from then on: a cut at any point leads here again.
        """
        state = self.book.state
        if state.stage is Stage.CLEARING and state.target is not None:
            self._engine.clear(state.target)
        elif state.stage is Stage.IDLE and not self._keep_former:
            record = self._parts.boot.record()
            entry = record.entry(other(record.primary))
            if record.running == record.primary and entry.standing is Standing.GOOD:
                self._engine.clear(_former(entry))

    def _freeze_if_due(self) -> None:
        """Tell the table that the ledger contradicted itself; a trial is ended first."""
        stage = self.book.state.stage
        if self.trust.frozen and stage not in {*BOOTING, Stage.FROZEN}:
            self._engine.feed(Told(Event.FREEZE))

    def _former(self) -> Target:
        """The other slot's image as a target; `Refused` if it cannot be had now."""
        record, stage = self._parts.boot.record(), self.book.state.stage
        entry = record.entry(other(record.running))
        if stage not in (Stage.IDLE, Stage.OFFERED, Stage.WAITING):
            why = f"the device is {stage}"
        elif entry.standing is not Standing.GOOD:
            why = "the other slot holds no image that was confirmed here"
        else:
            return _former(entry)
        raise Refused("no-former-image", "rollback refused", why, "see `firmledger-device status`")


def _former(entry: Entry) -> Target:
    """An image confirmed here before, as a target."""
    nothing = Digest(bytes(32))
    return Target(
        release_id=entry.release_id,
        version=entry.version,
        security_counter=entry.security_counter,
        image_digest=entry.digest,
        image_size=entry.size,
        payload_digest=nothing,
        payload_size=entry.size,
        manifest_digest=nothing,
        former=True,
    )
