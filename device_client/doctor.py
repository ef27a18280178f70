"""The hardening report: what is open on this device, and how to close it.

Looks at the device's own directory, its settings, trust and receipts, and at the image that runs,
which is read from the medium and hashed. The machine around it is looked at by `hardening`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from device_client import hardening
from device_client.adapters.boot_backends import REAL, open_board
from device_client.adapters.directory import Directory, read_bounded
from device_client.adapters.identity import FileIdentity
from device_client.adapters.journal import FileJournal
from device_client.checks import OK, OPEN, WARNING, Check
from device_client.config import read_config
from device_client.core.book import Book
from device_client.core.clock import ClockState, judged
from device_client.flash import digest_of
from device_client.provision import require_enrolled
from device_client.status import read_public
from protocol.errors import FirmledgerError
from protocol.trustfile import MAX_TRUST_BYTES, TrustFile

_VAGUE = ("missing-file", "local-io")
"""Reasons whose own advice knows nothing of slots."""


def examine(root: Path, now: int, system: Path = Path("/")) -> list[Check]:
    """All checks of the device in ``root``; ``now`` is the clock's time."""
    return [
        *(*_secrets(root), *_identity(root), *_shared(root), *_slot(root), *_book(root, now)),
        *(*_trust(root), *_settings(root)),
        *hardening.examine(system),
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


def _identity(root: Path) -> Iterator[Check]:
    """Whether both key files can be used, and the device is the one that was enrolled."""
    identity = FileIdentity(root / "keys/device.json", root / "keys/class.json")
    try:
        read_public(root)
        require_enrolled(root)
        identity.require_readable()
    except FirmledgerError as error:
        yield Check("identity", OPEN, f"{error.what}: {error.why}", error.fix)
    else:
        yield Check("identity", OK, "the keys are those of the device that was enrolled")


def _shared(root: Path) -> Iterator[Check]:
    """What others could write: the device's own files, and the commands it runs."""
    names = (".", "slots", "journal.bin", "boot.env", "boot.entries", "trust.json", "config.toml")
    config = read_config(root)
    commands = [*config.health_check[:1], *config.busy_command[:1]]
    commands += getattr(config.board.table, "argv", [])[:1]
    paths = [root / name for name in (*names, "factory.toml", config.ca_file) if name]
    paths += [*config.board.paths(root).values(), *(root / c for c in commands if "/" in c)]
    writable = [p for p in paths if p.exists() and _mode(p) & 0o022]
    for path in writable:
        yield Check("writable", OPEN, f"{path.name} is writable by others", f"chmod go-w {path}")
    if not writable:
        yield Check("writable", OK, "slots, state, trust and commands are writable by nobody else")


def _slot(root: Path) -> Iterator[Check]:
    """Whether the slot that runs holds, to the last bit, what the boot record says it does."""
    config, disk = read_config(root), Directory(root)
    fix = "install another release before it boots again, or `init --force --image FILE`"
    try:
        opened = open_board(config.board, root, disk, config.slot_bytes)
        with opened.closing:
            record = opened.boot.record()
            name, entry = record.running, record.entry(record.running)
            last = memoryview(bytearray(1))
            opened.cool(name)  # what is read next comes from the medium
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


def _book(root: Path, now: int) -> Iterator[Check]:
    """What the device remembers: whether it can, and what wants a person, or another clock."""
    disk = Directory(root)
    try:
        raw = FileJournal(disk).read()
        book = Book.decode(raw) if raw is not None else None
    except FirmledgerError as error:
        yield Check("journal", OPEN, f"the journal cannot be read: {error.why}", error.fix)
        yield from _clock(now, 0)
        return
    finally:
        disk.close()
    yield from _clock(now, book.glance.time if book is not None else 0)
    if book is None:
        fix = "restore journal.bin, or `init --force --forget`"
        yield Check("journal", OPEN, "the journal was erased", fix)
        return
    if book.glance.frozen:
        what = "the ledger contradicted itself, and is believed no more"
        fix = "report it to the maker; `reanchor` with the statement that comes back"
        yield Check("ledger", OPEN, what, fix)
    if not book.room:
        what = f"{len(book.queue)} receipts wait, and nothing more is installed"
        yield Check("receipts", OPEN, what, "let the device reach a registry")


def _clock(now: int, seen: int) -> Iterator[Check]:
    """``seen``: the time of the newest block that was proved."""
    state = judged(now, seen)
    if state is ClockState.BEHIND:
        what = f"the clock is {seen - now} s behind the ledger: it is wrong, and not believed"
        yield Check("clock", WARNING, what, "set the clock, from the network or by hand")
    elif state is ClockState.NOT_SET:
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
    if not trusted.signing_keys:
        yield Check(
            "signing-keys",
            WARNING,
            "no signing keys are pinned: whichever the ledger lists may sign",
            "let the maker name them in the trust file",
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


def _settings(root: Path) -> Iterator[Check]:
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
    if not config.keep_former:
        yield Check(
            "former",
            WARNING,
            "no former image is kept: if the running one rots, nothing is left to boot",
            "set keep_former = true in config.toml, or rely on a way to recover by wire",
        )
