"""The machine's side: directory, health command, what may stand in the way, the daemon."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from device_client.adapters.directory import Directory, fault, read_bounded, write_secret
from device_client.adapters.file_slots import FileSlots
from device_client.adapters.identity import FileIdentity, create_device_key
from device_client.adapters.journal import FileJournal
from device_client.adapters.stick import StickSource
from device_client.adapters.system import CommandHealth, ConfiguredSite, SystemClock
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.core.slots import Entry, factory
from device_client.core.types import Verdict
from device_client.ports import Question
from protocol.digests import sha256
from protocol.errors import FirmledgerError, LocalFault, Malformed
from protocol.ids import DeviceId, Digest, Version
from tests.device_client.registry import PRODUCT, make
from tests.world.flash import Flash

QUESTION = Question(PRODUCT, DeviceId(bytes(32)), Version(0), 0, 1)

# -- directory -------------------------------------------------------------------------------------


def test_regions_are_files_of_their_owner_alone(tmp_path: Path) -> None:
    disk = Directory(tmp_path)
    disk.reserve("slots/a.img", 5000)
    disk.write("slots/a.img", 4990, b"0123456789")
    disk.sync("slots/a.img")
    buffer = bytearray(20)
    assert disk.read("slots/a.img", 4985, memoryview(buffer)) == 15
    assert bytes(buffer[:15]) == bytes(5) + b"0123456789"
    assert disk.size("slots/a.img") == 5000 and disk.size("nothing") == 0
    assert stat.S_IMODE((tmp_path / "slots/a.img").stat().st_mode) == 0o600
    disk.close()


def test_reserving_keeps_what_is_there(tmp_path: Path) -> None:
    disk = Directory(tmp_path)
    disk.reserve("x", 10)
    disk.write("x", 0, b"abc")
    disk.reserve("x", 5)
    disk.reserve("x", 100)
    assert (tmp_path / "x").read_bytes() == b"abc" + bytes(97)
    disk.close()


def test_a_locked_region_is_nobody_elses(tmp_path: Path) -> None:
    first, second = Directory(tmp_path), Directory(tmp_path)
    first.reserve("lock", 1)
    first.lock("lock")
    with pytest.raises(LocalFault) as caught:
        second.lock("lock")
    assert caught.value.reason == "in-use"
    first.close()
    second.lock("lock")
    second.close()


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "disk-full"), (errno.EROFS, "read-only"), (errno.EACCES, "no-permission"),
     (errno.EIO, "medium-failed"), (errno.ENXIO, "local-io")],
)  # fmt: skip
def test_errors_of_the_system_are_ours(number: int, reason: str) -> None:
    assert fault("writing", OSError(number, "x")).reason == reason


def test_more_than_there_is_room_for_is_refused_before_a_block_is_taken(tmp_path: Path) -> None:
    disk = Directory(tmp_path)
    disk.reserve("x", 10)
    with pytest.raises(LocalFault) as caught:
        disk.reserve("x", 2**60)
    assert caught.value.reason == "disk-full"
    assert (tmp_path / "x").stat().st_size == 10
    disk.close()


def test_a_reservation_that_fails_half_way_gives_back_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """posix_fallocate keeps the blocks that it got before the disk was full."""

    def half(descriptor: int, offset: int, size: int) -> None:
        os.ftruncate(descriptor, size // 2)
        raise OSError(errno.ENOSPC, "x")

    monkeypatch.setattr(os, "posix_fallocate", half)
    disk = Directory(tmp_path)
    with pytest.raises(LocalFault):
        disk.reserve("x", 1000)
    assert (tmp_path / "x").stat().st_size == 0
    disk.close()


def test_an_image_larger_than_its_slot_is_refused() -> None:
    with pytest.raises(LocalFault) as caught:
        FileSlots(Flash(), capacity=100).reserve("a", 101)
    assert caught.value.reason == "slot-too-small"


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(LocalFault):
        read_bounded(tmp_path / "x", 10)
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_bounded(tmp_path / "x", 10) == b"0123456789"
    with pytest.raises(Malformed):
        read_bounded(tmp_path / "x", 9)


def test_secrets_are_whole_or_not_there(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"one")
    write_secret(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


# -- journal and boot record on a medium -----------------------------------------------------------


def test_an_erased_journal_is_new_and_a_damaged_one_is_an_error() -> None:
    disk = Flash()
    assert FileJournal(disk).read() is None
    FileJournal(disk).commit(b"one")
    assert FileJournal(disk).read() == b"one"
    FileJournal(disk).commit(b"two")
    assert FileJournal(disk).read() == b"two"
    whole = disk.durable["journal.bin"]
    disk.durable["journal.bin"] = bytes(len(whole))
    assert FileJournal(disk).read() is None
    disk.durable["journal.bin"] = b"\xff" * len(whole)
    with pytest.raises(LocalFault) as caught:
        FileJournal(disk).read()
    assert caught.value.reason == "journal-damaged"
    with pytest.raises(LocalFault):
        FileJournal(disk).commit(b"three")


def test_commits_take_turns_between_the_copies() -> None:
    disk, before = Flash(), None
    journal = FileJournal(disk)
    journal.commit(b"first")
    for number in range(6):
        before = disk.durable["journal.bin"]
        journal.commit(b"%d" % number)
        after = disk.durable["journal.bin"]
        half = len(after) // 2
        changed = [before[:half] != after[:half], before[half:] != after[half:]]
        assert sorted(changed) == [False, True]


def test_a_boot_record_that_is_lost_is_an_error() -> None:
    disk = Flash()
    slots = FileSlots(disk)
    with pytest.raises(LocalFault):
        VirtualBoot(disk, slots).record()
    slots.reserve("a", 3)
    slots.write("a", 0, b"abc")
    slots.sync("a")
    VirtualBoot(disk, slots).provision(factory(Entry(digest=sha256(b"abc"), size=3)))
    disk.durable["boot.env"] = b"\xff" * len(disk.durable["boot.env"])
    with pytest.raises(LocalFault) as caught:
        VirtualBoot(disk, slots).record()
    assert caught.value.reason == "boot-record-damaged"


def test_what_is_read_is_durable_before_it_is_believed() -> None:
    """A process died between write and sync; the next one reads what only a cache holds."""
    disk = Flash()
    journal = FileJournal(disk)
    journal.commit(b"one")
    disk.deaf = frozenset({"journal.bin"})
    journal.commit(b"two")
    disk.deaf = frozenset()
    assert FileJournal(disk).read() == b"two"
    assert FileJournal(Flash(durable=disk.durable)).read() == b"two"


# -- keys ------------------------------------------------------------------------------------------


def test_a_device_key_is_made_once(tmp_path: Path) -> None:
    create_device_key(tmp_path / "key")
    first = FileIdentity(tmp_path / "key", tmp_path / "class").device_id
    create_device_key(tmp_path / "key")
    assert FileIdentity(tmp_path / "key", tmp_path / "class").device_id == first


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": 1}', b"\xff", b"[" * 900,
                                  b'{"format": "firmledger-device-key-1", "private_key": "00"}',
                                  b'{"format": "firmledger-device-key-1", "private_key": 5}',
                                  b'{"format": "firmledger-device-class-keys-1", "keys": 5}',
                                  b'{"format": "firmledger-device-class-keys-1", "keys": {"x": 1}}',
                                  b" " * 100_000])  # fmt: skip
def test_damaged_keys_are_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "key").write_bytes(data)
    identity = FileIdentity(tmp_path / "key", tmp_path / "key")
    with pytest.raises(LocalFault):
        _ = identity.device_id
    with pytest.raises(FirmledgerError):
        identity.content_key(make(b"x", "1.0.0").static.envelope)


# -- health and surroundings -----------------------------------------------------------------------


def health(tmp_path: Path, *command: str, deadline: float = 20) -> Verdict:
    (tmp_path / "a.img").write_bytes(b"image")
    return CommandHealth(command, deadline, {"a": tmp_path / "a.img"}, tmp_path).examine("a")


def test_health_commands(tmp_path: Path) -> None:
    assert health(tmp_path) == Verdict(True)
    assert health(tmp_path, "true") == Verdict(True)
    assert health(tmp_path, "false") == Verdict(False, "health-check")
    assert health(tmp_path, "/no/such/command") == Verdict(False, "health-check-missing")
    assert health(tmp_path, "sh", "-c", 'grep -q image "$FIRMLEDGER_SLOT"') == Verdict(True)
    assert health(tmp_path, "sleep", "60", deadline=0.1) == Verdict(False, "health-check-deadline")


def test_what_a_health_check_started_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/pid; sleep 300"
    assert not health(tmp_path, "sh", "-c", script, deadline=1).healthy
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it lives on")


def test_surroundings_are_what_the_owner_named(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    slots.mkdir()
    names = ("busy", "metered", "battery")
    busy, metered, battery = (tmp_path / name for name in names)
    site = ConfiguredSite(slots, busy_file=busy, metered_file=metered, battery_file=battery)
    seen = site.observe()
    assert (seen.busy, seen.metered, seen.battery) == (False, False, 0)
    assert seen.free is not None and seen.free > 0
    busy.touch()
    metered.touch()
    battery.write_text("73\n")
    seen = site.observe()
    assert (seen.busy, seen.metered, seen.battery) == (True, True, 73)
    battery.write_text("full")
    assert site.observe().battery == 0
    assert ConfiguredSite(slots).observe().battery is None
    assert ConfiguredSite(slots, busy_command=["true"]).observe().busy
    assert not ConfiguredSite(slots, busy_command=["false"]).observe().busy


@pytest.mark.parametrize("name", ["busy_file", "metered_file"])
def test_a_path_that_cannot_be_looked_at_is_said_by_its_name(tmp_path: Path, name: str) -> None:
    named: dict[str, Any] = {name: tmp_path / ("x" * 300)}
    with pytest.raises(LocalFault) as caught:
        ConfiguredSite(tmp_path, **named).observe()
    assert "x" * 300 in caught.value.what
    named = {name: tmp_path / "x"}
    assert not ConfiguredSite(tmp_path, **named).observe().busy


def test_slots_that_are_not_there_are_said_by_their_name(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        ConfiguredSite(tmp_path / "slots").observe()
    assert caught.value.reason == "missing-file" and "slots" in caught.value.what


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(LocalFault) as caught:
            read_bounded(path, 100)
        assert caught.value.reason == "not-a-file"
        with pytest.raises(LocalFault):
            StickSource(path).poll(QUESTION, 100)
        with pytest.raises(LocalFault):
            next(StickSource(path).payload(Digest(bytes(32)), 0, 5))
    assert ConfiguredSite(tmp_path, battery_file=tmp_path / "pipe").observe().battery == 0


def test_a_read_only_file_system_is_read_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Directory(tmp_path)
    made.reserve("x", 10)
    made.write("x", 0, b"0123456789")
    made.close()
    honest = os.open

    def read_only(path: Path, flags: int, *mode: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return honest(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    disk, buffer = Directory(tmp_path), bytearray(10)
    disk.sync("x")
    assert disk.read("x", 0, memoryview(buffer)) == 10 and buffer == b"0123456789"
    for act in (
        lambda: disk.write("x", 0, b"y"),
        lambda: disk.reserve("x", 20),
        lambda: disk.reserve("new", 1),
    ):
        with pytest.raises(LocalFault):
            act()
    with pytest.raises(LocalFault) as caught:
        disk.write("x", 0, b"y")
    assert caught.value.reason == "read-only"
    disk.close()
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_secret_is_durable_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a cut may leave a device key of no bytes."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        assert done[-1] != str(tmp_path / "key.new") or os.fstat(descriptor).st_size == 6
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_secret(tmp_path / "key", b"secret")
    assert done == [str(tmp_path / "key.new"), "renamed", str(tmp_path)]


def test_the_systems_clock() -> None:
    before = int(time.time())
    now = SystemClock().now()
    assert now is not None and before <= now <= int(time.time())
    SystemClock().sleep(0)
