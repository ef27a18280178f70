"""A device without a registry: it installs from files, and keeps its receipts.

What it cannot ask is wrong usage, and says how to name a registry; what it cannot hand over waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from device_client.ports import Question, Source
from protocol.errors import Misuse, Unreachable
from protocol.ids import Digest


class NoSource:
    """Implements `ports.Source` where neither settings nor trust file name a registry."""

    def poll(self, question: Question, maximum: int) -> bytes:
        """There is nobody to ask."""
        raise no_registry()

    def payload(self, digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        """There is nobody to ask."""
        raise no_registry()

    def send(self, receipt: bytes) -> None:
        """There is nobody to take it."""
        raise _kept()

    def acknowledgement(self, leaf: Digest, maximum: int) -> bytes | None:
        """There is nobody to give one."""
        raise _kept()

    def each(self) -> Sequence[Source]:
        """Itself."""
        return (self,)


def no_registry() -> Misuse:
    """The error of whoever would ask a registry and knows none."""
    return Misuse(
        "no-registry",
        "nothing to ask",
        "no registry is configured",
        "name one with `init --registry URL`, or install from a file",
    )


def _kept() -> Unreachable:
    return Unreachable(
        "no-registry",
        "receipt kept",
        "no registry is configured to take it",
        "name one under `registries` in config.toml",
    )
