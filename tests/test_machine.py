"""The table, whole: every state that can be reached, every event, and what must hold after each.

A model of the device (the real table over the real slot rules, nothing simulated but chance) is
walked from a new device until no new state turns up. Chance is everything the agent does not
decide: what a poll finds, whether bytes are right, whether an image boots, whether the power stays
on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from device_client.core import slots
from device_client.core.diagram import diagram
from device_client.core.machine import (
    MAX_PENALTIES,
    TABLE,
    Effect,
    Event,
    Stage,
    State,
    Told,
    outcome,
    situation,
    step,
)
from device_client.core.slots import BootRecord, Entry, Standing, choose, counted
from device_client.core.types import Target
from protocol.errors import Malformed, Misuse
from protocol.ids import Digest, Version
from protocol.receipt import Outcome

ATTEMPTS = 2


def target(number: int, counter: int) -> Target:
    digest = Digest(bytes([number]) * 32)
    version = Version(number << 48)
    return Target(number, version, counter, digest, 100, digest, 100, digest)


FIRST, SECOND = target(1, 3), target(2, 2)
"""The second has the lower counter: installing it must not lower the device's."""


@dataclass(frozen=True)
class World:
    """A device between two events: its state, its boot record, which slots hold what they say."""

    state: State
    boot: BootRecord
    whole: frozenset[str]

    def intact(self, slot: str) -> bool:
        return slot in self.whole


def new_device() -> World:
    record = slots.factory(Entry(digest=Digest(bytes(32)), size=10))
    return World(State(), record, frozenset({"a"}))


def former(world: World) -> Target | None:
    entry = world.boot.entry(slots.other(world.boot.running))
    if entry.standing is not Standing.GOOD:
        return None
    made = target(entry.release_id, entry.security_counter)
    digest = entry.digest
    return replace(made, image_digest=digest, former=True)


def told_by_chance(world: World) -> Iterator[Told]:
    """What may come from outside in this state: polls, the owner, a freeze."""
    stage = world.state.stage
    for offered in (FIRST, SECOND):
        if stage in (Stage.IDLE, Stage.OFFERED, Stage.WAITING, Stage.DOWNLOADING, Stage.VERIFYING):
            running = world.boot.entry(world.boot.running)
            allowed = offered.version > running.version
            if allowed:  # the table keeps the counter up even where no ledger did
                same = world.state.target == offered
                yield Told(Event.RESUME if same else Event.OFFER, offered)
    image = former(world)
    if stage is Stage.IDLE and image is not None:
        yield Told(Event.ROLLBACK, image)
        if world.boot.running == world.boot.primary:
            yield Told(Event.CLEAR, image)
    if stage is Stage.CLEARING:
        yield Told(Event.CLEAR, world.state.target)
    if stage in (Stage.IDLE, Stage.OFFERED, Stage.WAITING, Stage.DOWNLOADING, Stage.VERIFYING):
        yield Told(Event.NOTHING)
        yield Told(Event.FREEZE)
    if stage is Stage.VERIFYING and world.state.target and world.state.target.former:
        yield Told(Event.RESUME)
    if stage is Stage.TRIAL:
        yield Told(Event.HEALTHY)
        yield Told(Event.SICK, reason="owner")
    if stage is Stage.FROZEN:
        yield Told(Event.THAW)


def boots(world: World) -> Iterator[World]:
    """Power on: count, choose; a cut between the two counts once more."""
    record = counted(world.boot)
    yield replace(world, boot=choose(record, world.intact))
    again = counted(record)
    yield replace(world, boot=choose(again, world.intact))


