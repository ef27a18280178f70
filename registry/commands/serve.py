"""``firmledger init`` and ``serve``: making a registry, and running it."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from registry.commands.desk import Json, answer, desk_of, say
from registry.rollout import parse_duration

NOTICE = "embedded ledger: whoever owns this host owns the ledger; for trials, not for production"


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to make it.")],
    host: Annotated[str, typer.Option(help="Address that `serve` listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port that `serve` listens on.")] = 8700,
    max_age: Annotated[str, typer.Option(help="How long a proof is fresh, like 24h.")] = "24h",
    heartbeat: Annotated[str, typer.Option(help="Longest pause between blocks.")] = "10s",
    anchor_every: Annotated[str, typer.Option(help="How long receipts gather.")] = "10s",
    as_json: Json = False,
) -> None:
    """Make a registry: keys, settings, and an embedded ledger with the contract on it."""
    from registry.assembly import create
    from registry.clock import SystemClock
    from registry.operators import TOKEN_FILE

    settings = create(
        directory,
        clock=SystemClock(),
        host=host,
        port=port,
        max_age=parse_duration(max_age),
        heartbeat=parse_duration(heartbeat),
        anchor_every=parse_duration(anchor_every),
    )
    say(NOTICE)
    document = {
        "directory": str(directory),
        "chain_id": settings.chain_id,
        "contract": str(settings.contract),
        "code_hash": str(settings.code_hash),
        "operator_token": str(directory / TOKEN_FILE),
    }
    lines = [
        f"registry made in {directory}",
        f"  chain     {settings.chain_id} (embedded)",
        f"  contract  {settings.contract}",
        f"next: firmledger -C {directory} serve",
    ]
    answer(document, lines, as_json)


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one.")] = None,
    as_json: Json = False,
) -> None:
    """Serve the API, and do the work behind it: seal, send, follow, anchor."""
    from registry.app import Server
    from registry.assembly import Registry
    from registry.clock import SystemClock

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    desk = desk_of(context)
    registry = Registry.open(desk.directory, clock=SystemClock())
    settings = registry.settings
    try:
        chosen = settings.port if port is None else port
        server = Server(registry, host=host or settings.host, port=chosen)
    except BaseException:
        registry.close()
        raise
    _on_signals(server.stop)
    with server:
        if registry.ledger is not None:
            say(NOTICE)
        document = {"url": server.url, "directory": str(desk.directory)}
        answer(document, [f"serving {desk.directory} on {server.url}"], as_json)
        server.wait()


def _on_signals(stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT call ``stop``; what runs is finished."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
