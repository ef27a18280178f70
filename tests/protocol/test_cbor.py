"""Canonical CBOR: what is written is read, and nothing else is."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import cbor
from protocol.errors import Malformed, Misuse

TAGS = (18, 96, 98, 107)

_scalars = (
    st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40)
    | st.booleans() | st.none()
)  # fmt: skip
_keys = st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=30) | st.text(max_size=30)
values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(_keys, inner, max_size=5)
        | st.builds(cbor.Tag, st.sampled_from(TAGS), inner)
    ),
    max_leaves=20,
)


def read(data: bytes, **options: Any) -> Any:
    return cbor.loads(data, max_bytes=4096, tags=TAGS, **options)


def plain(value: Any) -> Any:
    """A value as cbor2 has it."""
    if isinstance(value, cbor.Tag):
        return cbor2.CBORTag(value.number, plain(value.value))
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@given(values)
def test_round_trip(value: Any) -> None:
    assert read(cbor.dumps(value)) == value


@given(values)
def test_cbor2_reads_what_we_write(value: Any) -> None:
    assert cbor2.loads(cbor.dumps(value)) == plain(value)


@given(st.binary(max_size=200))
def test_garbage_meets_only_our_error_or_its_own_encoding(data: bytes) -> None:
    try:
        value = read(data)
    except Malformed:
        return
    assert cbor.dumps(value) == data
    assert cbor2.loads(data) == plain(value)


@given(values, st.data())
def test_damaged_encodings_meet_only_our_error_or_their_own_encoding(
    value: Any, data: st.DataObject
) -> None:
    encoded = bytearray(cbor.dumps(value))
    position = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[position // 8] ^= 1 << position % 8
    try:
        changed = read(bytes(encoded))
    except Malformed:
        return
    assert cbor.dumps(changed) == encoded


# RFC 8949 appendix A, the encodings this subset has.
@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"), (23, "17"), (24, "1818"), (255, "18ff"), (256, "190100"), (65536, "1a00010000"),
        (2**32, "1b0000000100000000"), (2**64 - 1, "1bffffffffffffffff"),
        (-1, "20"), (-24, "37"), (-25, "3818"), (-(2**64), "3bffffffffffffffff"),
        (False, "f4"), (True, "f5"), (None, "f6"), (b"", "40"), (b"\1\2\3\4", "4401020304"),
        ("", "60"), ("ü", "62c3bc"), ("𐅑", "64f0908591"), ([], "80"), ([1, [2, 3]], "8201820203"),
        ({}, "a0"), ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
        # Bytewise order (RFC 8949 4.2.1), where RFC 7049's length-first order differs.
        ({-1: 0, 24: 0}, "a2181800" "2000"),
    ],
)  # fmt: skip
def test_known_encodings(value: Any, encoded: str) -> None:
    assert cbor.dumps(value).hex() == encoded
    back = read(bytes.fromhex(encoded))
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", "truncated"),
        ("18", "truncated"),
        ("4201", "truncated"),
        ("8101" + "01", "trailing-bytes"),
        ("1817", "not-canonical"),
        ("1900ff", "not-canonical"),
        ("1a0000ffff", "not-canonical"),
        ("1b00000000ffffffff", "not-canonical"),
        ("5801" + "00", "not-canonical"),
        ("1c", "not-canonical"),
        ("5f4101ff", "not-canonical"),
        ("9fff", "not-canonical"),
        ("bfff", "not-canonical"),
        ("a220001818" + "00", "not-canonical"),
        ("a201000100", "duplicate-key"),
        ("a1f400", "unexpected-type"),
        ("a18000", "unexpected-type"),
        ("a1c00000", "unexpected-type"),
        ("f93c00", "unexpected-type"),
        ("fa3f800000", "unexpected-type"),
        ("fb3ff0000000000000", "unexpected-type"),
        ("f7", "unexpected-type"),
        ("e0", "unexpected-type"),
        ("f818", "unexpected-type"),
        ("ff", "unexpected-type"),
        ("c000", "unexpected-tag"),
        ("d81c00", "unexpected-tag"),
        ("61ff", "not-utf8"),
        ("63eda080", "not-utf8"),
        ("9affffffff", "truncated"),
        ("bb7fffffffffffffff00", "truncated"),
        ("5bffffffffffffffff00", "truncated"),
        ("81" * 17 + "00", "too-deep"),
        ("d2" * 1000 + "00", "too-deep"),
    ],
)
def test_refusals(encoded: str, reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        read(bytes.fromhex(encoded))
    assert refusal.value.reason == reason


def test_length_is_bounded_before_anything_is_read() -> None:
    assert cbor.loads(b"\x80", max_bytes=1) == []
    with pytest.raises(Malformed) as refusal:
        cbor.loads(b"\x80\x80", max_bytes=1)
    assert refusal.value.reason == "oversized"


def test_deepest_value_passes_and_one_deeper_does_not() -> None:
    deepest: list[Any] = []
    for _ in range(cbor.MAX_DEPTH - 1):
        deepest = [deepest]
    assert read(cbor.dumps([deepest])) == [deepest]
    with pytest.raises(Misuse):
        cbor.dumps([[[deepest]]])


def test_announced_sizes_take_no_memory() -> None:
    hostile = b"\x84" + b"\x9a\x00\x00\x0f\xf0" + bytes(4000)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            read(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_key_order_alone_can_be_waived() -> None:
    unsorted = bytes.fromhex("a220000400")
    assert read(unsorted, sorted_keys=False) == {-1: 0, 4: 0}
    for still_refused in ("a220002000", "a218002000"):
        with pytest.raises(Malformed):
            read(bytes.fromhex(still_refused), sorted_keys=False)


@pytest.mark.parametrize(
    "value", [1.5, {1.5: 0}, {True: 0}, {(): 0}, object(), 2**64, -(2**64) - 1, "\ud800",
              cbor.Tag(-1, 0)]
)  # fmt: skip
def test_what_has_no_encoding_is_misuse(value: Any) -> None:
    with pytest.raises(Misuse):
        cbor.dumps(value)


def test_typed_access_refuses_other_types_and_sizes() -> None:
    assert cbor.as_uint(5, "n", maximum=5) == 5
    assert cbor.as_bytes(b"ab", "b", size=2) == b"ab"
    assert cbor.as_text("ab", "t", maximum=2) == "ab"
    assert cbor.as_list([1], "l", size=1) == [1]
    assert cbor.as_map({1: 2}, "m", required=(1,), optional=(3,)) == {1: 2}
    for refused in (
        lambda: cbor.as_uint(6, "n", maximum=5),
        lambda: cbor.as_uint(-1, "n"),
        lambda: cbor.as_uint(True, "n"),
        lambda: cbor.as_bytes("ab", "b"),
        lambda: cbor.as_bytes(b"abc", "b", size=2),
        lambda: cbor.as_bytes(b"abc", "b", maximum=2),
        lambda: cbor.as_text(b"ab", "t", maximum=2),
        lambda: cbor.as_text("abc", "t", maximum=2),
        lambda: cbor.as_list({}, "l"),
        lambda: cbor.as_list([1], "l", size=2),
        lambda: cbor.as_map([], "m", required=()),
        lambda: cbor.as_map({}, "m", required=(1,)),
        lambda: cbor.as_map({2: 0}, "m", required=(), optional=(1,)),
    ):
        with pytest.raises(Malformed):
            refused()
