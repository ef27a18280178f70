"""A device's directory: what lies in it, how it is made, how an agent is opened over it.

================  ====  ==========================================================================
``config.toml``   shared  the owner's settings
``trust.json``    shared  what is believed from the start
``device.json``   shared  what the maker enrols: id and public key
``keys/``         secret  device key and class keys (0700, files 0600); back them up
``journal.bin``   own     the book: trust, counter, receipts; without it the device starts anew
``boot.env``      own     the boot record, where the bootloader is simulated
``boot.entries``  own     what the slots hold, where a board's own command boots
``console.log``   own     what the machine printed last, where QEMU boots
``slots/``        own     the two images
``lock``          own     held by the one process that works here
================  ====  ==========================================================================

`create` takes the lock and checks all that it was given before it touches what is there: neither an
agent at work nor a wrong word costs a device its state. It writes everything else before the
journal, and the journal last: a device without one is not set up, and can be set up again. It keeps
a device key that is there.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from device_client.adapters.boot_backends import Board, OpenBoard, open_board
from device_client.adapters.directory import (
    Directory,
    mapped,
    read_bounded,
    sync_directory,
    write_secret,
)
from device_client.adapters.file_slots import MAX_SLOT_BYTES
from device_client.adapters.identity import FileIdentity, create_device_key, stored_class_keys
from device_client.adapters.journal import REGION as JOURNAL
from device_client.adapters.journal import FileJournal
from device_client.adapters.system import CommandHealth, ConfiguredSite, SystemClock
from device_client.adapters.virtual_boot import REGION as BOOT
from device_client.agent import Agent
from device_client.config import Config, read_config
from device_client.core.book import Book
from device_client.core.machine import State
from device_client.core.slots import SLOTS, BootRecord, Entry, factory
from device_client.core.trust import TrustState
from device_client.engine import Progress, silent
from device_client.flash import digest_of
from device_client.ports import Clock, HealthCheck, Site, Source
from device_client.profile import Parts, Profile
from protocol.errors import LocalFault, Misuse
from protocol.ids import Digest
from protocol.trustfile import MAX_TRUST_BYTES, ClassKeys, TrustFile

FACTORY_IMAGE = b"Firmledger factory image: it runs, and waits for its first release.\n" * 60
_LOCK = "lock"


def paths_of_slots(root: Path) -> dict[str, Path]:
    """Where each slot's image lies."""
    return Board().paths(root)


def create(
    root: Path, trust: bytes, class_keys: bytes, config: Config, image: bytes, *, force: bool
) -> TrustFile:
    """Set up a device in ``root`` that runs ``image``; what it is told is checked before.

    `Misuse` if one is there already and ``force`` is not given, or the profile forbids the trust
    file; `Malformed` for files that are not what they should be; `LocalFault` if a process works
    there, or a real board does not run ``image``.
    """
    from device_client.adapters.http_source import require_address

    trusted, keys = TrustFile.parse(trust), ClassKeys.parse(class_keys)
    if keys.product_id != trusted.product_id:
        raise Misuse(
            "wrong-product",
            "class key file refused",
            "it belongs to another product than the trust file",
            "take both from the same `product trust`",
        )
    stored_keys = stored_class_keys(keys)
    config = Config.parse(config.to_toml().encode())
    require_fit(trusted, config)
    for address in config.registries or trusted.registries:
        require_address(address)
    _require_room(root, force)
    with mapped(f"setting up {root}"):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        disk = Directory(root)
        stack.callback(disk.close)
        disk.reserve(_LOCK, 1)
        disk.lock(_LOCK)
        _require_room(root, force)  # nobody else can move in from here on
        opened = open_board(config.board, root, disk, config.slot_bytes)
        stack.enter_context(opened.closing)
        entry = Entry(digest=Digest(hashlib.sha256(image).digest()), size=len(image))
        running = _require_image(opened, entry)
        _write_files(root, trust, stored_keys, config, trusted)
        if running is None:
            _write_image(opened, image)
            opened.boot.provision(factory(entry))
            if config.board.boot == "qemu":
                opened.boot.reboot()  # an image that never comes up is no fallback
        else:
            opened.boot.provision(_adopted(running, entry))
        book = Book(state=State(), trust=TrustState.first(trusted).encode())
        FileJournal(disk).commit(book.encode())
        with mapped(f"setting up {root}"):
            sync_directory(root)
    return trusted


def _require_room(root: Path, force: bool) -> None:
    """`Misuse` if a device lives in ``root`` and is not to give way."""
    if (root / JOURNAL).exists() and not force:
        raise Misuse(
            "already-set-up",
            "set-up refused",
            f"a device lives in {root} already",
            "use another directory, or `init --force` to start anew with the same key",
        )


def require_fit(trusted: TrustFile, config: Config) -> None:
    """`Misuse` if a production device is to trust a ledger that lives inside one registry."""
    if trusted.embedded and config.profile == "production":
        raise Misuse(
            "embedded-ledger",
            "trust file refused",
            "its ledger is embedded in one registry, whose owner could rewrite it",
            "take a trust file of a ledger with independent validators",
        )


