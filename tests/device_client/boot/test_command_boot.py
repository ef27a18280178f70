"""A board's own command: what it does not do is noticed, and what it does half is harmless."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_client.core.slots import Standing
from protocol.errors import LocalFault
from tests.device_client.boot.boards import IMAGES, CommandBoard, entry


@pytest.fixture
def board(tmp_path: Path) -> CommandBoard:
    board = CommandBoard(tmp_path)
    board.start()
    return board


def instead(board: CommandBoard, verb: str, does: str) -> list[str]:
    """The board's command, but that verb ``does`` something else."""
    wrapper = board.folder / "wrapper.sh"
    wrapper.write_text(f'#!/bin/sh\ncase "$2" in {verb}) {does} ;; esac\nexec "$@"\n')
    wrapper.chmod(0o755)
    return [str(wrapper)]


def update(board: CommandBoard, slot: str, image: int) -> None:
    board.control().vacate(slot)
    board.write(slot, IMAGES[image])
    board.control().arm(slot, entry(image), 3)


@pytest.mark.parametrize("verb", ["set-primary", "set-state"])
def test_a_set_that_changes_nothing_is_found_out(board: CommandBoard, verb: str) -> None:
    board.control().vacate("b")
    liar = board.control(*instead(board, verb, "exit 0"))
    with pytest.raises(LocalFault, match="succeeded and changed nothing") as caught:
        liar.arm("b", entry(1), 3)
    assert caught.value.reason == "boot-command"
    assert board.control().record().trial is None
    board.control().arm("b", entry(1), 3)
    assert board.control().record().trial == "b"


def test_an_image_that_was_overwritten_is_never_good_again(board: CommandBoard) -> None:
    """The bootloader found slot a bad; it is armed anew, and cut when the command calls it good."""
    update(board, "b", 1)
    board.power_on()
    board.control().settle(True)
    board.loader.state.write_text(board.loader.state.read_text().replace("a=good", "a=bad"))
    assert board.control().record().a.standing is Standing.BAD
    board.write("a", IMAGES[2])
    cut = instead(board, "set-state", '"$@"; exit 1')
    with pytest.raises(LocalFault) as caught:
        board.control(*cut).arm("a", entry(2), 3)
    assert caught.value.reason == "tool-failed"
    assert board.loader.load()["a"] == "good"
    assert board.control().record().a.standing is Standing.EMPTY
    board.control().arm("a", entry(2), 3)
    record = board.control().record()
    assert (record.trial, record.a.digest) == ("a", entry(2).digest)
