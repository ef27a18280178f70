"""Deterministic CBOR: one value, one encoding (RFC 8949 section 4.2.1), and nothing else is read.

Guarantees:

* `dumps` writes the deterministic encoding; `loads` accepts that encoding only, so
  ``dumps(loads(data)) == data`` for all it accepts, and no bit of what was read is without meaning.
* `loads` raises `Malformed` and nothing else, whatever the bytes; its work is linear in their
  number, its recursion is bounded by `MAX_DEPTH`, and it allocates nothing that the bytes present
  do not fill.

Rules: integers of 64 bits, byte and text strings (UTF-8), arrays, maps with integer, byte or text
keys in bytewise order, false, true, null, and the tags a caller names. No floats, no indefinite
lengths, no other simple values.

Why not cbor2: its canonical mode sorts map keys by length first (RFC 7049), and a safe reading of
hostile bytes would need a scan like this one before it anyway. The tests hold both side by side.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NoReturn

from protocol.errors import Malformed, Misuse

MAX_DEPTH = 16
_INT_MAX = 2**64 - 1
_SMALLEST_OF_WIDTH = {1: 24, 2: 2**8, 4: 2**16, 8: 2**32}


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged value (RFC 8949 section 3.4)."""

    number: int
    value: Any


def _refuse(reason: str, why: str) -> NoReturn:
    raise Malformed(reason, "CBOR data refused", why, "get the data again from its author")


# Writing


def dumps(value: Any) -> bytes:
    """The deterministic encoding of ``value``; `Misuse` if it has none under the rules above."""
    out = bytearray()
    _write(value, out, 0)
    return bytes(out)


def _head(major: int, argument: int) -> bytes:
    if 0 <= argument < 24:
        return bytes((major << 5 | argument,))
    for code, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if 0 <= argument < 1 << 8 * width:
            return bytes((major << 5 | code,)) + argument.to_bytes(width, "big")
    raise Misuse(
        "cbor-integer",
        "CBOR encoding refused",
        f"{argument} does not fit 64 bits",
        "use an integer of at most 64 bits",
    )