def _write_files(
    root: Path, trust: bytes, class_keys: bytes, config: Config, trusted: TrustFile
) -> None:
    with mapped(f"setting up {root}"):
        for folder in (root, root / "keys", root / "slots"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / "keys").chmod(0o700)
        (root / JOURNAL).unlink(missing_ok=True)
        (root / BOOT).unlink(missing_ok=True)
    create_device_key(root / "keys/device.json")
    write_secret(root / "keys/class.json", class_keys)
    identity = FileIdentity(root / "keys/device.json", root / "keys/class.json")
    public = {
        "device_id": str(identity.device_id),
        "public_key": identity.public_key.raw.hex(),
        "product": str(trusted.product_id),
        "hardware": config.hardware,
    }
    document = json.dumps(public, indent=2, sort_keys=True).encode() + b"\n"
    for name, data in (
        ("device.json", document),
        ("trust.json", trust),
        ("config.toml", config.to_toml().encode()),
    ):
        write_secret(root / name, data)
        (root / name).chmod(0o644)


def _require_image(opened: OpenBoard, entry: Entry) -> str | None:
    """The slot that runs ``entry`` on a real board; None where the board is simulated.

    `LocalFault` if another image runs, or a simulated slot has no room for it.
    """
    if opened.running is None:
        opened.slots.reserve("a", entry.size)
        return None
    running = opened.running()
    if digest_of(opened.slots, running, entry.size) != entry.digest:
        raise LocalFault(
            "another-image",
            "set-up refused",
            f"slot {running} runs, but does not hold the image that was given",
            "give the very image that the device runs: `init --image FILE`",
        )
    return running


def _write_image(opened: OpenBoard, image: bytes) -> None:
    """A simulated board is made to run ``image``, in slot a."""
    for slot in SLOTS:
        opened.slots.reserve(slot, 1)
    opened.slots.write("a", 0, image)
    opened.slots.sync("a")


def _adopted(running: str, entry: Entry) -> BootRecord:
    """A real board runs an image already; it is recorded, never written."""
    record = factory(entry)
    if running != record.primary:
        record = BootRecord(running, running, 0, record.b, record.a)
    return record


@dataclass
class Device:
    """An open device: its agent, and the directory that is this process's until `close`."""

    agent: Agent
    config: Config
    profile: Profile
    _open: ExitStack

    def close(self) -> None:
        """Let go of the directory, the slots, and what runs for the device."""
        self._open.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_device(
    root: Path,
    *,
    source: Source | None = None,
    clock: Clock | None = None,
    health: HealthCheck | None = None,
    site: Site | None = None,
    progress: Progress = silent,
) -> Device:
    """The device in ``root``, this process's alone. Ports that are given replace the usual ones."""
    config = read_config(root)
    trusted = TrustFile.parse(read_bounded(root / "trust.json", MAX_TRUST_BYTES))
    require_fit(trusted, config)
    profile = Profile(
        trust=trusted,
        hardware=config.hardware,
        policy=config.policy,
        zone=config.zone,
        attempts=config.attempts,
        owner_confirms=config.confirm == "owner",
    )
    with ExitStack() as stack:
        disk = Directory(root)
        stack.callback(disk.close)
        disk.lock(_LOCK)
        opened = open_board(config.board, root, disk, config.slot_bytes)
        stack.enter_context(opened.closing)
        parts = Parts(
            source=source or _http(config, trusted),
            slots=opened.slots,
            boot=opened.boot,
            journal=FileJournal(disk),
            clock=clock or SystemClock(),
            identity=FileIdentity(root / "keys/device.json", root / "keys/class.json"),
            health=health or opened.health or _health(root, config),
            site=site or _site(root, config),
        )
        return Device(Agent(profile, parts, progress), config, profile, stack.pop_all())


def with_source(device: Device, source: Source, progress: Progress = silent) -> Agent:
    """Another agent over the same open device that asks another source."""
    return Agent(device.profile, replace(device.agent.parts, source=source), progress)


def factory_image(path: Path | None) -> bytes:
    """The image a new device runs."""
    return FACTORY_IMAGE if path is None else read_bounded(path, MAX_SLOT_BYTES)


def _http(config: Config, trusted: TrustFile) -> Source:
    from device_client.adapters.http_source import HttpSource

    return HttpSource(config.registries or list(trusted.registries))


def _health(root: Path, config: Config) -> HealthCheck:
    paths = config.board.paths(root)
    return CommandHealth(config.health_check, config.health_deadline, paths, root)


def _site(root: Path, config: Config) -> Site:
    def path(text: str) -> Path | None:
        return root / text if text else None

    return ConfiguredSite(
        root / "slots",
        busy_file=path(config.busy_file),
        busy_command=config.busy_command,
        metered_file=path(config.metered_file),
        battery_file=path(config.battery_file),
        reserved=bool(config.board.slots.a),
    )
