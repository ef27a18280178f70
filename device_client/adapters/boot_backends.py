"""Which boot backend and which slots a device has: the one place where they are listed.

A backend is named in ``config.toml`` by ``boot = "…"``, and has a table of its own; `Board` reads
both strictly, as all settings are read. To add one: a class that implements `ports.BootControl` in
a file of its own, a table here, a branch in `open_board`, and a board in
tests/device_client/boot/boards.py, whose contract test then drives it.

Backends are loaded only where they are used, for `status` has to be cheap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, cast

from device_client.adapters.directory import Directory
from device_client.adapters.file_slots import MAX_SLOT_BYTES, FileSlots, region
from device_client.core.slots import SLOTS, BootRecord
from device_client.ports import BootControl, HealthCheck, SlotStore
from protocol.errors import Misuse

REAL = frozenset({"uboot", "grub", "command"})
"""Backends of real boards: what runs there was not put there by `init`."""
_MAX_SECONDS = 24 * 3600


def _reboot() -> list[str]:
    return ["systemctl", "reboot"]


@dataclass(frozen=True)
class UBootTable:
    """``[uboot]``: the tools' configuration, where the running slot is told, how to reboot."""

    config: str = "/etc/fw_env.config"
    command_line: str = "/proc/cmdline"
    reboot: list[str] = field(default_factory=_reboot)


@dataclass(frozen=True)
class GrubTable:
    """``[grub]``: the environment block, where the running slot is told, how to reboot."""

    block: str = "/boot/grub/grubenv"
    command_line: str = "/proc/cmdline"
    reboot: list[str] = field(default_factory=_reboot)


@dataclass(frozen=True)
class CommandTable:
    """``[command]``: argv of the board's command, its deadline in seconds, how to reboot."""

    argv: list[str] = field(default_factory=list)
    deadline: int = 30
    reboot: list[str] = field(default_factory=_reboot)


@dataclass(frozen=True)
class QemuTable:
    """``[qemu]``: argv of the machine, what a healthy console says, the deadline in seconds."""

    argv: list[str] = field(
        default_factory=lambda: ["qemu-system-riscv64", "-M", "virt", "-m", "128M"]
    )
    console: list[str] = field(default_factory=lambda: ["OpenSBI v", "U-Boot 20"])
    deadline: int = 20


@dataclass(frozen=True)
class SlotsTable:
    """``[slots]``: block devices of the two slots; empty: files in the device's directory."""

    a: str = ""
    b: str = ""


@dataclass(frozen=True)
class Board:
    """The backend's name, and all tables."""

    boot: str = "virtual"
    uboot: UBootTable = field(default_factory=UBootTable)
    grub: GrubTable = field(default_factory=GrubTable)
    command: CommandTable = field(default_factory=CommandTable)
    qemu: QemuTable = field(default_factory=QemuTable)
    slots: SlotsTable = field(default_factory=SlotsTable)

    @classmethod
    def parse(cls, boot: Any, tables: Mapping[str, Mapping[str, Any]]) -> Board:
        """The board of these tables; `Misuse` for a name, a type or a value that is none."""
        if boot not in BACKENDS:
            raise _wrong(f"boot is one of {', '.join(BACKENDS)}, not {str(boot)[:40]!r}")
        board = cls(boot)
        for name, values in tables.items():
            if name not in (boot, "slots") or name not in _TABLES:
                raise _wrong(f"table [{name[:40]}] does not belong to boot = {boot!r}")
            board = replace(board, **{name: _table(name, values)})
        board._check()
        return board

    def _check(self) -> None:
        if bool(self.slots.a) != bool(self.slots.b):
            raise _wrong("[slots] names one device; it takes two, or none")
        if self.boot in REAL and not self.slots.a:
            raise _wrong(f"boot = {self.boot!r} needs the two devices in [slots]")
        if self.boot == "qemu" and self.slots.a:
            raise _wrong("boot = 'qemu' boots files, not devices")
        if self.boot == "command" and not self.command.argv:
            raise _wrong("[command] argv is missing")

    def to_toml(self) -> str:
        """The backend's name and the tables it reads, to follow the other settings."""
        lines = [f"\n# {' | '.join(BACKENDS)}; docs/boot has a page for each"]
        lines += [f"boot = {json.dumps(self.boot)}"]
        names = [name for name in (self.boot, "slots") if name in _TABLES]
        for name in names:
            table = getattr(self, name)
            if name == "slots" and not table.a:
                continue
            lines.append(f"\n[{name}]")
            lines += [f"{f.name} = {json.dumps(getattr(table, f.name))}" for f in fields(table)]
        return "".join(line + "\n" for line in lines)

    def paths(self, root: Path) -> dict[str, Path]:
        """Where each slot's image lies."""
        if self.slots.a:
            return {"a": Path(self.slots.a), "b": Path(self.slots.b)}
        return {slot: root / region(slot) for slot in SLOTS}


