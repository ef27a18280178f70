"""From a source's ciphertext to a checked image in a slot: one pass, bounded memory.

Fetching, hashing the ciphertext and decrypting run in one thread, writing in the caller's; between
them at most `QUEUED` blocks of `BLOCK` bytes wait. The caller's thread alone writes, and says what
is durable.

Each byte is hashed twice, not three times: as ciphertext when it comes (`fetch`: is this what the
manifest names?), and as plaintext when it is read back (`read_back`: is this what will boot?). A
plaintext that is right in the slot was right on its way there.

Guarantees:

* Not one byte beyond the announced size is taken, and none is written that was not asked for.
* `fetch` returns normally only if the payload is the manifest's and all of it is durable; only
  `read_back` says that the image is.
* Progress is reported only for bytes that are durable; a later `fetch` goes on from there. It
  rebuilds the hash from what is in the slot, and starts over if that does not come out right.
* Whoever stops it by a signal loses at most what was on its way.
* `read_back` hashes what the medium holds, not what a cache remembers.

It does *not* decide, switch or journal.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from device_client.core.types import Target
from device_client.ports import SlotStore, Source
from protocol.errors import LocalFault, Unreachable, Untrusted
from protocol.ids import Digest
from protocol.payload import Decryptor, Encryptor

BLOCK = 256 << 10
QUEUED = 4
STRIDE = 16 << 20
"""Bytes between two points from which a download can go on."""

SPOILED = frozenset({"payload-digest", "payload-length", "read-back"})
"""Reasons that say the bytes are wrong, not the way they came."""

_SOON = 50
"""Hundredths of a second that a thread has to end after a signal; it may wait for the wire."""

Durable = Callable[[int], None]


class Hash(Protocol):
    """A running digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """The next piece."""

    def digest(self) -> bytes:
        """Of all pieces so far."""


def fetch(
    source: Source,
    slots: SlotStore,
    slot: str,
    target: Target,
    content_key: tuple[bytes, bytes],
    *,
    progress: int,
    durable: Durable,
    block: int = BLOCK,
    stride: int = STRIDE,
) -> None:
    """Write the image of ``target`` to ``slot``, from byte ``progress`` on.

    `Untrusted` (payload-digest, payload-length) if the bytes are not the manifest's;
    `Unreachable` and `LocalFault` pass through, with everything up to there made durable.
    """
    slots.reserve(slot, target.image_size)
    while True:
        digest = rehash(slots, slot, progress, content_key, block) if progress else hashlib.sha256()
        pieces = _decrypted(source, target, content_key, progress, digest, block)
        _write(pieces, slots, slot, progress, durable, stride)
        if digest.digest() == target.payload_digest:
            return
        if progress == 0:
            raise Untrusted(
                "payload-digest",
                "image refused",
                "the payload is not the one that the manifest names",
                "get it from another source; the device keeps its present image",
            )
        progress = 0  # what was resumed from may have been damaged since: once more from the start


def rehash(
    slots: SlotStore, slot: str, size: int, content_key: tuple[bytes, bytes], block: int = BLOCK
) -> Hash:
    """The payload's hash so far, from the ``size`` bytes of image in the slot."""
    digest, encryptor = hashlib.sha256(), Encryptor(*content_key)
    for piece in _stored(slots, slot, size, block):
        digest.update(encryptor.update(bytes(piece)))
    return digest


def read_back(slots: SlotStore, slot: str, target: Target, block: int = BLOCK) -> None:
    """`Untrusted` unless the medium holds the image of ``target``; reading and hashing overlap."""
    slots.sync(slot)
    digest = hashlib.sha256()
    with _Background(_stored_copies(slots, slot, target.image_size, block)) as pieces:
        for piece in pieces:
            digest.update(piece)
    if digest.digest() != target.image_digest:
        raise Untrusted(
            "read-back",
            "image refused",
            f"slot {slot} does not hold the image that the manifest names",
            "check the medium, and with the maker; the device keeps its present image",
        )


def digest_of(slots: SlotStore, slot: str, size: int) -> Digest:
    """SHA-256 of the first ``size`` bytes in the slot."""
    digest = hashlib.sha256()
    for piece in _stored(slots, slot, size, BLOCK):
        digest.update(piece)
    return Digest(digest.digest())


