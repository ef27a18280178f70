"""A few fuzz cases of each kind, judged alike; `fuzzing` by itself tries more."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin import fuzzing


@pytest.mark.parametrize("kind", fuzzing.KINDS)
@settings(max_examples=30)
@given(start=st.integers(0, 2**64 - 1))
def test_fuzz_cases_are_judged_alike(kind: str, start: int) -> None:
    rng = random.Random(start)
    for _ in range(10):
        fuzzing.KINDS[kind](rng)
