"""Setting a device up: what `home.create` does to slots, boot record and book.

Guarantees: nothing is written that was not checked before. A device that is set up again keeps its
key, what it must not forget (`core.recovery`) and, unless an image is given, what it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_client.adapters.boot_backends import OpenBoard, open_board
from device_client.adapters.directory import (
    Directory,
    mapped,
    read_bounded,
    sync_directory,
    write_secret,
)
from device_client.adapters.identity import FileIdentity, create_device_key
from device_client.adapters.journal import REGION as JOURNAL
from device_client.adapters.journal import FileJournal
from device_client.adapters.virtual_boot import REGION as BOOT
from device_client.config import Config
from device_client.core import recovery
from device_client.core.book import Book
from device_client.core.slots import SLOTS, BootRecord, Entry, factory
from device_client.flash import digest_of
from device_client.status import read_public
from protocol.errors import FirmledgerError, LocalFault
from protocol.ids import Digest
from protocol.trustfile import MAX_TRUST_BYTES, TrustFile

UNFINISHED = "unfinished"
"""There while a first set-up is under way: one that was cut may simply be done again."""
_KEY = "keys/device.json"
_SIGNS = (BOOT, "boot.entries", "config.toml", "factory.toml", "device.json", _KEY)
"""What tells, without a journal, that a device was set up here."""
FACTORY_IMAGE = b"Firmledger factory image: it runs, and waits for its first release.\n" * 60


@dataclass(frozen=True)
class Former:
    """What was found of a device that lived here: its boot record and its book, as far as they can
    be read, and the trust file of its time. ``runs``: whether what it runs may stay; ``same_key``:
    whether it stays the device that was enrolled."""

    record: BootRecord | None = None
    book: Book | None = None
    trusted: TrustFile | None = None
    runs: bool = False
    same_key: bool = True

    def goes_on(self, trusted: TrustFile) -> bool:
        """Whether its book is in force until the new one is."""
        before = self.trusted or trusted
        return self.book is not None and before.product_id == trusted.product_id


def set_up(root: Path) -> bool:
    """Whether a device lives in ``root``, whatever it lost; not a first set-up that was cut."""
    if (root / JOURNAL).exists():
        return True
    with mapped(f"reading {root}"):
        return not (root / UNFINISHED).exists() and any((root / one).exists() for one in _SIGNS)


def look(root: Path, config: Config, *, forget: bool) -> Former:
    """What there is of a former device, or of a set-up that was cut.

    `LocalFault` for a journal or a device key that is lost, unless ``forget`` says that height,
    receipts and history, or the identity, may go with it.
    """
    same_key = not set_up(root) or _same_key(root, forget=forget)
    record: BootRecord | None = None
    trusted: TrustFile | None = None
    with suppress(FirmledgerError):
        trusted = TrustFile.parse(read_bounded(root / "trust.json", MAX_TRUST_BYTES))
    disk = Directory(root)  # its own: what it opened may be replaced
    try:
        opened = open_board(config.board, root, disk, config.slot_bytes)
        with opened.closing:
            with suppress(FirmledgerError):
                record = opened.boot.record()
            runs = _runs(opened, record)
        book = _book(disk, forget=forget) if set_up(root) else None
        return Former(record, book, trusted, runs, same_key)
    finally:
        disk.close()


def _book(disk: Directory, *, forget: bool) -> Book | None:
    try:
        raw = FileJournal(disk).read()
        if raw is not None:
            return Book.decode(raw)
        why = "it is not there, or was erased"
    except FirmledgerError as error:
        why = error.why
    if forget:
        return None
    raise LocalFault(
        "journal-damaged",
        "set-up refused",
        f"what the device must not forget cannot be read: {why}",
        "restore journal.bin, or accept its loss with `init --force --forget`",
    )


def _same_key(root: Path, *, forget: bool) -> bool:
    """Whether the device's key is there, and the one that was enrolled."""
    try:
        require_enrolled(root)
    except LocalFault as error:
        if error.reason == "another-key" and forget:
            return False
        raise
    if (root / _KEY).exists():
        return True
    if forget:
        return False
    raise LocalFault(
        "device-key-lost",
        "set-up refused",
        f"{_KEY} is not there, and a new key is a new device",
        "restore it, or accept a new identity with `init --force --forget`, and enrol it",
    )


