"""A microcontroller with two slots of NOR flash, behind a link that loses frames.

The node keeps the rules of its flash strictly: a block is erased whole, a page is written once
after that, and a page that is not erased is refused (unless it holds those very bytes already).
Power goes at any erase or page write, in the middle of it: then nothing answers until `power_on`.
It reads the frames by docs/boot/mcu.md and shares no code with the driver.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, field

from protocol.errors import Unreachable

BLOCK, PAGE, MOST = 1024, 64, 200
CAPACITY = 8 * BLOCK
DONE, BAD_FRAME, OUT_OF_RANGE, NOT_ERASED, SLOT_IN_USE, FLASH_FAILED = range(6)


@dataclass
class McuNode:
    """The node, and the link to it.

    ``lost``, ``deaf``, ``damaged``: numbers of exchanges whose answer is lost, whose request is, or
    whose answer has a flipped bit. ``cut_at``: the flash operation at which the power goes;
    ``landed``: eighths of it that took place. ``running``: the slot that cannot be written.
    """

    flash: list[bytearray] = field(
        default_factory=lambda: [bytearray(b"\xff" * CAPACITY) for _ in range(2)]
    )
    running: int = 0
    lost: set[int] = field(default_factory=set)
    deaf: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    cut_at: int | None = None
    landed: int = 4
    on: bool = True
    exchanges: int = 0
    operations: list[str] = field(default_factory=list)
    largest: int = 0
    wears_out: bool = False

    def power_on(self) -> None:
        self.on, self.cut_at = True, None

    def exchange(self, frame: bytes, maximum: int) -> bytes:
        number, self.exchanges = self.exchanges, self.exchanges + 1
        self.largest = max(self.largest, len(frame))
        if not self.on or number in self.deaf:
            raise _silence()
        answer = self._answer(frame)
        if not self.on or number in self.lost:
            raise _silence()
        if number in self.damaged:
            answer = answer[:-1] + bytes([answer[-1] ^ 1])
        return answer[:maximum]

    def _answer(self, frame: bytes) -> bytes:
        body, crc = frame[:-4], int.from_bytes(frame[-4:], "big")
        if len(frame) < 13 or crc != zlib.crc32(body):
            raise _silence()  # a node does not answer what it cannot read
        kind, sequence, slot, offset, count = struct.unpack_from(">BBBIH", body)
        data = body[9:]
        if slot > 1 or len(data) > MOST or count > BLOCK:
            status, value = BAD_FRAME, b""
        elif offset + count > CAPACITY:
            status, value = OUT_OF_RANGE, b""
        else:
            status, value = self._do(kind, slot, offset, count, data)
        head = struct.pack(">BBBH", kind | 0x80, sequence, status, len(value))
        return head + value + struct.pack(">I", zlib.crc32(head + value))

    def _do(self, kind: int, slot: int, at: int, count: int, data: bytes) -> tuple[int, bytes]:
        flash = self.flash[slot]
        if kind == 1:
            return DONE, struct.pack(">IIHH", CAPACITY, BLOCK, PAGE, MOST)
        if kind in (2, 3) and slot == self.running:
            return SLOT_IN_USE, b""
        if kind == 2:
            if at % BLOCK or count != BLOCK:
                return BAD_FRAME, b""
            self._operate(f"erase {at}", flash, at, b"\xff" * BLOCK)
            return DONE, b""
        if kind == 3:
            return self._program(flash, at, data), b""
        if kind == 4:
            return DONE, bytes(flash[at : at + count])
        if kind == 5 and len(data) == 4:
            size = int.from_bytes(data, "big")
            return DONE, hashlib.sha256(flash[:size]).digest()
        return BAD_FRAME, b""

    def _program(self, flash: bytearray, at: int, data: bytes) -> int:
        if at % PAGE or len(data) % PAGE or not data:
            return BAD_FRAME
        for start in range(0, len(data), PAGE):
            page, place = data[start : start + PAGE], at + start
            held = flash[place : place + PAGE]
            if held == page:
                continue  # the same once more
            if held != b"\xff" * PAGE:
                return NOT_ERASED
            self._operate(f"write {place}", flash, place, page)
            if self.wears_out:
                flash[place] ^= 1
        return DONE

    def _operate(self, what: str, flash: bytearray, at: int, data: bytes) -> None:
        fatal = len(self.operations) == self.cut_at
        self.operations.append(what)
        if fatal:
            data, self.on = data[: len(data) * self.landed // 8], False
        flash[at : at + len(data)] = data
        if fatal:
            raise _silence()


def _silence() -> Unreachable:
    return Unreachable("link", "no answer", "the node is silent", "wait")
