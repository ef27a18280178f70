"""kill -9 at a system call: runs a command line in a forked process under strace's fault injection.

The process is this one's copy, so that nothing has to be loaded again; it waits until strace holds
it. `WRITING` are the system calls by which anything outside a process changes. strace counts each
kind of call by itself: `points` are all (call, number) at which a command can be killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

WRITING = (
    "write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,fallocate,ftruncate,truncate,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,flock,msync,sync_file_range"
)


@dataclass(frozen=True)
class Ended:
    """How a run ended; ``code`` is negative for a signal, as in subprocess."""

    code: int

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


Point = tuple[str, int]


def points(command: Callable[[], int], calls: str = WRITING) -> list[Point]:
    """Runs ``command`` undisturbed; each of its ``calls``, and its number among its kind."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as log:
        _traced(command, f"trace={calls}", log.name)
        names = [line.partition("(")[0] for line in log if "(" in line]
    count = Counter[str]()
    found = []
    for name in names:
        if name in calls.split(","):
            count[name] += 1
            found.append((name, count[name]))
    return found


def trace(command: Callable[[], int], calls: str) -> list[str]:
    """Runs ``command`` undisturbed; its ``calls`` as strace prints them, each file by its path."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as log:
        assert _traced(command, f"trace={calls}", log.name, "-fy").code == 0
        return [line.partition(" ")[2].strip() for line in log]


def run_killed_at(point: Point, command: Callable[[], int]) -> Ended:
    """Run ``command``, killed when it enters that call."""
    call, number = point
    return _traced(command, f"inject={call}:signal=SIGKILL:when={number}", os.devnull)


def _traced(command: Callable[[], int], expression: str, log: str, flags: str = "-qqq") -> Ended:
    child = _fork(command)
    tracer = None
    try:
        os.waitpid(child, os.WUNTRACED)
        tracer = subprocess.Popen(
            ["strace", "-qqq", flags, "-o", log, "-e", expression, "-p", str(child)],
            stderr=subprocess.PIPE,
            text=True,
        )
        _await_tracer(child, tracer)
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        child = 0
        return Ended(os.waitstatus_to_exitcode(status))
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if tracer is not None:
            tracer.communicate()


def run_forked(command: Callable[[], int]) -> Ended:
    """Run ``command`` in a process like that of `run_killed_at`, undisturbed."""
    child = _fork(command)
    os.waitpid(child, os.WUNTRACED)
    os.kill(child, signal.SIGCONT)
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _fork(command: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        _be_the_victim(command)
    return child


def _be_the_victim(command: Callable[[], int]) -> None:
    code = 99
    try:
        nowhere = open(os.devnull, "r+", encoding="utf-8")  # noqa: PTH123, SIM115 - until it ends
        for descriptor in (0, 1, 2):
            os.dup2(nowhere.fileno(), descriptor)
        sys.stdin = sys.stdout = sys.stderr = nowhere
        os.kill(os.getpid(), signal.SIGSTOP)
        code = command()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _await_tracer(child: int, tracer: subprocess.Popen[str]) -> None:
    """Until the kernel names a tracer; an error of strace's is raised with its words."""
    while True:
        with open(f"/proc/{child}/status", encoding="ascii") as file:  # noqa: PTH123 - not a path
            if any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in file):
                return
        if tracer.poll() is not None:
            raise RuntimeError(tracer.communicate()[1])
