"""One exchange over HTTP(S), bounded in bytes and in time, whatever the other side does.

Rules:

* A deadline stands over the whole exchange once connected, headers and trailers included (`Watch`):
  nothing that a registry drips holds the device longer.
* A body is read up to a maximum and no further. Redirects are not followed; a compressed body is
  not asked for.
* Whatever goes wrong on the wire is `Unreachable`.
* Where the address says https, the other side's certificate holds, or nothing is said to it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from protocol.errors import LocalFault, Unreachable

Trusted = Callable[[], ssl.SSLContext]
"""Gives the authorities that may vouch for a registry, when one is asked over TLS."""

TIMEOUT = 20
"""Seconds without a byte after which a connection is given up."""
DEADLINE = 120
"""Seconds that an answer may take in all, waiting and the bytes of a payload not counted."""


@contextmanager
def exchange(
    registry: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    wait: int = 0,
    timeout: float = TIMEOUT,
    trusted: Trusted = lambda: authorities(None),
) -> Iterator[Answer]:
    """One request to ``registry``; ``wait``: seconds by which its answer may come later."""
    sent = {"Accept-Encoding": "identity", "User-Agent": "firmledger-device", **(headers or {})}
    connection: http.client.HTTPConnection | None = None
    watch: Watch | None = None
    try:
        connection, base = _connection(registry, timeout + wait, trusted)
        connection.connect()
        watch = Watch(connection.sock, time.monotonic() + DEADLINE + wait)
        connection.request(method, base + path, body, sent)
        yield Answer(connection.getresponse(), watch)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if watch is not None and watch.over:
            raise _slow() from error
        if isinstance(error, ssl.SSLCertVerificationError):
            raise _impostor(registry, error) from error
        raise gone(registry, _said(error)) from error
    finally:
        if watch is not None:
            watch.end()
        if connection is not None:
            connection.close()


class Watch:
    """Shuts a connection down when its time is over, whatever is waited for on it just then."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        """``until``: by the monotonic clock."""
        self.over = False
        self._connection, self._until, self._ended = connection, until, False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def allow(self, until: float) -> None:
        """Move the deadline; one that has passed stays passed."""
        with self._changed:
            sooner, self._until = until < self._until, until
            if sooner:
                self._changed.notify()

    def end(self) -> None:
        """The exchange is over; the connection is left alone from now on."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._ended:
                left = self._until - time.monotonic()
                if left <= 0:
                    self.over = True
                    break
                self._changed.wait(left)
            if self.over:
                # Not the TLS socket's own method: it would forget its keys under the reader's feet.
                with suppress(OSError):
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)


class Answer:
    """A registry's answer under a watch: what was cut off by it is never taken for a whole."""

    def __init__(self, answer: http.client.HTTPResponse, watch: Watch) -> None:
        """Its headers were read; they may be half of what was to come."""
        self._answer, self.watch = answer, watch
        self.status, self.headers = answer.status, answer.headers
        self._require_time()

    def read1(self, maximum: int) -> bytes:
        """Some bytes of the body, none at its end; `Unreachable` once the time is over."""
        piece = self._answer.read1(maximum)
        self._require_time()
        return piece

    def _require_time(self) -> None:
        if self.watch.over:
            raise _slow()


def bounded(answer: Answer, maximum: int) -> bytes:
    """The whole body; `Unreachable` if it is longer than ``maximum``."""
    body = bytearray()
    while piece := answer.read1(min(64 * 1024, maximum + 1 - len(body))):
        body += piece
        if len(body) > maximum:
            raise Unreachable(
                "oversized-answer",
                "answer refused",
                f"it has more than {maximum} bytes",
                "ask another registry",
            )
    return bytes(body)


def _connection(
    registry: str, timeout: float, trusted: Trusted
) -> tuple[http.client.HTTPConnection, str]:
    """A connection, not open yet, and the path below which the registry lies."""
    url = urlsplit(registry)
    host, base = url.hostname or "", url.path.rstrip("/")
    if url.scheme == "https":
        context = trusted()
        return http.client.HTTPSConnection(host, url.port, timeout=timeout, context=context), base
    return http.client.HTTPConnection(host, url.port, timeout=timeout), base


def authorities(file: Path | None) -> ssl.SSLContext:
    """Who may vouch for a registry: those in ``file`` (PEM), or the system's; `LocalFault`."""
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:  # what is no PEM is an SSLError, and that an OSError
        raise LocalFault(
            "ca-file",
            "no registry can be asked",
            f"{file} holds no certificates that can be read ({_said(error)})",
            "correct ca_file in config.toml",
        ) from None


def gone(registry: str, why: str) -> Unreachable:
    """The error of a registry that does not answer as it should."""
    return Unreachable(
        "unreachable", f"{registry} gave no answer", why, "check address and network, try again"
    )


def _impostor(registry: str, error: ssl.SSLCertVerificationError) -> Unreachable:
    return Unreachable(
        "wrong-certificate",
        f"{registry} was not asked",
        f"its certificate does not hold: {error.verify_message}"[:300],
        "check address and clock; name its authority with ca_file in config.toml if it is your own",
    )


def _slow() -> Unreachable:
    return Unreachable("slow-answer", "answer refused", "it took too long", "ask another registry")


def _said(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)[:200]
