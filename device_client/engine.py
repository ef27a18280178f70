"""Drives the table: one event in, its effects performed, until there is no more to tell.

Rules:

1. The table gives state and effects; the book with the new state is committed; then the effects are
   performed in order, and the first that has something to tell gives the next event.
2. Errors of the wire and of this machine stop a step (STOPPED) and are kept in the `Round`; bytes
   that are not what was signed end it (SPOILED), with a receipt, and are counted.
3. A receipt is part of the very commit that makes its outcome final.

No policy of its own: the owner's is asked (JUDGE), the ledger's word is in the finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from device_client import download, flash
from device_client.core import policy as rules
from device_client.core.book import Book
from device_client.core.machine import Effect, Event, Stage, State, Told, outcome, situation, step
from device_client.core.pace import Bucket, settled_for, settling_step
from device_client.core.policy import Decision, Past
from device_client.core.slots import Entry, Standing, other
from device_client.core.types import Target
from device_client.inquiry import PATIENT, Finding, Inquiry
from device_client.memory import Memory
from device_client.mirrors import Mirrors
from device_client.outbox import Outbox
from device_client.profile import Parts, Profile
from device_client.report import (
    NOTHING,
    OWNER_CONFIRMS,
    SETTLING,
    WAITING,
    Progress,
    Round,
    silent,
)
from protocol.errors import FirmledgerError, Untrusted
from protocol.ledger import Reason
from protocol.receipt import Outcome

ROOM_TAKEN = (Stage.DOWNLOADING, Stage.VERIFYING)
"""Stages in which the slot has been given its room, or a full disk was said."""
NAP = 10.0
"""Seconds for which a download rests at once, at most."""


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
        self._bucket = Bucket(profile.bandwidth or 1, parts.uptime.seconds())
        self._mirrors = Mirrors()

    def feed(self, told: Told | None) -> None:
        """One event, and all that follows from it."""
        while told is not None:
            before = self._memory.book.state
            state, effects = step(before, told)
            book = replace(self._memory.book, state=state)
            if Effect.REPORT in effects:
                book = self._conclude(book, before, told)
            if told.event in (Event.SPOILED, Event.CUT_OFF) and before.target is not None:
                book = self._to_be_tried_again(book, before.target, told.event)
            self._memory.commit(book)
            told = next(filter(None, map(self._perform, effects)), None)

    def _to_be_tried_again(self, book: Book, target: Target, event: Event) -> Book:
        """Counted, and not at fault: bytes that came wrong, a healthy trial that was cut off."""
        if event is Event.CUT_OFF:
            line = self._memory.noted(event, target.release_id, target.version, "")
            book = replace(book, history=line.history)
        return (
            book if target.former else book.came_wrong(target.manifest_digest, self._memory.now())
        )

    def judge(self, target: Target) -> Decision:
        """The owner's rules, for this moment."""
        around, book = self._parts.site.observe(), self._memory.book
        if book.state.target == target and book.state.stage in ROOM_TAKEN:
            around = replace(around, free=None)  # it lies in its slot
        return rules.decide(
            self._profile.policy,
            target,
            around,
            self.round.leave,
            Past(book.state.box, book.spoilt, target.former or book.room),
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

    def clear(self, former: Target) -> None:
        """Withdraw and overwrite a former image. A medium that takes no zeros ends no update: the
        entry is gone, the history says what stayed."""
        before, self.round.error = self.round.error, None
        self.feed(Told(Event.CLEAR, former))
        failed, self.round.error = self.round.error, before
        what, why = ("not-cleared", failed.reason) if failed else ("cleared", "")
        self._memory.commit(self._memory.noted(what, former.release_id, former.version, why))

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
                return Told(situation(boot.record(), self._memory.book.state))
            case Effect.CHECK_HEALTH:
                return self._examined()
            case Effect.KEEP:
                boot.settle(True)
            case Effect.GIVE_UP:
                boot.settle(False)
            case Effect.ERASE:
                return self._guarded(self._erase) or Told(Event.CLEARED)
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
        self.round.report.held(decision, self._memory.now())
        return Told(Event.GO if decision.hold is None else Event.HOLD)

    def _download(self) -> None:
        target, finding, memory = self._target, self.round.finding, self._memory
        assert finding and finding.offer  # noqa: S101 - GO and RESUME follow a poll that found it
        key = self._parts.identity.content_key(finding.offer.manifest.encryption_info)

        def durable(progress: int) -> None:
            state = replace(memory.book.state, progress=progress)
            memory.commit(replace(memory.book, state=state))

        slot = self._parts.boot.record().inactive
        download.fetch(
            *(self._parts.source.each(), self._parts.slots, slot, target, key),
            progress=memory.book.state.progress,
            durable=durable,
            pace=self._paced(self._counting("download", target.payload_size)),
            mirrors=self._mirrors,
            block=self._profile.block,
            stride=self._profile.stride,
        )

    def _counting(self, what: str, total: int) -> flash.Pace:
        """Tells progress of so many bytes."""
        done = self._memory.book.state.progress if what == "download" else 0

        def count(more: int) -> None:
            nonlocal done
            done = min(done + more, total)
            self._progress(what, done, total)

        count(0)
        return count

    def _paced(self, count: flash.Pace) -> flash.Pace:
        """Counts, and waits as the owner's bandwidth asks for."""

        def pace(more: int) -> None:
            wait = 0.0
            if self._profile.bandwidth:
                wait = self._bucket.take(more, self._parts.uptime.seconds())
            while wait > 0:
                self._parts.clock.sleep(min(wait, NAP))
                count(0)  # whoever watches over this process hears that it is well
                wait -= NAP
            count(more)

        return pace

    def _read_back(self) -> None:
        slot, target = self._parts.boot.record().inactive, self._target
        pace = self._counting("verify", target.image_size)
        flash.read_back(self._parts.slots, slot, target, self._profile.block, pace)

    def _erase(self) -> None:
        slot, size = self._parts.boot.record().inactive, self._target.image_size
        pace = self._counting("erase", size)
        flash.erase(self._parts.slots, slot, size, self._profile.block, pace)

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
        report = self.round.report
        if not self._settled():
            report.outcome, report.reason = WAITING, SETTLING
            report.again = settling_step(self._profile.stability)
            return Told(Event.HOLD)
        if self._profile.owner_confirms:
            report.outcome, report.reason = WAITING, OWNER_CONFIRMS
            return Told(Event.HOLD)
        return Told(Event.HEALTHY)

    def _settled(self) -> bool:
        """Whether the image was found healthy for long enough, this time counted in. That it was
        at all is remembered where it waits: it is not to blame for being cut off (CUT_OFF)."""
        memory, stability = self._memory, self._profile.stability
        state, now = memory.book.state, int(self._parts.uptime.seconds())
        if not stability:
            if self._profile.owner_confirms and state.checked is None:
                memory.commit(replace(memory.book, state=replace(state, checked=now)))
            return True
        good = settled_for(state.settled, state.checked, now, stability)
        state = replace(state, settled=min(good, stability), checked=now)
        memory.commit(replace(memory.book, state=state))
        return good >= stability
