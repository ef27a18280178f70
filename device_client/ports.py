"""What the device needs of the world, as ports of a few methods each.

Rules for whoever implements one:

1. A method that says *durable* returns only when its effect survives a power cut.
2. Errors of the outside are mapped where they enter: the wire to `Unreachable`, this machine (disk
   full, no permission) to `LocalFault`, unreadable bytes to `Malformed`.
3. Whatever is fetched has a maximum, given by the caller, and is never read beyond it.
4. Adapters share nothing; an integrator adds one by implementing one class in one file.

Slots are named ``a`` and ``b``. Sizes and offsets are bytes, times Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from device_client.core.slots import BootRecord, Entry
from device_client.core.types import Surroundings, Verdict
from protocol.ids import DeviceId, Digest, ProductId, Version

if TYPE_CHECKING:
    from protocol.receipt import Receipt

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Question:
    """What a poll tells the registry: enough to pick a release; the device judges for itself."""

    product: ProductId
    device: DeviceId
    version: Version
    security_counter: int
    hardware: int
    wait: int = 0
    height: int = 0
    """Of the newest block believed: the registry leaves out the validator links below it."""


class Source(Protocol):
    """Where bundles and payloads come from: registry, mirror, gateway, stick. Not trusted."""

    def poll(self, question: Question, maximum: int) -> bytes:
        """The encoded bundle for this device, at most ``maximum`` bytes."""

    def payload(self, digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        """The payload's bytes from ``offset`` up to ``size``, in pieces of any length."""

    def send(self, receipt: bytes) -> None:
        """Hand over a signed receipt; repeating it does no harm."""

    def acknowledgement(self, leaf: Digest, maximum: int) -> bytes | None:
        """The encoded proof that the receipt is anchored, or None while it is not."""

    def each(self) -> Sequence[Source]:
        """Who is behind it, in the order of asking, itself if it is one: if one lies, the next."""


class Disk(Protocol):
    """Named regions of bytes on this machine's medium; file-based adapters are written over it."""

    def size(self, name: str) -> int:
        """How many bytes the region has; 0 if there is none."""

    def reserve(self, name: str, size: int) -> None:
        """Give the region at least ``size`` bytes, durably; `LocalFault` if they do not fit."""

    def read(self, name: str, offset: int, into: memoryview) -> int:
        """Fill ``into`` from ``offset``; how many bytes there were."""

    def write(self, name: str, offset: int, data: Bytes) -> None:
        """Write all of ``data``; durable only after `sync`, and until then in no order."""

    def sync(self, name: str) -> None:
        """All writes to the region are durable, and what is read next comes from the medium."""


class SlotStore(Protocol):
    """The bytes of the two slots. A slot being written is this process's alone."""

    def reserve(self, slot: str, size: int) -> None:
        """Room for an image of ``size``, before its first byte; `LocalFault` if it does not fit."""

    def write(self, slot: str, offset: int, data: Bytes) -> None:
        """Write all of ``data``; durable only after `sync`."""

    def sync(self, slot: str) -> None:
        """All writes are durable, and what is read next comes from the medium, not from a cache."""

    def read(self, slot: str, offset: int, into: memoryview) -> int:
        """Fill ``into`` from ``offset``; how many bytes there were."""


@runtime_checkable
class SelfHashing(Protocol):
    """A `SlotStore` whose medium hashes itself, where reading it back is dear: a node's flash."""

    def digest(self, slot: str, size: int) -> Digest:
        """SHA-256 of the slot's first ``size`` bytes, as they are in the medium."""


class BootControl(Protocol):
    """The boot environment: which slot boots, what is on trial. Every change is one atomic step."""

    def record(self) -> BootRecord:
        """What is in force, and which slot runs; `LocalFault` if it cannot be read."""

    def vacate(self, slot: str) -> None:
        """Durably withdraw the entry of the inactive slot, before it is overwritten."""

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        """The switch, durable: the slot boots next, on trial, at most ``attempts`` times."""

    def settle(self, healthy: bool) -> None:
        """End the trial, durably: keep the running slot, or give it up."""

    def reboot(self) -> None:
        """Boot again. Returns only where booting is simulated."""


class Journal(Protocol):
    """The device's one small record of everything it must remember."""

    def read(self) -> bytes | None:
        """What was committed last; None on a new device; `LocalFault` if it is lost."""

    def commit(self, record: bytes) -> None:
        """Replace it, durably and at once."""


class Clock(Protocol):
    """Time as this machine knows it; the ledger's time is a floor under it."""

    def now(self) -> int | None:
        """Unix seconds, or None while the clock was never set."""

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""


class Uptime(Protocol):
    """Time that passes evenly, whatever the clock is set to."""

    def seconds(self) -> float:
        """Since this machine booted."""


class Supervisor(Protocol):
    """Whoever started the daemon, is told how it fares, and restarts it where it hangs."""

    def ready(self) -> None:
        """It is set up, and starts its rounds."""

    def says(self, status: str) -> None:
        """What it does or found, in a line for people."""

    def alive(self, within: float) -> None:
        """It is well, and says so again within so many seconds."""

    def stopping(self) -> None:
        """It was told to stop, and does."""


class Identity(Protocol):
    """The device's secrets: its own key and its class keys."""

    @property
    def device_id(self) -> DeviceId:
        """SHA-256 of the public key."""

    def sign(self, receipt: Receipt) -> bytes:
        """The receipt, signed by this device."""

    def content_key(self, encryption_info: bytes) -> tuple[bytes, bytes]:
        """(key, IV) of a payload, 16 bytes each; `Refused` if it is for another epoch's key."""


class HealthCheck(Protocol):
    """Whether the image that just booted is any good."""

    def examine(self, slot: str) -> Verdict:
        """Answers within its own deadline, whatever the image does."""


class Site(Protocol):
    """The device's place in the world: what may stand in the way of an installation now."""

    def observe(self) -> Surroundings:
        """Busy, battery, metered link, free space."""
