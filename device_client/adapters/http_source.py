"""Registries over HTTP(S) as a source, asked in order; a download goes on where the last stopped.

Rules:

* Whatever goes wrong on the wire (`wire`) is `Unreachable`, and the next registry is tried. Whether
  an answer is true is not known here: who finds that it is not asks the others by `each`.
* Nothing that is believed rests on TLS: it hides what a device runs, and keeps strangers from
  wasting its time.

Not for threads: the agent's thread polls while no download runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

from device_client.adapters.no_source import no_registry
from device_client.adapters.wire import (
    TIMEOUT,
    Answer,
    Trusted,
    authorities,
    bounded,
    exchange,
    gone,
)
from device_client.ports import Question, Source
from protocol.bundle import MEDIA_TYPE
from protocol.errors import FirmledgerError, Misuse, Refused, Unreachable
from protocol.ids import Digest

SLOWEST = 1024
"""Bytes per second, on average, below which a download is given up after `PATIENCE` seconds."""
PATIENCE = 30
_PROBLEM_BYTES = 16 * 1024
_PIECE = 64 << 10

_T = TypeVar("_T")


class HttpSource:
    """Implements `ports.Source` over the device API of docs (``/v1``)."""

    def __init__(
        self, registries: Sequence[str], timeout: float = TIMEOUT, trusted: Trusted | None = None
    ) -> None:
        """``registries``: base addresses, in the order in which they are asked; ``trusted``: who
        may vouch for those that are asked over TLS, the system's authorities if None."""
        if not registries:
            raise no_registry()
        self._registries = [require_address(address) for address in registries]
        self._timeout = timeout
        self._seen: dict[str, tuple[str, bytes]] = {}
        alone = len(registries) == 1
        self._trusted = trusted or cache(lambda: authorities(None))
        self._each = (
            (self,) if alone else tuple(HttpSource([r], timeout, self._trusted) for r in registries)
        )

    def poll(self, question: Question, maximum: int) -> bytes:
        """The bundle for this device; the last one again where the registry says it still holds."""
        query = urlencode(
            {
                "device": str(question.device),
                "version": int(question.version),
                "counter": question.security_counter,
                "hardware": question.hardware,
            }
        )
        # The height rises from poll to poll, and a wait is no part of a question: the registry's
        # ETag names neither.
        path = f"/v1/products/{question.product}/bundle?{query}"
        told = f"{path}&height={question.height}"
        if question.wait:
            told += f"&wait={question.wait}"
        return self._first(
            lambda registry: self._bundle(registry, path, told, question.wait, maximum)
        )

    def payload(self, digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        """The payload from ``offset`` to ``size``; each registry goes on where the last stopped."""
        problem: FirmledgerError | None = None
        for registry in self._registries:
            try:
                for piece in self._range(registry, digest, offset, size):
                    offset += len(piece)
                    yield piece
                return
            except Unreachable as error:
                problem = problem or error
        if problem is not None:
            raise problem

    def send(self, receipt: bytes) -> None:
        """Hand a receipt over; `Refused` if a registry read it and does not take it."""

        def post(registry: str) -> None:
            headers = {"Content-Type": "application/cose"}
            with self._exchange(registry, "POST", "/v1/receipts", receipt, headers) as answer:
                body = bounded(answer, _PROBLEM_BYTES)
                if 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
                    raise _problem(Refused, "receipt-not-taken", registry, answer.status, body)
                _require(answer.status in (200, 201, 202), registry, answer.status, body)

        self._first(post)

    def acknowledgement(self, leaf: Digest, maximum: int) -> bytes | None:
        """The proof that a receipt is anchored, or None while it is not."""

        def get(registry: str) -> bytes | None:
            with self._exchange(registry, "GET", f"/v1/receipts/{leaf.hex()}") as answer:
                body = bounded(answer, maximum)
                if answer.status in (202, 404):
                    return None
                _require(answer.status == 200, registry, answer.status, body)
                return body

        return self._first(get)

    def each(self) -> Sequence[Source]:
        """The registries one by one."""
        return self._each

    # -- one registry ----------------------------------------------------------------------------

    def _exchange(
        self,
        registry: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait: int = 0,
    ) -> AbstractContextManager[Answer]:
        return exchange(registry, method, path, body, headers, wait, self._timeout, self._trusted)

    def _first(self, ask: Callable[[str], _T]) -> _T:
        """The first answer of any registry; the first one's error if all refuse or are gone."""
        problem: FirmledgerError | None = None
        for registry in self._registries:
            try:
                return ask(registry)
            except (Unreachable, Refused) as error:
                problem = problem or error
        assert problem is not None  # noqa: S101 - there is at least one registry
        raise problem

    def _bundle(self, registry: str, path: str, told: str, wait: int, maximum: int) -> bytes:
        etag, body = self._seen.get(registry + path, ("", b""))
        headers = {"Accept": MEDIA_TYPE}
        if etag:
            headers["If-None-Match"] = etag
        with self._exchange(registry, "GET", told, None, headers, wait) as answer:
            fresh = bounded(answer, maximum)
            if answer.status == 304 and etag:
                return body
            _require(answer.status == 200, registry, answer.status, fresh)
            self._seen = {registry + path: (answer.headers.get("ETag", ""), fresh)}
            return fresh

    def _range(self, registry: str, digest: Digest, offset: int, size: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path = f"/v1/blobs/{digest.hex()}"
        with self._exchange(registry, "GET", path, None, headers) as answer:
            if answer.status not in (200, 206):
                _require(False, registry, answer.status, bounded(answer, _PROBLEM_BYTES))
            start = _start(answer, registry, offset)
            since, got = time.monotonic(), 0
            while start < size:
                answer.watch.allow(since + max(PATIENCE, got / SLOWEST))
                piece = answer.read1(min(_PIECE, size - start))
                if not piece:
                    raise gone(registry, f"it stopped after {start} of {size} bytes")
                got += len(piece)
                if start + len(piece) > offset:
                    yield piece[max(0, offset - start) :]
                start += len(piece)


def require_address(address: str) -> str:
    """The address, if a registry can be asked there; `Misuse` otherwise. Nothing is looked up."""
    try:
        url = urlsplit(address)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        good = good and address.isascii() and address.isprintable() and " " not in address
        (url.hostname or "").encode("idna")  # labels that are empty, or too long for any name
    except ValueError:
        good = False
    if not good or url.query or url.fragment or url.username:
        raise Misuse(
            "registry-address",
            "registry refused",
            f"{address[:80]!r} is no http or https address",
            "give one like https://updates.example.org, in ASCII",
        )
    return address


def _start(answer: Answer, registry: str, offset: int) -> int:
    """At which byte of the payload the body begins."""
    if answer.status == 200:
        return 0
    declared = answer.headers.get("Content-Range", "")
    if not declared.startswith(f"bytes {offset}-"):
        raise gone(registry, f"it answered with range {declared[:60]!r} to byte {offset}")
    return offset


def _require(good: bool, registry: str, status: int, body: bytes) -> None:
    if not good:
        raise _problem(Unreachable, "registry-error", registry, status, body)


def _problem(
    family: type[FirmledgerError], reason: str, registry: str, status: int, body: bytes
) -> FirmledgerError:
    """A registry's problem+json (RFC 9457), or what can be said without one."""
    try:
        document = json.loads(body)
        why = f"{document['reason']}: {document.get('why') or document.get('detail')}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        why = "no reason given"
    return family(
        reason,
        f"{registry} refused",
        f"HTTP {status}, {why}"[:300],
        "see the registry's log, or ask another one",
        status=status,
    )
