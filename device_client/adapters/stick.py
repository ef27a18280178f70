"""A file on a stick as a source: one bundle, one payload, no registry behind it.

docs/spec/bundle.md has the layout. Nothing of it is trusted; lengths are checked before reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from device_client.adapters.directory import mapped, open_regular
from device_client.ports import Question, Source
from protocol.bundle import STICK_PREFIX_BYTES, read_stick_prefix
from protocol.errors import Malformed, Unreachable, Untrusted
from protocol.ids import Digest

_PIECE = 256 << 10


class StickSource:
    """Implements `ports.Source` over a ``.flb`` file."""

    def __init__(self, path: Path) -> None:
        """``path``: the file; it is opened for each reading."""
        self._path = path

    def poll(self, question: Question, maximum: int) -> bytes:
        """The bundle in the file, whatever was asked."""
        with mapped(f"reading {self._path}"), open_regular(self._path) as file:
            length = read_stick_prefix(file.read(STICK_PREFIX_BYTES))
            bundle = file.read(min(length, maximum))
        if len(bundle) != length:
            raise Malformed(
                "truncated",
                "file refused",
                f"it ends inside its bundle, {length - len(bundle)} bytes early",
                "copy it again",
            )
        return bundle

    def payload(self, digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        """The payload's bytes; `Untrusted` unless the file holds exactly ``size``."""
        with mapped(f"reading {self._path}"), open_regular(self._path) as file:
            start = STICK_PREFIX_BYTES + read_stick_prefix(file.read(STICK_PREFIX_BYTES))
            held = self._path.stat().st_size - start
            if held != size:
                raise Untrusted(
                    "payload-length",
                    "file refused",
                    f"it holds a payload of {held} bytes, the manifest names {size}",
                    "make it again with 'firmledger bundle export'",
                )
            file.seek(start + offset)
            while piece := file.read(min(_PIECE, size - offset)):
                offset += len(piece)
                yield piece

    def send(self, receipt: bytes) -> None:
        """A stick takes no receipts."""
        raise _no_registry()

    def acknowledgement(self, leaf: Digest, maximum: int) -> bytes | None:
        """A stick brings no acknowledgements."""
        raise _no_registry()

    def each(self) -> Sequence[Source]:
        """There is one stick."""
        return (self,)


def _no_registry() -> Unreachable:
    return Unreachable(
        "no-registry",
        "receipt kept",
        "a stick cannot carry it back",
        "it is sent when the device next reaches a registry",
    )