def require_enrolled(root: Path) -> None:
    """`LocalFault` if the device's key is not that of ``device.json``, as far as both are there."""
    if not (root / _KEY).exists():
        return
    try:
        enrolled = read_public(root)["device_id"]
    except LocalFault:
        return  # `init --force` makes it anew from the key
    if enrolled != str(FileIdentity(root / _KEY, root / "keys/class.json").device_id):
        raise LocalFault(
            "another-key",
            "the device key refused",
            f"{_KEY} is not the key of the device in device.json",
            "restore the key; `init --force --forget` accepts the new identity, to be enrolled",
        )


def _runs(opened: OpenBoard, record: BootRecord | None) -> bool:
    """Whether no trial is under way, and what runs is, to the last bit, what is recorded."""
    if record is None or record.trial is not None or record.running != record.primary:
        return False
    entry = record.entry(record.running)
    with suppress(FirmledgerError):
        return digest_of(opened.slots, record.running, entry.size) == entry.digest
    return False


def book_of(former: Former, trusted: TrustFile) -> Book:
    """The first book of the new device. Without the former one, the slots tell the counter."""
    before = former.trusted or trusted
    if former.book is not None:
        book = recovery.carried_over(former.book, before, trusted)
        return book if former.same_key else recovery.as_another(book)
    same = before.product_id == trusted.product_id
    counter = recovery.counter_of(former.record) if former.record is not None and same else 0
    return recovery.first(trusted, counter)


def image_writer(opened: OpenBoard, image: bytes) -> Callable[[], None]:
    """Checks that the board can run ``image``; what is returned makes it do so.

    `LocalFault` if a real board runs another image, or a simulated slot has no room for it.
    """
    entry = Entry(digest=Digest(hashlib.sha256(image).digest()), size=len(image))
    if opened.running is None:
        opened.slots.reserve("a", entry.size)
        return lambda: _write_image(opened, image, entry)
    running = opened.running()
    if digest_of(opened.slots, running, entry.size) != entry.digest:
        raise LocalFault(
            "another-image",
            "set-up refused",
            f"slot {running} runs, but does not hold the image that was given",
            "give the very image that the device runs: `init --image FILE`",
        )
    return lambda: opened.boot.provision(_adopted(running, entry))


def _write_image(opened: OpenBoard, image: bytes, entry: Entry) -> None:
    """A simulated board is made to run ``image``, in slot a."""
    for slot in SLOTS:
        opened.slots.reserve(slot, 1)
    opened.slots.write("a", 0, image)
    opened.slots.sync("a")
    opened.boot.provision(factory(entry))


def _adopted(running: str, entry: Entry) -> BootRecord:
    """A real board runs an image already; it is recorded, never written."""
    record = factory(entry)
    if running != record.primary:
        record = BootRecord(running, running, 0, record.b, record.a)
    return record


def begin(root: Path) -> None:
    """Durably before all else: a first set-up is under way."""
    if not set_up(root):
        write_secret(root / UNFINISHED, b"")


def end(root: Path) -> None:
    """It is complete, durably."""
    with mapped(f"setting up {root}"):
        (root / UNFINISHED).unlink(missing_ok=True)
        sync_directory(root)


def write_folders(root: Path, *, journal: bool, boot: bool) -> None:
    """The folders of a device; what is not kept of the former one (``journal``, ``boot``) goes."""
    with mapped(f"setting up {root}"):
        for folder in (root, root / "keys", root / "slots"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / "keys").chmod(0o700)
        if not journal:
            (root / JOURNAL).unlink(missing_ok=True)
        if not boot:
            (root / BOOT).unlink(missing_ok=True)


def write_keys(root: Path, class_keys: bytes) -> None:
    """The device's own key, unless there is one, and its class keys."""
    create_device_key(root / "keys/device.json")
    write_secret(root / "keys/class.json", class_keys)


def write_shared(path: Path, data: bytes) -> None:
    """A file that everybody may read, whole or not at all."""
    write_secret(path, data)
    path.chmod(0o644)
