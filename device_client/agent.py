"""The agent: performs what the table says, and tells the table what came of it. No policy here.

Rules:

1. Order of every step: the table gives state and effects, the book with the new state is committed,
   then the effects are performed; the first that has something to tell gives the next event.
2. `start` comes first after every boot: where the boot record is ahead of the book, or behind, the
   table is told so before anything else happens.
3. Whatever fails leaves a state that `start` and the next `update` go on from. Errors of the wire
   and of this machine stop a step (STOPPED) and are raised; bytes that are not what was signed end
   it (SPOILED), with a receipt.

One agent works on a device's directory at a time; that is seen to by whoever opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from device_client import flash
from device_client.core import policy as rules
from device_client.core.book import OWNER, Book
from device_client.core.machine import Effect, Event, Stage, State, Told, outcome, situation, step
from device_client.core.policy import Decision, Hold, Leave
from device_client.core.reanchor import reanchor
from device_client.core.slots import Entry, Standing, other
from device_client.core.trust import Equivocation, TrustState
from device_client.core.types import Target
from device_client.inquiry import PATIENT, Finding, Inquiry
from device_client.memory import Memory
from device_client.outbox import Outbox
from device_client.profile import Parts, Profile
from protocol.errors import FirmledgerError, Refused, Untrusted
from protocol.ids import Digest, Version
from protocol.ledger import Reason
from protocol.receipt import Consent, Outcome

BOOTING = frozenset({Stage.INSTALLED, Stage.TRIAL, Stage.CONFIRMED, Stage.REVERTED})
"""Stages in which the boot record has the word, not the ledger."""

NOTHING, WAITING = "nothing", "waiting"


@dataclass
class Report:
    """What came of one call.

    ``outcome``: a receipt's outcome, or ``waiting``, or ``nothing``; ``reason``: why, if there is
    something to say.
    """

    outcome: str = NOTHING
    reason: str = ""
    version: Version | None = None
    finding: Finding | None = None
    hold: Decision | None = None

    @property
    def good(self) -> bool:
        """Whether nothing was refused and nothing failed."""
        return self.outcome in (NOTHING, WAITING, Outcome.CONFIRMED)


Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The progress report of whoever wants none."""


