"""A backend is added by the steps that boot_backends.py tells: here one is, and drives a device."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from device_client.adapters.board import CommandLine
from device_client.adapters.boot_backends import REAL, Opened, open_board
from device_client.adapters.boot_backends import Board as Settings
from device_client.adapters.directory import Directory, mapped
from device_client.config import Config
from device_client.core import slots
from device_client.core.slots import BootRecord, Entry
from device_client.ports import Disk
from protocol.errors import Misuse
from tests.device_client.boot.boards import Board, Control
from tests.device_client.boot.test_contract import SCENARIOS, Pair

# -- step 1: the class -----------------------------------------------------------------------------


class LiloBoot:
    """A backend of six methods: the record in one file, which is replaced as a whole."""

    def __init__(self, path: Path, running: Callable[[], str]) -> None:
        self._path, self._running = path, running

    def provision(self, record: BootRecord) -> None:
        draft = self._path.with_suffix(".new")
        with mapped("writing the record"):
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(record.encode())
                file.flush()
                os.fsync(descriptor)
            draft.replace(self._path)

    def record(self) -> BootRecord:
        with mapped("reading the record"):
            return replace(BootRecord.decode(self._path.read_bytes()), running=self._running())

    def vacate(self, slot: str) -> None:
        self.provision(slots.vacated(self.record(), slot))

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        self.provision(slots.armed(self.record(), slot, entry, attempts))

    def settle(self, healthy: bool) -> None:
        rule = slots.kept if healthy else slots.given_up
        self.provision(rule(self.record()))

    def reboot(self) -> None:
        """The machine boots: see `LiloBoard`."""


# -- step 2: its table -----------------------------------------------------------------------------


@dataclass(frozen=True)
class LiloTable:
    """``[lilo]``"""

    record: str = "/boot/lilo.record"
    command_line: str = "/proc/cmdline"

    def open(self, disk: Disk) -> Opened:
        running = CommandLine(Path(self.command_line))
        return LiloBoot(Path(self.record), running), running


# -- step 3: one line ------------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REAL, "lilo", f"{__name__}:LiloTable")


# -- and that is all -------------------------------------------------------------------------------


def text(folder: Path) -> bytes:
    return (
        f'hardware = 2\nboot = "lilo"\n'
        f'[lilo]\nrecord = "{folder}/record"\ncommand_line = "{folder}/line"\n'
        f'[slots]\na = "{folder}/a"\nb = "{folder}/b"\n'
    ).encode()


class LiloBoard(Board):
    """A board whose client is opened by its config.toml, as a device's is."""

    def control(self) -> Control:
        settings = Config.parse(text(self.folder)).board
        boot = open_board(settings, self.folder, Directory(self.folder)).boot
        boot.reboot = self.reboot  # type: ignore[method-assign]
        return boot

    def start(self) -> None:
        (self.folder / "line").write_text("firmledger.slot=a\n")
        super().start()

    def reboot(self) -> None:
        boot = self.control()
        record = slots.choose(slots.counted(boot.record()), self.intact)
        boot.provision(record)
        (self.folder / "line").write_text(f"firmledger.slot={record.running}\n")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["an update", "never comes up", "vacated while armed"])
def test_the_backend_does_what_all_do(tmp_path: Path, name: str) -> None:
    pair = Pair(LiloBoard(tmp_path))
    for word in SCENARIOS[name].split():
        pair.step(word)


@pytest.mark.usefixtures("registered")
def test_its_settings_are_read_as_strictly_as_all(tmp_path: Path) -> None:
    config = Config.parse(text(tmp_path))
    assert Config.parse(config.to_toml().encode()) == config
    assert config.board.table == LiloTable(f"{tmp_path}/record", f"{tmp_path}/line")
    for wrong in (b"record = 3", b"surprise = 1"):
        with pytest.raises(Misuse):
            Config.parse(text(tmp_path).replace(b"record = ", wrong + b"\n# ", 1))
    with pytest.raises(Misuse, match="does not belong"):
        Config.parse(text(tmp_path) + b"[uboot]\n")
    with pytest.raises(Misuse, match="needs the two devices"):
        Settings.parse("lilo", {})


def test_without_its_line_nobody_knows_it(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="boot is one of"):
        Config.parse(text(tmp_path))
