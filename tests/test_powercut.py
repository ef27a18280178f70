"""The power may go at any moment: the device boots a valid image, and goes on from there.

A chain of updates (a good one, one that fails its health check, another good one, with receipts
delivered and reboots in between) runs once over a simulated medium that records every operation.
From every operation the media are made that a cut just before it may leave (`tests.world.flash`):
lost, torn, reordered. Each must then

* *boot*: the image that ran before, or the one being installed, byte for byte;
* *remember*: the journal holds the last commit that had returned, or the one being made; nothing
  acknowledged is taken back;
* *go on*: the device ends where it would have ended without the cut, with the same final receipts.

Of some states the recovery is cut as well. All of it runs with a bootloader that hashes what it
boots and with one that takes the record's word. That the harness can find faults is shown by
planting some: it must find every one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from device_client.adapters.journal import FileJournal
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.core import copies, machine
from device_client.core.book import Book
from device_client.core.machine import Effect, Event, Row, Stage, Told, step
from device_client.core.slots import choose, counted
from device_client.core.trust import TrustState
from device_client.engine import Engine
from device_client.ports import Disk
from protocol.digests import sha256
from protocol.errors import FirmledgerError, LocalFault
from protocol.receipt import Outcome
from tests.device_client import registry as world
from tests.device_client.bench_top import FACTORY, BenchTop
from tests.world.flash import Flash, Image, Moment, applied, crash_images

IMAGES = [FACTORY, *(world.image_of(version, 1500) for version in ("1.0.0", "2.0.0", "3.0.0"))]
RUNS_AFTER = [IMAGES[0], IMAGES[1], IMAGES[1], IMAGES[3]]
BAD = IMAGES[2]
OUTCOMES = [Outcome.CONFIRMED, Outcome.ROLLED_BACK, Outcome.CONFIRMED]


class TrustingBoot(VirtualBoot):
    """A bootloader that boots what its record names, without hashing it."""

    def reboot(self) -> None:
        self._known = None
        self._write(counted(self.record()))
        self._write(choose(self.record(), lambda slot: True))


class NotingJournal(FileJournal):
    """Notes which commits had returned at which operation of the medium."""

    commits: list[tuple[int, bytes]]

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        assert isinstance(disk, Flash)
        self._flash = disk

    def commit(self, record: bytes) -> None:
        super().commit(record)
        self.commits.append((self._flash.operations, record))


@dataclass
class Recorded:
    """The chain of updates, run once without a cut. Commits: at which operation each returned."""

    moments: list[Moment]
    phases: list[int]
    commits: list[tuple[int, bytes]]
    registries: list[world.Registry]

    def known_at(self, number: int) -> list[bytes]:
        """What the journal may hold: the last commit before operation ``number``, or the next."""
        known = [record for at, record in self.commits if at <= number]
        coming = [record for at, record in self.commits if at > number]
        return known[-1:] + coming[:1]


@dataclass(frozen=True)
class Fault:
    """What is planted, if anything, and which bootloader runs."""

    boot: type[VirtualBoot] = VirtualBoot
    deaf: frozenset[str] = frozenset()


SOUND = Fault()


def make_registries() -> list[world.Registry]:
    """The registry as it is while the first, second and third update runs."""
    registry, seen = world.Registry(world.Chain(), piece=400), []
    for number, image in enumerate(IMAGES[1:], 1):
        later(registry.chain, 1000)
        registry.chain.publish(world.make(image, f"{number}.0.0", number))
        seen.append(copy.deepcopy(registry))
    return seen


def later(chain: world.Chain, blocks: int) -> None:
    """So many blocks of a second each."""
    chain.number += blocks
    chain.time += blocks


def top_over(disk: Flash, registry: world.Registry, fault: Fault, blocks: int = 0) -> BenchTop:
    """The device and its world, ``blocks`` after what ``registry`` shows."""
    top = BenchTop(registry=copy.deepcopy(registry), disk=disk, boot_class=fault.boot)
    later(top.registry.chain, blocks)
    top.clock.time = top.registry.chain.time
    top.doctor.bad.add(sha256(BAD))
    return top


def one_round(top: BenchTop) -> None:
    """An update, and receipts handed over, anchored and acknowledged."""
    agent = top.agent()
    agent.update()
    agent.deliver()
    top.registry.anchor_all()
    agent.deliver()


def record_chain(fault: Fault) -> Recorded:
    """Three updates, each after a reboot, with receipts delivered in between."""
    registries, disk, phases = make_registries(), Flash(deaf=fault.deaf), []
    NotingJournal.commits = []
    for phase, registry in enumerate(registries):
        top = top_over(disk, registry, fault)
        if phase == 0:
            top.provision()
            disk.recording, disk.operations = True, 0
            NotingJournal.commits = [(0, FileJournal(disk).read() or b"")]
        top.journal_class = NotingJournal
        top.power_on()
        one_round(top)
        phases += [phase] * (len(disk.moments) - len(phases))
    commits, NotingJournal.commits = NotingJournal.commits, []
    return Recorded(disk.moments, phases, commits, registries)


# -- what must hold after a cut --------------------------------------------------------------------


def fault_after(
    image: Image, phase: int, known: list[bytes], registry: world.Registry, how: How, fault: Fault
) -> str | None:
    """What is wrong with a device of which the cut left ``image``, or None."""
    top = top_over(Flash(durable=dict(image), deaf=fault.deaf), registry, fault, how.blocks)
    wrong = _boots(top, phase) if how.rebooted else None
    return wrong or _remembers(top, known) or _goes_on(top, phase)


def _boots(top: BenchTop, phase: int) -> str | None:
    try:
        top.power_on()
    except LocalFault as error:
        return f"does not boot: {error}"
    allowed = (RUNS_AFTER[phase], IMAGES[phase + 1])
    return None if top.runs() in allowed else "boots garbage"


def _remembers(top: BenchTop, known: list[bytes]) -> str | None:
    try:
        found = FileJournal(top.disk).read()
    except LocalFault as error:
        return f"has forgotten everything: {error}"
    return None if found in known else "has forgotten what it had acknowledged"


def _goes_on(top: BenchTop, phase: int) -> str | None:
    before = Book.decode(FileJournal(top.disk).read() or b"")
    try:
        for _ in range(2):
            one_round(top)
            top.power_on()
        after = top.agent().book
    except FirmledgerError as error:
        return f"does not go on: {error}"
    if top.runs() != RUNS_AFTER[phase + 1]:
        return f"does not end with the right image, but {after.state.stage}"
    if after.state.counter < before.state.counter:
        return "its security counter fell"
    if TrustState.decode(after.trust).height < TrustState.decode(before.trust).height:
        return "its accepted height fell"
    final = {
        r.outcome
        for r in world.receipts_of(top.registry)
        if r.outcome.final and r.release == phase + 1
    }
    if after.spoken.count((phase + 1, "")) != 1 or not final <= {OUTCOMES[phase]}:
        return f"reported {final}, not {OUTCOMES[phase]}"
    return "a receipt is left over" if after.queue else None


# -- trying them all -------------------------------------------------------------------------------


@dataclass(frozen=True)
class How:
    """The way of one cut. Where only the process died, nothing written is lost, nothing reboots."""

    text: str
    rebooted: bool = True
    blocks: int = 100


def ways(moment: Moment) -> Iterator[tuple[How, Image]]:
    """Every crash image of a moment, and the process killed there."""
    everything = {
        name: applied(moment.durable.get(name, b""), w) for name, w in moment.pending.items()
    }
    yield How(f"{moment.operation}: killed", rebooted=False), {**moment.durable, **everything}
    for text, image in crash_images(moment):
        yield How(text), image


def examine(fault: Fault, *, enough: int = 10**9, again: int = 0) -> tuple[int, list[str]]:
    """(states tried, what was wrong); stops after ``enough`` faults.

    ``again``: of every so-manieth state the recovery is cut as well, at each of its operations.
    """
    recorded, tried, faults = record_chain(fault), 0, []
    seen: set[object] = set()
    for number, moment in enumerate(recorded.moments):
        phase, known = recorded.phases[number], recorded.known_at(number)
        registry = recorded.registries[phase]
        for how, image in ways(moment):
            key = (phase, known[0], how.rebooted, tuple(sorted(image.items())))
            if key in seen:
                continue
            seen.add(key)
            tried += 1
            wrong = fault_after(image, phase, known, registry, how, fault)
            faults += [f"operation {number}, {how.text}: {wrong}"] if wrong else []
            if again and tried % again == 0:
                more, found = _cut_again(image, phase, registry, fault)
                tried, faults = tried + more, faults + found
            if len(faults) >= enough:
                return tried, faults
    return tried, faults


def _cut_again(
    image: Image, phase: int, registry: world.Registry, fault: Fault
) -> tuple[int, list[str]]:
    """A second cut while the device recovers from the first."""
    disk, tried, faults = Flash(durable=dict(image), deaf=fault.deaf), 0, []
    NotingJournal.commits = [(0, FileJournal(disk).read() or b"")]
    disk.recording = True
    top = top_over(disk, registry, fault, 100)
    top.journal_class = NotingJournal
    top.power_on()
    one_round(top)
    recovery = Recorded(disk.moments, [], NotingJournal.commits, [])
    NotingJournal.commits = []
    for number, moment in enumerate(recovery.moments[::3]):
        for how, second in list(crash_images(moment))[::4]:
            tried += 1
            known = recovery.known_at(3 * number)
            wrong = fault_after(second, phase, known, registry, How(how, blocks=200), fault)
            faults += [f"second cut, {how}: {wrong}"] if wrong else []
    return tried, faults


@pytest.mark.parametrize("boot", [VirtualBoot, TrustingBoot])
def test_every_cut_leaves_a_device_that_boots_remembers_and_goes_on(
    boot: type[VirtualBoot],
) -> None:
    tried, faults = examine(Fault(boot), again=29)
    assert faults == []
    assert tried > 500


SLOTS = frozenset({"slots/a.img", "slots/b.img"})
VERIFIED, GO = (Stage.VERIFYING, Event.VERIFIED), (Stage.OFFERED, Event.GO)
EARLY = Row(Stage.DOWNLOADING, (Effect.VACATE, Effect.ARM, Effect.DOWNLOAD))


def _nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the deaf region."""


