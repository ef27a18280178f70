"""What a device knows of itself, as plain data; reads, and neither asks nor writes.

Loads no cryptography: it has to be cheap enough to be asked every few seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device_client.adapters.boot_backends import open_board
from device_client.adapters.directory import Directory, read_bounded
from device_client.adapters.journal import FileJournal
from device_client.config import read_config
from device_client.core.book import Book, lost
from device_client.core.clock import judged
from device_client.core.slots import SLOTS, BootRecord
from device_client.core.types import Target
from protocol.errors import FirmledgerError, LocalFault
from protocol.ids import Version

STATUSES = ("none", "active", "halted", "revoked")
"""The words for `protocol.ledger.Status`."""
_MAX_PUBLIC_BYTES = 4096
_PUBLIC = {"device_id": str, "public_key": str, "product": str, "hardware": int}


def read_status(root: Path, now: int) -> dict[str, Any]:
    """Everything `firmledger-device status --json` says; ``now`` is the clock's time."""
    config = read_config(root)
    public = read_public(root)
    disk = Directory(root)
    try:
        book = _book(disk)
        opened = open_board(config.board, root, disk)
        with opened.closing:
            record = opened.boot.record()
    finally:
        disk.close()
    running = record.entry(record.running)
    return {
        "device_id": public["device_id"],
        "product": public["product"],
        "hardware": config.hardware,
        "profile": config.profile,
        "mode": config.mode,
        "state": str(book.state.stage),
        "version": str(running.version),
        "release_id": running.release_id,
        "slot": record.running,
        "security_counter": book.state.counter,
        "slots": slots_of(record),
        "target": target_of(book.state.target, book.state.progress),
        "clock": str(judged(now, book.glance.time)),
        "ledger": ledger_of(book, running.release_id, now),
        "receipts": receipts_of(book),
        "failed_releases": len(book.state.box),
        "history": history_of(book),
    }


def read_history(root: Path) -> list[dict[str, Any]]:
    """What `firmledger-device history --json` lists, oldest first."""
    read_config(root)  # there is a device
    disk = Directory(root)
    try:
        return history_of(_book(disk))
    finally:
        disk.close()


def _book(disk: Directory) -> Book:
    raw = FileJournal(disk).read()
    if raw is None:
        raise lost()
    return Book.decode(raw)


def read_public(root: Path) -> dict[str, Any]:
    """``device.json``, what the maker enrols; `LocalFault` if it is not as `init` wrote it."""
    try:
        public = json.loads(read_bounded(root / "device.json", _MAX_PUBLIC_BYTES))
    except FirmledgerError as error:
        raise _public(error.why) from error
    except (ValueError, RecursionError):
        raise _public("it is no JSON text") from None
    if not isinstance(public, dict):
        raise _public("it is no JSON object")
    for name, kind in _PUBLIC.items():
        if type(public.get(name)) is not kind:
            raise _public(f"its member {name} is missing, or of another type")
    return public


def _public(why: str) -> LocalFault:
    return LocalFault(
        "device-file",
        "device.json refused",
        why,
        "restore it from the maker's copy; `init --force` makes it anew from the same key",
    )


def slots_of(record: BootRecord) -> dict[str, Any]:
    """Both slots."""
    return {
        slot: {
            "holds": record.entry(slot).standing.name.lower(),
            "version": str(record.entry(slot).version),
            "release_id": record.entry(slot).release_id,
            "image_digest": str(record.entry(slot).digest),
            "size": record.entry(slot).size,
            "primary": record.primary == slot,
        }
        for slot in SLOTS
    }


def target_of(target: Target | None, progress: int) -> dict[str, Any] | None:
    """What is being installed."""
    if target is None:
        return None
    return {
        "release_id": target.release_id,
        "version": str(target.version),
        "image_digest": str(target.image_digest),
        "size": target.image_size,
        "progress": progress,
    }


def ledger_of(book: Book, release_id: int, now: int) -> dict[str, Any]:
    """What was last proved, and how long ago."""
    seen = book.glance
    return {
        "height": seen.height,
        "time": seen.time,
        "age": max(0, now - seen.time) if seen.time else None,
        "newest": str(seen.newest),
        "frozen": seen.frozen,
        "running_release": STATUSES[seen.statuses.get(release_id, 0)],
    }


def receipts_of(book: Book) -> dict[str, int]:
    """The queue."""
    return {"queued": len(book.queue), "sent": sum(q.sent for q in book.queue)}


def history_of(book: Book) -> list[dict[str, Any]]:
    """The latest happenings, oldest first."""
    return [
        {
            "time": line.time,
            "outcome": line.what,
            "release_id": line.release_id,
            "version": str(Version(line.version)),
            "reason": line.reason,
        }
        for line in book.history
    ]
