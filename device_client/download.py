"""From a source's ciphertext to the bytes of an image in a slot: one pass, bounded memory.

Fetching, hashing the ciphertext and decrypting run in one thread, writing in the caller's; between
them at most `flash.QUEUED` blocks wait. The caller's thread alone writes, and says what is durable.

Each byte is hashed twice, not three times: as ciphertext when it comes (`fetch`: is this what the
manifest names?), and as plaintext when it is read back (`flash.read_back`: is this what will
boot?). A plaintext that is right in the slot was right on its way there.

Guarantees:

* Not one byte beyond the announced size is taken, and none is written that was not asked for.
* `fetch` returns normally only if the payload is the manifest's and all of it is durable; only
  `flash.read_back` says that the image is.
* Progress is reported only for bytes that are durable; a later `fetch` goes on from there. It
  rebuilds the hash from what is in the slot, and starts over if that does not come out right.
* Whoever stops it by a signal loses at most what was on its way.

Sources are asked in turn. One that breaks off is followed by the next from that very byte. Where
the whole comes out wrong it is not known whose bytes were: the same source sends all of it once
more, alone, over as many rounds as it has its turn (`mirrors`); if that is wrong, too, the next one
starts from the first byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from device_client.core.types import Target
from device_client.flash import BLOCK, STRIDE, Ahead, Pace, stored, unhurried
from device_client.mirrors import Mirrors
from device_client.ports import SlotStore, Source
from protocol.errors import FirmledgerError, LocalFault, Unreachable, Untrusted
from protocol.payload import Decryptor, Encryptor

Durable = Callable[[int], None]


class Hash(Protocol):
    """A running digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """The next piece."""

    def digest(self) -> bytes:
        """Of all pieces so far."""


def fetch(
    sources: Sequence[Source],
    slots: SlotStore,
    slot: str,
    target: Target,
    content_key: tuple[bytes, bytes],
    *,
    progress: int,
    durable: Durable,
    pace: Pace = unhurried,
    mirrors: Mirrors | None = None,
    block: int = BLOCK,
    stride: int = STRIDE,
) -> None:
    """Write the image of ``target`` to ``slot``, from byte ``progress`` on.

    ``mirrors`` says in which order the sources are asked, and hears what came of each.
    `Untrusted` (payload-digest, payload-length) if all did that can be reached, `Unreachable` if
    one broke off and there is something to go on from; `LocalFault` passes through. What came until
    then is durable.
    """
    slots.reserve(slot, target.image_size)
    download = _Download(slots, slot, target, content_key, progress, durable, pace, block, stride)
    broken: FirmledgerError | None = None
    spoilt: FirmledgerError | None = None
    mirrors = mirrors or Mirrors()
    for source in mirrors.order(sources):
        try:
            mirrors.begins(source)
            whole = download.reached == 0 or mirrors.alone(source)
            right = download.take(source)
            if not right and not whole:
                mirrors.mixed(source)
                right = download.take(source)
            if right:
                mirrors.done()
                return
            spoilt = spoilt or download.error
            mirrors.lied(source)
        except Unreachable as error:
            broken = broken or error
            if mirrors.alone(source):
                if mirrors.broke(sources):
                    download.forget()
                raise
    if broken is not None and (download.reached or spoilt is None):
        raise broken
    assert spoilt is not None  # noqa: S101 - a source is at least one
    raise spoilt


class _Download:
    """What is in the slot so far, and the passes that add to it. ``error``: of the last pass."""

    def __init__(
        self,
        slots: SlotStore,
        slot: str,
        target: Target,
        content_key: tuple[bytes, bytes],
        reached: int,
        durable: Durable,
        pace: Pace,
        block: int,
        stride: int,
    ) -> None:
        self._slots, self._slot, self._target, self._key = slots, slot, target, content_key
        self._durable, self._pace, self._block, self._stride = durable, pace, block, stride
        self.reached, self.error = reached, _digest(target)

    def take(self, source: Source) -> bool:
        """Go on with the bytes of ``source`` to the end; False, and back to 0, if it is wrong."""
        digest: Hash = hashlib.sha256()
        if self.reached:
            digest = rehash(
                self._slots, self._slot, self.reached, self._key, self._block, self._pace
            )
        pieces = _decrypted(source, self._target, self._key, self.reached, digest, self._block)
        try:
            _write(
                *(pieces, self._slots, self._slot, self.reached),
                *(self._note, self._pace, self._stride),
            )
            if digest.digest() == self._target.payload_digest:
                return True
            self.error = _digest(self._target)
        except Untrusted as error:
            self.error = error
        self._note(0)  # what there is may be damaged, or another's: nothing to go on from
        return False

    def forget(self) -> None:
        """Start from the first byte next time."""
        self._note(0)

    def _note(self, reached: int) -> None:
        if reached != self.reached:
            self._durable(reached)
            self.reached = reached


def rehash(
    slots: SlotStore,
    slot: str,
    size: int,
    content_key: tuple[bytes, bytes],
    block: int = BLOCK,
    pace: Pace = unhurried,
) -> Hash:
    """The payload's hash so far, from the ``size`` bytes of image in the slot."""
    digest, encryptor = hashlib.sha256(), Encryptor(*content_key)
    for piece in stored(slots, slot, size, block):
        digest.update(encryptor.update(bytes(piece)))
        pace(0)
    return digest


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
    pace: Pace,
    stride: int,
) -> None:
    reported, unsure = offset, False

    def save() -> None:
        nonlocal reported, unsure
        if offset > reported:
            unsure = True
            slots.sync(slot)
            unsure = False
            durable(offset)
            reported = offset

    with Ahead(pieces) as ready:
        try:
            for piece in ready:
                slots.write(slot, offset, piece)
                offset += len(piece)
                if offset - reported >= stride:
                    save()
                pace(len(piece))
        except (Unreachable, KeyboardInterrupt):
            save()  # what came is not asked for again
            raise
        except LocalFault:
            if not unsure:  # after a sync that failed, the next may succeed without the bytes
                with suppress(LocalFault):  # the first one says what is wrong
                    save()
            raise
    save()


def _digest(target: Target) -> Untrusted:
    return Untrusted(
        "payload-digest",
        "image refused",
        f"the payload is not the one of {target.payload_size} bytes that the manifest names",
        "get it from another source; the device keeps its present image",
    )


def _length(target: Target, than: str) -> Untrusted:
    return Untrusted(
        "payload-length",
        "image refused",
        f"the source sent {than} than the {target.payload_size} bytes of the manifest",
        "get it from another source; the device keeps its present image",
    )
