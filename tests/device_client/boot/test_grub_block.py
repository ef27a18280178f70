"""GRUB's block under power cuts: every mixture of old and new bytes boots the old or the new."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_client.adapters.grub_boot import BLOCK_BYTES, SECTOR, Block, GrubEnvironment
from device_client.core.slots import Standing, factory
from protocol.errors import LocalFault, Misuse
from tests.device_client.boot.boards import IMAGES, GrubBoard, entry
from tests.world.bootloader import Power, PowerCut

pytestmark = pytest.mark.debian("grub-common", "/usr/bin/grub-editenv")

LIFE = ("vacate arm boot keep", "vacate arm boot give-up", "vacate arm boot keep", "arm")
"""Everything the device writes, from both slots; at last over an image that was good until then."""


class Recorder(GrubEnvironment):
    """Notes the block before and after each of its writes."""

    written: list[tuple[bytes, bytes]]

    def _write(self, block: Block) -> None:
        before = self._path.read_bytes()
        super()._write(block)
        if self._path.read_bytes() != before:
            self.written.append((before, self._path.read_bytes()))


@pytest.fixture
def board(tmp_path: Path) -> GrubBoard:
    board = GrubBoard(tmp_path)
    board.start()
    return board


def lived(board: GrubBoard) -> list[tuple[bytes, bytes, str]]:
    """(before, after, slot that runs) of every write in a device's life."""
    found = []
    for number, word in enumerate(" ".join(LIFE).split()):
        plain = board.control()
        record = plain.record()
        recorder = Recorder(plain._running, plain._restart, plain._path)
        recorder.written = []
        spare = "b" if record.primary == "a" else "a"
        match word:
            case "vacate":
                recorder.vacate(spare)
            case "arm":
                board.write(spare, IMAGES[number % 6])
                recorder.arm(spare, entry(number % 6), 3)
            case "boot":
                board.power_on()
            case _:
                recorder.settle(word == "keep")
                if word == "give-up":
                    board.power_on()
        found += [(old, new, record.running) for old, new in recorder.written]
    return found


def torn(old: bytes, new: bytes) -> Iterator[bytes]:
    """Every cut of a write: from either end, at each byte; and each changed byte alone, or not."""
    for at in range(BLOCK_BYTES + 1):
        yield new[:at] + old[at:]
        yield old[:at] + new[at:]
    changed = [at for at in range(BLOCK_BYTES) if old[at] != new[at]]
    for at in changed:
        yield old[:at] + new[at : at + 1] + old[at + 1 :]
        yield new[:at] + old[at : at + 1] + new[at + 1 :]


def test_every_torn_write_reads_and_boots_as_old_or_new(board: GrubBoard) -> None:
    writes = lived(board)
    assert len(writes) == 16
    mixtures = 0
    for old, new, running in writes:
        (board.folder / "cmdline").write_text(f"firmledger.slot={running}")
        allowed = {Block.decode(block).record(running) for block in (old, new)}
        boots = {booted(board, block) for block in (old, new)}
        for block in set(torn(old, new)):
            mixtures += 1
            assert Block.decode(block).record(running) in allowed
            assert booted(board, block) in boots
    assert mixtures > 400


def booted(board: GrubBoard, block: bytes) -> str:
    """The slot that GRUB boots from this block."""
    path = board.folder / "grubenv"
    path.write_bytes(block)
    line = (board.folder / "cmdline").read_bytes()
    try:
        return board.power_on()
    finally:
        (board.folder / "cmdline").write_bytes(line)


def test_a_step_that_decides_changes_one_byte(board: GrubBoard) -> None:
    for old, new, running in lived(board):
        before, after = (Block.decode(block).record(running) for block in (old, new))
        if before != after:
            assert sum(x != y for x, y in zip(old, new, strict=True)) == 1


def test_the_mark_of_a_primary_that_steps_down_is_set_whatever_it_was(board: GrubBoard) -> None:
    """Until then it means nothing; from then on it says that the former image may boot."""
    board.control().vacate("b")
    board.write("b", IMAGES[1])
    board.control().arm("b", entry(1), 3)
    board.power_on()
    path = board.folder / "grubenv"
    for mark in "etx":
        armed = Block.decode(path.read_bytes())
        path.write_bytes(armed.marking("a", mark).encode())
        board.control().settle(True)
        record = board.control().record()
        assert (record.primary, record.a.standing) == ("b", Standing.GOOD)
        path.write_bytes(armed.encode())


