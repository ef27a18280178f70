"""The order of writes, fsyncs and dropped caches, as the system itself is asked for them.

A real device in a real directory: the system's calls are passed on and written down. Nothing is
believed that a power cut could take back, and nothing is read back that only a cache remembers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from device_client import flash
from device_client.adapters.directory import Directory
from device_client.adapters.file_slots import FileSlots
from device_client.adapters.journal import FileJournal
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.agent import Agent
from device_client.config import Config
from device_client.core.types import Target
from device_client.home import create, open_device
from protocol.digests import sha256
from protocol.ids import Version
from protocol.receipt import Outcome
from protocol.trustfile import ClassKey, ClassKeys
from tests.device_client import registry as world
from tests.world.clock import HandClock

SLOT, JOURNAL, BOOT = "b.img", "journal.bin", "boot.env"
IMAGE = world.image_of("1.0.0", 600_000)
BLOCK = 64 << 10
DURABLE = ["fsync", "drop"]

Operation = tuple[str, str]
"""What was asked of the system (write, fsync, drop, read), and of which file."""


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Operation]]:
    """Everything that is asked of the system from now on, in order; all of it is done as well."""
    told: list[Operation] = []

    def watch(function: str, name: str) -> None:
        real: Callable[..., object] = getattr(os, function)

        def call(descriptor: int, *arguments: object) -> object:
            done = real(descriptor, *arguments)
            told.append((name, Path(f"/proc/self/fd/{descriptor}").readlink().name))
            return done

        monkeypatch.setattr(os, function, call)

    for function, name in (
        ("pwrite", "write"),
        ("fsync", "fsync"),
        ("posix_fadvise", "drop"),
        ("preadv", "read"),
    ):
        watch(function, name)
    yield told


@pytest.fixture
def device(tmp_path: Path) -> tuple[Path, world.Registry]:
    """A device that was set up, and a registry that offers it one release."""
    registry = world.Registry(world.Chain())
    registry.chain.publish(world.make(IMAGE, "1.0.0", 3))
    pem = world.CLASS_KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    keys = ClassKeys(world.PRODUCT, (ClassKey(1, world.KID.hex(), pem.decode()),))
    trust = world.trust_file(registry.chain).to_bytes()
    root = tmp_path / "dev"
    create(root, trust, keys.to_bytes(), Config(hardware=2), b"factory" * 99, force=False)
    return root, registry


def updated(device: tuple[Path, world.Registry]) -> None:
    root, registry = device
    with open_device(root, source=registry, clock=HandClock(world.NOW)) as opened:
        profile = replace(opened.profile, block=BLOCK, stride=2 * BLOCK)
        assert Agent(profile, opened.agent.parts).update().outcome == Outcome.CONFIRMED


def of(trace: list[Operation], region: str) -> list[str]:
    return [what for what, where in trace if where == region]


def test_a_slot_is_read_back_from_the_medium_before_it_is_armed(
    device: tuple[Path, world.Registry], trace: list[Operation]
) -> None:
    updated(device)
    last_write = max(i for i, one in enumerate(trace) if one == ("write", SLOT))
    armed = trace.index(("write", BOOT), last_write)
    between = of(trace[last_write + 1 : armed], SLOT)
    assert between.count("read") >= len(IMAGE) // BLOCK
    before_the_first = between[: between.index("read")]
    assert before_the_first[-2:] == DURABLE
    assert "write" not in between


def test_whatever_is_promised_is_durable_first(
    device: tuple[Path, world.Registry], trace: list[Operation]
) -> None:
    """No byte of a slot is at stake when the journal or the boot record speaks of it."""
    updated(device)
    at_stake: set[str] = set()
    promises = 0
    for what, where in trace:
        if what == "write" and where in (JOURNAL, BOOT):
            assert not at_stake, (where, at_stake)
            promises += 1
        if what == "write":
            at_stake.add(where)
        elif what == "fsync":
            at_stake.discard(where)
    assert not at_stake and promises > len(IMAGE) // (2 * BLOCK)


@pytest.mark.parametrize("region", [JOURNAL, BOOT])
def test_a_commit_returns_when_it_is_durable(
    device: tuple[Path, world.Registry], trace: list[Operation], region: str
) -> None:
    updated(device)
    writes = [i for i, one in enumerate(trace) if one == ("write", region)]
    assert writes
    for index in writes:
        assert trace[index + 1 : index + 3] == [(what, region) for what in DURABLE]


def test_the_read_back_itself_asks_the_medium(tmp_path: Path, trace: list[Operation]) -> None:
    """Whoever wrote the slot, and when: also one that a process before this one left behind."""
    disk = Directory(tmp_path)
    slots = FileSlots(disk)
    slots.reserve("b", len(IMAGE))
    slots.write("b", 0, IMAGE)
    trace.clear()
    digest, version = sha256(IMAGE), Version.parse("1.0.0")
    size = len(IMAGE)
    flash.read_back(slots, "b", Target(1, version, 3, digest, size, digest, size, digest))
    disk.close()
    assert of(trace, SLOT)[:2] == DURABLE
    assert set(of(trace, SLOT)[2:]) == {"read"}


@pytest.mark.parametrize("region", [JOURNAL, BOOT])
def test_what_is_read_is_made_durable_before_it_is_believed(
    device: tuple[Path, world.Registry], trace: list[Operation], region: str
) -> None:
    disk = Directory(device[0])
    if region == JOURNAL:
        assert FileJournal(disk).read() is not None
    else:
        assert VirtualBoot(disk, FileSlots(disk)).record().running == "a"
    disk.close()
    asked = of(trace, region)
    assert asked[:2] == DURABLE and set(asked[2:]) == {"read"}
