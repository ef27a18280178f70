"""The agent over a simulated medium and a whole small registry: what it installs, and what not.

For every accept there is a tampered twin: something is changed, it is refused with its reason, the
device still runs what it ran, and goes on once the truth is back.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

import pytest

from device_client import flash
from device_client.agent import Agent
from device_client.core.machine import Stage
from device_client.core.policy import Hold, Leave, Mode, Policy, Window
from device_client.core.slots import Standing
from device_client.core.types import Surroundings, Verdict
from protocol.bundle import Bundle, Static
from protocol.digests import sha256
from protocol.errors import FirmledgerError, LocalFault, Malformed, Refused, Unreachable, Untrusted
from protocol.ids import Digest, ProductId, Version
from protocol.ledger import Status
from protocol.receipt import Outcome
from protocol.records import Phase, SigningKey
from tests.device_client.bench_top import FACTORY, BenchTop, bench_top
from tests.device_client.registry import (
    NOW,
    Registry,
    image_of,
    make,
    receipts_of,
)
from tests.protocol import sealed
from tests.world.clock import HandClock
from tests.world.flash import Flash, PowerCut

ONE = Version.parse("1.0.0")


def released(version: str = "1.0.0", counter: int = 4, **terms: object) -> BenchTop:
    """A device, and a registry that offers one release."""
    top = bench_top()
    top.registry.chain.publish(make(image_of(version), version, counter, **terms))
    return top


def refusal(top: BenchTop, leave: Leave = Leave.NONE) -> FirmledgerError:
    """The error of an update; the device runs on as it did."""
    before = top.runs()
    with pytest.raises(FirmledgerError) as caught:
        top.agent().update(leave)
    assert top.runs() == before
    assert top.agent().running.standing is Standing.GOOD
    return caught.value


# -- installing ------------------------------------------------------------------------------------


def test_installs_and_confirms_what_is_offered() -> None:
    top = released(counter=4)
    agent = top.agent()
    report = agent.update()
    assert (report.outcome, report.version) == (Outcome.CONFIRMED, ONE)
    assert top.runs() == image_of("1.0.0")
    assert agent.book.state.counter == 4 and agent.book.state.stage is Stage.IDLE
    agent.deliver()
    (receipt,) = receipts_of(top.registry)
    assert (receipt.outcome, receipt.release) == (Outcome.CONFIRMED, 1)
    assert (receipt.version_before, receipt.version_after) == (0, ONE)
    assert (receipt.counter_before, receipt.counter_after) == (0, 4)
    assert receipt.height == top.registry.chain.number
    assert top.agent().update().outcome == "nothing"


def test_the_slots_take_turns() -> None:
    top = bench_top()
    for number, slot in enumerate("baba", 1):
        top.registry.chain.publish(make(image_of(f"{number}.0.0"), f"{number}.0.0", number))
        assert top.agent().update().outcome == Outcome.CONFIRMED
        assert top.agent().parts.boot.record().primary == slot
        top.power_on()
        assert top.runs() == image_of(f"{number}.0.0")


def test_check_installs_nothing() -> None:
    top = released()
    report = top.agent().check()
    assert report.finding is not None and report.finding.target is not None
    assert top.agent().book.state.stage is Stage.IDLE
    assert top.runs() == FACTORY and top.registry.asked == []


def test_a_failed_health_check_rolls_back_and_is_told() -> None:
    top = released()
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    agent = top.agent()
    report = agent.update()
    assert (report.outcome, report.reason) == (Outcome.ROLLED_BACK, "self-test")
    assert top.runs() == FACTORY and agent.book.state.counter == 0
    agent.deliver()
    (receipt,) = receipts_of(top.registry)
    assert (receipt.outcome, receipt.reason) == (Outcome.ROLLED_BACK, "self-test")
    assert (receipt.version_before, receipt.version_after) == (0, 0)
    top.power_on()
    assert top.runs() == FACTORY


def test_what_failed_here_is_tried_again_only_by_the_owners_word() -> None:
    top = released()
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    top.agent().update()
    again = top.agent().update()
    assert (again.outcome, again.reason) == (Outcome.REFUSED, Hold.PENALTY)
    top.doctor.bad.clear()
    assert top.agent().update(Leave.NOW).outcome == Outcome.CONFIRMED


def test_an_image_that_never_comes_up_uses_its_attempts_and_no_more() -> None:
    top = released()

    def dies(slot: str) -> bytes:
        raise PowerCut

    agent = top.agent()
    top.doctor.read = dies
    with pytest.raises(PowerCut):
        agent.update()
    boots = 1
    while top.power_on().record().running == "b":
        boots += 1
    assert boots == 3
    agent = top.agent()
    report = agent.start()
    assert (report.outcome, report.reason) == (Outcome.ROLLED_BACK, "did-not-come-up")
    assert top.runs() == FACTORY


def test_a_killed_process_costs_no_attempt() -> None:
    top = released()
    for _ in range(10):
        agent = top.agent()
        top.doctor.read = _kill
        with pytest.raises(PowerCut):
            agent.update()
    assert top.agent().parts.boot.record().attempts == 2
    assert top.agent().start().outcome == Outcome.CONFIRMED


def _kill(slot: str) -> bytes:
    raise PowerCut


def test_an_image_that_rots_after_confirmation_gives_way_to_the_other() -> None:
    top = released()
    top.agent().update()
    slot = bytearray(top.disk.durable["slots/b.img"])
    slot[1000] ^= 1
    top.disk.durable["slots/b.img"] = bytes(slot)
    top.power_on()
    assert top.runs() == FACTORY
    assert top.agent().book.state.counter == 4  # the fallback is not barred by it
    assert top.agent().update().outcome == Outcome.CONFIRMED


# -- lies ------------------------------------------------------------------------------------------


def answering(top: BenchTop, change: Callable[[bytes], bytes]) -> None:
    """Let the registry answer every poll with changed bytes."""
    honest = top.registry.poll
    top.registry.poll = lambda q, maximum: change(honest(q, maximum))  # type: ignore[method-assign]


def honest_again(top: BenchTop) -> None:
    top.registry = Registry(top.registry.chain)


@pytest.mark.parametrize("seed", range(60))
def test_no_flipped_bit_of_a_bundle_is_accepted(seed: int) -> None:
    top = released()
    place = random.Random(seed).random()

    def flip(data: bytes) -> bytes:
        at = int(place * len(data) * 8)
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        return bytes(changed)

    answering(top, flip)
    error = refusal(top)
    assert isinstance(error, Malformed | Untrusted | Refused)
    state = top.agent().book.state
    assert (state.stage, state.counter, top.registry.asked) == (Stage.IDLE, 0, [])
    honest_again(top)
    assert top.agent().update().outcome == Outcome.CONFIRMED


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\xff" * 100, b"\x83\x01\xf6\x40", b"[" * 5000])
def test_garbage_is_malformed(garbage: bytes) -> None:
    top = released()
    answering(top, lambda data: garbage)
    assert isinstance(refusal(top), Malformed)


def test_an_altered_manifest_is_refused() -> None:
    top = released()
    other = make(b"evil" + image_of("1.0.0"), "1.0.0", 4)

    def swap(data: bytes) -> bytes:
        bundle = Bundle.decode(data)
        assert bundle.static is not None
        static = dataclasses.replace(bundle.static, envelope=other.static.envelope)
        return dataclasses.replace(bundle, static=static).encode()

    answering(top, swap)
    error = refusal(top)
    assert error.reason == "wrong-manifest"
    top.agent().deliver()
    (receipt,) = receipts_of(top.registry)
    assert (receipt.outcome, receipt.reason, receipt.release) == (
        Outcome.REFUSED,
        "wrong-manifest",
        1,
    )


def test_a_release_that_no_ledger_has_is_refused() -> None:
    top = released()
    forged = make(image_of("9.0.0"), "9.0.0", 9)
    answering(
        top, lambda data: dataclasses.replace(Bundle.decode(data), static=forged.static).encode()
    )
    assert refusal(top).reason == "wrong-terms"


@pytest.mark.parametrize(("valid_through", "reason"), [(0, "key-revoked"), (1, None)])
def test_a_revoked_signing_key_signs_nothing(valid_through: int, reason: str | None) -> None:
    top = released()
    chain = top.registry.chain
    chain.keys = tuple(SigningKey(k.key_id, valid_through) for k in chain.keys)
    chain.tick()
    if reason is None:
        assert top.agent().update().outcome == Outcome.CONFIRMED
    else:
        assert refusal(top).reason == reason


def test_a_header_sealed_by_strangers_is_refused() -> None:
    top = released()
    strangers = sealed.validators(4, start=50)
    fresh = top.registry.chain.fresh(1, group=strangers)
    answering(top, lambda data: dataclasses.replace(Bundle.decode(data), fresh=fresh).encode())
    error = refusal(top)
    assert isinstance(error, Untrusted) and top.agent().trust.height == 0


def test_a_replayed_proof_does_not_unhalt() -> None:
    top = released()
    chain = top.registry.chain
    active = Bundle(chain.fresh(1), chain.releases[1][0].static).encode()
    chain.halt(1)
    halted = top.agent().update()
    assert (halted.outcome, halted.reason) == (Outcome.REFUSED, "halted")
    answering(top, lambda data: active)
    error = refusal(top)
    assert error.reason == "below-trusted-height"
    assert top.agent().trust.status_of(1) is Status.HALTED


def test_a_replayed_proof_is_stale_to_a_device_that_saw_nothing() -> None:
    top = released()
    chain = top.registry.chain
    active = Bundle(chain.fresh(1), chain.releases[1][0].static).encode()
    top.clock.advance(3700)
    answering(top, lambda data: active)
    assert refusal(top).reason == "stale"
    assert top.agent().trust.height == chain.number  # it holds, it is only old


def test_without_a_clock_the_ledgers_time_is_a_floor() -> None:
    top = released()
    chain = top.registry.chain
    old = Bundle(chain.fresh(1), chain.releases[1][0].static).encode()
    top.clock = HandClock(None)
    chain.tick(4000)
    top.registry.withhold = True
    assert top.agent().update().outcome == "nothing"
    answering(top, lambda data: old)
    assert refusal(top).reason == "below-trusted-height"


def test_a_clock_from_long_ago_is_not_believed() -> None:
    top = released()
    top.clock = HandClock(1000)
    assert top.agent().update().outcome == Outcome.CONFIRMED


def test_a_header_from_the_future_is_refused_without_effect() -> None:
    top = released()
    top.clock = HandClock(NOW - 5000)
    assert refusal(top).reason == "from-the-future"
    assert top.agent().trust.height == 0


def test_two_blocks_of_one_height_freeze_the_device_for_good() -> None:
    top = released()
    top.registry.withhold = True
    top.agent().update()
    top.registry.withhold = False
    chain = top.registry.chain
    twin = Bundle(chain.fresh(1, extra=7), chain.releases[1][0].static).encode()
    answering(top, lambda data: twin)
    assert refusal(top).reason == "equivocation"
    agent = top.agent()
    assert agent.book.state.stage is Stage.FROZEN and len(agent.trust.evidence) == 2
    honest_again(top)
    assert refusal(top).reason == "frozen"
    assert refusal(top, Leave.NOW).reason == "frozen"


def test_a_contradiction_in_an_acknowledgement_freezes_too() -> None:
    top = released()
    agent = top.agent()
    agent.update()
    agent.deliver()
    top.registry.anchor_all()
    chain = top.registry.chain
    agent.check()
    honest = chain.fresh
    chain.fresh = lambda release_id: honest(release_id, extra=7)  # type: ignore[method-assign,assignment]
    with pytest.raises(Untrusted):
        agent.deliver()
    assert len(top.agent().book.queue) == 1
    agent = top.agent()
    agent.start()
    assert agent.book.state.stage is Stage.FROZEN


# -- several registries ----------------------------------------------------------------------------


def broken(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def truth(top: BenchTop, static: Static | None = None, **of: object) -> bytes:
    """What an honest registry answers; ``of``: whose seals it shows."""
    chain = top.registry.chain
    fresh = chain.fresh(1, **of)  # type: ignore[arg-type]
    return Bundle(fresh, static or chain.releases[1][0].static).encode()


STRANGE = make(b"x", "1.0.0", product=ProductId(bytes(range(32))))


FIRST: dict[str, Callable[[BenchTop], bytes]] = {
    "garbage": lambda top: bytes(50),
    "a changed record": lambda top: broken(truth(top)),
    "sealed by strangers": lambda top: truth(top, group=sealed.validators(4, start=50)),
    "another product": lambda top: truth(top, STRANGE.static),
}


def two_registries(first: Callable[[BenchTop], bytes]) -> tuple[BenchTop, Registry]:
    """A device whose first registry answers polls with ``first``, and the second one."""
    top = released()
    data, second = first(top), Registry(top.registry.chain)
    top.registry.others = (second,)
    answering(top, lambda _: data)
    return top, second


@pytest.mark.parametrize("how", FIRST)
def test_a_first_registry_that_lies_does_not_hide_the_second(how: str) -> None:
    top, _ = two_registries(FIRST[how])
    agent = top.agent()
    assert agent.update().outcome == Outcome.CONFIRMED
    assert top.runs() == image_of("1.0.0")
    assert [line.what for line in agent.book.history] == [Outcome.CONFIRMED]


def test_a_first_registry_with_an_old_proof_does_not_hide_the_second() -> None:
    top, _ = two_registries(truth)
    top.registry.chain.tick(10_000)
    top.clock.advance(10_000)
    assert top.agent().update().outcome == Outcome.CONFIRMED


@pytest.mark.parametrize("how", FIRST)
def test_where_no_registry_does_better_the_first_ones_error_is_told(how: str) -> None:
    top, second = two_registries(FIRST[how])
    second.down = True
    alone, _ = two_registries(FIRST[how])
    alone.registry.others = ()
    assert refusal(top).reason == refusal(alone).reason != "unreachable"
    assert [line.what for line in top.agent().book.history] == ["refused"]


def test_a_contradiction_at_one_registry_is_not_passed_over_for_another() -> None:
    top = released()
    top.registry.withhold = True
    top.agent().update()
    top.registry.withhold = False
    chain = top.registry.chain
    top.registry.others = (Registry(chain),)
    twin = Bundle(chain.fresh(1, extra=7), chain.releases[1][0].static).encode()
    answering(top, lambda data: twin)
    assert refusal(top).reason == "equivocation"
    assert top.agent().book.state.stage is Stage.FROZEN


def test_a_first_registry_with_false_acknowledgements_does_not_hide_the_second() -> None:
    top = released()
    agent = top.agent()
    agent.update()
    agent.deliver()
    top.registry.anchor_all()
    top.registry.others = (Registry(top.registry.chain),)
    for lie in (b"\x00" * 10, None):
        top.registry.acknowledgement = lambda leaf, maximum, lie=lie: lie  # type: ignore[method-assign,misc]
        kept = top.agent().book
        assert top.agent().deliver() == 0
        assert kept.queue and top.agent().book.queue == ()
        top.agent()._memory.commit(kept)


# -- what the ledger does not allow ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "reason", "outcome"),
    [
        ({"hardware_min": 3, "hardware_max": 9}, "wrong-hardware", "refused"),
        ({"hardware_min": 0, "hardware_max": 1}, "wrong-hardware", "refused"),
        ({"expiry": NOW + 1}, "expired", "refused"),
        ({"min_version": 1 << 32}, "step-required", "refused"),
        ({"required_attestations": 1}, "attestations-missing", "waiting"),
        ({"not_before": NOW + 500}, "not-started", "waiting"),
        ({"rollout": (Phase(0),)}, "cohort-waits", "waiting"),
        ({"rollout": (Phase(1), Phase(10_000, 60))}, "cohort-waits", "waiting"),
    ],
)
def test_terms_are_kept(terms: dict[str, object], reason: str, outcome: str) -> None:
    top = released(**terms)
    agent = top.agent()
    for leave in Leave:
        report = agent.update(leave)
        assert (report.outcome, report.reason) == (outcome, reason)
    assert top.runs() == FACTORY and top.registry.asked == []
    agent.deliver()
    told = [(r.outcome, r.reason, r.release) for r in receipts_of(top.registry)]
    assert told == ([(Outcome.REFUSED, reason, 1)] if outcome == "refused" else [])


def test_a_later_phase_opens_by_the_ledgers_time() -> None:
    top = released(rollout=(Phase(0), Phase(10_000, 60)))
    assert top.agent().update().reason == "cohort-waits"
    top.registry.chain.tick(61)
    assert top.agent().update().outcome == Outcome.CONFIRMED


@pytest.mark.parametrize(
    ("status", "reason"), [(Status.HALTED, "halted"), (Status.REVOKED, "revoked")]
)
def test_halted_and_revoked_releases_are_refused(status: Status, reason: str) -> None:
    top = released()
    top.registry.chain.change(1, status=int(status))
    assert top.agent().update(Leave.NOW).reason == reason
    assert top.runs() == FACTORY


def test_expiry_counts_by_the_latest_time_known() -> None:
    top = released(expiry=NOW + 100)
    top.clock.advance(200)  # the ledger's head lags behind
    assert top.agent().update().reason == "expired"


def test_older_releases_and_lower_counters_are_refused() -> None:
    top = released("2.0.0", 5)
    top.agent().update()
    chain = top.registry.chain
    top.registry.offered = chain.publish(make(image_of("3.0.0"), "3.0.0", 4))
    assert top.agent().update(Leave.NOW).reason == "counter-too-low"
    top.registry.offered = chain.publish(make(image_of("1.0.0"), "1.0.0", 9))
    assert top.agent().update(Leave.NOW).reason == "not-newer"
    assert top.runs() == image_of("2.0.0")


def test_the_counter_does_not_rise_before_confirmation() -> None:
    top = released(counter=9)
    top.owner_confirms = True
    agent = top.agent()
    assert agent.update().reason == "owner-confirms"
    assert agent.book.state.counter == 0 and agent.book.state.stage is Stage.TRIAL
    agent.confirm()
    assert agent.book.state.counter == 9


# -- what the owner does not allow -----------------------------------------------------------------


def test_ask_waits_for_consent_and_the_receipt_says_who_gave_it() -> None:
    top = released()
    top.policy = Policy(mode=Mode.ASK)
    agent = top.agent()
    assert agent.update().reason == Hold.CONSENT
    assert agent.book.state.stage is Stage.WAITING
    assert agent.update(Leave.GIVEN, by="nurse on duty").outcome == Outcome.CONFIRMED
    agent.deliver()
    (receipt,) = receipts_of(top.registry)
    assert receipt.consent is not None
    assert (receipt.consent.by, receipt.consent.at) == ("nurse on duty", NOW)


def test_consent_is_remembered_for_that_release_and_no_other() -> None:
    top = released()
    top.policy = Policy(mode=Mode.ASK, windows=(Window(frozenset(range(7)), 0, 1),))
    assert top.agent().update(Leave.GIVEN).reason == Hold.WINDOW
    assert top.agent().update().reason == Hold.WINDOW
    top.registry.chain.publish(make(image_of("1.0.1"), "1.0.1", 4))
    assert top.agent().update().reason == Hold.CONSENT


@pytest.mark.parametrize(
    ("around", "hold"),
    [
        (Surroundings(busy=True), Hold.BUSY),
        (Surroundings(battery=29), Hold.BATTERY),
        (Surroundings(metered=True), Hold.METERED),
        (Surroundings(free=2999), Hold.SPACE),
    ],
)
def test_a_busy_device_is_never_forced(around: Surroundings, hold: Hold) -> None:
    top = released()
    top.place.around = around
    report = top.agent().update()
    assert (report.outcome, report.reason) == ("waiting", hold)
    assert top.registry.asked == []
    top.place.around = Surroundings(battery=30, free=3000)
    assert top.agent().update().outcome == Outcome.CONFIRMED


def test_a_device_that_became_busy_during_the_download_is_not_rebooted() -> None:
    top = released()
    slow(top, 10, lambda: setattr(top.place, "around", Surroundings(busy=True)))
    report = top.agent().update()
    assert (report.outcome, report.reason) == ("waiting", Hold.BUSY)
    assert top.agent().book.state.stage is Stage.VERIFYING and top.runs() == FACTORY
    assert top.agent().update().reason == Hold.BUSY
    top.place.around = Surroundings(free=0)
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert len(top.registry.asked) == 1


def test_a_download_goes_on_only_when_policy_lets_it() -> None:
    top = released()
    top.registry.piece, top.registry.cut_after = 300, 1500
    with pytest.raises(Unreachable):
        top.agent().update()
    top.policy = Policy(windows=(Window(frozenset(range(7)), 0, 1),))
    assert top.agent().update().reason == Hold.WINDOW
    assert top.agent().book.state.progress == 1500
    assert top.agent().update(Leave.NOW).outcome == Outcome.CONFIRMED


def test_what_waits_and_is_halted_meanwhile_is_dropped() -> None:
    top = released()
    top.place.around = Surroundings(busy=True)
    top.agent().update()
    top.registry.chain.halt(1)
    top.place.around = Surroundings()
    assert top.agent().update().reason == "halted"
    assert top.agent().book.state.stage is Stage.IDLE


def test_what_waits_gives_way_to_something_newer() -> None:
    top = released()
    top.place.around = Surroundings(busy=True)
    top.agent().update()
    top.registry.chain.publish(make(image_of("1.1.0"), "1.1.0", 4))
    top.place.around = Surroundings()
    assert top.agent().update().version == Version.parse("1.1.0")


# -- the way here --------------------------------------------------------------------------------


def test_an_interrupted_download_goes_on_at_the_byte_where_it_stopped() -> None:
    top = released()
    top.registry.piece, top.registry.cut_after = 300, 1500
    with pytest.raises(Unreachable):
        top.agent().update()
    state = top.agent().book.state
    assert (state.stage, state.progress) == (Stage.DOWNLOADING, 1500)
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert top.registry.asked == [(0, 3000), (1500, 3000)]
    assert top.runs() == image_of("1.0.0")


class Interrupted(Flash):
    """A medium during whose n-th operation on a slot the owner presses Ctrl-C."""

    on, left = "write", 3

    def write(self, name: str, offset: int, data: object) -> None:
        super().write(name, offset, data)  # type: ignore[arg-type]
        self._count("write", name)

    def sync(self, name: str) -> None:
        super().sync(name)
        self._count("sync", name)

    def _count(self, what: str, name: str) -> None:
        if (what, name) == (self.on, "slots/b.img"):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("on", "stride", "progress"), [("write", 1 << 20, 1024), ("sync", 1024, 2048)]
)
def test_what_the_owner_interrupts_goes_on_where_it_was(
    on: str, stride: int, progress: int
) -> None:
    disk = Interrupted()
    disk.left = 10**6
    top = BenchTop(Registry(bench_top().registry.chain), disk=disk, stride=stride).provision()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    disk.on, disk.left = on, {"write": 3, "sync": 2}[on]
    with pytest.raises(KeyboardInterrupt):
        top.agent().update()
    state = top.agent().book.state
    assert (state.stage, state.progress) == (Stage.DOWNLOADING, progress)
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert top.registry.asked == [(0, 3000), (progress, 3000)]


def test_what_was_written_and_rotted_before_the_resume_is_fetched_again() -> None:
    top = released()
    top.registry.piece, top.registry.cut_after = 300, 1500
    with pytest.raises(Unreachable):
        top.agent().update()
    slot = bytearray(top.disk.durable["slots/b.img"])
    slot[700] ^= 1
    top.disk.durable["slots/b.img"] = bytes(slot)
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert top.registry.asked[1:] == [(1500, 3000), (0, 3000)]


def test_a_newer_release_replaces_half_a_download() -> None:
    top = released()
    top.registry.piece, top.registry.cut_after = 300, 1500
    with pytest.raises(Unreachable):
        top.agent().update()
    top.registry.chain.publish(make(image_of("1.1.0"), "1.1.0", 4))
    assert top.agent().update().version == Version.parse("1.1.0")
    assert top.registry.asked[-1][0] == 0 and top.runs() == image_of("1.1.0")


def sending(top: BenchTop, change: Callable[[bytes], bytes]) -> None:
    """Let the registry send changed payloads."""
    honest = top.registry.payload

    def payload(digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        yield change(b"".join(honest(digest, 0, size)))[offset:]

    top.registry.payload = payload  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d[:700] + bytes([d[700] ^ 1]) + d[701:], "payload-digest"),
        (lambda d: bytes([d[0] ^ 128]) + d[1:], "payload-digest"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "payload-digest"),
        (lambda d: d[:-1], "payload-length"),
        (lambda d: b"", "payload-length"),
        (lambda d: d + b"x", "payload-length"),
        (lambda d: d * 1000, "payload-length"),
    ],
)
def test_a_changed_payload_is_refused(change: Callable[[bytes], bytes], reason: str) -> None:
    top = released()
    sending(top, change)
    assert refusal(top).reason == reason
    agent = top.agent()
    assert (agent.book.state.stage, agent.book.state.box) == (Stage.IDLE, ())
    honest_again(top)
    agent = top.agent()
    assert agent.update().outcome == Outcome.CONFIRMED
    agent.deliver()
    told = [(r.outcome, r.reason) for r in receipts_of(top.registry)]
    assert told == [(Outcome.REFUSED, reason), (Outcome.CONFIRMED, "")]


def test_a_payload_that_decrypts_to_another_image_is_not_booted() -> None:
    """Signed by the maker's key and agreed on the ledger, and still not what was agreed."""
    top = bench_top()
    honest, other = image_of("1.0.0"), image_of("other")
    top.registry.chain.publish(make(other, "1.0.0", claimed=honest))
    assert refusal(top, Leave.NOW).reason == "read-back"
    assert top.agent().parts.boot.record().entry("b").standing is Standing.EMPTY


