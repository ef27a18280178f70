"""Which boot backend and which slots a device has: the one place where they are listed.

A backend is named in ``config.toml`` by ``boot = "…"``, and has a table of its own; `Board` reads
both strictly, as all settings are read.

To add a backend for a board, say ``lilo``:

1. Write ``lilo_boot.py`` beside this file. Its class has the six methods of `Backend`: ``record``,
   ``vacate``, ``arm``, ``settle`` and ``reboot``, which `ports.BootControl` describes, and
   ``provision``, which writes the first record of a new device and is what `init` calls.
   What a step does to the record is in `core.slots` (``vacated``, ``armed``, ``kept``,
   ``given_up``): read the record, apply the rule, write the result as one atomic, durable change,
   or nothing if it stands there already. What cannot be read is a `LocalFault` with the reason
   ``boot-record-damaged``. Which slot runs is told from outside (`board.CommandLine`), as is a
   reboot (`board.Restart`); tools are called by `board.call`. `UBootEnvironment` is the plainest.
2. In the same file, a frozen dataclass with the settings of its table ``[lilo]``, each of type str,
   int, bool or list[str] and with a default, and the method ``open(disk)``, which makes (the class,
   what says which slot runs). Where the bootloader cannot count to 255, ``most_attempts``.
3. Here, one line in `REAL`.

It works from then on: `init --boot lilo --board FILE`, and whatever else reads config.toml. To keep
it so: in tests/device_client/boot/boards.py a `Board` with a bootloader for it, and
test_contract.py drives yours beside the rules; its tables in machines.py, and test_killed.py kills
it; a page docs/boot/lilo.md. test_adding.py does these steps with a backend of its own.

Backends are loaded only where they are used, for `status` has to be cheap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from device_client.adapters.directory import Directory
from device_client.adapters.file_slots import MAX_SLOT_BYTES, FileSlots, region
from device_client.adapters.slot_media import require_apart
from device_client.core.slots import MAX_ATTEMPTS, SLOTS, BootRecord
from device_client.ports import BootControl, Disk, HealthCheck, SlotStore
from protocol.errors import Misuse

_MAX_SECONDS = 24 * 3600


class Backend(BootControl, Protocol):
    """A boot backend that can be set up, too."""

    def provision(self, record: BootRecord) -> None:
        """Write the first record of a new device."""


class Table(Protocol):
    """The settings of a real board's backend; a dataclass."""

    def open(self, disk: Disk) -> Opened:
        """The backend; ``disk`` keeps what its bootloader cannot."""


Opened = tuple[Backend, Callable[[], str]]
"""A real board's backend, and what says which slot runs."""

REAL = {
    "uboot": "device_client.adapters.uboot_boot:UBootTable",
    "grub": "device_client.adapters.grub_boot:GrubTable",
    "command": "device_client.adapters.command_boot:CommandTable",
}
"""Backends of real boards (what runs there was not put there by `init`): where each table is."""

BACKENDS = ("virtual", *REAL, "qemu")


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
class VirtualTable:
    """Nothing to settle."""


