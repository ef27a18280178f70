"""The snippet of docs/boot/grub.cfg, run by GRUB itself on a PC in QEMU.

GRUB is started from a floppy, its environment block lies in an ext2 file system on a disk with a
GPT, and ``linux`` loads a kernel from each slot's partition: a few bytes of code that print their
command line on the serial port. So what GRUB chose is heard from what it booted, and what it wrote
is read from the disk by the client's backend.

In the long test GRUB takes all states in one run, each with a block of its own; two lines of the
snippet are adapted as docs/boot/grub.md says, and its last one says what would boot instead of
booting it.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from device_client.adapters.grub_boot import (
    BLOCK_BYTES,
    MAX_TRIES,
    SIGNATURE,
    Block,
    GrubEnvironment,
)
from device_client.core.slots import BootRecord, Standing, factory
from tests.conftest import ROOT
from tests.device_client.boot.boards import entry
from tests.device_client.boot.decisions import State, rules, states
from tests.world.disks import ext2, gpt

SNIPPET = (ROOT / "docs/boot/grub.cfg").read_text()
CORE = Path("/usr/lib/grub/i386-pc")
QEMU = ("qemu-system-x86_64", "-M", "pc", "-m", "64", "-nodefaults", "-display", "none")
PATIENCE = 120
GOOD_A, GOOD_B, NO_A, NO_B = 2, 3, 4, 5
MODULES = "biosdisk part_gpt ext2 normal configfile loadenv test linux serial terminal echo reboot"
FLOPPY_BYTES = 1440 * 1024
KERNEL_CODE = bytes.fromhex(
    "8bb628020000"  # mov esi, [esi + 0x228]: the command line
    "66baf803"  # mov dx, 0x3f8: the serial port
    "ac84c07403eeebf8"  # until its end: lodsb; test al, al; jz +3; out dx, al; again
    "b00aee66baf400ee"  # a line's end; out 0xf4: QEMU ends
    "f4ebfd"  # or halt
)

pytestmark = [
    pytest.mark.debian("grub-pc-bin", str(CORE / "boot.img")),
    pytest.mark.debian("grub-common", "/usr/bin/grub-mkimage"),
    pytest.mark.debian("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    pytest.mark.debian("e2fsprogs", "/usr/sbin/mke2fs"),
]


def kernel() -> bytes:
    """A kernel that says with which command line it was booted, and ends."""
    head = bytearray(1024)
    head[0x1F1] = 1  # one sector of setup follows the first
    struct.pack_into("<I", head, 0x1F4, -(-len(KERNEL_CODE) // 16))
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x62HdrS"
    struct.pack_into("<H", head, 0x206, 0x0203)
    head[0x211] = 1  # loaded high
    struct.pack_into("<I", head, 0x214, 0x100000)
    struct.pack_into("<I", head, 0x22C, 0x37FFFFFF)
    return bytes(head) + KERNEL_CODE.ljust(4096, b"\0")


class Pc:
    """GRUB on a floppy; a disk: (1) what GRUB reads, (2, 3) slots, (4, 5) slots that fail."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        """``files``: what lies in the first partition; GRUB reads its ``grub.cfg``."""
        self.floppy, self.disk = folder / "floppy", folder / "disk"
        early = folder / "early.cfg"
        early.write_text(
            "serial --unit=0 --speed=115200\nterminal_output serial\nterminal_input serial\n"
            "set root=hd0,gpt1\nsource ($root)/grub.cfg\nreboot\n"
        )
        core = ["-O", "i386-pc", "-c", str(early), "-p", "(hd0,gpt1)/", "-o", str(self.floppy)]
        subprocess.run(["grub-mkimage", *core, *MODULES.split()], check=True)
        data = (CORE / "boot.img").read_bytes() + self.floppy.read_bytes()
        self.floppy.write_bytes(data.ljust(FLOPPY_BYTES, b"\0"))
        for name, data in files.items():
            path = folder / "first" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        damaged = bytearray(kernel())
        damaged[0x202] ^= 1
        slots = []
        for number, image in enumerate((kernel(), kernel(), bytes(damaged), b"")):
            slot = folder / f"slot{number}"
            slot.mkdir()
            (slot / "vmlinuz").write_bytes(image)
            slots.append(ext2(slot, 128))
        disk, _ = gpt([ext2(folder / "first", 8192), *slots])
        self.disk.write_bytes(disk)

    def power_on(self) -> str:
        """What it says on its serial line until it ends."""
        drives = ["-drive", f"if=floppy,format=raw,file={self.floppy}"]
        drives += ["-drive", f"if=ide,format=raw,file={self.disk}", "-boot", "a"]
        exits = ["-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        done = subprocess.run(
            [*QEMU, *drives, *exits],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        said = done.stdout.decode("utf-8", "replace").replace("\r", "")
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said)

    def blocks(self) -> list[bytes]:
        """Every environment block on the disk."""
        data = self.disk.read_bytes()
        places = [found.start() for found in re.finditer(re.escape(SIGNATURE), data)]
        return [data[at : at + BLOCK_BYTES] for at in places]

    def replace_block(self, block: bytes) -> None:
        """What the client writes: the one block, in its place."""
        data = self.disk.read_bytes()
        at = data.index(SIGNATURE)
        assert data.count(SIGNATURE) == 1
        self.disk.write_bytes(data[:at] + block + data[at + BLOCK_BYTES :])


# -- every state -----------------------------------------------------------------------------------

COUNTS = (*range(MAX_TRIES + 1),)


def case(number: int, state: State, snippet: str) -> str:
    """The snippet for one state, with names of its own; it says what it would boot."""
    _, ok_a, ok_b = state
    for name, value in (
        ("fl_env", f"($root)/{number}/grubenv"),
        ("fl_part_a", str(GOOD_A if ok_a else NO_A)),
        ("fl_part_b", str(GOOD_B if ok_b else NO_B)),
    ):
        snippet, count = re.subn(rf"(?m)^set {name}=.*$", f"set {name}={value}", snippet)
        assert count == 1, "the three names that docs/boot/grub.md lets one set"
    last = 'if [ -n "$fl_slot" ]; then boot; fi'
    assert snippet.count(last) == 1
    return snippet.replace(last, f'echo "RESULT {number} $fl_slot"')


def decide_all(folder: Path, cases: Sequence[State], snippet: str) -> list[tuple[str, BootRecord]]:
    """(slot, record left behind) of every case, by GRUB."""
    files = {}
    for number, state in enumerate(cases):
        rest = f"case={number}\n".encode()
        files[f"{number}/grubenv"] = Block.of(state[0], rest).encode()
        files[f"{number}/case.cfg"] = case(number, state, snippet).encode()
    lines = [f"source ($root)/{number}/case.cfg\n" for number in range(len(cases))]
    files["grub.cfg"] = "".join(lines).encode()
    pc = Pc(folder, files)
    said = dict(re.findall(r"^RESULT (\d+) ([ab]?)$", pc.power_on(), re.MULTILINE))
    left = {}
    for data in pc.blocks():
        block = Block.decode(data)
        number = int(block.rest.removeprefix(b"case="))
        left[number] = block.record(cases[number][0].running)
    assert len(said) == len(left) == len(cases)
    return [(said[str(number)], left[number]) for number in range(len(cases))]


def by_the_rules(state: State, decided: tuple[str, BootRecord]) -> bool:
    """Whether GRUB chose what `core.slots` chooses, and left behind the record that it makes."""
    slot, left = rules(state)
    return decided == (slot, replace(left, running=state[0].running))


def test_it_decides_by_the_rules_in_every_state(tmp_path: Path) -> None:
    cases = states(COUNTS)
    assert len(cases) == 2 * (3 + len(COUNTS)) * 4
    results = decide_all(tmp_path, cases, SNIPPET)
    wrong = [(c, r) for c, r in zip(cases, results, strict=True) if not by_the_rules(c, r)]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ('"$fl_attempts" = 5 ]; then set fl_left=4', '"$fl_attempts" = 5 ]; then set fl_left=5'),
        ('if [ "$fl_mark" = g ]; then set fl_order', 'if [ "$fl_mark" = x ]; then set fl_order'),
        ("if save_env --file $fl_env fl_attempts; then", "if true; then"),
        ("    set fl_primary=$fl_slot\n", ""),
    ],
)
def test_a_changed_snippet_is_found_out(tmp_path: Path, line: str, changed: str) -> None:
    assert SNIPPET.count(line) == 1
    cases = states((0, 5))
    results = decide_all(tmp_path, cases, SNIPPET.replace(line, changed))
    assert not all(map(by_the_rules, cases, results))


# -- booting, word for word ------------------------------------------------------------------------


class Life:
    """The snippet as it stands in the docs, and the client between the boots."""

    def __init__(self, folder: Path, part_b: int = GOOD_B) -> None:
        snippet = SNIPPET.replace("set fl_part_b=3", f"set fl_part_b={part_b}")
        empty = SIGNATURE.ljust(BLOCK_BYTES, b"#")
        self.pc = Pc(folder, {"grub.cfg": snippet.encode(), "boot/grub/grubenv": empty})
        self.block, self.running = folder / "grubenv", "a"
        self.client(lambda backend: backend.provision(factory(entry(0))))

    def client(self, act: object) -> BootRecord:
        """Let the backend work on the block of the disk; the record afterwards."""
        self.block.write_bytes(self.pc.blocks()[0])
        backend = GrubEnvironment(lambda: self.running, lambda: None, self.block)
        act(backend)  # type: ignore[operator]
        self.pc.replace_block(self.block.read_bytes())
        return backend.record()

    def record(self) -> BootRecord:
        return self.client(lambda backend: None)

    def boot(self) -> str:
        """The slot on the command line of the kernel that came up."""
        (slot,) = re.findall(r"^BOOT_IMAGE=.* firmledger\.slot=([ab])$", self.pc.power_on(), re.M)
        self.running = slot
        return self.running


def test_a_trial_is_booted_as_often_as_allowed_and_then_never_again(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.client(lambda backend: backend.arm("b", entry(1), 3))
    seen = [(life.boot(), life.record().attempts) for _ in range(5)]
    assert seen == [("b", 2), ("b", 1), ("b", 0), ("a", 0), ("a", 0)]
    assert life.record().b.standing is Standing.BAD


def test_a_confirmed_slot_never_counts_down(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.client(lambda backend: backend.arm("b", entry(1), 2))
    assert life.boot() == "b"
    before = life.client(lambda backend: backend.settle(True))
    block = life.pc.blocks()
    assert [life.boot() for _ in range(4)] == ["b"] * 4
    assert life.record() == before and life.pc.blocks() == block, "GRUB wrote nothing"


@pytest.mark.parametrize("damage", [NO_A, NO_B])
def test_a_kernel_that_does_not_load_is_never_booted(tmp_path: Path, damage: int) -> None:
    """Damaged, or empty: the trial is over at once, and the former image boots."""
    life = Life(tmp_path, part_b=damage)
    life.client(lambda backend: backend.arm("b", entry(1), 3))
    assert life.boot() == "a"
    assert life.record().b.standing is Standing.BAD
