"""The device's book on a disk: two copies in one file, written in turn (`core.copies`).

Guarantees: `commit` returns when the new record is durable, and a cut inside it leaves the former
one. The file has its full size from the start: a full disk cannot keep a device from remembering.

What is read is made durable before it is believed: after a process died between write and sync,
the newest copy may so far lie in a cache only, and would be taken back by a power cut.
"""

from __future__ import annotations

from device_client.core import copies
from device_client.core.book import MAX_BOOK_BYTES
from device_client.ports import Disk
from protocol.errors import LocalFault

MAGIC = b"FLJR"
REGION = "journal.bin"
_SECTOR = 4096
COPY_BYTES = -(-(MAX_BOOK_BYTES + copies.HEAD_BYTES) // _SECTOR) * _SECTOR


class FileJournal:
    """Implements `ports.Journal` over the region ``journal.bin``."""

    def __init__(self, disk: Disk) -> None:
        """``disk``: where the region lies, or is to be made by the first `commit`."""
        self._disk = disk
        self._sequence: int | None = None

    def read(self) -> bytes | None:
        """What was committed last; None on a new device; `LocalFault` if both copies are lost."""
        if self._disk.size(REGION) == 0:
            self._sequence = 0
            return None
        self._disk.sync(REGION)
        raw = [self._copy(0), self._copy(1)]
        found = copies.newest(MAGIC, raw[0], raw[1])
        if found is None:
            if not any(map(any, raw)):
                self._sequence = 0
                return None
            raise LocalFault(
                "journal-damaged",
                "the device's journal refused",
                "neither of its two copies is whole",
                "restore journal.bin, or accept its loss with `init --force --forget`",
            )
        self._sequence, body = found
        return body

    def commit(self, record: bytes) -> None:
        """Replace the record, durably."""
        if self._sequence is None:
            self.read()
        sequence = copies.following(self._sequence or 0)
        if self._disk.size(REGION) < 2 * COPY_BYTES:
            self._disk.reserve(REGION, 2 * COPY_BYTES)
        data = copies.seal(MAGIC, sequence, record)
        self._disk.write(REGION, copies.place(sequence) * COPY_BYTES, data)
        self._disk.sync(REGION)
        self._sequence = sequence

    def _copy(self, place: int) -> bytes:
        buffer = bytearray(copies.HEAD_BYTES + MAX_BOOK_BYTES)
        count = self._disk.read(REGION, place * COPY_BYTES, memoryview(buffer))
        return bytes(buffer[:count])
