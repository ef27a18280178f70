"""The nouns of the device's own story: what it is to run, what it sees around it.

Plain frozen values without behaviour beyond reading and writing themselves. Nothing in here is
proven by being here: a `Target` is made from an offer that `core.trust` and `protocol.bundle` let
through, and from nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from protocol.errors import Malformed
from protocol.ids import U32_MAX, U64_MAX, Digest, Version


@dataclass(frozen=True, slots=True)
class Target:
    """One image this device is to run: a proven, signed release, or its own former image.

    ``former`` marks the owner's rollback to an image confirmed here before: it is not installed
    again, so the ledger is not asked and the security counter does not gate it.
    Sizes in bytes; ``payload_*`` describe the ciphertext, ``image_*`` the plaintext.
    """

    release_id: int
    version: Version
    security_counter: int
    image_digest: Digest
    image_size: int
    payload_digest: Digest
    payload_size: int
    manifest_digest: Digest
    critical: bool = False
    former: bool = False

    def to_list(self) -> list[Any]:
        """As plain values, for the journal."""
        return [
            self.release_id,
            int(self.version),
            self.security_counter,
            bytes(self.image_digest),
            self.image_size,
            bytes(self.payload_digest),
            self.payload_size,
            bytes(self.manifest_digest),
            self.critical,
            self.former,
        ]

    @classmethod
    def from_list(cls, row: Any) -> Self:
        """The target of `to_list`; `Malformed` otherwise."""
        if not isinstance(row, list) or len(row) != 10:
            raise damaged("a target has ten members")
        return cls(
            natural(row[0], U32_MAX),
            Version(natural(row[1])),
            natural(row[2], U32_MAX),
            Digest(octets(row[3])),
            natural(row[4]),
            Digest(octets(row[5])),
            natural(row[6]),
            Digest(octets(row[7])),
            truth(row[8]),
            truth(row[9]),
        )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What may stand in the way of an installation right now, as the device's owner measures it.

    ``battery`` in percent, None on mains; ``free`` bytes for the slot, None where the slot is
    reserved in full.
    """

    busy: bool = False
    battery: int | None = None
    metered: bool = False
    free: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A health check's answer, and a short reason when it is no."""

    healthy: bool
    reason: str = ""


# -- reading what was journalled -------------------------------------------------------------------


def damaged(why: str) -> Malformed:
    """The error for state of our own that cannot be read."""
    return Malformed(
        "state-damaged",
        "the device's state refused",
        why,
        "restore the device directory, or accept its loss with `init --force --forget`",
    )


def natural(value: Any, maximum: int = U64_MAX) -> int:
    """``value`` as an integer from 0 to ``maximum``; `Malformed` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise damaged(f"{str(value)[:40]} is not an integer up to {maximum}")
    return value


def octets(value: Any) -> bytes:
    """``value`` as bytes; `Malformed` otherwise."""
    if not isinstance(value, bytes):
        raise damaged("bytes are missing")
    return value


def truth(value: Any) -> bool:
    """``value`` as true or false; `Malformed` otherwise."""
    if not isinstance(value, bool):
        raise damaged("a true or false is missing")
    return value


def words(value: Any, maximum: int = 200) -> str:
    """``value`` as text of at most ``maximum`` characters; `Malformed` otherwise."""
    if not isinstance(value, str) or len(value) > maximum:
        raise damaged("a text is missing or too long")
    return value
