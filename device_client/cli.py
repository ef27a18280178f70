"""``firmledger-device``: the device's command line.

Rules: with ``--json`` exactly one JSON document goes to stdout; prose and progress go to stderr.
Exit 0: done, or nothing to do, or waiting; 1: refused or failed; 2: wrong usage. An error is one
line, ``error: what / why / what to do``. Heavy modules are loaded by the commands that need them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from device_client.adapters.boot_backends import BACKENDS
from protocol.errors import FirmledgerError, Misuse

if TYPE_CHECKING:
    from device_client.agent import Agent
    from device_client.engine import Report
    from device_client.home import Device

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except FirmledgerError as error:
        _say(f"error: {error}")
        if options.json:
            _print({"error": error.as_dict()})
        return error.exit_code
    except KeyboardInterrupt:
        _say("error: stopped / by a signal / run the command again, it goes on where it was")
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Wrong usage, in the form of all errors."""
        _say(f"error: wrong usage / {message} / see `{self.prog} --help`")
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="firmledger-device",
        description="Install only what the ledger proves; boot it on trial; confirm or go back.",
    )
    parser.add_argument(
        "-C", dest="root", metavar="DIR", type=Path, default=Path(), help="the device's directory"
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout")
        sub.set_defaults(command=command)
        return sub

    _add_init(add("init", _init, "set a device up in DIR"))
    check = add("check", _check, "ask the registry and prove the answer; installs nothing")
    check.add_argument("--explain", action="store_true", help="tell every step and its verdict")
    update = add("update", _update, "install what the ledger offers, and report on it")
    update.add_argument("--yes", action="store_true", help="the owner agrees, and at once")
    install = add("install", _install, "install from a file (firmledger bundle export)")
    install.add_argument("file", type=Path, metavar="FILE")
    install.add_argument("--yes", action="store_true", help="the owner agrees, and at once")
    run = add("run", _run, "poll and update for ever, as a daemon")
    run.add_argument("--once", action="store_true", help="one round only")
    add("status", _status, "what runs here, what was proved, what is queued")
    add("confirm", _confirm, "vouch for the image on trial")
    add("rollback", _rollback, "go back to the former image")
    anew = add("reanchor", _reanchor, "believe the ledger that the maker's recovery keys name")
    anew.add_argument("file", type=Path, metavar="FILE", help="a statement signed by them")
    add("doctor", _doctor, "what is open on this device, and how to close it")
    return parser


def _add_init(init: argparse.ArgumentParser) -> None:
    init.add_argument("--trust", type=Path, required=True, metavar="FILE", help="trust.json")
    init.add_argument(
        "--class-key", type=Path, metavar="FILE", help="class keys; default: TRUST.key beside it"
    )
    init.add_argument("--registry", action="append", default=[], metavar="URL")
    init.add_argument("--hardware", type=int, required=True, metavar="N")
    init.add_argument("--image", type=Path, metavar="FILE", help="what the device runs now")
    init.add_argument("--mode", choices=("auto", "ask", "manual"), default="auto")
    init.add_argument("--window", action="append", default=[], metavar="'daily 02:00-04:00'")
    init.add_argument("--timezone", default="UTC", metavar="ZONE")
    init.add_argument("--health-check", default="", metavar="CMD", help="exit 0 means healthy")
    init.add_argument("--health-deadline", type=int, default=60, metavar="SECONDS")
    init.add_argument("--confirm", choices=("auto", "owner"), default="auto")
    init.add_argument(
        "--boot", choices=BACKENDS, default="virtual", help="what boots this device: docs/boot"
    )
    init.add_argument("--board", type=Path, metavar="FILE", help="tables of the boot backend")
    init.add_argument(
        "--production", action="store_true", help="refuse what is fit for trials only"
    )
    init.add_argument("--force", action="store_true", help="start anew; the device key is kept")


# -- commands --------------------------------------------------------------------------------------


def _init(options: argparse.Namespace) -> int:
    from device_client.adapters.directory import read_bounded
    from device_client.config import Config, read_board
    from device_client.home import create, factory_image
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
        board=read_board(options.boot, options.board),
    )
    keys = options.class_key or options.trust.with_name(options.trust.name + ".key")
    trusted = create(
        options.root,
        read_bounded(options.trust, MAX_TRUST_BYTES),
        read_bounded(keys, MAX_TRUST_BYTES),
        config,
        factory_image(options.image),
        force=options.force,
    )
    device = json.loads((options.root / "device.json").read_bytes())
    text = f"device {device['device_id']} of {trusted.product_name} is set up in {options.root}"
    _answer(options, {"directory": str(options.root), **device}, text)
    return 0


