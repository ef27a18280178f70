"""The boot record in U-Boot's redundant environment, through ``fw_printenv`` and ``fw_setenv``.

Rules:

1. Every change is one run of ``fw_setenv -s``, with all variables of the record in one script:
   between two runs the machine could boot what nobody meant.
2. The environment must be redundant (two copies, each with CRC and sequence byte): `fw_setenv`
   replaces the older copy, so a cut leaves the former environment in force.
3. A default environment is never taken: where neither copy is whole, reading and writing fail.
4. What was written is read again before it counts as done.

=====================  ===========================================================================
``fl_primary``         ``a`` or ``b``: boots when nothing is on trial
``fl_attempts``        boots left to the trial, *hexadecimal*, as ``setexpr`` counts
``fl_a``, ``fl_b``     ``empty``, ``trial``, ``good`` or ``bad``
``fl_a_digest``        SHA-256 of the slot's image, 64 hexadecimal digits
``fl_a_size``          its size in bytes, hexadecimal
``fl_a_version``       uint64, decimal; likewise ``fl_a_counter`` and ``fl_a_release``
=====================  ===========================================================================

The bootloader's part is in docs/boot/uboot.md; it says on the kernel's command line what it booted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from device_client.adapters.board import (
    TOOL_SECONDS,
    CommandLine,
    Restart,
    call,
    reboot_command,
)
from device_client.adapters.boot_backends import Opened
from device_client.adapters.directory import mapped, read_bounded
from device_client.core.slots import (
    MAX_ATTEMPTS,
    SLOTS,
    BootRecord,
    Entry,
    Standing,
    armed,
    given_up,
    kept,
    vacated,
)
from device_client.ports import Disk
from protocol.errors import LocalFault
from protocol.ids import U32_MAX, U64_MAX, Digest, Version

CONFIG = Path("/etc/fw_env.config")
_MAX_CONFIG_BYTES = 4096
_NO_DEFAULT = "/nonexistent/firmledger-takes-no-default-environment"


class UBootEnvironment:
    """Implements `ports.BootControl` over a redundant U-Boot environment."""

    def __init__(
        self,
        running: Callable[[], str],
        restart: Callable[[], None],
        config: Path = CONFIG,
        *,
        printenv: Sequence[str] = ("fw_printenv",),
        setenv: Sequence[str] = ("fw_setenv",),
        deadline: float = TOOL_SECONDS,
    ) -> None:
        """``running`` says which slot runs; ``config``: where the tools find the environment."""
        self._running, self._restart, self._config = running, restart, config
        options = ("-c", str(config), "-f", _NO_DEFAULT)
        self._print = (*printenv, *options)
        self._set = (*setenv, *options, "-s", "/dev/stdin")
        self._deadline = deadline

    def provision(self, record: BootRecord) -> None:
        """Add the first record to the board's environment."""
        self._write(record)

    def record(self) -> BootRecord:
        """What is in force; `LocalFault` if the environment holds no whole record."""
        return replace(self._stored(), running=self._running())

    def vacate(self, slot: str) -> None:
        """Withdraw the entry of the inactive slot."""
        self._change(vacated(self.record(), slot))

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        """The switch."""
        self._change(armed(self.record(), slot, entry, attempts))

    def settle(self, healthy: bool) -> None:
        """End the trial."""
        self._change(kept(self.record()) if healthy else given_up(self.record()))

    def reboot(self) -> None:
        """Boot the machine again."""
        self._restart()

    def _change(self, record: BootRecord) -> None:
        if record != self.record():
            self._write(record)

    def _write(self, record: BootRecord) -> None:
        lines = [f"{name}={value}\n" for name, value in variables(record).items()]
        call(self._set, deadline=self._deadline, stdin="".join(lines).encode())
        if replace(self._stored(), running=record.running) != record:
            raise LocalFault(
                "boot-record-unchanged",
                "the switch failed",
                "fw_setenv reported success, but the environment is not what it was given",
                f"check {self._config} and the medium that it names",
            )

    def _stored(self) -> BootRecord:
        self._sync()
        output = call(self._print, deadline=self._deadline)
        pairs = (line.partition("=") for line in output.splitlines())
        return parse({name: value for name, _, value in pairs})

    def _sync(self) -> None:
        """What is read is believed only once durable: a killed `fw_setenv` may not have synced.

        Raw flash has nothing to sync, and says so: a write to its character device is in the flash
        when it returns. Any other file that cannot be synced is a fault.
        """
        for path in environment_files(self._config):
            with mapped(f"making {path} durable"):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                except OSError as error:
                    raw = stat.S_ISCHR(os.fstat(descriptor).st_mode)
                    if error.errno != errno.EINVAL or not raw:
                        raise
                finally:
                    os.close(descriptor)


