"""Slots in the flash of a microcontroller, which is reached over a link in small frames.

The node has two slots of NOR flash: whole blocks are erased, pages are written once after that. It
answers five requests, of which each may be repeated without harm (docs/boot/mcu.md has the bytes):

============  ==================================================================================
``INFO``      capacity, erase block, page, and the most bytes of data that a frame may carry
``ERASE``     one block of a slot
``WRITE``     whole pages, all of them in erased flash; once more the same bytes is success
``READ``      bytes of a slot, from the flash
``DIGEST``    SHA-256 of the first bytes of a slot, from the flash, by the node itself
============  ==================================================================================

Guarantees:

* A frame is believed only with its CRC-32, as the answer to the request that was sent last. What is
  lost on the way is asked for again, `TRIES` times; then `Unreachable`.
* No page is written that was not erased by this driver before. Where writing goes on in the middle
  of a block, the block's beginning is read, and written again after the block was erased.
* A node that answers with nonsense, or refuses, is a `LocalFault`; it is never asked for more than
  it said it can do, and what it says of itself is bounded.

What is written is durable after `sync`, and `read` sees it only then: up to a page waits here. The
node decides which slot may be written, and refuses its running one. Not here: what boots on the
node, and whether the link keeps secrets: only encrypted links should carry plain firmware.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from device_client.core.slots import SLOTS
from device_client.ports import Bytes
from protocol.errors import LocalFault, Unreachable
from protocol.ids import Digest

MAX_FRAME = 4096
TRIES = 4
ERASED = 0xFF

REQUEST = struct.Struct(">BBBIH")
"""Operation, sequence, slot (0 or 1), offset, count of bytes; then data, then the CRC-32."""
ANSWER = struct.Struct(">BBBH")
"""Operation + 128, sequence, status, count of bytes; then data, then the CRC-32."""
INFO = struct.Struct(">IIHH")
"""Capacity of a slot, erase block, page, most data in a frame."""
CRC_BYTES = 4
_DIGEST_BYTES = 32
_MAX_CAPACITY = 1 << 30


class Operation(IntEnum):
    """What a node can be asked to do."""

    INFO, ERASE, WRITE, READ, DIGEST = range(1, 6)


class Status(IntEnum):
    """How it went."""

    DONE, BAD_FRAME, OUT_OF_RANGE, NOT_ERASED, SLOT_IN_USE, FLASH_FAILED = range(6)


class Link(Protocol):
    """The way to one node: a serial line, a radio, a bus. It may lose, repeat and damage frames."""

    def exchange(self, frame: bytes, maximum: int) -> bytes:
        """Send ``frame``; what came back, at most ``maximum`` bytes; `Unreachable` if nothing."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a node says of its flash; ``piece``: most bytes of data in a frame, whole pages."""

    capacity: int
    block: int
    page: int
    piece: int

    @classmethod
    def decode(cls, data: bytes) -> Geometry:
        """The geometry in an answer to INFO; `LocalFault` for one that cannot be."""
        capacity, block, page, most = INFO.unpack(data) if len(data) == INFO.size else (0, 0, 0, 0)
        sound = 0 < page <= block <= capacity <= _MAX_CAPACITY and not block % page
        overhead = REQUEST.size + CRC_BYTES
        if not sound or capacity % block or not page <= most <= MAX_FRAME - overhead:
            raise _refused("INFO", "it says of its flash what cannot be")
        return cls(capacity, block, page, most - most % page)


@dataclass(slots=True)
class _Writing:
    """Where a slot is written: ``at`` is the next page, ``clean`` the end of what is erased."""

    at: int
    clean: int
    tail: bytearray


