"""Power cuts, all of them: a device's life is cut at every operation of its medium.

From every operation of a `Life` (tests/world/life.py) `crashes` makes the media that a cut just
before it may leave (lost, torn, reordered), and the process killed there with nothing lost. `judge`
restarts a device on each:

* *safety*: what boots is byte for byte an image that may run at that point: the former one until
  the switch is asked for, the new one once its confirmation was acknowledged, either in between;
* *durability*: the journal holds the last commit that had returned, or the one being made;
* *recovery*: the device ends where it would have ended without the cut, neither counter nor height
  has fallen, and there is one final receipt, the right one, and none left over.

`examine` judges them all. A bad state says how it came about: see `Bad`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from device_client.adapters.journal import FileJournal
from device_client.core.book import Book
from device_client.core.machine import Stage
from device_client.core.trust import TrustState
from protocol.errors import FirmledgerError, LocalFault
from protocol.receipt import Outcome
from tests.device_client import registry as world
from tests.device_client.bench_top import FACTORY
from tests.world.flash import Flash, Image, Moment, applied, crash_images
from tests.world.life import STORY, Device, Life, Setting, live

# -- what must hold after a cut --------------------------------------------------------------------


@dataclass(frozen=True)
class Crash:
    """A device whose power went: what is left of its medium, what was lost, and what may be."""

    image: Image
    step: int
    stage: Stage
    operation: str
    lost: str
    may_run: tuple[bytes, ...]
    committed: tuple[bytes, ...]
    killed: bool = False
    blocks: int = 100


@dataclass(frozen=True)
class Bad:
    """A state that must not be; as text: where the cut was, what it took, what came of it."""

    crash: Crash
    wrong: str

    def __str__(self) -> str:
        crash = self.crash
        return (
            f"update {crash.step + 1} (to {STORY[crash.step].version}), {crash.stage}: "
            f"{'process killed' if crash.killed else 'power cut'} before `{crash.operation}`; "
            f"{crash.lost}: {self.wrong}"
        )


def judge(crash: Crash, life: Life, setting: Setting) -> str | None:
    """What is wrong with the device that is left, or None."""
    disk = Flash(durable=dict(crash.image), deaf=setting.deaf)
    device = Device.over(disk, life.registries[crash.step], setting, crash.blocks)
    wrong = None if crash.killed else _boots(device, crash.may_run)
    return wrong or _remembers(device, crash.committed) or _goes_on(device, crash.step)


def _boots(device: Device, allowed: tuple[bytes, ...]) -> str | None:
    try:
        device.power_on()
    except LocalFault as error:
        return f"does not boot: {error}"
    except Exception as error:  # a bootloader without an environment, or at its prompt
        return f"does not boot: {type(error).__name__}"
    if device.runs() in allowed:
        return None
    known = {step.image: step.version for step in STORY} | {FACTORY: "the factory image"}
    return f"boots {known.get(device.runs(), 'garbage')}"


def _remembers(device: Device, committed: tuple[bytes, ...]) -> str | None:
    try:
        found = FileJournal(device.disk).read()
    except LocalFault as error:
        return f"has forgotten everything: {error}"
    return None if found in committed else "has forgotten what it had acknowledged"


def _goes_on(device: Device, number: int) -> str | None:
    step, before = STORY[number], Book.decode(FileJournal(device.disk).read() or b"")
    try:
        for _ in range(2):
            device.take(step)
            device.power_on()
        after = device.agent().book
    except FirmledgerError as error:
        return f"does not go on: {error}"
    if device.runs() != step.runs:
        return f"does not end with the right image, but {after.state.stage}"
    if after.state.counter < before.state.counter:
        return "its security counter fell"
    if TrustState.decode(after.trust).height < TrustState.decode(before.trust).height:
        return "its accepted height fell"
    return _reported(device, after, number)


def _reported(device: Device, after: Book, number: int) -> str | None:
    step = STORY[number]
    release = number if step.back else number + 1
    receipts = [r for r in world.receipts_of(device.registry) if r.outcome.final]
    found = {r.outcome for r in receipts if r.release == release}
    right = {step.outcome, Outcome.CONFIRMED} if step.back else {step.outcome}
    if after.spoken.count((release, "")) != 1 or not found <= right:
        return f"reported {found}, not {step.outcome}"
    return "a receipt is left over" if after.queue else None


# -- trying them all -------------------------------------------------------------------------------


def crashes(life: Life) -> Iterator[Crash]:
    """Every state that a cut of this life may leave, once; and every kill."""
    seen: set[object] = set()
    for number, moment in enumerate(life.moments):
        step, committed = life.steps[number], tuple(life.committed(number))
        may_run, stage = life.may_run(number), life.stage(number)
        for lost, image, killed in _ways(moment):
            if killed and life.booting(number):
                continue
            crash = Crash(image, step, stage, moment.operation, lost, may_run, committed, killed)
            key = (step, committed[0], may_run, killed, tuple(sorted(image.items())))
            if key not in seen:
                seen.add(key)
                yield crash


def _ways(moment: Moment) -> Iterator[tuple[str, Image, bool]]:
    landed = {n: applied(moment.durable.get(n, b""), w) for n, w in moment.pending.items()}
    yield "nothing is lost", {**moment.durable, **landed}, True
    for lost, image in crash_images(moment):
        yield lost, image, False


@dataclass
class Tally:
    """What came of it: states by stage and by kind of operation, and the bad ones."""

    states: int = 0
    second: int = 0
    stages: Counter[Stage] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    bad: list[Bad] = field(default_factory=list)


def examine(setting: Setting, *, enough: int = 10**9, again: int = 0) -> Tally:
    """Judges every crash; stops after ``enough`` bad ones.

    ``again``: of every so-manieth the recovery is cut as well.
    """
    life, tally = live(setting), Tally()
    for crash in crashes(life):
        _count(tally, crash, judge(crash, life, setting))
        if again and tally.states % again == 0:
            for second in _cut_again(crash, life, setting):
                tally.second += 1
                _count(tally, second, judge(second, life, setting))
        if len(tally.bad) >= enough:
            break
    return tally


def _count(tally: Tally, crash: Crash, wrong: str | None) -> None:
    tally.states += 1
    tally.stages[crash.stage] += 1
    tally.operations[" ".join(crash.operation.split(" at ")[0].split()[:2])] += 1
    if wrong:
        tally.bad.append(Bad(crash, wrong))


def _cut_again(crash: Crash, life: Life, setting: Setting) -> Iterator[Crash]:
    """A second cut during recovery from the first: each third operation, each fourth way."""
    disk = Flash(durable=dict(crash.image), deaf=setting.deaf)
    disk.note("commit", FileJournal(disk).read() or b"")
    disk.recording = True
    device = Device.over(disk, life.registries[crash.step], setting, crash.blocks)
    device.power_on()
    device.take(STORY[crash.step])
    recovery = Life(disk.moments, [crash.step] * len(disk.moments), disk.notes)
    place = crash.step
    either = ((STORY[place - 1].runs if place else FACTORY), STORY[place].image)
    for number in range(0, len(disk.moments), 3):
        moment = disk.moments[number]
        for lost, image in list(crash_images(moment))[::4]:
            told = f"a second cut: {lost} (the first: {crash.lost})"
            committed = tuple(recovery.committed(number))
            stage = recovery.stage(number)
            yield Crash(image, place, stage, moment.operation, told, either, committed, blocks=200)
