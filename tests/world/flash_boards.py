"""Every boot backend over a medium that forgets, with a bootloader that counts and chooses on it.

A board is one class: the client's backend, whose environment lies in regions of a `Flash`, and a
bootloader of tests/world/bootloader.py over the same regions. Nothing but the medium is replaced:
where a backend works through a tool (fw_setenv, a board's command), the tool's writes are made here
as it makes them.

Which slot runs is told by the kernel's command line, which no cut outlives: here a region of its
own, written without an operation at every boot.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

from device_client.adapters import command_boot, grub_boot, uboot_boot
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.core.slots import SLOTS, BootRecord, choose, counted
from device_client.flash import digest_of
from device_client.ports import SlotStore
from tests.world import bootloader
from tests.world.bootloader import Power
from tests.world.flash import Flash

ENV_BYTES = 0x800
GRAIN = 32
"""Of GRUB's block less is promised than a sector: it has no checksum."""
_LINE = "command line"


class FlashFile:
    """A region, with the few methods of `Path` that bootloaders use. Closing it is syncing it."""

    def __init__(self, disk: Flash, name: str) -> None:
        self._disk, self._name = disk, name

    def read_bytes(self) -> bytes:
        buffer = bytearray(self._disk.size(self._name))
        self._disk.read(self._name, 0, memoryview(buffer))
        return bytes(buffer)

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> None:
        """Replace it all, durably: for what was there before the story begins."""
        self._disk.durable[self._name], self._disk.pending[self._name] = data, []

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def with_suffix(self, suffix: str) -> FlashFile:
        return FlashFile(self._disk, self._name + suffix)

    def replace(self, target: FlashFile) -> None:
        self._disk.rename(self._name, target._name)

    @contextlib.contextmanager
    def open(self, mode: str) -> Iterator[Any]:
        file = _Open(self._disk, self._name)
        yield file
        if mode != "rb":
            self._disk.sync(self._name)


class _Open(io.BytesIO):
    def __init__(self, disk: Flash, name: str) -> None:
        super().__init__(FlashFile(disk, name).read_bytes())
        self._disk, self._name = disk, name

    def write(self, data: Any) -> int:
        self._disk.write(self._name, self.tell(), data)
        return super().write(data)


class Running:
    """Which slot runs, from the region that stands for the kernel's command line."""

    def __init__(self, disk: Flash) -> None:
        self.line = FlashFile(disk, _LINE)

    def __call__(self) -> str:
        text = self.line.read_text()
        return text.partition("firmledger.slot=")[2][:1] if text else "a"


def _nothing() -> None:
    """A board's reboot is its bootloader's, here."""


# -- the boards ------------------------------------------------------------------------------------


class TrustingBoot(VirtualBoot):
    """The simulated bootloader, which boots what its record names without hashing it."""

    def reboot(self) -> None:
        self._known = None
        self._write(choose(counted(self.record()), lambda slot: True))


class FlashUBoot(uboot_boot.UBootEnvironment):
    """Both copies of U-Boot's environment in regions; what fw_setenv writes, and U-Boot on it."""

    def __init__(self, disk: Flash, slots: SlotStore) -> None:
        running = Running(disk)
        super().__init__(running, _nothing)
        self._disk, self._slots = disk, slots
        places: Any = FlashFile(disk, "env.1"), FlashFile(disk, "env.2")
        line: Any = running.line
        self._loader = bootloader.UBoot(places, ENV_BYTES, line)

    def provision(self, record: BootRecord) -> None:
        theirs = "of others, " * 30  # so that the record does not fit into one sector
        self._loader.format({"bootcmd": "run fl_boot", "board": theirs})
        super().provision(record)

    def _write(self, record: BootRecord) -> None:
        env = self._loader.load()[2] | uboot_boot.variables(record)
        self._loader.save(env, Power())

    def _stored(self) -> BootRecord:
        for name in ("env.1", "env.2"):
            self._disk.sync(name)
        return uboot_boot.parse(self._loader.load()[2])

    def reboot(self) -> None:
        self._loader.power_on(lambda slot: _intact(self, self._slots, slot))


class FlashGrub(grub_boot.GrubEnvironment):
    """GRUB's block in a region, and GRUB on it, which takes the record's word."""

    REGION = "grubenv"

    def __init__(self, disk: Flash, slots: SlotStore) -> None:
        running, block, line = Running(disk), FlashFile(disk, self.REGION), Running(disk).line
        path: Any = block
        command_line: Any = line
        super().__init__(running, _nothing, path)
        self._disk = disk
        disk.grains[self.REGION] = GRAIN
        self._loader = bootloader.Grub(path, command_line)

    def provision(self, record: BootRecord) -> None:
        empty = grub_boot.SIGNATURE.ljust(grub_boot.BLOCK_BYTES, b"#")
        FlashFile(self._disk, self.REGION).write_bytes(empty)
        super().provision(record)

    def _read(self) -> bytes:
        self._disk.sync(self.REGION)
        return FlashFile(self._disk, self.REGION).read_bytes()

    def _write(self, block: grub_boot.Block) -> None:
        data = block.encode()
        if data != self._read():
            self._disk.write(self.REGION, 0, data)
            self._disk.sync(self.REGION)

    def reboot(self) -> None:
        self._loader.power_on(lambda slot: True)


class FlashCommand(command_boot.CommandBoot):
    """docs/boot/board-command.sh over a region, and the bootloader that it speaks for."""

    def __init__(self, disk: Flash, slots: SlotStore) -> None:
        super().__init__(disk, ["board-command"], _nothing)
        self._slots = slots
        state: Any = FlashFile(disk, "state")
        self._loader = bootloader.Custom(state)

    def provision(self, record: BootRecord) -> None:
        first = {"primary": "a", "current": "a", "a": "good", "b": "bad", "tries": "-"}
        self._loader.state.write_text("".join(f"{k}={v}\n" for k, v in first.items()))
        super().provision(record)

    def _answer(self, allowed: Sequence[str], *arguments: str) -> str:
        verb, *slot = arguments
        return self._loader.load()[slot[0] if slot else verb.removeprefix("get-")]

    def _set(self, verb: str, slot: str, *state: str, attempts: int = 0) -> None:
        values = self._loader.load()
        if verb == "set-primary":
            values |= {"primary": slot, "tries": str(attempts)}
        else:
            if values["primary"] == slot:
                values["tries"] = "-"
                if state[0] == "bad":
                    values["primary"] = SLOTS[1 - SLOTS.index(slot)]
            values[slot] = state[0]
        self._loader.save(values, Power())

    def reboot(self) -> None:
        self._loader.power_on(lambda slot: _intact(self, self._slots, slot))


def _intact(boot: Any, slots: SlotStore, slot: str) -> bool:
    entry = boot.record().entry(slot)
    return digest_of(slots, slot, entry.size) == entry.digest


BOARDS: dict[str, Any] = {
    "virtual": VirtualBoot,
    "trusting": TrustingBoot,
    "uboot": FlashUBoot,
    "grub": FlashGrub,
    "command": FlashCommand,
}
"""The name of each board, and its class, made of a `Flash` and a `SlotStore`."""
