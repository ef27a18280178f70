"""Disks for real bootloaders: a GPT with given partitions, and file systems made of folders."""

from __future__ import annotations

import struct
import subprocess
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

SECTOR = 512
ALIGNED = 2048
ENTRIES, ENTRY_BYTES = 128, 128
_LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def gpt(partitions: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """(a disk with these partitions, numbered from 1; the byte at which each begins)."""
    entries, starts, at = b"", [], ALIGNED
    for number, data in enumerate(partitions, 1):
        last = at + -(-len(data) // SECTOR) - 1
        name = f"part{number}".encode("utf-16le")
        ids = _LINUX_DATA.bytes_le, uuid.UUID(int=number).bytes_le
        entries += struct.pack("<16s16sQQQ72s", *ids, at, last, 0, name)
        starts.append(at * SECTOR)
        at = -(-(last + 1) // ALIGNED) * ALIGNED
    entries = entries.ljust(ENTRIES * ENTRY_BYTES, b"\0")
    total = at + ALIGNED
    disk = bytearray(total * SECTOR)
    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, total - 1)
    disk[446 : 446 + len(protective)] = protective
    disk[510:512] = b"\x55\xaa"
    backup = total - 1 - len(entries) // SECTOR
    for here, there, table in ((1, total - 1, 2), (total - 1, 1, backup)):
        _put(disk, here * SECTOR, _header(here, there, table, total, entries))
        _put(disk, table * SECTOR, entries)
    for start, data in zip(starts, partitions, strict=True):
        _put(disk, start, data)
    return bytes(disk), starts


def _header(here: int, there: int, table: int, total: int, entries: bytes) -> bytes:
    head = struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, 0, 0)
    head += struct.pack("<QQQQ", here, there, 34, total - 34)
    head += uuid.UUID(int=99).bytes_le
    head += struct.pack("<QIII", table, ENTRIES, ENTRY_BYTES, zlib.crc32(entries))
    return head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]


def _put(disk: bytearray, at: int, data: bytes) -> None:
    disk[at : at + len(data)] = data


def ext2(folder: Path, kibibytes: int) -> bytes:
    """A file system that holds what is in ``folder`` (Debian: e2fsprogs)."""
    image = folder.with_suffix(".ext2")
    options = ["-q", "-F", "-t", "ext2", "-b", "1024", "-d", str(folder)]
    command = ["/usr/sbin/mke2fs", *options, str(image), f"{kibibytes}k"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    data = image.read_bytes()
    image.unlink()
    return data