class Agent:
    """One device. Every public method may be called again after any failure or cut."""

    def __init__(self, profile: Profile, parts: Parts, progress: Progress = silent) -> None:
        """``progress(what, done, total)`` hears of long work, in bytes."""
        self._profile, self._parts, self._progress = profile, parts, progress
        self._memory = Memory(parts.journal, parts.clock)
        self._outbox = Outbox(profile, parts, self._memory)
        self._inquiry = Inquiry(profile, parts, self._memory, self._outbox)
        self._leave = Leave.NONE
        self._finding: Finding | None = None
        self._report = Report()
        self._error: FirmledgerError | None = None

    # -- what is known ---------------------------------------------------------------------------

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
        report = self._begin()
        state = self.book.state
        if state.target is not None and state.stage in BOOTING:
            self._feed(Told(situation(self._parts.boot.record(), state.target)))
        state = self.book.state
        if state.stage is Stage.VERIFYING and state.target is not None and state.target.former:
            self._feed(Told(Event.RESUME))
        if state.stage is not Stage.FROZEN and self.trust.frozen and state.stage not in BOOTING:
            self._feed(Told(Event.FREEZE))
        if state.stage is Stage.FROZEN and not self.trust.frozen:
            self._feed(Told(Event.THAW))
        return self._end(report)

    def check(self) -> Report:
        """Ask and prove, and say what would be done; installs nothing."""
        report = self._begin()
        report.finding = self._inquiry.ask(self.running)
        target = report.finding.target
        if target is not None:
            report.version, report.hold = target.version, self._judge(target)
            report.outcome = WAITING
            report.reason = str(report.hold.hold or "")
        elif report.finding.offer is not None:
            self._say_why(report, report.finding)
        return report

    def update(self, leave: Leave = Leave.NONE, by: str = OWNER) -> Report:
        """One whole round: finish what is under way, ask, and install what may be installed.

        ``leave``: the owner's word on whatever is offered; ``by`` goes into the receipt. Outcomes
        and refusals by ledger or policy are reported; wire, machine and lies are raised.
        """
        report = self.start()
        if report.outcome != NOTHING or self.book.state.stage in BOOTING:
            return report
        report = self._begin(leave)
        try:
            finding = self._inquiry.ask(self.running)
        except Equivocation:
            self._feed(Told(Event.FREEZE))
            raise
        report.finding = self._finding = finding
        self._consider(finding, by)
        return self._end(report)

    def confirm(self) -> Report:
        """The owner vouches for the image on trial."""
        report = self._begin()
        if self.book.state.stage is not Stage.TRIAL:
            raise Refused(
                "no-trial",
                "confirmation refused",
                f"no image is on trial, the device is {self.book.state.stage}",
                "see `firmledger-device status`",
            )
        self._feed(Told(Event.HEALTHY))
        return self._end(report)

    def rollback(self) -> Report:
        """The owner wants the former image: ends a trial, or tries the other confirmed image."""
        report = self._begin()
        if self.book.state.stage is Stage.TRIAL:
            self._feed(Told(Event.SICK, reason=OWNER))
            return self._end(report)
        former = self._former()
        if self.book.state.stage is not Stage.IDLE:
            self._feed(Told(Event.NOTHING))
        self._feed(Told(Event.ROLLBACK, former))
        return self._end(report)

    def deliver(self) -> int:
        """One round of handing over receipts; how many are still queued (`Outbox.deliver`)."""
        return self._outbox.deliver(self._inquiry.prove)

    def reanchor(self, statement: bytes) -> TrustState:
        """Move trust by the recovery keys, durably (`core.reanchor`); the state that was before.

        What was said to the former ledger is said once more where another one is named: its
        releases are counted anew.
        """
        before, trust = self.trust, reanchor(self.trust, statement, self._profile.trust)
        pinned = self._profile.trust.anchor
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

    def _begin(self, leave: Leave = Leave.NONE) -> Report:
        self._leave, self._report, self._error = leave, Report(), None
        return self._report

    def _end(self, report: Report) -> Report:
        if self._error is not None:
            raise self._error
        return report

    def _consider(self, finding: Finding, by: str) -> None:
        """Tell the table what the poll found."""
        state, target = self.book.state, finding.target
        if self.book.failures:
            self._memory.commit(replace(self.book, failures=0))
        if target is None:
            self._feed(Told(Event.NOTHING))
            if finding.offer is not None:
                self._say_why(self._report, finding)
                self._refuse(finding)
            return
        self._report.version = target.version
        if self._leave is not Leave.NONE:
            consent = (target.manifest_digest, Consent(by, self._memory.clock()))
            self._memory.commit(replace(self.book, consent=consent))
        elif self.book.agreed(target.manifest_digest) is not None:
            self._leave = Leave.GIVEN
        same = state.target == target
        self._feed(Told(Event.RESUME if same else Event.OFFER, target))

    def _refuse(self, finding: Finding) -> None:
        offer, reason = finding.offer, finding.reason
        if offer is not None and reason not in {*PATIENT, Reason.NOT_NEWER}:
            self._outbox.refused(offer.release_id, reason.slug, offer.manifest.version)

    def _say_why(self, report: Report, finding: Finding) -> None:
        assert finding.offer is not None  # noqa: S101 - both callers looked
        report.version, report.reason = finding.offer.manifest.version, finding.reason.slug
        report.outcome = WAITING if finding.reason in PATIENT else Outcome.REFUSED
        if finding.reason is Reason.NOT_NEWER and report.version == self.running.version:
            report.outcome = NOTHING

    def _judge(self, target: Target) -> Decision:
        return rules.decide(
            self._profile.policy,
            target,
            self._parts.site.observe(),
            self._leave,
            self.book.state.box,
            self._memory.now(),
            self._profile.zone,
        )

    def _former(self) -> Target:
        """The other slot's image as a target; `Refused` if it cannot be had now."""
        record, stage = self._parts.boot.record(), self.book.state.stage
        entry = record.entry(other(record.running))
        if stage not in (Stage.IDLE, Stage.OFFERED, Stage.WAITING):
            why = f"the device is {stage}"
        elif entry.standing is not Standing.GOOD:
            why = "the other slot holds no image that was confirmed here"
        else:
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
        raise Refused("no-former-image", "rollback refused", why, "see `firmledger-device status`")

    # -- the table ---------------------------------------------------------------------------------

    def _feed(self, told: Told | None) -> None:
        """One event, and all that follows from it."""
        while told is not None:
            before = self.book.state
            state, effects = step(before, told)
            book = replace(self.book, state=state)
            if Effect.REPORT in effects:
                book = self._conclude(book, before, told)
            self._memory.commit(book)
            told = next(filter(None, map(self._perform, effects)), None)

    def _conclude(self, book: Book, before: State, told: Told) -> Book:
        """The book with what there is to tell of an installation that just ended."""
        target, record = before.target, self._parts.boot.record()
        assert target is not None  # noqa: S101 - the table reports only where there is a target
        here, there = record.entry(record.running), record.entry(other(record.running))
        result, reason = outcome(before, told)
        versions, release_id = (here.version, here.version), target.release_id
        if told.event is Event.KEPT:
            versions = (there.version, here.version)
            release_id = there.release_id if target.former else release_id
        self._report.outcome, self._report.reason = result, reason
        self._report.version = target.version
        line = self._memory.noted(str(result), target.release_id, target.version, reason)
        book = replace(book, history=line.history)
        if (target.former and told.event is not Event.KEPT) or not release_id:
            return book
        consent = book.agreed(target.manifest_digest)
        return self._outbox.concluded(book, release_id, result, reason, versions, consent)

    def _perform(self, effect: Effect) -> Told | None:
        """The event that comes of an effect, or None if the next one is to be performed."""
        boot = self._parts.boot
        match effect:
            case Effect.JUDGE:
                return self._judged()
            case Effect.VACATE:
                boot.vacate(boot.record().inactive)
            case Effect.DOWNLOAD:
                return self._guarded(self._download) or Told(Event.FETCHED)
            case Effect.READ_BACK:
                return self._guarded(self._read_back)
            case Effect.RENEW:
                return self._guarded(self._renew) or self._renewed()
            case Effect.ARM:
                entry = Entry.of(self._target, Standing.TRIAL)
                boot.arm(boot.record().inactive, entry, self._profile.attempts)
            case Effect.REBOOT:
                boot.reboot()
            case Effect.LOOK:
                return Told(situation(boot.record(), self._target))
            case Effect.CHECK_HEALTH:
                return self._examined()
            case Effect.KEEP:
                boot.settle(True)
            case Effect.GIVE_UP:
                boot.settle(False)
            case Effect.REPORT:
                pass  # was part of the commit
        return None

    @property
    def _target(self) -> Target:
        target = self.book.state.target
        assert target is not None  # noqa: S101 - the table has effects only where there is one
        return target

    def _guarded(self, work: Callable[[], None]) -> Told | None:
        """STOPPED or SPOILED, with the error kept for `_end`, if ``work`` does not succeed."""
        try:
            work()
        except Untrusted as error:
            self._error = error
            spoiled = error.reason in flash.SPOILED
            return Told(Event.SPOILED if spoiled else Event.STOPPED, reason=error.reason)
        except FirmledgerError as error:
            self._error = error
            return Told(Event.STOPPED, reason=error.reason)
        return None

    def _judged(self) -> Told:
        decision = self._report.hold = self._judge(self._target)
        if decision.hold is None:
            return Told(Event.GO)
        self._report.outcome = Outcome.REFUSED if decision.hold is Hold.PENALTY else WAITING
        self._report.reason = str(decision.hold)
        return Told(Event.HOLD, reason=str(decision.hold))

    def _download(self) -> None:
        target, finding = self._target, self._finding
        assert finding is not None and finding.offer is not None  # noqa: S101 - RESUME and GO follow a poll
        key = self._parts.identity.content_key(finding.offer.manifest.encryption_info)

        def durable(progress: int) -> None:
            self._memory.commit(
                replace(self.book, state=replace(self.book.state, progress=progress))
            )
            self._progress("download", progress, target.payload_size)

        flash.fetch(
            *(self._parts.source, self._parts.slots, self._parts.boot.record().inactive),
            *(target, key),
            progress=self.book.state.progress,
            durable=durable,
            block=self._profile.block,
            stride=self._profile.stride,
        )

    def _read_back(self) -> None:
        slot, target = self._parts.boot.record().inactive, self._target
        self._progress("verify", 0, target.image_size)
        flash.read_back(self._parts.slots, slot, target, self._profile.block)
        self._progress("verify", target.image_size, target.image_size)

    def _renew(self) -> None:
        """A fresh finding, if the present one is too old to switch on its word."""
        finding = self._finding
        if self._target.former or (finding and self._inquiry.fresh_enough(finding.view)):
            return
        self._finding = self._report.finding = self._inquiry.ask(self.running)

    def _renewed(self) -> Told:
        finding = self._finding
        if self._target.former or (finding is not None and finding.target == self._target):
            return Told(Event.VERIFIED)
        if finding is not None and finding.offer is not None:
            self._say_why(self._report, finding)
            self._refuse(finding)
        return Told(Event.NOTHING)

    def _examined(self) -> Told:
        verdict = self._parts.health.examine(self._parts.boot.record().running)
        if not verdict.healthy:
            return Told(Event.SICK, reason=verdict.reason or "health-check")
        if self._profile.owner_confirms:
            self._report.outcome, self._report.reason = WAITING, "owner-confirms"
            return Told(Event.HOLD)
        return Told(Event.HEALTHY)
