"""The hardening report: what is open on this device, and how to close it.

Looks at the device's own directory, settings and running image. What it cannot see (verified boot,
debug ports of the board) it says it cannot see, for promise 1 rests on it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_client.adapters.boot_backends import REAL, open_board
from device_client.adapters.directory import Directory, read_bounded
from device_client.config import read_config
from device_client.flash import digest_of
from device_client.memory import BUILD_TIME
from protocol.errors import FirmledgerError
from protocol.trustfile import MAX_TRUST_BYTES, TrustFile

OK, WARNING, OPEN = "ok", "warning", "open"
_VAGUE = ("missing-file", "local-io")
"""Reasons whose own advice knows nothing of slots."""


@dataclass(frozen=True)
class Check:
    """One finding; ``level`` ok, warning (know it) or open (close it)."""

    name: str
    level: str
    what: str
    fix: str = ""


def examine(root: Path, now: int) -> list[Check]:
    """All checks of the device in ``root``; ``now`` is the clock's time."""
    return [
        *(*_secrets(root), *_shared(root), *_slot(root)),
        *(*_clock(now), *_trust(root), *_boot(root)),
    ]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _secrets(root: Path) -> Iterator[Check]:
    for name in ("keys", "keys/device.json", "keys/class.json"):
        path = root / name
        if not path.exists():
            yield Check("secrets", OPEN, f"{name} is missing", "restore it from its backup")
        elif _mode(path) & 0o077:
            yield Check("secrets", OPEN, f"{name} is open to other users", f"chmod go= {path}")
        else:
            yield Check("secrets", OK, f"{name} is readable by its owner alone")


def _shared(root: Path) -> Iterator[Check]:
    names = (".", "slots", "journal.bin", "boot.env", "boot.entries", "trust.json", "config.toml")
    slots = read_config(root).board.paths(root)
    paths = [root / name for name in names] + list(slots.values())
    writable = [p for p in paths if p.exists() and _mode(p) & 0o022]
    for path in writable:
        yield Check("writable", OPEN, f"{path.name} is writable by others", f"chmod go-w {path}")
    if not writable:
        yield Check("writable", OK, "slots, state and trust are writable by their owner alone")


def _slot(root: Path) -> Iterator[Check]:
    """Whether the slot that runs holds, to the last bit, what the boot record says it does."""
    config, disk = read_config(root), Directory(root)
    fix = "install another release before the next boot, or write the image anew: `init --force`"
    try:
        opened = open_board(config.board, root, disk, config.slot_bytes)
        with opened.closing:
            record = opened.boot.record()
            name, entry = record.running, record.entry(record.running)
            last = memoryview(bytearray(1))
            if entry.size and opened.slots.read(name, entry.size - 1, last) == 0:
                why = f"slot {name} runs, and is shorter than its image of {entry.size} bytes"
                yield Check("slot", OPEN, why, fix)
            elif digest_of(opened.slots, name, entry.size) != entry.digest:
                why = f"slot {name} runs, and does not hold the image of the boot record"
                yield Check("slot", OPEN, why, fix)
            else:
                yield Check("slot", OK, f"slot {name} runs, and holds the image of the boot record")
    except FirmledgerError as error:
        what = f"what runs cannot be looked at: {error.what}, {error.why}"
        yield Check("slot", OPEN, what, fix if error.reason in _VAGUE else error.fix)
    finally:
        disk.close()


def _clock(now: int) -> Iterator[Check]:
    if now < BUILD_TIME:
        yield Check(
            "clock",
            WARNING,
            "the clock is not set: an old proof is noticed only by the ledger's own time",
            "set the clock at boot, from the network or a battery-backed one",
        )
    else:
        yield Check("clock", OK, "the clock is set")


def _trust(root: Path) -> Iterator[Check]:
    config = read_config(root)
    trusted = TrustFile.parse(read_bounded(root / "trust.json", MAX_TRUST_BYTES))
    if trusted.embedded:
        yield Check(
            "trust",
            WARNING,
            "the ledger is embedded in one registry: its owner could rewrite history",
            "for production take a trust file of a ledger with independent validators",
        )
    if not trusted.recovery_keys:
        yield Check(
            "recovery",
            WARNING,
            "no recovery keys are pinned: a frozen device can only be set up again",
            "let the maker name recovery keys in the trust file",
        )
    if trusted.max_age > 7 * 86400:
        yield Check(
            "max-age",
            WARNING,
            f"a proof counts as fresh for {trusted.max_age // 86400} days",
            "take a trust file with a shorter max-age",
        )
    plain = [r for r in config.registries or trusted.registries if r.startswith("http://")]
    for registry in plain:
        yield Check(
            "transport",
            WARNING,
            f"{registry} is asked without TLS: nothing can be forged, but everybody can listen",
            "use its https address",
        )


def _boot(root: Path) -> Iterator[Check]:
    config = read_config(root)
    if config.profile == "production" and config.board.boot not in REAL:
        yield Check(
            "boot",
            WARNING,
            "the bootloader is simulated: what really boots is not under its control",
            "use a boot backend of the board",
        )
    if not config.health_check and config.board.boot != "qemu":
        yield Check(
            "health",
            WARNING,
            "no health check: any image that boots is confirmed",
            "set health_check in config.toml",
        )
    yield Check(
        "ports",
        WARNING,
        "debug ports (JTAG, UART console) and verified boot cannot be seen from here",
        "fuse or disable the ports, and switch on verified boot",
    )
