"""Recursive Length Prefix (Ethereum Yellow Paper, appendix B), strict and bounded.

Guarantees: for every byte string there is at most one item that `decode` returns, and
``encode(decode(data)) == data``; nothing is read past the given bounds, and no input, however
hostile, costs more than its own length in work or ``max_depth`` in stack.

Rules:

* One encoding only: a byte below 0x80 stands for itself, lengths up to 55 use the short form,
  longer lengths carry no leading zero, and nothing follows the item.
* Bounds are arguments without defaults: who reads must say how much he expects.
* An item is ``bytes`` or a list of items; numbers are ``bytes`` until `to_uint` reads them.

Not here: schemas. Field counts and widths are for `protocol.header`, `protocol.trie` and
`protocol.proof` to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from protocol.errors import Malformed, Misuse

Item: TypeAlias = "bytes | list[Item]"
Encodable: TypeAlias = "bytes | Sequence[Encodable]"

_SHORT = 55  # longest payload whose length fits the prefix byte itself


def decode(data: bytes, *, max_bytes: int, max_depth: int, max_items: int) -> Item:
    """The one item that ``data`` encodes, whole.

    ``max_bytes``: refuse longer input unread; ``max_depth``: list levels allowed (0 = a byte string
    only); ``max_items``: byte strings and lists together, the outermost included.
    Raises `Malformed`.
    """
    if len(data) > max_bytes:
        raise _malformed("rlp-oversized", f"it has {len(data)} bytes, the limit is {max_bytes}")
    reader = _Reader(data, max_items)
    item, end = reader.item(0, len(data), max_depth)
    if end != len(data):
        raise _malformed("rlp-trailing", f"{len(data) - end} bytes follow the item")
    return item


def encode(item: Encodable) -> bytes:
    """The canonical encoding of ``item`` (bytes, or nested sequences of bytes)."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        raw = bytes(item)
        return raw if len(raw) == 1 and raw[0] < 0x80 else _prefix(0x80, len(raw)) + raw
    payload = b"".join(encode(part) for part in item)
    return _prefix(0xC0, len(payload)) + payload


def from_uint(value: int) -> bytes:
    """A scalar: big-endian without leading zeros, zero being the empty string."""
    if value < 0:
        raise Misuse("rlp-range", "number refused", f"{value} is negative", "RLP has none of these")
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def to_uint(item: Item, max_bytes: int, noun: str) -> int:
    """The scalar in ``item``, at most ``max_bytes`` long; `Malformed` if it is not one."""
    if not isinstance(item, bytes):
        raise _malformed("rlp-shape", f"{noun} is a list, not a number")
    if len(item) > max_bytes:
        raise _malformed("rlp-range", f"{noun} has {len(item)} bytes, the limit is {max_bytes}")
    if item[:1] == b"\x00":
        raise _malformed("rlp-not-canonical", f"{noun} has leading zeros")
    return int.from_bytes(item, "big")


def to_bytes(item: Item, size: int, noun: str) -> bytes:
    """The byte string in ``item``, of exactly ``size`` bytes; `Malformed` otherwise."""
    if not isinstance(item, bytes) or len(item) != size:
        found = f"{len(item)} bytes" if isinstance(item, bytes) else "a list"
        raise _malformed("rlp-shape", f"{noun} is {found}, not {size} bytes")
    return item


def to_list(item: Item, noun: str) -> list[Item]:
    """The list in ``item``; `Malformed` otherwise."""
    if not isinstance(item, list):
        raise _malformed("rlp-shape", f"{noun} is a byte string, not a list")
    return item


class _Reader:
    """Reads items of one input and counts them."""

    def __init__(self, data: bytes, max_items: int) -> None:
        self._data = data
        self._left = max_items

    def item(self, at: int, end: int, depth: int) -> tuple[Item, int]:
        """The item that starts at ``at`` and where it ends, which is at most ``end``."""
        if self._left == 0:
            raise _malformed("rlp-too-many", "it has more items than allowed")
        self._left -= 1
        is_list, start, stop = self._span(at, end)
        if not is_list:
            return self._data[start:stop], stop
        if depth == 0:
            raise _malformed("rlp-too-deep", "its lists are nested deeper than allowed")
        items: list[Item] = []
        while start < stop:
            part, start = self.item(start, stop, depth - 1)
            items.append(part)
        return items, stop

    def _span(self, at: int, end: int) -> tuple[bool, int, int]:
        """Whether a list starts at ``at``, and the bounds of its payload."""
        if at >= end:
            raise _malformed("rlp-truncated", "it ends where an item should start")
        first = self._data[at]
        if first < 0x80:
            return False, at, at + 1
        is_list = first >= 0xC0
        size = first - (0xC0 if is_list else 0x80)
        start = at + 1
        if size > _SHORT:
            size, start = self._long_size(start, start + size - _SHORT, end)
        stop = start + size
        if stop > end:
            raise _malformed("rlp-truncated", f"{stop - end} bytes of an item are missing")
        if not is_list and size == 1 and self._data[start] < 0x80:
            raise _malformed("rlp-not-canonical", "a byte that stands for itself has a prefix")
        return is_list, start, stop

    def _long_size(self, at: int, start: int, end: int) -> tuple[int, int]:
        """The payload size written in bytes ``at`` to ``start``, and ``start``."""
        if start > end:
            raise _malformed("rlp-truncated", "it ends within a length")
        if self._data[at] == 0:
            raise _malformed("rlp-not-canonical", "a length has leading zeros")
        size = int.from_bytes(self._data[at:start], "big")
        if size <= _SHORT:
            raise _malformed("rlp-not-canonical", "a short length is written in the long form")
        return size, start


def _prefix(base: int, size: int) -> bytes:
    """The bytes before a payload of ``size``; ``base`` is 0x80 for strings, 0xc0 for lists."""
    if size <= _SHORT:
        return bytes([base + size])
    length = from_uint(size)  # at most 8 bytes: memory holds no more
    return bytes([base + _SHORT + len(length)]) + length


def _malformed(reason: str, why: str) -> Malformed:
    return Malformed(reason, "RLP data refused", why, "fetch it again, from another source")
