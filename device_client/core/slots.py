"""The two slots and what may boot: pure rules over one small record.

Rules:

1. `primary` is the slot that boots when nothing is on trial. Its image was confirmed here, or came
   with the device.
2. Only the other slot is ever written, and not before its entry says EMPTY (`vacated`): an entry
   never vouches for bytes that are being replaced.
3. A slot is tried with a limited number of boots. They count down only while the trial is pending;
   a confirmed slot never counts down.
4. A trial ends once: kept, it becomes the primary; given up, BAD. Neither touches the other slot.
5. An image boots only while its bytes hash to the digest in its entry (`choose` is told which do).

The record is written as a whole and switched atomically (`core.copies`); its body is 117 bytes, so
that one copy fits a sector of 512.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self

from device_client.core.types import Target, damaged
from protocol.errors import LocalFault, Misuse
from protocol.ids import Digest, Version

SLOTS = ("a", "b")
BOOT_MAGIC = b"FLBR"
MAX_ATTEMPTS = 255

_ENTRY = struct.Struct(">B32sQQII")
_RECORD = struct.Struct(f">BBB{_ENTRY.size}s{_ENTRY.size}s")
RECORD_BYTES = _RECORD.size


class Standing(IntEnum):
    """What a slot's content is worth."""

    EMPTY, TRIAL, GOOD, BAD = range(4)


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot: the image it holds, and what that is worth."""

    standing: Standing = Standing.EMPTY
    digest: Digest = Digest(bytes(32))  # noqa: RUF009 - immutable bytes
    size: int = 0
    version: Version = Version(0)  # noqa: RUF009 - an immutable integer
    security_counter: int = 0
    release_id: int = 0

    @classmethod
    def of(cls, target: Target, standing: Standing) -> Self:
        """The entry for an installed target."""
        return cls(
            standing,
            target.image_digest,
            target.image_size,
            target.version,
            target.security_counter,
            target.release_id,
        )


@dataclass(frozen=True, slots=True)
class BootRecord:
    """Both entries, which slot is primary, which one is running, and the boots left to a trial."""

    primary: str
    running: str
    attempts: int
    a: Entry
    b: Entry

    def entry(self, slot: str) -> Entry:
        """The entry of slot ``a`` or ``b``."""
        return self.a if slot == "a" else self.b

    def having(self, slot: str, entry: Entry) -> BootRecord:
        """The same record with another entry for ``slot``."""
        return replace(self, a=entry) if slot == "a" else replace(self, b=entry)

    @property
    def trial(self) -> str | None:
        """The slot on trial, if one is."""
        return next((s for s in SLOTS if self.entry(s).standing is Standing.TRIAL), None)

    @property
    def inactive(self) -> str:
        """The slot that may be written: neither primary nor running."""
        if self.running != self.primary:
            raise LocalFault(
                "trial-pending",
                "installation refused",
                f"slot {self.running} is on trial, slot {self.primary} is its fallback",
                "let the trial end first: `firmledger-device confirm` or `rollback`",
            )
        return other(self.primary)

    def encode(self) -> bytes:
        """The record's body, `RECORD_BYTES` bytes."""
        return _RECORD.pack(
            SLOTS.index(self.primary),
            SLOTS.index(self.running),
            self.attempts,
            _pack(self.a),
            _pack(self.b),
        )

    @classmethod
    def decode(cls, body: bytes) -> BootRecord:
        """The record of `encode`; `Malformed` otherwise."""
        if len(body) != RECORD_BYTES:
            raise damaged(f"the boot record has {len(body)} bytes, not {RECORD_BYTES}")
        primary, running, attempts, a, b = _RECORD.unpack(body)
        if primary > 1 or running > 1:
            raise damaged("the boot record names a third slot")
        return cls(SLOTS[primary], SLOTS[running], attempts, _unpack(a), _unpack(b))


def _pack(e: Entry) -> bytes:
    return _ENTRY.pack(e.standing, e.digest, e.size, e.version, e.security_counter, e.release_id)


def _unpack(raw: bytes) -> Entry:
    standing, digest, size, version, counter, release_id = _ENTRY.unpack(raw)
    if standing > max(Standing):
        raise damaged("the boot record names an unknown standing")
    return Entry(Standing(standing), Digest(digest), size, Version(version), counter, release_id)


def other(slot: str) -> str:
    """The other slot."""
    return "b" if slot == "a" else "a"


# -- what the device does --------------------------------------------------------------------------


def factory(entry: Entry) -> BootRecord:
    """A new device: slot a holds the image it came with."""
    return BootRecord("a", "a", 0, replace(entry, standing=Standing.GOOD), Entry())


def vacated(record: BootRecord, slot: str) -> BootRecord:
    """Before the first byte of ``slot`` is overwritten; `Misuse` for a slot that may be needed."""
    if slot in (record.primary, record.running):
        raise Misuse("slot-in-use", f"slot {slot} refused", "it is what boots", "write the other")
    return replace(record.having(slot, Entry()), attempts=0)


def armed(record: BootRecord, slot: str, entry: Entry, attempts: int) -> BootRecord:
    """The switch: ``slot`` holds a checked image and boots next, at most ``attempts`` times."""
    if slot in (record.primary, record.running):
        raise Misuse("slot-in-use", f"slot {slot} refused", "it is what boots", "arm the other")
    if not 1 <= attempts <= MAX_ATTEMPTS:
        raise Misuse("attempts-range", "trial refused", f"{attempts} boots", "allow 1 to 255")
    trial = replace(entry, standing=Standing.TRIAL)
    return replace(record.having(slot, trial), attempts=attempts)


def kept(record: BootRecord) -> BootRecord:
    """The trial went well: what runs is the primary from now on, and boots without counting."""
    slot = record.trial
    if slot is None or slot != record.running:
        raise Misuse("no-trial", "confirmation refused", "no image is on trial", "nothing to do")
    good = replace(record.entry(slot), standing=Standing.GOOD)
    return replace(record.having(slot, good), primary=slot, attempts=0)


def given_up(record: BootRecord) -> BootRecord:
    """The trial went badly: the primary boots next. The image that ran until now keeps running."""
    slot = record.trial
    if slot is None:
        raise Misuse("no-trial", "rollback refused", "no image is on trial", "nothing to do")
    bad = replace(record.entry(slot), standing=Standing.BAD)
    return replace(record.having(slot, bad), attempts=0)


# -- what a bootloader does ------------------------------------------------------------------------


def counted(record: BootRecord) -> BootRecord:
    """First step of every boot: a pending trial loses one attempt, or, with none left, ends.

    The caller makes the result durable before it boots anything.
    """
    slot = record.trial
    if slot is None:
        return record
    if record.attempts == 0:
        return given_up(record)
    return replace(record, attempts=record.attempts - 1)


def choose(record: BootRecord, intact: Callable[[str], bool]) -> BootRecord:
    """Second step: the record with the slot to boot as ``running``; ``intact`` hashes a slot.

    In order: the trial, the primary, and where the primary is damaged the other confirmed image.
    `LocalFault` if nothing may boot.
    """
    slot = record.trial
    if slot is not None:
        if intact(slot):
            return replace(record, running=slot)
        record = given_up(record)
    for slot in (record.primary, other(record.primary)):
        if record.entry(slot).standing is Standing.GOOD and intact(slot):
            return replace(record, primary=slot, running=slot)
    raise LocalFault(
        "nothing-boots",
        "boot refused",
        "neither slot holds an image with the digest in its record",
        "write a good image over the wire: `firmledger-device init --force --image FILE`",
    )
