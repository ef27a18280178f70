"""The daemon: how it rests, what it tells its supervisor, and how it ends."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from device_client.adapters.supervisor import Nobody
from device_client.core.machine import Stage
from device_client.core.policy import Policy, Window
from device_client.core.types import Surroundings
from device_client.daemon import SPREAD, Daemon, Rhythm
from device_client.ports import Question
from device_client.report import Report
from device_client.status import read_status
from protocol.errors import FirmledgerError, LocalFault
from protocol.receipt import Outcome
from tests.device_client.bench_top import BenchTop, bench_top
from tests.device_client.http_registry import serving
from tests.device_client.registry import NOW, Chain, Registry, image_of, make, receipts_of
from tests.device_client.test_cli import Shop, shop, tree
from tests.world.flash import Flash

__all__ = ["shop"]  # a fixture


def daemon_of(top: BenchTop, rhythm: Rhythm, told: list[Report | FirmledgerError]) -> Daemon:
    return Daemon(top.agent(), rhythm, tell=told.append, supervisor=Nobody())


def test_the_daemon_rests_between_polls_and_slows_down_when_nobody_answers() -> None:
    top = bench_top()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    told: list[Report | FirmledgerError] = []
    daemon = daemon_of(top, Rhythm(100, 1000), told)
    assert 75 <= daemon.round() <= 125
    assert isinstance(told[0], Report) and told[0].outcome == "confirmed"
    top.registry.down = True
    delays = [daemon.round() for _ in range(5)]
    assert delays[-1] > 500 and max(delays) <= 1000
    top.registry.down = False
    daemon.round()
    assert 75 <= daemon.round() <= 125


class Enough(BaseException):
    """Ends a daemon that runs for ever."""


def test_the_daemon_sleeps_by_its_clock() -> None:
    top = bench_top()
    honest, rounds = top.clock.sleep, []

    def sleep(seconds: float) -> None:
        honest(seconds)
        rounds.append(seconds)
        if len(rounds) == 3:
            raise Enough

    top.clock.sleep = sleep  # type: ignore[method-assign]
    daemon = daemon_of(top, Rhythm(10, 100), [])
    with pytest.raises(Enough):
        daemon.run()
    assert len(rounds) == 3


def test_damage_ends_the_daemon() -> None:
    top = bench_top()
    daemon = daemon_of(top, Rhythm(10, 100), [])
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    top.disk.durable["boot.env"] = bytes(8192)
    with pytest.raises(LocalFault):
        daemon.run()


@pytest.mark.parametrize("named", [True, False])
def test_an_error_of_the_system_that_nobody_mapped_does_not_end_it(named: bool) -> None:
    top = offering()
    told: list[Any] = []
    daemon = daemon_of(top, Rhythm(10, 100), told)
    honest = top.place.observe

    def broken() -> Surroundings:
        raise OSError(errno.EIO, "Input/output error", "/slots" if named else None)

    top.place.observe = broken  # type: ignore[method-assign]
    daemon.round()
    (error,) = told
    assert isinstance(error, LocalFault) and ("/slots" in error.what) is named
    top.place.observe = honest  # type: ignore[method-assign]
    daemon.round()
    assert top.runs() == image_of("1.0.0")


# -- when it looks again ---------------------------------------------------------------------------


def offering(**members: object) -> BenchTop:
    top = bench_top(**members)
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    return top


def waits(top: BenchTop) -> list[int]:
    """The waits that polls ask for from now on."""
    honest, asked = top.registry.poll, []

    def poll(question: Question, maximum: int) -> bytes:
        asked.append(question.wait)
        return honest(question, maximum)

    top.registry.poll = poll  # type: ignore[method-assign]
    return asked


def test_it_is_there_when_the_window_opens() -> None:
    """However long the interval: a window of half an hour is not slept through."""
    opening = datetime.fromtimestamp(NOW, UTC) + timedelta(hours=5)
    text = f"daily {opening:%H:%M}-{opening + timedelta(minutes=30):%H:%M}"
    top = offering(policy=Policy(windows=(Window.parse(text),)), max_age=10**6)
    told: list[Report | FirmledgerError] = []
    daemon = daemon_of(top, Rhythm(86400, 86400), told)
    rest = daemon.round()
    assert opening.timestamp() - NOW <= rest <= opening.timestamp() - NOW + SPREAD
    top.clock.advance(int(rest) + 1)
    top.registry.chain.tick(int(rest))
    daemon.round()
    outcomes = [report.outcome for report in told if isinstance(report, Report)]
    assert outcomes == ["waiting", "confirmed"]


def test_it_looks_after_an_image_that_settles_at_its_steps() -> None:
    top = offering(stability=600)
    told: list[Report | FirmledgerError] = []
    daemon = daemon_of(top, Rhythm(86400, 86400), told)
    for _ in range(10):
        assert daemon.round() == 60
        top.clock.advance(60)
    daemon.round()
    assert isinstance(told[-1], Report) and told[-1].outcome == "confirmed"


def test_a_registry_may_hold_its_answer_back() -> None:
    top = bench_top()
    asked = waits(top)
    honest = top.registry.poll

    def held(question: Question, maximum: int) -> bytes:
        top.clock.advance(question.wait)
        return honest(question, maximum)

    top.registry.poll = held  # type: ignore[method-assign]
    daemon = daemon_of(top, Rhythm(1, 1000, wait=55), [])
    assert daemon.round() < 2 and asked == [55]
    top.registry.chain.tick(60)
    assert daemon.round() < 2 and asked == [55, 55]


def test_a_registry_that_does_not_hold_it_back_is_not_asked_more_often_for_that() -> None:
    top = bench_top()
    daemon = daemon_of(top, Rhythm(1, 1000, wait=55), [])
    assert daemon.round() == 55


def test_nobody_but_the_daemon_waits() -> None:
    top = bench_top()
    asked = waits(top)
    top.agent().check()
    top.agent().update()
    assert asked == [0, 0]


def test_only_the_first_registry_may_hold_it_back() -> None:
    top = bench_top()
    other = Registry(top.registry.chain)
    top.registry.others = (other,)
    asked: list[tuple[str, int]] = []

    def poll(question: Question, maximum: int) -> bytes:
        asked.append(("first", question.wait))
        return b"lies"

    def second(question: Question, maximum: int) -> bytes:
        asked.append(("second", question.wait))
        return Registry.poll(other, question, maximum)

    top.registry.poll, other.poll = poll, second  # type: ignore[method-assign]
    daemon_of(top, Rhythm(1, 1000, wait=55), []).round()
    assert asked == [("first", 55), ("second", 0)]


def test_a_medium_that_takes_nothing_slows_it_down_and_does_not_end_it() -> None:
    class Failed(Flash):
        failed = False

        def write(self, name: str, offset: int, data: object) -> None:
            if self.failed:
                raise LocalFault("medium-failed", "writing failed", "Input/output error", "-")
            super().write(name, offset, data)  # type: ignore[arg-type]

    disk = Failed()
    top = BenchTop(Registry(Chain()), disk=disk).provision()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    told: list[Report | FirmledgerError] = []
    daemon = daemon_of(top, Rhythm(10, 10_000), told)
    disk.failed = True
    rests = [daemon.round() for _ in range(6)]
    assert rests[-1] > 10 * rests[0]
    assert {error.reason for error in told if isinstance(error, LocalFault)} == {"medium-failed"}
    disk.failed = False
    daemon.round()
    assert isinstance(told[-1], Report) and told[-1].outcome == "confirmed"


# -- how it ends -----------------------------------------------------------------------------------


class Interrupted(Flash):
    """A medium before whose n-th operation a signal comes; what was written stays written."""

    left = 10**9

    def _operate(self, what: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        super()._operate(what)


def installed(top: BenchTop) -> None:
    """The device ends where it would have ended, with one receipt, and no boot was spent."""
    agent = top.agent()
    agent.update()
    agent.deliver()
    assert top.runs() == image_of("1.0.0")
    assert agent.book.state.stage is Stage.IDLE and agent.book.state.box == ()
    assert [r.outcome for r in receipts_of(top.registry)] == [Outcome.CONFIRMED]
    record = agent.parts.boot.record()
    assert (record.trial, record.running) == (None, record.primary)


@pytest.mark.parametrize("keep_former", [True, False])
def test_it_may_be_stopped_before_every_operation_of_its_medium(keep_former: bool) -> None:
    points, stages = 0, set()
    while True:
        points += 1
        disk = Interrupted()
        top = BenchTop(Registry(Chain()), disk=disk, keep_former=keep_former).provision()
        top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
        daemon = daemon_of(top, Rhythm(10, 100), [])
        disk.left = points
        try:
            daemon.round()
        except KeyboardInterrupt:
            stages.add(top.agent().book.state.stage)
            disk.left = 10**9
            installed(top)
            continue
        break
    assert points > 20
    assert stages >= {Stage.OFFERED, Stage.DOWNLOADING, Stage.VERIFYING, Stage.INSTALLED}
    assert stages >= {Stage.TRIAL, Stage.CONFIRMED, Stage.IDLE}
    assert keep_former or Stage.CLEARING in stages


@dataclass
class Running:
    """A daemon in a process of its own."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))

    def until(self, reached: Callable[[], bool]) -> None:
        """Until something is so; a daemon that ends before has failed."""
        while not reached():
            assert self.process.poll() is None, self.said
            time.sleep(0.02)

    def ends(self, number: signal.Signals) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join()
        return code


