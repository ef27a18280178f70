"""The commands that work on a device: ask, install, vouch for, go back, and do so for ever.

Each opens the device, lets its agent act, hands receipts over, and tells what came of it. Modules
are loaded where they are used: no command pays for another.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from device_client.arguments import existing
from device_client.output import document, give, progress, say
from protocol.errors import FirmledgerError

if TYPE_CHECKING:
    from device_client.agent import Agent
    from device_client.daemon import Rhythm
    from device_client.home import Device
    from device_client.ports import Supervisor
    from device_client.report import Progress, Report


def check(options: argparse.Namespace) -> int:
    """Ask the registry and prove the answer; installs nothing."""
    from device_client.answers import sentence, told
    from device_client.core.explain import explain

    with _open(options) as device:
        steps: list[dict[str, str]] = []
        try:
            report = device.agent.check()
        except FirmledgerError as error:
            if options.explain:
                steps = explain(error=error)
                give(options, {"error": error.as_dict(), "steps": steps}, _listed(steps))
            if options.explain and options.json:
                say(f"error: {error}")
                return error.exit_code
            raise
        answer = told(device.agent, report)
        if options.explain:
            found = report.finding
            rules = found.reason if found is not None and found.offer is not None else None
            steps = answer["steps"] = explain(rules=rules)
        _deliver(device.agent, answer)
        give(options, answer, "\n".join(filter(None, [_listed(steps), sentence(answer)])))
        return _ended(report)


def _listed(steps: list[dict[str, str]]) -> str:
    return "\n".join(f"{s['step']:>4}  {s['verdict']:8} {s['name']}" for s in steps)


def update(options: argparse.Namespace) -> int:
    """Install what the ledger offers."""
    with _open(options) as device:
        return _carry_out(options, device, device.agent)


def install(options: argparse.Namespace) -> int:
    """Install from a file; no registry need be known."""
    from device_client.adapters.stick import StickSource
    from device_client.home import with_source

    stick = StickSource(existing(options.file, "stick file"))
    with _open(options) as device:
        return _carry_out(options, device, with_source(device, stick, progress, bandwidth=0))


def _carry_out(options: argparse.Namespace, device: Device, agent: Agent) -> int:
    """Update from the agent's source; receipts go to the registry whatever came of it.

    But not after a signal: who sends one waits for the end.
    """
    from device_client.answers import sentence, told
    from device_client.core.policy import Hold, Leave
    from device_client.home import with_source

    signal.signal(signal.SIGTERM, _interrupt)
    courier = device.agent if agent is device.agent else None
    try:
        report = agent.update(Leave.NOW if options.yes else Leave.NONE)
        asks = report.hold is not None and report.hold.hold in (Hold.CONSENT, Hold.MANUAL)
        if asks and not options.json and _can_ask() and _agrees(report):
            report = agent.update(Leave.NOW)
    except FirmledgerError:
        _deliver(courier or with_source(device, device.agent.parts.source), {})
        raise
    answer = told(agent, report)
    _deliver(courier or with_source(device, device.agent.parts.source), answer)
    give(options, answer, sentence(answer))
    return _ended(report)


def run(options: argparse.Namespace) -> int:
    """Poll and update for ever, as a daemon."""
    from device_client.adapters.supervisor import Nobody, Systemd
    from device_client.daemon import Daemon, Rhythm

    supervisor = Systemd(options.notify) if options.notify else Nobody()
    stop = Stop()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    said = _Said(options.json)
    try:
        with _open(options, said.working) as device:
            said.device, said.supervisor = device, supervisor
            said.rhythm = rhythm = Rhythm.of(device.config)
            daemon = Daemon(device.agent, rhythm, tell=said.tell, supervisor=supervisor)
            if options.once:
                daemon.round()
                return said.end()
            daemon.run(lambda: stop.asked)
    except KeyboardInterrupt:
        pass
    say("stopped")
    said.end()
    return 0


class _Said:
    """What a daemon says, on stderr and to its supervisor; with ``--json`` its last answer."""

    def __init__(self, json: bool) -> None:
        self._json = json
        self._last: dict[str, Any] = {}
        self._codes = [0]
        self.device: Device | None = None
        self.supervisor: Supervisor | None = None
        self.rhythm: Rhythm | None = None

    def working(self, what: str, done: int, total: int) -> None:
        """Long work goes on."""
        if self.supervisor is not None and self.rhythm is not None:
            self.supervisor.alive(self.rhythm.patience)
        progress(what, done, total)

    def tell(self, done: Report | FirmledgerError) -> None:
        """What came of a round, or went wrong in it."""
        from device_client.answers import sentence, told

        assert self.device and self.supervisor  # noqa: S101 - rounds follow opening
        if isinstance(done, FirmledgerError):
            self._last = {"error": done.as_dict()}
            line = f"error: {done}"
            self._codes.append(done.exit_code)
            say(line)
        else:
            self._last = told(self.device.agent, done)
            line = sentence(self._last)
            say(line)
            self._codes.append(_ended(done))
        self.supervisor.says(line)

    def end(self) -> int:
        """The exit code of a single round."""
        if self._json:
            document(self._last)
        return max(self._codes)


class Stop:
    """The handler of the signals that end a daemon: raised into whatever it does.

    What is raised may be lost where Python has no frame to raise it in, such as a destructor: the
    daemon therefore also looks whether it was `asked`.
    """

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, *_: object) -> None:
        """The signal came."""
        self.asked = True
        raise KeyboardInterrupt


def confirm(options: argparse.Namespace) -> int:
    """Vouch for the image on trial."""
    return _owner(options, lambda agent: agent.confirm())


def rollback(options: argparse.Namespace) -> int:
    """Go back to the former image."""
    return _owner(options, lambda agent: agent.rollback())


def _owner(options: argparse.Namespace, act: Callable[[Agent], Report]) -> int:
    from device_client.answers import sentence, told

    with _open(options) as device:
        report = act(device.agent)
        answer = told(device.agent, report)
        _deliver(device.agent, answer)
        give(options, answer, sentence(answer))
        return 0 if report.outcome in ("confirmed", "rolled-back") else _ended(report)


def _open(options: argparse.Namespace, heard: Progress = progress) -> Device:
    from device_client.home import open_device

    return open_device(options.root, progress=heard)


def _ended(report: Report) -> int:
    """The exit code; what was refused or failed is said as every error is."""
    from device_client.answers import refusal

    if report.good:
        return 0
    say(f"error: {refusal(report)}")
    return 1


def _deliver(agent: Agent, answer: dict[str, Any]) -> None:
    """Hand receipts over; what hinders that is said, and ends nothing: they stay queued."""
    try:
        agent.deliver()
    except FirmledgerError as error:
        say(f"receipts stay queued: {error}")
        answer["delivery"] = error.as_dict()
    answer["receipts"] = {"queued": len(agent.book.queue)}


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None


def _agrees(report: Report) -> bool:
    sys.stderr.write(f"install {report.version}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
