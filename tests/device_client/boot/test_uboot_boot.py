"""The whole of docs/boot/uboot.env on a board in QEMU, from fw_setenv to the kernel's command line.

The board is a RISC-V machine with one disk: (1) both copies of the environment, (2, 3) the slots.
The client's backend works on that disk with Debian's fw_setenv. U-Boot finds the slots by the
partition table, reads and hashes them, and boots what it chose by `bootm`; the kernel is a few
instructions that print the device tree they were given, where the command line is.

Debian's U-Boot for this machine lacks two things. It has no environment on a medium: so it is
handed the one that fw_printenv reads, and `fl_save`, which is `saveenv` on a board, writes the
older copy by commands. And no U-Boot in Debian has the command `hash`: `fl_hash` is `iminfo`,
which checks the CRC-32 of the image's header and data.
"""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client.adapters.uboot_boot import UBootEnvironment
from device_client.core.slots import BootRecord, Entry, Standing, factory
from protocol.digests import sha256
from protocol.ids import Version
from tests.conftest import ROOT
from tests.device_client.boot.test_uboot_script import ADDRESS, UBOOT, talk
from tests.world.bootloader import UBoot
from tests.world.disks import SECTOR, gpt

COPY = 0x8000
SLOT_BYTES = 64 << 10
BUFFER = 0x86000000
KERNEL_AT = 0x80400000
KERNEL_CODE = struct.pack(
    "<16I",
    0x100002B7,  # lui t0, 0x10000: the serial port
    0x0065C303,  # lbu t1, 6(a1): a1 is the device tree, whose size is at 4
    0x00831313,  # slli t1, t1, 8
    0x0075CE03,  # lbu t3, 7(a1)
    0x01C36333,  # or t1, t1, t3
    0x00B30333,  # add t1, t1, a1: its end
    0x0052CE03,  # lbu t3, 5(t0): wait until the port is free
    0x020E7E13,  # andi t3, t3, 0x20
    0xFE0E0CE3,  # beqz t3, -8
    0x0005C383,  # lbu t2, 0(a1)
    0x00728023,  # sb t2, 0(t0)
    0x00158593,  # addi a1, a1, 1
    0xFE65E4E3,  # bltu a1, t1, -24
    0x001002B7,  # lui t0, 0x100: the power switch
    0x000053B7,  # lui t2, 5
    0x5553839B,  # addiw t2, t2, 0x555
) + struct.pack("<2I", 0x0072A023, 0x0000006F)  # sw t2, 0(t0): off; or wait

pytestmark = [
    pytest.mark.debian("libubootenv-tool", "/usr/bin/fw_setenv"),
    pytest.mark.debian("u-boot-qemu", str(UBOOT)),
    pytest.mark.debian("qemu-system-misc", "/usr/bin/qemu-system-riscv64"),
]


def kernel(name: str) -> bytes:
    """A kernel in U-Boot's legacy format, which prints its device tree and switches off."""
    code = KERNEL_CODE + name.encode()  # so that sizes are odd, and images differ
    numbers = (0x27051956, 0, 0, len(code), KERNEL_AT, KERNEL_AT, zlib.crc32(code))
    linux, riscv, kind, plain = 5, 26, 2, 0
    head = struct.pack(">7I4B32s", *numbers, linux, riscv, kind, plain, name.encode())
    return head[:4] + struct.pack(">I", zlib.crc32(head)) + head[8:] + code


IMAGES = {"old": kernel("old image"), "new": kernel("the new image"), "third": kernel("a third")}


def entry(name: str) -> Entry:
    image = IMAGES[name]
    return Entry(Standing.EMPTY, sha256(image), len(image), Version(1 << 48), 1, 1)


