"""Writing rollouts down: ``1%@0h,10%@24h,100%@72h``, and what the builder adds to them.

A phase is ``SHARE%@DELAY`` with gates after colons::

    10%@24h                                  the default gate: see `DEFAULT_FAILURE_BPS`
    10%@24h:confirmed>=5:failed<=5%:by=48h   5 confirmed installs, at most 5 % failures; from 48 h
                                             after the start the 5 are asked no more
    100%@72h:ungated                         time alone opens it

Rules: the first phase has no gate (the ledger's rule). A later one without any gets the default:
half of the devices expected by then confirmed, at least one, and at most a tenth failed. A
percentage has up to two decimals; a time is a number of s, m, h, d or w.

Pure text to records; the ledger itself checks order and range once more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from protocol.errors import Misuse
from protocol.ids import U32_MAX
from protocol.records import MAX_PHASES, Phase

WHOLE = 10_000
DEFAULT_FAILURE_BPS = 1_000
SMALLEST_CANARY = 3

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHARE = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?%", re.ASCII)
_TIME = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rollout:
    """The phases as the ledger takes them, and what the author should know about them."""

    phases: tuple[Phase, ...]
    warnings: tuple[str, ...]


def parse(text: str, fleet: int | None) -> Rollout:
    """The rollout that ``text`` writes down; ``fleet``: enrolled devices, None if unknown.

    `Misuse` where it cannot be read or the ledger would refuse it.
    """
    parts = text.split(",")
    if len(parts) > MAX_PHASES:
        _refuse(text, f"it has {len(parts)} phases, the ledger takes {MAX_PHASES}")
    phases: list[Phase] = []
    for part in parts:
        phases.append(_phase(part.strip(), phases[-1] if phases else None, fleet))
    return Rollout(tuple(phases), tuple(_warnings(phases, fleet)))


def parse_duration(text: str) -> int:
    """``90s``, ``24h``, ``3d`` in seconds; `Misuse` otherwise."""
    match = _TIME.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else U32_MAX + 1
    if seconds > U32_MAX:
        raise Misuse(
            "bad-duration",
            f"duration {text[:40]!r} refused",
            "it is not a number of s, m, h, d or w, or too long",
            "write it like 24h",
        )
    return seconds


def parse_share(text: str) -> int:
    """``10%`` or ``0.5%`` in basis points, up to 10000; `Misuse` otherwise."""
    match = _SHARE.fullmatch(text)
    bps = int(match[1]) * 100 + int((match[2] or "0").ljust(2, "0")) if match else WHOLE + 1
    if bps > WHOLE:
        raise Misuse(
            "bad-share",
            f"share {text[:40]!r} refused",
            "it is not a percentage of 0 to 100 with up to two decimals",
            "write it like 10% or 0.5%",
        )
    return bps


def describe(phase: Phase) -> str:
    """The phase as `parse` reads it, every gate spelled out."""
    gates = []
    if phase.min_confirmed:
        gates.append(f"confirmed>={phase.min_confirmed}")
    if phase.max_failure_bps < WHOLE:
        gates.append(f"failed<={_percent(phase.max_failure_bps)}")
    if phase.gate_deadline:
        gates.append(f"by={write_time(phase.gate_deadline)}")
    if phase.delay and not gates:
        gates.append("ungated")
    return ":".join([f"{_percent(phase.bps)}@{write_time(phase.delay)}", *gates])


def _phase(text: str, earlier: Phase | None, fleet: int | None) -> Phase:
    head, *gates = text.split(":")
    share, at, delay = head.partition("@")
    if not at:
        _refuse(text, "it is not SHARE%@DELAY")
    bps, seconds = parse_share(share), parse_duration(delay)
    if bps == 0 or (earlier and bps <= earlier.bps):
        _refuse(text, "shares are cumulative and rise from phase to phase")
    if earlier and seconds < earlier.delay:
        _refuse(text, "a phase cannot open before the one before it")
    if earlier is None:
        if gates:
            _refuse(text, "the first phase has no gate: nothing was installed before it")
        return Phase(bps, seconds)
    if gates == ["ungated"]:
        return Phase(bps, seconds)
    if gates:
        return _gated(text, bps, seconds, gates)
    expected = (fleet or 0) * earlier.bps // WHOLE
    return Phase(bps, seconds, max(1, expected // 2), DEFAULT_FAILURE_BPS)


def _gated(text: str, bps: int, delay: int, gates: list[str]) -> Phase:
    confirmed, failure_bps, deadline = 0, WHOLE, 0
    seen = set()
    for gate in gates:
        kind, _, value = gate.partition("=")
        if kind in seen:
            _refuse(text, f"{kind}= stands there twice")
        seen.add(kind)
        if kind == "confirmed>" and re.fullmatch(r"\d{1,9}", value, re.ASCII):
            confirmed = int(value)
        elif kind == "failed<":
            failure_bps = parse_share(value)
        elif kind == "by":
            deadline = parse_duration(value)
        else:
            _refuse(text, f"{gate[:40]!r} is not a gate")
    if deadline and deadline < delay:
        _refuse(text, "the gate's deadline is before the phase may open")
    return Phase(bps, delay, confirmed, failure_bps, deadline)


def _warnings(phases: list[Phase], fleet: int | None) -> list[str]:
    warnings = []
    canary = phases[0].bps
    if fleet is None and len(phases) > 1:
        warnings.append("the size of the fleet is unknown: the default gates ask for one install")
    elif fleet is not None and len(phases) > 1 and canary < WHOLE:
        expected = fleet * canary / WHOLE
        if expected < SMALLEST_CANARY:
            warnings.append(
                f"the canary is expected to be {expected:.1f} of {fleet} enrolled devices, "
                f"under {SMALLEST_CANARY}: it may be nobody; enlarge the first phase"
            )
    if phases[-1].bps < WHOLE:
        warnings.append(f"the rollout ends at {_percent(phases[-1].bps)} of the fleet")
    return warnings


def _percent(bps: int) -> str:
    return f"{bps / 100:g}%"


def write_time(seconds: int) -> str:
    """Seconds as `parse_duration` reads them, in the largest unit that is exact."""
    unit = next(u for u in ("w", "d", "h", "m", "s") if seconds % _SECONDS[u] == 0 or u == "s")
    return f"{seconds // _SECONDS[unit]}{unit}" if seconds else "0h"


def _refuse(text: str, why: str) -> NoReturn:
    raise Misuse(
        "bad-rollout",
        f"rollout phase {text[:80]!r} refused",
        why,
        "write it like 1%@0h,10%@24h,100%@72h",
    )
