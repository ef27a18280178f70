"""The service over HTTP: the application, and the server that runs it.

Guarantees: DIR/address exists only while the server answers there, whole or not at all; a stop
(SIGTERM, SIGINT, `Server.close`) finishes what runs, then closes ledger and databases.

Rules: devices, operators and the public have their own routes (`registry.web`); nothing is decided
here.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Self

import uvicorn
from fastapi import FastAPI

from protocol.errors import LocalFault
from registry import VERSION
from registry.assembly import Registry
from registry.files import whole_file
from registry.web import device, errors, public, publisher
from registry.web.requests import BodyLimit
from registry.web.waiting import Changes, Turns

ADDRESS_FILE = "address"
_BACKLOG = 1024
_STOP_SECONDS = 5


def create_app(registry: Registry, instance: str = "") -> FastAPI:
    """The application on an open registry; it neither starts nor closes it."""

    @contextlib.asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[None]:
        app.state.changes = Changes()
        app.state.turns = Turns()
        registry.on_change(app.state.changes.notify)
        yield

    app = FastAPI(
        title="Firmledger registry",
        version=VERSION,
        description="Firmware releases, proved by a ledger. Errors are application/problem+json.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # both pages load their scripts from elsewhere
        redoc_url=None,
        lifespan=alive,
    )
    app.state.registry = registry
    app.state.instance = instance
    for routes in (device.routes, publisher.routes, public.routes, public.health, public.ledger):
        app.include_router(routes)
    app.add_middleware(BodyLimit)
    errors.install(app)
    return app


class Server:
    """The application on a socket, in a thread of its own; the registry is started and closed."""

    def __init__(self, registry: Registry, *, host: str, port: int) -> None:
        """``port`` 0: any free one. `LocalFault` ``address-in-use`` if it cannot be had."""
        self._registry = registry
        self._socket = _bind(host, port)
        self.instance = secrets.token_hex(8)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._app = create_app(registry, self.instance)
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
            timeout_keep_alive=75,
        )
        self._server = _Uvicorn(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Starts registry and server; returns when requests are answered."""
        self._registry.start()
        self._thread.start()
        self._server.answering.wait()
        self._announce()

    def wait(self) -> None:
        """Waits until `stop` was called, from a signal for example, or the server failed."""
        self._thread.join()

    def stop(self) -> None:
        """Asks the server to end; `close` waits for it."""
        self._server.should_exit = True
        changes = getattr(self._app.state, "changes", None)  # there once it answers
        if changes is not None:
            changes.close()

    @property
    def waiting(self) -> int:
        """Devices whose poll is being held."""
        return int(self._app.state.changes.waiting)

    def close(self) -> None:
        """Ends the server, takes the address back, closes the registry."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()
        self._withdraw()
        self._socket.close()
        self._registry.close()

    @property
    def _address_file(self) -> Path:
        return self._registry.settings.directory / ADDRESS_FILE

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._server.answering.set()

    def _announce(self) -> None:
        members = {
            "url": self.url,
            "pid": os.getpid(),
            "instance": self.instance,
            "started": self._registry.clock.now(),
        }
        with whole_file(self._address_file) as file:
            file.write(json.dumps(members).encode() + b"\n")

    def _withdraw(self) -> None:
        """Takes the address back, unless it is another server's by now."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            members = json.loads(self._address_file.read_text(encoding="utf-8"))
            if members["instance"] == self.instance:
                self._address_file.unlink()


class _Uvicorn(uvicorn.Server):
    """uvicorn, without its signal handling, which belongs to the command line."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, then says so."""
        await super().startup(sockets)
        self.answering.set()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # as in the base class
        """Captures none."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not used."""


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as fault:
        listening.close()
        raise LocalFault(
            "address-in-use",
            f"{host}:{port} not served",
            str(fault),
            "stop what listens there, or choose another with --port",
        ) from fault
    return listening
