"""The story's clock runs at its pace, jumps forwards, and never back."""

import time

import pytest

from demo.clock import StoryClock


def test_it_starts_now_and_runs_at_its_pace() -> None:
    clock = StoryClock(pace=1000)
    began, real = clock.now(), time.monotonic()
    assert abs(began - time.time()) < 60_000
    clock.sleep(20)
    passed = time.monotonic() - real
    assert 20 <= clock.now() - began <= passed * 1000 + 1000


def test_whole_spans_pass_at_once() -> None:
    clock = StoryClock()
    before = clock.now()
    clock.forward(86_400)
    assert clock.now() >= before + 86_400


def test_it_never_runs_backwards() -> None:
    clock = StoryClock()
    before = clock.now()
    with pytest.raises(ValueError, match="backwards"):
        clock.forward(-1)
    assert clock.now() >= before
