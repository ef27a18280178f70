"""The command line's way to a running registry: finding it, asking it, understanding its problems.

Guarantees: what the service refused is raised here as the error it was there; every answer is
bounded in time; nothing but the token leaves this machine's files.

Rules: DIR/address says where the server is. It is believed only if that server answers with the
instance named there, so a file left behind by a killed server is told from a server that is still
starting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from protocol.errors import (
    FirmledgerError,
    LedgerRefused,
    LocalFault,
    Malformed,
    Misuse,
    Refused,
    Unreachable,
    Untrusted,
)
from registry.depth import read_json

ADDRESS_FILE = "address"
MAX_ADDRESS = 4096
CHUNK = 1 << 20
FINAL = ("mined", "failed")
_PAUSE = 0.2
_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
_FAMILIES: dict[str, type[FirmledgerError]] = {
    family.family: family
    for family in (Misuse, Malformed, Untrusted, Unreachable, LedgerRefused, Refused, LocalFault)
}


class Service:
    """A registry's API at one address; ``token`` is needed for what changes something."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=_TIMEOUT,
            trust_env=not _is_here(self.url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> Any:
        """JSON from ``path``."""
        return self._ask("GET", path, params=query).json()

    def get_bytes(self, path: str, most: int) -> bytes:
        """A body of at most ``most`` bytes."""
        answer = self._ask("GET", path)
        if len(answer.content) > most:
            raise _oversized(path, most)
        return answer.content

    def post(self, path: str, body: Any) -> Any:
        """JSON for JSON."""
        return self._ask("POST", path, json=body).json()

    def upload(self, path: str, file: Path, progress: Callable[[int], None]) -> Any:
        """PUTs a file, piece by piece."""

        def pieces() -> Iterator[bytes]:
            sent = 0
            with file.open("rb") as source:
                while piece := source.read(CHUNK):
                    yield piece
                    sent += len(piece)
                    progress(sent)

        size = {"Content-Length": str(file.stat().st_size)}
        return self._ask("PUT", path, content=pieces(), headers=size).json()

    def download(self, path: str, most: int, progress: Callable[[int], None]) -> Iterator[bytes]:
        """GETs a body of at most ``most`` bytes, piece by piece."""
        with _wire(self.url), self._http.stream("GET", path) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise _problem(answer)
            received = 0
            for piece in answer.iter_bytes(CHUNK):
                received += len(piece)
                if received > most:
                    raise _oversized(path, most)
                progress(received)
                yield piece

    def settled(self, row: int, seconds: float) -> Any:
        """The outbox row once it is final; its error if it failed, `Unreachable` if too late."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            found = self.get(f"/v1/tx/{row}", wait=max(0, min(20, int(left))))
            if found["status"] == "failed":
                raise rebuilt(found["error"] or {})
            if found["status"] in FINAL:
                return found
            if left <= 0:
                raise Unreachable(
                    "not-final",
                    "the ledger has not taken it in yet",
                    f"{seconds:.0f} s are over and it is {found['status']}",
                    f"it goes on by itself: ask for /v1/tx/{row}, or give the command again",
                    row=row,
                )

    def _ask(self, method: str, path: str, **details: Any) -> httpx2.Response:
        with _wire(self.url):
            answer = self._http.request(method, path, **details)
        if answer.status_code >= 400:
            raise _problem(answer)
        return answer


def find(directory: Path, seconds: float, say: Callable[[str], None]) -> str:
    """The address of the server of ``directory``, waiting up to ``seconds`` while it starts.

    `Unreachable` ``no-server`` afterwards, which says so if the address is a dead server's.
    """
    until, told = time.monotonic() + seconds, False
    while True:
        url, why = _try(directory)
        if url is not None:
            return url
        if time.monotonic() >= until:
            raise Unreachable(
                "no-server",
                f"the registry in {directory} not reached",
                why,
                f"start it with `firmledger -C {directory} serve`",
            )
        if not told:
            say(f"waiting for the registry in {directory} to start: {why}")
            told = True
        time.sleep(_PAUSE)


def _try(directory: Path) -> tuple[str | None, str]:
    """(address, "") if the server answers there; (None, why) otherwise."""
    path = directory / ADDRESS_FILE
    try:
        with path.open("rb") as file:
            members = read_json(file.read(MAX_ADDRESS))
        url, instance, process = str(members["url"]), members["instance"], members["pid"]
    except FileNotFoundError:
        return None, "it is not running"
    except (OSError, ValueError, KeyError, TypeError) as fault:
        return None, f"{path} cannot be read: {fault}"
    try:
        answer = httpx2.get(f"{url}/healthz", timeout=5.0, trust_env=not _is_here(url)).json()
        if answer["instance"] == instance:
            return url, ""
        return None, f"{path} is stale: another server answers at {url}"
    except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError):
        return None, f"{path} is stale: process {process} no longer answers at {url}"


def rebuilt(members: dict[str, Any]) -> FirmledgerError:
    """The error that ``as_dict`` once wrote down."""
    kind = _FAMILIES.get(str(members.get("family")), Unreachable)
    texts = [str(members.get(name, "not said")) for name in ("reason", "what", "why", "fix")]
    data = members.get("data")
    return kind(*texts, **(data if isinstance(data, dict) else {}))


class _wire:
    """Maps what can go wrong on the way to `Unreachable`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> None:
        if isinstance(fault, httpx2.HTTPError | OSError):
            raise Unreachable(
                "registry-unreachable",
                f"{self._url} did not answer",
                str(fault) or type(fault).__name__,
                "check that the registry is running, and try again",
            ) from fault


def _is_here(url: str) -> bool:
    """Whether it is an address of this machine, which no proxy is asked for, nor told a token."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _problem(answer: httpx2.Response) -> FirmledgerError:
    try:
        members = answer.json()
        if isinstance(members, dict) and "reason" in members:
            return rebuilt(members)
    except ValueError:
        pass
    return Unreachable(
        "strange-answer",
        f"{answer.request.url} not understood",
        f"it answered {answer.status_code} without a reason",
        "check that a Firmledger registry listens there",
    )


def _oversized(path: str, most: int) -> Malformed:
    return Malformed(
        "oversized", f"{path} refused", f"it has more than {most} bytes", "ask another registry"
    )
