"""The device client, measured: installs beside their physical limit, memory, start-up.

Install: `Agent.update` of an encrypted image from a local file up to the switch being durable
(proof, both digests, decryption, write, fsync, cold read-back, journal) beside the *serial limit*:
read, decrypt, hash, write, fsync, drop the cache, read, hash, one after the other with the same
block size on the same file system. Both in turns; the ratio is the median of the ratios of
neighbours, and the spread is said. The trial boot that follows is the bootloader's time, and not
counted. *Net* is within a process that runs already, as the daemon does; *gross* has a process of
its own, from its start: the time that one takes which finds the same stick installed already
(start, open, prove, end) is added to each install.

Memory and CPU are those of whole processes; the idle daemon is looked at while a registry holds its
answer back, and while it rests: so many times did its threads give up the processor, or wake up.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from bench import idle
from device_client import flash, home
from device_client.adapters.directory import Directory
from device_client.adapters.stick import StickSource
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.agent import Agent
from device_client.config import Config
from device_client.core.policy import Leave
from device_client.core.slots import Entry
from protocol import payload
from protocol.bundle import Bundle, stick_prefix
from protocol.receipt import Outcome
from protocol.trustfile import ClassKey, ClassKeys
from tests.device_client import registry as world
from tests.device_client.http_registry import serving

PAIRS = 7
BLOCK = flash.BLOCK


def rows() -> Iterator[dict[str, Any]]:
    """Measures one after the other."""
    with tempfile.TemporaryDirectory(prefix="firmledger-bench-", dir=_medium()) as folder:
        for size in (64, 256):
            yield from _install_ratios(Path(folder), size)
        yield from _processes(Path(folder))
        chain, place = world.Chain(time=int(time.time()) - 60), Path(folder) / "idle"
        place.mkdir()
        yield from idle.rows(provision(place, chain), chain)


def _medium() -> Path:
    """A folder on a disk; the system's temporary one may be memory."""
    return Path(__file__).parent


def _install_ratios(folder: Path, mebibytes: int) -> Iterator[dict[str, Any]]:
    shop = Shop(folder / str(mebibytes), mebibytes << 20)
    pairs = []
    for turn in range(PAIRS + 1):
        limit = _timed(lambda: _serial(shop))
        shop.release(turn)
        gc.collect()
        os.sync()
        start = time.perf_counter()
        shop.install()
        ours = shop.boot.armed_at - start
        if turn:  # the first pair warms up: pages of code, the allocator, the disk's map of blocks
            pairs.append((ours, limit))
    start = statistics.median(shop.nothing_to_do() for _ in range(PAIRS))
    shop.close()
    yield _ratio(f"install.ratio_{mebibytes}mib", pairs, "in one process, same file system")
    gross = [(ours + start, limit) for ours, limit in pairs]
    how = f"with {start:.2f} s for a process to start, open and prove; same file system"
    yield _ratio(f"install.gross_ratio_{mebibytes}mib", gross, how)


def _ratio(name: str, pairs: list[tuple[float, float]], how: str) -> dict[str, Any]:
    ratios = [ours / limit for ours, limit in pairs]
    ours, limit = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "name": name,
        "value": round(statistics.median(ratios), 3),
        "unit": "x the serial limit",
        "against": 1.3,
        "ratio": round(statistics.median(ratios) / 1.3, 3),
        "how": (
            f"median of {PAIRS} pairs in turns, {min(ratios):.2f} to {max(ratios):.2f}; "
            f"install {ours:.2f} s, serial limit {limit:.2f} s, {how}"
        ),
    }


def _timed(work: Callable[[], None]) -> float:
    gc.collect()
    os.sync()  # what others left to be written is not charged to this
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class NotingBoot(VirtualBoot):
    """Notes when the switch was durable."""

    armed_at = 0.0

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        """The switch."""
        super().arm(slot, entry, attempts)
        self.armed_at = time.perf_counter()


