"""Where an image comes from: mirrors that lie or break off, a rate that is kept, files alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest

from device_client.core.machine import Stage
from device_client.core.policy import Hold, Leave, Policy
from protocol.errors import FirmledgerError, Unreachable, Untrusted
from protocol.ids import Digest
from protocol.receipt import Outcome
from tests.device_client.bench_top import BenchTop, bench_top
from tests.device_client.registry import Registry, image_of, make, receipts_of

IMAGE = image_of("1.0.0")
Change = Callable[[bytes], bytes]


def flipped(data: bytes) -> bytes:
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


def lying(registry: Registry, change: Change = flipped) -> Registry:
    """A mirror of the same chain that sends other payloads."""
    mirror = Registry(registry.chain, piece=300)
    honest = mirror.payload

    def payload(digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        yield change(b"".join(honest(digest, 0, size)))[offset:]

    mirror.payload = payload  # type: ignore[method-assign]
    return mirror


def breaking(registry: Registry, after: int) -> Registry:
    """A mirror that breaks off once, after so many bytes."""
    return Registry(registry.chain, piece=300, cut_after=after)


def asking(*registries: Registry) -> BenchTop:
    """A device that asks these, in this order; the first has the polls."""
    first = registries[0]
    first.others = registries[1:]
    return BenchTop(first).provision()


@pytest.fixture
def good() -> Registry:
    made = Registry(bench_top().registry.chain, piece=300)
    made.chain.publish(make(IMAGE, "1.0.0", 4))
    return made


# -- one lies --------------------------------------------------------------------------------------

LIES: dict[str, Change] = {
    "a bit": flipped,
    "the last bit": lambda d: d[:-1] + bytes([d[-1] ^ 1]),
    "too short": lambda d: d[:-1],
    "nothing": lambda d: b"",
    "too long": lambda d: d + b"x",
    "in another order": lambda d: d[1500:] + d[:1500],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_first_registry_with_a_wrong_payload_does_not_hide_the_second(
    good: Registry, lie: str
) -> None:
    top = asking(lying(good, LIES[lie]), good)
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert top.runs() == IMAGE
    assert top.agent().book.spoilt is None


def test_where_all_lie_the_image_is_refused_and_counted(good: Registry) -> None:
    top = asking(lying(good), lying(good), lying(good))
    before = top.runs()
    with pytest.raises(Untrusted) as caught:
        top.agent().update()
    assert caught.value.reason == "payload-digest" and top.runs() == before
    book = top.agent().book
    assert (book.state.stage, book.state.box) == (Stage.IDLE, ())
    assert book.spoilt is not None and book.spoilt.times == 1


def test_what_a_liar_began_and_another_ended_is_fetched_anew_from_the_other(good: Registry) -> None:
    liar = lying(good)
    whole = liar.payload

    def half(digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        yield b"".join(whole(digest, 0, size))[offset:1500]
        raise Unreachable("cut-off", "download stopped", "the link broke", "try again")

    liar.payload = half  # type: ignore[method-assign]
    top = asking(liar, good)
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert top.runs() == IMAGE
    assert good.asked == [(1500, 3000), (0, 3000)]


def test_a_liar_is_asked_last_from_then_on(good: Registry) -> None:
    """Else one liar keeps a device for ever from a mirror that is merely slow."""
    liar, slow = lying(good), breaking(good, 900)
    top = asking(liar, slow)
    agent = top.agent()
    with pytest.raises(Unreachable):
        agent.update()
    assert agent.book.state.progress == 900
    assert agent.update().outcome == Outcome.CONFIRMED
    assert slow.asked == [(0, 3000), (900, 3000)]


def cutting(registry: Registry, lie: Change, each: int) -> Registry:
    """A mirror that sends so many bytes per round, and breaks off."""
    mirror = Registry(registry.chain)
    honest = mirror.payload

    def payload(digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        data = lie(b"".join(honest(digest, 0, size)))[offset:]
        mirror.asked[-1] = (offset, size)
        yield data[:each]
        if len(data) > each:
            raise Unreachable("cut-off", "download stopped", "the link broke", "try again")

    mirror.payload = payload  # type: ignore[method-assign]
    return mirror


def rounds_until_confirmed(top: BenchTop, most: int) -> int:
    agent = top.agent()
    for number in range(1, most):
        try:
            if agent.update().outcome == Outcome.CONFIRMED:
                return number
        except (Unreachable, Untrusted):
            top.clock.advance(60)
            top.registry.chain.tick(60)
    raise AssertionError("starved")


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def same(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("each", [100, 1200, 2900])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("part", [0.2, 0.6])
def test_a_liar_that_breaks_off_starves_no_mirror_that_does_so_too(
    good: Registry, each: int, first: bool, part: float
) -> None:
    liar, slow = cutting(good, zeros, each), cutting(good, same, int(3000 * part))
    top = asking(liar, slow) if first else asking(slow, liar)
    top.max_age = 10**6
    top.policy = Policy(retries=100)
    assert rounds_until_confirmed(top, 40) > 1
    assert top.runs() == IMAGE
    assert len(slow.asked) + len(liar.asked) < 50  # what is fetched in vain is bounded


def test_whoever_has_the_next_turn_starts_from_the_first_byte(good: Registry) -> None:
    """Else an honest one would be taken for the liar whose bytes it goes on from."""
    slow, liar = cutting(good, same, 600), cutting(good, zeros, 1200)
    top = asking(slow, liar)
    assert rounds_until_confirmed(top, 40) > 4
    assert [offset for offset, _ in slow.asked[:4]] == [0, 1800, 0, 600]
    assert [offset for offset, _ in liar.asked[:4]] == [600, 2400, 0, 1200]


def test_two_that_are_slow_and_honest_go_on_from_each_other(good: Registry) -> None:
    one, two = cutting(good, same, 700), cutting(good, same, 700)
    top = asking(one, two)
    assert rounds_until_confirmed(top, 5) == 3
    assert one.asked == [(0, 3000), (1400, 3000), (2800, 3000)]


def test_more_than_was_announced_is_refused_and_never_written(good: Registry) -> None:
    """The right bytes, and one more: the digest of what was asked for would be right."""
    mirror = lying(good, LIES["too long"])
    top = asking(mirror)
    top.disk.reserve("slots/b.img", 8192)
    with pytest.raises(Untrusted) as caught:
        top.agent().update()
    assert caught.value.reason == "payload-length" and "more than" in caught.value.why
    assert top.disk.durable["slots/b.img"][3000:] == bytes(8192 - 3000)


# -- one breaks off --------------------------------------------------------------------------------


def test_a_download_goes_on_at_the_byte_at_the_next_mirror(good: Registry) -> None:
    mirrors = [breaking(good, after) for after in (600, 900, 300)]
    top = asking(*mirrors, good)
    assert top.agent().update().outcome == Outcome.CONFIRMED
    asked = [mirror.asked for mirror in (*mirrors, good)]
    assert asked == [[(0, 3000)], [(600, 3000)], [(1500, 3000)], [(1800, 3000)]]


def test_a_download_goes_on_at_the_byte_after_a_restart_at_a_changed_mirror(good: Registry) -> None:
    first = breaking(good, 1200)
    top = asking(first)
    with pytest.raises(Unreachable):
        top.agent().update()
    assert top.agent().book.state.progress == 1200
    top.registry = good  # the settings name another one now
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert good.asked == [(1200, 3000)]


def test_a_changed_mirror_that_lies_changes_nothing_but_the_time_it_takes(good: Registry) -> None:
    top = asking(breaking(good, 1200))
    with pytest.raises(Unreachable):
        top.agent().update()
    top.registry = lying(good, LIES["the last bit"])
    before = top.runs()
    with pytest.raises(Untrusted):
        top.agent().update()
    assert top.runs() == before
    top.registry = good
    assert top.agent().update().outcome == Outcome.CONFIRMED


def test_polls_go_to_the_next_mirror_too(good: Registry) -> None:
    gone = Registry(good.chain, down=True)
    top = asking(gone, good)
    assert top.agent().update().outcome == Outcome.CONFIRMED


# -- what comes wrong again and again --------------------------------------------------------------


def spoil(top: BenchTop, times: int) -> None:
    for _ in range(times):
        with pytest.raises(FirmledgerError):
            top.agent().update()


def test_what_came_wrong_too_often_is_fetched_once_a_day_until_it_comes_right(
    good: Registry,
) -> None:
    top = asking(lying(good))
    top.policy = Policy(retries=3)
    spoil(top, 3)
    report = top.agent().update()
    assert (report.outcome, report.reason) == ("waiting", str(Hold.RETRY))
    assert report.again is not None and 86000 < report.again <= 86400
    top.clock.advance(86400)
    top.registry.chain.tick(86400)
    spoil(top, 1)
    assert top.agent().update().reason == str(Hold.RETRY)
    top.registry = good
    assert top.agent().update().reason == str(Hold.RETRY)  # it cannot know yet
    assert top.agent().update(Leave.NOW).outcome == Outcome.CONFIRMED


def test_another_release_is_fetched_at_once(good: Registry) -> None:
    top = asking(lying(good))
    spoil(top, 3)
    good.chain.publish(make(image_of("1.0.1"), "1.0.1", 4))
    top.registry = good
    assert top.agent().update().outcome == Outcome.CONFIRMED


def test_a_bad_payload_puts_no_release_into_the_penalty_box(good: Registry) -> None:
    """A registry that lies may delay a release; only the release itself may be found at fault."""
    top = asking(lying(good))
    spoil(top, 3)
    top.agent().deliver()
    assert [r.outcome for r in receipts_of(top.registry)] == [Outcome.REFUSED]
    assert top.agent().book.state.box == ()


# -- bandwidth -------------------------------------------------------------------------------------


def test_a_download_keeps_to_its_rate(good: Registry) -> None:
    top = asking(good)
    top.bandwidth = 100
    assert top.agent().update().outcome == Outcome.CONFIRMED
    waited = sum(top.clock.slept)
    assert 28.9 <= waited <= 30  # 3,000 bytes, of which one second's worth was free
    assert max(top.clock.slept) <= 10  # somebody may watch whether it is alive


def test_without_a_limit_nothing_waits(good: Registry) -> None:
    top = asking(good)
    top.agent().update()
    assert top.clock.slept == []


def test_a_slow_download_that_is_stopped_goes_on_where_it_was(good: Registry) -> None:
    top = asking(copy.deepcopy(good))
    top.bandwidth = 100
    naps = top.clock.sleep

    def sleep(seconds: float) -> None:
        naps(seconds)
        if sum(top.clock.slept) > 12:
            raise KeyboardInterrupt

    top.clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        top.agent().update()
    top.clock.sleep = naps  # type: ignore[method-assign]
    reached = top.agent().book.state.progress
    assert reached > 1000
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert top.registry.asked[-1] == (reached, 3000)