class LyingFlash(Flash):
    """A medium that stores one bit of a slot wrongly, and says nothing."""

    def write(self, name: str, offset: int, data: object) -> None:
        raw = bytearray(data)  # type: ignore[call-overload]
        if name == "slots/b.img" and offset == 512:
            raw[9] ^= 4
        super().write(name, offset, bytes(raw))


def test_what_the_medium_does_not_hold_is_not_booted() -> None:
    top = BenchTop(Registry(bench_top().registry.chain), disk=LyingFlash()).provision()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    assert refusal(top).reason == "read-back"
    assert top.agent().parts.boot.record().entry("b").standing is Standing.EMPTY


def test_a_full_disk_is_said_before_the_first_byte() -> None:
    top = released()
    top.registry.chain.publish(make(image_of("1.1.0", 20_000), "1.1.0", 4))
    top.disk.room = sum(map(len, top.disk.durable.values())) + 5000
    assert refusal(top).reason == "disk-full"
    assert top.registry.asked == []
    top.disk.room = None
    assert top.agent().update().outcome == Outcome.CONFIRMED


class FullFlash(Flash):
    """A medium whose slot takes so many writes, and then no more."""

    left = 3

    def write(self, name: str, offset: int, data: object) -> None:
        if name == "slots/b.img":
            self.left -= 1
            if self.left < 0:
                raise LocalFault("disk-full", f"writing {name} failed", "no space", "free some")
        super().write(name, offset, data)  # type: ignore[arg-type]


