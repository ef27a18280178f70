"""The power may go at any moment: the device boots a valid image, and goes on from there.

A chain of updates runs once over a simulated medium; then it is cut before, inside and after every
write, with what was not flushed lost, torn or out of order, and every device that is left must boot
what it may, remember what it acknowledged, and end where it would have ended: see
tests/world/powercut.py. Here it is the simulated bootloader, which hashes what it boots, and one
that takes the record's word; test_powercut_boards.py has the other boot backends.

That the harness can find faults is shown by planting some (tests/world/planted.py): every one must
be found, and said in words that name the cut and what it took.
"""

from __future__ import annotations

import pytest

from device_client.core.machine import Stage
from tests.world.life import STORY, Setting, live
from tests.world.planted import PLANTED, Planted
from tests.world.powercut import crashes, examine

UNDERTAKEN = set(Stage) - {Stage.FROZEN, Stage.WAITING, Stage.CLEARING}
"""All stages that the story passes through: nothing freezes in it, and nobody has to wait."""
WRITTEN = {"journal.bin", "boot.env", "slots/a.img", "slots/b.img"}


@pytest.mark.parametrize(
    ("board", "again", "least"), [("virtual", 17, 2000), ("trusting", 97, 1000)]
)
def test_every_cut_leaves_a_device_that_boots_remembers_and_goes_on(
    board: str, again: int, least: int
) -> None:
    tally = examine(Setting(board), again=again)
    assert [str(bad) for bad in tally.bad] == []
    assert tally.states >= least
    assert tally.second >= 100, "recoveries are cut, too"


def test_a_device_that_erases_the_former_slot_survives_every_cut_too() -> None:
    """Its only image is the confirmed one: a cut while it erases or installs leaves that alone."""
    tally = examine(Setting("trusting", keep_former=False))
    assert [str(bad) for bad in tally.bad] == []
    assert tally.states >= 700 and tally.stages[Stage.CLEARING] >= 20


def test_the_cuts_are_everywhere() -> None:
    """Before every write and every sync of every region, at every stage, in every step."""
    life = live(Setting())
    found = list(crashes(life))
    assert {crash.stage for crash in found} == UNDERTAKEN
    assert {crash.step for crash in found} == set(range(len(STORY)))
    verbs = {tuple(crash.operation.split()[:2]) for crash in found}
    assert verbs >= {(verb, region) for verb in ("write", "sync") for region in WRITTEN}
    assert any("lost" in crash.lost for crash in found)
    assert any("there are the first" in crash.lost for crash in found)
    assert any("write 1 of 3" in crash.lost and "write 2" not in crash.lost for crash in found), (
        "an earlier write is lost, and later ones landed"
    )


def test_an_acknowledged_confirmation_bars_the_former_image() -> None:
    """The oracle is exact: one image before the switch, two in between, one after it."""
    allowed = [len(crash.may_run) for crash in crashes(live(Setting())) if crash.step == 0]
    assert allowed[0] == 1 and 2 in allowed and allowed[-1] == 1


@pytest.mark.parametrize(
    "planted",
    [pytest.param(p, id=p.name) for p in PLANTED if p.board in ("virtual", "trusting")],
)
def test_planted_faults_are_found_and_explained(planted: Planted) -> None:
    bad = planted.find()
    assert bad is not None, f"{planted.name} was not noticed"
    assert bad.crash.operation in str(bad) and bad.crash.lost in str(bad) and bad.wrong in str(bad)
    for region in planted.deaf:
        if region in bad.crash.lost:
            break
    else:
        assert not planted.deaf or "process killed" in str(bad), f"{bad} does not say what was lost"
