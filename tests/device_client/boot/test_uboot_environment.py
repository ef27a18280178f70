"""U-Boot's redundant environment, written by Debian's fw_setenv, read by a bootloader's rules."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from device_client.adapters.uboot_boot import environment_files, parse, variables
from device_client.core.slots import BootRecord, Entry, Standing, factory
from protocol.errors import LocalFault
from tests.device_client.boot.boards import ENV_BYTES, IMAGES, UBootBoard, entry
from tests.world.bootloader import NothingBoots, Power, PowerCut

pytestmark = pytest.mark.debian("libubootenv-tool", "/usr/bin/fw_setenv")


@pytest.fixture
def board(tmp_path: Path) -> UBootBoard:
    board = UBootBoard(tmp_path)
    board.start()
    return board


def arm(board: UBootBoard, attempts: int = 3) -> None:
    board.control().vacate("b")
    board.write("b", IMAGES[1])
    board.control().arm("b", entry(1), attempts)


def logged(board: UBootBoard, real: str) -> Path:
    """A tool that notes each of its runs, and does what the real one does."""
    tool = board.folder / Path(real).name
    tool.write_text(f'#!/bin/sh\necho run >>"$0.log"\nexec {real} "$@"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return tool


def test_one_process_for_each_switch(board: UBootBoard) -> None:
    tool = logged(board, "/usr/bin/fw_setenv")
    log = tool.with_name("fw_setenv.log")
    control = board.control(setenv=[str(tool)])
    steps = [
        lambda: control.vacate("b"),
        lambda: control.arm("b", entry(1), 3),
        lambda: control.settle(False),
        lambda: control.vacate("b"),
    ]
    for number, step in enumerate(steps):
        step()
        runs = log.read_text().count("run") if log.exists() else 0
        assert runs == number, "vacating an empty slot writes nothing, all else is one run"
    control.vacate("b")
    assert log.read_text().count("run") == 3


def test_the_variables_of_others_stay(board: UBootBoard) -> None:
    arm(board)
    env = board.loader.load()[2]
    assert env["bootcmd"] == "run fl_boot" and env["ethaddr"] == "02:00:00:00:00:01"


def test_the_mapping_is_the_documented_one(board: UBootBoard) -> None:
    board.control().vacate("b")
    digest = entry(5).digest
    new = Entry(Standing.TRIAL, digest, 0xABCDEF, entry(5).version, 7, 9)
    board.control().arm("b", new, 17)
    env = board.loader.load()[2]
    assert {k: v for k, v in env.items() if not k.startswith("fl_a_")} == {
        "bootcmd": "run fl_boot",
        "ethaddr": "02:00:00:00:00:01",
        "fl_primary": "a",
        "fl_attempts": "11",
        "fl_a": "good",
        "fl_b": "trial",
        "fl_b_digest": digest.hex(),
        "fl_b_size": "abcdef",
        "fl_b_version": str(5 << 48 | 5),
        "fl_b_counter": "7",
        "fl_b_release": "9",
    }


def test_the_sequence_byte_wraps(board: UBootBoard) -> None:
    """More switches than a byte counts: the newest copy stays the one that is believed."""
    arm(board, 255)
    for left in range(254, -1, -1):
        assert board.power_on() == "b"
        if left % 17 == 0:
            record = board.control().record()
            assert (record.trial, record.attempts) == ("b", left)
    board.control().settle(True)
    assert board.control().record().primary == "b"


def test_fw_setenv_wraps_the_sequence_byte(board: UBootBoard) -> None:
    first, second = board.loader.copies
    env = board.loader.load()[2]
    first.write_bytes(board.loader.encode(env, 254))
    second.write_bytes(board.loader.encode(env, 255))
    for _ in range(3):
        arm(board)
        assert board.loader.load()[2]["fl_b"] == "trial"
        board.control().settle(False)
        assert board.loader.load()[2]["fl_b"] == "bad"


@pytest.mark.parametrize("step", ["vacate", "arm", "keep", "give up"])
def test_every_torn_write_of_a_copy_reads_as_old_or_new(board: UBootBoard, step: str) -> None:
    """What fw_setenv writes is one copy: its CRC keeps a torn one from being believed."""
    if step != "vacate":
        board.control().vacate("b")
    if step in ("keep", "give up"):
        board.control().arm("b", entry(1), 3)
        board.write("b", IMAGES[1])
        board.power_on()
    else:
        board.control().arm("b", entry(2), 3)
    before = [path.read_bytes() for path in board.loader.copies]
    old = board.control().record()
    match step:
        case "vacate":
            board.control().vacate("b")
        case "arm":
            board.control().vacate("b")
            before = [path.read_bytes() for path in board.loader.copies]
            old = board.control().record()
            board.control().arm("b", entry(1), 3)
        case _:
            board.control().settle(step == "keep")
    after = [path.read_bytes() for path in board.loader.copies]
    new = board.control().record()
    changed = [i for i in range(2) if before[i] != after[i]]
    assert len(changed) == 1 and old != new, "the copy in force is never written"
    path, was, now = board.loader.copies[changed[0]], before[changed[0]], after[changed[0]]
    for at in sorted({0, 1, 4, 5, 6, 100, 400, 511, 512, 513, ENV_BYTES - 1, ENV_BYTES}):
        for mixture in (now[:at] + was[at:], was[:at] + now[at:]):
            path.write_bytes(mixture)
            if board.control().record() not in (old, new):
                pytest.fail(f"cut at {at}: neither old nor new")


@pytest.mark.parametrize("torn", [0, 1, 5, 100, 512, 4096, ENV_BYTES])
def test_u_boot_is_cut_while_it_counts(board: UBootBoard, torn: int) -> None:
    arm(board)
    with pytest.raises(PowerCut):
        board.power_on(Power(cut=0, torn=torn))
    left = board.control().record().attempts
    assert left == (2 if torn == ENV_BYTES else left) and left in (2, 3)
    assert board.power_on() == "b"
    assert board.control().record().attempts == left - 1


def test_one_damaged_copy_costs_one_step_at_most(board: UBootBoard) -> None:
    arm(board)
    newest = board.loader.copies[board.loader.load()[0]]
    newest.write_bytes(bytes([newest.read_bytes()[0] ^ 1]) + newest.read_bytes()[1:])
    record = board.control().record()
    assert record.b.standing is Standing.EMPTY and record.primary == "a"
    assert board.power_on() == "a"


def test_both_copies_damaged_is_said_and_no_default_is_taken(board: UBootBoard) -> None:
    for path in board.loader.copies:
        path.write_bytes(bytes(ENV_BYTES))
    with pytest.raises(LocalFault) as caught:
        board.control().record()
    assert caught.value.reason == "tool-failed"
    with pytest.raises(LocalFault):
        board.control().provision(factory(entry(0)))
    assert all(path.read_bytes() == bytes(ENV_BYTES) for path in board.loader.copies)
    with pytest.raises(NothingBoots):
        board.power_on()


RECORD = BootRecord("a", "a", 2, entry(0, Standing.GOOD), entry(1, Standing.TRIAL))


def test_variables_round_trip() -> None:
    assert parse(variables(RECORD)) == RECORD


@pytest.mark.parametrize("name", sorted(variables(RECORD)))
@pytest.mark.parametrize("value", [None, "", "c", "-1", "z" * 64, "٣", "1" * 70, "0x"])
def test_a_variable_that_means_nothing_is_refused(name: str, value: str | None) -> None:
    values = variables(RECORD)
    if value is None:
        del values[name]
    else:
        values[name] = value
    if (name, value) in (("fl_attempts", "c"), ("fl_a_size", "c"), ("fl_b_size", "c")):
        assert parse(values) != RECORD
        return
    with pytest.raises(LocalFault) as caught:
        parse(values)
    assert caught.value.reason == "boot-record-damaged"


def test_a_primary_that_is_not_good_is_refused() -> None:
    for standing in ("empty", "trial", "bad"):
        with pytest.raises(LocalFault):
            parse({**variables(RECORD), "fl_a": standing})


@pytest.mark.parametrize(
    "text",
    ["", "/dev/x 0 0x2000\n", "/dev/x 0 0x2000\n/dev/x 0 0x2000\n", "# /a 0 1\n/b 0 1\n", "\xff"],
)
def test_an_environment_without_two_copies_is_refused(tmp_path: Path, text: str) -> None:
    config = tmp_path / "fw_env.config"
    config.write_text(text, encoding="latin-1")
    with pytest.raises(LocalFault) as caught:
        environment_files(config)
    assert caught.value.reason == "environment-not-redundant"


def test_two_copies_on_one_device_are_two(tmp_path: Path) -> None:
    config = tmp_path / "fw_env.config"
    config.write_text("/dev/mmcblk0 0x100000 0x2000\n/dev/mmcblk0 0x102000 0x2000\n")
    assert environment_files(config) == [Path("/dev/mmcblk0")] * 2


@pytest.mark.parametrize(("place", "raw"), [("/dev/zero", True), ("/proc/version", False)])
def test_raw_flash_cannot_be_synced_and_needs_not(board: UBootBoard, place: str, raw: bool) -> None:
    """The kernel says EINVAL for both; of a character device it is right."""
    wanted = board.control().record()
    printed = board.folder / "printed"
    printed.write_text("".join(f"{k}={v}\n" for k, v in variables(wanted).items()))
    board.config.write_text(f"{place} 0 {ENV_BYTES:#x}\n{place} {ENV_BYTES:#x} {ENV_BYTES:#x}\n")
    control = board.control(printenv=["sh", "-c", f"cat {printed}"])
    if raw:
        assert control.record() == wanted
        return
    with pytest.raises(LocalFault) as caught:
        control.record()
    assert caught.value.reason == "local-io"


def test_what_is_read_is_durable_first(board: UBootBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed fw_setenv may not have synced: both places are, before the environment is read."""
    synced: list[str] = []
    honest = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        honest(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    board.control().record()
    assert synced == ["env1", "env2"]
    synced.clear()
    with pytest.raises(LocalFault):
        board.control(printenv=["false"]).record()
    assert synced == ["env1", "env2"], "before the tool, not after it"


def test_a_default_of_the_tool_is_never_taken(board: UBootBoard) -> None:
    """Both tools are told a file of defaults that is not there, whatever the system has."""
    for name in ("fw_printenv", "fw_setenv"):
        tool = board.folder / name
        tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"$0.said"\nexec /usr/bin/{name} "$@"\n')
        tool.chmod(0o755)
    control = board.control(
        printenv=[str(board.folder / "fw_printenv")], setenv=[str(board.folder / "fw_setenv")]
    )
    control.arm("b", entry(1), 3)
    for name in ("fw_printenv", "fw_setenv"):
        said = (board.folder / f"{name}.said").read_text().splitlines()
        assert not Path(said[said.index("-f") + 1]).exists()


def test_a_tool_that_lies_is_found_out(board: UBootBoard) -> None:
    arm(board)
    with pytest.raises(LocalFault) as caught:
        board.control(setenv=["true"]).settle(False)
    assert caught.value.reason == "boot-record-unchanged"


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        (["false"], "tool-failed"),
        (["/nonexistent/fw_printenv"], "tool-missing"),
        (["sh", "-c", "sleep 60"], "tool-deadline"),
        (["sh", "-c", "yes"], "tool-output"),
        (["printf", "\\377"], "tool-output"),
        (["true"], "boot-record-damaged"),
    ],
)
def test_tools_that_fail(board: UBootBoard, tool: list[str], reason: str) -> None:
    with pytest.raises(LocalFault) as caught:
        board.control(printenv=tool, deadline=0.5).record()
    assert caught.value.reason == reason