def _check(options: argparse.Namespace) -> int:
    from device_client.core.explain import explain

    with _open(options) as device:
        steps: list[dict[str, str]] = []
        try:
            report = device.agent.check()
        except FirmledgerError as error:
            if options.explain:
                steps = explain(error=error)
                _answer(options, {"error": error.as_dict(), "steps": steps}, _listed(steps))
            if options.explain and options.json:
                _say(f"error: {error}")
                return error.exit_code
            raise
        answer = _told(device.agent, report)
        if options.explain:
            found = report.finding
            rules = found.reason if found is not None and found.offer is not None else None
            steps = answer["steps"] = explain(rules=rules)
        _deliver(device.agent, answer)
        _answer(options, answer, "\n".join(filter(None, [_listed(steps), _sentence(answer)])))
        return 0 if report.good else 1


def _listed(steps: list[dict[str, str]]) -> str:
    return "\n".join(f"{s['step']:>4}  {s['verdict']:8} {s['name']}" for s in steps)


def _reanchor(options: argparse.Namespace) -> int:
    from device_client.adapters.directory import read_bounded
    from protocol.reanchor import MAX_REANCHOR_BYTES

    with _open(options) as device:
        before = device.agent.reanchor(read_bounded(options.file, MAX_REANCHOR_BYTES))
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
        _answer(options, answer, f"{text} {trust.height} on; nothing is believed yet but them")
        return 0


def _update(options: argparse.Namespace) -> int:
    with _open(options) as device:
        return _carry_out(options, device, device.agent)


def _install(options: argparse.Namespace) -> int:
    from device_client.adapters.stick import StickSource
    from device_client.home import with_source

    with _open(options) as device:
        return _carry_out(
            options, device, with_source(device, StickSource(options.file), _progress)
        )


def _carry_out(options: argparse.Namespace, device: Device, agent: Agent) -> int:
    """Update from the agent's source; receipts go to the registry whatever came of it.

    But not after a signal: who sends one waits for the end.
    """
    from device_client.core.policy import Hold, Leave
    from device_client.home import with_source

    signal.signal(signal.SIGTERM, _interrupt)
    courier = device.agent if agent is device.agent else None
    try:
        report = agent.update(Leave.NOW if options.yes else Leave.NONE)
        asks = report.hold is not None and report.hold.hold in (Hold.CONSENT, Hold.MANUAL)
        if asks and not options.json and sys.stdin.isatty() and _agrees(report):
            report = agent.update(Leave.NOW)
    except FirmledgerError:
        _deliver(courier or with_source(device, device.agent.parts.source), {})
        raise
    answer = _told(agent, report)
    _deliver(courier or with_source(device, device.agent.parts.source), answer)
    _answer(options, answer, _sentence(answer))
    return 0 if report.good else 1


def _run(options: argparse.Namespace) -> int:
    from device_client.daemon import Daemon

    signal.signal(signal.SIGTERM, _interrupt)
    with _open(options) as device:
        config = device.config
        last: dict[str, Any] = {}

        def tell(done: Any) -> None:
            last.clear()
            last.update(
                {"error": done.as_dict()}
                if isinstance(done, FirmledgerError)
                else _told(device.agent, done)
            )
            _say(f"error: {done}" if "error" in last else _sentence(last))

        daemon = Daemon(
            device.agent, interval=config.poll_interval, longest=config.longest_interval, tell=tell
        )
        if options.once:
            daemon.round()
        else:
            try:
                daemon.run()
            except KeyboardInterrupt:
                _say("stopped")
        if options.json:
            _print(last)
        return 1 if options.once and "error" in last else 0


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
    _answer(options, status, "\n".join(lines))
    return 0


