"""The daemon: rounds of `update` and `deliver`, and rest in between, until it is told to stop.

Guarantees: it may be stopped or killed at any point, for every step it takes is one that `start`
goes on from. While it rests it neither polls nor wakes up. Nothing that goes wrong ends it but
damage to its own state (`LocalFault` of the journal or boot record).
"""

from __future__ import annotations

from collections.abc import Callable

from device_client.agent import Agent
from device_client.core.policy import poll_delay
from device_client.engine import Report
from protocol.errors import FirmledgerError

FATAL = frozenset({"journal-damaged", "boot-record-damaged", "state-damaged", "nothing-boots"})

Told = Callable[[Report | FirmledgerError], None]


class Daemon:
    """One device's rounds."""

    def __init__(self, agent: Agent, *, interval: int, longest: int, tell: Told) -> None:
        """``interval``: seconds between polls, at most ``longest`` after failures."""
        self._agent, self._interval, self._longest, self._tell = agent, interval, longest, tell
        self._rounds = 0

    def round(self) -> float:
        """One round; the seconds to rest after it."""
        agent = self._agent
        for work in (agent.update, agent.deliver):
            try:
                done = work()
                if isinstance(done, Report):
                    self._tell(done)
            except FirmledgerError as error:
                if error.reason in FATAL:
                    raise
                agent.count_failure()
                self._tell(error)
        self._rounds += 1
        return poll_delay(
            self._interval,
            agent.book.failures,
            agent.parts.identity.device_id,
            self._rounds,
            self._longest,
        )

    def run(self) -> None:
        """Rounds for ever; ends by an exception raised into it (SIGTERM) or by damage."""
        while True:
            self._agent.parts.clock.sleep(self.round())
