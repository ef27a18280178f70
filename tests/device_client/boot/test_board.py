"""Calls to a board's tools: within their time, whoever holds the pipe; nobody is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_client.adapters.board import MAX_OUTPUT, call
from protocol.errors import LocalFault

FOR_EVER = "while :; do sleep 1; done"
PATIENCE = 30.0
"""Seconds for what has to happen soon, on a machine as slow as it may be."""


@pytest.fixture
def note(tmp_path: Path) -> Iterator[Path]:
    """Where a grandchild says its process id; it does not survive the test."""
    path = tmp_path / "pid"
    yield path
    if path.exists() and alive(path):
        os.kill(int(path.read_text()), signal.SIGKILL)


def alive(note: Path) -> bool:
    """Whether that process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{int(note.read_text())}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def gone(note: Path) -> bool:
    """Whether it ends, for a kill takes effect when it is delivered."""
    end = time.monotonic() + PATIENCE
    while alive(note) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(note)


def grandchild(note: Path, then: str, start: str = "") -> list[str]:
    """A tool that starts another, which holds its output open, and then does ``then``."""
    other = f"{start} sh -c 'echo $$ >{note}.new; mv {note}.new {note}; {FOR_EVER}' &"
    return ["sh", "-c", f"{other}\nuntil [ -e {note} ]; do sleep 0.01; done\n{then}"]


def test_a_tool_that_ends_is_done_whoever_holds_its_output(note: Path) -> None:
    """As a board's command does that leaves a daemon behind: it lives on, and nobody waits."""
    assert call(grandchild(note, "echo good", "setsid"), deadline=600) == "good\n"
    assert alive(note)


@pytest.mark.parametrize("then", [FOR_EVER, f"exec >&-; {FOR_EVER}", "wait"])
@pytest.mark.parametrize("start", ["", "setsid"])
def test_a_tool_that_does_not_end_is_left_at_its_deadline(
    note: Path, start: str, then: str
) -> None:
    with pytest.raises(LocalFault) as caught:
        call(grandchild(note, then, start), deadline=2)
    assert caught.value.reason == "tool-deadline"
    if not start:
        assert gone(note), "its process group is killed"


def test_who_talks_too_much_is_killed_with_its_group(note: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        call(grandchild(note, "yes"), deadline=600)
    assert caught.value.reason == "tool-output"
    assert gone(note)


def test_all_that_may_be_said_is_heard() -> None:
    """Up to the last byte, of a tool that ends with it; one more is too much."""
    assert call(["sh", "-c", f"head -c {MAX_OUTPUT} /dev/zero"]) == "\0" * MAX_OUTPUT
    with pytest.raises(LocalFault) as caught:
        call(["sh", "-c", f"head -c {MAX_OUTPUT + 1} /dev/zero"])
    assert caught.value.reason == "tool-output"


def test_a_tool_that_fails_is_no_answer() -> None:
    assert call(["sh", "-c", "cat; exit 0"], stdin=b"said") == "said"
    with pytest.raises(LocalFault) as caught:
        call(["sh", "-c", "cat; exit 3"], stdin=b"said")
    assert caught.value.reason == "tool-failed"