@dataclass(frozen=True)
class Board:
    """The backend's name, its table (None: as it is by default), and the slots."""

    boot: str = "virtual"
    table: Any = None
    slots: SlotsTable = field(default_factory=SlotsTable)

    def __post_init__(self) -> None:
        """Fill in the default table."""
        if self.table is None:
            object.__setattr__(self, "table", _kind(self.boot)())

    @classmethod
    def parse(cls, boot: Any, tables: Mapping[str, Mapping[str, Any]]) -> Board:
        """The board of these tables; `Misuse` for a name, a type or a value that is none."""
        if boot not in ("virtual", "qemu", *REAL):
            raise _wrong(f"boot is one of {', '.join(BACKENDS)}, not {str(boot)[:40]!r}")
        for name in tables:
            if name not in (boot, "slots") or name == "virtual":
                raise _wrong(f"table [{name[:40]}] does not belong to boot = {boot!r}")
        board = cls(
            boot,
            _table(boot, _kind(boot), tables.get(boot, {})),
            _table("slots", SlotsTable, tables.get("slots", {})),
        )
        board._check()
        return board

    def _check(self) -> None:
        if bool(self.slots.a) != bool(self.slots.b):
            raise _wrong("[slots] names one device; it takes two, or none")
        if self.boot in REAL and not self.slots.a:
            raise _wrong(f"boot = {self.boot!r} needs the two devices in [slots]")
        if self.boot == "qemu" and self.slots.a:
            raise _wrong("boot = 'qemu' boots files, not devices")
        if getattr(self.table, "argv", True) == []:
            raise _wrong(f"[{self.boot}] argv is missing")

    @property
    def most_attempts(self) -> int:
        """Boots that a trial may be allowed; a table names what its bootloader can count to."""
        return getattr(self.table, "most_attempts", MAX_ATTEMPTS)

    def to_toml(self) -> str:
        """The backend's name and the tables it reads, to follow the other settings."""
        lines = [f"\n# {' | '.join(BACKENDS)}; docs/boot has a page for each"]
        lines += [f"boot = {json.dumps(self.boot)}"]
        for name, table in ((self.boot, self.table), ("slots", self.slots)):
            if not fields(table) or table == SlotsTable():
                continue
            lines.append(f"\n[{name}]")
            lines += [f"{f.name} = {json.dumps(getattr(table, f.name))}" for f in fields(table)]
        return "".join(line + "\n" for line in lines)

    def paths(self, root: Path) -> dict[str, Path]:
        """Where each slot's image lies."""
        if self.slots.a:
            return {"a": Path(self.slots.a), "b": Path(self.slots.b)}
        return {slot: root / region(slot) for slot in SLOTS}


def _kind(boot: str) -> Any:
    """The class of a backend's table; a real one's is loaded with the backend."""
    if boot not in REAL:
        return QemuTable if boot == "qemu" else VirtualTable
    module, _, name = REAL[boot].partition(":")
    return getattr(import_module(module), name)


def _table(name: str, kind: Any, values: Mapping[str, Any]) -> Any:
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
    """A board's open ports; ``health`` where the backend brings a health check of its own.

    ``cool`` makes the next read of a slot ask the medium, where the slot is in use as well.
    """

    slots: SlotStore
    cool: Callable[[str], None]
    boot: Backend
    running: Callable[[], str] | None
    health: HealthCheck | None
    closing: ExitStack


def open_board(board: Board, root: Path, disk: Directory, capacity: int = 0) -> OpenBoard:
    """The slots and the boot backend of the device in ``root``, until ``closing`` is closed.

    ``capacity``: bytes of a slot that is a file; 0: as many as the disk has. `LocalFault` if both
    slots lie on one medium, under whatever names.
    """
    closing = ExitStack()
    paths = board.paths(root)
    slots: SlotStore = FileSlots(disk, capacity or MAX_SLOT_BYTES)
    cool = slots.sync
    if board.slots.a:
        from device_client.adapters.block_slots import BlockSlots

        slots = block = BlockSlots(paths)
        cool = block.cool
        closing.callback(block.close)
    else:
        require_apart(paths)
    if board.boot in REAL:
        boot, running = board.table.open(disk)
        return OpenBoard(slots, cool, boot, running, None, closing)
    from device_client.adapters.virtual_boot import VirtualBoot

    virtual = VirtualBoot(disk, slots)
    if board.boot == "virtual":
        return OpenBoard(slots, cool, virtual, None, None, closing)
    from device_client.adapters.qemu_boot import ConsoleHealth, Machine, QemuBoot

    machine = Machine(root / "console.log", board.table.argv)
    closing.callback(machine.power_off)
    boot = QemuBoot(virtual, machine, paths, board.table.deadline)
    health = ConsoleHealth(machine, paths, board.table.console, board.table.deadline)
    return OpenBoard(slots, cool, boot, None, health, closing)
