"""A simulated bootloader: the boot record in a file, two copies written in turn (`core.copies`).

It boots as a real one does: count the attempt down, hash the slot, run it or fall back, each time
(`core.slots.counted` and `choose`). Count and choice are one write: a process that is killed
half-way has lost no attempt to a boot that did not take place. For demonstration, tests, and hosts
without a bootloader of their own. Each copy lies in a sector of its own, far from the other.

It does *not* run the image: whether that is any good is for the health check to say.
"""

from __future__ import annotations

import hashlib

from device_client.core import copies
from device_client.core.slots import (
    BOOT_MAGIC,
    RECORD_BYTES,
    BootRecord,
    Entry,
    armed,
    choose,
    counted,
    given_up,
    kept,
    vacated,
)
from device_client.ports import Disk, SlotStore
from protocol.errors import LocalFault

REGION = "boot.env"
_COPY_BYTES = 4096
_CHUNK = 256 << 10


class VirtualBoot:
    """Implements `ports.BootControl` over the region ``boot.env``."""

    def __init__(self, disk: Disk, slots: SlotStore) -> None:
        """``slots`` are read to hash what is to boot."""
        self._disk = disk
        self._slots = slots
        self._known: tuple[int, BootRecord] | None = None

    def provision(self, record: BootRecord) -> None:
        """Write the first record of a new device."""
        self._disk.reserve(REGION, 2 * _COPY_BYTES)
        self._known = (0, record)
        self._write(record)

    def record(self) -> BootRecord:
        """What is in force; `LocalFault` if neither copy can be read."""
        return self._read()[1]

    def vacate(self, slot: str) -> None:
        """Withdraw the entry of the inactive slot."""
        self._write(vacated(self.record(), slot))

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        """The switch."""
        self._write(armed(self.record(), slot, entry, attempts))

    def settle(self, healthy: bool) -> None:
        """End the trial."""
        self._write(kept(self.record()) if healthy else given_up(self.record()))

    def reboot(self) -> None:
        """What the bootloader does with the device's power on."""
        self._known = None
        self._write(choose(counted(self.record()), self._intact))

    def _intact(self, slot: str) -> bool:
        entry = self.record().entry(slot)
        buffer, digest, offset = memoryview(bytearray(_CHUNK)), hashlib.sha256(), 0
        while offset < entry.size:
            count = self._slots.read(slot, offset, buffer[: min(_CHUNK, entry.size - offset)])
            if count == 0:
                return False
            digest.update(buffer[:count])
            offset += count
        return digest.digest() == entry.digest

    def _read(self) -> tuple[int, BootRecord]:
        if self._known is None:
            if self._disk.size(REGION):
                self._disk.sync(REGION)  # believed only once durable: see adapters.journal
            found = copies.newest(BOOT_MAGIC, self._copy(0), self._copy(1))
            if found is None:
                raise LocalFault(
                    "boot-record-damaged",
                    "the boot record refused",
                    "neither of its two copies is whole",
                    "set the device up again: `init --force --image FILE`",
                )
            self._known = (found[0], BootRecord.decode(found[1]))
        return self._known

    def _write(self, record: BootRecord) -> None:
        sequence, former = self._read()
        if record == former and sequence:
            return
        sequence = copies.following(sequence)
        data = copies.seal(BOOT_MAGIC, sequence, record.encode())
        self._known = None
        self._disk.write(REGION, copies.place(sequence) * _COPY_BYTES, data)
        self._disk.sync(REGION)
        self._known = (sequence, record)

    def _copy(self, place: int) -> bytes:
        buffer = bytearray(copies.HEAD_BYTES + RECORD_BYTES)
        count = self._disk.read(REGION, place * _COPY_BYTES, memoryview(buffer))
        return bytes(buffer[:count])