@dataclass(frozen=True)
class UBootTable:
    """``[uboot]``: the tools' configuration, where the running slot is told, how to reboot."""

    config: str = "/etc/fw_env.config"
    command_line: str = "/proc/cmdline"
    reboot: list[str] = field(default_factory=reboot_command)

    def open(self, disk: Disk) -> Opened:
        """The backend."""
        running = CommandLine(Path(self.command_line))
        return UBootEnvironment(running, Restart(self.reboot), Path(self.config)), running


def environment_files(config: Path) -> list[Path]:
    """The two places of the environment, as ``fw_env.config`` names them; `LocalFault` if not."""
    lines = read_bounded(config, _MAX_CONFIG_BYTES).decode("utf-8", "replace").splitlines()
    rows = [words for line in lines if (words := line.split()) and not words[0].startswith("#")]
    places = {tuple(row[:2]) for row in rows}
    if len(rows) != 2 or len(places) != 2:
        raise LocalFault(
            "environment-not-redundant",
            f"{config} refused",
            f"it names {len(places)} place(s) for the environment, not two",
            "build U-Boot with CONFIG_SYS_REDUNDAND_ENVIRONMENT, and name both copies",
        )
    return [Path(row[0]) for row in rows]


def variables(record: BootRecord) -> dict[str, str]:
    """The record as variables of the environment."""
    values = {"fl_primary": record.primary, "fl_attempts": f"{record.attempts:x}"}
    for slot in SLOTS:
        entry, prefix = record.entry(slot), f"fl_{slot}"
        values[prefix] = entry.standing.name.lower()
        values[f"{prefix}_digest"] = entry.digest.hex()
        values[f"{prefix}_size"] = f"{entry.size:x}"
        values[f"{prefix}_version"] = str(int(entry.version))
        values[f"{prefix}_counter"] = str(entry.security_counter)
        values[f"{prefix}_release"] = str(entry.release_id)
    return values


def parse(values: Mapping[str, str]) -> BootRecord:
    """The record of `variables`, its primary as ``running``; `LocalFault` if it is none."""
    try:
        primary = values["fl_primary"]
        a, b = (_entry(values, f"fl_{slot}") for slot in SLOTS)
        attempts = _natural(values["fl_attempts"], 16, MAX_ATTEMPTS)
        record = BootRecord(primary, primary, attempts, a, b)
        sound = primary in SLOTS and record.entry(primary).standing is Standing.GOOD
    except (KeyError, ValueError):
        sound = False
    if not sound:
        raise LocalFault(
            "boot-record-damaged",
            "the boot record refused",
            "the environment lacks a variable of it, or holds one that means nothing",
            "set the device up with `init`; docs/boot/uboot.md names the variables",
        )
    return record


def _entry(values: Mapping[str, str], prefix: str) -> Entry:
    digest = bytes.fromhex(values[f"{prefix}_digest"])
    if len(digest) != len(Digest(bytes(32))):
        raise ValueError("digest")
    return Entry(
        Standing[values[prefix].upper()],
        Digest(digest),
        _natural(values[f"{prefix}_size"], 16, U64_MAX),
        Version(_natural(values[f"{prefix}_version"], 10, U64_MAX)),
        _natural(values[f"{prefix}_counter"], 10, U32_MAX),
        _natural(values[f"{prefix}_release"], 10, U32_MAX),
    )


def _natural(text: str, base: int, maximum: int) -> int:
    if not text.isascii() or not text.isalnum() or not 0 <= (value := int(text, base)) <= maximum:
        raise ValueError(text)
    return value
