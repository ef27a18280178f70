"""Ids hold what they say: right length, right range, one text form each way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Malformed
from protocol.ids import U32_MAX, U64_MAX, Address, Digest, Version


@given(st.integers(0, U64_MAX))
def test_a_version_survives_its_text_form(value: int) -> None:
    version = Version(value)
    assert Version.parse(str(version)) == version


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, U32_MAX))
def test_versions_order_by_their_parts(major: int, minor: int, patch: int) -> None:
    version = Version.of(major, minor, patch)
    assert str(version) == f"{major}.{minor}.{patch}"
    assert (version > Version.of(1, 2, 3)) == ((major, minor, patch) > (1, 2, 3))


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.-3", "65536.0.0", "1.0.4294967296", "\u0661.2.3"],
)
def test_other_texts_are_no_version(text: str) -> None:
    with pytest.raises(Malformed):
        Version.parse(text)


@given(st.text(max_size=70))
def test_garbage_is_refused_as_malformed_and_nothing_else(text: str) -> None:
    for kind in (Version, Digest, Address):
        try:
            kind.parse(text)
        except Malformed as error:
            assert error.reason and error.why and error.fix


def test_bytes_of_another_length_are_refused() -> None:
    assert Digest.parse("0x" + "ab" * 32) == b"\xab" * 32
    for size in (0, 31, 33):
        with pytest.raises(Malformed):
            Digest(bytes(size))
    with pytest.raises(Malformed):
        Address(bytes(32))
