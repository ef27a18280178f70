"""Between the first boot of an image and the end of the former one: settling, and clearing.

Settling: an image is confirmed only when it was found healthy for long enough, whatever is
restarted meanwhile. Clearing: where the owner keeps no former image, it is gone, and the device
still boots.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from device_client.adapters.file_slots import FileSlots
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.core.machine import Stage
from device_client.core.policy import Hold
from device_client.core.slots import Entry, Standing
from device_client.core.types import Verdict
from device_client.report import SETTLING, WAITING, Report
from protocol.digests import sha256
from protocol.errors import LocalFault, Refused
from protocol.receipt import Outcome
from tests.device_client.bench_top import FACTORY, BenchTop, bench_top
from tests.device_client.registry import Registry, image_of, make, receipts_of
from tests.world.flash import Flash, PowerCut, crash_images

STABILITY = 600
STEP = 60


def on_trial(**members: object) -> BenchTop:
    """A device whose first release runs, and has been found healthy once."""
    top = bench_top(stability=STABILITY, **members)
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))
    report = top.agent().update()
    assert (report.outcome, report.reason, report.again) == (WAITING, SETTLING, STEP)
    return top


def looked_at(top: BenchTop, seconds: int) -> Report:
    """The device, so many seconds later, by a new process."""
    top.clock.advance(seconds)
    return top.agent().update()


def standing(top: BenchTop, slot: str) -> Standing:
    return top.agent().parts.boot.record().entry(slot).standing


# -- settling --------------------------------------------------------------------------------------


def test_an_image_is_confirmed_when_it_stayed_healthy_for_long_enough() -> None:
    top = on_trial()
    for _ in range(STABILITY // STEP - 1):
        report = looked_at(top, STEP)
        assert (report.outcome, report.reason) == (WAITING, SETTLING)
        assert top.agent().book.state.stage is Stage.TRIAL
        assert top.agent().book.state.counter == 0 and top.agent().book.queue == ()
    assert looked_at(top, STEP).outcome == Outcome.CONFIRMED
    assert top.agent().book.state.counter == 4
    assert top.doctor.examined == STABILITY // STEP + 1


def test_an_image_that_falls_ill_while_it_settles_is_left() -> None:
    top = on_trial()
    looked_at(top, STEP)
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    report = looked_at(top, STEP)
    assert (report.outcome, report.reason) == (Outcome.ROLLED_BACK, "self-test")
    assert top.runs() == FACTORY and top.agent().book.state.counter == 0


def test_settling_costs_no_boots_however_often_the_process_is_restarted() -> None:
    top = on_trial()
    left = top.agent().parts.boot.record().attempts
    for _ in range(50):
        top.agent().start()
        looked_at(top, 1)
    assert top.agent().parts.boot.record().attempts == left
    assert top.agent().book.state.settled == 50


def test_a_reboot_while_settling_keeps_what_was_watched() -> None:
    top = on_trial()
    looked_at(top, STEP)
    looked_at(top, STEP)
    top.clock.since = 0.0
    top.power_on()
    assert looked_at(top, 5).reason == SETTLING
    assert top.agent().book.state.settled == 2 * STEP
    assert top.runs() == image_of("1.0.0")


def test_time_that_nobody_watched_does_not_count() -> None:
    top = on_trial()
    assert looked_at(top, 10 * STABILITY).reason == SETTLING
    assert top.agent().book.state.settled == 2 * STEP


def test_a_clock_that_is_set_in_between_settles_nothing() -> None:
    top = on_trial()
    assert top.clock.time is not None
    top.clock.time += 10**6
    assert top.agent().update().reason == SETTLING
    assert top.agent().book.state.settled == 0


def test_the_owner_may_vouch_before_it_has_settled() -> None:
    top = on_trial()
    assert top.agent().confirm().outcome == Outcome.CONFIRMED
    assert top.agent().book.state.settled == 0


def test_what_has_settled_still_waits_for_an_owner_who_confirms() -> None:
    top = on_trial(owner_confirms=True)
    for _ in range(STABILITY // STEP):
        report = looked_at(top, STEP)
    assert report.reason == "owner-confirms"
    assert top.agent().confirm().outcome == Outcome.CONFIRMED


def test_a_later_trial_settles_anew() -> None:
    top = on_trial()
    for _ in range(STABILITY // STEP):
        looked_at(top, STEP)
    top.registry.chain.publish(make(image_of("2.0.0"), "2.0.0", 4))
    assert looked_at(top, STEP).reason == SETTLING
    assert top.agent().book.state.settled == 0


# -- power cycles ----------------------------------------------------------------------------------


def cut_off(top: BenchTop) -> None:
    """Boots, and nobody looks, until none is left to the trial."""
    for _ in range(top.agent().parts.boot.record().attempts + 1):
        top.power_on()
        top.clock.since = 0.0
    assert top.runs() == FACTORY


@pytest.mark.parametrize("wait", [{"stability": STABILITY}, {"owner_confirms": True}])
def test_a_healthy_trial_cut_off_by_power_cycles_is_no_failure(wait: dict[str, Any]) -> None:
    top = bench_top(**wait)
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))
    assert top.agent().update().outcome == WAITING
    cut_off(top)
    agent = top.agent()
    assert agent.start().outcome == "nothing"
    book = agent.book
    assert (book.state.stage, book.state.box, book.queue) == (Stage.IDLE, (), ())
    assert book.history[-1].what == "cut-off"
    assert agent.update().outcome == WAITING and top.runs() == image_of("1.0.0")  # once more
    assert agent.confirm().outcome == Outcome.CONFIRMED
    agent.deliver()
    assert [r.outcome for r in receipts_of(top.registry)] == [Outcome.CONFIRMED]


def test_one_that_is_cut_off_again_and_again_is_tried_once_a_day() -> None:
    """It may be the image that takes the power, some time after it was found healthy."""
    top = on_trial()
    for _ in range(2):
        cut_off(top)
        assert top.agent().update().reason == SETTLING
    cut_off(top)
    report = top.agent().update()
    assert (report.outcome, report.reason) == (WAITING, str(Hold.RETRY))
    top.clock.advance(86400)
    top.registry.chain.tick(86400)
    assert top.agent().update().reason == SETTLING


def test_one_that_never_was_healthy_is_a_failure() -> None:
    top = bench_top(stability=STABILITY)
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))

    def dies(_: str) -> Verdict:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(top.doctor, "examine", dies)
        with pytest.raises(KeyboardInterrupt):
            top.agent().update()
    cut_off(top)
    report = top.agent().start()
    assert (report.outcome, report.reason) == (Outcome.ROLLED_BACK, "did-not-come-up")
    assert len(top.agent().book.state.box) == 1


# -- clearing --------------------------------------------------------------------------------------


def cleared_top(disk: Flash | None = None) -> BenchTop:
    """A device that keeps no former image, and a release for it."""
    made = BenchTop(
        Registry(bench_top().registry.chain), disk=disk or Flash(), keep_former=False
    ).provision()
    made.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))
    return made


def former_bytes(top: BenchTop) -> bytes:
    return bytes(top.disk.durable["slots/a.img"][: len(FACTORY)])


def test_the_former_image_goes_when_the_new_one_is_confirmed() -> None:
    top = cleared_top()
    agent = top.agent()
    assert agent.update().outcome == Outcome.CONFIRMED
    assert standing(top, "a") is Standing.EMPTY
    assert former_bytes(top) == bytes(len(FACTORY))
    assert top.agent().book.history[-1].what == "cleared"
    top.power_on()
    assert top.runs() == image_of("1.0.0")
    agent.deliver()
    assert [r.outcome for r in receipts_of(top.registry)] == [Outcome.CONFIRMED]


def test_without_the_wish_it_stays() -> None:
    top = bench_top()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))
    top.agent().update()
    assert standing(top, "a") is Standing.GOOD and former_bytes(top) == FACTORY


def test_there_is_no_way_back_then_and_it_is_said() -> None:
    top = cleared_top()
    top.agent().update()
    with pytest.raises(Refused) as caught:
        top.agent().rollback()
    assert caught.value.reason == "no-former-image"


def test_an_image_on_trial_and_one_that_failed_clear_nothing() -> None:
    top = cleared_top()
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    assert top.agent().update().outcome == Outcome.ROLLED_BACK
    assert top.runs() == FACTORY and standing(top, "a") is Standing.GOOD
    top = on_trial(keep_former=False)
    assert standing(top, "a") is Standing.GOOD and former_bytes(top) == FACTORY


def test_while_the_fallback_of_a_trial_runs_nothing_is_cleared() -> None:
    """Idle, by the journal, while the board runs another slot than its primary: nothing is sure."""
    top = cleared_top()
    top.agent().update()
    disk = top.disk
    slots = FileSlots(disk)
    boot = VirtualBoot(disk, slots)
    good = Entry(Standing.GOOD, sha256(FACTORY), len(FACTORY))
    record = boot.record()
    disk.durable["boot.env"] = bytes(8192)
    boot.provision(replace(record, primary="a", running="b", a=good))
    before = top.agent().parts.boot.record()
    top.agent().start()
    assert top.agent().parts.boot.record() == before
    assert top.agent().book.state.stage is Stage.IDLE
    disk.durable["boot.env"] = bytes(8192)
    boot.provision(replace(before, primary="b"))
    top.agent().start()
    assert standing(top, "a") is Standing.EMPTY


def test_updates_go_on_and_slots_take_turns() -> None:
    top = cleared_top()
    for number in (1, 2, 3):
        if number > 1:
            top.registry.chain.publish(make(image_of(f"{number}.0.0"), f"{number}.0.0", 4))
        assert top.agent().update().outcome == Outcome.CONFIRMED
        record = top.agent().parts.boot.record()
        assert record.entry(record.inactive).standing is Standing.EMPTY
        assert top.runs() == image_of(f"{number}.0.0")


def test_wherever_the_power_goes_the_new_image_boots_and_the_former_one_goes() -> None:
    whole = cleared_top()
    before = whole.disk.operations
    whole.agent().update()
    cuts = range(before, whole.disk.operations)
    confirmed = 0
    for cut in cuts:
        top = cleared_top()
        top.disk.cut_at = cut
        with pytest.raises(PowerCut):
            top.agent().update()
        top.disk.cut_at = None
        top.disk.pending.clear()
        top.power_on()
        running = top.runs()
        assert running in (FACTORY, image_of("1.0.0"))
        confirmed += running != FACTORY
        top.agent().update()
        assert top.runs() == image_of("1.0.0") and former_bytes(top) == bytes(len(FACTORY))
        assert standing(top, "a") is Standing.EMPTY
        assert top.agent().book.state.stage is Stage.IDLE
    assert confirmed > 5


def test_whatever_a_cut_leaves_of_the_clearing_is_cleared_after_it() -> None:
    """Lost, torn and reordered writes, from the confirmation on."""
    whole = cleared_top()
    whole.disk.recording = True
    whole.agent().update()
    began = next(
        number
        for number, moment in enumerate(whole.disk.moments)
        if "slots/a.img" in moment.operation
    )
    states = 0
    for moment in whole.disk.moments[began - 4 :]:
        for _, image in crash_images(moment):
            states += 1
            top = BenchTop(Registry(whole.registry.chain), disk=Flash(dict(image)))
            top.keep_former = False
            top.power_on()
            assert top.runs() == image_of("1.0.0")
            top.agent().update()
            assert top.runs() == image_of("1.0.0") and former_bytes(top) == bytes(len(FACTORY))
            assert standing(top, "a") is Standing.EMPTY
            assert top.agent().book.state.counter == 4
    assert states > 20


class Worn(Flash):
    """A medium that takes no more writes to slot a."""

    worn = False

    def write(self, name: str, offset: int, data: object) -> None:
        if self.worn and name == "slots/a.img":
            raise LocalFault("medium-failed", "writing failed", "Input/output error", "replace it")
        super().write(name, offset, data)  # type: ignore[arg-type]


def test_what_cannot_be_overwritten_is_withdrawn_and_ends_no_update() -> None:
    disk = Worn()
    top = cleared_top(disk)
    disk.worn = True
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert standing(top, "a") is Standing.EMPTY
    last = top.agent().book.history[-1]
    assert (last.what, last.reason) == ("not-cleared", "medium-failed")
    assert top.agent().update().outcome == "nothing"
    assert len(top.agent().book.history) == 2  # it is not tried for ever
