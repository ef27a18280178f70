"""Which boot backend and which slots a device has: the one place where they are listed.

A backend is named in ``config.toml`` by ``boot = "…"``, and has a table of its own; `Board` reads
both strictly, as all settings are read.

To add a backend, say ``lilo``:

1. Write ``lilo_boot.py`` beside this file: one class with the methods of `Backend`; what each has
   to do is said in `ports.BootControl`, and `UBootEnvironment` is the plainest example. What a step
   does to the record is in `core.slots` (``vacated``, ``armed``, ``kept``, ``given_up``): read the
   record, apply the rule, write the result as one atomic, durable change, or nothing if it stands
   there already. Which slot runs is told from outside (`CommandLine`), as is a reboot (`Restart`).
2. Here, a table of its settings, whose ``open`` makes the class; a field of its name in `Board`.
3. In tests/device_client/boot/boards.py a board with a bootloader for it; test_contract.py, which
   drives every backend beside the rules, then drives yours. A page under docs/boot.

Backends are loaded only where they are used, for `status` has to be cheap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from device_client.adapters.directory import Directory
from device_client.adapters.file_slots import MAX_SLOT_BYTES, FileSlots, region
from device_client.core.slots import SLOTS, BootRecord
from device_client.ports import BootControl, HealthCheck, SlotStore
from protocol.errors import Misuse

_MAX_SECONDS = 24 * 3600


class Backend(BootControl, Protocol):
    """A boot backend that can be set up, too."""

    def provision(self, record: BootRecord) -> None:
        """Write the first record of a new device."""


Opened = tuple[Backend, Callable[[], str]]
"""A real board's backend, and what says which slot runs."""


def _reboot() -> list[str]:
    return ["systemctl", "reboot"]


@dataclass(frozen=True)
class UBootTable:
    """``[uboot]``: the tools' configuration, where the running slot is told, how to reboot."""

    config: str = "/etc/fw_env.config"
    command_line: str = "/proc/cmdline"
    reboot: list[str] = field(default_factory=_reboot)

    def open(self, disk: Directory) -> Opened:
        """The backend."""
        from device_client.adapters.board import CommandLine, Restart
        from device_client.adapters.uboot_boot import UBootEnvironment

        running = CommandLine(Path(self.command_line))
        return UBootEnvironment(running, Restart(self.reboot), Path(self.config)), running


@dataclass(frozen=True)
class GrubTable:
    """``[grub]``: the environment block, where the running slot is told, how to reboot."""

    block: str = "/boot/grub/grubenv"
    command_line: str = "/proc/cmdline"
    reboot: list[str] = field(default_factory=_reboot)

    def open(self, disk: Directory) -> Opened:
        """The backend."""
        from device_client.adapters.board import CommandLine, Restart
        from device_client.adapters.grub_boot import GrubEnvironment

        running = CommandLine(Path(self.command_line))
        return GrubEnvironment(running, Restart(self.reboot), Path(self.block)), running


@dataclass(frozen=True)
class CommandTable:
    """``[command]``: argv of the board's command, its deadline in seconds, how to reboot."""

    argv: list[str] = field(default_factory=list)
    deadline: int = 30
    reboot: list[str] = field(default_factory=_reboot)

    def open(self, disk: Directory) -> Opened:
        """The backend; ``disk`` keeps what the command cannot."""
        from device_client.adapters.board import Restart
        from device_client.adapters.command_boot import CommandBoot

        boot = CommandBoot(disk, self.argv, Restart(self.reboot), self.deadline)
        return boot, boot.current


@dataclass(frozen=True)
class QemuTable:
    """``[qemu]``: argv of the machine, what a healthy console says, the deadline in seconds."""

    argv: list[str] = field(
        default_factory=lambda: [
            *("qemu-system-riscv64", "-M", "virt", "-m", "128M"),
            *("-accel", "tcg,tb-size=32"),  # what it translates is kept in so many MiB
        ]
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


_TABLES: Mapping[str, Any] = {f.name: f.default_factory for f in fields(Board) if f.name != "boot"}
BACKENDS = ("virtual", *(name for name in _TABLES if name != "slots"))
REAL = frozenset(name for name, table in _TABLES.items() if hasattr(table, "open"))
"""Backends of real boards: what runs there was not put there by `init`."""


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
        boot, running = getattr(board, board.boot).open(disk)
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
