"""The commands around a device: set it up, look at it, mend it. None of them asks a registry.

Modules are loaded where they are used: `status` is asked every few seconds.
"""

from __future__ import annotations

import argparse
import shlex
import time

from device_client.arguments import existing
from device_client.output import give
from protocol.errors import Misuse


def init(options: argparse.Namespace) -> int:
    """Set a device up, or set it up again."""
    from device_client.adapters.directory import read_bounded
    from device_client.config import Config, read_board, with_settings
    from device_client.home import create, image_in
    from device_client.status import ledger_of, read_public
    from protocol.trustfile import MAX_TRUST_BYTES

    if options.forget and not options.force:
        raise Misuse("usage", "wrong usage", "--forget says nothing without --force", "see --help")
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
        board=read_board(options.boot, options.board and existing(options.board, "board file")),
    )
    trust = existing(options.trust, "trust file")
    keys = options.class_key or trust.with_name(trust.name + ".key")
    book = create(
        options.root,
        read_bounded(trust, MAX_TRUST_BYTES),
        read_bounded(existing(keys, "class key file"), MAX_TRUST_BYTES),
        with_settings(config, options.set),
        image_in(options.image and existing(options.image, "image")),
        force=options.force,
        forget=options.forget,
    )
    device, ledger = read_public(options.root), ledger_of(book, 0, int(time.time()))
    keeps = {"security_counter": book.state.counter, "height": ledger["height"]}
    text = f"device {device['device_id']} is set up in {options.root}"
    if options.force:
        text += f"; security counter {keeps['security_counter']}, height {keeps['height']}"
    give(options, {"directory": str(options.root), **device, **keeps}, text)
    return 0


def status(options: argparse.Namespace) -> int:
    """What runs here, what was proved, what is queued."""
    from device_client.status import read_status

    found = read_status(options.root, int(time.time()))
    ledger, receipts = found["ledger"], found["receipts"]
    lines = [
        f"device    {found['device_id']}",
        f"runs      {found['version']} from slot {found['slot']}, {found['state']}",
        f"ledger    block {ledger['height']}, newest release {ledger['newest']}"
        + (", FROZEN" if ledger["frozen"] else ""),
        f"receipts  {receipts['queued']} queued, {receipts['sent']} of them handed over",
    ]
    if ledger["running_release"] in ("revoked", "halted"):
        lines.append(f"warning   the running release is {ledger['running_release']}")
    if found["clock"] != "set":
        lines.append(f"warning   the clock is {found['clock']}, and not believed: set it")
    give(options, found, "\n".join(lines))
    return 0


def history(options: argparse.Namespace) -> int:
    """What happened here, oldest first."""
    from datetime import UTC, datetime

    from device_client.status import read_history

    lines = read_history(options.root)
    text = [
        f"{datetime.fromtimestamp(line['time'], UTC):%Y-%m-%d %H:%M:%S}Z  {line['version']:10}"
        f"  {line['outcome']}" + (f" ({line['reason']})" if line["reason"] else "")
        for line in lines
    ]
    give(options, {"history": lines}, "\n".join(text) or "nothing has happened yet")
    return 0


def reset(options: argparse.Namespace) -> int:
    """A factory reset: key, counters and what was seen of the ledger stay."""
    from device_client.home import reset as factory_reset
    from device_client.status import ledger_of, read_public

    book = factory_reset(options.root)
    device, ledger = read_public(options.root), ledger_of(book, 0, int(time.time()))
    keeps = {"security_counter": book.state.counter, "height": ledger["height"]}
    text = f"settings are those of `init` again; security counter {book.state.counter} stays"
    give(options, {"device_id": device["device_id"], **keeps}, text)
    return 0


def reanchor(options: argparse.Namespace) -> int:
    """Believe the ledger that the recovery keys name."""
    from device_client.adapters.directory import read_bounded
    from device_client.home import open_device
    from protocol.reanchor import MAX_REANCHOR_BYTES

    statement = read_bounded(existing(options.file, "statement"), MAX_REANCHOR_BYTES)
    with open_device(options.root) as device:
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


def doctor(options: argparse.Namespace) -> int:
    """What is open on this device, and how to close it."""
    from dataclasses import asdict

    from device_client.checks import OK, OPEN
    from device_client.doctor import examine

    checks = examine(options.root, int(time.time()), options.system)
    text = [
        f"{check.level:8} {check.what}" + ("" if check.level == OK else f"\n{'':9}{check.fix}")
        for check in checks
    ]
    sound = all(check.level != OPEN for check in checks)
    give(options, {"ok": sound, "checks": [asdict(c) for c in checks]}, "\n".join(text))
    return 0 if sound else 1
