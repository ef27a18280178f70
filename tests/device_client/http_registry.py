"""The registry in memory, over HTTP on an ephemeral port; and in all the ways a bad one behaves."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from device_client.ports import Question
from protocol.bundle import MAX_BUNDLE_BYTES
from protocol.digests import leaf_hash
from protocol.ids import DeviceId, Digest, ProductId, Version
from tests.device_client.registry import Registry

Odd = Callable[[BaseHTTPRequestHandler], bool]
"""May answer a request itself; False lets the registry answer."""


def _normal(handler: BaseHTTPRequestHandler) -> bool:
    return False


@contextmanager
def serving(
    registry: Registry, odd: Odd = _normal, context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The registry's address while the context lasts; over TLS with a ``context``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silence."""

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            parts = url.path.strip("/").split("/")
            if odd(self):
                return
            if parts[1] == "products":
                q = parse_qs(url.query)
                question = Question(
                    ProductId.parse(parts[2]),
                    DeviceId.parse(q["device"][0]),
                    Version(int(q["version"][0])),
                    int(q["counter"][0]),
                    int(q["hardware"][0]),
                )
                body = registry.poll(question, MAX_BUNDLE_BYTES)
                etag = f'"{registry.chain.number}"'
                if self.headers.get("If-None-Match") == etag:
                    self.answer(304, b"")
                else:
                    self.answer(200, body, ETag=etag)
            elif parts[1] == "blobs":
                self.blob(Digest.parse(parts[2]))
            else:
                found = registry.acknowledgement(Digest.parse(parts[2]), 10**6)
                self.answer(200 if found else 202, found or b'{"anchored": false}')

        def blob(self, digest: Digest) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            data = b"".join(registry.payload(digest, 0, 0))
            if "Range" in self.headers:
                where = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self.answer(206, data[start:], Content_Range=where)
            else:
                self.answer(200, data)

        def do_POST(self) -> None:
            if odd(self):
                return
            body = self.rfile.read(int(self.headers["Content-Length"]))
            registry.send(body)
            leaf = leaf_hash(body).hex()
            self.answer(202, json.dumps({"leaf": leaf, "anchored": False}).encode())

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A registry that is down, or a client that hung up: silence."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        # The handshake is made in the connection's own thread, at its first byte.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
