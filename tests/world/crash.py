"""Sudden death, at every point in turn: before each commit, before and after each call outside.

What is on disk changes at commits only, so these points stand for all the moments in between. A
process that is killed differs from one that raises in one thing only: nobody catches it. `Killed`
is therefore no `Exception`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event

from registry.store import is_writing


class Killed(BaseException):
    """The process is gone."""


class Killer:
    """Kills at its ``at``-th point; 0 never kills, and only counts."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.points = 0

    def point(self) -> None:
        """One more point was reached."""
        self.points += 1
        if self.points == self.at:
            raise Killed

    def watch(self, *engines: Engine) -> None:
        """Before every commit of a write transaction is a point."""
        for engine in engines:
            event.listen(engine, "commit", self._before_commit)

    def around(self, port: Any, *methods: str) -> Any:
        """The port, with a point before and after each call of these methods."""
        return _Around(port, methods, self.point)

    def _before_commit(self, connection: Connection) -> None:
        if is_writing(connection):
            self.point()


class _Around:
    def __init__(self, port: Any, methods: tuple[str, ...], point: Callable[[], None]) -> None:
        self._port = port
        self._methods = methods
        self._point = point

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if name not in self._methods:
            return value

        def call(*args: Any, **options: Any) -> Any:
            self._point()
            result = value(*args, **options)
            self._point()
            return result

        return call
