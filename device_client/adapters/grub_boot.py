"""The boot record in GRUB's environment block, written in place and never truncated.

GRUB's block has 1024 bytes and no checksum, and ``grub-editenv`` empties the file before it writes:
killed there, nothing is left. Hence:

Rules:

1. The file keeps its length and its place; the block is overwritten as a whole, then synced.
2. All variables of the record have fixed widths and lie in the block's first 512 bytes, one sector.
3. Every step that decides anything changes **one byte**; what is not decisive yet (an image's
   details, its attempts) was made durable by a step before. So every mixture of old and new bytes
   that a cut may leave boots what the old block boots, or what the new one does.
4. The mark of the primary means nothing: the primary is good. The other slot is on trial while its
   mark is ``t``, and only then ``fl_attempts`` counts.

=================  ===============================================================================
``fl_primary``     ``a`` or ``b``: boots when nothing is on trial
``fl_a``, ``fl_b`` mark: ``e`` empty, ``t`` trial, ``g`` good, ``x`` bad
``fl_attempts``    one digit: boots left to the trial
``fl_a_image``     digest.size.version.counter.release.crc, hexadecimal; likewise ``fl_b_image``
=================  ===============================================================================

GRUB's part is in docs/boot/grub.md. Variables of others stay in the block, behind these.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from device_client.adapters.board import CommandLine, Restart, reboot_command
from device_client.adapters.boot_backends import Opened
from device_client.adapters.directory import mapped
from device_client.core.slots import (
    SLOTS,
    BootRecord,
    Entry,
    Standing,
    armed,
    given_up,
    kept,
    other,
    vacated,
)
from device_client.ports import Disk
from protocol.errors import LocalFault, Misuse
from protocol.ids import Digest, Version

BLOCK_BYTES = 1024
SECTOR = 512
SIGNATURE = b"# GRUB Environment Block\n"
MAX_TRIES = 9
_MARKS = "etgx"
_WIDTHS = (64, 16, 16, 8, 8)


@dataclass(frozen=True)
class Block:
    """What the block says; ``rest``: lines of others, kept as they are."""

    primary: str
    marks: dict[str, str]
    attempts: int
    images: dict[str, str]
    rest: bytes = b""

    def encode(self) -> bytes:
        """The block, `BLOCK_BYTES` long; `LocalFault` if the lines of others leave no room."""
        lines = [f"fl_primary={self.primary}"]
        lines += [f"fl_{slot}={self.marks[slot]}" for slot in SLOTS]
        lines += [f"fl_attempts={self.attempts}"]
        lines += [f"fl_{slot}_image={self.images[slot]}" for slot in SLOTS]
        data = SIGNATURE + "".join(line + "\n" for line in lines).encode() + self.rest
        if len(data) > BLOCK_BYTES:
            raise LocalFault(
                "environment-full",
                "the boot record refused",
                "GRUB's environment block is full of other variables",
                "remove some of them: `grub-editenv FILE unset NAME`",
            )
        return data.ljust(BLOCK_BYTES, b"#")

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """The block of `encode`, strictly; `LocalFault` otherwise."""
        lines = data.split(b"\n")
        names = ("fl_primary", "fl_a", "fl_b", "fl_attempts", "fl_a_image", "fl_b_image")
        if not data.startswith(SIGNATURE) or len(data) != BLOCK_BYTES or len(lines) < 8:
            raise _damaged()
        values = [_value(name, line) for name, line in zip(names, lines[1:7], strict=True)]
        primary, a, b, attempts, image_a, image_b = values
        if primary not in SLOTS or not {a, b} <= set(_MARKS) or attempts not in set("0123456789"):
            raise _damaged()
        rest = data[sum(len(line) + 1 for line in lines[:7]) :].rstrip(b"#")
        marks, images = {"a": a, "b": b}, {"a": image_a, "b": image_b}
        return cls(primary, marks, int(attempts), images, rest)

    @classmethod
    def of(cls, record: BootRecord, rest: bytes) -> Block:
        """A first block for ``record``."""
        marks = {slot: _MARKS[record.entry(slot).standing] for slot in SLOTS}
        images = {slot: _image(record.entry(slot)) for slot in SLOTS}
        return cls(record.primary, marks, record.attempts, images, rest)

    def record(self, running: str) -> BootRecord:
        """The record, by rule 4; `LocalFault` where a slot's details are needed and damaged."""
        tried = self.marks[other(self.primary)] == "t"
        a, b = (self._entry(slot) for slot in SLOTS)
        return BootRecord(self.primary, running, self.attempts if tried else 0, a, b)

    def _entry(self, slot: str) -> Entry:
        standing = Standing(_MARKS.index(self.marks[slot]))
        if slot == self.primary:
            standing = Standing.GOOD
        if standing is Standing.EMPTY:
            return Entry()
        return replace(_entry(self.images[slot]), standing=standing)

    def marking(self, slot: str, mark: str) -> Block:
        """The same with another mark for ``slot``."""
        return replace(self, marks={**self.marks, slot: mark})


