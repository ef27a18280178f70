"""The device's life as a table: `step(state, event) -> (state, effects)`.

Rules:

1. `TABLE` is all there is: a pair that stands not in it raises `Misuse` and changes nothing.
2. A stage says what the device has *undertaken*. The agent makes the new state durable before it
   performs an effect, and every effect may be performed again: after a cut the agent finds the
   stage in its journal, looks where the boot record stands (`situation`), and goes on from there.
3. The boot record, not this state, says what boots. A stage follows it (KEPT, FELL_BACK), so that
   no cut between two stores leaves them contradicting each other.
4. The security counter rises in one place: when a release that was on trial was KEPT. It never
   falls, and an image of the owner's rollback (`Target.former`) leaves it alone.
5. A release whose trial failed goes into the penalty box, and leaves it only by the owner's word.
   One that was found healthy in its trial, and then cut off until no boot was left, did not fail.
   Policy is asked before the first byte, before a download goes on, and before the switch.
6. `Effect.REPORT` is performed inside the commit of the very state that it stands with: a final
   outcome is journalled together with the transition that made it final.

7. Where the owner does not keep the former image (CLEAR), its entry is withdrawn before its first
   byte is overwritten, and the stage stays until the last one is, whatever is cut on the way.

It does *not* decide whether to install (`core.policy`) or whether to believe (`core.trust`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from device_client.core.slots import BootRecord, Standing
from device_client.core.types import Target, damaged, natural, octets, words
from protocol.errors import Misuse
from protocol.ids import U32_MAX, Digest
from protocol.receipt import Outcome

MAX_PENALTIES = 32


class Stage(StrEnum):
    """What the device has undertaken."""

    IDLE = "idle"
    OFFERED = "offered"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLED = "installed"
    TRIAL = "trial"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    CLEARING = "clearing"
    FROZEN = "frozen"


BOOTING = frozenset({Stage.INSTALLED, Stage.TRIAL, Stage.CONFIRMED, Stage.REVERTED})
"""Stages in which the boot record has the word: neither the ledger nor the owner interferes."""


class Event(StrEnum):
    """What happened: found in a proof, said by policy or owner, or reported by an effect."""

    OFFER = "offer"  # proven, signed, eligible: the target comes with it
    NOTHING = "nothing"  # proven: nothing (any more) for this device
    GO = "go"  # policy: install now
    HOLD = "hold"  # policy: not now
    RESUME = "resume"  # the same target again, after an interruption
    FETCHED = "fetched"  # every byte written, synced, both digests right
    STOPPED = "stopped"  # the wire or the disk stopped half-way; to be tried again
    SPOILED = "spoiled"  # the bytes are not what the manifest says
    VERIFIED = "verified"  # read back cold, digest right, proof fresh
    ROLLBACK = "rollback"  # the owner wants the former image back
    UNARMED = "unarmed"  # boot record: the switch was not made
    ARMED = "armed"  # boot record: the switch was made, not booted yet
    TRYING = "trying"  # boot record: the image runs, on trial
    HEALTHY = "healthy"  # the health check passed, or the owner vouched
    SICK = "sick"  # the health check failed, or the owner rejected
    LEAVING = "leaving"  # boot record: the trial was given up, the image still runs
    KEPT = "kept"  # boot record: the image is the primary
    FELL_BACK = "fell-back"  # boot record: the former image runs again
    CUT_OFF = "cut-off"  # the same, of an image that was found healthy in its trial
    CLEAR = "clear"  # the owner keeps no former image: it comes with it
    CLEARED = "cleared"  # its bytes are gone, durably
    FREEZE = "freeze"  # two different sealed blocks at one height
    THAW = "thaw"  # re-anchored by the recovery keys


class Effect(StrEnum):
    """What the agent is to do, in the order given; each may be repeated."""

    JUDGE = "judge"  # ask policy: GO or HOLD
    VACATE = "vacate"  # withdraw the inactive slot's entry
    DOWNLOAD = "download"  # fetch, decrypt, hash, write: FETCHED, STOPPED or SPOILED
    READ_BACK = "read-back"  # hash the slot cold: SPOILED, or on to the next effect
    RENEW = "renew"  # a fresh proof if the last is too old: VERIFIED, NOTHING or STOPPED
    ARM = "arm"  # the one atomic switch
    REBOOT = "reboot"  # may not return
    LOOK = "look"  # compare with the boot record: `situation`
    CHECK_HEALTH = "check-health"  # HEALTHY or SICK
    KEEP = "keep"  # make the running slot the primary
    GIVE_UP = "give-up"  # end the trial against the image
    ERASE = "erase"  # overwrite the image: CLEARED or STOPPED
    REPORT = "report"  # put a receipt in the queue, in this very commit


@dataclass(frozen=True, slots=True)
class State:
    """All that the machine remembers.

    ``progress``: bytes of the payload that are durable in the slot. ``counter``: the security
    counter, a floor for what may be installed. ``box``: manifest digests of releases that failed.
    ``reason``: why an image is being left, kept until the outcome is reported. ``settled``: seconds
    for which an image on trial was found healthy, the last time at ``checked`` (seconds since the
    machine booted; None: never, or not while it waits for anything).
    """

    stage: Stage = Stage.IDLE
    target: Target | None = None
    progress: int = 0
    counter: int = 0
    box: tuple[Digest, ...] = ()
    reason: str = ""
    settled: int = 0
    checked: int | None = None

    def to_list(self) -> list[Any]:
        """As plain values, for the journal."""
        target = self.target.to_list() if self.target else None
        box = [bytes(digest) for digest in self.box]
        start = [str(self.stage), target, self.progress, self.counter, box, self.reason]
        return [*start, self.settled, self.checked]

    @classmethod
    def from_list(cls, row: Any) -> Self:
        """The state of `to_list`; `Malformed` otherwise."""
        if not isinstance(row, list) or len(row) != 8 or not isinstance(row[4], list):
            raise damaged("the machine's state has eight members")
        if row[0] not in list(Stage) or len(row[4]) > MAX_PENALTIES:
            raise damaged("the machine's state is unknown")
        target = None if row[1] is None else Target.from_list(row[1])
        box = tuple(Digest(octets(d)) for d in row[4])
        counter, reason = natural(row[3], U32_MAX), words(row[5])
        checked = None if row[7] is None else natural(row[7])
        start = (Stage(row[0]), target, natural(row[2]), counter, box, reason)
        return cls(*start, natural(row[6]), checked)


@dataclass(frozen=True, slots=True)
class Told:
    """An event, with what belongs to it: the target of OFFER and ROLLBACK, the reason of SICK."""

    event: Event
    target: Target | None = None
    reason: str = ""


Change = Callable[[State, Told], State]


# -- what changes besides the stage ---------------------------------------------------------------


def _same(state: State, told: Told) -> State:
    return state


def _take(state: State, told: Told) -> State:
    if told.target is None:
        raise Misuse("no-target", "offer refused", "it names no image", "report this as a bug")
    return replace(_drop(state, told), target=told.target)


def _drop(state: State, told: Told) -> State:
    return replace(state, target=None, progress=0, reason="", settled=0, checked=None)


def _blame(state: State, told: Told) -> State:
    return replace(state, reason=told.reason)


def _raise(state: State, told: Told) -> State:
    t = state.target
    if t is not None and not t.former:
        state = replace(state, counter=max(state.counter, t.security_counter))
    return _drop(state, told)


def _penalise(state: State, told: Told) -> State:
    t = state.target
    if t is not None and not t.former and t.manifest_digest not in state.box:
        state = replace(state, box=(*state.box, t.manifest_digest)[-MAX_PENALTIES:])
    return _drop(state, told)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    stage: Stage
    effects: tuple[Effect, ...] = ()
    change: Change = _same


# -- the table -------------------------------------------------------------------------------------

_S, _E, _F = Stage, Event, Effect

TABLE: Mapping[tuple[Stage, Event], Row] = {
    # Nothing undertaken.
    (_S.IDLE, _E.NOTHING): Row(_S.IDLE),
    (_S.IDLE, _E.OFFER): Row(_S.OFFERED, (_F.JUDGE,), _take),
    (_S.IDLE, _E.ROLLBACK): Row(_S.VERIFYING, (_F.READ_BACK, _F.RENEW), _take),
    (_S.IDLE, _E.FREEZE): Row(_S.FROZEN),
    # A release is there; nothing of it was fetched.
    (_S.OFFERED, _E.OFFER): Row(_S.OFFERED, (_F.JUDGE,), _take),
    (_S.OFFERED, _E.RESUME): Row(_S.OFFERED, (_F.JUDGE,)),
    (_S.OFFERED, _E.GO): Row(_S.DOWNLOADING, (_F.VACATE, _F.DOWNLOAD)),
    (_S.OFFERED, _E.HOLD): Row(_S.WAITING),
    (_S.OFFERED, _E.NOTHING): Row(_S.IDLE, (), _drop),
    (_S.OFFERED, _E.FREEZE): Row(_S.FROZEN, (), _drop),
    # Waiting for window, consent, battery, …
    (_S.WAITING, _E.OFFER): Row(_S.OFFERED, (_F.JUDGE,), _take),
    (_S.WAITING, _E.RESUME): Row(_S.OFFERED, (_F.JUDGE,)),
    (_S.WAITING, _E.NOTHING): Row(_S.IDLE, (), _drop),
    (_S.WAITING, _E.FREEZE): Row(_S.FROZEN, (), _drop),
    # The inactive slot is being written. Another offer starts from the first byte.
    (_S.DOWNLOADING, _E.FETCHED): Row(_S.VERIFYING, (_F.READ_BACK, _F.RENEW)),
    (_S.DOWNLOADING, _E.STOPPED): Row(_S.DOWNLOADING),
    (_S.DOWNLOADING, _E.RESUME): Row(_S.DOWNLOADING, (_F.JUDGE,)),
    (_S.DOWNLOADING, _E.GO): Row(_S.DOWNLOADING, (_F.VACATE, _F.DOWNLOAD)),
    (_S.DOWNLOADING, _E.HOLD): Row(_S.DOWNLOADING),
    (_S.DOWNLOADING, _E.SPOILED): Row(_S.IDLE, (_F.REPORT,), _drop),
    (_S.DOWNLOADING, _E.OFFER): Row(_S.OFFERED, (_F.JUDGE,), _take),
    (_S.DOWNLOADING, _E.NOTHING): Row(_S.IDLE, (), _drop),
    (_S.DOWNLOADING, _E.FREEZE): Row(_S.FROZEN, (), _drop),
    # Written; checked once more from the medium, and on the ledger; switched when policy says so.
    (_S.VERIFYING, _E.VERIFIED): Row(_S.VERIFYING, (_F.JUDGE,)),
    (_S.VERIFYING, _E.GO): Row(_S.INSTALLED, (_F.ARM, _F.REBOOT, _F.LOOK)),
    (_S.VERIFYING, _E.HOLD): Row(_S.VERIFYING),
    (_S.VERIFYING, _E.STOPPED): Row(_S.VERIFYING),
    (_S.VERIFYING, _E.RESUME): Row(_S.VERIFYING, (_F.READ_BACK, _F.RENEW)),
    (_S.VERIFYING, _E.SPOILED): Row(_S.IDLE, (_F.REPORT,), _drop),
    (_S.VERIFYING, _E.OFFER): Row(_S.OFFERED, (_F.JUDGE,), _take),
    (_S.VERIFYING, _E.NOTHING): Row(_S.IDLE, (), _drop),
    (_S.VERIFYING, _E.FREEZE): Row(_S.FROZEN, (), _drop),
    # Checked, and to be booted: the ledger is not asked any more until the trial has ended.
    (_S.INSTALLED, _E.UNARMED): Row(_S.VERIFYING),
    (_S.INSTALLED, _E.ARMED): Row(_S.INSTALLED, (_F.REBOOT, _F.LOOK)),
    (_S.INSTALLED, _E.TRYING): Row(_S.TRIAL, (_F.CHECK_HEALTH,)),
    (_S.INSTALLED, _E.FELL_BACK): Row(_S.IDLE, (_F.REPORT,), _penalise),
    # The new image runs.
    (_S.TRIAL, _E.TRYING): Row(_S.TRIAL, (_F.CHECK_HEALTH,)),
    (_S.TRIAL, _E.HEALTHY): Row(_S.CONFIRMED, (_F.KEEP, _F.LOOK)),
    (_S.TRIAL, _E.HOLD): Row(_S.TRIAL),
    (_S.TRIAL, _E.SICK): Row(_S.REVERTED, (_F.GIVE_UP, _F.REBOOT, _F.LOOK), _blame),
    (_S.TRIAL, _E.FELL_BACK): Row(_S.IDLE, (_F.REPORT,), _penalise),
    (_S.TRIAL, _E.CUT_OFF): Row(_S.IDLE, (), _drop),
    # Found healthy; being made permanent.
    (_S.CONFIRMED, _E.TRYING): Row(_S.CONFIRMED, (_F.KEEP, _F.LOOK)),
    (_S.CONFIRMED, _E.KEPT): Row(_S.IDLE, (_F.REPORT,), _raise),
    # Cut off until no boot was left: the image was healthy, so this is no outcome, and no penalty.
    (_S.CONFIRMED, _E.FELL_BACK): Row(_S.IDLE, (), _drop),
    # Found faulty; on the way back.
    (_S.REVERTED, _E.TRYING): Row(_S.REVERTED, (_F.GIVE_UP, _F.REBOOT, _F.LOOK)),
    (_S.REVERTED, _E.LEAVING): Row(_S.REVERTED, (_F.REBOOT, _F.LOOK)),
    (_S.REVERTED, _E.FELL_BACK): Row(_S.IDLE, (_F.REPORT,), _penalise),
    # The former image is not kept: its entry goes, then its bytes. What cannot be overwritten stays
    # without an entry, and boots no more than the rest.
    (_S.IDLE, _E.CLEAR): Row(_S.CLEARING, (_F.VACATE, _F.ERASE), _take),
    (_S.CLEARING, _E.CLEAR): Row(_S.CLEARING, (_F.VACATE, _F.ERASE)),
    (_S.CLEARING, _E.CLEARED): Row(_S.IDLE, (), _drop),
    (_S.CLEARING, _E.STOPPED): Row(_S.IDLE, (), _drop),
    # The ledger contradicted itself: nothing is installed until people have looked.
    (_S.FROZEN, _E.THAW): Row(_S.IDLE),
}


def step(state: State, told: Told) -> tuple[State, tuple[Effect, ...]]:
    """The next state and the effects to perform.

    `Misuse` for a pair that the table does not have; nothing has changed then.
    """
    row = TABLE.get((state.stage, told.event))
    if row is None:
        raise Misuse(
            "unexpected-event",
            f"{told.event} refused",
            f"it has no meaning while the device is {state.stage}",
            "see the table in docs/device.md",
            stage=str(state.stage),
            event=str(told.event),
        )
    return replace(row.change(state, told), stage=row.stage), row.effects


def outcome(state: State, told: Told) -> tuple[Outcome, str]:
    """Outcome and reason that a REPORT gives; ``state`` is the one before the step."""
    former = state.target is not None and state.target.former
    if told.event is Event.KEPT:
        return (Outcome.ROLLED_BACK, "owner") if former else (Outcome.CONFIRMED, "")
    if told.event is Event.FELL_BACK:
        reason = state.reason or "did-not-come-up"
        return (Outcome.FAILED if former else Outcome.ROLLED_BACK), reason
    return Outcome.REFUSED, told.reason or "spoiled"


def situation(record: BootRecord, state: State) -> Event:
    """Where the boot record stands with the target of ``state``; the truth that stages follow."""
    if state.target is None:
        raise Misuse("no-target", "boot record refused", "nothing is tried", "report this as a bug")
    event = _standing(record, state.target)
    healthy = state.stage is Stage.TRIAL and state.checked is not None
    return Event.CUT_OFF if event is Event.FELL_BACK and healthy else event


def _standing(record: BootRecord, target: Target) -> Event:
    for slot in ("a", "b"):
        entry = record.entry(slot)
        if (entry.digest, entry.release_id) != (target.image_digest, target.release_id):
            continue
        runs = record.running == slot
        if entry.standing is Standing.TRIAL:
            return Event.TRYING if runs else Event.ARMED
        if entry.standing is Standing.BAD:
            return Event.LEAVING if runs else Event.FELL_BACK
        if entry.standing is Standing.GOOD and record.primary == slot:
            return Event.KEPT
    return Event.UNARMED
