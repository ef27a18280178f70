"""What may befall a device, one misfortune after the other; for each there is a defined behaviour.

No clock, months without a network, a medium that fails or fills up, half a journal, a release that
is revoked while it runs. (A changed mirror is in test_sources, a second daemon in test_daemon, a
journal that is lost whole in test_recovery.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from device_client.adapters.journal import COPY_BYTES
from device_client.core import copies
from device_client.core.clock import BUILD_TIME, TOLERANCE, ClockState, judged
from device_client.core.machine import Stage
from device_client.core.policy import Policy, Window
from protocol.digests import sha256
from protocol.errors import LocalFault, Refused, Unreachable, Untrusted
from protocol.ledger import Status
from protocol.receipt import Outcome
from protocol.trustfile import FUTURE_TOLERANCE, TRUSTING_PERIOD_DEFAULT
from tests.device_client.bench_top import FACTORY, BenchTop
from tests.device_client.registry import Chain, Registry, image_of, make, receipts_of
from tests.device_client.test_cli import Shop
from tests.world.clock import HandClock
from tests.world.flash import Flash

DAY = 86400


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, stack, capsys)


def released(disk: Flash | None = None, **members: object) -> BenchTop:
    top = BenchTop(Registry(Chain()), disk=disk or Flash(), **members).provision()  # type: ignore[arg-type]
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))
    return top


def later(top: BenchTop, seconds: int) -> None:
    top.clock.advance(seconds)
    top.registry.chain.tick(seconds)


# -- no clock --------------------------------------------------------------------------------------


def test_without_a_clock_an_image_installs_settles_and_is_reported() -> None:
    top = released(stability=100)
    top.clock = HandClock(None)
    top.agent().update()
    for _ in range(10):
        top.clock.since += 10
        report = top.agent().update()
    assert report.outcome == Outcome.CONFIRMED
    top.agent().deliver()
    (receipt,) = receipts_of(top.registry)
    assert receipt.time is None and receipt.height == top.registry.chain.number


def test_without_a_clock_windows_go_by_the_ledgers_time() -> None:
    top = released(policy=Policy(windows=(Window.parse("daily 09:00-10:00"),)))
    top.clock = HandClock(None)
    assert top.agent().update().outcome == "waiting"
    top.registry.chain.tick((9 * 3600 - top.registry.chain.time) % DAY)
    assert top.agent().update().outcome == Outcome.CONFIRMED


# -- a clock that is wrong -------------------------------------------------------------------------


def test_a_clock_set_back_by_90_days_after_a_block_of_today_ends_no_update() -> None:
    top = released()
    top.agent().update()
    assert top.clock.time is not None
    top.clock.time -= 90 * DAY
    top.registry.chain.publish(make(image_of("2.0.0"), "2.0.0", 5))
    agent = top.agent()
    assert agent.update().outcome == Outcome.CONFIRMED
    agent.deliver()
    assert [r.time is None for r in receipts_of(top.registry)] == [False, True]


def test_a_clock_that_may_be_right_still_refuses_blocks_from_the_future() -> None:
    top = released()
    top.agent().update()
    top.clock.time = top.registry.chain.time - TOLERANCE
    before = top.agent().trust
    top.registry.chain.tick()
    with pytest.raises(Untrusted) as caught:
        top.agent().update()
    assert caught.value.reason == "from-the-future" and top.agent().trust == before
    top.clock.time -= 1
    top.agent().update()  # one second earlier it cannot be right, and has no word
    assert top.agent().trust.height > before.height


@pytest.mark.parametrize(
    ("now", "seen", "state"),
    [
        (None, 0, ClockState.NOT_SET),
        (BUILD_TIME - 1, 0, ClockState.NOT_SET),
        (BUILD_TIME, 0, ClockState.SET),
        (BUILD_TIME, BUILD_TIME + TOLERANCE, ClockState.SET),
        (BUILD_TIME, BUILD_TIME + TOLERANCE + 1, ClockState.BEHIND),
    ],
)
def test_clocks(now: int | None, seen: int, state: ClockState) -> None:
    assert judged(now, seen) is state
    assert TOLERANCE == FUTURE_TOLERANCE


# -- months without a network ----------------------------------------------------------------------


@pytest.mark.parametrize("months", [1, 6, 11])
def test_a_device_that_was_away_for_months_goes_on(months: int) -> None:
    away = months * 30 * DAY
    assert away < TRUSTING_PERIOD_DEFAULT
    top = released()
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    top.agent().update()
    top.registry.down = True
    for _ in range(5):
        later(top, away // 5)
        with pytest.raises(Unreachable):
            top.agent().update()
        with pytest.raises(Unreachable):
            top.agent().deliver()
        assert top.runs() == FACTORY
    top.registry.down = False
    top.registry.chain.publish(make(image_of("2.0.0"), "2.0.0", 5))
    later(top, 60)
    agent = top.agent()
    assert agent.update().outcome == Outcome.CONFIRMED
    agent.deliver()
    told = [(r.release, r.outcome) for r in receipts_of(top.registry)]
    assert told == [(1, Outcome.ROLLED_BACK), (2, Outcome.CONFIRMED)]


def test_after_the_trusting_period_it_runs_on_and_asks_for_a_re_anchor() -> None:
    top = released()
    top.agent().update()
    later(top, TRUSTING_PERIOD_DEFAULT + 2 * DAY)
    top.registry.chain.publish(make(image_of("2.0.0"), "2.0.0", 5))
    before = top.agent().trust
    with pytest.raises(Refused) as caught:
        top.agent().update()
    assert caught.value.reason == "trusting-period" and "re-anchor" in caught.value.fix
    assert top.runs() == image_of("1.0.0") and top.agent().trust == before
    assert len(top.agent().book.queue) >= 1


# -- a medium that fails ---------------------------------------------------------------------------


def failed(what: str) -> LocalFault:
    return LocalFault("medium-failed", f"{what} failed", "Input/output error", "replace the medium")


class Failing(Flash):
    """A medium whose n-th operation fails, once or from then on. What a failing sync held is lost,
    and the next one says that all is well: as it is on Linux."""

    left, for_good = 10**9, False

    def _operate(self, what: str) -> None:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and self.for_good):
            if what.startswith("sync"):
                self.pending[what.removeprefix("sync ")] = []
            raise failed(what)
        super()._operate(what)


def boots_what_it_should(top: BenchTop) -> None:
    top.power_on()
    assert top.runs() in (FACTORY, image_of("1.0.0"))


@pytest.mark.parametrize("keep_former", [True, False])
def test_a_fault_of_the_medium_at_any_operation_is_survived(keep_former: bool) -> None:
    points = faults = 0
    while True:
        points += 1
        disk = Failing()
        top = released(disk, keep_former=keep_former)
        disk.left = points
        try:
            top.agent().update()
        except LocalFault as error:
            assert error.reason == "medium-failed"
            faults += 1
        hit, disk.left = disk.left <= 0, 10**9
        boots_what_it_should(top)
        top.agent().update()
        agent = top.agent()
        assert top.runs() == image_of("1.0.0") and agent.book.state.stage is Stage.IDLE
        assert agent.book.state.counter == 4 and agent.book.state.box == ()
        agent.deliver()
        assert [r.outcome for r in receipts_of(top.registry)] == [Outcome.CONFIRMED]
        if not hit:
            break
    assert points > 20 and faults > 15


def test_a_medium_that_died_for_good_leaves_a_device_that_boots() -> None:
    points = 0
    while True:
        points += 1
        disk = Failing()
        top = released(disk)
        disk.left, disk.for_good = points, True
        try:
            top.agent().update()
        except LocalFault as error:
            assert error.reason == "medium-failed"
        else:
            break
        disk.for_good, disk.left = False, 10**9  # the bootloader reads only
        boots_what_it_should(top)
    assert points > 20


def test_after_a_failing_sync_nothing_counts_as_durable() -> None:
    """Progress that was reported lies in the slot, whatever was lost behind it."""
    points = 0
    while True:
        points += 1
        disk = Failing()
        top = released(disk)
        disk.left = points
        try:
            top.agent().update()
        except LocalFault:
            state = top.agent().book.state
            held = disk.durable.get("slots/b.img", b"")[: state.progress]
            assert held == image_of("1.0.0")[: state.progress]
            continue
        if disk.left > 0:
            break
    assert points > 20


# -- half a journal --------------------------------------------------------------------------------


def test_a_journal_of_which_one_copy_is_lost_goes_on_from_the_other() -> None:
    for lost in (0, 1):
        top = released()
        agent = top.agent()
        agent.update()
        data = bytearray(top.disk.durable["journal.bin"])
        start = lost * COPY_BYTES
        data[start : start + copies.HEAD_BYTES] = b"\xff" * copies.HEAD_BYTES
        top.disk.durable["journal.bin"] = bytes(data)
        top.agent().update()
        agent = top.agent()
        assert top.runs() == image_of("1.0.0")
        assert (agent.book.state.stage, agent.book.state.counter) == (Stage.IDLE, 4)
        agent.deliver()
        assert Outcome.CONFIRMED in [r.outcome for r in receipts_of(top.registry)]


# -- a revoked release runs ------------------------------------------------------------------------


def test_a_device_that_runs_a_revoked_release_stays_says_so_and_is_cured(shop: Shop) -> None:
    shop.init()
    shop.release("1.0.0", 3)
    shop.run("update", "--yes")
    shop.chain.change(1, status=int(Status.REVOKED))
    shop.run("check")
    status = shop.run("status")
    assert status["ledger"]["running_release"] == "revoked" and status["version"] == "1.0.0"
    assert shop.run("update", "--yes")["outcome"] == "nothing"
    assert shop.run("status")["version"] == "1.0.0"  # going back could be worse than staying
    shop.release("1.0.1", 3)
    assert shop.run("update", "--yes")["version"] == "1.0.1"
    assert shop.run("status")["ledger"]["running_release"] == "active"


def test_the_warning_is_for_people_too(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    from device_client.cli import main

    shop.init()
    shop.release("1.0.0", 3)
    shop.run("update", "--yes")
    shop.chain.change(1, status=int(Status.REVOKED))
    shop.run("check")
    assert main(["-C", str(shop.folder / "dev"), "status"]) == 0
    assert "warning   the running release is revoked" in capsys.readouterr().out


def test_a_former_image_of_a_lower_counter_is_fallen_back_to() -> None:
    """The counter gates what is installed, never what was confirmed here."""
    top = released()
    top.agent().update()
    top.registry.chain.publish(make(image_of("2.0.0"), "2.0.0", 9))
    top.agent().update()
    slot = top.agent().parts.boot.record().running
    top.disk.durable[f"slots/{slot}.img"] = bytes(8192)  # it rots
    top.power_on()
    assert top.runs() == image_of("1.0.0")
    agent = top.agent()
    agent.start()
    assert agent.book.state.counter == 9 and agent.running.security_counter == 4
    top.registry.chain.publish(make(image_of("2.1.0"), "2.1.0", 8))
    assert top.agent().update().reason == "counter-too-low"
    top.registry.chain.publish(make(image_of("2.2.0"), "2.2.0", 9))
    assert top.agent().update().outcome == Outcome.CONFIRMED
