"""A board for every boot backend: its environment on disk, its bootloader, and what breaks it.

To test a new backend, add a `Board` here and its name to `BOARDS`; test_contract.py does the rest.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from device_client.adapters.board import CommandLine
from device_client.adapters.command_boot import CommandBoot
from device_client.adapters.directory import Directory
from device_client.adapters.file_slots import FileSlots
from device_client.adapters.grub_boot import GrubEnvironment
from device_client.adapters.uboot_boot import UBootEnvironment
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.core.slots import BootRecord, Entry, Standing, factory
from device_client.ports import BootControl
from protocol.ids import Digest, Version
from tests.conftest import ROOT
from tests.world import bootloader

IMAGES = {n: b"test vector: image %d. " % n * 40 for n in range(6)}
ENV_BYTES = 0x2000


def entry(n: int, standing: Standing = Standing.EMPTY) -> Entry:
    """What a record says of image ``n``."""
    digest = Digest(hashlib.sha256(IMAGES[n]).digest())
    return Entry(standing, digest, len(IMAGES[n]), Version(n << 48 | n), n, n)


class Control(BootControl, Protocol):
    """A backend, with what sets it up."""

    def provision(self, record: BootRecord) -> None: ...


@dataclass
class Board:
    """A board in ``folder``. ``counts``: its record tells how many attempts are left."""

    folder: Path
    counts: bool = True
    slots: dict[str, bytes] = field(default_factory=lambda: {"a": IMAGES[0], "b": b""})

    def control(self) -> Control:
        """The backend as a process that has just started finds it."""
        raise NotImplementedError

    def power_on(self, power: bootloader.Power | None = None) -> str:
        """What the bootloader does; the slot that runs afterwards."""
        raise NotImplementedError

    def write(self, slot: str, image: bytes) -> None:
        """The slot holds ``image`` from now on."""
        self.slots[slot] = image

    def start(self) -> None:
        """Set up, running image 0 in slot a."""
        self.control().provision(factory(entry(0)))

    def good(self) -> bytes:
        """The digests of the images, as the record has them, must be those in the slots."""
        return self.slots[self.control().record().running]

    def intact(self, slot: str) -> bool:
        """What a bootloader finds when it hashes a slot (`choose` asks for no other)."""
        return self.slots[slot] in IMAGES.values()

    def reboot(self) -> None:
        self.power_on()


class UBootBoard(Board):
    """A redundant environment in two files, and Debian's fw_setenv."""

    @property
    def loader(self) -> bootloader.UBoot:
        places = self.folder / "env1", self.folder / "env2"
        return bootloader.UBoot(places, ENV_BYTES, self.folder / "cmdline")

    @property
    def config(self) -> Path:
        return self.folder / "fw_env.config"

    def start(self) -> None:
        first, second = self.loader.copies
        self.config.write_text(
            f"# Device Offset Size\n{first} 0x0 {ENV_BYTES:#x}\n{second} 0x0 {ENV_BYTES:#x}\n"
        )
        self.loader.format({"bootcmd": "run fl_boot", "ethaddr": "02:00:00:00:00:01"})
        (self.folder / "cmdline").write_text("firmledger.slot=a\n")
        super().start()

    def control(self, **options: Any) -> UBootEnvironment:
        running = CommandLine(self.folder / "cmdline")
        return UBootEnvironment(running, self.reboot, self.config, **options)

    def power_on(self, power: bootloader.Power | None = None) -> str:
        return self.loader.power_on(self.intact, power)


class GrubBoard(Board):
    """A block made by Debian's grub-editenv."""

    @property
    def loader(self) -> bootloader.Grub:
        return bootloader.Grub(self.folder / "grubenv", self.folder / "cmdline")

    def start(self) -> None:
        block = str(self.folder / "grubenv")
        subprocess.run(["grub-editenv", block, "create"], check=True)
        subprocess.run(["grub-editenv", block, "set", "saved_entry=0"], check=True)
        (self.folder / "cmdline").write_text("firmledger.slot=a\n")
        super().start()

    def control(self) -> GrubEnvironment:
        running = CommandLine(self.folder / "cmdline")
        return GrubEnvironment(running, self.reboot, self.folder / "grubenv")

    def power_on(self, power: bootloader.Power | None = None) -> str:
        return self.loader.power_on(self.intact, power)


class CommandBoard(Board):
    """The sample command of the docs, and a bootloader that reads what it writes."""

    @property
    def loader(self) -> bootloader.Custom:
        return bootloader.Custom(self.folder / "state")

    def start(self) -> None:
        self.counts = False
        shutil.copy(ROOT / "docs/boot/board-command.sh", self.folder / "boot.sh")
        first = {"primary": "a", "current": "a", "a": "good", "b": "bad", "tries": "-"}
        (self.folder / "state").write_text("".join(f"{k}={v}\n" for k, v in first.items()))
        super().start()

    def control(self, *command: str) -> CommandBoot:
        argv = [*command, str(self.folder / "boot.sh")]
        return CommandBoot(Directory(self.folder), argv, self.reboot)

    def power_on(self, power: bootloader.Power | None = None) -> str:
        return self.loader.power_on(self.intact, power)


class VirtualBoard(Board):
    """The simulated bootloader, which is part of its backend."""

    def start(self) -> None:
        self.write("a", IMAGES[0])
        super().start()

    def write(self, slot: str, image: bytes) -> None:
        super().write(slot, image)
        (self.folder / "slots").mkdir(exist_ok=True)
        (self.folder / f"slots/{slot}.img").write_bytes(image)

    def control(self) -> VirtualBoot:
        disk = Directory(self.folder)
        return VirtualBoot(disk, FileSlots(disk))

    def power_on(self, power: bootloader.Power | None = None) -> str:
        control = self.control()
        control.reboot()
        return control.record().running


BOARDS = {
    "virtual": VirtualBoard,
    "uboot": UBootBoard,
    "grub": GrubBoard,
    "command": CommandBoard,
}
