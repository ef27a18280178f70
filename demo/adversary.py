"""Whoever owns the registry's host: a server in its place that relays the truth, or lies.

It answers at an address of its own as the registry would. What is asked of it is asked of the real
registry; what comes back passes through the `Lie` of the moment. Receipts pass unchanged.

Rules: a liar has everything the registry has (its answers of any time, its chain, its store) and
none of the keys of validators and publisher. Keys that it uses are ones it drew.

Not here: withholding answers. A registry can always do that, and devices notice (`stale`).
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

from coincurve import PrivateKey

from protocol.bundle import Bundle, Fresh, Static
from protocol.digests import keccak256, sha256
from protocol.header import (
    Field,
    build_header,
    encode_header,
    parse_header,
    quorum,
    sign_seal,
    with_seals,
)
from protocol.manifest import MAX_ENVELOPE_BYTES
from protocol.rlp import from_uint
from protocol.suit import digest_of, open_envelope

TIMEOUT = 30.0
_RELAYED = ("range", "if-none-match", "content-type", "accept")
_RETURNED = ("content-type", "content-range", "accept-ranges", "etag")

Change = Callable[[bytes], bytes]


def unchanged(answer: bytes) -> bytes:
    """The truth."""
    return answer


@dataclass(frozen=True, slots=True)
class Lie:
    """What becomes of bundles and payloads on their way to the device."""

    bundle: Change = unchanged
    payload: Change = unchanged


HONEST = Lie()


# -- what can be told ------------------------------------------------------------------------------


def forged_payload() -> Lie:
    """One byte of the encrypted image is another."""

    def forge(payload: bytes) -> bytes:
        middle = len(payload) // 2
        return payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]

    return Lie(payload=forge)


def altered_manifest() -> Lie:
    """The signed manifest names an image of the liar's own; its digest is made to fit."""

    def alter(answer: bytes) -> bytes:
        bundle = Bundle.decode(answer)
        if bundle.static is None:
            return answer
        image, own = bundle.static.terms.image_digest, sha256(b"an image of the liar's own")
        whole = bundle.static.envelope
        signed = open_envelope(whole, max_bytes=MAX_ENVELOPE_BYTES)
        manifest = signed.manifest.replace(image, own)
        envelope = whole.replace(signed.manifest, manifest)
        envelope = envelope.replace(signed.digest, digest_of(manifest))
        return replace(bundle, static=replace(bundle.static, envelope=envelope)).encode()

    return Lie(bundle=alter)


def instead(answer: bytes) -> Lie:
    """Another answer of the registry: of an earlier time, or about another release."""
    return Lie(bundle=lambda _asked_for: answer)


def sealed_by_strangers() -> Lie:
    """A later block of the liar's own, sealed by as many keys as a quorum takes."""

    def reseal(answer: bytes) -> bytes:
        bundle = Bundle.decode(answer)
        header = _sealed_anew(bundle.fresh.proof.header)
        proof = replace(bundle.fresh.proof, header=header)
        return replace(bundle, fresh=replace(bundle.fresh, proof=proof)).encode()

    return Lie(bundle=reseal)


def not_published(static: Static, fresh: Fresh) -> Lie:
    """A release that the ledger refused, beside a true proof of the ledger's state."""
    return instead(Bundle(fresh, static).encode())


def _sealed_anew(raw: bytes) -> bytes:
    header = parse_header(raw)
    fields = list(header.fields)
    fields[Field.NUMBER] = from_uint(header.number + 1)
    fields[Field.TIMESTAMP] = from_uint(header.timestamp + 1)
    draft = with_seals(build_header(fields, header.extra), [])
    strangers = _strangers(quorum(len(header.extra.validators)))
    return encode_header(with_seals(draft, [sign_seal(draft, key) for key in strangers]))


def _strangers(count: int) -> Sequence[bytes]:
    """New keys, in the order in which seals stand: ascending by account."""

    def account(key: bytes) -> bytes:
        public = PrivateKey(key).public_key.format(compressed=False)
        return keccak256(public[1:])[12:]

    return sorted((PrivateKey().secret for _ in range(count)), key=account)


# -- the server ------------------------------------------------------------------------------------


class LyingRegistry:
    """Serves at ``url`` until `close`; ``lie`` may be set at any time."""

    def __init__(self, upstream: str) -> None:
        """``upstream``: the real registry's address, ``http://host:port``."""
        where = urlsplit(upstream)
        self.lie = HONEST
        self._host, self._port = where.hostname or "", where.port or 80
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="adversary"
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops serving, and waits for answers under way."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> _Answer:
        """The registry's answer, as the lie of the moment has it."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = _Answer(
                response.status,
                {name: value for name in _RETURNED if (value := response.getheader(name))},
                response.read(),
            )
        finally:
            connection.close()
        if answer.status in (200, 206) and path.split("?")[0].endswith("/bundle"):
            answer.headers.pop("etag", None)
            return replace(answer, body=self.lie.bundle(answer.body))
        if answer.status in (200, 206) and path.startswith("/v1/blobs/"):
            return replace(answer, body=self.lie.payload(answer.body))
        return answer


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, address: tuple[str, int], registry: LyingRegistry) -> None:
        super().__init__(address, _Handler)
        self.registry = registry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 2.0  # of an idle connection: closing waits for it
    server: _Server

    def do_GET(self) -> None:
        """Relays a question."""
        self._relay(None)

    def do_POST(self) -> None:
        """Relays what is handed in."""
        self._relay(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the story is told elsewhere."""

    def _relay(self, body: bytes | None) -> None:
        headers = {name: value for name in _RELAYED if (value := self.headers.get(name))}
        try:
            answer = self.server.registry.ask(self.command, self.path, headers, body)
        except OSError:
            self.send_error(502)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)
