"""What real boards have in common: which slot runs, a way to boot again, and calls to tools.

Guarantees: a tool is called without a shell, killed with its whole process group when its time is
up or it talks too much, and what it prints is bounded; whatever goes wrong with it is a
`LocalFault`. What left its session cannot be killed, but it is not waited for either.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_client.adapters.directory import mapped
from device_client.core.slots import SLOTS
from protocol.errors import LocalFault

MAX_OUTPUT = 64 * 1024
MAX_COMMAND_LINE = 64 * 1024
TOOL_SECONDS = 30.0
REBOOT_SECONDS = 300.0
_GLANCE = 0.05
"""Seconds of silence after which it is looked whether a tool has ended."""

TOKEN = "firmledger.slot="  # noqa: S105 - not a password: what the bootloader passes to the kernel


def call(
    command: Sequence[str],
    *,
    deadline: float = TOOL_SECONDS,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run ``command`` (argv); what it printed, at most `MAX_OUTPUT` bytes of UTF-8.

    ``environment`` is all the environment that it gets beside PATH; ``deadline`` in seconds;
    ``stdin``: at most what a pipe holds (4 KiB are certain).
    `LocalFault` if it cannot be started, fails, talks too much, or does not end.
    """
    code, output = _run(command, deadline, stdin, environment or {})
    name = Path(command[0]).name
    if code is None:
        raise _failed(name, f"it did not end within {deadline:g} seconds", "tool-deadline")
    if len(output) > MAX_OUTPUT:
        raise _failed(name, f"it printed more than {MAX_OUTPUT} bytes", "tool-output")
    if code != 0:
        raise _failed(name, f"it ended with {code}; what it said is on stderr")
    try:
        return output.decode()
    except UnicodeDecodeError:
        raise _failed(name, "what it printed is no text", "tool-output") from None


def _run(
    command: Sequence[str], deadline: float, stdin: bytes, environment: Mapping[str, str]
) -> tuple[int | None, bytes]:
    """(exit code, output), or (None, what came until then) at the deadline."""
    end = time.monotonic() + deadline
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={"PATH": os.defpath + ":/usr/sbin:/sbin", **environment},
        )
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise _failed(Path(command[0]).name, why, "tool-missing") from error
    assert process.stdin and process.stdout  # noqa: S101 - both were asked for
    try:
        with process.stdout:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(stdin)
            output = _output(process, process.stdout.fileno(), end)
        if len(output) > MAX_OUTPUT:
            return 0, output
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(max(0.0, end - time.monotonic())), output
        return None, output
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _output(process: subprocess.Popen[bytes], pipe: int, end: float) -> bytes:
    """What it prints until it closes the pipe, has ended, has said too much, or is late.

    That it has ended counts by itself: what left its session may hold the pipe open for ever.
    """
    output = bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(pipe, selectors.EVENT_READ)
        while len(output) <= MAX_OUTPUT and (left := end - time.monotonic()) > 0:
            ended = process.poll() is not None  # asked first: what it printed last is there then
            if waiting.select(0 if ended else min(_GLANCE, left)):
                piece = os.read(pipe, MAX_OUTPUT + 1 - len(output))
                output += piece
                if not piece:
                    break
            elif ended:
                break
    return bytes(output)


def _failed(name: str, why: str, reason: str = "tool-failed") -> LocalFault:
    return LocalFault(
        reason, f"{name} failed", why, "run it by hand; docs/boot names what it has to do"
    )


class CommandLine:
    """Which slot runs, as the bootloader told the kernel: ``firmledger.slot=a`` on its line."""

    def __init__(self, path: Path = Path("/proc/cmdline")) -> None:
        """``path``: the file to read the line from."""
        self._path = path

    def __call__(self) -> str:
        """The slot; `LocalFault` if the line does not name exactly one."""
        with mapped(f"reading {self._path}"), self._path.open("rb") as file:
            line = file.read(MAX_COMMAND_LINE).decode("utf-8", "replace")
        named = [word[len(TOKEN) :] for word in line.split() if word.startswith(TOKEN)]
        if len(named) != 1 or named[0] not in SLOTS:
            raise LocalFault(
                "running-slot-unknown",
                "the boot record refused",
                f"{self._path} does not say which slot runs",
                f"let the bootloader add {TOKEN}a or {TOKEN}b to the kernel's command line",
            )
        return named[0]


def reboot_command() -> list[str]:
    """What boots a machine again, where config.toml does not say otherwise."""
    return ["systemctl", "reboot"]


class Restart:
    """Boots the machine again by a command, and does not return: the machine goes down under it."""

    def __init__(self, command: Sequence[str], patience: float = REBOOT_SECONDS) -> None:
        """``command``: argv; ``patience``: seconds within which the machine must be down."""
        self._command, self._patience = list(command), patience

    def __call__(self) -> None:
        """`LocalFault` if the command fails, or the machine is still there afterwards."""
        call(self._command, deadline=self._patience)
        time.sleep(self._patience)
        raise LocalFault(
            "no-reboot",
            "reboot failed",
            f"the machine still runs {self._patience:g} seconds after {self._command[0]}",
            "reboot it by hand; the switch is made, and nothing is lost",
        )
