"""The service manager, told how the daemon fares: systemd's notification protocol (sd_notify(3)).

One datagram of ``NAME=value`` lines for each thing told, to the socket that the unit passes by
``run --notify ${NOTIFY_SOCKET}``. How long the daemon may keep silent is told along with each sign
of life (``WATCHDOG_USEC``), so that it need not wake up just to give one while it rests.

Guarantees: nothing told ever fails or delays the daemon; what it did not write itself cannot add a
line of its own.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from protocol.errors import Misuse

_MAX_STATUS = 200
_MAX_ADDRESS = 107
"""Bytes that a socket's address may have (unix(7))."""


class Systemd:
    """Implements `ports.Supervisor` for units with ``Type=notify``."""

    def __init__(self, address: str) -> None:
        """``address``: a path, or a name in the abstract namespace after ``@``."""
        raw = os.fsencode(address)  # as it was passed, whatever bytes it has
        if raw[:1] not in (b"/", b"@") or not 1 < len(raw) <= _MAX_ADDRESS or b"\0" in raw:
            raise Misuse(
                "notify-address",
                "notification socket refused",
                f"{address[:60]!r} is neither a path nor an abstract name",
                "write `--notify ${NOTIFY_SOCKET}` in a unit with Type=notify",
            )
        self._address = b"\0" + raw[1:] if raw[:1] == b"@" else raw

    def ready(self) -> None:
        """It is set up, and starts its rounds."""
        self._tell("READY=1")

    def says(self, status: str) -> None:
        """A line for ``systemctl status``."""
        line = "".join(c if c.isprintable() else " " for c in status)
        self._tell(f"STATUS={line[:_MAX_STATUS]}")

    def alive(self, within: float) -> None:
        """Restart it unless it says so again within so many seconds."""
        self._tell(f"WATCHDOG_USEC={int(within * 1_000_000)}\nWATCHDOG=1")

    def stopping(self) -> None:
        """It was told to stop, and does."""
        self._tell("STOPPING=1\nSTATUS=stopped")

    def _tell(self, lines: str) -> None:
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out,
        ):
            out.sendto(lines.encode(errors="replace"), self._address)


class Nobody:
    """Implements `ports.Supervisor` where nobody asked to be told."""

    def ready(self) -> None:
        """Nobody hears it."""

    def says(self, status: str) -> None:
        """Nobody hears it."""

    def alive(self, within: float) -> None:
        """Nobody hears it."""

    def stopping(self) -> None:
        """Nobody hears it."""
