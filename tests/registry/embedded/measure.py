"""Prints what the embedded ledger costs here, as a table for docs/adr/0003.

    python -m tests.registry.embedded.measure [DIRECTORY]

DIRECTORY: where the ledger is made, for a commit costs what its disk costs; a temporary one by
default. Medians; CPU seconds for the import, wall milliseconds for the rest.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BURST = 200
ROUNDS = 50


def main(parent: str | None) -> None:
    started = time.process_time()
    from registry.embedded import EmbeddedLedger
    from tests.registry.embedded.scene import (
        SimClock,
        ask,
        deploy,
        entry,
        fee_sender,
        hexed,
        open_ledger,
    )

    show("import (CPU)", (time.process_time() - started) * 1000)
    with tempfile.TemporaryDirectory(dir=parent) as name:
        directory, clock = Path(name), SimClock()
        show("create", timed(lambda: EmbeddedLedger.create(directory, clock=clock), 1))
        open_ledger(directory, clock).close()
        show("open", timed(lambda: open_ledger(directory, clock).close()))
        with open_ledger(directory, clock) as ledger:
            fee = fee_sender(ledger, directory)
            notebook = deploy(ledger, fee)
            show("empty block", timed(ledger.seal_now))
            raws = iter([fee.sign(notebook, entry(n, n)) for n in range(1, BURST + ROUNDS + 1)])

            def block_of_one() -> None:
                ledger.submit(next(raws))
                ledger.seal_now()

            show("transaction, alone in its block", timed(block_of_one))
            show("submit", timed(lambda: ledger.submit(next(raws)), BURST))
            show(f"block of {BURST} transactions", timed(ledger.seal_now, 1))
            message = {"to": hexed(notebook), "data": hexed(entry(1, 1))}
            show("eth_call", timed(lambda: ask(ledger, "eth_call", message, "latest")))
            slots = ["0x1", "0x2"]
            asked = ("eth_getProof", hexed(notebook), slots, "latest")
            show("eth_getProof, 2 slots", timed(lambda: ask(ledger, *asked)))


def timed(act: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median milliseconds of ``act``."""
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        act()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent) * 1000


def show(what: str, milliseconds: float) -> None:
    sys.stdout.write(f"| {what} | {milliseconds:.1f} ms |\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
