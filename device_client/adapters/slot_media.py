"""Whether two slots lie on one medium, under whatever names.

Guarantees: two names of one file (links of either kind), two nodes of one device, a disk beside a
partition of it, overlapping partitions, loop devices over one file, and a device beside a file, a
volume or a loop device that lies in it are found; and nothing is opened or written for that.

Rules:

1. A path or a descriptor is followed down to what it lies on: a partition to its disk, a loop
   device to its file, both with the place they take; a volume or a file to its device, of which it
   takes some place that is not asked for.
2. Two slots are alike if they meet at one thing, and at least one of them takes a known place there
   that overlaps the other's. Two volumes of one group, two files of one disk are not alike.
3. What the kernel does not tell is not guessed: the same disk by two buses is two.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from protocol.errors import LocalFault

_SYSFS = Path("/sys/dev/block")
_SECTOR = 512  # sysfs counts in these, whatever the disk's own are
_END = 2**63
_DEEPEST = 8


@dataclass(frozen=True)
class Extent:
    """Bytes ``start`` to ``end`` of ``thing``; not ``known``: somewhere in between."""

    thing: tuple[str, int, int]
    start: int = 0
    end: int = _END
    known: bool = True

    def meets(self, other: Extent) -> bool:
        """Whether both certainly share bytes, or one takes what the other lies somewhere in."""
        overlap = self.start < other.end and other.start < self.end
        return self.thing == other.thing and overlap and (self.known or other.known)


def require_apart(slots: Mapping[str, Path | int]) -> None:
    """`LocalFault` if two of these, each a path or an open descriptor, share a medium.

    A path that cannot be looked at is passed over: whoever opens it says what is wrong with it.
    """
    found = {slot: list(_extents(place)) for slot, place in slots.items()}
    for one, two in combinations(found.values(), 2):
        if any(a.meets(b) for a in one for b in two):
            raise LocalFault(
                "slots-alike",
                "the slots refused",
                "both lie on the same device or file, or one of them in the other",
                "name two partitions or devices that share nothing in config.toml",
            )


def _extents(place: Path | int) -> Iterator[Extent]:
    try:
        status = os.stat(place)  # noqa: PTH116 - of a path or of a descriptor
    except OSError:
        return
    if stat.S_ISBLK(status.st_mode):
        yield from _of_device(status.st_rdev, 0, _END, True, _DEEPEST)
    elif stat.S_ISREG(status.st_mode):
        yield from _of_file(status, 0, _END, True, _DEEPEST)
    elif stat.S_ISCHR(status.st_mode):
        yield Extent(("node", os.major(status.st_rdev), os.minor(status.st_rdev)))


def _of_file(
    status: os.stat_result, start: int, end: int, known: bool, depth: int
) -> Iterator[Extent]:
    """The place in that file, and somewhere in what its file system lies on."""
    yield Extent(("file", status.st_dev, status.st_ino), start, end, known)
    yield from _of_device(status.st_dev, 0, _END, False, depth)


def _of_device(number: int, start: int, end: int, known: bool, depth: int) -> Iterator[Extent]:
    """The place in that device, and in all that it lies on."""
    yield Extent(("device", os.major(number), os.minor(number)), start, end, known)
    facts = _SYSFS / f"{os.major(number)}:{os.minor(number)}"
    if depth == 0 or not facts.exists():
        return
    if (facts / "partition").exists():
        first, length = (_read(facts / name) * _SECTOR for name in ("start", "size"))
        start, end = first + start, first + min(end, length)
        yield from _of_device(_device(facts.resolve().parent), start, end, known, depth - 1)
    elif (facts / "loop/backing_file").exists():
        yield from _of_loop(facts / "loop", start, end, known, depth - 1)
    elif (facts / "slaves").exists():
        for slave in sorted((facts / "slaves").iterdir()):
            yield from _of_device(_device(slave.resolve()), 0, _END, False, depth - 1)


def _of_loop(facts: Path, start: int, end: int, known: bool, depth: int) -> Iterator[Extent]:
    """The place in the file or device behind a loop device."""
    first, limit = (_read(facts / name) for name in ("offset", "sizelimit"))
    start, end = first + start, first + min(end, limit or _END)
    try:
        status = Path((facts / "backing_file").read_text().rstrip("\n")).stat()
    except OSError:
        return  # the file was removed; the device itself is compared
    if stat.S_ISBLK(status.st_mode):
        yield from _of_device(status.st_rdev, start, end, known, depth)
    else:
        yield from _of_file(status, start, end, known, depth)


def _device(facts: Path) -> int:
    major, _, minor = (facts / "dev").read_text().strip().partition(":")
    return os.makedev(int(major), int(minor))


def _read(path: Path) -> int:
    return int(path.read_text())
