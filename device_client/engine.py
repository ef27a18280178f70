"""Drives the table: one event in, its effects performed, until there is no more to tell.

Rules:

1. The table gives state and effects; the book with the new state is committed; then the effects are
   performed in order, and the first that has something to tell gives the next event.
2. Errors of the wire and of this machine stop a step (STOPPED) and are kept in the `Round`; bytes
   that are not what was signed end it (SPOILED), with a receipt.
3. A receipt is part of the very commit that makes its outcome final.

No policy of its own: the owner's is asked (JUDGE), the ledger's word is in the finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from device_client import flash
from device_client.core import policy as rules
from device_client.core.book import Book
from device_client.core.machine import Effect, Event, Stage, State, Told, outcome, situation, step
from device_client.core.policy import Decision, Hold, Leave
from device_client.core.slots import Entry, Standing, other
from device_client.core.types import Target
from device_client.inquiry import PATIENT, Finding, Inquiry
from device_client.memory import Memory
from device_client.outbox import Outbox
from device_client.profile import Parts, Profile
from protocol.errors import FirmledgerError, Untrusted
from protocol.ids import Version
from protocol.ledger import Reason
from protocol.receipt import Outcome

NOTHING, READY, WAITING = "nothing", "ready", "waiting"
ROOM_TAKEN = (Stage.DOWNLOADING, Stage.VERIFYING)
"""Stages in which the slot has been given its room, or a full disk was said."""


@dataclass
class Report:
    """What came of one call.

    ``outcome``: a receipt's outcome, or ``waiting``, or ``nothing``, or, where nothing was to be
    installed yet, ``ready``; ``reason``: why, if there is something to say.
    """

    outcome: str = NOTHING
    reason: str = ""
    version: Version | None = None
    finding: Finding | None = None
    hold: Decision | None = None

    @property
    def good(self) -> bool:
        """Whether nothing was refused and nothing failed."""
        return self.outcome in (NOTHING, READY, WAITING, Outcome.CONFIRMED)

    def held(self, decision: Decision) -> None:
        """Put in what the owner's rules said, where they said anything but go."""
        self.hold = decision
        if decision.hold is not None:
            self.outcome = Outcome.REFUSED if decision.hold is Hold.PENALTY else WAITING
            self.reason = str(decision.hold)


Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The progress report of whoever wants none."""


@dataclass
class Round:
    """One call to the agent: the owner's word, what the poll found, what came of it."""

    leave: Leave = Leave.NONE
    finding: Finding | None = None
    report: Report = field(default_factory=Report)
    error: FirmledgerError | None = None

    def end(self) -> Report:
        """The report, or the error that stopped the round."""
        if self.error is not None:
            raise self.error
        return self.report


