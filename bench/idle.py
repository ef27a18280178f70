"""The daemon while it has nothing to do: its memory, and whether it lets the processor sleep.

It is watched in the two ways in which it may be idle: while a registry holds its answer back, and
while it rests between polls. Counted is how often its threads were scheduled: every wake-up ends in
giving the processor up again, which the kernel counts for each thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.device_client import registry as world
from tests.device_client.http_registry import serving

WATCHED = 20.0
SETTLED = 1.0
"""Seconds of quiet before the watch begins."""


def rows(device: Path, chain: world.Chain) -> Iterator[dict[str, Any]]:
    """Memory and wake-ups of the daemon of a device that has nothing to do."""
    held, held_mib = _watched(device, chain, wait=55)
    resting, resting_mib = _watched(device, chain, wait=0)
    yield {
        "name": "device.idle_rss_mib",
        "value": round(max(held_mib, resting_mib), 1),
        "unit": "MiB",
        "against": 40,
        "ratio": round(max(held_mib, resting_mib) / 40, 3),
        "how": "resident memory of `run` after a round, the larger of held poll and rest",
    }
    yield {
        "name": "device.idle_wakeups",
        "value": held + resting,
        "unit": "wake-ups",
        "against": 0,
        "ratio": float(held + resting),
        "how": (
            f"context switches of all threads of `run`, {held} in {WATCHED:.0f} s of a poll that is"
            f" held back, {resting} in {WATCHED:.0f} s of rest; the ratio is the count itself"
        ),
    }


def _watched(device: Path, chain: world.Chain, wait: int) -> tuple[int, float]:
    """(wake-ups, MiB) of a daemon that is held, or rests where ``wait`` is 0."""
    arrived, over = threading.Event(), threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> bool:
        if "wait=" not in handler.path:
            return False
        arrived.set()
        over.wait(120)
        handler.close_connection = True
        return True

    with (
        serving(world.Registry(chain), hold) as url,
        _daemon(device, url, wait) as process,
    ):
        if wait:
            _require(arrived.wait(60), "no poll came")
        else:
            assert process.stderr is not None
            process.stderr.readline()
        time.sleep(SETTLED)
        before = _switches(process.pid)
        time.sleep(WATCHED)
        after = _switches(process.pid)
        mebibytes = _resident(process.pid)
        over.set()
    return after - before, mebibytes


@contextmanager
def _daemon(device: Path, url: str, wait: int) -> Iterator[subprocess.Popen[str]]:
    config = device / "config.toml"
    lines = [
        line
        for line in config.read_text().splitlines()
        if not line.startswith(("registries =", "wait =", "poll_interval ="))
    ]
    own = [f'registries = ["{url}"]', f"wait = {wait}", "poll_interval = 3600"]
    config.write_text("\n".join([*own, *lines]) + "\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "device_client.cli", "-C", str(device), "run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _switches(process: int) -> int:
    """How often all threads of a process gave up the processor, or lost it."""
    total = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


def _resident(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the daemon has ended")


def _require(good: bool, why: str) -> None:
    if not good:
        raise AssertionError(why)