@contextmanager
def running(folder: Path, *more: str) -> Iterator[Running]:
    """The daemon of the device in ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "device_client.cli", "-C", str(folder), "run", *more],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PATH": os.defpath},
    )
    made = Running(process)
    try:
        yield made
    finally:
        process.kill()
        process.wait()
        made._reader.join()


@dataclass
class Hold:
    """A place at which a daemon is held: settings, what the registry stalls, how it is seen."""

    settings: str = ""
    stalls: str = ""
    seen: str = ""

    def reached(self, shop: Shop, daemon: Running, stalled: list[str]) -> bool:
        if self.seen.startswith("said "):
            return any(self.seen[5:] in line for line in daemon.said)
        if self.stalls:
            return bool(stalled)
        return str(read_status(shop.folder / "dev", 0)["state"]) == self.seen


HOLDS = {
    "resting": Hold("mode = 'manual'", seen="said waiting (manual)"),
    "while an answer is held back": Hold("wait = 55", stalls="/v1/products"),
    "downloading": Hold(stalls="/v1/blobs"),
    "downloading at a low rate": Hold("bandwidth = 4096", seen="downloading"),
    "in the health check": Hold("health_check = ['sleep', '600']", seen="trial"),
    "settling": Hold("stability = 3600", seen="said waiting (settling)"),
    "waiting for its owner": Hold("confirm = 'owner'", seen="said waiting (owner-confirms)"),
    "handing a receipt over": Hold(stalls="/v1/receipts"),
}


@pytest.mark.parametrize("where", HOLDS)
def test_sigterm_ends_it_cleanly_wherever_it_is(shop: Shop, where: str) -> None:
    hold, stalled, over = HOLDS[where], [], threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> bool:
        if hold.stalls and handler.path.startswith(hold.stalls) and not over.is_set():
            stalled.append(handler.path)
            over.wait(60)
            handler.close_connection = True
            return True
        return False

    with serving(shop.registry, stall) as url:
        shop.url = url
        shop.init()
        shop.release("1.0.0", 3)
        config = shop.folder / "dev/config.toml"
        plain = config.read_text()
        name = hold.settings.split(" ")[0]
        lines = [line for line in plain.splitlines() if not (name and line.startswith(f"{name} ="))]
        config.write_text("\n".join([hold.settings, *lines]))
        try:
            with running(shop.folder / "dev") as daemon:
                daemon.until(lambda: hold.reached(shop, daemon, stalled))
                before = read_status(shop.folder / "dev", 0)
                assert daemon.ends(signal.SIGTERM) == 0
                assert daemon.said[-1] == "stopped"
        finally:
            over.set()
        config.write_text(plain)
        after = read_status(shop.folder / "dev", 0)
        assert after["slots"] == before["slots"] and after["failed_releases"] == 0
        shop.run("update", "--yes")
        status = shop.run("status")
        assert (status["version"], status["state"]) == ("1.0.0", "idle")
        assert status["receipts"]["queued"] == 1


def test_a_second_daemon_ends_and_harms_nothing(shop: Shop) -> None:
    shop.init("--mode", "manual")
    shop.release("1.0.0")
    with running(shop.folder / "dev") as first:
        first.until(lambda: any("waiting" in line for line in first.said))
        before = tree(shop.folder / "dev")
        with running(shop.folder / "dev") as second:
            assert second.process.wait(60) == 1
            second._reader.join()
            assert second.said[-1].startswith("error: lock refused / another process")
        assert first.process.poll() is None
        assert tree(shop.folder / "dev") == before
        assert first.ends(signal.SIGINT) == 0


def test_two_daemons_started_at_once_are_one(shop: Shop) -> None:
    shop.init("--mode", "manual")
    shop.release("1.0.0")
    with running(shop.folder / "dev") as one, running(shop.folder / "dev") as other:
        while one.process.poll() is None and other.process.poll() is None:
            time.sleep(0.02)
        loser, winner = (one, other) if one.process.poll() is not None else (other, one)
        assert loser.process.returncode == 1
        winner.until(lambda: any("waiting" in line for line in winner.said))
        assert winner.ends(signal.SIGTERM) == 0


def test_a_damaged_journal_ends_it_with_an_error(shop: Shop) -> None:
    shop.init()
    (shop.folder / "dev/journal.bin").write_bytes(b"\xff" * 300_000)
    with running(shop.folder / "dev") as daemon:
        assert daemon.process.wait(60) == 1
        daemon._reader.join()
        assert daemon.said[-1].startswith("error: the device's journal refused / ")


def test_a_service_manager_hears_it_start_rest_and_stop(shop: Shop) -> None:
    shop.init("--mode", "manual")
    shop.release("1.0.0")
    address = shop.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(60)
        with running(shop.folder / "dev", "--notify", str(address)) as daemon:
            heard = [manager.recv(4096).decode() for _ in range(4)]
            assert heard[0] == "READY=1"
            assert heard[2].startswith("STATUS=runs 0.0.0 from slot a; 1.0.0 waiting (manual)")
            assert daemon.ends(signal.SIGTERM) == 0
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=stopped"