def test_what_is_read_is_durable_first(board: GrubBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may have died between its write and its sync."""
    calls: list[str] = []
    fsync, pread = os.fsync, os.pread

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def noted_pread(descriptor: int, size: int, offset: int) -> bytes:
        calls.append("pread")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "pread", noted_pread)
    board.control().record()
    assert calls == ["fsync", "pread"]


def test_the_planted_fault_is_found(board: GrubBoard) -> None:
    """A switch in one step, as if rule 3 were not there, has torn states that are neither."""
    board.control().vacate("b")
    control = board.control()
    old = (board.folder / "grubenv").read_bytes()
    control.arm("b", entry(1), 3)
    new = (board.folder / "grubenv").read_bytes()
    allowed = {Block.decode(block).record("a") for block in (old, new)}
    bad = 0
    for block in set(torn(old, new)):
        try:
            bad += Block.decode(block).record("a") not in allowed
        except LocalFault:
            bad += 1
    assert bad


@pytest.mark.parametrize(("sector", "landed", "left"), [(0, 0, 3), (0, SECTOR, 2), (1, 0, 2)])
def test_grub_is_cut_while_it_counts(board: GrubBoard, sector: int, landed: int, left: int) -> None:
    """GRUB writes sectors, each whole or not at all: a cut boot has cost one attempt, or none."""
    board.control().vacate("b")
    board.write("b", IMAGES[1])
    board.control().arm("b", entry(1), 3)
    with pytest.raises(PowerCut):
        board.power_on(Power(cut=sector, torn=landed))
    assert board.control().record().attempts == left
    assert board.power_on() == "b"
    assert board.control().record().attempts == left - 1


def test_decisive_variables_lie_in_the_first_sector(board: GrubBoard) -> None:
    block = (board.folder / "grubenv").read_bytes()
    assert len(block) == BLOCK_BYTES
    assert block.rindex(b"fl_") + 140 < SECTOR


def test_the_real_tool_reads_it_and_what_others_keep_stays(board: GrubBoard) -> None:
    board.control().vacate("b")
    board.control().arm("b", entry(1), 3)
    lines = listed(board)
    assert {"saved_entry=0", "fl_primary=a", "fl_b=t", "fl_attempts=3"} <= set(lines)
    subprocess.run(
        ["grub-editenv", str(board.folder / "grubenv"), "set", "menu_auto_hide=1"], check=True
    )
    record = board.control().record()
    assert record.trial == "b" and record.b.digest == entry(1).digest
    board.control().vacate("b")
    assert {"saved_entry=0", "menu_auto_hide=1", "fl_b=e"} <= set(listed(board))


def listed(board: GrubBoard) -> list[str]:
    command = ["grub-editenv", str(board.folder / "grubenv"), "list"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_the_file_is_never_truncated(board: GrubBoard) -> None:
    """Same inode, same length, before and after."""
    path = board.folder / "grubenv"
    before = path.stat()
    board.control().vacate("b")
    board.control().arm("b", entry(1), 3)
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, BLOCK_BYTES)


def test_more_attempts_than_a_digit_are_refused(board: GrubBoard) -> None:
    with pytest.raises(Misuse, match="GRUB counts 9"):
        board.control().arm("b", entry(1), 10)


def test_a_full_block_is_said(board: GrubBoard) -> None:
    path = board.folder / "grubenv"
    long = "x" * 600
    subprocess.run(["grub-editenv", str(path), "create"], check=True)
    subprocess.run(["grub-editenv", str(path), "set", f"theirs={long}"], check=True)
    board.control().provision(factory(entry(0)))
    subprocess.run(["grub-editenv", str(path), "create"], check=True)
    subprocess.run(["grub-editenv", str(path), "set", f"theirs={long}{long[:300]}"], check=True)
    before = path.read_bytes()
    with pytest.raises(LocalFault, match="full"):
        board.control().provision(factory(entry(0)))
    assert path.read_bytes() == before


def test_every_changed_byte_of_the_record_is_noticed_or_means_nothing(board: GrubBoard) -> None:
    """One bit of each byte: refused, or read as it was, or as another lawful state of the marks."""
    board.control().vacate("b")
    board.control().arm("b", entry(1), 3)
    path = board.folder / "grubenv"
    sound = path.read_bytes()
    wanted = board.control().record()
    for at in range(BLOCK_BYTES):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        try:
            found = board.control().record()
        except LocalFault as error:
            assert error.reason == "boot-record-damaged"
            continue
        assert (found.a.digest, found.b.digest) in (
            (wanted.a.digest, wanted.b.digest),
            (wanted.a.digest, bytes(32)),
        )


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(1024), b"# GRUB Environment Block\n" + b"#" * 999]
)
def test_no_block_no_record(board: GrubBoard, data: bytes) -> None:
    (board.folder / "grubenv").write_bytes(data)
    with pytest.raises(LocalFault) as caught:
        board.control().record()
    assert caught.value.reason == "boot-record-damaged"
    assert (board.folder / "grubenv").read_bytes() == data


def test_no_file_no_record(board: GrubBoard) -> None:
    shutil.move(board.folder / "grubenv", board.folder / "away")
    with pytest.raises(LocalFault) as caught:
        board.control().record()
    assert caught.value.reason == "missing-file"