def test_a_disk_that_fills_up_half_way_loses_nothing() -> None:
    disk = FullFlash()
    top = BenchTop(Registry(bench_top().registry.chain), disk=disk).provision()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    assert refusal(top).reason == "disk-full"
    assert top.agent().book.state.stage is Stage.DOWNLOADING
    assert top.agent().book.state.progress == 1536  # three blocks, of which a stride is two
    disk.left = 10**6
    assert top.agent().update().outcome == Outcome.CONFIRMED


def slow(top: BenchTop, seconds: int, then: Callable[[], None] = lambda: None) -> None:
    """Let a download take so long, and something happen meanwhile."""
    honest = top.registry.payload

    def payload(digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        top.clock.advance(seconds)
        top.registry.chain.tick(seconds)
        then()
        yield from honest(digest, offset, size)

    top.registry.payload = payload  # type: ignore[method-assign]


def test_a_proof_that_grew_old_during_the_download_is_renewed() -> None:
    top = released()
    slow(top, 5000)
    agent = top.agent()
    assert agent.update().outcome == Outcome.CONFIRMED
    assert agent.trust.height == top.registry.chain.number


def test_what_was_halted_during_a_long_download_is_not_switched_to() -> None:
    top = released()
    slow(top, 5000, lambda: top.registry.chain.halt(1))
    report = top.agent().update()
    assert (report.outcome, report.reason) == (Outcome.REFUSED, "halted")
    assert top.runs() == FACTORY and top.agent().book.state.stage is Stage.IDLE


def test_without_a_fresh_proof_at_the_end_nothing_is_switched() -> None:
    top = released()
    slow(top, 5000)
    honest = top.registry.poll
    polls = iter([honest])

    def once(question: object, maximum: int) -> bytes:
        for poll in polls:
            return poll(question, maximum)  # type: ignore[arg-type]
        raise Unreachable("unreachable", "no answer", "it is down", "try again")

    top.registry.poll = once  # type: ignore[method-assign]
    assert refusal(top).reason == "unreachable"
    assert top.agent().book.state.stage is Stage.VERIFYING
    top.registry.poll = honest  # type: ignore[method-assign]
    assert top.agent().update().outcome == Outcome.CONFIRMED
    assert top.registry.asked == [(0, 3000)]  # what was written is not fetched again


def test_a_payload_for_another_class_key_is_refused_before_its_download() -> None:
    top = released()

    class Other:
        device_id = top.agent().parts.identity.device_id
        sign = staticmethod(top.agent().parts.identity.sign)

        def content_key(self, info: bytes) -> tuple[bytes, bytes]:
            raise Refused("class-key-epoch", "payload refused", "epoch 1", "get the key")

    parts = dataclasses.replace(top.agent().parts, identity=Other())
    agent = Agent(top.profile(), parts)
    with pytest.raises(Refused) as caught:
        agent.update()
    assert caught.value.reason == "class-key-epoch" and top.registry.asked == []


# -- receipts --------------------------------------------------------------------------------------


def test_a_receipt_stays_until_its_inclusion_is_proved() -> None:
    top = released()
    agent = top.agent()
    agent.update()
    assert agent.deliver() == 1 and agent.deliver() == 1
    top.registry.anchor_all()
    assert top.agent().deliver() == 0
    assert top.agent().book.queue == ()


@pytest.mark.parametrize("how", ["garbage", "flipped", "other-leaf", "wrong-size"])
def test_a_false_acknowledgement_keeps_the_receipt(how: str) -> None:
    top = released()
    agent = top.agent()
    agent.update()
    agent.deliver()
    top.registry.chain.anchor_receipts(1, [sha256(b"another receipt")])
    top.registry.anchor_all()
    honest = top.registry.acknowledgement

    def lie(leaf: Digest, maximum: int) -> bytes | None:
        data = honest(leaf, maximum)
        assert data is not None
        if how == "garbage":
            return b"\x00" * 10
        if how == "other-leaf":
            return honest(sha256(b"another receipt"), maximum)
        changed = bytearray(data)
        changed[1 if how == "wrong-size" else len(changed) // 2] ^= 1
        return bytes(changed)

    top.registry.acknowledgement = lie  # type: ignore[method-assign]
    with pytest.raises((Malformed, Untrusted)):
        agent.deliver()
    assert len(top.agent().book.queue) == 1
    top.registry.acknowledgement = honest  # type: ignore[method-assign]
    assert top.agent().deliver() == 0


def test_receipts_form_one_chain() -> None:
    top = released()
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    top.agent().update()
    top.registry.chain.publish(make(image_of("1.1.0"), "1.1.0", 5))
    top.agent().update()
    top.registry.chain.publish(make(image_of("1.2.0"), "1.2.0", 5, hardware_min=3))
    top.agent().update()
    top.agent().deliver()
    read = receipts_of(top.registry)
    assert [r.outcome for r in read] == [Outcome.ROLLED_BACK, Outcome.CONFIRMED, Outcome.REFUSED]
    assert [r.sequence for r in read] == [0, 1, 2]
    for earlier, receipt in zip(top.registry.receipts, read[1:], strict=False):
        assert receipt.follows(earlier)


def test_the_same_refusal_is_told_once() -> None:
    top = released(hardware_min=3)
    for _ in range(5):
        top.agent().update()
    assert len(top.agent().book.queue) == 1
    assert len(top.agent().book.history) == 1


def test_one_receipt_in_trouble_does_not_hold_up_the_others() -> None:
    top = released()
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    top.agent().update()
    top.registry.chain.publish(make(image_of("1.1.0"), "1.1.0", 5))
    agent = top.agent()
    agent.update()
    honest, first = top.registry.send, agent.book.queue[0].receipt

    def picky(receipt: bytes) -> None:
        if receipt == first:
            raise Refused("receipt-not-taken", "refused", "not enrolled", "enrol the device")
        honest(receipt)

    top.registry.send = picky  # type: ignore[method-assign]
    with pytest.raises(Refused):
        agent.deliver()
    assert len(top.registry.receipts) == 1


# -- the owner's rollback --------------------------------------------------------------------------


def test_rollback_tries_the_former_image_and_keeps_the_counter() -> None:
    top = released("1.0.0", 4)
    top.agent().update()
    top.registry.chain.publish(make(image_of("2.0.0"), "2.0.0", 7))
    top.agent().update()
    agent = top.agent()
    report = agent.rollback()
    assert (report.outcome, report.reason) == (Outcome.ROLLED_BACK, "owner")
    assert top.runs() == image_of("1.0.0") and agent.book.state.counter == 7
    agent.deliver()
    last = receipts_of(top.registry)[-1]
    assert (last.release, last.outcome) == (2, Outcome.ROLLED_BACK)
    assert (last.version_before, last.version_after) == (Version.parse("2.0.0"), ONE)


def test_a_former_image_that_fails_leads_back_again() -> None:
    top = released()
    top.agent().update()
    top.registry.chain.publish(make(image_of("2.0.0"), "2.0.0", 7))
    top.agent().update()
    top.doctor.bad.add(sha256(image_of("1.0.0")))
    report = top.agent().rollback()
    assert report.outcome == Outcome.FAILED
    assert top.runs() == image_of("2.0.0")
    with pytest.raises(Refused):
        top.agent().rollback()


def test_rollback_without_a_former_image_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        bench_top().agent().rollback()
    assert caught.value.reason == "no-former-image"


def test_the_health_checks_reason_survives_a_power_cut_on_the_way_back() -> None:
    top = released()

    class Sick:
        def examine(self, slot: str) -> Verdict:
            top.disk.cut_at = top.disk.operations + 3  # the verdict is journalled, then it is dark
            return Verdict(False, "fan-stuck")

    agent = Agent(top.profile(), dataclasses.replace(top.agent().parts, health=Sick()))
    with pytest.raises(PowerCut):
        agent.update()
    top.disk.cut_at = None
    top.disk.pending.clear()
    top.power_on()
    report = top.agent().start()
    assert (report.outcome, report.reason) == (Outcome.ROLLED_BACK, "fan-stuck")
    assert top.runs() == FACTORY


def test_progress_is_told() -> None:
    top = released()
    told: list[tuple[str, int, int]] = []
    agent = Agent(top.profile(), top.agent().parts, lambda *told_now: told.append(told_now))
    agent.update()
    assert ("download", 0, 3000) in told and ("download", 3000, 3000) in told
    assert top.stride < flash.STRIDE
