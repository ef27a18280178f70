"""Reading what people type: hardware ranges, times, halting rules. Anything else is `Misuse`."""

from __future__ import annotations

import re
from datetime import datetime

from protocol.errors import Malformed, Misuse
from protocol.ids import U32_MAX, Version
from registry.rollout import parse_share


def parse_hardware(text: str) -> tuple[int, int]:
    """``1-3`` or ``2`` as a range of hardware revisions (uint32); `Misuse` otherwise."""
    match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", text, re.ASCII)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not low <= high <= U32_MAX:
        raise Misuse(
            "bad-hardware",
            f"hardware {text[:40]!r} refused",
            "it is not a range of revisions",
            "write it like 1-3, or 2 for one revision",
        )
    return low, high


def parse_halt_rule(text: str) -> tuple[int, int]:
    """``2:20%`` as (failures, basis points); ``never`` as (0, 0)."""
    if text == "never":
        return 0, 0
    failures, colon, share = text.partition(":")
    if not colon or not failures.isdigit() or not 0 < int(failures) < 1 << 32:
        raise Misuse(
            "bad-halt-rule",
            f"--halt-after {text[:40]!r} refused",
            "it is not NUMBER:SHARE%",
            "write it like 2:20%, or never",
        )
    return int(failures), parse_share(share)


def parse_version(text: str) -> Version:
    """A version on the command line: what is wrong with it is wrong usage."""
    try:
        return Version.parse(text)
    except Malformed as error:
        raise Misuse(error.reason, error.what, error.why, error.fix) from error


def parse_time(text: str) -> int:
    """Unix seconds from digits or an ISO 8601 time with its zone; 0 for nothing."""
    if not text:
        return 0
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it has no time zone")
        return int(moment.timestamp())
    except ValueError as fault:
        raise Misuse(
            "bad-time",
            f"time {text[:40]!r} refused",
            str(fault),
            "write it like 2027-01-31T22:00:00+01:00, or as Unix seconds",
        ) from fault