def _early_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.TABLE, GO, EARLY)  # type: ignore[arg-type]


def _same_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "place", lambda sequence: 0)


def _effect_before_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(engine: Engine, told: Told | None) -> None:
        memory = engine._memory
        while told is not None:
            before = memory.book.state
            state, effects = step(before, told)
            book = replace(memory.book, state=state)
            if Effect.REPORT in effects:
                book = engine._conclude(book, before, told)
            memory._book = book  # known to the process, and to nothing that lasts
            told = next(filter(None, map(engine._perform, effects)), None)
            memory._journal.commit(memory.book.encode())

    monkeypatch.setattr(Engine, "feed", feed)


@pytest.mark.parametrize(
    ("fault", "plant"),
    [
        pytest.param(Fault(TrustingBoot, SLOTS), _nothing, id="slot-not-synced"),
        pytest.param(Fault(deaf=SLOTS), _nothing, id="slot-not-synced-but-hashed-at-boot"),
        pytest.param(Fault(deaf=frozenset({"journal.bin"})), _nothing, id="journal-not-synced"),
        pytest.param(Fault(deaf=frozenset({"boot.env"})), _nothing, id="environment-not-synced"),
        pytest.param(Fault(TrustingBoot), _early_switch, id="switch-too-early"),
        pytest.param(SOUND, _same_copy, id="same-copy-rewritten"),
        pytest.param(SOUND, _effect_before_journal, id="effect-before-journal"),
    ],
)
def test_planted_faults_are_found(
    fault: Fault, plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    _, faults = examine(fault, enough=1)
    assert faults
