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
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from demo.firmware import read_firmware, standard_firmware
from protocol.errors import LocalFault, Misuse

MOST_DEVICES = 200


def demo(
    devices: Annotated[
        int, typer.Option(min=1, max=MOST_DEVICES, metavar="N", help="How many devices.")
    ] = 12,
    firmware: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Real firmware to make the images from.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout at the end.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the registry and the devices there.")
    ] = None,
) -> None:
    """The story in one command: publish, canary, full rollout, a bad build halted by the ledger itself,
    devices rolled back, a registry taken over and every lie refused, the audit."""
    content = standard_firmware() if firmware is None else read_firmware(firmware)
    with _folder(keep) as folder:
        told, wrong = perform(folder, content, devices, as_json)
    if as_json:
        sys.stdout.write(json.dumps(told | {"differences": wrong}, indent=2) + "\n")
    sys.stdout.flush()
    if wrong:
        raise typer.Exit(1)


def perform(
    folder: Path, firmware: bytes, devices: int, as_json: bool
) -> tuple[dict[str, Any], list[str]]:
    """Tells the story in ``folder``; its document, and what did not come true."""
    from rich.console import Console

    from demo.promises import differences
    from demo.report import document
    from demo.stage import Stage
    from demo.story import Story
    from demo.view import LiveTable, PlainLog

    logging.getLogger().addHandler(logging.NullHandler())
    out = sys.stderr if as_json else sys.stdout
    teller = LiveTable(Console(file=out)) if out.isatty() else PlainLog(out)
    with teller, Stage(folder, teller.show) as stage:
        story = Story(stage, firmware, devices, teller)
        story.found_product()
        story.first_release()
        story.good_release()
        story.bad_release()
        story.hostile_registry()
        story.cure()
        told = document(story, story.audit())
        wrong = differences(told, devices)
        teller.chapter("As promised" if not wrong else "NOT as promised")
        for difference in wrong:
            teller.say(difference)
    return told, wrong


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A new folder for the story: removed after it, unless it is one to keep."""
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="firmledger-demo-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
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
