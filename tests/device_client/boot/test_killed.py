"""kill -9 at every system call that writes, during a whole update, until one runs through.

After each kill: an image that was checked boots, nothing is in the penalty box, a trial has lost
one attempt at most; and the next `install` ends with the new release confirmed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_client.adapters.board import CommandLine, call
from device_client.adapters.boot_backends import REAL
from device_client.adapters.uboot_boot import UBootEnvironment, variables
from device_client.core.slots import BootRecord
from protocol.errors import LocalFault
from tests.device_client.boot.boards import ENV_BYTES, UBootBoard, entry
from tests.device_client.boot.machines import ATTEMPTS, Bench, onto, set_up
from tests.device_client.boot.test_block_slots import losetup
from tests.world.killing import Point, points, run_forked, run_killed_at

pytestmark = [
    pytest.mark.debian("strace", "/usr/bin/strace"),
    pytest.mark.debian("libubootenv-tool", "/usr/bin/fw_setenv"),
    pytest.mark.debian("mount", "/usr/sbin/losetup"),
]


@pytest.fixture(params=["virtual", *sorted(REAL)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return set_up(tmp_path / "bench", request.param)


class Kept:
    """Benches as they are before each run of the client, made once and put back for each kill."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        folder.mkdir()
        self._bench, self._folder = bench, folder
        self._devices: dict[str, dict[Path, bytes]] = {}
        self._keep("0")

    def before(self, run: int) -> None:
        """The bench is as it was before the ``run``-th run of the client."""
        if not (self._folder / str(run)).exists():
            self.before(run - 1)
            assert run_forked(self._bench.install).killed and self._bench.went_down()
            self._bench.power_on()
            self._keep(str(run))
        shutil.rmtree(self._bench.folder)
        shutil.copytree(self._folder / str(run), self._bench.folder, symlinks=True)
        for device, data in self._devices[str(run)].items():
            device.write_bytes(data)
        self._bench.boots = run

    def _keep(self, name: str) -> None:
        shutil.copytree(self._bench.folder, self._folder / name, symlinks=True)
        self._devices[name] = {device: device.read_bytes() for device in self._bench.devices}


@pytest.fixture
def kept(bench: Bench, tmp_path: Path) -> Kept:
    return Kept(bench, tmp_path / "kept")


def kill_in(bench: Bench, kept: Kept, run: int, point: Point, power: bool) -> None:
    """One update, killed at that call of its ``run``-th run; ``power``: the machine went down."""
    kept.before(run)
    assert run_killed_at(point, bench.install).killed
    if bench.went_down() or power:
        bench.power_on()
    bench.check()
    assert_confirmed(bench.finish())


def assert_confirmed(status: dict[str, Any]) -> None:
    assert (status["version"], status["slot"], status["state"]) == ("1.0.0", "b", "idle")
    assert (status["failed_releases"], status["security_counter"]) == (0, 3)
    assert [line["outcome"] for line in status["history"]] == ["confirmed"]


@pytest.mark.parametrize(
    ("bench", "run"),
    [("virtual", 0), *((boot, run) for boot in sorted(REAL) for run in (0, 1))],
    indirect=["bench"],
)
def test_killed_at_every_write(bench: Bench, kept: Kept, run: int) -> None:
    """From the first write on to the one that is never reached; before a real reboot, and after."""
    kept.before(run)
    found = points(bench.install)
    assert len(found) >= 15, "an update writes more often than that"
    for number, point in enumerate(found):
        kill_in(bench, kept, run, point, power=bool(number % 2))


@pytest.fixture
def loop_devices(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Makes block devices; they are gone afterwards."""
    made: list[str] = []

    def device_for(path: Path) -> Path:
        backing = tmp_path / f"backing-{path.name}"
        backing.write_bytes(path.read_bytes())
        made.append(losetup("--find", "--show", str(backing)))
        return Path(made[-1])

    try:
        yield device_for
    finally:
        for device in made:
            losetup("--detach", device)


@pytest.mark.parametrize("run", [0, 1])
def test_killed_at_every_write_to_block_devices(
    tmp_path: Path, loop_devices: Callable[[Path], Path], run: int
) -> None:
    """As on a board: slots and both copies of U-Boot's environment on devices of their own."""
    bench = set_up(tmp_path / "bench", "uboot")
    onto(bench, ["slot-a", "slot-b", "env1", "env2"], loop_devices)
    kept = Kept(bench, tmp_path / "kept")
    kept.before(run)
    found = points(bench.install)
    assert len(found) >= 15
    for number, point in enumerate(found[:: run + 1]):
        kill_in(bench, kept, run, point, power=bool(number % 2))
        assert all((bench.folder / name).is_block_device() for name in ("slot-b", "env1"))


def test_an_interrupted_trial_costs_one_boot_attempt_never_the_penalty_box(
    bench: Bench, kept: Kept
) -> None:
    """The power goes at every point of a trial, once: one attempt less, and it is tried again."""
    run = int(bench.boot in REAL)
    kept.before(run)
    interrupted = 0
    for point in points(bench.install):
        kept.before(run)
        assert run_killed_at(point, bench.install).killed
        before = bench.record()
        if before.trial is None or before.trial != before.running:
            continue
        interrupted += 1
        bench.power_cycle()
        after = bench.record()
        assert (after.trial, after.running) == ("b", "b")
        if bench.boot != "command":  # whose count is its own affair
            assert after.attempts == before.attempts - 1 == ATTEMPTS - 2
        assert bench.status()["failed_releases"] == 0
        assert_confirmed(bench.finish())
    assert interrupted >= 2


@pytest.mark.parametrize("bench", ["virtual", "grub", "uboot"], indirect=True)
def test_a_killed_update_never_exhausts_the_attempts_by_itself(bench: Bench, kept: Kept) -> None:
    """Killed at the same point more often than there are attempts, while the power stays on."""
    kept.before(0)
    found = points(bench.install)
    for point in found[-8:]:
        kept.before(0)
        for _ in range(ATTEMPTS + 2):
            run_killed_at(point, bench.install)
            if bench.went_down():
                bench.power_on()
        record = bench.record()
        assert record.primary == "b" or record.trial is None or record.attempts >= ATTEMPTS - 1
        assert bench.boots <= 1, "a machine boots once, for the switch"
        assert_confirmed(bench.finish())


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
