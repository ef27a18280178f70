"""Slots as two files on a disk: ``slots/a.img`` and ``slots/b.img``.

The room for an image is reserved before its first byte, so a full disk shows before the download.
"""

from __future__ import annotations

from device_client.ports import Bytes, Disk
from protocol.errors import LocalFault

MAX_SLOT_BYTES = 64 * 2**30


def region(slot: str) -> str:
    """The name of a slot's region."""
    return f"slots/{slot}.img"


class FileSlots:
    """Implements `ports.SlotStore`; ``capacity`` bounds an image, as a partition's size would."""

    def __init__(self, disk: Disk, capacity: int = MAX_SLOT_BYTES) -> None:
        """``disk``: where the two files lie."""
        self._disk = disk
        self._capacity = capacity

    def reserve(self, slot: str, size: int) -> None:
        """Room for an image of ``size``."""
        if size > self._capacity:
            raise LocalFault(
                "slot-too-small",
                f"slot {slot} refused",
                f"the image has {size} bytes, the slot {self._capacity}",
                "build a smaller image, or enlarge the slots",
            )
        self._disk.reserve(region(slot), size)

    def write(self, slot: str, offset: int, data: Bytes) -> None:
        """Write all of ``data``."""
        self._disk.write(region(slot), offset, data)

    def sync(self, slot: str) -> None:
        """Durable, and read from the medium next."""
        self._disk.sync(region(slot))

    def read(self, slot: str, offset: int, into: memoryview) -> int:
        """Fill ``into`` from ``offset``."""
        return self._disk.read(region(slot), offset, into)
