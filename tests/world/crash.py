"""Sudden death, at every point in turn: before and after each commit, each call to the outside.

A process that is killed differs from one that raises in one thing only: nobody catches it. `Killed`
is therefore no `Exception`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event


class Killed(BaseException):
    """The process is gone."""


class Killer:
    """Kills at its ``at``-th point; 0 never kills, and only counts."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.points = 0

    def point(self, *_: Any) -> None:
        """One more point was reached."""
        self.points += 1
        if self.points == self.at:
            raise Killed

    def watch(self, *engines: Engine) -> None:
        """Every begin is a point after what came before it; every commit a point before it."""
        for engine in engines:
            event.listen(engine, "begin", self.point)
            event.listen(engine, "commit", self.point)

    def around(self, port: Any) -> Any:
        """The port, with a point before and after each call."""
        return _Around(port, self.point)


class _Around:
    def __init__(self, port: Any, point: Callable[[], None]) -> None:
        self._port = port
        self._point = point

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            self._point()
            result = value(*args, **options)
            self._point()
            return result

        return call
