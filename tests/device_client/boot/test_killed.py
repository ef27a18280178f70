"""kill -9 at every system call that writes, during a whole update, until one runs through.

After each kill: an image that was checked boots, nothing is in the penalty box, a trial has lost
one attempt at most; and the next `install` ends with the new release confirmed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_client.adapters.board import CommandLine, call
from device_client.adapters.boot_backends import open_board
from device_client.adapters.directory import Directory
from device_client.adapters.uboot_boot import UBootEnvironment, variables
from device_client.cli import main
from device_client.config import read_config
from device_client.core.slots import BootRecord, Standing
from protocol.bundle import Bundle, stick_prefix
from protocol.errors import LocalFault
from tests.device_client import registry as world
from tests.device_client.boot.boards import ENV_BYTES, UBootBoard, entry
from tests.device_client.boot.test_block_slots import losetup
from tests.device_client.test_cli import Shop
from tests.world import bootloader
from tests.world.killing import Point, points, run_forked, run_killed_at

pytestmark = [
    pytest.mark.debian("strace", "/usr/bin/strace"),
    pytest.mark.debian("libubootenv-tool", "/usr/bin/fw_setenv"),
    pytest.mark.debian("mount", "/usr/sbin/losetup"),
]
ATTEMPTS = 3
NEW = world.image_of("1.0.0", 40_000)
OLD = world.image_of("factory", 30_000)


@dataclass
class Bench:
    """A device that was just set up, to be copied for each run; and the stick it installs from."""

    folder: Path
    boot: str
    boots: int = 0

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

    def loader(self) -> bootloader.UBoot:
        places = self.folder / "env1", self.folder / "env2"
        return bootloader.UBoot(places, ENV_BYTES, self.folder / "cmdline")

    def power_on(self) -> None:
        """A machine that went down boots; where booting is simulated, the client does that."""
        self.boots += 1
        if self.boot == "uboot":
            self.loader().power_on(self.intact)

    def intact(self, slot: str) -> bool:
        env = self.loader().load()[2]
        image = self.image(slot, int(env[f"fl_{slot}_size"], 16))
        return hashlib.sha256(image).hexdigest() == env[f"fl_{slot}_digest"]

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
            least = ATTEMPTS - (self.boots if self.boot == "uboot" else 1)
            assert record.attempts >= least, "a kill costs no more than the boots it led to"
            assert self.image(record.trial, len(NEW)) == NEW
        if record.running != record.primary:
            assert self.image(record.running, len(NEW)) == NEW


@pytest.fixture(params=["virtual", "uboot"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "bench", request.param)
    bench.folder.mkdir()
    shop = Shop.__new__(Shop)
    shop.folder, shop.chain = bench.folder, world.Chain(time=int(time.time()) - 60)
    shop.trust()
    made = world.make(NEW, "1.0.0", 3)
    release = Bundle(shop.chain.fresh(shop.chain.publish(made)), made.static).encode()
    bench.stick.write_bytes(stick_prefix(release) + release + made.payload)
    (bench.folder / "old.bin").write_bytes(OLD)
    arguments = ["--trust", str(bench.folder / "trust.json"), "--registry", "http://127.0.0.1:1"]
    arguments += ["--hardware", "2", "--image", str(bench.folder / "old.bin")]
    if bench.boot == "uboot":
        arguments += ["--boot", "uboot", "--board", str(uboot_board(bench.folder))]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["-C", str(bench.device), "init", *arguments, "--json"]) == 0
    return bench


def uboot_board(folder: Path) -> Path:
    """Slots, a redundant environment, and a reboot that takes the client down as real ones do."""
    board = UBootBoard(folder)
    first, second = board.loader.copies
    board.config.write_text(f"{first} 0x0 {ENV_BYTES:#x}\n{second} 0x0 {ENV_BYTES:#x}\n")
    board.loader.format({"bootcmd": "run fl_boot"})
    (folder / "cmdline").write_text("firmledger.slot=a\n")
    (folder / "slot-a").write_bytes(OLD.ljust(1 << 16, b"\0"))
    (folder / "slot-b").write_bytes(bytes(1 << 16))
    down = folder / "down.sh"
    down.write_text(f"#!/bin/sh\n: >{folder}/went-down\nkill -9 $PPID\n")
    down.chmod(0o755)
    tables = folder / "board.toml"
    tables.write_text(
        f'[uboot]\nconfig = "{board.config}"\ncommand_line = "{folder}/cmdline"\n'
        f'reboot = ["{down}"]\n'
        f'[slots]\na = "{folder}/slot-a"\nb = "{folder}/slot-b"\n'
    )
    return tables


def fresh(bench: Bench, template: Path) -> None:
    """The device as it was set up."""
    shutil.rmtree(bench.folder)
    shutil.copytree(template, bench.folder)
    bench.boots = 0


@pytest.fixture
def template(bench: Bench, tmp_path: Path) -> Path:
    kept = tmp_path / "template"
    shutil.copytree(bench.folder, kept)
    return kept


def kill_in(bench: Bench, template: Path, run: int, point: Point, power: bool) -> None:
    """One update, killed at that call of its ``run``-th run; ``power``: the machine went down."""
    begin(bench, template, run)
    assert run_killed_at(point, bench.install).killed
    if bench.went_down() or power:
        bench.power_on()
    bench.check()
    assert_confirmed(bench.finish())


def begin(bench: Bench, template: Path, run: int) -> None:
    """A new device, as it is before the ``run``-th run of the client."""
    fresh(bench, template)
    for _ in range(run):
        assert run_forked(bench.install).killed and bench.went_down()
        bench.power_on()


def assert_confirmed(status: dict[str, Any]) -> None:
    assert (status["version"], status["slot"], status["state"]) == ("1.0.0", "b", "idle")
    assert (status["failed_releases"], status["security_counter"]) == (0, 3)
    assert [line["outcome"] for line in status["history"]] == ["confirmed"]


@pytest.mark.parametrize(
    ("bench", "run"), [("virtual", 0), ("uboot", 0), ("uboot", 1)], indirect=["bench"]
)
def test_killed_at_every_write(bench: Bench, template: Path, run: int) -> None:
    """From the first write on to the one that is never reached; before a real reboot, and after."""
    begin(bench, template, run)
    found = points(bench.install)
    assert len(found) >= 25, "an update writes more often than that"
    for number, point in enumerate(found):
        kill_in(bench, template, run, point, power=bool(number % 2))


def test_killed_again_and_again(bench: Bench) -> None:
    """The same device, killed at its first sync, then its second, …: it gets there yet."""
    for number in range(1, 200):
        ended = run_killed_at(("fsync", number), bench.install)
        if bench.went_down():
            bench.power_on()
        elif not ended.killed:
            assert ended.code == 0 and number > 5
            break
        bench.check()
    assert_confirmed(bench.status())


# -- fw_setenv by itself ---------------------------------------------------------------------------


@pytest.fixture(params=["files", "loop devices"])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UBootBoard]:
    """An environment in two files, or on two block devices, as on a board."""
    board, made = UBootBoard(tmp_path), []
    try:
        if request.param == "loop devices":
            for place in board.loader.copies:
                backing = place.with_suffix(".img")
                backing.write_bytes(bytes(ENV_BYTES))
                made.append(losetup("--find", "--show", str(backing)))
                place.symlink_to(made[-1])
        board.start()
        yield board
    finally:
        for device in made:
            losetup("--detach", device)


CALLS = ("openat", "read", "lseek", "flock", "write", "fsync", "close", "newfstatat")


@pytest.mark.parametrize("name", CALLS)
def test_fw_setenv_killed_at_every_call(board: UBootBoard, name: str) -> None:
    """The real tool, until it is not killed any more: the environment is the old or the new one."""
    old = board.control().record()
    before = {path: path.read_bytes() for path in board.loader.copies}
    found = []
    for number in range(1, 100):
        for path, data in before.items():
            path.write_bytes(data)
        inject = f"inject={name}:signal=SIGKILL:when={number}"
        tool = ["strace", "-qqq", "-o", "/dev/null", "-e", inject, "fw_setenv"]
        try:
            board.control(setenv=tool).arm("b", entry(1), ATTEMPTS)
        except LocalFault as error:
            assert error.reason == "tool-failed"
            found.append(board.control().record())
        else:
            break
    assert found or name == "lseek"
    assert set(found) <= {old, board.control().record()}


class TwoSteps(UBootEnvironment):
    """A planted fault: the slots' standings in one process, all the rest in another."""

    def _write(self, record: BootRecord) -> None:
        values = variables(record)
        first = {name: values.pop(name) for name in ("fl_a", "fl_b")}
        for part in (first, values):
            lines = "".join(f"{name}={value}\n" for name, value in part.items())
            call(self._set, stdin=lines.encode())


@pytest.mark.parametrize(("kind", "bad"), [(UBootEnvironment, False), (TwoSteps, True)])
def test_a_switch_in_two_processes_is_found_out(
    board: UBootBoard, kind: type[UBootEnvironment], bad: bool
) -> None:
    """What rule 1 of the backend forbids shows at once where the client dies in between."""
    control = kind(CommandLine(board.folder / "cmdline"), board.reboot, board.config)

    def arm() -> int:
        control.arm("b", entry(1), ATTEMPTS)
        return 0

    before = {path: path.read_bytes() for path in board.loader.copies}
    old = board.control().record()
    found = set()
    for point in points(arm):
        for path, data in before.items():
            path.write_bytes(data)
        assert run_killed_at(point, arm).killed
        found.add(board.control().record())
    for path, data in before.items():
        path.write_bytes(data)
    arm()
    assert bool(found - {old, board.control().record()}) == bad
