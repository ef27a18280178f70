"""Two copies of a record, one of which always survives.

The record stands twice, in two places that are never written at the same time. Each copy carries a
sequence number, its length and a CRC-32 over all of it, as U-Boot's redundant environment does. To
write: seal with the next sequence number into the place that `place` names (the one that does *not*
hold the newest copy), then make it durable. To read: take the newest copy that is whole.

Guarantees: a write that is cut anywhere, or lands in part, leaves the former record readable.

It does *not* write, sync or lock; and a CRC finds accidents, not forgery.
"""

from __future__ import annotations

import struct
import zlib

from protocol.ids import U64_MAX

_HEAD = struct.Struct(">4sQII")
HEAD_BYTES = _HEAD.size


def seal(magic: bytes, sequence: int, body: bytes) -> bytes:
    """One copy: magic (4), sequence (8), length (4), CRC-32 (4), body; integers big-endian."""
    return _HEAD.pack(magic, sequence, len(body), _crc(magic, sequence, body)) + body


def unseal(magic: bytes, raw: bytes) -> tuple[int, bytes] | None:
    """(sequence, body) of the copy at the start of ``raw``, or None if it is not whole."""
    if len(raw) < HEAD_BYTES:
        return None
    found, sequence, length, crc = _HEAD.unpack_from(raw)
    body = raw[HEAD_BYTES : HEAD_BYTES + length]
    if found != magic or len(body) != length or crc != _crc(magic, sequence, body):
        return None
    return sequence, body


def newest(magic: bytes, first: bytes, second: bytes) -> tuple[int, bytes] | None:
    """(sequence, body) of the newest whole copy of the two places, or None if neither is whole."""
    whole = [copy for copy in (unseal(magic, first), unseal(magic, second)) if copy]
    return max(whole, key=lambda copy: copy[0], default=None)


def place(sequence: int) -> int:
    """Which of the two places (0 or 1) holds, and will hold, the copy of that sequence number."""
    return sequence & 1


def following(sequence: int) -> int:
    """The sequence number after this one."""
    if sequence >= U64_MAX:
        raise OverflowError("sequence numbers are used up")
    return sequence + 1


def _crc(magic: bytes, sequence: int, body: bytes) -> int:
    return zlib.crc32(_HEAD.pack(magic, sequence, len(body), 0) + body)
