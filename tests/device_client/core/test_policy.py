"""The owner's rules: tables, and properties over daylight-saving changes and leap days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.core.policy import (
    DAYS,
    OVERRIDABLE,
    Hold,
    Leave,
    Mode,
    Past,
    Policy,
    Spoilt,
    Window,
    decide,
    in_window,
    next_opening,
)
from device_client.core.types import Surroundings, Target
from protocol.errors import Misuse
from protocol.ids import Digest, Version

DIGEST = Digest(bytes(range(32)))
PLAIN = Target(1, Version(1), 1, DIGEST, 100, DIGEST, 100, DIGEST)
CRITICAL = Target(1, Version(1), 1, DIGEST, 100, DIGEST, 100, DIGEST, critical=True)
NOON = int(datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp())  # a Monday
NEVER = Window(frozenset({6}), 0, 1)

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]


def hold(
    policy: Policy,
    around: Surroundings = Surroundings(),  # noqa: B008 - frozen
    leave: Leave = Leave.NONE,
    target: Target = PLAIN,
    box: tuple[Digest, ...] = (),
) -> Hold | None:
    return decide(policy, target, around, leave, Past(box), NOON, UTC).hold


@pytest.mark.parametrize(
    ("policy", "around", "leave", "expected"),
    [
        (Policy(), Surroundings(), Leave.NONE, None),
        (Policy(Mode.ASK), Surroundings(), Leave.NONE, Hold.CONSENT),
        (Policy(Mode.ASK), Surroundings(), Leave.GIVEN, None),
        (Policy(Mode.MANUAL), Surroundings(), Leave.NONE, Hold.MANUAL),
        (Policy(Mode.MANUAL), Surroundings(), Leave.GIVEN, Hold.MANUAL),
        (Policy(Mode.MANUAL), Surroundings(), Leave.NOW, None),
        (Policy(), Surroundings(busy=True), Leave.GIVEN, Hold.BUSY),
        (Policy(), Surroundings(busy=True), Leave.NOW, None),
        (Policy(), Surroundings(battery=29), Leave.NONE, Hold.BATTERY),
        (Policy(), Surroundings(battery=30), Leave.NONE, None),
        (Policy(), Surroundings(battery=10), Leave.NOW, None),
        (Policy(), Surroundings(battery=9), Leave.NOW, Hold.BATTERY),
        (Policy(), Surroundings(metered=True), Leave.NONE, Hold.METERED),
        (Policy(allow_metered=True), Surroundings(metered=True), Leave.NONE, None),
        (Policy(), Surroundings(free=99), Leave.NOW, Hold.SPACE),
        (Policy(), Surroundings(free=100), Leave.NONE, None),
        (Policy(windows=(NEVER,)), Surroundings(), Leave.NONE, Hold.WINDOW),
        (Policy(windows=(NEVER,)), Surroundings(), Leave.NOW, None),
        (
            Policy(windows=(NEVER, Window.parse("mon 11:59-12:01"))),
            Surroundings(),
            Leave.NONE,
            None,
        ),
    ],
)
def test_rules(policy: Policy, around: Surroundings, leave: Leave, expected: Hold | None) -> None:
    assert hold(policy, around, leave) is expected


@pytest.mark.parametrize("leave", [Leave.NONE, Leave.GIVEN])
def test_what_failed_here_is_held(leave: Leave) -> None:
    assert hold(Policy(), leave=leave, box=(DIGEST,)) is Hold.PENALTY
    assert hold(Policy(), leave=Leave.NOW, box=(DIGEST,)) is None


@pytest.mark.parametrize("word", sorted(OVERRIDABLE))
def test_a_critical_release_passes_what_the_owner_leaves_it_and_nothing_else(word: Hold) -> None:
    everything = Surroundings(busy=True, battery=5, metered=True)
    policy = Policy(Mode.ASK, windows=(NEVER,))
    passing = [w for w in OVERRIDABLE if w is not word]
    policy = Policy(policy.mode, policy.windows, critical=frozenset(passing))
    assert hold(policy, everything, target=CRITICAL) is word
    assert hold(policy, everything, target=PLAIN) is not None
    free = Policy(policy.mode, policy.windows, critical=OVERRIDABLE)
    assert hold(free, everything, target=CRITICAL) is None
    assert hold(free, Surroundings(free=0), target=CRITICAL) is Hold.SPACE


@pytest.mark.parametrize("word", [Hold.SPACE, Hold.PENALTY, Hold.MANUAL])
def test_no_leave_can_pass_facts(word: Hold) -> None:
    with pytest.raises(Misuse):
        Policy(critical=frozenset({word}))


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("daily 02:00-04:00", set(range(7)), 120, 240),
        ("mon-fri 22:00-06:00", {0, 1, 2, 3, 4}, 1320, 360),
        ("sat,sun 00:00-24:00", {5, 6}, 0, 0),
        ("fri-mon 01:30-01:31", {4, 5, 6, 0}, 90, 91),
        ("WED 00:00-00:01", {2}, 0, 1),
    ],
)
def test_windows_as_written(text: str, days: set[int], start: int, end: int) -> None:
    assert Window.parse(text) == Window(frozenset(days), start, end)


@given(st.text(max_size=30) | st.from_regex(r"[a-z]{3} \d\d:\d\d-\d\d:\d\d"))
def test_other_texts_are_refused_or_windows(text: str) -> None:
    try:
        window = Window.parse(text)
    except Misuse:
        return
    assert (
        window.days <= frozenset(range(7)) and 0 <= window.start < 1440 and 0 <= window.end < 1440
    )


@pytest.mark.parametrize(
    "text", ["", "daily", "mon 1:00-2:00", "mon 25:00-26:00", "mon 00:60-01:00", "xyz 01:00-02:00",
             "mon 01:00", "mon- 01:00-02:00 x", "mon 24:01-03:00", "mon 0\u0661:00-02:00"],
)  # fmt: skip
def test_wrong_windows(text: str) -> None:
    with pytest.raises(Misuse):
        Window.parse(text)


times = st.integers(1_700_000_000, 1_900_000_000)
windows = st.builds(
    Window,
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(0, 1439),
)


@given(times, windows, st.sampled_from(ZONES))
def test_open_exactly_between_its_ends_in_local_time(now: int, window: Window, name: str) -> None:
    """Written the other way round: some opening day's start lies before, and its end after, now."""
    zone = ZoneInfo(name)
    local = datetime.fromtimestamp(now, zone).replace(tzinfo=None)
    length = (window.end - window.start) % 1440 or 1440
    expected = False
    for back in (0, 1):
        day = local.date() - timedelta(days=back)
        if day.weekday() in window.days:
            start = datetime.combine(day, datetime.min.time()) + timedelta(minutes=window.start)
            minute = local.replace(second=0, microsecond=0)
            expected |= start <= minute < start + timedelta(minutes=length)
    assert in_window(Policy(windows=(window,)), now, zone) is expected


