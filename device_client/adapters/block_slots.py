"""Slots as two block devices or partitions, written in place.

Guarantees:

* A device in use (mounted, or opened exclusively by another) is refused, and ours is refused to
  others while it is open: O_EXCL, which the kernel honours for block devices. Only the slot being
  written is opened so; the running slot may be mounted.
* Two slots that share a medium, under whatever names, are refused: when they are named, and again
  before the first is opened for writing, by the descriptors that are read and written then.
* Nothing is written beyond the device's end, and an image that does not fit is refused before its
  first byte.
* After `sync` the device's cache is dropped (BLKFLSBUF), so that reading back asks the medium.
  `cool` does as much as is possible for a slot that is in use: the pages of its own are dropped.

A regular file may stand in for a device, as an image of one does; fsync and fadvise do the same
for it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from device_client.adapters.directory import fault, mapped
from device_client.adapters.slot_media import require_apart
from device_client.ports import Bytes
from protocol.errors import LocalFault

_BLKFLSBUF = 0x1261


class BlockSlots:
    """Implements `ports.SlotStore` over two devices. Not shared between threads."""

    def __init__(self, devices: Mapping[str, Path]) -> None:
        """``devices``: the path of each slot; opened when first used, until `close`.

        `LocalFault` if two of them share a medium.
        """
        require_apart(devices)
        self._devices = dict(devices)
        self._writing: dict[str, int] = {}
        self._reading: dict[str, int] = {}

    def reserve(self, slot: str, size: int) -> None:
        """That an image of ``size`` fits, and that the device is nobody else's."""
        room = self.capacity(slot)
        if size > room:
            raise LocalFault(
                "slot-too-small",
                f"slot {slot} refused",
                f"the image has {size} bytes, {self._devices[slot]} has {room}",
                "build a smaller image, or enlarge the slots",
            )
        self._writer(slot)

    def capacity(self, slot: str) -> int:
        """How many bytes the device holds."""
        with mapped(f"measuring {self._devices[slot]}"):
            return os.lseek(self._reader(slot), 0, os.SEEK_END)

    def write(self, slot: str, offset: int, data: Bytes) -> None:
        """Write all of ``data``; `LocalFault` beyond the device's end."""
        rest, done = memoryview(data), 0
        if offset + len(rest) > self.capacity(slot):
            raise fault(f"writing slot {slot}", OSError(errno.ENOSPC, ""))
        descriptor = self._writer(slot)
        with mapped(f"writing {self._devices[slot]}"):
            while done < len(rest):
                done += os.pwrite(descriptor, rest[done:], offset + done)

    def sync(self, slot: str) -> None:
        """Durable; and what is read next comes from the medium."""
        descriptor = self._writer(slot)
        with mapped(f"making {self._devices[slot]} durable"):
            os.fsync(descriptor)
            if stat.S_ISBLK(os.fstat(descriptor).st_mode):
                fcntl.ioctl(descriptor, _BLKFLSBUF)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def cool(self, slot: str) -> None:
        """Drop what is cached of a slot that is not written here; it may be mounted."""
        with mapped(f"reading {self._devices[slot]}"):
            os.posix_fadvise(self._reader(slot), 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, slot: str, offset: int, into: memoryview) -> int:
        """Fill ``into`` from ``offset``; how many bytes there were."""
        descriptor, done = self._reader(slot), 0
        with mapped(f"reading {self._devices[slot]}"):
            while done < len(into):
                count = os.preadv(descriptor, [into[done:]], offset + done)
                if count == 0:
                    break
                done += count
        return done

    def close(self) -> None:
        """Let go of both devices."""
        for held in (self._writing, self._reading):
            while held:
                os.close(held.popitem()[1])

    def _writer(self, slot: str) -> int:
        if slot not in self._writing:
            others = {name: self._reader(name) for name in self._devices if name != slot}
            descriptor = self._exclusive(slot)
            try:
                require_apart({**others, slot: descriptor})
            except LocalFault:
                os.close(descriptor)
                raise
            self._writing[slot] = descriptor
        return self._writing[slot]

    def _exclusive(self, slot: str) -> int:
        path = self._devices[slot]
        try:
            with mapped(f"opening {path}"):
                block = stat.S_ISBLK(path.stat().st_mode)
                return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if block else 0))
        except LocalFault as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EBUSY:
                raise _in_use(slot, path) from error
            raise

    def _reader(self, slot: str) -> int:
        if slot not in self._reading:
            with mapped(f"opening {self._devices[slot]}"):
                self._reading[slot] = os.open(self._devices[slot], os.O_RDONLY | os.O_CLOEXEC)
        return self._reading[slot]


def _in_use(slot: str, path: Path) -> LocalFault:
    return LocalFault(
        "in-use",
        f"slot {slot} refused",
        f"{path} is mounted, or another process has it",
        "unmount it; the inactive slot is the device client's alone",
    )