def performed(world: World, effect: Effect) -> Iterator[tuple[World, Told | None]]:
    """Every way in which an effect may end; None: the next effect is performed."""
    boot, wanted = world.boot, world.state.target
    if effect is Effect.JUDGE:
        yield world, Told(Event.GO)
        yield world, Told(Event.HOLD)
    elif effect is Effect.VACATE:
        yield replace(world, boot=slots.vacated(boot, boot.inactive)), None
    elif effect is Effect.DOWNLOAD:
        torn = replace(world, whole=world.whole - {boot.inactive})
        yield torn, Told(Event.STOPPED, reason="unreachable")
        yield torn, Told(Event.SPOILED, reason="payload-digest")
        yield replace(world, whole=world.whole | {boot.inactive}), Told(Event.FETCHED)
    elif effect is Effect.READ_BACK:
        if boot.inactive in world.whole:
            yield world, None
        yield world, Told(Event.SPOILED, reason="read-back")
        yield world, Told(Event.STOPPED, reason="local-io")
    elif effect is Effect.RENEW:
        yield world, Told(Event.VERIFIED)
        assert wanted is not None
        if not wanted.former:
            yield world, Told(Event.NOTHING)
            yield world, Told(Event.STOPPED, reason="unreachable")
    elif effect is Effect.ARM:
        assert wanted is not None
        entry = Entry.of(wanted, Standing.TRIAL)
        yield replace(world, boot=slots.armed(boot, boot.inactive, entry, ATTEMPTS)), None
    elif effect is Effect.REBOOT:
        for after in boots(world):
            yield after, None
    elif effect is Effect.LOOK:
        assert wanted is not None
        yield world, Told(situation(boot, world.state))
    elif effect is Effect.CHECK_HEALTH:
        yield world, Told(Event.HEALTHY)
        yield world, Told(Event.SICK, reason="health-check")
        yield replace(world, state=replace(world.state, checked=7)), Told(Event.HOLD)
    elif effect is Effect.KEEP:
        yield replace(world, boot=slots.kept(boot)), None
    elif effect is Effect.GIVE_UP:
        yield replace(world, boot=slots.given_up(boot)), None
    elif effect is Effect.ERASE:
        erased = replace(world, whole=world.whole - {boot.inactive})
        yield erased, Told(Event.CLEARED)
        yield erased, Told(Event.STOPPED, reason="medium-failed")
    else:
        yield world, None


def after_effects(world: World, effects: tuple[Effect, ...]) -> Iterator[tuple[World, Told | None]]:
    """Every way in which a list of effects may end; None: cut, or nothing left to do."""
    yield world, None
    if effects:
        for after, told in performed(world, effects[0]):
            if told is None:
                yield from after_effects(after, effects[1:])
            else:
                yield after, told


BOOTING = (Stage.INSTALLED, Stage.TRIAL, Stage.CONFIRMED, Stage.REVERTED)


def next_events(world: World) -> Iterator[tuple[World, Told]]:
    """What may be told next: from outside, or by the boot record after a restart or a reboot."""
    for told in told_by_chance(world):
        yield world, told
    if world.state.stage in BOOTING and world.state.target is not None:
        yield world, Told(situation(world.boot, world.state))
        for after in boots(world):
            yield after, Told(situation(after.boot, world.state))


@dataclass
class Explored:
    """All worlds that can be reached, and the pairs of the table that were met on the way."""

    worlds: set[World]
    met: set[tuple[Stage, Event]]


def explore() -> Explored:
    start: tuple[World, Told | None] = (new_device(), None)
    seen, met, waiting = {start}, set(), deque([start])
    while waiting:
        world, pending = waiting.popleft()
        for before, told in [(world, pending)] if pending else list(next_events(world)):
            assert told is not None
            met.add((before.state.stage, told.event))
            state, effects = step(before.state, told)
            check_step(before, told, state)
            for found in after_effects(replace(before, state=state), effects):
                if found not in seen:
                    check_boots(found[0])
                    seen.add(found)
                    waiting.append(found)
    return Explored({world for world, _ in seen}, met)


def check_step(before: World, told: Told, after: State) -> None:
    assert after.counter >= before.state.counter
    assert set(after.box) >= set(before.state.box)
    raised = after.counter > before.state.counter
    assert not raised or (told.event is Event.KEPT and before.state.stage is Stage.CONFIRMED)
    if Effect.REPORT in TABLE[before.state.stage, told.event].effects:
        assert before.state.target is not None
        result, reason = outcome(before.state, told)
        assert bool(reason) != (result is Outcome.CONFIRMED)


def check_boots(world: World) -> None:
    """A slot that holds an image as recorded boots, whatever comes."""
    for after in boots(world):
        running = after.boot.running
        assert running in after.whole
        assert after.boot.entry(running).standing in (Standing.GOOD, Standing.TRIAL)
        assert after.boot.entry(after.boot.primary).standing is Standing.GOOD


@pytest.fixture(scope="module")
def explored() -> Explored:
    return explore()


def test_every_reachable_state_boots_and_neither_counter_nor_penalties_fall(
    explored: Explored,
) -> None:
    assert {world.state.stage for world in explored.worlds} == set(Stage)
    assert len(explored.worlds) > 100


def test_every_line_of_the_table_is_met(
    explored: Explored,
) -> None:
    assert explored.met == set(TABLE)


def test_every_other_pair_raises_and_changes_nothing(
    explored: Explored,
) -> None:
    for state in {world.state for world in explored.worlds}:
        for event in Event:
            if (state.stage, event) in TABLE:
                continue
            before = replace(state)
            with pytest.raises(Misuse) as caught:
                step(state, Told(event, FIRST))
            assert caught.value.reason == "unexpected-event"
            assert state == before


