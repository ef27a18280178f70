"""``firmledger-device``: the device's command line.

Rules: with ``--json`` exactly one JSON document goes to stdout; prose and progress go to stderr.
Exit 0: done, ready, waiting or nothing to do; 1: refused or failed; 2: wrong usage. An error is one
line, ``error: what / why / what to do``. Heavy modules are loaded by the commands that need them.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_client.arguments import Command, parser_of
from device_client.output import document, give, mute, progress, say
from protocol.errors import FirmledgerError, LocalFault, Misuse

if TYPE_CHECKING:
    from device_client.agent import Agent
    from device_client.engine import Report
    from device_client.home import Device


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parser_of(COMMANDS).parse_args(given)
        command: Command = options.command
        return command(options)
    except FirmledgerError as error:
        return _fail(error, given)
    except BrokenPipeError:
        mute()  # the reader went away, and wants to hear nothing more
        return 1
    except OSError as error:
        why = error.strerror or str(error)
        return _fail(LocalFault("local-io", "not finished", why, "check files and rights"), given)
    except KeyboardInterrupt:
        what, fix = "by a signal", "run the command again, it goes on where it was"
        return _fail(LocalFault("stopped", "stopped", what, fix), given)


def _fail(error: FirmledgerError, given: Sequence[str]) -> int:
    """Tell an error; what was typed says how, for it may not have been understood."""
    say(f"error: {error}")
    if "--json" in given:
        with contextlib.suppress(LocalFault, BrokenPipeError):
            document({"error": error.as_dict()})
    return error.exit_code


# -- commands --------------------------------------------------------------------------------------


def _init(options: argparse.Namespace) -> int:
    from device_client.adapters.directory import read_bounded
    from device_client.config import Config, read_board
    from device_client.home import create, factory_image
    from device_client.status import read_public
    from protocol.trustfile import MAX_TRUST_BYTES

    try:
        health_check = shlex.split(options.health_check)
    except ValueError as error:
        raise Misuse("health-check", "health check refused", str(error), "quote it") from None
    config = Config(
        hardware=options.hardware,
        profile="production" if options.production else "trial",
        registries=options.registry,
        mode=options.mode,
        windows=options.window,
        timezone=options.timezone,
        health_check=health_check,
        health_deadline=options.health_deadline,
        confirm=options.confirm,
        board=read_board(options.boot, options.board and _file(options.board, "board file")),
    )
    trust = _file(options.trust, "trust file")
    keys = options.class_key or trust.with_name(trust.name + ".key")
    trusted = create(
        options.root,
        read_bounded(trust, MAX_TRUST_BYTES),
        read_bounded(_file(keys, "class key file"), MAX_TRUST_BYTES),
        config,
        factory_image(options.image and _file(options.image, "image")),
        force=options.force,
    )
    device = read_public(options.root)
    text = f"device {device['device_id']} of {trusted.product_name} is set up in {options.root}"
    give(options, {"directory": str(options.root), **device}, text)
    return 0


def _check(options: argparse.Namespace) -> int:
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


def _reanchor(options: argparse.Namespace) -> int:
    from device_client.adapters.directory import read_bounded
    from protocol.reanchor import MAX_REANCHOR_BYTES

    statement = read_bounded(_file(options.file, "statement"), MAX_REANCHOR_BYTES)
    with _open(options) as device:
        before = device.agent.reanchor(statement)
        trust = device.agent.trust
        anchor = trust.anchor(device.profile.trust.anchor)
        answer = {
            "sequence": trust.sequence,
            "chain_id": anchor.ledger.chain_id,
            "contract": str(anchor.ledger.contract),
            "code_hash": str(anchor.code_hash),
            "validators": [str(one) for one in trust.validators],
            "height": trust.height,
            "time": trust.time,
            "was_frozen": before.frozen,
            "evidence": [header.hex() for header in before.evidence],
        }
        text = f"statement {trust.sequence}: {len(trust.validators)} validators from block"
        give(options, answer, f"{text} {trust.height} on; nothing is believed yet but them")
        return 0


def _update(options: argparse.Namespace) -> int:
    with _open(options) as device:
        return _carry_out(options, device, device.agent)


def _install(options: argparse.Namespace) -> int:
    from device_client.adapters.stick import StickSource
    from device_client.home import with_source

    stick = StickSource(_file(options.file, "stick file"))
    with _open(options) as device:
        return _carry_out(options, device, with_source(device, stick, progress))


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


def _run(options: argparse.Namespace) -> int:
    from device_client.answers import sentence, told
    from device_client.daemon import Daemon

    signal.signal(signal.SIGTERM, _interrupt)
    with _open(options) as device:
        config = device.config
        last: dict[str, Any] = {}
        codes = [0]

        def tell(done: Report | FirmledgerError) -> None:
            last.clear()
            if isinstance(done, FirmledgerError):
                last["error"] = done.as_dict()
                say(f"error: {done}")
                codes.append(done.exit_code)
            else:
                last.update(told(device.agent, done))
                say(sentence(last))
                codes.append(_ended(done))

        daemon = Daemon(
            device.agent, interval=config.poll_interval, longest=config.longest_interval, tell=tell
        )
        if options.once:
            daemon.round()
        else:
            try:
                daemon.run()
            except KeyboardInterrupt:
                say("stopped")
        if options.json:
            document(last)
        return max(codes) if options.once else 0


def _status(options: argparse.Namespace) -> int:
    from device_client.status import read_status

    status = read_status(options.root, int(time.time()))
    ledger, receipts = status["ledger"], status["receipts"]
    lines = [
        f"device    {status['device_id']}",
        f"runs      {status['version']} from slot {status['slot']}, {status['state']}",
        f"ledger    block {ledger['height']}, newest release {ledger['newest']}"
        + (", FROZEN" if ledger["frozen"] else ""),
        f"receipts  {receipts['queued']} queued, {receipts['sent']} of them handed over",
    ]
    if ledger["running_release"] in ("revoked", "halted"):
        lines.append(f"warning   the running release is {ledger['running_release']}")
    give(options, status, "\n".join(lines))
    return 0


def _confirm(options: argparse.Namespace) -> int:
    return _owner(options, lambda agent: agent.confirm())


def _rollback(options: argparse.Namespace) -> int:
    return _owner(options, lambda agent: agent.rollback())


def _owner(options: argparse.Namespace, act: Callable[[Agent], Report]) -> int:
    from device_client.answers import sentence, told

    with _open(options) as device:
        report = act(device.agent)
        answer = told(device.agent, report)
        _deliver(device.agent, answer)
        give(options, answer, sentence(answer))
        return 0 if report.outcome in ("confirmed", "rolled-back") else _ended(report)


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from device_client.doctor import OK, OPEN, examine

    checks = examine(options.root, int(time.time()))
    text = [
        f"{check.level:8} {check.what}" + ("" if check.level == OK else f"\n{'':9}{check.fix}")
        for check in checks
    ]
    sound = all(check.level != OPEN for check in checks)
    give(options, {"ok": sound, "checks": [asdict(c) for c in checks]}, "\n".join(text))
    return 0 if sound else 1


# -- arguments -------------------------------------------------------------------------------------


def _file(path: Path, noun: str) -> Path:
    """A file that the command line names; `Misuse` if there is none."""
    from device_client.adapters.directory import mapped

    with mapped(f"reading {path}"):
        why = "it is a directory" if path.is_dir() else "" if path.exists() else "it is not there"
    if why:
        raise Misuse("no-such-file", f"{noun} {path} refused", why, "check the path and its name")
    return path


# -- answers ---------------------------------------------------------------------------------------


def _open(options: argparse.Namespace) -> Device:
    from device_client.home import open_device

    return open_device(options.root, progress=progress)


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


COMMANDS: dict[str, Command] = {
    "init": _init,
    "check": _check,
    "update": _update,
    "install": _install,
    "run": _run,
    "status": _status,
    "confirm": _confirm,
    "rollback": _rollback,
    "reanchor": _reanchor,
    "doctor": _doctor,
}


if __name__ == "__main__":
    raise SystemExit(main())
