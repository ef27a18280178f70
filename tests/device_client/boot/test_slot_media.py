"""Two slots on one medium, under whatever names, are refused before anything is written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from device_client import doctor
from device_client.adapters.block_slots import BlockSlots
from device_client.adapters.boot_backends import Board, open_board
from device_client.adapters.directory import Directory
from device_client.adapters.slot_media import Extent, require_apart
from device_client.checks import OK, OPEN
from protocol.errors import LocalFault
from tests.device_client.boot.machines import Bench, set_up
from tests.device_client.boot.test_block_slots import losetup
from tests.world.disks import ext2

SIZE = 1 << 20
Loop = Callable[..., Path]


def alike(a: Path | int, b: Path | int) -> bool:
    """Whether the two are refused; in either order alike."""
    answers = []
    for pair in ({"a": a, "b": b}, {"a": b, "b": a}):
        try:
            require_apart(pair)
            answers.append(False)
        except LocalFault as error:
            assert error.reason == "slots-alike"
            answers.append(True)
    assert len(set(answers)) == 1
    return answers[0]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(SIZE))
    return tmp_path / "a", tmp_path / "b"


def test_two_files_of_one_disk_are_two(files: tuple[Path, Path]) -> None:
    assert not alike(*files)
    with files[0].open("rb") as one, files[1].open("rb") as two:
        assert not alike(one.fileno(), two.fileno())


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_links_to_one_file_are_one(
    files: tuple[Path, Path], link: Callable[[Path, Path], None]
) -> None:
    a, b = files
    b.unlink()
    link(a, b)
    assert alike(a, b)
    with a.open("rb") as one, b.open("rb") as two:
        assert alike(one.fileno(), two.fileno())


def test_what_is_not_there_is_left_to_whoever_opens_it(files: tuple[Path, Path]) -> None:
    files[1].unlink()
    assert not alike(*files)


@pytest.mark.parametrize(
    ("one", "two", "meet"),
    [
        ((0, 10, True), (10, 20, True), False),
        ((0, 11, True), (10, 20, True), True),
        ((0, 30, True), (10, 20, True), True),
        ((0, 30, False), (10, 20, True), True),
        ((0, 30, False), (0, 30, False), False),
        ((0, 10, False), (10, 20, True), False),
    ],
)
def test_where_extents_meet(
    one: tuple[int, int, bool], two: tuple[int, int, bool], meet: bool
) -> None:
    a, b = Extent(("device", 8, 0), *one), Extent(("device", 8, 0), *two)
    assert a.meets(b) == b.meets(a) == meet
    assert not a.meets(Extent(("device", 8, 1), *two))


# -- devices, which only root can make -------------------------------------------------------------

devices = [
    pytest.mark.debian("mount", "/usr/sbin/losetup"),
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root"),
]


def marked(test: Callable[..., None]) -> Callable[..., None]:
    for mark in devices:
        test = mark(test)
    return test


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Makes loop devices; they are gone afterwards."""
    with ExitStack() as stack:

        def made(backing: Path, *options: str) -> Path:
            device = losetup("--find", "--show", *options, str(backing))
            stack.callback(losetup, "--detach", device)
            return Path(device)

        yield made


@marked
def test_two_nodes_of_one_device_are_one(
    loop: Loop, files: tuple[Path, Path], tmp_path: Path
) -> None:
    device, node = loop(files[0]), tmp_path / "another-name"
    os.mknod(node, device.stat().st_mode, device.stat().st_rdev)
    assert alike(device, node)
    assert not alike(node, loop(files[1]))
    with pytest.raises(LocalFault, match="share nothing"):
        BlockSlots({"a": device, "b": node})


