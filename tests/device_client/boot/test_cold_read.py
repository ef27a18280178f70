"""What is checked before the switch is what the medium holds, and nobody else writes meanwhile.

strace shows what a whole installation asks of the kernel: after the last byte of an image was
written, its slot is synced and its cache dropped before the first byte is read back; and a device
is opened for writing with O_EXCL only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client.adapters.directory import Directory
from device_client.adapters.file_slots import FileSlots
from tests.device_client.boot.machines import NEW, Bench, onto, set_up
from tests.device_client.boot.test_killed import loop_devices
from tests.world.killing import trace

__all__ = ["loop_devices"]
pytestmark = [
    pytest.mark.debian("strace", "/usr/bin/strace"),
    pytest.mark.debian("libubootenv-tool", "/usr/bin/fw_setenv"),
    pytest.mark.debian("mount", "/usr/sbin/losetup"),
]
CALLS = "openat,pwrite64,pwritev,pwritev2,preadv,preadv2,pread64,fsync,fadvise64,ioctl"


def story_of(calls: list[str], path: str) -> list[str]:
    """Names of the calls on that file, in order; ioctl and fadvise64 by what they ask for."""
    names = []
    for call in calls:
        name, _, rest = call.partition("(")
        if f"<{path}" not in rest and f'"{path}"' not in rest:
            continue
        for word in ("BLKFLSBUF", "POSIX_FADV_DONTNEED"):
            name = word if word in rest else name
        names.append(name)
    return names


def is_cold(names: list[str], *drops: str) -> bool:
    """Whether the first read after the last write comes after a sync and then every drop."""
    last = max(at for at, name in enumerate(names) if name.startswith("pwrite"))
    read = next(at for at, name in enumerate(names) if at > last and name.startswith("pread"))
    between = names[last + 1 : read]
    wanted = ["fsync", *drops]
    return [name for name in between if name in wanted][: len(wanted)] == wanted


def test_a_file_is_read_back_cold(tmp_path: Path) -> None:
    bench = set_up(tmp_path / "bench", "virtual")
    names = story_of(trace(bench.install, CALLS), str(bench.device / "slots/b.img"))
    assert names.count("pwrite64") >= 1
    assert is_cold(names, "POSIX_FADV_DONTNEED")
    assert bench.image("b", len(NEW)) == NEW


def test_a_device_is_read_back_cold_and_opened_exclusively(
    tmp_path: Path, loop_devices: Callable[[Path], Path]
) -> None:
    bench = set_up(tmp_path / "bench", "uboot")
    onto(bench, ["slot-a", "slot-b"], loop_devices)
    calls = trace_until_down(bench)
    device = str((bench.folder / "slot-b").resolve())
    assert is_cold(story_of(calls, device), "BLKFLSBUF", "POSIX_FADV_DONTNEED")
    slots = [call for call in calls if call.startswith("openat") and "/slot-" in call]
    writable = [call for call in slots if "O_RDONLY" not in call]
    assert writable and all("O_EXCL" in call for call in writable)
    assert not any("slot-a" in call for call in writable), "the running slot is never opened so"


def trace_until_down(bench: Bench) -> list[str]:
    """The calls of a run that ends with the machine going down."""
    note = bench.folder / "reboot-instead"
    down = bench.folder / "down.sh"
    down.write_text(f"#!/bin/sh\n: >{note}\nexit 1\n")  # the command fails; the client says so

    def install() -> int:
        assert bench.install() == 1
        return 0

    calls = trace(install, CALLS)
    assert note.exists()
    return calls


@pytest.mark.parametrize(
    ("names", "cold"),
    [
        (["pwrite64", "fsync", "DROP", "preadv"], True),
        (["pwrite64", "preadv", "pwrite64", "fsync", "DROP", "preadv"], True),
        (["pwrite64", "DROP", "fsync", "preadv"], False),
        (["pwrite64", "fsync", "preadv", "DROP"], False),
        (["pwrite64", "DROP", "preadv"], False),
        (["fsync", "DROP", "pwrite64", "preadv"], False),
    ],
)
def test_the_test_can_tell(names: list[str], cold: bool) -> None:
    assert is_cold(names, "DROP") == cold


def test_no_page_of_a_synced_slot_stays_in_the_cache(tmp_path: Path) -> None:
    """Where files lie on a disk; on a tmpfs the cache is the medium."""
    disk = Directory(tmp_path)
    slots = FileSlots(disk)
    slots.reserve("b", 1 << 20)
    slots.write("b", 0, os.urandom(1 << 20))
    before = resident(tmp_path / "slots/b.img")
    slots.sync("b")
    after = resident(tmp_path / "slots/b.img")
    slots.read("b", 0, memoryview(bytearray(1 << 20)))
    again = resident(tmp_path / "slots/b.img")
    disk.close()
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert before == again == 256
    assert after == (256 if kind == "tmpfs" else 0)


def resident(path: Path) -> int:
    """How many pages of the file are in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as held:
        pages = -(-len(held) // mmap.PAGESIZE)
        answer = (ctypes.c_ubyte * pages)()
        window = ctypes.c_char.from_buffer(held)
        try:
            address = ctypes.c_void_p(ctypes.addressof(window))
            assert libc.mincore(address, ctypes.c_size_t(len(held)), answer) == 0
        finally:
            del window
        return sum(byte & 1 for byte in answer)
