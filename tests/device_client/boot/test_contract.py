"""What every boot backend has to do, one test for all: read this to add another.

A backend keeps the record of `core.slots` wherever its bootloader keeps things. So it is driven
beside the record's own rules, and after each step both must say the same: who is primary, who runs,
who is on trial, what each slot's image is, and how many boots a trial has left. Every step is made
by a backend that was just opened, as if its process had died after the step before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_client.core import slots
from device_client.core.slots import BootRecord, Standing, factory
from protocol.errors import FirmledgerError, LocalFault, Misuse
from tests.device_client.boot.boards import BOARDS, IMAGES, Board, entry
from tests.world.bootloader import NothingBoots

pytestmark = [
    pytest.mark.debian("libubootenv-tool", "/usr/bin/fw_setenv"),
    pytest.mark.debian("grub-common", "/usr/bin/grub-editenv"),
]
BAD_IMAGE = b"not what was checked"


class Pair:
    """A board and the model of it, driven together."""

    def __init__(self, board: Board) -> None:
        board.start()
        self.board, self.model = board, factory(entry(0))
        self.next = 1
        self.agree()

    def agree(self) -> None:
        found, wanted = self.board.control().record(), self.model
        if not self.board.counts:
            found, wanted = replace(found, attempts=0), replace(wanted, attempts=0)
        assert found == wanted

    def step(self, word: str) -> None:
        """One step by its name; where the model refuses, the backend must, and change nothing."""
        steps: dict[str, Callable[[], BootRecord]] = {
            "vacate": self.vacate,
            "arm": lambda: self.arm(2),
            "arm once": lambda: self.arm(1),
            "boot": self.boot,
            "keep": lambda: self.settle(True),
            "give up": lambda: self.settle(False),
            "damage": self.damage,
        }
        with contextlib.suppress(BothRefused):
            self.model = steps[word]()
        self.agree()

    def spare(self) -> str:
        return slots.other(self.model.primary)

    def vacate(self) -> BootRecord:
        slot = self.spare()
        with refusing_alike(lambda: slots.vacated(self.model, slot)) as wanted:
            self.board.control().vacate(slot)
        return wanted[0]

    def arm(self, attempts: int) -> BootRecord:
        slot, image = self.spare(), self.next % len(IMAGES)
        if self.model.entry(slot).standing is Standing.TRIAL:
            return self.model  # the agent vacates first, always
        new = entry(image)
        with refusing_alike(lambda: slots.armed(self.model, slot, new, attempts)) as wanted:
            self.board.write(slot, IMAGES[image])
            self.board.control().arm(slot, new, attempts)
        self.next += 1
        return wanted[0]

    def settle(self, healthy: bool) -> BootRecord:
        rule = slots.kept if healthy else slots.given_up
        with refusing_alike(lambda: rule(self.model)) as wanted:
            self.board.control().settle(healthy)
        return wanted[0]

    def boot(self) -> BootRecord:
        try:
            wanted = slots.choose(slots.counted(self.model), self.board.intact)
        except LocalFault:
            with pytest.raises((NothingBoots, LocalFault)):
                self.board.control().reboot()
            self.board.write(self.model.primary, IMAGES[0])  # repaired over the wire
            self.board.control().reboot()
            return slots.choose(slots.counted(slots.counted(self.model)), self.board.intact)
        self.board.control().reboot()
        return wanted

    def damage(self) -> BootRecord:
        """The medium forgets the slot that would boot next."""
        slot = self.model.trial or self.model.primary
        if self.board.intact(slots.other(slot)):
            self.board.write(slot, BAD_IMAGE)
        return self.model


class BothRefused(Exception):
    """Model and backend refused a step with the same reason."""


class refusing_alike:
    """The model's answer; where the model refuses, the body must refuse with the same reason."""

    def __init__(self, rule: Callable[[], BootRecord]) -> None:
        self.refused: FirmledgerError | None = None
        self.answer: list[BootRecord] = []
        try:
            self.answer = [rule()]
        except Misuse as error:
            self.refused = error

    def __enter__(self) -> list[BootRecord]:
        return self.answer

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if self.refused is None:
            return False
        assert isinstance(error, FirmledgerError), "the model refuses, the backend does not"
        assert error.reason == self.refused.reason
        raise BothRefused


@pytest.fixture(params=sorted(BOARDS))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Pair]]:
    count = 0

    def made() -> Pair:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        return Pair(BOARDS[request.param](folder))

    yield made


SCENARIOS = {
    "an update": "vacate arm boot keep boot boot boot boot",
    "two updates": "vacate arm boot keep vacate arm boot keep boot",
    "given up": "vacate arm boot give_up boot boot",
    "given up before its boot": "vacate arm give_up boot",
    "never comes up": "vacate arm boot boot boot boot boot",
    "comes up at its last attempt": "vacate arm boot boot keep boot boot boot",
    "one attempt only": "vacate arm_once boot boot boot",
    "damaged on trial": "vacate arm damage boot boot",
    "damaged after confirmation": "vacate arm boot keep damage boot boot",
    "back to the former image": "vacate arm boot keep arm boot keep boot boot",
    "vacated while armed": "vacate arm vacate boot vacate arm boot keep",
    "vacated twice": "vacate vacate boot arm boot keep",
    "after a failure": "vacate arm boot give_up boot vacate arm boot keep boot",
    "settled without a trial": "keep give_up boot keep vacate keep give_up",
    "vacating what runs": "vacate arm boot vacate keep vacate",
    "a fallback, and on from there": "vacate arm boot keep damage boot vacate arm boot keep",
}


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_scenario(make: Callable[[], Pair], name: str) -> None:
    pair = make()
    for word in SCENARIOS[name].split():
        pair.step(word.replace("_", " "))


WORDS = ["vacate", "arm", "arm once", "boot", "boot", "keep", "give up", "damage"]


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.sampled_from(WORDS), min_size=4, max_size=16))
def test_any_order_of_steps(make: Callable[[], Pair], words: list[str]) -> None:
    pair = make()
    for word in words:
        pair.step(word)


def test_a_confirmed_slot_never_counts_down(make: Callable[[], Pair]) -> None:
    """However often a healthy device is switched off and on, it stays where it is."""
    pair = make()
    for word in ("vacate", "arm", "boot", "keep"):
        pair.step(word)
    before = pair.board.control().record()
    assert before.running == "b"
    for _ in range(12):
        pair.board.power_on()
        assert pair.board.control().record() == before


def test_every_attempt_is_one_boot(make: Callable[[], Pair]) -> None:
    """Exactly as many boots as were allowed; then the former image, for good."""
    pair = make()
    pair.step("vacate")
    pair.board.write("b", IMAGES[1])
    pair.board.control().arm("b", entry(1), 3)
    ran = [pair.board.power_on() for _ in range(6)]
    assert ran == ["b", "b", "b", "a", "a", "a"]
    assert pair.board.control().record().b.standing is Standing.BAD


def test_arming_what_boots_is_refused(make: Callable[[], Pair]) -> None:
    pair = make()
    with pytest.raises(Misuse, match="slot"):
        pair.board.control().arm("a", entry(1), 3)
    with pytest.raises(Misuse, match="slot"):
        pair.board.control().vacate("a")
    with pytest.raises(Misuse):
        pair.board.control().arm("b", entry(1), 0)
    pair.agree()
