"""When to install what the ledger allows: the owner's rules, as a pure function.

`decide` answers GO or a reason to hold. In order:

1. A release that failed here is not tried again (the penalty box); one whose bytes came wrong
   `retries` times in a row is tried once more per `retry_after`, for others may send them right.
2. Facts: a receipt of the outcome must find room in the queue, and the image in its slot.
3. mode ``manual``: only by the owner's own command. ``ask``: only with consent to this release.
4. Inhibitors: busy, battery, metered link.
5. Maintenance windows, weekly, in local time; none given means any time.

A critical release passes those of 3 to 5 that the owner's ``critical`` leave names, and no other.
The owner's own command (`Leave.NOW`) passes 1 and 3 to 5 but for a critically low battery: whoever
stands beside the device knows better. No leave changes a fact.

Rollout, expiry, status and counters are the ledger's (`protocol.ledger.eligible`), asked before.
Times are Unix seconds; the time zone is an argument.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import StrEnum

from device_client.core.types import Surroundings, Target
from protocol.errors import Misuse
from protocol.ids import Digest

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Mode(StrEnum):
    """Who starts an installation."""

    AUTO = "auto"
    ASK = "ask"
    MANUAL = "manual"


class Leave(StrEnum):
    """The owner's word on the release at hand."""

    NONE = "none"
    GIVEN = "given"  # agreed; the device picks the moment
    NOW = "now"  # agreed, and at once


class Hold(StrEnum):
    """Why not now; the words of ``--json``."""

    PENALTY = "failed-here"
    RETRY = "came-wrong"
    RECEIPTS = "receipts"
    MANUAL = "manual"
    CONSENT = "consent"
    BUSY = "busy"
    BATTERY = "battery"
    METERED = "metered"
    SPACE = "space"
    WINDOW = "window"


OVERRIDABLE = frozenset({Hold.CONSENT, Hold.BUSY, Hold.BATTERY, Hold.METERED, Hold.WINDOW})
LAST_BATTERY = 10


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly maintenance window in local time: ``days`` it opens on, minutes of the day.

    ``end`` <= ``start`` means it ends on the next day. Wall-clock time is meant: on the day of a
    daylight-saving change it is as much longer or shorter as that day is.
    """

    days: frozenset[int]
    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """From ``mon,tue 02:00-04:30``, ``mon-fri 22:00-06:00`` or ``daily 02:00-04:00``."""
        try:
            days_text, hours = text.lower().split()
            start, end = (_minutes(part) for part in hours.split("-"))
            days = _days(days_text)
        except ValueError:
            raise Misuse(
                "window-syntax",
                "maintenance window refused",
                f"{text[:60]!r} does not name days and hours",
                "write it like `mon-fri 22:00-06:00` or `daily 02:00-04:00`",
            ) from None
        return cls(days, start, end)

    def open_at(self, local: datetime) -> bool:
        """Whether ``local`` wall-clock time lies in the window."""
        minute = local.hour * 60 + local.minute
        today, yesterday = local.weekday(), (local.weekday() - 1) % 7
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        return (today in self.days and minute >= self.start) or (
            yesterday in self.days and minute < self.end
        )


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    digits = hours + minutes
    if not (len(hours) == len(minutes) == 2 and digits.isdecimal() and digits.isascii()):
        raise ValueError(text)
    value = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or value > DAY_MINUTES:
        raise ValueError(text)
    return value % DAY_MINUTES


def _days(text: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        start, end = DAYS.index(first), DAYS.index(last or first)
        days |= {(start + i) % 7 for i in range((end - start) % 7 + 1)}
    return frozenset(days)


@dataclass(frozen=True, slots=True)
class Policy:
    """The owner's rules. ``critical``: what a critical release may pass (`OVERRIDABLE`)."""

    mode: Mode = Mode.AUTO
    windows: tuple[Window, ...] = ()
    critical: frozenset[Hold] = frozenset()
    min_battery: int = 30
    allow_metered: bool = False
    retries: int = 3
    retry_after: int = 86400

    def __post_init__(self) -> None:
        if not self.critical <= OVERRIDABLE:
            refused = ", ".join(sorted(self.critical - OVERRIDABLE))
            raise Misuse(
                "leave-unknown",
                "policy refused",
                f"a critical release cannot pass {refused}",
                f"name some of: {', '.join(sorted(OVERRIDABLE))}",
            )


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A release whose bytes came wrong: its manifest, how often in a row, and when at last."""

    manifest_digest: Digest
    times: int
    last: int


@dataclass(frozen=True, slots=True)
class Past:
    """What this device went through: releases that failed here (``box``), one whose bytes came
    wrong, and whether its queue has room for what becomes of another installation."""

    box: Collection[Digest] = ()
    spoilt: Spoilt | None = None
    room: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """``hold`` None means go; ``until``: Unix time from which it may be otherwise, if known."""

    hold: Hold | None = None
    until: int | None = None


GO = Decision()


def decide(
    policy: Policy,
    target: Target,
    surroundings: Surroundings,
    leave: Leave,
    past: Past,
    now: int,
    zone: tzinfo,
) -> Decision:
    """GO, or the first reason to hold."""
    if leave is not Leave.NOW:
        if target.manifest_digest in past.box:
            return Decision(Hold.PENALTY)
        again = _tried_enough(policy, target, past.spoilt)
        if again > now:
            return Decision(Hold.RETRY, again)
    if not past.room:
        return Decision(Hold.RECEIPTS)
    if surroundings.free is not None and surroundings.free < target.image_size:
        return Decision(Hold.SPACE)
    if leave is Leave.NOW:
        low = surroundings.battery is not None and surroundings.battery < LAST_BATTERY
        return Decision(Hold.BATTERY) if low else GO
    passes = policy.critical if target.critical else frozenset()
    for hold in _objections(policy, surroundings, leave):
        if hold not in passes:
            return Decision(hold)
    if Hold.WINDOW not in passes and not in_window(policy, now, zone):
        return Decision(Hold.WINDOW, next_opening(policy, now, zone))
    return GO


def _tried_enough(policy: Policy, target: Target, spoilt: Spoilt | None) -> int:
    """When the target may be fetched again; 0: at any time."""
    if spoilt is None or spoilt.manifest_digest != target.manifest_digest:
        return 0
    return spoilt.last + policy.retry_after if spoilt.times >= policy.retries else 0


def _objections(policy: Policy, around: Surroundings, leave: Leave) -> list[Hold]:
    held = {
        Hold.MANUAL: policy.mode is Mode.MANUAL,
        Hold.CONSENT: policy.mode is Mode.ASK and leave is Leave.NONE,
        Hold.BUSY: around.busy,
        Hold.BATTERY: around.battery is not None and around.battery < policy.min_battery,
        Hold.METERED: around.metered and not policy.allow_metered,
    }
    return [hold for hold, applies in held.items() if applies]


def in_window(policy: Policy, now: int, zone: tzinfo) -> bool:
    """Whether a maintenance window is open; always, where none is given."""
    local = datetime.fromtimestamp(now, zone)
    return not policy.windows or any(w.open_at(local) for w in policy.windows)


def next_opening(policy: Policy, now: int, zone: tzinfo) -> int | None:
    """The first full minute from ``now`` at which a window is open, at most eight days ahead."""
    minute = now - now % 60 + 60
    for _ in range(WEEK_MINUTES + DAY_MINUTES):
        if in_window(policy, minute, zone):
            return minute
        minute += 60
    return None