class GrubEnvironment:
    """Implements `ports.BootControl` over a ``grubenv`` file that GRUB can write."""

    def __init__(self, running: Callable[[], str], restart: Callable[[], None], path: Path) -> None:
        """``running`` says which slot runs; ``path``: a block made by ``grub-editenv create``."""
        self._running, self._restart, self._path = running, restart, path

    def provision(self, record: BootRecord) -> None:
        """Put the first record into a block that `grub-editenv` made; the lines of others stay."""
        data = self._read()
        if len(data) != BLOCK_BYTES or not data.startswith(SIGNATURE):
            raise _damaged()
        lines = data[len(SIGNATURE) :].rstrip(b"#").splitlines(keepends=True)
        rest = b"".join(line for line in lines if not line.startswith((b"fl_", b"#")))
        self._write(Block.of(record, rest))

    def record(self) -> BootRecord:
        """What is in force; `LocalFault` if the block holds no record."""
        return self._block().record(self._running())

    def vacate(self, slot: str) -> None:
        """Withdraw the entry of the inactive slot."""
        vacated(self.record(), slot)
        self._write(self._block().marking(slot, "e"))

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        """The switch; `Misuse` for more than `MAX_TRIES` attempts."""
        if attempts > MAX_TRIES:
            raise Misuse(
                "attempts-range",
                "trial refused",
                f"GRUB counts {MAX_TRIES} boots at most, not {attempts}",
                f"set attempts to 1 to {MAX_TRIES} in config.toml",
            )
        record = self.record()
        if armed(record, slot, entry, attempts) == record:
            return
        self._write(self._block().marking(slot, "e"))  # from here on its details are not in force
        block = self._block().marking(other(slot), "g")
        block = replace(block, attempts=attempts, images={**block.images, slot: _image(entry)})
        self._write(block)
        self._write(block.marking(slot, "t"))  # the switch: one byte

    def settle(self, healthy: bool) -> None:
        """End the trial."""
        record, block = self.record(), self._block()
        if not healthy:
            given_up(record)
            self._write(block.marking(other(record.primary), "x"))
            return
        kept(record)
        block = block.marking(record.primary, "g")
        self._write(block)
        block = replace(block, primary=other(record.primary))
        self._write(block)  # the confirmation: one byte
        self._write(block.marking(block.primary, "g"))

    def reboot(self) -> None:
        """Boot the machine again."""
        self._restart()

    def _block(self) -> Block:
        return Block.decode(self._read())

    def _read(self) -> bytes:
        """The block, made durable first: a process may have died before its sync."""
        with mapped(f"reading {self._path}"):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
                return os.pread(descriptor, BLOCK_BYTES + 1, 0)
            finally:
                os.close(descriptor)

    def _write(self, block: Block) -> None:
        data = block.encode()
        if data == self._read():
            return
        with mapped(f"writing {self._path}"):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                done = 0
                while done < BLOCK_BYTES:
                    done += os.pwrite(descriptor, data[done:], done)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@dataclass(frozen=True)
class GrubTable:
    """``[grub]``: the environment block, where the running slot is told, how to reboot."""

    most_attempts: ClassVar[int] = MAX_TRIES

    block: str = "/boot/grub/grubenv"
    command_line: str = "/proc/cmdline"
    reboot: list[str] = field(default_factory=reboot_command)

    def open(self, disk: Disk) -> Opened:
        """The backend."""
        running = CommandLine(Path(self.command_line))
        return GrubEnvironment(running, Restart(self.reboot), Path(self.block)), running


def _image(entry: Entry) -> str:
    numbers = (entry.size, int(entry.version), entry.security_counter, entry.release_id)
    fields = [entry.digest.hex()]
    fields += [f"{n:0{width}x}" for n, width in zip(numbers, _WIDTHS[1:], strict=True)]
    text = ".".join(fields)
    return f"{text}.{zlib.crc32(text.encode()):08x}"


def _entry(image: str) -> Entry:
    text, _, crc = image.rpartition(".")
    fields = text.split(".")
    if crc != f"{zlib.crc32(text.encode()):08x}" or tuple(map(len, fields)) != _WIDTHS:
        raise _damaged()
    size, version, counter, release = (int(field, 16) for field in fields[1:])
    digest = Digest(bytes.fromhex(fields[0]))
    return Entry(Standing.EMPTY, digest, size, Version(version), counter, release)


def _value(name: str, line: bytes) -> str:
    """The value of the line ``name=value``; `LocalFault` for any other line."""
    prefix = name.encode() + b"="
    if not line.startswith(prefix) or not line.isascii():
        raise _damaged()
    return line[len(prefix) :].decode()


def _damaged() -> LocalFault:
    return LocalFault(
        "boot-record-damaged",
        "the boot record refused",
        "GRUB's environment block is damaged, or lacks the record's variables in their places",
        "set the device up with `init`; docs/boot/grub.md names the variables",
    )
