"""Backends in config.toml: strict reading, one table, real boards adopted and never written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from device_client.adapters.board import CommandLine, Restart
from device_client.adapters.boot_backends import BACKENDS, Board
from device_client.adapters.grub_boot import MAX_TRIES
from device_client.config import Config
from protocol.errors import LocalFault, Misuse
from tests.conftest import ROOT
from tests.device_client.boot.machines import OLD, real_board
from tests.device_client.test_cli import Shop

SLOTS = {"a": "/dev/a", "b": "/dev/b"}


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, stack, capsys)


@pytest.mark.parametrize(
    "board",
    [
        Board(),
        Board.parse("uboot", {"slots": SLOTS, "uboot": {"config": "/x"}}),
        Board.parse("grub", {"slots": SLOTS}),
        Board.parse("command", {"slots": SLOTS, "command": {"argv": ["x", "y"], "deadline": 3}}),
        Board.parse("qemu", {"qemu": {"console": ["up"], "deadline": 9}}),
    ],
)
def test_settings_round_trip(board: Board) -> None:
    config = Config(hardware=2, board=board)
    assert Config.parse(config.to_toml().encode()) == config


@pytest.mark.parametrize(
    "text",
    [
        'boot = "lilo"',
        "boot = 3",
        'boot = "uboot"',
        'boot = "command"\n[slots]\na = "/x"\nb = "/y"',
        'boot = "qemu"\n[slots]\na = "/x"\nb = "/y"',
        'boot = "qemu"\nhealth_check = ["true"]',
        '[slots]\na = "/x"',
        "[slots]\na = 1",
        "[slots]\nc = 1",
        '[uboot]\nconfig = "/x"',
        "[surprise]\na = 1",
        'boot = "qemu"\n[qemu]\ndeadline = 0',
        'boot = "qemu"\n[qemu]\ndeadline = true',
        'boot = "qemu"\n[qemu]\nconsole = []',
        'boot = "qemu"\n[qemu]\nconsole = [""]',
        'boot = "qemu"\n[qemu]\nconsole = "up"',
        'boot = "qemu"\n[qemu]\nspeed = 1',
        "board = 1",
    ],
)
def test_settings_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(Misuse):
        Config.parse(text.encode())


TABLES = '[slots]\na = "/dev/a"\nb = "/dev/b"\n'


@pytest.mark.parametrize(("boot", "most"), [("uboot", 255), ("grub", MAX_TRIES)])
def test_attempts_that_a_bootloader_cannot_count_are_refused_at_once(boot: str, most: int) -> None:
    """Not when the first release is to be armed, which may be months later."""
    head = f'hardware = 2\nboot = "{boot}"\nattempts = '
    assert Config.parse(f"{head}{most}\n{TABLES}".encode()).attempts == most
    with pytest.raises(Misuse, match=f"attempts is not between 1 and {most}"):
        Config.parse(f"{head}{most + 1}\n{TABLES}".encode())


@pytest.mark.debian("libubootenv-tool", "/usr/bin/fw_setenv")
@pytest.mark.parametrize("right", [True, False])
def test_a_real_board_is_adopted_only_with_the_image_it_runs(shop: Shop, right: bool) -> None:
    board = real_board(shop.folder, "uboot")
    image = shop.folder / "running.img"
    image.write_bytes(OLD if right else OLD[:-1] + b"?")
    before = (shop.folder / "slot-a").read_bytes()
    arguments = ("--boot", "uboot", "--board", str(board), "--image", str(image))
    document = shop.init(*arguments, code=0 if right else 1)
    assert (shop.folder / "slot-a").read_bytes() == before
    if right:
        assert shop.run("status")["slots"]["a"]["holds"] == "good"
        image.write_bytes(OLD[:-1] + b"?")
        error = shop.init(*arguments, "--force", code=1)["error"]
        assert error["reason"] == "another-image"
        assert shop.run("status")["slots"]["a"]["holds"] == "good"  # what it knew, it still knows
    else:
        assert document["error"]["reason"] == "another-image"
        assert shop.run("status", code=1)["error"]["reason"] == "not-set-up"


def test_init_names_the_backends(shop: Shop) -> None:
    table = shop.folder / "board.toml"
    table.write_text("hardware = 3\n")
    assert shop.init("--board", str(table), code=2)["error"]["reason"] == "config"


@pytest.mark.parametrize(
    "line", ["", "quiet", "firmledger.slot=c", "firmledger.slot=", "x" * 70000]
)
def test_a_bootloader_that_does_not_say_what_runs(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cmdline"
    path.write_text(line)
    with pytest.raises(LocalFault) as caught:
        CommandLine(path)()
    assert caught.value.reason == "running-slot-unknown"


def test_a_bootloader_that_says_two_things(tmp_path: Path) -> None:
    path = tmp_path / "cmdline"
    path.write_text("firmledger.slot=a firmledger.slot=b\n")
    with pytest.raises(LocalFault):
        CommandLine(path)()
    path.write_text("root=/dev/x firmledger.slot=b quiet\n")
    assert CommandLine(path)() == "b"


def test_a_machine_that_does_not_go_down_is_said() -> None:
    with pytest.raises(LocalFault) as caught:
        Restart(["true"], patience=0.1)()
    assert caught.value.reason == "no-reboot"
    with pytest.raises(LocalFault) as caught:
        Restart(["false"], patience=5)()
    assert caught.value.reason == "tool-failed"


def test_every_backend_has_its_page() -> None:
    overview = (ROOT / "docs/boot/README.md").read_text()
    for name in BACKENDS:
        page = ROOT / f"docs/boot/{name}.md"
        assert page.read_text().startswith(f'# `boot = "{name}"`')
        assert f"[{name}.md]({name}.md)" in overview


@pytest.mark.debian("grub-common", "/usr/bin/grub-script-check")
def test_the_grub_snippet_is_grub_script() -> None:
    subprocess.run(["grub-script-check", str(ROOT / "docs/boot/grub.cfg")], check=True)
