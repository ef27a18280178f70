"""A medium that forgets: what was written and not synced may be lost, torn or out of order.

`Flash` implements the device's `Disk` over regions in memory. It keeps apart what is durable and
what was written since the last sync of its region, and records every operation. `crash_images`
gives the media that a power cut just before an operation may leave behind:

* *prefix*: the unsynced writes of each region up to some point, the rest lost;
* *torn*: the last of them in part, by sectors (first sectors, last sectors, all but one) and, for
  what is smaller than a sector, by bytes;
* *reordered*: one unsynced write lost, all later ones there.

Regions are separate media for this: what is unsynced in one says nothing about the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from device_client.ports import Bytes
from protocol.errors import LocalFault

SECTOR = 512


class PowerCut(BaseException):
    """The power went; not an `Exception`, for no code may handle it."""


@dataclass(frozen=True)
class Write:
    """One write that is not durable yet."""

    offset: int
    data: bytes


Image = Mapping[str, bytes]


@dataclass(frozen=True)
class Moment:
    """Everything about the medium just before one operation."""

    operation: str
    durable: Image
    pending: Mapping[str, tuple[Write, ...]]


@dataclass
class Flash:
    """The medium. ``room``: bytes that all regions together may have; None for no limit.

    ``deaf``: regions whose sync does nothing (a planted fault). ``cut_at``: raise `PowerCut` before
    that operation.
    """

    durable: dict[str, bytes] = field(default_factory=dict)
    pending: dict[str, list[Write]] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    recording: bool = False
    deaf: frozenset[str] = frozenset()
    cut_at: int | None = None
    room: int | None = None
    operations: int = 0

    def size(self, name: str) -> int:
        return len(self._current(name))

    def reserve(self, name: str, size: int) -> None:
        held = self.durable.get(name, b"")
        others = sum(len(data) for region, data in self.durable.items() if region != name)
        if self.room is not None and others + max(size, len(held)) > self.room:
            raise LocalFault("disk-full", f"reserving {name} failed", "no space", "free some")
        if len(held) < size:
            self._operate(f"reserve {name}")
            self.durable[name] = held.ljust(size, b"\0")

    def read(self, name: str, offset: int, into: memoryview) -> int:
        data = self._current(name)[offset : offset + len(into)]
        into[: len(data)] = data
        return len(data)

    def write(self, name: str, offset: int, data: Bytes) -> None:
        self._operate(f"write {name} at {offset}, {len(data)} bytes")
        self.pending.setdefault(name, []).append(Write(offset, bytes(data)))

    def sync(self, name: str) -> None:
        if not self.pending.get(name):
            return
        self._operate(f"sync {name}")
        if name not in self.deaf:
            self.durable[name] = self._current(name)
            self.pending[name] = []

    def _operate(self, what: str) -> None:
        if self.recording:
            self.moments.append(self.moment(what))
        if self.operations == self.cut_at:
            raise PowerCut(what)
        self.operations += 1

    def moment(self, what: str = "end") -> Moment:
        pending = {name: tuple(writes) for name, writes in self.pending.items() if writes}
        return Moment(what, dict(self.durable), pending)

    def _current(self, name: str) -> bytes:
        return applied(self.durable.get(name, b""), self.pending.get(name, ()))


def applied(data: bytes, writes: tuple[Write, ...] | list[Write]) -> bytes:
    """``data`` after ``writes``."""
    if not writes:
        return data
    buffer = bytearray(data)
    for write in writes:
        end = write.offset + len(write.data)
        if len(buffer) < end:
            buffer.extend(bytes(end - len(buffer)))
        buffer[write.offset : end] = write.data
    return bytes(buffer)


def crash_images(moment: Moment) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(how it was cut, the medium) for every way in which this moment may end."""
    seen: set[tuple[tuple[str, bytes], ...]] = set()
    for how, changed in _variants(moment):
        image = {**moment.durable, **changed}
        key = tuple(sorted(image.items()))
        if key not in seen:
            seen.add(key)
            yield f"{moment.operation}: {how}", image


def _variants(moment: Moment) -> Iterator[tuple[str, dict[str, bytes]]]:
    yield "all unsynced lost", {}
    for name, writes in moment.pending.items():
        base = moment.durable.get(name, b"")
        yield f"all of {name} landed", {name: applied(base, writes)}
        for count in range(1, len(writes)):
            yield f"{count} writes to {name} landed", {name: applied(base, writes[:count])}
            lost = [*writes[: count - 1], *writes[count:]]
            yield f"write {count} to {name} lost", {name: applied(base, lost)}
        for how, torn in _torn(writes[-1], base):
            yield f"{name} torn, {how}", {name: applied(base, [*writes[:-1], *torn])}
    everything = {
        name: applied(moment.durable.get(name, b""), writes)
        for name, writes in moment.pending.items()
    }
    yield "all landed", everything


def _torn(write: Write, base: bytes) -> Iterator[tuple[str, list[Write]]]:
    step = SECTOR if len(write.data) > SECTOR else max(1, len(write.data) // 4)
    starts = list(range(0, len(write.data), step))
    parts = [Write(write.offset + at, write.data[at : at + step]) for at in starts]
    for count in _some(len(parts)):
        yield f"first {count} of {len(parts)} parts", parts[:count]
        yield f"last {count} of {len(parts)} parts", parts[-count:]
        yield f"all but part {count}", [*parts[: count - 1], *parts[count:]]


def _some(parts: int) -> list[int]:
    """At most six counts from 1 to ``parts`` - 1."""
    counts = range(1, parts)
    stride = max(1, len(counts) // 6)
    return list(itertools.islice(counts, 0, None, stride))[:6]
