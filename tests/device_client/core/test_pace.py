"""Delays, steps and rates: bounded, repeatable, and never faster than was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.core.pace import Bucket, fraction, poll_delay, settled_for, settling_step


@given(st.integers(1, 10**6), st.integers(0, 2000), st.binary(max_size=32), st.integers(0, 2**40))
def test_delays_are_bounded_spread_and_repeatable(
    interval: int, failures: int, seed: bytes, number: int
) -> None:
    delay = poll_delay(interval, failures, seed, number, 86400)
    assert 0.75 * min(interval, 86400) <= delay <= 86400
    assert delay == poll_delay(interval, failures, seed, number, 86400)
    assert 0 <= fraction(seed, number) < 1


def test_failures_slow_a_device_down() -> None:
    delays = [poll_delay(60, failures, b"x", 1, 86400) for failures in range(8)]
    assert delays == sorted(delays) and delays[-1] > 50 * delays[0]


# -- settling --------------------------------------------------------------------------------------


@given(st.integers(1, 10**6))
def test_an_image_that_settles_is_looked_at_often_enough(stability: int) -> None:
    step = settling_step(stability)
    assert 1 <= step <= 60 and (step <= stability / 10 or step == 1)


@pytest.mark.parametrize(
    ("settled", "checked", "now", "expected"),
    [
        (0, None, 10**6, 0),  # the first look: nobody watched before
        (5, 100, 160, 65),
        (5, 100, 221, 125),  # nobody watched for so long: two steps count
        (5, 100, 50, 5),  # a reboot in between
        (5, 100, 100, 5),
    ],
)
def test_watched_time_counts(settled: int, checked: int | None, now: int, expected: int) -> None:
    assert settled_for(settled, checked, now, 3600) == expected


# -- bandwidth -------------------------------------------------------------------------------------

steps = st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), max_size=30)


@given(st.integers(4096, 10**7), steps)
def test_no_more_than_the_rate_and_one_second_of_it_ever_comes(
    rate: int, taken: list[tuple[int, float]]
) -> None:
    now, total = 0.0, 0
    bucket = Bucket(rate, now)
    for count, idle in taken:
        total += count
        now += bucket.take(count, now)
        assert total <= rate * (now + 1) * (1 + 1e-9) + 1e-3
        now += idle


def test_an_idle_bucket_holds_one_second_and_no_more() -> None:
    bucket = Bucket(1000, 0)
    assert bucket.take(1000, 10**6) == 0
    assert bucket.take(500, 10**6) == 0.5
    assert bucket.take(0, 10**6 + 0.5) == 0