class Engine:
    """The one place where effects happen."""

    def __init__(
        self, profile: Profile, parts: Parts, memory: Memory, progress: Progress = silent
    ) -> None:
        """``progress(what, done, total)`` hears of long work, in bytes."""
        self._profile, self._parts, self._memory, self._progress = profile, parts, memory, progress
        self.outbox = Outbox(profile, parts, memory)
        self.inquiry = Inquiry(profile, parts, memory, self.outbox)
        self.round = Round()

    def feed(self, told: Told | None) -> None:
        """One event, and all that follows from it."""
        while told is not None:
            before = self._memory.book.state
            state, effects = step(before, told)
            book = replace(self._memory.book, state=state)
            if Effect.REPORT in effects:
                book = self._conclude(book, before, told)
            self._memory.commit(book)
            told = next(filter(None, map(self._perform, effects)), None)

    def judge(self, target: Target) -> Decision:
        """The owner's rules, for this moment."""
        around = self._parts.site.observe()
        if self._memory.book.state.target == target and self._memory.book.state.stage in ROOM_TAKEN:
            around = replace(around, free=None)  # it lies in its slot
        return rules.decide(
            self._profile.policy,
            target,
            around,
            self.round.leave,
            self._memory.book.state.box,
            self._memory.now(),
            self._profile.zone,
        )

    def say_why(self, finding: Finding) -> None:
        """Put into the report why the ledger does not allow what was offered."""
        if finding.offer is None:
            return
        report, version = self.round.report, finding.offer.manifest.version
        report.version, report.reason = version, finding.reason.slug
        report.outcome = WAITING if finding.reason in PATIENT else Outcome.REFUSED
        record = self._parts.boot.record()
        if finding.reason is Reason.NOT_NEWER and version == record.entry(record.running).version:
            report.outcome = NOTHING

    def refuse(self, finding: Finding) -> None:
        """`say_why`, remembered and told with a receipt where that is due."""
        self.say_why(finding)
        offer, reason = finding.offer, finding.reason
        if offer is not None and reason not in {*PATIENT, Reason.NOT_NEWER}:
            self.outbox.refused(offer.release_id, reason.slug, offer.manifest.version)

    # -- outcomes ----------------------------------------------------------------------------------

    def _conclude(self, book: Book, before: State, told: Told) -> Book:
        """The book with what there is to tell of an installation that just ended."""
        target, record = before.target, self._parts.boot.record()
        assert target is not None  # noqa: S101 - the table reports only where there is a target
        here, there = record.entry(record.running), record.entry(other(record.running))
        result, reason = outcome(before, told)
        versions, release_id = (here.version, here.version), target.release_id
        if told.event is Event.KEPT:
            versions = (there.version, here.version)
            release_id = there.release_id if target.former else release_id  # the one being left
        report = self.round.report
        report.outcome, report.reason, report.version = result, reason, target.version
        line = self._memory.noted(str(result), target.release_id, target.version, reason)
        book = replace(book, history=line.history)
        if (target.former and told.event is not Event.KEPT) or not release_id:
            return book  # nothing became of it, or it concerns an image that no ledger knows
        consent = book.agreed(target.manifest_digest)
        return self.outbox.concluded(book, release_id, result, reason, versions, consent)

    # -- effects -----------------------------------------------------------------------------------

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
        target = self._memory.book.state.target
        assert target is not None  # noqa: S101 - the table has effects only where there is one
        return target

    def _guarded(self, work: Callable[[], None]) -> Told | None:
        """STOPPED or SPOILED, with the error kept in the round, if ``work`` does not succeed."""
        try:
            work()
        except FirmledgerError as error:
            self.round.error = error
            spoiled = isinstance(error, Untrusted) and error.reason in flash.SPOILED
            return Told(Event.SPOILED if spoiled else Event.STOPPED, reason=error.reason)
        return None

    def _judged(self) -> Told:
        decision = self.judge(self._target)
        self.round.report.held(decision)
        return Told(Event.GO if decision.hold is None else Event.HOLD)

    def _download(self) -> None:
        target, finding, memory = self._target, self.round.finding, self._memory
        assert finding and finding.offer  # noqa: S101 - GO and RESUME follow a poll that found it
        key = self._parts.identity.content_key(finding.offer.manifest.encryption_info)

        def durable(progress: int) -> None:
            state = replace(memory.book.state, progress=progress)
            memory.commit(replace(memory.book, state=state))
            self._progress("download", progress, target.payload_size)

        self._progress("download", memory.book.state.progress, target.payload_size)
        flash.fetch(
            *(self._parts.source, self._parts.slots, self._parts.boot.record().inactive),
            *(target, key),
            progress=memory.book.state.progress,
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
        finding, record = self.round.finding, self._parts.boot.record()
        if self._target.former or (finding and self.inquiry.fresh_enough(finding.view)):
            return
        finding = self.inquiry.ask(record.entry(record.running))
        self.round.finding = self.round.report.finding = finding

    def _renewed(self) -> Told:
        finding = self.round.finding
        if self._target.former or (finding is not None and finding.target == self._target):
            return Told(Event.VERIFIED)
        if finding is not None:
            self.refuse(finding)
        return Told(Event.NOTHING)

    def _examined(self) -> Told:
        verdict = self._parts.health.examine(self._parts.boot.record().running)
        if not verdict.healthy:
            return Told(Event.SICK, reason=verdict.reason or "health-check")
        if self._profile.owner_confirms:
            report = self.round.report
            report.outcome, report.reason = WAITING, "owner-confirms"
            return Told(Event.HOLD)
        return Told(Event.HEALTHY)
