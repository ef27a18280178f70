"""Power cuts on the boot backends of real boards: their environments, and their bootloaders.

The harness is that of tests/test_powercut.py. U-Boot's environment, GRUB's block and a board's own
command lie on the medium that forgets; bootloaders count, choose and write on it, and are cut in
the middle of that as well.
"""

from __future__ import annotations

import pytest

from tests.world.life import Setting, live
from tests.world.planted import PLANTED, Planted
from tests.world.powercut import crashes, examine

REAL = ("uboot", "grub", "command")
ENVIRONMENT = {"uboot": "env.1", "grub": "grubenv", "command": "boot.entries"}


@pytest.mark.parametrize("board", REAL)
def test_every_cut_leaves_a_device_that_boots_remembers_and_goes_on(board: str) -> None:
    tally = examine(Setting(board), again=151)
    assert [str(bad) for bad in tally.bad] == []
    assert tally.states >= 800
    assert tally.second > 0


@pytest.mark.parametrize("board", REAL)
def test_client_and_bootloader_are_both_cut_while_they_write(board: str) -> None:
    life = live(Setting(board))
    at_work = {
        life.booting(number)
        for number, moment in enumerate(life.moments)
        if moment.operation.split()[:2] == ["write", ENVIRONMENT[board]]
    }
    assert at_work == ({True, False} if board != "command" else {False})
    assert any(crash.killed for crash in crashes(life))


@pytest.mark.parametrize(
    "planted",
    [pytest.param(p, id=f"{p.board}: {p.name}") for p in PLANTED if p.board in REAL],
)
def test_planted_faults_are_found(planted: Planted) -> None:
    bad = planted.find()
    assert bad is not None, f"{planted.name} was not noticed"
    assert bad.crash.operation in str(bad) and bad.crash.lost in str(bad)