def test_a_release_of_a_lower_counter_is_among_what_was_tried(
    explored: Explored,
) -> None:
    """Otherwise `check_step` would not see a counter that falls."""
    kept = [w.state for w in explored.worlds if w.state.stage is Stage.CONFIRMED]
    assert any(s.target and s.target.security_counter < s.counter for s in kept)


def test_the_counter_never_falls() -> None:
    kept, _ = step(State(Stage.CONFIRMED, SECOND, counter=3), Told(Event.KEPT))
    assert kept.counter == 3 > SECOND.security_counter


def test_a_settled_device_runs_its_primary(
    explored: Explored,
) -> None:
    """Between installations nothing is on trial: no boot of a confirmed slot is ever counted."""
    for world in explored.worlds:
        if world.state.stage in (Stage.IDLE, Stage.OFFERED, Stage.WAITING, Stage.DOWNLOADING):
            assert world.boot.trial is None
            assert world.boot.running == world.boot.primary
            assert counted(world.boot) == world.boot


CUT_OFF = State(Stage.TRIAL, FIRST, counter=1, checked=5)


def fallen_back() -> BootRecord:
    record = slots.armed(new_device().boot, "b", Entry.of(FIRST, Standing.TRIAL), 1)
    return choose(counted(counted(record)), lambda slot: True)


def test_an_image_found_healthy_is_not_to_blame_for_being_cut_off() -> None:
    assert situation(fallen_back(), CUT_OFF) is Event.CUT_OFF
    after, effects = step(CUT_OFF, Told(Event.CUT_OFF))
    assert (after, effects) == (State(counter=1), ())


@pytest.mark.parametrize("change", [{"checked": None}, {"stage": Stage.REVERTED}])
def test_one_that_never_was_or_fell_ill_is(change: dict[str, Any]) -> None:
    before = replace(CUT_OFF, **change)
    told = Told(situation(fallen_back(), before))
    assert told.event is Event.FELL_BACK
    after, effects = step(before, told)
    assert after.box == (FIRST.manifest_digest,) and effects == (Effect.REPORT,)


def test_a_confirmed_image_whose_switch_was_cut_off_is_not_to_blame() -> None:
    before = State(Stage.CONFIRMED, FIRST, counter=1)
    after, effects = step(before, Told(situation(fallen_back(), before)))
    assert (after, effects) == (State(counter=1), ())


def test_a_release_is_known_by_its_number_too() -> None:
    """Two releases may have the same image: what the record says of one says nothing of another."""
    twin = replace(FIRST, release_id=9)
    assert situation(fallen_back(), State(Stage.TRIAL, FIRST)) is Event.FELL_BACK
    assert situation(fallen_back(), State(Stage.TRIAL, twin)) is Event.UNARMED


def test_offer_without_target_is_refused() -> None:
    with pytest.raises(Misuse):
        step(State(), Told(Event.OFFER))


def test_the_penalty_box_is_bounded() -> None:
    state = State()
    for number in range(MAX_PENALTIES + 5):
        failing = replace(state, stage=Stage.INSTALLED, target=target(number, 1))
        state, _ = step(failing, Told(Event.FELL_BACK))
    assert len(state.box) == MAX_PENALTIES
    assert state.box[-1] == target(MAX_PENALTIES + 4, 1).manifest_digest


def test_states_survive_the_journal(
    explored: Explored,
) -> None:
    for world in explored.worlds:
        assert State.from_list(world.state.to_list()) == world.state
        assert BootRecord.decode(world.boot.encode()) == world.boot


SOUND = State(Stage.TRIAL, FIRST, 5, 3, (FIRST.manifest_digest,), "x").to_list()


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        *((0, w) for w in (None, -1, "idle?", b"", True)),
        *((1, w) for w in (-1, [], "x", True, [*FIRST.to_list(), 1], FIRST.to_list()[:9])),
        *((2, w) for w in (None, -1, "5", b"", True, 2**64)),
        *((3, w) for w in (None, -1, "5", True, 2**32)),
        *((4, w) for w in (None, 1, [1], [b"short"], [bytes(32)] * (MAX_PENALTIES + 1))),
        *((5, w) for w in (None, 1, b"", "x" * 201)),
    ],
)
def test_damaged_states_are_refused(place: int, wrong: object) -> None:
    row = list(SOUND)
    row[place] = wrong
    with pytest.raises(Malformed):
        State.from_list(row)


def test_the_diagram_in_the_docs_is_the_table() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "device.md"
    assert f"```mermaid\n{diagram()}```" in page.read_text(encoding="utf-8")
