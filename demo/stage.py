"""The stage of a story: one clock, a ledger, a registry that serves over HTTP, and a publisher.

Guarantees: everything lies under one folder and answers on ports of its own; `close` ends every
thread and socket, whatever happened, and so does leaving the context.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from demo.boot import SIMULATED, Boot
from demo.clock import StoryClock
from demo.fleet import Fleet, Show
from demo.publisher import Publisher
from protocol.errors import Unreachable
from registry.app import Server
from registry.assembly import Registry, create
from registry.client import Service
from registry.operators import read_token

PACE = 10
"""Seconds of the story in one real second: ten blocks fit where one a second is the most."""
HEARTBEAT = 600
ANCHOR_EVERY = 10
PATIENCE = 180.0


class Stage:
    """What a story needs; its parts are attributes."""

    def __init__(self, folder: Path, show: Show, boot: Boot = SIMULATED) -> None:
        """Makes and starts everything under ``folder``, which must exist and be empty."""
        self.folder, self.clock, self.boot = folder, StoryClock(PACE), boot
        home = folder / "registry"
        settings = create(
            home, clock=self.clock, heartbeat=HEARTBEAT, anchor_every=ANCHOR_EVERY, bump_after=3600
        )
        self._closing = contextlib.ExitStack()
        try:
            self.registry = Registry.open(home, clock=self.clock)
            self._closing.callback(self.registry.close)
            self._moved = threading.Event()
            self.registry.on_change(self._moved.set)
            server = Server(self.registry, host="127.0.0.1", port=0)
            self._closing.pop_all()  # closing the server closes the registry
            self._closing.callback(server.close)
            server.start()
            self.url = server.url
            self.service = self._closing.enter_context(Service(server.url, read_token(home)))
            self.fleet = Fleet(folder / "devices", self.clock, show, boot)
            self._closing.callback(self.fleet.close)
        except BaseException:
            self._closing.close()
            raise
        self.max_age = settings.max_age
        self.publisher = Publisher(
            folder,
            self.registry.chain.ledger,
            self.registry.sender,
            self.service,
            boot.defective,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends devices, clients, server, registry and ledger, in this order."""
        self._closing.close()

    def pass_time(self, seconds: int) -> None:
        """``seconds`` pass, and the ledger has sealed a block that says so."""
        self.clock.forward(seconds)
        then = self.clock.now()
        self.until(lambda: self._head_time() >= then, "the ledger sealed no block")

    def until(self, come: Callable[[], bool], otherwise: str) -> None:
        """Waits until ``come()``; `Unreachable` saying ``otherwise`` if it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._moved.clear()
            if come():
                return
            self._moved.wait(0.1)
        raise Unreachable(
            "story-stuck",
            "the story does not go on",
            otherwise,
            "look into the log of the registry",
        )

    def _head_time(self) -> int:
        self.registry.follow()
        head = self.registry.catalogue.head()
        return head.timestamp if head else 0
