"""Rollouts as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Misuse
from protocol.records import Phase
from registry import rollout

HOUR = 3600


def test_the_walk_through_s_rollouts() -> None:
    assert rollout.parse("100%@0h", None).phases == (Phase(10_000),)
    assert rollout.parse("1%@0h,10%@24h,100%@72h", 1000).phases == (
        Phase(100),
        Phase(1_000, 24 * HOUR, 5, rollout.DEFAULT_FAILURE_BPS),
        Phase(10_000, 72 * HOUR, 50, rollout.DEFAULT_FAILURE_BPS),
    )


def test_gates_spelled_out() -> None:
    text = "20%@0s,100%@24h:confirmed>=5:failed<=5%:by=48h"
    assert rollout.parse(text, 100).phases[1] == Phase(10_000, 24 * HOUR, 5, 500, 48 * HOUR)
    assert rollout.parse("20%@0s,100%@1d:ungated", 100).phases[1] == Phase(10_000, 24 * HOUR)
    assert rollout.parse("0.5%@0s,100%@90m:failed<=0.05%", 1000).phases == (
        Phase(50),
        Phase(10_000, 90 * 60, 0, 5),
    )


@pytest.mark.parametrize(
    ("text", "fleet", "warnings"),
    [
        ("100%@0h", 0, 0),
        ("1%@0h,100%@1h", 1000, 0),
        ("1%@0h,100%@1h", 299, 1),
        ("1%@0h,100%@1h", 0, 1),
        ("1%@0h,100%@1h", None, 1),
        ("1%@0h,50%@1h", 1000, 1),
    ],
)
def test_a_canary_under_three_devices_is_warned_of(
    text: str, fleet: int | None, warnings: int
) -> None:
    assert len(rollout.parse(text, fleet).warnings) == warnings


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100%",
        "100@0h",
        "100%@0",
        "100%@-1h",
        "100%@1y",
        "101%@0h",
        "0%@0h",
        "1.005%@0h",
        "\u0661%@0h",
        "50%@0h,50%@1h",
        "50%@2h,100%@1h",
        "100%@0h:confirmed>=1",
        "1%@0h,100%@1h:confirmed>=1:confirmed>=2",
        "1%@0h,100%@1h:confirmed=1",
        "1%@0h,100%@1h:by=30m",
        "1%@0h,100%@1h:ungated:by=2h",
        "1%@0h,100%@1h:",
        "1%@0h,100%@99999999w",
        "1%@0h,2%@1h,3%@2h,4%@3h,100%@4h",
    ],
)
def test_what_cannot_be_read_or_would_not_be_taken_is_refused(text: str) -> None:
    with pytest.raises(Misuse):
        rollout.parse(text, 1000)


PHASES = st.builds(
    Phase,
    bps=st.integers(2, 10_000),
    delay=st.integers(1, 10**6),
    min_confirmed=st.integers(0, 10**6),
    max_failure_bps=st.integers(0, 10_000),
    gate_deadline=st.one_of(st.just(0), st.integers(10**6, 10**7)),
)


@given(PHASES)
def test_a_described_phase_reads_back(phase: Phase) -> None:
    assert rollout.parse("0.01%@0s," + rollout.describe(phase), 0).phases[1] == phase


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        phases = rollout.parse(text, 10).phases
    except Misuse:
        return
    assert all(0 < phase.bps <= 10_000 for phase in phases)
