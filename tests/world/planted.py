"""Faults to plant, to show that the power cuts of tests/world/powercut.py find them.

Each is a mistake that somebody could make in a backend, a journal or the engine: a sync left out, a
switch too early, a step cut in two, one copy for two. A harness that finds none of them in a sound
device has proved something only if it finds all of them here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from device_client.adapters import uboot_boot
from device_client.adapters.grub_boot import Block
from device_client.core import copies, machine
from device_client.core.machine import Effect, Event, Row, Stage, Told, step
from device_client.core.slots import BootRecord, Entry, other
from device_client.engine import Engine
from tests.world import bootloader
from tests.world.bootloader import Power
from tests.world.flash_boards import FlashGrub, FlashUBoot
from tests.world.life import NOTING, Setting
from tests.world.powercut import Bad, examine

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Planted:
    """A fault: what it is, on which board, and how it is put in. ``deaf``: never synced."""

    name: str
    board: str
    deaf: tuple[str, ...] = ()
    plant: Plant = lambda patch: None

    def find(self) -> Bad | None:
        """The first bad state that it leads to."""
        with pytest.MonkeyPatch.context() as patch:
            self.plant(patch)
            found = examine(Setting(self.board, frozenset(self.deaf)), enough=1)
        return found.bad[0] if found.bad else None


# -- in the engine ---------------------------------------------------------------------------------


def _early_switch(patch: pytest.MonkeyPatch) -> None:
    go = (Stage.OFFERED, Event.GO)
    early = Row(Stage.DOWNLOADING, (Effect.VACATE, Effect.ARM, Effect.DOWNLOAD))
    patch.setitem(machine.TABLE, go, early)  # type: ignore[arg-type]


def _effect_before_journal(patch: pytest.MonkeyPatch) -> None:
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

    patch.setattr(Engine, "feed", feed)


def _receipt_after_state(patch: pytest.MonkeyPatch) -> None:
    def feed(engine: Engine, told: Told | None) -> None:
        memory = engine._memory
        while told is not None:
            before = memory.book.state
            state, effects = step(before, told)
            memory.commit(replace(memory.book, state=state))
            if Effect.REPORT in effects:
                memory.commit(engine._conclude(memory.book, before, told))
            told = next(filter(None, map(engine._perform, effects)), None)

    patch.setattr(Engine, "feed", feed)


def _same_copy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(copies, "place", lambda sequence: 0)


# -- in a backend ----------------------------------------------------------------------------------


def _newer_copy_rewritten(patch: pytest.MonkeyPatch) -> None:
    def save(loader: bootloader.UBoot, variables: dict[str, str], power: Power) -> None:
        place, flag, _ = loader.load()
        data = loader.encode(variables, (flag + 1) & 0xFF)
        power.write(loader.copies[place], 0, data)

    patch.setattr(bootloader.UBoot, "save", save)


def _two_processes(patch: pytest.MonkeyPatch) -> None:
    def write(boot: FlashUBoot, record: BootRecord) -> None:
        values = uboot_boot.variables(record)
        first = {name: values.pop(name) for name in ("fl_a", "fl_b")}
        for part in (first, values):
            boot._loader.save(boot._loader.load()[2] | part, Power())

    patch.setattr(FlashUBoot, "_write", write)


def _switch_with_its_details(patch: pytest.MonkeyPatch) -> None:
    def arm(boot: FlashGrub, slot: str, entry: Entry, attempts: int) -> None:
        boot._flash.note("arming")  # type: ignore[attr-defined]
        block = boot._block().marking(other(slot), "g").marking(slot, "t")
        image = Block.of(boot.record().having(slot, entry), b"").images[slot]
        boot._write(replace(block, attempts=attempts, images={**block.images, slot: image}))

    patch.setattr(NOTING["grub"], "arm", arm)


SLOTS = ("slots/a.img", "slots/b.img")

PLANTED = (
    Planted("slot not synced", "trusting", SLOTS),
    Planted("slot not synced, hashed at boot", "virtual", SLOTS),
    Planted("journal not synced", "virtual", ("journal.bin",)),
    Planted("environment not synced", "virtual", ("boot.env",)),
    Planted("switch too early", "trusting", plant=_early_switch),
    Planted("same copy rewritten", "virtual", plant=_same_copy),
    Planted("effect before journal", "virtual", plant=_effect_before_journal),
    Planted("receipt after its state", "virtual", plant=_receipt_after_state),
    Planted("environment not synced", "uboot", ("env.1", "env.2")),
    Planted("the newer copy rewritten", "uboot", plant=_newer_copy_rewritten),
    Planted("a switch in two processes", "uboot", plant=_two_processes),
    Planted("slot not synced, hashed at boot", "uboot", SLOTS),
    Planted("block not synced", "grub", ("grubenv",)),
    Planted("switch and details in one write", "grub", plant=_switch_with_its_details),
    Planted("slot not synced", "grub", SLOTS),
    Planted("entries not synced", "command", ("boot.entries",)),
    Planted("state renamed before it is synced", "command", ("state.boot",)),
    Planted("same copy rewritten", "command", plant=_same_copy),
)