def _write(value: Any, out: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Misuse(
            "cbor-depth",
            "CBOR encoding refused",
            f"nested deeper than {MAX_DEPTH}",
            "flatten the structure",
        )
    if value is None or isinstance(value, bool):
        out.append({False: 0xF4, True: 0xF5, None: 0xF6}[value])
    elif isinstance(value, int):
        out += _head(0, value) if value >= 0 else _head(1, -1 - value)
    elif isinstance(value, bytes):
        out += _head(2, len(value)) + value
    elif isinstance(value, str):
        out += _write_text(value)
    elif isinstance(value, list | tuple):
        out += _head(4, len(value))
        for item in value:
            _write(item, out, depth + 1)
    elif isinstance(value, dict):
        _write_map(value, out, depth)
    elif isinstance(value, Tag):
        out += _head(6, value.number)
        _write(value.value, out, depth + 1)
    else:
        raise Misuse(
            "cbor-type",
            "CBOR encoding refused",
            f"{type(value).__name__} has no encoding here",
            "use integers, bytes, text, lists, maps, booleans or None",
        )


def _write_text(value: str) -> bytes:
    try:
        text = value.encode()
    except UnicodeEncodeError:
        raise Misuse(
            "cbor-text",
            "CBOR encoding refused",
            f"{value!r:.60} is no Unicode text",
            "replace its unpaired surrogates",
        ) from None
    return _head(3, len(text)) + text


def _write_map(value: dict[Any, Any], out: bytearray, depth: int) -> None:
    entries = []
    for key in value:
        if isinstance(key, bool) or not isinstance(key, int | bytes | str):
            raise Misuse(
                "cbor-key",
                "CBOR encoding refused",
                f"{key!r} cannot be a map key",
                "use integers, bytes or text as keys",
            )
        entries.append((dumps(key), key))
    out += _head(5, len(entries))
    for encoded, key in sorted(entries):
        out += encoded
        _write(value[key], out, depth + 1)


# Reading


def loads(
    data: bytes,
    *,
    max_bytes: int,
    max_items: int | None = None,
    tags: Collection[int] = (),
    sorted_keys: bool = True,
) -> Any:
    """The one value that ``data`` encodes deterministically; `Malformed` for anything else.

    ``max_bytes`` bounds the length before anything is read; ``max_items`` the number of values,
    containers and map keys included, for what is much longer than it has members (None: as many as
    there are bytes). ``tags`` are the tag numbers allowed.
    ``sorted_keys=False`` waives the order of map keys alone, for foreign formats that do not
    promise it; repeated keys are refused either way.
    """
    if len(data) > max_bytes:
        _refuse("oversized", f"it has {len(data)} bytes, more than {max_bytes}")
    most = len(data) if max_items is None else max_items
    reader = _Reader(data, most, tags, sorted_keys)
    value = reader.item(0)
    if reader.at != len(data):
        _refuse("trailing-bytes", f"{len(data) - reader.at} bytes follow its end")
    return value


class _Reader:
    """A cursor over the bytes; ``at`` never passes their end."""

    __slots__ = ("at", "data", "left", "sorted_keys", "tags")

    def __init__(
        self, data: bytes, max_items: int, tags: Collection[int], sorted_keys: bool
    ) -> None:
        self.data, self.at, self.left = data, 0, max_items
        self.tags, self.sorted_keys = tags, sorted_keys

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            _refuse("truncated", f"it ends after {len(self.data)} bytes, {end} were announced")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            _refuse("not-canonical", "a length is indefinite or reserved")
        width = 1 << info - 24
        value = int.from_bytes(self.take(width), "big")
        if value < _SMALLEST_OF_WIDTH[width]:
            _refuse("not-canonical", f"{value} is written longer than it needs to be")
        return value

    def item(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            _refuse("too-deep", f"it is nested deeper than {MAX_DEPTH}")
        first = self.take(1)[0]
        self.left -= 1
        if self.left < 0:
            _refuse("too-many-items", "it has more items than its format has room for")
        major, info = first >> 5, first & 31
        if major == 7:
            return self.simple(info)
        argument = self.argument(info)
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return bytes(self.take(argument))
        if major == 3:
            return self.text(argument)
        if major == 6:
            if argument not in self.tags:
                _refuse("unexpected-tag", f"tag {argument} has no place here")
            return Tag(argument, self.item(depth + 1))
        # Each element takes a byte or more: a count beyond what is left is refused before any work.
        if argument * (major - 3) > len(self.data) - self.at:
            _refuse("truncated", f"{argument} elements were announced, the data ends before")
        if major == 4:
            return [self.item(depth + 1) for _ in range(argument)]
        return self.map(argument, depth)

    def simple(self, info: int) -> bool | None:
        if info not in (20, 21, 22):
            _refuse("unexpected-type", "a float or an unknown simple value has no place here")
        return {20: False, 21: True}.get(info)

    def text(self, length: int) -> str:
        raw = self.take(length)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            _refuse("not-utf8", "a text string is not UTF-8")

    def map(self, count: int, depth: int) -> dict[int | bytes | str, Any]:
        entries: dict[int | bytes | str, Any] = {}
        previous = b""
        for _ in range(count):
            start = self.at
            if start < len(self.data) and self.data[start] >> 5 > 3:
                _refuse("unexpected-type", "a map key is no integer, byte or text string")
            key = self.item(depth + 1)
            encoded = self.data[start : self.at]
            if key in entries:
                _refuse("duplicate-key", f"the map key {key!r:.40} comes twice")
            if self.sorted_keys and encoded < previous:
                _refuse("not-canonical", "map keys are not in bytewise order")
            previous = encoded
            entries[key] = self.item(depth + 1)
        return entries


# Typed access to what was read: each refuses with `Malformed`, naming the field


def _unexpected(what: str, why: str) -> NoReturn:
    raise Malformed(
        "unexpected-structure",
        f"{what} refused",
        why,
        "get it again from its author, in the format of docs/spec",
    )


def as_uint(value: Any, what: str, *, maximum: int = _INT_MAX) -> int:
    """``value`` as an integer of 0 to ``maximum``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        _unexpected(what, f"it is no integer of 0 to {maximum}")
    return value


def as_bytes(value: Any, what: str, *, size: int | None = None, maximum: int = _INT_MAX) -> bytes:
    """``value`` as a byte string, of exactly ``size`` or at most ``maximum`` bytes."""
    if not isinstance(value, bytes):
        _unexpected(what, "it is no byte string")
    if len(value) > maximum or (size is not None and len(value) != size):
        _unexpected(what, f"it has {len(value)} bytes")
    return value


def as_text(value: Any, what: str, *, maximum: int) -> str:
    """``value`` as text of at most ``maximum`` bytes of UTF-8."""
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > maximum:
        _unexpected(what, f"it is no text of at most {maximum} bytes")
    return value


def as_list(value: Any, what: str, *, size: int | None = None) -> list[Any]:
    """``value`` as an array, of exactly ``size`` elements if given."""
    if not isinstance(value, list):
        _unexpected(what, "it is no array")
    if size is not None and len(value) != size:
        _unexpected(what, f"it has {len(value)} elements, not {size}")
    return value


def as_map(
    value: Any, what: str, *, required: Collection[Any], optional: Collection[Any] = ()
) -> dict[Any, Any]:
    """``value`` as a map with all ``required`` keys and none beyond those and ``optional``."""
    if not isinstance(value, dict):
        _unexpected(what, "it is no map")
    if missing := [key for key in required if key not in value]:
        _unexpected(what, f"it lacks the key {missing[0]!r}")
    if surplus := [key for key in value if key not in required and key not in optional]:
        _unexpected(what, f"it has the unknown key {surplus[0]!r:.40}")
    return value
