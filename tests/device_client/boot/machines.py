"""Whole devices on every board that a client can be killed on: set up by `init`, fed from a stick.

A real board's reboot takes the client down with it, as the real thing does; its bootloader is then
the simulated one of `boards`, over the environment that the client wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_client.adapters.boot_backends import REAL, open_board
from device_client.adapters.directory import Directory
from device_client.cli import main
from device_client.config import read_config
from device_client.core.slots import BootRecord, Standing
from protocol.bundle import Bundle, stick_prefix
from tests.device_client import registry as world
from tests.device_client.boot.boards import BOARDS
from tests.device_client.test_cli import Shop
from tests.world.killing import run_forked

ATTEMPTS = 3
NEW = world.image_of("1.0.0", 40_000)
OLD = world.image_of("factory", 30_000)


@dataclass
class Bench:
    """A device that was just set up, to be copied for each run; and the stick it installs from."""

    folder: Path
    boot: str
    boots: int = 0
    devices: dict[Path, bytes] = field(default_factory=dict)
    """Block devices that stand outside ``folder``, and what they held when it was set up."""

    @property
    def device(self) -> Path:
        return self.folder / "dev"

    @property
    def stick(self) -> Path:
        return self.folder / "stick.flb"

    def install(self) -> int:
        return main(["-C", str(self.device), "install", str(self.stick), "--yes", "--json"])

    def record(self) -> BootRecord:
        disk = Directory(self.device)
        try:
            opened = open_board(read_config(self.device).board, self.device, disk)
            with opened.closing:
                return opened.boot.record()
        finally:
            disk.close()

    def image(self, slot: str, size: int) -> bytes:
        return read_config(self.device).board.paths(self.device)[slot].read_bytes()[:size]

    def power_on(self) -> None:
        """A machine that went down boots; where booting is simulated, the client does that."""
        self.boots += 1
        if self.boot in REAL:
            BOARDS[self.boot](self.folder).loader.power_on(self.intact)

    def power_cycle(self) -> None:
        """The power goes, and comes back: every machine boots, a simulated one too."""
        if self.boot in REAL:
            self.power_on()
            return
        disk = Directory(self.device)
        try:
            open_board(read_config(self.device).board, self.device, disk).boot.reboot()
        finally:
            disk.close()

    def intact(self, slot: str) -> bool:
        """What a bootloader finds that hashes a slot."""
        entry = self.record().entry(slot)
        return hashlib.sha256(self.image(slot, entry.size)).digest() == entry.digest

    def went_down(self) -> bool:
        """Whether the client had the machine rebooted."""
        down = self.folder / "went-down"
        found = down.exists()
        down.unlink(missing_ok=True)
        return found

    def finish(self) -> dict[str, Any]:
        """Run the client as often as the machine starts it, until it has nothing more to do."""
        for _ in range(2 * ATTEMPTS):
            ended = run_forked(self.install)
            if not self.went_down():
                assert ended.code == 0, "the run that nobody disturbs succeeds"
                return self.status()
            self.power_on()
        raise AssertionError("it never ends")

    def status(self) -> dict[str, Any]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(["-C", str(self.device), "status", "--json"]) == 0
        document: dict[str, Any] = json.loads(out.getvalue())
        return document

    def check(self) -> None:
        """What must hold after every kill."""
        record = self.record()
        assert self.status()["failed_releases"] == 0
        assert record.primary == "a" or record.b.standing is Standing.GOOD
        held = record.entry(record.primary)
        assert self.image(record.primary, held.size) in (OLD, NEW)
        if record.trial:
            least = ATTEMPTS - (self.boots if self.boot in REAL else 1)
            assert record.attempts >= least, "a kill costs no more than the boots it led to"
            assert self.image(record.trial, len(NEW)) == NEW
        if record.running != record.primary:
            assert self.image(record.running, len(NEW)) == NEW


def set_up(folder: Path, boot: str, runs: bytes = OLD) -> Bench:
    """A device of that board in ``folder`` that ``runs`` an image, and a stick with a release."""
    folder.mkdir()
    bench = Bench(folder, boot)
    shop = Shop.__new__(Shop)
    shop.folder, shop.chain = folder, world.Chain(time=int(time.time()) - 60)
    shop.trust()
    made = world.make(NEW, "1.0.0", 3)
    release = Bundle(shop.chain.fresh(shop.chain.publish(made)), made.static).encode()
    bench.stick.write_bytes(stick_prefix(release) + release + made.payload)
    (folder / "old.bin").write_bytes(runs)
    arguments = ["--trust", str(folder / "trust.json"), "--registry", "http://127.0.0.1:1"]
    arguments += ["--hardware", "2", "--image", str(folder / "old.bin")]
    if boot in REAL:
        arguments += ["--boot", boot, "--board", str(real_board(folder, boot, runs))]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["-C", str(bench.device), "init", *arguments, "--json"]) == 0
    return bench


def onto(bench: Bench, names: Sequence[str], device_for: Callable[[Path], Path]) -> None:
    """Put files of the board onto block devices; ``device_for`` makes one with a file's content."""
    for name in names:
        path = bench.folder / name
        data, device = path.read_bytes(), device_for(path)
        path.unlink()
        path.symlink_to(device)
        bench.devices[device] = data


def real_board(folder: Path, boot: str, runs: bytes = OLD) -> Path:
    """Slots, a bootloader's environment, and a reboot that takes the client down; its tables."""
    BOARDS[boot](folder).start()
    (folder / "slot-a").write_bytes(runs.ljust(1 << 16, b"\0"))
    (folder / "slot-b").write_bytes(bytes(1 << 16))
    down = folder / "down.sh"
    down.write_text(f"#!/bin/sh\n: >{folder}/went-down\nkill -9 $PPID\n")
    down.chmod(0o755)
    own = {
        "uboot": f'config = "{folder}/fw_env.config"\ncommand_line = "{folder}/cmdline"\n',
        "grub": f'block = "{folder}/grubenv"\ncommand_line = "{folder}/cmdline"\n',
        "command": f'argv = ["{folder}/boot.sh"]\n',
    }
    tables = folder / "board.toml"
    tables.write_text(
        f'[{boot}]\n{own[boot]}reboot = ["{down}"]\n'
        f'[slots]\na = "{folder}/slot-a"\nb = "{folder}/slot-b"\n'
    )
    return tables