class McuSlots:
    """Implements `ports.SlotStore` and `ports.SelfHashing`. Not shared between threads."""

    def __init__(self, link: Link) -> None:
        """``link``: to the one node whose slots these are; it is asked at the first use."""
        self._link = link
        self._sequence = 0
        self._geometry: Geometry | None = None
        self._writing: dict[str, _Writing] = {}

    @property
    def geometry(self) -> Geometry:
        """What the node said of its flash."""
        if self._geometry is None:
            self._geometry = Geometry.decode(self._ask(Operation.INFO, expected=INFO.size))
        return self._geometry

    def reserve(self, slot: str, size: int) -> None:
        """That an image of ``size`` fits."""
        if size > self.geometry.capacity:
            raise LocalFault(
                "slot-too-small",
                f"slot {slot} refused",
                f"the image has {size} bytes, the node's slot {self.geometry.capacity}",
                "build a smaller image",
            )

    def write(self, slot: str, offset: int, data: Bytes) -> None:
        """Write all of ``data``; whole pages are sent, the rest waits for more, or for `sync`."""
        if offset + len(data) > self.geometry.capacity:
            raise _refused("WRITE", f"byte {offset + len(data)} is beyond the slot's end")
        place = self._writing.get(slot)
        if place is None or place.at + len(place.tail) != offset:
            place = self._writing[slot] = self._begin(slot, offset)
        place.tail += data
        self._send(slot, place)

    def sync(self, slot: str) -> None:
        """Everything is in the flash; its last page is filled up as if it were erased."""
        place = self._writing.pop(slot, None)
        if place is not None and place.tail:
            place.tail += bytes([ERASED]) * (-len(place.tail) % self.geometry.page)
            self._send(slot, place)

    def read(self, slot: str, offset: int, into: memoryview) -> int:
        """Fill ``into`` from ``offset``; how many bytes there were."""
        wanted, done = min(len(into), max(0, self.geometry.capacity - offset)), 0
        while done < wanted:
            count = min(self.geometry.piece, wanted - done)
            request = (Operation.READ, slot, offset + done, count)
            into[done : done + count] = self._ask(*request, expected=count)
            done += count
        return done

    def digest(self, slot: str, size: int) -> Digest:
        """SHA-256 of the slot's first ``size`` bytes, as the node finds them in its flash."""
        length = struct.pack(">I", size)
        return Digest(self._ask(Operation.DIGEST, slot, data=length, expected=_DIGEST_BYTES))

    # -- pages and blocks --------------------------------------------------------------------------

    def _begin(self, slot: str, offset: int) -> _Writing:
        """Writing from ``offset`` on: what stands before it in its block is kept."""
        self.sync(slot)
        start = offset - offset % self.geometry.block
        kept = bytearray(offset - start)
        self.read(slot, start, memoryview(kept))
        return _Writing(start, start, kept)

    def _send(self, slot: str, place: _Writing) -> None:
        """All whole pages of what waits, each block erased when its first page comes."""
        geometry = self.geometry
        while len(place.tail) >= geometry.page:
            if place.at == place.clean:
                self._ask(Operation.ERASE, slot, place.at, geometry.block)
                place.clean += geometry.block
            most = min(geometry.piece, place.clean - place.at, len(place.tail))
            data = bytes(place.tail[: most - most % geometry.page])
            self._ask(Operation.WRITE, slot, place.at, len(data), data=data)
            place.at += len(data)
            del place.tail[: len(data)]

    # -- frames ------------------------------------------------------------------------------------

    def _ask(
        self,
        operation: Operation,
        slot: str = "a",
        offset: int = 0,
        count: int = 0,
        *,
        data: bytes = b"",
        expected: int = 0,
    ) -> bytes:
        """The data of the node's answer, exactly ``expected`` bytes."""
        self._sequence = (self._sequence + 1) % 256
        head = REQUEST.pack(operation, self._sequence, SLOTS.index(slot), offset, count)
        frame = sealed(head + data)
        maximum = ANSWER.size + expected + CRC_BYTES
        for _ in range(TRIES):
            try:
                answer = self._link.exchange(frame, maximum)
            except Unreachable:
                continue
            body = unsealed(answer)
            if body is None or body[:2] != bytes([operation | 0x80, self._sequence]):
                continue  # damaged on its way, or late: the answer to an earlier request
            return _content(operation, body, expected)
        raise Unreachable(
            "node-silent",
            f"{operation.name} failed",
            f"the node did not answer {TRIES} times",
            "check its power and its link; what was written stays, and is gone on from",
        )


def sealed(body: bytes) -> bytes:
    """A frame: ``body`` and its CRC-32."""
    return body + struct.pack(">I", zlib.crc32(body))


def unsealed(frame: bytes) -> bytes | None:
    """The body of a frame, or None if the frame is not whole."""
    body, crc = frame[:-CRC_BYTES], frame[-CRC_BYTES:]
    whole = len(body) >= ANSWER.size and crc == struct.pack(">I", zlib.crc32(body))
    return body if whole else None


def _content(operation: Operation, body: bytes, expected: int) -> bytes:
    _, _, status, count = ANSWER.unpack_from(body)
    data = body[ANSWER.size :]
    if status != Status.DONE:
        known = status in set(Status)
        words = Status(status).name.lower().replace("_", " ") if known else f"status {status}"
        raise _refused(operation.name, f"the node says: {words}")
    if count != len(data) or count != expected:
        raise _refused(operation.name, f"the node answered {len(data)} bytes, not {expected}")
    return data


def _refused(what: str, why: str) -> LocalFault:
    return LocalFault(
        "node-refused", f"{what} refused", why, "check the node; docs/boot/mcu.md names its answers"
    )
