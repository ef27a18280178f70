"""The daemon: how it rests, what it tells its supervisor, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_client.adapters.supervisor import Nobody
from device_client.daemon import Daemon, Rhythm
from device_client.report import Report
from protocol.errors import FirmledgerError, LocalFault
from tests.device_client.bench_top import BenchTop, bench_top
from tests.device_client.registry import image_of, make


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


def test_sigterm_ends_the_daemon_cleanly(tmp_path: Path) -> None:
    from bench.device import provision
    from tests.device_client.registry import Chain

    dev = provision(tmp_path, Chain(time=int(time.time()) - 60))
    process = subprocess.Popen(
        [sys.executable, "-m", "device_client.cli", "-C", str(dev), "run"],
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PATH": os.defpath},
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith("error: http://127.0.0.1:9 gave no answer / ")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and err.strip().endswith("stopped")
