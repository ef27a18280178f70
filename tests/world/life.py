"""A device's life in updates, over a medium that records: what the power cuts of powercut.py cut.

`STORY` is a chain of updates: good ones, one that fails its health check, one that never comes up,
one whose download breaks off half-way, and the owner's way back, with receipts delivered and
reboots in between. `live` runs it, and gives for every operation of the medium what had been
promised by then: which commits had returned, and which images may boot.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from device_client.adapters.file_slots import FileSlots
from device_client.adapters.journal import FileJournal
from device_client.core.book import Book
from device_client.core.machine import Stage
from device_client.core.slots import Entry, factory
from device_client.ports import Disk
from protocol.digests import sha256
from protocol.errors import Unreachable
from protocol.receipt import Outcome
from tests.device_client import registry as world
from tests.device_client.bench_top import FACTORY, BenchTop
from tests.world.flash import Flash, Moment
from tests.world.flash_boards import BOARDS

SIZE = 2600
PIECE = 400
COPY_OF_RECORD = 8192


# -- the story -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One release, and what becomes of it; ``version`` also names its image.

    ``breaks``: bytes after which its download breaks off, once. ``back``: the owner's rollback to
    what ran before, of no release of its own.
    """

    version: str
    outcome: Outcome
    runs: bytes
    sick: bool = False
    dead: bool = False
    breaks: int | None = None
    back: bool = False

    @property
    def image(self) -> bytes:
        return world.image_of(self.version, SIZE)


def _image(version: str) -> bytes:
    return world.image_of(version, SIZE)


STORY = (
    Step("1.0.0", Outcome.CONFIRMED, _image("1.0.0")),
    Step("2.0.0", Outcome.ROLLED_BACK, _image("1.0.0"), sick=True),
    Step("3.0.0", Outcome.CONFIRMED, _image("3.0.0"), breaks=1500),
    Step("4.0.0", Outcome.ROLLED_BACK, _image("3.0.0"), dead=True),
    Step("5.0.0", Outcome.CONFIRMED, _image("5.0.0")),
    Step("3.0.0", Outcome.ROLLED_BACK, _image("3.0.0"), back=True),
)
SICK = {sha256(step.image) for step in STORY if step.sick}
DEAD = {step.image for step in STORY if step.dead}


@dataclass(frozen=True)
class Setting:
    """Which board, and what is planted: regions whose sync does nothing.

    ``keep_former``: False where the owner has the former slot erased after each confirmation; the
    story then ends before the way back.
    """

    board: str = "virtual"
    deaf: frozenset[str] = frozenset()
    keep_former: bool = True

    @property
    def story(self) -> tuple[Step, ...]:
        """The steps that this device lives through."""
        return tuple(step for step in STORY if self.keep_former or not step.back)


