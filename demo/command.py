"""``firmledger demo``: the whole story in one command.

Rules: the story goes to standard output, or with ``--json`` to standard error, for then standard
output gets one document at the end. Exit 0 if everything came true, 1 if something did not. The
folder it lived in is removed, however it ends, unless ``--keep`` names it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from demo.boot import SIMULATED, Boot, boot_named
from demo.firmware import read_firmware
from protocol.errors import LocalFault, Misuse

MOST_DEVICES = 200
SLOTS_EACH = 2
COPIES = 16  # images and payloads of all releases, and what else there is


def demo(
    devices: Annotated[
        int, typer.Option(min=1, max=MOST_DEVICES, metavar="N", help="How many devices.")
    ] = 12,
    firmware: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Real firmware to make the images from.")
    ] = None,
    boot: Annotated[
        str, typer.Option(metavar="HOW", help="virtual, or qemu: devices boot real firmware.")
    ] = "virtual",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout at the end.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the registry and the devices there.")
    ] = None,
) -> None:
    """Tell the whole story: a rollout, a bad build halted by the ledger, lies refused, the audit.

    Everything in it is real: an embedded ledger, the registry over HTTP, devices with keys, slots
    and a self-test that is executed; or with --boot qemu, machines that boot what is in the slot.
    Exit 1 if anything did not come true.
    """
    how = boot_named(boot)
    content = how.firmware() if firmware is None else read_firmware(firmware)
    with _terminated_cleanly(), _folder(keep) as folder:
        _require_room(folder, len(content), devices)
        out = sys.stderr if as_json else sys.stdout
        told, wrong = perform(folder, content, devices, out, how)
    if keep is not None:
        sys.stderr.write(f"kept in {keep}; try `firmledger -C {keep / 'registry'} audit`\n")
    if as_json:
        sys.stdout.write(json.dumps({**told, "differences": wrong}, indent=2) + "\n")
        sys.stdout.flush()
    if wrong:
        raise typer.Exit(1)


def perform(
    folder: Path, firmware: bytes, devices: int, out: TextIO, boot: Boot = SIMULATED
) -> tuple[dict[str, Any], list[str]]:
    """Tells the story in ``folder``, to ``out``; its document, and what did not come true."""
    from rich.console import Console

    from demo.promises import differences
    from demo.report import document, summary
    from demo.stage import Stage
    from demo.story import Story
    from demo.view import LiveTable, PlainLog

    logging.getLogger().addHandler(logging.NullHandler())
    teller = LiveTable(Console(file=out)) if out.isatty() else PlainLog(out)
    with teller, Stage(folder, teller.show, boot) as stage:
        story = Story(stage, firmware, devices, teller)
        story.found_product()
        story.first_release()
        story.good_release()
        story.bad_release()
        story.hostile_registry()
        story.cure()
        told = document(story, story.audit())
        wrong = differences(told, devices)
        teller.chapter("NOT as promised" if wrong else "As promised")
        for line in [*wrong, *summary(told)]:
            teller.say(line)
    return told, wrong


def _require_room(folder: Path, firmware: int, devices: int) -> None:
    """`LocalFault` if images, payloads and slots will not fit."""
    needed = firmware * (SLOTS_EACH * devices + COPIES)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LocalFault(
            "disk-full",
            "the story not told",
            f"it needs {needed:,} bytes in {folder}, and {free:,} are free",
            "name fewer devices or a smaller firmware, or another place with --keep",
        )


@contextlib.contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """SIGTERM ends the story as Ctrl-C does: threads stopped, sockets closed, folder removed."""

    def end(_signal: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A new folder for the story: removed after it, unless it is one to keep."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="firmledger-demo-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        used = any(keep.iterdir())
    except OSError as fault:
        raise LocalFault(
            "directory-unwritable", f"{keep} not used", str(fault), "choose another with --keep"
        ) from fault
    if used:
        raise Misuse(
            "directory-not-empty", f"{keep} not used", "there is something in it", "name a new one"
        )
    yield keep