@given(times, windows, st.sampled_from(ZONES))
def test_the_next_opening_is_open_and_none_is_missed(now: int, window: Window, name: str) -> None:
    zone, policy = ZoneInfo(name), Policy(windows=(window,))
    opening = next_opening(policy, now, zone)
    # A spring-forward hour may swallow a short window; that week's opening is then the next one.
    assert opening is None or (opening > now and in_window(policy, opening, zone))
    if opening is not None:
        for minute in range(now - now % 60 + 60, min(opening, now + 7200), 60):
            assert not in_window(policy, minute, zone)


@pytest.mark.parametrize(
    ("moment", "zone", "is_open"),
    [
        # Berlin 2026-03-29: 02:00 becomes 03:00; the hour from 02:00 does not exist.
        ("2026-03-29T00:59:00+00:00", "Europe/Berlin", False),
        ("2026-03-29T01:00:00+00:00", "Europe/Berlin", False),
        # Berlin 2026-10-25: 03:00 becomes 02:00; the hour from 02:00 comes twice.
        ("2026-10-25T00:30:00+00:00", "Europe/Berlin", True),
        ("2026-10-25T01:30:00+00:00", "Europe/Berlin", True),
        ("2026-10-25T02:00:00+00:00", "Europe/Berlin", False),
        # A leap day is a day like any other: 2028-02-29 is a Tuesday.
        ("2028-02-29T02:30:00+00:00", "UTC", True),
    ],
)
def test_odd_days(moment: str, zone: str, is_open: bool) -> None:
    policy = Policy(windows=(Window.parse("daily 02:00-03:00"),))
    assert (
        in_window(policy, int(datetime.fromisoformat(moment).timestamp()), ZoneInfo(zone))
        is is_open
    )