class NotingJournal(FileJournal):
    """Notes which commits had returned."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        assert isinstance(disk, Flash)
        self._flash = disk

    def commit(self, record: bytes) -> None:
        super().commit(record)
        self._flash.note("commit", record)


def _noting(board: str) -> type:
    """The board's class, noting when a switch is asked for and when one was acknowledged.

    An image in `DEAD` never gets as far as a client: its machine boots again until another runs.
    """

    class Noting(BOARDS[board]):  # type: ignore[misc]
        def __init__(self, disk: Flash, slots: FileSlots) -> None:
            super().__init__(disk, slots)
            self._flash, self._read_slot = disk, slots

        def arm(self, slot: str, entry: Entry, attempts: int) -> None:
            self._flash.note("arming")
            super().arm(slot, entry, attempts)

        def settle(self, healthy: bool) -> None:
            super().settle(healthy)
            self._flash.note("kept" if healthy else "given up")

        def reboot(self) -> None:
            self._flash.note("booting")
            super().reboot()
            while running_image(self, self._read_slot) in DEAD:
                super().reboot()
            self._flash.note("booted")

    return Noting


NOTING = {board: _noting(board) for board in BOARDS}


def running_image(boot: object, slots: FileSlots) -> bytes:
    """The bytes that the record says run."""
    record = boot.record()  # type: ignore[attr-defined]
    buffer = bytearray(record.entry(record.running).size)
    slots.read(record.running, 0, memoryview(buffer))
    return bytes(buffer)


class Device(BenchTop):
    """A device on a board, in the world as it is at one step of the story."""

    @classmethod
    def over(cls, disk: Flash, registry: world.Registry, setting: Setting, blocks: int) -> Device:
        """``blocks``: how much later it is than ``registry`` shows."""
        device = cls(registry=copy.deepcopy(registry), disk=disk, block=512, stride=2048)
        device.boot_class, device.journal_class = NOTING[setting.board], NotingJournal
        chain = device.registry.chain
        chain.number, chain.time = chain.number + blocks, chain.time + blocks
        device.clock.time = chain.time
        device.doctor.bad |= SICK
        device.keep_former = setting.keep_former
        return device

    def provision(self) -> Device:
        slots = FileSlots(self.disk)
        for slot in "ab":
            slots.reserve(slot, COPY_OF_RECORD)
        slots.write("a", 0, FACTORY)
        slots.sync("a")
        entry = Entry(digest=sha256(FACTORY), size=len(FACTORY))
        self.boot_class(self.disk, slots).provision(factory(entry))
        trusted = world.trust_file(self.registry.chain, max_age=self.max_age)
        FileJournal(self.disk).commit(world.first_book(trusted).encode())
        return self

    def runs(self) -> bytes:
        slots = FileSlots(self.disk)
        return running_image(self.boot_class(self.disk, slots), slots)

    def take(self, step: Step) -> None:
        """What happens in a step: an update or a rollback, and receipts delivered."""
        agent = self.agent()
        if step.back:
            agent.start()
            if self.runs() != step.runs:
                agent.rollback()
        else:
            try:
                agent.update()
            except Unreachable:
                agent = self.agent()
                agent.update()
        agent.deliver()
        self.registry.anchor_all()
        agent.deliver()


# -- the life that is cut --------------------------------------------------------------------------


@dataclass
class Life:
    """The story, run once. Per operation: what the medium was, and which step it belonged to."""

    moments: list[Moment] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    notes: list[tuple[int, str, bytes]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    registries: list[world.Registry] = field(default_factory=list)

    def committed(self, number: int) -> list[bytes]:
        """What the journal may hold at operation ``number``: the last commit, or the next."""
        known = [data for at, word, data in self.notes if word == "commit" and at <= number]
        coming = [data for at, word, data in self.notes if word == "commit" and at > number]
        return known[-1:] + coming[:1]

    def may_run(self, number: int) -> tuple[bytes, ...]:
        """The images that may boot after a cut at operation ``number``."""
        place = self.steps[number]
        before, step = (STORY[place - 1].runs if place else FACTORY), STORY[place]
        since = [w for at, w, _ in self.notes if self.starts[place] <= at <= number]
        if "kept" in since:
            return (step.image,)
        return (before, step.image) if "arming" in since else (before,)

    def booting(self, number: int) -> bool:
        """Whether a bootloader was at work there, and no client that could be killed."""
        words = [w for at, w, _ in self.notes if at <= number and w in ("booting", "booted")]
        return words[-1:] == ["booting"]

    def stage(self, number: int) -> Stage:
        """What the device had undertaken there."""
        return Book.decode(self.committed(number)[0]).state.stage


def live(setting: Setting) -> Life:
    """The story without a cut."""
    registry, disk, life = world.Registry(world.Chain(), piece=PIECE), Flash(), Life()
    Device.over(disk, registry, setting, 0).provision()
    disk.recording, disk.operations, disk.notes, disk.deaf = True, 0, [], setting.deaf
    disk.note("commit", FileJournal(disk).read() or b"")
    for number, step in enumerate(setting.story):
        chain = registry.chain
        chain.number, chain.time = chain.number + 1000, chain.time + 1000
        if not step.back:
            chain.publish(world.make(step.image, step.version, number + 1))
        registry.cut_after = step.breaks
        life.registries.append(copy.deepcopy(registry))
        life.starts.append(disk.operations)
        device = Device.over(disk, registry, setting, 0)
        device.power_on()
        device.take(step)
        assert device.runs() == step.runs, f"{step.version} does not end as the story says"
        life.steps += [number] * (len(disk.moments) - len(life.steps))
    life.moments, life.notes = disk.moments, disk.notes
    return life