BACKENDS = ("virtual", "uboot", "grub", "command", "qemu")
_TABLES: Mapping[str, type] = {
    "uboot": UBootTable,
    "grub": GrubTable,
    "command": CommandTable,
    "qemu": QemuTable,
    "slots": SlotsTable,
}


def _table(name: str, values: Mapping[str, Any]) -> Any:
    kind = _TABLES[name]
    defaults = kind()
    known = {f.name for f in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise _wrong(f"[{name}] has no setting {key[:40]!r}")
        wanted = type(getattr(defaults, key))
        texts = wanted is not list or (
            isinstance(value, list)
            and 0 < len(value) <= 64
            and all(isinstance(word, str) and word for word in value)
        )
        if type(value) is not wanted or not texts:
            raise _wrong(f"[{name}] {key} is not of type {wanted.__name__}")
        if wanted is int and not 1 <= value <= _MAX_SECONDS:
            raise _wrong(f"[{name}] {key} is not between 1 and {_MAX_SECONDS}")
    return kind(**values)


def _wrong(why: str) -> Misuse:
    return Misuse("config", "config.toml refused", why, "see docs/boot for the boot backends")


class Backend(BootControl, Protocol):
    """A boot backend that can be set up, too."""

    def provision(self, record: BootRecord) -> None:
        """Write the first record of a new device."""


@dataclass
class OpenBoard:
    """A board's open ports; ``health`` where the backend brings a health check of its own."""

    slots: SlotStore
    boot: Backend
    running: Callable[[], str] | None
    health: HealthCheck | None
    closing: ExitStack


def open_board(board: Board, root: Path, disk: Directory, capacity: int = 0) -> OpenBoard:
    """The slots and the boot backend of the device in ``root``, until ``closing`` is closed.

    ``capacity``: bytes of a slot that is a file; 0: as many as the disk has.
    """
    closing = ExitStack()
    paths = board.paths(root)
    slots: SlotStore = FileSlots(disk, capacity or MAX_SLOT_BYTES)
    if board.slots.a:
        from device_client.adapters.block_slots import BlockSlots

        slots = block = BlockSlots(paths)
        closing.callback(block.close)
    if board.boot in REAL:
        boot, running = _real(board, disk)
        return OpenBoard(slots, boot, running, None, closing)
    from device_client.adapters.virtual_boot import VirtualBoot

    virtual = VirtualBoot(disk, slots)
    if board.boot == "virtual":
        return OpenBoard(slots, virtual, None, None, closing)
    from device_client.adapters.qemu_boot import ConsoleHealth, Machine, QemuBoot

    machine = Machine(root / "console.log", board.qemu.argv)
    closing.callback(machine.power_off)
    boot = QemuBoot(virtual, machine, paths, board.qemu.deadline)
    health = ConsoleHealth(machine, paths, board.qemu.console, board.qemu.deadline)
    return OpenBoard(slots, boot, None, health, closing)


def _real(board: Board, disk: Directory) -> tuple[Backend, Callable[[], str]]:
    from device_client.adapters.board import CommandLine, Restart

    table = cast("UBootTable | GrubTable | CommandTable", getattr(board, board.boot))
    restart = Restart(table.reboot)
    if isinstance(table, CommandTable):
        from device_client.adapters.command_boot import CommandBoot

        boot = CommandBoot(disk, table.argv, restart, table.deadline)
        return boot, boot.current
    running = CommandLine(Path(table.command_line))
    if isinstance(table, GrubTable):
        from device_client.adapters.grub_boot import GrubEnvironment

        return GrubEnvironment(running, restart, Path(table.block)), running
    from device_client.adapters.uboot_boot import UBootEnvironment

    return UBootEnvironment(running, restart, Path(table.config)), running
