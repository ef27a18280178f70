"""What came of one call to a device, for whoever called.

A `Round` lives as long as the call, and holds what the steps of it tell each other; its `Report` is
what is handed out. Nothing here is remembered, and nothing is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from device_client.core.policy import Decision, Hold, Leave
from device_client.inquiry import Finding
from protocol.errors import FirmledgerError
from protocol.ids import Version
from protocol.receipt import Outcome

NOTHING, READY, WAITING = "nothing", "ready", "waiting"
OWNER_CONFIRMS, SETTLING = "owner-confirms", "settling"
"""Reasons for which an image on trial waits."""


@dataclass
class Report:
    """What came of one call.

    ``outcome``: a receipt's outcome, or ``waiting``, or ``nothing``, or, where nothing was to be
    installed yet, ``ready``; ``reason``: why, if there is something to say; ``again``: seconds
    after which it may be otherwise, where that is known.
    """

    outcome: str = NOTHING
    reason: str = ""
    version: Version | None = None
    finding: Finding | None = None
    hold: Decision | None = None
    again: float | None = None

    @property
    def good(self) -> bool:
        """Whether nothing was refused and nothing failed."""
        return self.outcome in (NOTHING, READY, WAITING, Outcome.CONFIRMED)

    def held(self, decision: Decision, now: int) -> None:
        """Put in what the owner's rules said, where they said anything but go."""
        self.hold = decision
        if decision.hold is not None:
            self.again = None if decision.until is None else max(1, decision.until - now)
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
