"""Bytes as an adversary would send them: garbage, and good data bent a little.

Two ways of bending: of the bytes, and of the structure below them (CBOR, RLP, JSON), which is then
encoded canonically again, so that what looks deeper than the encoding meets it too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from protocol import cbor, rlp
from protocol.errors import FirmledgerError

MAX_BYTES = 64 * 1024
TAGS = frozenset({16, 18, 96, 107})
INTERESTING = (
    *(0, 1, -1, 23, 24, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**64)),
)

Mutation = Callable[[random.Random, bytes], bytes]


def mutant(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One input: rarely garbage or a seed as it is, mostly a seed bent one to four times."""
    data = rng.choice(seeds)
    draw = rng.random()
    if draw < 0.05:
        return rng.randbytes(rng.choice((0, 1, 2, 5, 40, 600)))
    if draw < 0.06:
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_WAYS)(rng, data) if rng.random() < 0.97 else _splice(rng, data, seeds)
    return data[:MAX_BYTES]


def _flip(rng: random.Random, data: bytes) -> bytes:
    return _at(rng, data, 1, lambda piece: bytes([piece[0] ^ 1 << rng.randrange(8)]))


def _overwrite(rng: random.Random, data: bytes) -> bytes:
    return _at(rng, data, rng.choice((1, 2, 4, 32)), lambda piece: rng.randbytes(len(piece)))


def _extreme(rng: random.Random, data: bytes) -> bytes:
    fill = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80"))
    return _at(rng, data, rng.choice((1, 2, 4, 8)), lambda piece: fill * len(piece))


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 64))) + data[at:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    return _at(rng, data, rng.choice((1, 2, 8, 64)), lambda _: b"")


def _repeat(rng: random.Random, data: bytes) -> bytes:
    times = rng.choice((2, 3, 50))
    return _at(rng, data, rng.choice((1, 9, 64)), lambda piece: piece * times)


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _nest(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((b"\x81", b"\xc1", b"[", b"\xd9\xd9\xf7", b"\xf9\x01")) * 2000 + data


def _at(rng: random.Random, data: bytes, size: int, change: Callable[[bytes], bytes]) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + change(data[at : at + size]) + data[at + size :]


def _splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _structured(rng: random.Random, data: bytes) -> bytes:
    """The same with one part of its structure replaced, in whichever language it is written."""
    for read, write in (_CBOR, _RLP, _JSON):
        try:
            value = read(data)
        except (FirmledgerError, ValueError, RecursionError):
            continue
        try:
            return write(_bent(rng, value, 0))
        except (FirmledgerError, ValueError, TypeError):
            return data
    return data


def _bent(rng: random.Random, value: Any, depth: int) -> Any:
    if isinstance(value, cbor.Tag):
        if rng.random() < 0.05:
            return cbor.Tag(rng.choice(sorted(TAGS)), value.value)
        return cbor.Tag(value.number, _bent(rng, value.value, depth))
    if depth < 8 and isinstance(value, (list, dict)) and value and rng.random() < 0.85:
        return _bent_within(rng, value, depth)
    if isinstance(value, bytes) and rng.random() < 0.6:
        # A byte string often holds another structure; otherwise it is bent as bytes.
        return _structured(rng, value) if rng.random() < 0.7 else rng.choice(_WAYS)(rng, value)
    if isinstance(value, str):
        return rng.choice(("", "é" * 200, value + "0", value[1:], value.upper(), 0, None, "0x"))
    return rng.choice(
        (
            *(None, True, False, [], {}, "", b"", rng.choice(INTERESTING)),
            *(rng.choice(INTERESTING), rng.randbytes(rng.choice((1, 20, 32, 33, 65)))),
            *([value], [value] * rng.choice((2, 17, 200)), {1: value}),
        )
    )


def _bent_within(rng: random.Random, value: Any, depth: int) -> Any:
    if isinstance(value, list):
        made = list(value)
        at = rng.randrange(len(made))
        match rng.randrange(12):
            case 0:
                del made[at]
            case 1:
                made.insert(at, made[at])
            case 2:
                made += made
            case 3:
                rng.shuffle(made)
            case _:
                made[at] = _bent(rng, made[at], depth + 1)
        return made
    bent = dict(value)
    key = rng.choice(list(bent))
    match rng.randrange(12):
        case 0:
            del bent[key]
        case 1:
            bent[rng.choice((0, -1, 99, "x", b"x"))] = bent[key]
        case _:
            bent[key] = _bent(rng, bent[key], depth + 1)
    return bent


def _read_rlp(data: bytes) -> Any:
    item = rlp.decode(data, max_bytes=MAX_BYTES, max_depth=16, max_items=10_000)
    if isinstance(item, bytes):
        raise ValueError("a byte string is bent as bytes")
    return item


_CBOR = (lambda data: cbor.loads(data, max_bytes=MAX_BYTES, tags=TAGS), cbor.dumps)
_RLP = (_read_rlp, rlp.encode)
_JSON = (json.loads, lambda value: json.dumps(value).encode())
_WAYS: tuple[Mutation, ...] = (
    *(_flip, _overwrite, _extreme, _insert, _delete, _repeat, _truncate, _nest),
    *(_structured,) * 8,
)
