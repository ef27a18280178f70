"""Slots on block devices: loop devices, which any Linux has and root may make."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_client.adapters.block_slots import BlockSlots
from device_client.flash import digest_of
from protocol.digests import sha256
from protocol.errors import LocalFault

SIZE = 1 << 20
pytestmark = [
    pytest.mark.debian("mount", "/usr/sbin/losetup"),
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root"),
]


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[dict[str, Path]]:
    made: dict[str, Path] = {}
    try:
        for slot in "ab":
            backing = tmp_path / slot
            backing.write_bytes(bytes(SIZE))
            made[slot] = Path(losetup("--find", "--show", str(backing)))
        yield made
    finally:
        for device in made.values():
            losetup("--detach", str(device))


@pytest.fixture
def slots(devices: dict[str, Path]) -> Iterator[BlockSlots]:
    slots = BlockSlots(devices)
    yield slots
    slots.close()


def losetup(*arguments: str) -> str:
    command = ["/usr/sbin/losetup", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_an_image_is_written_and_read_back_from_the_medium(
    slots: BlockSlots, tmp_path: Path
) -> None:
    image = hashlib.shake_256(b"image").digest(SIZE)
    slots.reserve("b", SIZE)
    for offset in range(0, SIZE, 100_000):
        slots.write("b", offset, image[offset : offset + 100_000])
    slots.sync("b")
    assert digest_of(slots, "b", SIZE) == hashlib.sha256(image).digest()
    assert (tmp_path / "b").read_bytes() == image, "it is on the medium, not in a cache"
    assert (tmp_path / "a").read_bytes() == bytes(SIZE), "the other slot is untouched"


def test_reading_back_asks_the_medium(slots: BlockSlots, tmp_path: Path) -> None:
    """What changes underneath, as a failing medium does, is seen after `sync`."""
    slots.write("b", 0, b"x" * 8192)
    slots.sync("b")
    seen = bytearray(8192)
    slots.read("b", 0, memoryview(seen))
    with (tmp_path / "b").open("r+b") as file:
        file.write(b"y")
        os.fsync(file.fileno())
    slots.sync("b")
    slots.read("b", 0, memoryview(seen))
    assert seen == b"y" + b"x" * 8191


def test_a_slot_that_is_only_read_is_cooled(slots: BlockSlots, tmp_path: Path) -> None:
    """As `sync` does for one being written, but without the right to write it."""
    seen = bytearray(8192)
    slots.read("a", 0, memoryview(seen))
    with (tmp_path / "a").open("r+b") as file:
        file.write(b"y")
        os.fsync(file.fileno())
    slots.read("a", 0, memoryview(seen))
    assert seen == bytes(8192), "this is what the cache remembers"
    slots.cool("a")
    slots.read("a", 0, memoryview(seen))
    assert seen == b"y" + bytes(8191)


def test_an_image_that_does_not_fit_is_refused_before_its_first_byte(slots: BlockSlots) -> None:
    slots.reserve("b", SIZE)
    with pytest.raises(LocalFault) as caught:
        slots.reserve("b", SIZE + 1)
    assert caught.value.reason == "slot-too-small"
    with pytest.raises(LocalFault) as caught:
        slots.write("b", SIZE - 3, b"1234")
    assert caught.value.reason == "disk-full"
    assert digest_of(slots, "b", SIZE) == hashlib.sha256(bytes(SIZE)).digest()


def test_a_slot_being_written_is_this_process_s_alone(
    slots: BlockSlots, devices: dict[str, Path]
) -> None:
    slots.reserve("b", 1)
    second = BlockSlots(devices)
    with pytest.raises(LocalFault) as caught:
        second.reserve("b", 1)
    assert caught.value.reason == "in-use"
    second.reserve("a", 1)
    second.close()
    slots.close()
    second.reserve("b", 1)
    second.close()


@pytest.mark.debian("e2fsprogs", "/usr/sbin/mkfs.ext4")
def test_a_mounted_device_is_refused(devices: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "mounted"
    target.mkdir()
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", str(devices["b"])], check=True)
    subprocess.run(["/usr/bin/mount", str(devices["b"]), str(target)], check=True)
    slots = BlockSlots(devices)
    try:
        with pytest.raises(LocalFault) as caught:
            slots.reserve("b", 1)
        assert caught.value.reason == "in-use"
        assert slots.capacity("b") == SIZE, "the running slot may be mounted: it is only read"
        slots.cool("b")
        assert digest_of(slots, "b", SIZE) == sha256((tmp_path / "b").read_bytes())
    finally:
        slots.close()
        subprocess.run(["/usr/bin/umount", str(target)], check=True)


def test_a_medium_that_fails_is_said(devices: dict[str, Path], tmp_path: Path) -> None:
    """Its backing file shrinks: reads beyond the end fail, as a dying medium's do."""
    os.truncate(tmp_path / "b", 4096)
    slots = BlockSlots(devices)
    with pytest.raises(LocalFault) as caught:
        slots.read("b", 8192, memoryview(bytearray(4096)))
    assert caught.value.reason == "medium-failed"
    slots.close()


def test_two_names_of_one_device_are_refused(devices: dict[str, Path], tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(devices["a"])
    with pytest.raises(LocalFault) as caught:
        BlockSlots({"a": devices["a"], "b": alias})
    assert caught.value.reason == "slots-alike"


def test_no_device_is_said(tmp_path: Path) -> None:
    slots = BlockSlots({"a": tmp_path / "none", "b": tmp_path / "nothing"})
    with pytest.raises(LocalFault) as caught:
        slots.reserve("a", 1)
    assert caught.value.reason == "missing-file"