class Machine:
    """The board. ``running``: what U-Boot told the last kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk, self.config = folder, folder / "disk", folder / "fw_env.config"
        places = folder / "first", folder / "second"
        UBoot(places, COPY, folder / "unused").format({"bootcmd": "run fl_boot"})
        copies = places[0].read_bytes() + places[1].read_bytes()
        data, self.starts = gpt([copies, bytes(SLOT_BYTES), bytes(SLOT_BYTES)])
        self.disk.write_bytes(data)
        lines = [f"{self.disk} {self.starts[0] + at:#x} {COPY:#x}\n" for at in (0, COPY)]
        self.config.write_text("".join(lines))
        self.running = "a"
        self.write("a", IMAGES["old"])
        self.boot.provision(factory(entry("old")))

    @property
    def boot(self) -> UBootEnvironment:
        return UBootEnvironment(lambda: self.running, lambda: None, self.config)

    def write(self, slot: str, image: bytes, at: int = 0) -> None:
        with self.disk.open("r+b") as file:
            file.seek(self.starts["_ab".index(slot)] + at)
            file.write(image)

    def install(self, name: str, attempts: int) -> None:
        self.write("b", IMAGES[name])
        self.boot.arm("b", entry(name), attempts)

    def record(self) -> BootRecord:
        return self.boot.record()

    def power_on(self) -> str:
        """The slot on the command line of the kernel that came up; nothing if none did."""
        text = self.folder / "environment"
        held = subprocess.run(
            ["fw_printenv", "-c", str(self.config)], check=True, capture_output=True, text=True
        ).stdout
        text.write_text(held + "".join(f"{k}={v}\n" for k, v in self.script().items()))
        imported = f"env import -t {ADDRESS:x} {text.stat().st_size:x}"
        drive = ["-drive", f"if=none,id=disk,format=raw,file={self.disk}"]
        drive += ["-device", "virtio-blk-device,drive=disk"]
        said = talk(text, [imported, "run fl_boot; poweroff"], *drive)
        _, _, printed = said.partition("Starting kernel")
        found = re.findall(r"console=ttyS0 firmledger\.slot=([ab])\0", printed)
        assert len(found) <= 1 and bool(found) != ("no image may boot" in said), said
        self.running = found[0] if found else self.running
        return "".join(found)

    def script(self) -> dict[str, str]:
        """uboot.env, and what is adapted to this board."""
        lines = (ROOT / "docs/boot/uboot.env").read_text().splitlines()
        script = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        first = self.starts[0] // SECTOR
        data = self.disk.read_bytes()[self.starts[0] :][: 2 * COPY]
        newer = self._newer(data)
        place, flag = first + (1 - newer) * COPY // SECTOR, (data[newer * COPY + 4] + 1) % 256
        body, size, crc = f"{BUFFER + 5:x}", f"{COPY - 5:x}", BUFFER + COPY
        save = [
            f"mw.b {BUFFER:x} 0 {COPY:x}; env export -b -s {size} {body}",
            f"crc32 {body} {size} {crc:x}",
        ]
        for at in range(4):  # crc32 stores it the other way round
            save += [
                f"setexpr.b test_byte *{crc + 3 - at:x}",
                f"mw.b {BUFFER + at:x} ${{test_byte}}",
            ]
        save += [
            f"mw.b {BUFFER + 4:x} {flag:x}",
            f"virtio write {BUFFER:x} {place:x} {COPY // SECTOR:x}",
        ]
        return script | {
            "fl_medium": "virtio",
            "fl_probe": "virtio scan; virtio dev ${fl_number}",
            "fl_hash": "iminfo ${loadaddr}",
            "fl_go": "bootm ${loadaddr} - ${fdtcontroladdr}",
            "fl_save": " && ".join(save),
            "loadaddr": "85000000",
            "bootargs_base": "console=ttyS0",
        }

    def _newer(self, data: bytes) -> int:
        places = self.folder / "first", self.folder / "second"
        for path, at in zip(places, (0, COPY), strict=True):
            path.write_bytes(data[at : at + COPY])
        return UBoot(places, COPY, self.folder / "unused").load()[0]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_trial_is_booted_as_often_as_allowed_and_then_never_again(machine: Machine) -> None:
    machine.install("new", 3)
    seen = [(machine.power_on(), machine.record().attempts) for _ in range(5)]
    assert seen == [("b", 2), ("b", 1), ("b", 0), ("a", 0), ("a", 0)]
    assert machine.record().b.standing is Standing.BAD


def test_a_confirmed_slot_never_counts_down(machine: Machine) -> None:
    machine.install("new", 2)
    assert machine.power_on() == "b"
    machine.boot.settle(True)
    before, disk = machine.record(), machine.disk.read_bytes()
    assert [machine.power_on() for _ in range(3)] == ["b"] * 3
    assert machine.record() == before and machine.disk.read_bytes() == disk, "nothing was written"


@pytest.mark.parametrize("at", [0, 100, len(IMAGES["new"]) - 1])
def test_an_image_with_a_changed_bit_is_not_booted(machine: Machine, at: int) -> None:
    """First byte, middle, last byte: the trial is over, and the former image boots."""
    machine.install("new", 3)
    machine.write("b", bytes([IMAGES["new"][at] ^ 1]), at)
    assert machine.power_on() == "a"
    assert machine.record().b.standing is Standing.BAD


def test_a_damaged_primary_gives_way_to_the_other_confirmed_image(machine: Machine) -> None:
    machine.install("new", 3)
    assert machine.power_on() == "b"
    machine.boot.settle(True)
    machine.write("b", b"\0")
    assert machine.power_on() == "a"
    assert machine.record().primary == "a"


Damage = Callable[[Machine], None]


def _both(machine: Machine) -> None:
    for slot in "ab":
        machine.write(slot, b"\0")


def _no_partitions(machine: Machine) -> None:
    data = bytearray(machine.disk.read_bytes())
    data[:SECTOR] = bytes(SECTOR)
    for header in re.finditer(rb"EFI PART", bytes(data)):
        data[header.start()] ^= 1
    machine.disk.write_bytes(data)


@pytest.mark.parametrize("damage", [_both, _no_partitions])
def test_nothing_boots_where_nothing_is_what_it_should_be(machine: Machine, damage: Damage) -> None:
    machine.install("new", 3)
    damage(machine)
    assert machine.power_on() == ""
