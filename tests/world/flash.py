"""A medium that forgets: what was written and not synced may be lost, torn or out of order.

`Flash` implements the device's `Disk` over regions in memory. It keeps apart what is durable and
what was written since the last sync of its region, and records every operation. `crash_images`
gives the media that a power cut just before an operation may leave behind:

* *prefix*: the unsynced writes of each region up to some point, the rest lost;
* *reordered*: any of them lost, all others there (every subset of up to `MANY` writes; of more,
  each one alone);
* *torn*: each of them in part, with those before it or with all others, by sectors (first sectors,
  last sectors, all but one) and, for what is smaller than a sector, by bytes.

Each comes with words for what was lost. Regions are separate media for this: what is unsynced in
one says nothing about the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from device_client.ports import Bytes
from protocol.errors import LocalFault

SECTOR = 512
MANY = 4


class PowerCut(BaseException):
    """The power went; not an `Exception`, for no code may handle it."""


@dataclass(frozen=True)
class Write:
    """One write that is not durable yet."""

    offset: int
    data: bytes

    def __str__(self) -> str:
        return f"{len(self.data)} bytes at {self.offset}"


Image = Mapping[str, bytes]


@dataclass(frozen=True)
class Moment:
    """Everything about the medium just before one operation."""

    operation: str
    durable: Image
    pending: Mapping[str, tuple[Write, ...]]
    grains: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Flash:
    """The medium. ``room``: bytes that all regions together may have; None for no limit.

    ``deaf``: regions whose sync does nothing (a planted fault). ``cut_at``: raise `PowerCut` before
    that operation. ``notes``: (operation, word, data) of what was promised to whoever uses it.
    ``grains``: bytes that land whole or not at all, for regions where they are not `SECTOR`.
    """

    durable: dict[str, bytes] = field(default_factory=dict)
    pending: dict[str, list[Write]] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    recording: bool = False
    deaf: frozenset[str] = frozenset()
    cut_at: int | None = None
    room: int | None = None
    operations: int = 0
    notes: list[tuple[int, str, bytes]] = field(default_factory=list)
    grains: dict[str, int] = field(default_factory=dict)

    def note(self, word: str, data: bytes = b"") -> None:
        """Remember that ``word`` holds from here on."""
        self.notes.append((self.operations, word, data))

    def rename(self, name: str, to: str) -> None:
        """The region takes another's place at once, with what is durable of it and what is not."""
        self._operate(f"rename {name}")
        self.durable[to] = self.durable.pop(name, b"")
        self.pending[to] = self.pending.pop(name, [])

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
        return Moment(what, dict(self.durable), pending, self.grains)

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
    """(what was lost, the medium) for every way in which this moment may end."""
    seen: set[tuple[tuple[str, bytes], ...]] = set()
    for lost, changed in _variants(moment):
        image = {**moment.durable, **changed}
        key = tuple(sorted(image.items()))
        if key not in seen:
            seen.add(key)
            yield lost, image


def _variants(moment: Moment) -> Iterator[tuple[str, dict[str, bytes]]]:
    yield _gone(moment.pending) or "nothing was unsynced", {}
    for name, writes in moment.pending.items():
        base, grain = moment.durable.get(name, b""), moment.grains.get(name, SECTOR)
        elsewhere = _gone({n: w for n, w in moment.pending.items() if n != name})
        rest = f"; {elsewhere}" if elsewhere else ""
        for lost, landed in _reordered(writes):
            yield f"{name}: {lost}{rest}", {name: applied(base, landed)}
        for at, write in enumerate(writes):
            for how, parts in _torn(write, grain):
                told = f"{name}: of the {write} there are the {how}"
                image = {name: applied(base, [*writes[:at], *parts])}
                yield f"{told}; later writes lost{rest}", image
                image = {name: applied(base, [*writes[:at], *parts, *writes[at + 1 :]])}
                yield f"{told}; all others landed{rest}", image
    yield (
        "nothing is lost",
        {
            name: applied(moment.durable.get(name, b""), writes)
            for name, writes in moment.pending.items()
        },
    )


def _gone(pending: Mapping[str, tuple[Write, ...]]) -> str:
    """Words for all of it being lost."""
    return "; ".join(f"{name}: lost {', '.join(map(str, w))}" for name, w in pending.items())


def _reordered(writes: tuple[Write, ...]) -> Iterator[tuple[str, list[Write]]]:
    """The prefixes; and every subset of a few writes, or each single write of many lost."""
    numbers = range(len(writes))
    gone: list[tuple[int, ...]] = [tuple(numbers[count:]) for count in range(1, len(writes) + 1)]
    most = len(writes) - 1 if len(writes) <= MANY else 1
    for size in range(1, most + 1):
        gone += itertools.combinations(numbers, size)
    for without in dict.fromkeys(gone):
        lost = ", ".join(f"write {n + 1} of {len(writes)} ({writes[n]})" for n in without)
        landed = [write for n, write in enumerate(writes) if n not in without]
        yield (f"{lost} lost" if lost else "nothing lost"), landed


def _torn(write: Write, grain: int) -> Iterator[tuple[str, list[Write]]]:
    step = grain if len(write.data) > grain else max(1, len(write.data) // 4)
    starts = list(range(0, len(write.data), step))
    parts = [Write(write.offset + at, write.data[at : at + step]) for at in starts]
    for count in _some(len(parts)):
        yield f"first {count} of {len(parts)} parts", parts[:count]
        yield f"last {count} of {len(parts)} parts", parts[-count:]
        yield f"parts without number {count} of {len(parts)}", [*parts[: count - 1], *parts[count:]]


def _some(parts: int) -> list[int]:
    """At most six counts from 1 to ``parts`` - 1."""
    counts = range(1, parts)
    stride = max(1, len(counts) // 6)
    return list(itertools.islice(counts, 0, None, stride))[:6]
