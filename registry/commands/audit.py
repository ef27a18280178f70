"""``firmledger audit``: everything re-derived from the chain; the exit code is the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.errors import FirmledgerError, Misuse
from registry.commands.desk import Desk, Json, answer, desk_of, say

if TYPE_CHECKING:
    from registry.chain import Chain


def audit(
    context: typer.Context,
    rpc: Annotated[
        str | None, typer.Option(help="JSON-RPC address of a node to audit from instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Re-derive every record from the chain, and compare with store and receipts."""
    from registry.assembly import open_records
    from registry.audit import audit as examine

    desk = desk_of(context)
    settings = desk.settings
    with _chain(desk, rpc) as chain:
        say(f"auditing contract {chain.ledger.contract} on chain {chain.ledger.chain_id}")
        blobs, receipts = open_records(settings)
        report = examine(chain, start=settings.deployed_at, store=blobs, receipts=receipts)
    lines = [
        f"{report.events} events, {report.products} products, {report.releases} releases, "
        f"{report.receipts} receipts in {report.batches} batches, up to block {report.head}",
        *[f"PROBLEM  {finding.reason}: {finding.sentence}" for finding in report.problems],
        "the chain is consistent" if report.ok else f"{len(report.problems)} problems found",
    ]
    answer(report.as_dict(), lines, as_json)
    if not report.ok:
        raise typer.Exit(1)


@contextmanager
def _chain(desk: Desk, rpc: str | None) -> Iterator[Chain]:
    """The ledger: at ``rpc``, through the running server, or opened here if it does not run."""
    from registry.chain import Chain
    from registry.client import find

    settings = desk.settings
    contract = settings.contract
    if contract is None:
        raise Misuse(
            "no-contract",
            "nothing audited",
            "the settings name no contract",
            "deploy one with `firmledger ledger deploy`",
        )
    if rpc or settings.rpc:
        yield Chain.connect(rpc or settings.rpc or "", contract)
        return
    try:
        url = find(desk.directory, 0, say)
    except FirmledgerError:
        url = None
    if url is not None:
        yield Chain.connect(f"{url}/rpc", contract)
        return
    from registry.clock import SystemClock
    from registry.embedded import EmbeddedLedger

    with EmbeddedLedger.open(desk.directory, clock=SystemClock()) as ledger:
        yield Chain.inside(ledger, contract)