def _stored(slots: SlotStore, slot: str, size: int, block: int) -> Iterator[memoryview]:
    """The slot's bytes in one buffer, used again for every piece."""
    buffer, offset = memoryview(bytearray(min(block, size))), 0
    while offset < size:
        count = slots.read(slot, offset, buffer[: min(block, size - offset)])
        if count == 0:
            return
        yield buffer[:count]
        offset += count


def _stored_copies(slots: SlotStore, slot: str, size: int, block: int) -> Iterator[bytearray]:
    """The slot's bytes in buffers of their own."""
    offset = 0
    while offset < size:
        buffer = bytearray(min(block, size - offset))
        count = slots.read(slot, offset, memoryview(buffer))
        if count == 0:
            return
        yield buffer if count == len(buffer) else buffer[:count]
        offset += count


def _decrypted(
    source: Source,
    target: Target,
    content_key: tuple[bytes, bytes],
    offset: int,
    digest: Hash,
    block: int,
) -> Iterator[bytes]:
    """The plaintext in blocks; the ciphertext is counted and hashed on the way."""
    decryptor = Decryptor(*content_key, offset=offset)
    left = target.payload_size - offset
    for piece in _blocks(source.payload(target.payload_digest, offset, target.payload_size), block):
        left -= len(piece)
        if left < 0:
            raise _length(target, "more")
        digest.update(piece)
        yield decryptor.update(piece)
    if left:
        raise _length(target, "less")


def _blocks(pieces: Iterator[bytes], block: int) -> Iterator[bytes]:
    """The same bytes in blocks of about one size; what came before a break is passed on as well."""
    waiting: list[bytes] = []
    count = 0
    broken: Unreachable | None = None
    try:
        for piece in pieces:
            for start in range(0, len(piece), block):
                part = piece[start : start + block]
                waiting.append(part)
                count += len(part)
                if count >= block:
                    yield waiting[0] if len(waiting) == 1 else b"".join(waiting)
                    waiting, count = [], 0
    except Unreachable as error:
        broken = error
    if waiting:
        yield b"".join(waiting)
    if broken is not None:
        raise broken


def _write(
    pieces: Iterator[bytes],
    slots: SlotStore,
    slot: str,
    offset: int,
    durable: Durable,
    stride: int,
) -> None:
    reported = offset

    def save() -> None:
        nonlocal reported
        if offset > reported:
            slots.sync(slot)
            durable(offset)
            reported = offset

    with _Background(pieces) as ready:
        try:
            for piece in ready:
                slots.write(slot, offset, piece)
                offset += len(piece)
                if offset - reported >= stride:
                    save()
        except (Unreachable, KeyboardInterrupt):
            save()  # what came is not asked for again
            raise
        except LocalFault:
            with suppress(LocalFault):  # the first one says what is wrong
                save()
            raise
    save()


def _length(target: Target, than: str) -> Untrusted:
    return Untrusted(
        "payload-length",
        "image refused",
        f"the source sent {than} than the {target.payload_size} bytes of the manifest",
        "get it from another source; the device keeps its present image",
    )


class _Background:
    """Runs an iterator in a thread of its own, a few items ahead; its error is raised here.

    Leaving the context ends the thread, whatever state it is in; after a signal it is left behind
    if it does not end soon, for so does the process.
    """

    def __init__(self, items: Iterator[bytes] | Iterator[bytearray]) -> None:
        self._items = items
        self._ready: queue.Queue[bytes | bytearray | BaseException | None] = queue.Queue(QUEUED)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)

    def __enter__(self) -> Iterator[bytes | bytearray]:
        self._thread.start()
        return self._taken()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        for _waited in range(_SOON) if kind is KeyboardInterrupt else itertools.count():
            if not self._thread.is_alive():
                return
            self._drain()
            self._thread.join(0.01)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._items:
                if self._stopped.is_set():
                    return
                self._ready.put(item)
        except BaseException as error:  # handed to the thread that waits for the items
            end = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        self._ready.put(end)

    def _taken(self) -> Iterator[bytes | bytearray]:
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _drain(self) -> None:
        try:
            while True:
                self._ready.get_nowait()
        except queue.Empty:
            pass
