"""Processes that make a ledger, or blocks on one, and are killed (SIGKILL) at named points.

    python -m tests.registry.embedded.killed DIRECTORY POINT...

Each point gets a process of its own, forked when all is loaded, and DIRECTORY/0, DIRECTORY/1, … to
work in. A line is ``PLACE WORD NUMBER HASH``: ``served`` for each block before the next is begun,
``committed`` for one that was committed as the process died, ``ended`` with the process's exit
status or, negative, the signal that ended it. Points:

==============================  =================================================================
``create:N``                    before the N-th rename, fsync or commit of `create`
``sql:TEXT``                    before SQLite runs the statement that begins with TEXT
``before-commit``               after sealing, before anything is written
``before-serve``                after the commit, before the head shows it
``never``                       alone, in DIRECTORY itself: seals until it is killed from outside
==============================  =================================================================
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from itertools import count
from pathlib import Path
from typing import Any

from protocol.header import block_hash
from registry.embedded import EmbeddedLedger, ledger, sealing
from registry.embedded.store import Store
from tests.registry.embedded.scene import Sender, SimClock, deploy, entry, fee_sender, open_ledger


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(place: str, word: str, number: int, name: bytes = b"") -> None:
    sys.stdout.write(f"{place} {word} {number} {name.hex()}\n")
    sys.stdout.flush()


def make(directory: Path, steps: int) -> None:
    """Creates a ledger and dies before one of its durable steps."""
    left = count(1)

    def counted(call: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            if next(left) == steps:
                die()
            return call(*arguments, **named)

        return step

    os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    Store.append = counted(Store.append)  # type: ignore[method-assign]
    EmbeddedLedger.create(directory, clock=SimClock())


def arm(opened: EmbeddedLedger, point: str, place: str) -> None:
    """From here on the process dies at ``point``."""
    if point.startswith("sql:"):
        wanted = point.removeprefix("sql:")
        opened.store._writer.set_trace_callback(
            lambda statement: die() if statement.startswith(wanted) else None
        )
    elif point == "before-commit":
        sealing.seal = lambda *_: die()  # type: ignore[assignment,return-value]
    elif point == "before-serve":

        def serve(_self: EmbeddedLedger, sealed: Any, *_: Any) -> None:
            say(place, "committed", sealed.number, block_hash(sealed))
            die()

        ledger.EmbeddedLedger._serve = serve  # type: ignore[method-assign,assignment]


def work(directory: Path, point: str) -> None:
    """Serves four blocks, arms ``point``, and goes on with one transaction a block."""
    clock = SimClock()
    if not (directory / "ledger").exists():
        EmbeddedLedger.create(directory, clock=clock)
    opened = open_ledger(directory, clock)
    fee: Sender = fee_sender(opened, directory)
    fee.nonce = opened.accounts().nonce(bytes.fromhex(fee.address[2:]))
    notebook = deploy(opened, fee)
    for number in count(1):
        if number == 4:
            arm(opened, point, directory.name)
        opened.submit(fee.sign(notebook, entry(number, number)))
        clock.advance(1)
        head = opened.seal_now()
        say(directory.name, "served", head.number, head.hash)


def run(directory: Path, point: str) -> None:
    if point.startswith("create:"):
        make(directory, int(point.removeprefix("create:")))
    else:
        work(directory, point)


def main(base: Path, points: list[str]) -> None:
    """Runs every point in a process of its own, one after the other."""
    for place, point in enumerate(points):
        directory = base / str(place)
        directory.mkdir(exist_ok=True)
        child = os.fork()
        if child == 0:
            try:
                run(directory, point)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _pid, status = os.waitpid(child, 0)
        say(str(place), "ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    if sys.argv[2:] == ["never"]:
        work(Path(sys.argv[1]), "never")  # in this very process, for it is killed from outside
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
