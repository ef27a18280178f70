"""What every command has before it: the directory, the server, and the two ways to answer.

Rules: results go to stdout, as prose or, with ``--json``, as one document; progress and remarks go
to stderr. Nothing heavy is imported until a command needs it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from registry.chain import Chain
    from registry.client import Service
    from registry.keys import Keyring
    from registry.settings import Settings

SETTLE_SECONDS = 120.0

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@dataclass(frozen=True)
class Desk:
    """Where a command works: ``directory`` is the registry's, ``patience`` the seconds it waits."""

    directory: Path
    patience: float

    @property
    def settings(self) -> Settings:
        """The registry's settings."""
        from registry.settings import Settings

        return Settings.load(self.directory)

    @property
    def keyring(self) -> Keyring:
        """The publisher's keys."""
        from registry.keys import Keyring

        return Keyring(self.directory / "publisher")

    @contextmanager
    def service(self, *, operator: bool = False) -> Iterator[Service]:
        """The running registry; waits for it while it starts."""
        from registry.client import Service, find
        from registry.operators import read_token

        _ = self.settings  # says at once where there is no registry at all
        url = find(self.directory, self.patience, say)
        with Service(url, read_token(self.directory) if operator else None) as service:
            yield service

    def chain(self, service: Service) -> Chain:
        """The ledger by its own address, for acts that people sign themselves."""
        from protocol.errors import Misuse
        from registry.chain import Chain

        settings = self.settings
        if settings.contract is None:
            raise Misuse(
                "no-contract",
                "ledger not reached",
                "the settings name no contract",
                "deploy one with `firmledger ledger deploy`",
            )
        return Chain.connect(settings.rpc or f"{service.url}/rpc", settings.contract)


def desk_of(context: typer.Context) -> Desk:
    """The desk that the command line set up."""
    desk = context.obj
    assert isinstance(desk, Desk)  # noqa: S101 - set by the callback before any command
    return desk


def say(text: str) -> None:
    """A remark, to stderr."""
    sys.stderr.write(text + "\n")


def answer(document: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """The result, to stdout: the document, or the lines."""
    text = json.dumps(document, indent=2) if as_json else "\n".join(lines)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; it is told the bytes done so far."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)
