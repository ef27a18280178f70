"""How deep things may nest: JSON before it is parsed, Python while it runs.

Guarantees: `shallow` refuses JSON nested beyond `MAX_NESTING` without recursion, in one pass, and
piece by piece if need be; a call stack that is used up is an exception, never a crash.

Rules: parsers in C recurse as deep as the recursion limit lets them, and a thread's stack ends
before a limit of many thousands does. Libraries raise that limit for the whole process when they
are imported; `restore_limit` takes that back, and `deeply` gives the depth, with a stack to match,
to the one kind of work that needs it: running contracts.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from protocol.errors import Malformed

MAX_NESTING = 64
USUAL_LIMIT = 1000  # Python's own
DEEP_LIMIT = 1024 * 12  # what py-evm takes for the 1024 calls that Ethereum allows
DEEP_STACK = 64 << 20  # bytes, of address space until used

Result = TypeVar("Result")

_OUTSIDE = re.compile(rb'["\[\]{}\x00]')
_INSIDE = re.compile(rb'["\\]')


class Nesting:
    """Follows JSON as it comes in; `Malformed` ``too-deep`` as soon as it nests too deep."""

    def __init__(self, most: int = MAX_NESTING) -> None:
        self._most, self._depth = most, 0
        self._quoted = self._escaped = False

    def take(self, piece: bytes) -> None:
        """The next bytes, in UTF-8; a NUL outside of a string is another encoding's."""
        place = 0
        if self._escaped and piece:
            self._escaped, place = False, 1
        while (found := (_INSIDE if self._quoted else _OUTSIDE).search(piece, place)) is not None:
            place = found.end()
            mark = found[0]
            if mark == b'"':
                self._quoted = not self._quoted
            elif mark == b"\\":
                self._escaped = place == len(piece)
                place += 1
            else:
                self._move(mark)

    def _move(self, mark: bytes) -> None:
        if mark == b"\x00":
            raise Malformed(
                "not-json", "JSON refused", "it is not in UTF-8", "send it in UTF-8, without NUL"
            )
        self._depth += 1 if mark in b"[{" else -1
        if self._depth > self._most:
            raise Malformed(
                "too-deep",
                "JSON refused",
                f"it is nested more than {self._most} deep",
                "send what the documentation describes",
            )


def shallow(text: bytes) -> bytes:
    """``text``, if it is JSON that a parser may safely be given; `Malformed` otherwise."""
    Nesting().take(text)
    return text


def read_json(text: bytes) -> Any:
    """What a file of ours or of strangers holds; `ValueError` for anything that is no JSON."""
    try:
        return json.loads(shallow(text))
    except Malformed as refusal:
        raise ValueError(refusal.why) from refusal


def restore_limit() -> None:
    """Takes back what imported libraries did to the recursion limit."""
    if sys.getrecursionlimit() > USUAL_LIMIT:
        sys.setrecursionlimit(USUAL_LIMIT)


class _Depth:
    """Raises the limit, which all threads share, while at least one piece of work needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._before = 0, USUAL_LIMIT

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = sys.getrecursionlimit()
                sys.setrecursionlimit(max(self._before, DEEP_LIMIT))
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                sys.setrecursionlimit(self._before)

    def start(self, work: Callable[[], None]) -> threading.Thread:
        """A thread with a deep stack; its size is a setting of the process, so one at a time."""
        with self._lock:
            usual = threading.stack_size(DEEP_STACK)
            try:
                thread = threading.Thread(target=work, name="deep", daemon=True)
                thread.start()
            finally:
                threading.stack_size(usual)
        return thread


_DEPTH = _Depth()


def deeply(work: Callable[[], Result]) -> Result:
    """What ``work`` returns or raises, run where it may recurse `DEEP_LIMIT` deep."""
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as fault:  # whatever it is, it belongs to who asked
            done.set_exception(fault)

    with _DEPTH:
        _DEPTH.start(run).join()
    return done.result()
