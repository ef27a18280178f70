"""RLP: the only decoding of the only encoding, against package ``rlp``."""

from __future__ import annotations

from contextlib import suppress

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Malformed, Misuse
from protocol.rlp import Item, decode, encode, from_uint, to_bytes, to_list, to_uint

BOUNDS = {"max_bytes": 4096, "max_depth": 16, "max_items": 4096}
ITEMS = st.recursive(
    st.one_of(st.binary(max_size=80), st.binary(min_size=250, max_size=300)),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@given(ITEMS)
def test_encoding_is_that_of_the_oracle_and_reads_back(item: Item) -> None:
    raw = encode(item)
    assert raw == oracle.encode(item)
    assert decode(raw, max_bytes=len(raw), max_depth=16, max_items=4096) == item


@given(st.binary(max_size=80))
def test_garbage_is_read_as_the_oracle_reads_it_or_refused(raw: bytes) -> None:
    try:
        expected = oracle.decode(raw, strict=True)
    except oracle.exceptions.DecodingError:
        with pytest.raises(Malformed):
            decode(raw, **BOUNDS)
    else:
        assert decode(raw, **BOUNDS) == expected
        assert encode(expected) == raw


@given(ITEMS, st.data())
def test_a_flipped_bit_is_another_item_or_refused(item: Item, data: st.DataObject) -> None:
    raw = bytearray(encode(item))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with suppress(Malformed):
        assert decode(bytes(raw), **BOUNDS) != item


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "rlp-truncated"),
        ("8100", "rlp-not-canonical"),  # a byte below 0x80 with a prefix
        ("817f", "rlp-not-canonical"),
        ("b80161", "rlp-not-canonical"),  # a short length in the long form
        ("b837" + "00" * 55, "rlp-not-canonical"),  # 55 bytes still have the short form
        ("f837" + "80" * 55, "rlp-not-canonical"),
        ("b90038" + "00" * 56, "rlp-not-canonical"),  # a length with a leading zero
        ("f80161", "rlp-not-canonical"),
        ("83646f", "rlp-truncated"),
        ("c2", "rlp-truncated"),
        ("b9ff", "rlp-truncated"),
        ("bfffffffffffffffff", "rlp-truncated"),
        ("ffffffffffffffffff", "rlp-truncated"),
        ("c483646f67" + "00", "rlp-trailing"),
        ("8080", "rlp-trailing"),
        ("c2836161", "rlp-truncated"),  # an item that leaves its list
    ],
)
def test_each_departure_from_the_one_form_is_named(text: str, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(bytes.fromhex(text), **BOUNDS)
    assert caught.value.reason == reason


@pytest.mark.parametrize("size", [0, 1, 54, 55, 56, 255, 256])
def test_forms_change_where_the_paper_says(size: int) -> None:
    for item in (b"\xee" * size, [b""] * size):
        raw = encode(item)
        assert raw == oracle.encode(item)
        assert len(raw) - size == 1 + (size > 55) + (size > 255)
        assert decode(raw, **BOUNDS) == item


def nested(levels: int) -> bytes:
    """So many lists inside each other, written from the inside out (the oracle would recurse)."""
    parts: list[bytes] = []
    size = 0
    for _ in range(levels):
        length = from_uint(size)
        part = bytes([0xC0 + size]) if size <= 55 else bytes([0xF7 + len(length)]) + length
        parts.append(part)
        size += len(part)
    return b"".join(reversed(parts))


def test_bounds_hold_exactly() -> None:
    assert decode(b"abc"[:1], max_bytes=1, max_depth=0, max_items=1) == b"a"
    cases = {
        "rlp-oversized": (b"\x82ab", {"max_bytes": 2, "max_depth": 0, "max_items": 1}),
        "rlp-too-deep": (nested(5), {"max_bytes": 99, "max_depth": 4, "max_items": 9}),
        "rlp-too-many": (
            oracle.encode([b""] * 9),
            {"max_bytes": 99, "max_depth": 1, "max_items": 9},
        ),
    }
    for reason, (raw, bounds) in cases.items():
        with pytest.raises(Malformed) as caught:
            decode(raw, **bounds)
        assert caught.value.reason == reason
    assert decode(nested(5), max_bytes=99, max_depth=5, max_items=5) == [[[[[]]]]]
    assert decode(oracle.encode([b""] * 9), max_bytes=99, max_depth=1, max_items=10) == [b""] * 9


def test_a_bomb_of_lists_ends_at_the_depth_allowed() -> None:
    with pytest.raises(Malformed) as caught:
        decode(nested(50_000), max_bytes=1 << 20, max_depth=8, max_items=1 << 20)
    assert caught.value.reason == "rlp-too-deep"


@given(st.integers(0, 2**256 - 1))
def test_scalars_have_one_form(value: int) -> None:
    raw = from_uint(value)
    assert to_uint(raw, 32, "number") == value
    assert oracle.sedes.big_endian_int.serialize(value) == raw
    with pytest.raises(Malformed):
        to_uint(b"\0" + raw, 33, "number")


def test_shapes_are_checked() -> None:
    refused = [
        lambda: to_uint([], 8, "number"),
        lambda: to_uint(b"\x01" * 9, 8, "number"),
        lambda: to_bytes([], 0, "bytes"),
        lambda: to_bytes(b"abc", 4, "bytes"),
        lambda: to_list(b"", "list"),
    ]
    for act in refused:
        with pytest.raises(Malformed):
            act()
    assert to_bytes(b"abcd", 4, "bytes") == b"abcd"
    assert to_list([b""], "list") == [b""]
    with pytest.raises(Misuse):
        from_uint(-1)
