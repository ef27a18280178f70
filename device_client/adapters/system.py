"""The machine the device runs on: its clock, the health check command, what may be in the way."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_client.adapters.directory import mapped, read_bounded
from device_client.core.types import Surroundings, Verdict
from protocol.errors import FirmledgerError

CHECK_SECONDS = 10
_BATTERY_BYTES = 4096  # a page, which sysfs may give
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are looked for: the same place under a daemon as at a prompt."""


class SystemClock:
    """Implements `ports.Clock` by the system's clock."""

    def now(self) -> int | None:
        """Unix seconds."""
        return int(time.time())

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class SystemUptime:
    """Implements `ports.Uptime` by the kernel's clock that counts sleep in and is never set."""

    def seconds(self) -> float:
        """Since the machine booted."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class CommandHealth:
    """Implements `ports.HealthCheck` by a command: exit 0 within the deadline means healthy.

    The command gets ``FIRMLEDGER_SLOT`` (path of the running image) in a plain environment, runs in
    the device's directory, and its output is dropped. Without a command, an image that booted is
    healthy. The command and all that it started are killed at the deadline.
    """

    def __init__(
        self, command: Sequence[str], deadline: float, slots: Mapping[str, Path], cwd: Path
    ) -> None:
        """``command``: argv; ``deadline`` in seconds; ``slots``: where each slot's image lies."""
        self._command, self._deadline = list(command), deadline
        self._slots, self._cwd = slots, cwd

    def examine(self, slot: str) -> Verdict:
        """Runs the command; never longer than the deadline."""
        if not self._command:
            return Verdict(True)
        code = _run(self._command, self._deadline, self._cwd, str(self._slots[slot].resolve()))
        if code == 0:
            return Verdict(True)
        if code is None:
            return Verdict(False, "health-check-deadline")
        return Verdict(False, "health-check-missing" if code == 127 else "health-check")


class ConfiguredSite:
    """Implements `ports.Site` by what the owner configured.

    ``busy_file``: busy while it exists. ``busy_command``: busy while it exits 0. ``metered_file``:
    metered while it exists. ``battery_file``: holds the charge in percent, as Linux's
    ``/sys/class/power_supply/*/capacity`` does; unreadable counts as empty. What else cannot be
    looked at is a `LocalFault`: nothing is installed while it lasts.
    """

    def __init__(
        self,
        slots: Path,
        *,
        busy_file: Path | None = None,
        busy_command: Sequence[str] = (),
        metered_file: Path | None = None,
        battery_file: Path | None = None,
        reserved: bool = False,
    ) -> None:
        """``slots``: the folder of the slots, which must have room unless they are ``reserved``."""
        self._slots, self._reserved = slots, reserved
        self._busy_file, self._busy_command = busy_file, list(busy_command)
        self._metered_file, self._battery_file = metered_file, battery_file

    def observe(self) -> Surroundings:
        """Looks now."""
        busy = _exists(self._busy_file)
        if self._busy_command and not busy:
            busy = _run(self._busy_command, CHECK_SECONDS, self._slots.parent) in (0, None)
        metered = _exists(self._metered_file)
        free = None if self._reserved else self._free()
        return Surroundings(busy, self._battery(), metered, free)

    def _battery(self) -> int | None:
        if self._battery_file is None:
            return None
        try:
            return max(0, min(100, int(read_bounded(self._battery_file, _BATTERY_BYTES)[:8])))
        except (ValueError, FirmledgerError):
            return 0

    def _free(self) -> int:
        """What the smaller slot may grow to: free blocks and those it has already."""
        with mapped(f"looking at {self._slots}"):
            stats = os.statvfs(self._slots)
            held = [p.stat().st_size for p in self._slots.glob("*.img")]
        return stats.f_bavail * stats.f_frsize + (min(held) if len(held) > 1 else 0)


def _exists(path: Path | None) -> bool:
    with mapped(f"looking at {path}"):
        return path is not None and path.exists()


def _run(command: Sequence[str], deadline: float, cwd: Path, slot: str = "") -> int | None:
    """Exit code, 127 if it cannot be started, None at the deadline."""
    import subprocess  # loaded only where a command is configured

    environment = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "FIRMLEDGER_SLOT": slot}
    try:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return 127
    try:
        return process.wait(deadline)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