def test_a_window_over_midnight_ends_at_its_end_and_not_a_minute_later() -> None:
    window = Window.parse("mon 22:00-06:00")
    moments = {"2026-03-02 21:59": False, "2026-03-02 22:00": True, "2026-03-03 05:59": True}
    moments |= {"2026-03-03 06:00": False, "2026-03-02 06:00": False, "2026-03-03 22:00": False}
    for moment, is_open in moments.items():
        assert window.open_at(datetime.fromisoformat(moment)) is is_open, moment


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-03-02 01:00", "2026-03-02 02:00"),
        ("2026-03-02 03:00", "2026-03-09 02:00"),  # it was open an hour ago: next week
        ("2026-03-03 00:00", "2026-03-09 02:00"),
    ],
)
def test_the_next_opening_may_be_a_week_ahead(now: str, opens: str) -> None:
    policy = Policy(windows=(Window.parse("mon 02:00-03:00"),))
    moment, wanted = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (now, opens))
    assert next_opening(policy, int(moment.timestamp()), UTC) == int(wanted.timestamp())


def test_days_are_named_from_monday() -> None:
    monday = datetime.fromtimestamp(NOON, UTC)
    for number, name in enumerate(DAYS):
        window = Window.parse(f"{name} 00:00-24:00")
        assert window.open_at(monday + timedelta(days=number))
        assert not window.open_at(monday + timedelta(days=number + 1))


# -- what came wrong, and receipts without room ----------------------------------------------------


@pytest.mark.parametrize(
    ("times", "last", "leave", "expected"),
    [
        (2, NOON, Leave.NONE, None),
        (3, NOON, Leave.NONE, Hold.RETRY),
        (3, NOON, Leave.GIVEN, Hold.RETRY),
        (3, NOON, Leave.NOW, None),
        (900, NOON - 86399, Leave.NONE, Hold.RETRY),
        (900, NOON - 86400, Leave.NONE, None),
    ],
)
def test_what_came_wrong_too_often_is_tried_once_a_day(
    times: int, last: int, leave: Leave, expected: Hold | None
) -> None:
    past = Past(spoilt=Spoilt(DIGEST, times, last))
    decision = decide(Policy(), PLAIN, Surroundings(), leave, past, NOON, UTC)
    assert decision.hold is expected
    assert decision.until == (last + 86400 if expected else None)


def test_another_release_is_not_blamed_for_it() -> None:
    past = Past(spoilt=Spoilt(Digest(bytes(32)), 900, NOON))
    assert decide(Policy(), PLAIN, Surroundings(), Leave.NONE, past, NOON, UTC).hold is None


@pytest.mark.parametrize("leave", list(Leave))
@pytest.mark.parametrize("target", [PLAIN, CRITICAL])
def test_nobody_installs_what_cannot_be_told(leave: Leave, target: Target) -> None:
    policy = Policy(critical=OVERRIDABLE)
    decision = decide(policy, target, Surroundings(), leave, Past(room=False), NOON, UTC)
    assert decision.hold is Hold.RECEIPTS
