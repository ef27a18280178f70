"""A machine that really boots: QEMU runs the image in the active slot as its firmware.

The boot record and its rules are those of the simulated bootloader (`VirtualBoot`); what runs is
real: ``qemu-system-riscv64 -M virt -bios IMAGE``. A machine whose console says nothing within the
deadline did not come up. Its watchdog then resets it, which costs a trial one attempt, until none
is left and the former image boots. `ConsoleHealth` reads what the machine printed.

Guarantees: one machine at a time, killed with all that belongs to it when the device is closed, at
each boot, and at the deadline; it can write `MAX_CONSOLE` bytes to its console, and ends there; it
has no network, no disk, and no input. A client that is killed takes its machine with it.

For tests and demonstrations: an image of a board that QEMU does not know cannot be tried this way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from device_client.adapters.directory import mapped
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.core.slots import MAX_ATTEMPTS, BootRecord, Entry
from device_client.core.types import Verdict
from protocol.errors import LocalFault

MAX_CONSOLE = 1 << 20
_POLL_SECONDS = 0.02
QEMU = (
    *("qemu-system-riscv64", "-M", "virt", "-m", "128M"),
    *("-accel", "tcg,tb-size=32"),  # a guest gone astray would have gigabytes translated
)
_BOUNDED = ("sh", "-c", f'ulimit -f {MAX_CONSOLE // 512}; exec setpriv --pdeathsig KILL "$@"', "sh")
_BARE = ("-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none")


class Machine:
    """A QEMU process whose console goes to a file; at most one at a time."""

    def __init__(self, console: Path, command: Sequence[str] = QEMU) -> None:
        """``console``: where its console is kept; ``command``: argv of the machine alone."""
        self._console, self._command = console, list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def power_on(self, image: Path) -> None:
        """Boot ``image`` as firmware; `LocalFault` if QEMU cannot be started."""
        self.power_off()
        serial = f"file:{self._console.absolute()}"
        with mapped(f"clearing {self._console}"):
            self._console.write_bytes(b"")
        if shutil.which(self._command[0]) is None:
            raise LocalFault(
                "no-qemu",
                "boot failed",
                f"there is no {self._command[0]} here",
                "install it (Debian: qemu-system-misc), or use another boot backend",
            )
        firmware = ["-serial", serial, "-bios", str(image.absolute())]
        with mapped(f"starting {self._command[0]}"):
            self._process = subprocess.Popen(
                [*_BOUNDED, *self._command, *_BARE, *firmware],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def power_off(self) -> None:
        """Pull the plug; nothing happens where there is no machine."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def console(self) -> bytes:
        """What it printed, as far as that is kept."""
        with mapped(f"reading {self._console}"), self._console.open("rb") as file:
            return file.read(MAX_CONSOLE)

    def await_console(self, said: Callable[[bytes], bool], deadline: float) -> bool:
        """Whether ``said`` came true of the console within ``deadline`` seconds."""
        end = time.monotonic() + deadline
        while True:
            over = time.monotonic() >= end or self.off
            if said(self.console()):
                return True
            if over:
                return False
            time.sleep(_POLL_SECONDS)

    @property
    def off(self) -> bool:
        """Whether no machine runs."""
        return self._process is None or self._process.poll() is not None


class QemuBoot:
    """Implements `ports.BootControl`: the simulated bootloader, and a machine that it starts."""

    def __init__(
        self,
        virtual: VirtualBoot,
        machine: Machine,
        slots: Mapping[str, Path],
        deadline: float,
    ) -> None:
        """``slots``: the image files; ``deadline``: seconds until the watchdog bites."""
        self._virtual, self._machine = virtual, machine
        self._slots, self._deadline = slots, deadline

    def provision(self, record: BootRecord) -> None:
        """Write the first record of a new device."""
        self._virtual.provision(record)

    def record(self) -> BootRecord:
        """What is in force."""
        return self._virtual.record()

    def vacate(self, slot: str) -> None:
        """Withdraw the entry of the inactive slot."""
        self._virtual.vacate(slot)

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        """The switch."""
        self._virtual.arm(slot, entry, attempts)

    def settle(self, healthy: bool) -> None:
        """End the trial."""
        self._virtual.settle(healthy)

    def reboot(self) -> None:
        """Boot until a machine comes up; `LocalFault` if not even the confirmed image does."""
        for _ in range(MAX_ATTEMPTS + 2):
            self._virtual.reboot()
            record = self._virtual.record()
            self._machine.power_on(self._slots[record.running])
            if self._machine.await_console(bool, self._deadline):
                return
            self._machine.power_off()
            if record.trial is None:
                break
        raise LocalFault(
            "nothing-boots",
            "boot failed",
            f"slot {record.running} printed nothing within {self._deadline:g} seconds",
            "set the device up with an image that this machine can boot (`init --image FILE`)",
        )


class ConsoleHealth:
    """Implements `ports.HealthCheck`: healthy is a machine whose console says ``wanted``."""

    def __init__(
        self, machine: Machine, slots: Mapping[str, Path], wanted: Sequence[str], deadline: float
    ) -> None:
        """``wanted``: texts, one of which must appear within ``deadline`` seconds."""
        self._machine, self._slots = machine, slots
        self._wanted, self._deadline = [text.encode() for text in wanted], deadline

    def examine(self, slot: str) -> Verdict:
        """Watches the machine; boots it first if this process has not."""
        if self._machine.off:
            self._machine.power_on(self._slots[slot])
        heard = self._machine.await_console(
            lambda text: any(wanted in text for wanted in self._wanted), self._deadline
        )
        return Verdict(True) if heard else Verdict(False, "console-silent")
