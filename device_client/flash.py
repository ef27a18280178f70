"""The slots' bytes: read cold, hashed, erased; and a thread that reads ahead of its user.

Guarantees:

* `read_back` hashes what the medium holds, not what a cache remembers; a medium that hashes itself
  (`ports.SelfHashing`) is asked.
* `erase` returns when the bytes are gone, durably.
* `Ahead` runs at most `QUEUED` items ahead, and leaves no thread behind; but whoever stops it by a
  signal does not wait for the wire.

It does *not* decide, switch or journal.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator

from device_client.core.types import Target
from device_client.ports import SelfHashing, SlotStore
from protocol.errors import Untrusted
from protocol.ids import Digest

BLOCK = 128 << 10
QUEUED = 4
STRIDE = 16 << 20
"""Bytes between two points from which a download can go on."""

SPOILED = frozenset({"payload-digest", "payload-length", "read-back"})
"""Reasons that say the bytes are wrong, not the way they came."""

_SOON = 50
"""Hundredths of a second that a thread has to end after a signal; it may wait for the wire."""

Pace = Callable[[int], None]
"""Hears how many bytes were just dealt with, and may wait."""


def unhurried(count: int) -> None:
    """The pace of whoever sets none."""


def read_back(
    slots: SlotStore, slot: str, target: Target, block: int = BLOCK, pace: Pace = unhurried
) -> None:
    """`Untrusted` unless the medium holds the image of ``target``; reading and hashing overlap."""
    slots.sync(slot)
    if _cold_digest(slots, slot, target.image_size, block, pace) != target.image_digest:
        raise Untrusted(
            "read-back",
            "image refused",
            f"slot {slot} does not hold the image that the manifest names",
            "check the medium, and with the maker; the device keeps its present image",
        )


def _cold_digest(slots: SlotStore, slot: str, size: int, block: int, pace: Pace) -> bytes:
    if isinstance(slots, SelfHashing):
        return slots.digest(slot, size)
    digest = hashlib.sha256()
    with Ahead(stored_copies(slots, slot, size, block)) as pieces:
        for piece in pieces:
            digest.update(piece)
            pace(len(piece))
    return digest.digest()


def erase(
    slots: SlotStore, slot: str, size: int, block: int = BLOCK, pace: Pace = unhurried
) -> None:
    """Overwrite the first ``size`` bytes of the slot with zeros, durably."""
    zeros, offset = bytes(min(block, size)), 0
    while offset < size:
        slots.write(slot, offset, zeros[: size - offset])
        offset += len(zeros)
        pace(len(zeros))
    slots.sync(slot)


def digest_of(slots: SlotStore, slot: str, size: int) -> Digest:
    """SHA-256 of the first ``size`` bytes in the slot."""
    if isinstance(slots, SelfHashing):
        return slots.digest(slot, size)
    digest = hashlib.sha256()
    for piece in stored(slots, slot, size, BLOCK):
        digest.update(piece)
    return Digest(digest.digest())


def stored(slots: SlotStore, slot: str, size: int, block: int) -> Iterator[memoryview]:
    """The slot's bytes in one buffer, used again for every piece."""
    buffer, offset = memoryview(bytearray(min(block, size))), 0
    while offset < size:
        count = slots.read(slot, offset, buffer[: min(block, size - offset)])
        if count == 0:
            return
        yield buffer[:count]
        offset += count


def stored_copies(slots: SlotStore, slot: str, size: int, block: int) -> Iterator[bytearray]:
    """The slot's bytes in buffers of their own."""
    offset = 0
    while offset < size:
        buffer = bytearray(min(block, size - offset))
        count = slots.read(slot, offset, memoryview(buffer))
        if count == 0:
            return
        yield buffer if count == len(buffer) else buffer[:count]
        offset += count


class Ahead:
    """Runs an iterator in a thread of its own, a few items ahead; its error is raised here.

    Leaving the context ends the thread, whatever state it is in; after a signal it is left behind
    if it does not end soon, for so does the process.
    """

    def __init__(self, items: Iterator[bytes] | Iterator[bytearray]) -> None:
        self._items = items
        self._ready: queue.Queue[bytes | bytearray | BaseException | None] = queue.Queue(QUEUED)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)

    def __enter__(self) -> Iterator[bytes | bytearray]:
        self._thread.start()
        return self._taken()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        for _waited in range(_SOON) if kind is KeyboardInterrupt else itertools.count():
            if not self._thread.is_alive():
                return
            self._drain()
            self._thread.join(0.01)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._items:
                if self._stopped.is_set():
                    return
                self._ready.put(item)
        except BaseException as error:  # handed to the thread that waits for the items
            end = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        self._ready.put(end)

    def _taken(self) -> Iterator[bytes | bytearray]:
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _drain(self) -> None:
        try:
            while True:
                self._ready.get_nowait()
        except queue.Empty:
            pass