@marked
def test_loop_devices_over_one_file_are_one_where_they_overlap(
    loop: Loop, files: tuple[Path, Path]
) -> None:
    half = str(SIZE // 2)
    whole = loop(files[0])
    first = loop(files[0], "--sizelimit", half)
    second = loop(files[0], "--offset", half)
    early = loop(files[0], "--offset", str(SIZE // 2 - 4096))
    assert alike(whole, first) and alike(whole, second) and alike(first, early)
    assert alike(whole, files[0]) and alike(second, files[0])
    assert not alike(first, second)
    assert not alike(whole, files[1])


def partition(disk: Path, number: int, folder: Path) -> Path:
    """A node of that partition, made here: not every /dev gets one by itself."""
    facts = Path(f"/sys/class/block/{disk.name}p{number}/dev").read_text()
    major, _, minor = facts.strip().partition(":")
    node = folder / f"p{number}"
    os.mknod(node, disk.stat().st_mode, os.makedev(int(major), int(minor)))
    return node


@marked
def test_a_disk_and_its_own_partition_are_one(
    loop: Loop, files: tuple[Path, Path], tmp_path: Path
) -> None:
    disk = loop(files[0], "--partscan")
    for number, start in ((1, 64), (2, 512)):
        subprocess.run(["/usr/bin/addpart", disk, str(number), str(start), "448"], check=True)
    one, two = (partition(disk, number, tmp_path) for number in (1, 2))
    assert alike(disk, one) and alike(disk, two) and alike(one, files[0])
    assert not alike(one, two)
    overlapping = loop(files[0], "--offset", str(500 * 512), "--sizelimit", "8192")
    assert alike(overlapping, one) and not alike(overlapping, loop(files[1]))
    assert not alike(loop(files[0], "--sizelimit", str(64 * 512)), one)


@marked
@pytest.mark.debian("e2fsprogs", "/usr/sbin/mkfs.ext4")
def test_a_device_and_a_file_in_it_are_one(
    loop: Loop, files: tuple[Path, Path], tmp_path: Path
) -> None:
    device, target = loop(files[0]), tmp_path / "mounted"
    target.mkdir()
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", str(device)], check=True)
    subprocess.run(["/usr/bin/mount", str(device), str(target)], check=True)
    try:
        inside, another = target / "slot.img", target / "other.img"
        inside.write_bytes(bytes(4096))
        another.write_bytes(bytes(4096))
        assert alike(device, inside)
        assert not alike(inside, another) and not alike(inside, files[1])
    finally:
        subprocess.run(["/usr/bin/umount", str(target)], check=True)


@marked
def test_a_name_that_changes_its_device_meanwhile_is_not_written(
    loop: Loop, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """What counts is what was opened, not what the names meant when they were read."""
    running, spare = loop(files[0]), loop(files[1])
    name = tmp_path / "by-label"
    name.symlink_to(spare)
    slots = BlockSlots({"a": running, "b": name})
    name.unlink()
    name.symlink_to(running)
    try:
        with pytest.raises(LocalFault) as caught:
            slots.write("b", 0, b"overwritten")
        assert caught.value.reason == "slots-alike"
        assert files[0].read_bytes() == bytes(SIZE)
        name.unlink()
        name.symlink_to(spare)
    finally:
        slots.close()
    slots.write("b", 0, b"written")
    slots.close()
    assert files[1].read_bytes().startswith(b"written")


# -- a whole device --------------------------------------------------------------------------------


def opened(root: Path) -> None:
    disk = Directory(root)
    try:
        open_board(Board(), root, disk).closing.close()
    finally:
        disk.close()


def slot_check(bench: Bench) -> tuple[str, str]:
    (check,) = (c for c in doctor.examine(bench.device, 2**31) if c.name == "slot")
    return check.level, check.what


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_device_whose_slot_files_are_one_does_nothing(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    bench = set_up(tmp_path / "bench", "virtual")
    a, b = (bench.device / f"slots/{slot}.img" for slot in "ab")
    opened(bench.device)
    assert slot_check(bench)[0] != OPEN
    held = a.read_bytes()
    b.unlink(missing_ok=True)
    link(a, b)
    with pytest.raises(LocalFault) as caught:
        opened(bench.device)
    assert caught.value.reason == "slots-alike"
    level, what = slot_check(bench)
    assert level == OPEN and "the same device or file" in what
    assert bench.install() != 0
    assert a.read_bytes() == held


@marked
@pytest.mark.debian("grub-common", "/usr/bin/grub-editenv")
@pytest.mark.debian("e2fsprogs", "/usr/sbin/mke2fs")
def test_doctor_reads_the_slot_that_is_mounted_as_root(loop: Loop, tmp_path: Path) -> None:
    """A board's running slot is in use, always; and what rots in it is seen all the same."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("test vector\n")
    system = ext2(tmp_path / "etc", 256)
    bench, target = set_up(tmp_path / "bench", "grub", system), tmp_path / "mounted"
    backing = {bench.folder / f"slot-{slot}": tmp_path / slot for slot in "ab"}
    for name, kept in backing.items():
        name.rename(kept)
        name.symlink_to(loop(kept))
    target.mkdir()
    running = str(bench.folder / "slot-a")
    subprocess.run(["/usr/bin/mount", "-o", "ro", running, str(target)], check=True)
    try:
        assert (target / "hostname").read_text() == "test vector\n"
        assert slot_check(bench) == (OK, "slot a runs, and holds the image of the boot record")
        with (tmp_path / "a").open("r+b") as file:
            file.seek(len(system) - 1)
            file.write(bytes([system[-1] ^ 1]))
            os.fsync(file.fileno())
        level, what = slot_check(bench)
        assert level == OPEN and "does not hold the image" in what
    finally:
        subprocess.run(["/usr/bin/umount", str(target)], check=True)
