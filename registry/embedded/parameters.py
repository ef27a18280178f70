"""Reads the values in JSON-RPC requests; `Malformed` for anything else, and nothing else.

Forms are those of the Ethereum JSON-RPC specification: a *quantity* is hex without leading zeros
asked for leniently, *data* is 0x and whole bytes. Every length is bounded before it is decoded.
"""

from __future__ import annotations

import re
from typing import Any

from protocol.errors import Malformed
from registry.embedded.admission import MAX_RAW
from registry.embedded.calls import Call
from registry.embedded.sealing import BLOCK_GAS

MAX_CHOICES = 256  # addresses in a filter, alternatives of a topic
MAX_TOPICS = 4

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def invalid(why: str) -> Malformed:
    """The answer to a value that cannot be read."""
    return Malformed("invalid-params", "request refused", why, "see the method's specification")


def positional(params: object, least: int, most: int) -> list[Any]:
    """The positional parameters, padded with None up to ``most``."""
    given = [] if params is None else params
    if not isinstance(given, list) or not least <= len(given) <= most:
        raise invalid(f"expected {least} to {most} positional parameters")
    return given + [None] * (most - len(given))


def quantity(value: object) -> int:
    """A number up to 2**256-1."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise invalid(f"{_shown(value)} is not a quantity, such as 0x1f")
    return int(value, 16)


def data(value: object, *, most: int = MAX_RAW) -> bytes:
    """Bytes, at most ``most`` of them."""
    if not isinstance(value, str) or len(value) > 2 + 2 * most or not _DATA.fullmatch(value):
        raise invalid(f"{_shown(value)} is not data of at most {most} bytes, such as 0x00ff")
    return bytes.fromhex(value[2:])


def fixed(value: object, size: int) -> bytes:
    """Exactly ``size`` bytes: 20 for an address, 32 for a hash."""
    found = data(value, most=size)
    if len(found) != size:
        raise invalid(f"{_shown(value)} has {len(found)} bytes, not {size}")
    return found


def slot(value: object) -> int:
    """A storage slot, as a quantity or as data of up to 32 bytes."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise invalid(f"{_shown(value)} is not a storage slot")
    return int(value, 16)


def address_choice(value: object) -> list[bytes]:
    """A filter's address: none, one, or several."""
    if value is None:
        return []
    return [fixed(item, 20) for item in _several(value)]


def topic_choices(value: object) -> list[list[bytes]]:
    """A filter's topics by position; an empty list matches anything."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_TOPICS:
        raise invalid(f"topics are a list of at most {MAX_TOPICS}")
    return [[] if some is None else [fixed(item, 32) for item in _several(some)] for some in value]


def call(value: object) -> Call:
    """A call object; prices in it are read by nobody here, for gas is free."""
    if not isinstance(value, dict):
        raise invalid("a call is an object")
    payload = value.get("input", value.get("data"))
    return Call(
        sender=fixed(value["from"], 20) if value.get("from") is not None else bytes(20),
        to=fixed(value["to"], 20) if value.get("to") is not None else None,
        data=data(payload) if payload is not None else b"",
        value=quantity(value["value"]) if value.get("value") is not None else 0,
        gas=min(quantity(value["gas"]), BLOCK_GAS) if value.get("gas") is not None else BLOCK_GAS,
    )


def _several(value: object) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_CHOICES:
        raise invalid(f"at most {MAX_CHOICES} alternatives are taken")
    return items


def _shown(value: object) -> str:
    return repr(value[:80] if isinstance(value, str) else type(value).__name__)
