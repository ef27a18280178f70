"""How the story is told: a live table on a terminal, a plain log everywhere else.

Rules: tellers are called from any thread; they keep no facts and decide nothing.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from demo.fleet import Unit

BESIDE = 14
"""Lines of a terminal that are left to the table's frame and to the story above it."""
FEW = 24
"""A plain log shows what each device does in fleets up to this size."""
_COLOURS = (
    ("confirmed", "green"),
    ("up to date", "green"),
    ("rolled-back", "red"),
    ("refused", "magenta"),
    ("waiting", "yellow"),
)


class Teller(Protocol):
    """Hears the story."""

    def chapter(self, title: str) -> None:
        """A new chapter begins."""

    def say(self, sentence: str) -> None:
        """Something happened, and why."""

    def show(self, unit: Unit) -> None:
        """A device does something else."""


class PlainLog:
    """Lines with the seconds since the start; devices only when they are done with something."""

    def __init__(self, out: TextIO) -> None:
        """``out``: where lines go; flushed after each."""
        self._out = out
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def chapter(self, title: str) -> None:
        """A line of its own."""
        self._line(f"== {title}")

    def say(self, sentence: str) -> None:
        """A line."""
        self._line(f"   {sentence}")

    def show(self, unit: Unit) -> None:
        """A line for what a device is done with, in small fleets."""
        done = unit.doing.split(":")[0]
        if done not in {said for said, _colour in _COLOURS}:
            return
        line = f"      device {unit.name}  {unit.version:8} slot {unit.slot}  {unit.doing}"
        with self._lock:
            news = self._shown.get(unit.name) != line
            self._shown[unit.name] = line
        if news and len(self._shown) <= FEW:
            self._line(line)

    def _line(self, text: str) -> None:
        with self._lock:
            self._out.write(f"[{time.monotonic() - self._began:6.1f} s] {text}\n")
            self._out.flush()


class LiveTable:
    """The story scrolls by above one row per device; rows that do not fit are counted."""

    def __init__(self, console: Console) -> None:
        """``console``: a terminal."""
        self._console = console
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._units: dict[str, Unit] = {}
        self._live = Live(
            console=console,
            refresh_per_second=8,
            get_renderable=self._picture,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def chapter(self, title: str) -> None:
        """In bold, after an empty line."""
        self._console.print(Text(f"\n{title}", style="bold cyan"))

    def say(self, sentence: str) -> None:
        """A line."""
        self._console.print(Padding(Text(sentence), (0, 0, 0, 2)))

    def show(self, unit: Unit) -> None:
        """Its row, drawn at the next refresh."""
        with self._lock:
            self._units[unit.name] = unit

    def _picture(self) -> Table:
        with self._lock:
            units = list(self._units.values())
        room = max(3, self._console.height - BESIDE)
        table = Table("device", "version", "slot", "state", "does", expand=True)
        for unit in units[:room]:
            table.add_row(unit.name, unit.version, unit.slot, unit.state, _coloured(unit.doing))
        more = f"and {len(units) - room} more devices, " if len(units) > room else ""
        table.caption = f"{more}{time.monotonic() - self._began:.0f} s"
        return table


def _coloured(doing: str) -> Text:
    for word, colour in _COLOURS:
        if doing.startswith(word):
            return Text(doing, style=colour)
    return Text(doing)
