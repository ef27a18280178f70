"""The daemon: rounds of `update` and `deliver`, and rest in between, until it is told to stop.

Rules:

1. It may be stopped or killed at any point, for every step it takes is one that `start` goes on
   from. A signal is an exception raised into whatever it does.
2. While it rests, or a registry holds its answer back, it neither polls nor wakes up.
3. It rests for `poll_interval`, longer after failures; less where it is known that something may
   be done before: a window that opens, an image on trial that is to be looked at again.
4. Where a registry may hold answers back (``wait``), one that does not is not asked more often for
   that: two polls are at least ``wait`` seconds apart.
5. The supervisor hears in advance how long the daemon will be silent.

Nothing that goes wrong ends it but damage to its own state (`LocalFault` of the journal or boot
record).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from device_client.agent import Agent
from device_client.config import Config
from device_client.core.pace import fraction, poll_delay
from device_client.ports import Supervisor
from device_client.report import SETTLING, Report
from protocol.errors import FirmledgerError, LocalFault

FATAL = frozenset({"journal-damaged", "boot-record-damaged", "state-damaged", "nothing-boots"})
SPREAD = 60.0
"""Seconds over which a fleet spreads that waits for one moment."""


def _unmapped(error: OSError) -> LocalFault:
    what = f"using {error.filename}" if error.filename else "using this machine"
    why, fix = error.strerror or str(error), "check the path, its rights and the medium"
    return LocalFault("local-io", f"{what} failed", why, fix)


Told = Callable[[Report | FirmledgerError], None]


@dataclass(frozen=True)
class Rhythm:
    """Seconds: between polls, at most between them after failures, for which a registry may hold
    an answer back, and for which the daemon may be silent while it works."""

    interval: int
    longest: int
    wait: int = 0
    patience: float = 300.0

    @classmethod
    def of(cls, config: Config) -> Rhythm:
        """As the owner configured it. A health check has twice its deadline to be heard of."""
        patience = 300.0 + 2 * config.health_deadline
        return cls(config.poll_interval, config.longest_interval, config.wait, patience)


class Daemon:
    """One device's rounds."""

    def __init__(self, agent: Agent, rhythm: Rhythm, *, tell: Told, supervisor: Supervisor) -> None:
        """``tell`` hears what came of each round."""
        self._agent, self._rhythm, self._tell = agent, rhythm, tell
        self._supervisor = supervisor
        self._rounds = self._failures = 0
        self._again: float | None = None

    def round(self) -> float:
        """One round; the seconds to rest after it."""
        self._alive()
        began = self._agent.parts.uptime.seconds()
        self._rounds += 1
        before, self._again = self._again, None
        failed = False
        for work in (lambda: self._update(before), lambda: self._agent.deliver(self._alive)):
            try:
                work()
            except FirmledgerError as error:
                if error.reason in FATAL:
                    raise
                failed = True
                self._tell(error)
            except OSError as error:  # a port that did not map it
                failed = True
                self._tell(_unmapped(error))
        self._count(failed)
        return self._rest(self._agent.parts.uptime.seconds() - began)

    def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Rounds for ever; ends when told to (``stopped``, or an exception), or by damage."""
        self._supervisor.ready()
        try:
            while not stopped():
                rest = self.round()
                self._supervisor.alive(rest + self._rhythm.patience)
                self._agent.parts.clock.sleep(rest)
        finally:
            self._supervisor.stopping()

    def _alive(self) -> None:
        self._supervisor.alive(self._rhythm.patience)

    def _update(self, before: float | None) -> None:
        wait = self._rhythm.wait if before is None else min(self._rhythm.wait, int(before))
        report = self._agent.update(wait=wait)
        self._again = report.again
        if report.again is not None and report.reason != SETTLING:
            self._again = report.again + SPREAD * self._chance()
        self._tell(report)

    def _count(self, failed: bool) -> None:
        """Failures in a row: in the book, for the next process; and here, if that cannot be."""
        self._failures = self._failures + 1 if failed else 0
        if failed:
            with suppress(LocalFault):
                self._agent.count_failure()

    def _rest(self, took: float) -> float:
        rhythm, failures = self._rhythm, max(self._agent.book.failures, self._failures)
        delay = poll_delay(rhythm.interval, failures, self._seed, self._rounds, rhythm.longest)
        delay = max(delay, rhythm.wait - took)
        return delay if self._again is None else min(delay, self._again)

    @property
    def _seed(self) -> bytes:
        return self._agent.parts.identity.device_id

    def _chance(self) -> float:
        return fraction(self._seed, self._rounds)
