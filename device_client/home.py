"""A device's directory: what lies in it, how it is made, how an agent is opened over it.

================  ====  ==========================================================================
``config.toml``   shared  the owner's settings
``factory.toml``  shared  the settings of `init`, to which a factory reset goes back
``trust.json``    shared  what is believed from the start
``device.json``   shared  what the maker enrols: id and public key
``keys/``         secret  device key and class keys (0700, files 0600); back them up
``journal.bin``   own     the book: trust, counter, receipts, history; without it nothing goes on
``boot.env``      own     the boot record, where the bootloader is simulated
``boot.entries``  own     what the slots hold, where a board's own command boots
``console.log``   own     what the machine printed last, where QEMU boots
``slots/``        own     the two images
``lock``          own     held by the one process that works here
``unfinished``    own     there until a first set-up is complete
================  ====  ==========================================================================

`create` takes the lock and checks all that it was given before it touches what is there: neither an
agent at work nor a wrong word costs a device its state. It writes everything else before the
journal, and the journal last: a first set-up that is cut can be done again. A device that lost its
journal, or its key, is not set up anew in silence. The
journal of a device that is set up again stays in force until the new one replaces it, in one step.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from device_client import assembly, provision
from device_client.adapters.boot_backends import Board, open_board
from device_client.adapters.directory import Directory, mapped, read_bounded
from device_client.adapters.file_slots import MAX_SLOT_BYTES
from device_client.adapters.identity import FileIdentity, stored_class_keys
from device_client.adapters.journal import REGION as JOURNAL
from device_client.adapters.journal import FileJournal
from device_client.adapters.system import SystemClock, SystemUptime
from device_client.agent import Agent
from device_client.config import MAX_CONFIG_BYTES, Config, no_device, read_config
from device_client.core import recovery
from device_client.core.book import Book, lost
from device_client.ports import Clock, HealthCheck, Site, Source
from device_client.profile import Parts, Profile
from device_client.provision import FACTORY_IMAGE
from device_client.report import Progress, silent
from protocol.errors import Misuse
from protocol.trustfile import MAX_TRUST_BYTES, ClassKeys, TrustFile

_LOCK = "lock"


def paths_of_slots(root: Path) -> dict[str, Path]:
    """Where each slot's image lies."""
    return Board().paths(root)


def create(
    root: Path,
    trust: bytes,
    class_keys: bytes,
    config: Config,
    image: bytes | None,
    *,
    force: bool,
    forget: bool = False,
) -> Book:
    """Set up a device in ``root`` that runs ``image``; what it is told is checked before.

    ``force``: also where one lives already; it keeps its key, what must not fall, and, where
    ``image`` is None, what it runs. ``forget``: even if its journal is lost. Returns its book.

    `Misuse` if one is there already, or the profile forbids the trust file; `Malformed` for files
    that are not what they should be; `LocalFault` if a process works there, its journal cannot be
    read, or a real board does not run ``image``.
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
        former = provision.look(root, config, forget=forget)
        book = provision.book_of(former, trusted)
        stays = force and former.runs and image is None
        opened = open_board(config.board, root, disk, config.slot_bytes)
        stack.enter_context(opened.closing)
        write = None if stays else provision.image_writer(opened, image or FACTORY_IMAGE)
        provision.begin(root)
        provision.write_folders(root, journal=former.goes_on(trusted), boot=stays)
        provision.write_keys(root, stored_keys)
        _write_shared(root, trust, config, trusted)
        if write is not None:
            write()
            if config.board.boot == "qemu":
                opened.boot.reboot()  # an image that never comes up is no fallback
        FileJournal(disk).commit(book.encode())
        provision.end(root)
    return book


def _require_room(root: Path, force: bool) -> None:
    """`Misuse` if a device lives in ``root`` and is not to give way."""
    if provision.set_up(root) and not force:
        forget = "" if (root / JOURNAL).exists() else " --forget`, for its journal is lost"
        raise Misuse(
            "already-set-up",
            "set-up refused",
            f"a device lives in {root} already",
            "use another directory, or set it up again with the same key: `init --force"
            + (forget or "`"),
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


def _write_shared(root: Path, trust: bytes, config: Config, trusted: TrustFile) -> None:
    identity = FileIdentity(root / "keys/device.json", root / "keys/class.json")
    public = {
        "device_id": str(identity.device_id),
        "public_key": identity.public_key.raw.hex(),
        "product": str(trusted.product_id),
        "hardware": config.hardware,
    }
    document = json.dumps(public, indent=2, sort_keys=True).encode() + b"\n"
    settings = config.to_toml().encode()
    for name, data in (
        ("device.json", document),
        ("trust.json", trust),
        ("config.toml", settings),
        ("factory.toml", settings),
    ):
        provision.write_shared(root / name, data)


def reset(root: Path) -> Book:
    """A factory reset: the settings of `init`, and a book without what the owner brought about.

    Key, height, time, statuses, security counter, receipts and both images stay. `Refused` while a
    trial is under way, `LocalFault` where there is no device or a process works there.
    """
    if not provision.set_up(root):
        raise no_device(root)
    disk = Directory(root)
    try:
        disk.lock(_LOCK)
        journal = FileJournal(disk)
        raw = journal.read()
        if raw is None:
            raise lost()
        book = recovery.reset(Book.decode(raw))
        settings = read_bounded(root / "factory.toml", MAX_CONFIG_BYTES)
        Config.parse(settings)
        provision.write_shared(root / "config.toml", settings)
        journal.commit(book.encode())
    finally:
        disk.close()
    return book


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
    provision.require_enrolled(root)
    profile = Profile(
        trust=trusted,
        hardware=config.hardware,
        policy=config.policy,
        zone=config.zone,
        attempts=config.attempts,
        owner_confirms=config.confirm == "owner",
        stability=config.stability,
        keep_former=config.keep_former,
        bandwidth=config.bandwidth,
    )
    with ExitStack() as stack:
        disk = Directory(root)
        stack.callback(disk.close)
        disk.lock(_LOCK)
        opened = open_board(config.board, root, disk, config.slot_bytes)
        stack.enter_context(opened.closing)
        parts = Parts(
            source=source or assembly.registries(root, config, trusted),
            slots=opened.slots,
            boot=opened.boot,
            journal=FileJournal(disk),
            clock=clock or SystemClock(),
            uptime=SystemUptime(),
            identity=FileIdentity(root / "keys/device.json", root / "keys/class.json"),
            health=health or opened.health or assembly.health_check(root, config),
            site=site or assembly.site(root, config),
        )
        return Device(Agent(profile, parts, progress), config, profile, stack.pop_all())


def with_source(
    device: Device, source: Source, progress: Progress = silent, bandwidth: int | None = None
) -> Agent:
    """Another agent over the same open device that asks another source, at another rate or none."""
    profile = device.profile
    if bandwidth is not None:
        profile = replace(profile, bandwidth=bandwidth)
    return Agent(profile, replace(device.agent.parts, source=source), progress)


def image_in(path: Path | None) -> bytes | None:
    """The image that a device is set up with; None if none was given."""
    return None if path is None else read_bounded(path, MAX_SLOT_BYTES)


__all__ = [
    "FACTORY_IMAGE",
    "Device",
    "create",
    "image_in",
    "open_device",
    "paths_of_slots",
    "require_fit",
    "reset",
    "with_source",
]
