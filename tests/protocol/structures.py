"""CBOR structures as trees of numbered places, bstr-wrapped parts included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocol import cbor
from protocol.errors import Malformed


@dataclass(frozen=True)
class Wrapped:
    """The content of a bstr-wrapped element."""

    value: Any


def deep(value: Any) -> Any:
    """A decoded structure with its bstr-wrapped parts decoded too, as `Wrapped`."""
    if isinstance(value, bytes) and len(value) > 3:
        try:
            inner = cbor.loads(value, max_bytes=4096, tags=(18, 96, 107))
        except Malformed:
            return value
        return Wrapped(deep(inner)) if isinstance(inner, list | dict | cbor.Tag) else value
    if isinstance(value, list):
        return [deep(item) for item in value]
    if isinstance(value, dict):
        return {key: deep(item) for key, item in value.items()}
    if isinstance(value, cbor.Tag):
        return cbor.Tag(value.number, deep(value.value))
    return value


def shallow(value: Any) -> Any:
    """The inverse of `deep`."""
    if isinstance(value, Wrapped):
        return cbor.dumps(shallow(value.value))
    if isinstance(value, list):
        return [shallow(item) for item in value]
    if isinstance(value, dict):
        return {key: shallow(item) for key, item in value.items()}
    if isinstance(value, cbor.Tag):
        return cbor.Tag(value.number, shallow(value.value))
    return value


def places(value: Any) -> int:
    """How many nodes a deep structure has, itself included."""
    return 1 + sum(places(child) for child in _children(value))


def _children(value: Any) -> list[Any]:
    if isinstance(value, Wrapped | cbor.Tag):
        return [value.value]
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def replaced(value: Any, place: int, new: Any) -> Any:
    """``value`` with its node number ``place`` (depth first, from 0) replaced."""
    if place == 0:
        return new
    place -= 1
    children = _children(value)
    index = 0
    while place >= (size := places(children[index])):
        place -= size
        index += 1
    changed = replaced(children[index], place, new)
    if isinstance(value, Wrapped):
        return Wrapped(changed)
    if isinstance(value, cbor.Tag):
        return cbor.Tag(value.number, changed)
    if isinstance(value, dict):
        return value | {list(value)[index]: changed}
    return [*value[:index], changed, *value[index + 1 :]]
