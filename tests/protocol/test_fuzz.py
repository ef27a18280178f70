"""Every parser meets garbage, and answers only with its own errors, within bounds.

The inputs are drawn by hypothesis; those that once broke something stand below as examples.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import cbor
from tests.protocol.parsers import PARSERS, Parser, feed
from tests.world.mutation import mutant

NAMED = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
MUTANTS = 1000 if os.environ.get("FIRMLEDGER_NO_SKIP") else 150
"""Of each parser: in CI a minute of them."""
BATCH = 10


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@NAMED
def test_good_data_is_read(parser: Parser) -> None:
    read = [feed(parser, seed)[0] for seed in parser.seeds]
    expected = {"acknowledgement": "wrong-log-size"}.get(parser.name, "read")
    assert expected in read


@NAMED
@settings(
    max_examples=MUTANTS // BATCH, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(start=st.integers(0, 2**64 - 1))
def test_bent_data_is_answered_within_bounds(parser: Parser, start: int) -> None:
    rng = random.Random(start)
    for _ in range(BATCH):
        feed(parser, mutant(rng, parser.seeds))


@NAMED
@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=120))
def test_garbage_is_answered_within_bounds(parser: Parser, data: bytes) -> None:
    feed(parser, data)


@pytest.mark.parametrize("odd", [[], {}, ["idle"], b"", 0, None, True])
def test_a_book_whose_stage_is_no_stage_is_damaged(odd: object) -> None:
    """Found by `tests.protocol.guided`: a list cannot be looked up in a set."""
    (parser,) = (p for p in PARSERS if p.name == "book")
    row = cbor.loads(parser.seeds[0], max_bytes=10**6)
    row[1][0] = odd
    assert feed(parser, cbor.dumps(row))[0] == "state-damaged"


@pytest.mark.parametrize(
    "parser", [p for p in PARSERS if p.maximum is not None], ids=lambda parser: parser.name
)
def test_what_is_too_long_is_refused_unread(parser: Parser) -> None:
    """Whatever it begins with; the work does not grow with what follows."""
    assert parser.maximum is not None
    for start in (b"", *parser.seeds):
        answer, cost = feed(parser, start + bytes(parser.maximum + 1))
        assert answer != "read"
        assert cost.calls < 2000, f"{cost.calls} calls"