def _confirm(options: argparse.Namespace) -> int:
    return _owner(options, lambda agent: agent.confirm())


def _rollback(options: argparse.Namespace) -> int:
    return _owner(options, lambda agent: agent.rollback())


def _owner(options: argparse.Namespace, act: Callable[[Agent], Report]) -> int:
    with _open(options) as device:
        answer = _told(device.agent, act(device.agent))
        _deliver(device.agent, answer)
        _answer(options, answer, _sentence(answer))
        return 0 if answer["outcome"] in ("confirmed", "rolled-back") else 1


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from device_client.doctor import OK, OPEN, examine

    checks = examine(options.root, int(time.time()))
    text = [
        f"{check.level:8} {check.what}" + ("" if check.level == OK else f"\n{'':9}{check.fix}")
        for check in checks
    ]
    sound = all(check.level != OPEN for check in checks)
    _answer(options, {"ok": sound, "checks": [asdict(c) for c in checks]}, "\n".join(text))
    return 0 if sound else 1


# -- answers ---------------------------------------------------------------------------------------


def _open(options: argparse.Namespace) -> Device:
    from device_client.home import open_device

    return open_device(options.root, progress=_progress)


def _told(agent: Agent, report: Report) -> dict[str, Any]:
    """A report as plain data."""
    from device_client.core.machine import Stage

    running = agent.running
    answer: dict[str, Any] = {
        "device_id": str(agent.parts.identity.device_id),
        "outcome": str(report.outcome),
        "reason": report.reason,
        "state": str(agent.book.state.stage),
        "version": str(running.version),
        "slot": agent.parts.boot.record().running,
        "security_counter": agent.book.state.counter,
        "ledger": {
            "height": agent.trust.height,
            "time": agent.trust.time,
            "newest": _version(agent.trust.newest),
        },
        "offer": None,
    }
    finding = report.finding
    if finding is not None and finding.offer is not None:
        terms = finding.offer.terms
        answer["offer"] = {
            "release_id": finding.offer.release_id,
            "version": _version(terms.version),
            "security_counter": terms.security_counter,
            "image_digest": "0x" + terms.image_digest.hex(),
            "manifest_digest": "0x" + terms.manifest_digest.hex(),
            "size": terms.image_size,
            "critical": terms.critical,
            "eligible": finding.target is not None,
            "reason": finding.reason.slug,
            "hold": str(report.hold.hold) if report.hold and report.hold.hold else None,
            "until": report.hold.until if report.hold else None,
        }
    if agent.book.state.stage is Stage.FROZEN:
        answer["reason"] = answer["reason"] or "frozen"
    return answer


def _version(number: int) -> str:
    from protocol.ids import Version

    return str(Version(number))


def _sentence(answer: dict[str, Any]) -> str:
    """A report as one line for people."""
    offer, outcome, reason = answer["offer"], answer["outcome"], answer["reason"]
    runs = f"runs {answer['version']} from slot {answer['slot']}"
    if outcome == "nothing":
        return f"{runs}; the ledger offers nothing newer (block {answer['ledger']['height']})"
    about = f"{offer['version']} " if offer else ""
    why = f" ({reason})" if reason else ""
    if outcome == "waiting" and offer and offer["eligible"] and not reason:
        return f"{runs}; {about}may be installed now"
    return f"{runs}; {about}{outcome}{why}"


def _deliver(agent: Agent, answer: dict[str, Any]) -> None:
    """Hand receipts over; what hinders that is said, and ends nothing: they stay queued."""
    try:
        agent.deliver()
    except FirmledgerError as error:
        _say(f"receipts stay queued: {error}")
        answer["delivery"] = error.as_dict()
    answer["receipts"] = {"queued": len(agent.book.queue)}


def _agrees(report: Report) -> bool:
    sys.stderr.write(f"install {report.version}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        share = 100 * done // max(total, 1)
        sys.stderr.write(f"\r{what} {share:3} % of {total / 2**20:.1f} MiB{end}")
        sys.stderr.flush()


def _answer(options: argparse.Namespace, document: dict[str, Any], text: str) -> None:
    if options.json:
        _print(document)
    else:
        sys.stdout.write(text + "\n")


def _print(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