class Shop:
    """A maker's stick and a device, in one folder."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.chain = world.Chain(time=int(time.time()) - 60)
        self.image = os.urandom(size)
        self.stick, self.slot = folder / "stick.flb", folder / "serial.img"
        self.slot.write_bytes(self.image)
        provision(folder, self.chain)
        self.device = home.open_device(folder / "dev", source=StickSource(self.stick))
        parts, disk = self.device.agent.parts, Directory(folder / "dev")
        self.boot = NotingBoot(disk, parts.slots)
        self.agent = Agent(self.device.profile, dataclasses.replace(parts, boot=self.boot))
        self.key, self.iv, self.start = b"", b"", 0
        self.release(0)

    def release(self, number: int) -> None:
        """Put the next version of the image on the stick."""
        made = world.make(self.image, f"1.0.{number}")
        release_id = self.chain.publish(made)
        bundle = Bundle(self.chain.fresh(release_id), made.static).encode()
        with self.stick.open("wb") as file:
            file.write(stick_prefix(bundle) + bundle)
            self.start = file.tell()
            file.write(made.payload)
        seed = hashlib.sha256(b"bench").digest()
        self.key, self.iv = seed[:16], seed[16:]

    def install(self) -> None:
        """The whole installation."""
        report = self.agent.update(Leave.NOW)
        if report.outcome != Outcome.CONFIRMED:
            raise AssertionError(f"not installed: {report}")

    def nothing_to_do(self) -> float:
        """Seconds of a process that finds the stick installed; the device is let go of for it."""
        self.device.close()
        start = time.perf_counter()
        _run(self.folder / "dev", "install", str(self.stick))
        return time.perf_counter() - start

    def close(self) -> None:
        """Let go of the device, and of the space."""
        self.device.close()
        for path in (*self.folder.glob("dev/slots/*"), self.stick, self.slot):
            path.unlink()


def _serial(shop: Shop) -> None:
    """The same work, one step after the other."""
    decryptor, digest = payload.Decryptor(shop.key, shop.iv), hashlib.sha256()
    target = os.open(shop.slot, os.O_RDWR)
    try:
        with shop.stick.open("rb") as source:
            source.seek(shop.start)
            while piece := source.read(BLOCK):
                piece = decryptor.update(piece)
                digest.update(piece)
                os.write(target, piece)
        os.fsync(target)
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
        buffer, digest = memoryview(bytearray(BLOCK)), hashlib.sha256()
        os.lseek(target, 0, os.SEEK_SET)
        while count := os.readv(target, [buffer]):
            digest.update(buffer[:count])
    finally:
        os.close(target)


def provision(folder: Path, chain: world.Chain, registry: str = "http://127.0.0.1:9") -> Path:
    """A new device below ``folder``."""
    pem = world.CLASS_KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    keys = ClassKeys(world.PRODUCT, (ClassKey(1, world.KID.hex(), pem.decode()),))
    trust = dataclasses.replace(world.trust_file(chain), max_age=86400)
    config = Config(hardware=2, registries=[registry])
    home.create(
        folder / "dev",
        trust.to_bytes(),
        keys.to_bytes(),
        config,
        home.FACTORY_IMAGE,
        force=False,
    )
    return folder / "dev"


# -- whole processes -------------------------------------------------------------------------------

# The highest memory is asked of the process itself: what wait4 tells includes its parent's.
_COMMAND = """
import sys
from device_client.cli import main
code = main(sys.argv[1:])
with open("/proc/self/status") as file:
    peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
print(peak, file=sys.stderr)
raise SystemExit(code)
"""


@dataclasses.dataclass(frozen=True)
class Used:
    """What one process took: seconds of CPU, KiB of memory."""

    cpu: float
    peak: int


def _processes(folder: Path) -> Iterator[dict[str, Any]]:
    chain = world.Chain(time=int(time.time()) - 60)
    registry = world.Registry(chain, piece=BLOCK)
    (folder / "cli").mkdir()
    with serving(registry) as url:
        device = provision(folder / "cli", chain, url)
        chain.publish(world.make(os.urandom(4096), "1.0.0"))
        yield _cpu(device, "status", "device.start_cpu_s", 0.3)
        yield _cpu(device, "check", "device.check_cpu_s", 0.5)
        chain.publish(world.make(os.urandom(256 << 20), "1.0.1"))
        mebibytes = _run(device, "update", "--yes").peak / 1024
    yield {
        "name": "device.rss_mib",
        "value": round(mebibytes, 1),
        "unit": "MiB",
        "against": 40,
        "ratio": round(mebibytes / 40, 3),
        "how": "highest resident memory of `update --yes`, encrypted image of 256 MiB over HTTP",
    }


def _cpu(device: Path, command: str, name: str, most: float) -> dict[str, Any]:
    value = statistics.median(_run(device, command).cpu for _ in range(PAIRS))
    return {
        "name": name,
        "value": round(value, 3),
        "unit": "s",
        "against": most,
        "ratio": round(value / most, 3),
        "how": f"user and system time of `{command}`, median of {PAIRS} whole processes",
    }


def _run(device: Path, *command: str) -> Used:
    """What one command used."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "-C", str(device), *command, "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise AssertionError(f"{command} ended with {process.returncode}: {said}")
    return Used(usage.ru_utime + usage.ru_stime, int(said.split()[-1]))
