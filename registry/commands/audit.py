"""``firmledger audit``: everything re-derived from the chain; the exit code is the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.errors import FirmledgerError, Misuse
from registry.commands.desk import Desk, Json, answer, desk_of, say

if TYPE_CHECKING:
    from registry.audit import Report
    from registry.chain import Chain


def audit(
    context: typer.Context,
    rpc: Annotated[
        str | None, typer.Option(help="JSON-RPC address of a node to audit from instead.")
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="The contract; with --rpc, no registry is needed.")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(help="A trust file that names contract and validators instead.")
    ] = None,
    from_block: Annotated[
        int, typer.Option(min=0, help="The block to begin at, without a registry.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Re-derive every record from the chain, and compare with store and receipts.

    Elsewhere than at the registry, against a node of one's own: with --rpc, and --contract or
    --trust; then there are no store and no receipts to compare with.
    """
    if contract is None and trust is None:
        report = _at_home(desk_of(context), rpc)
    else:
        report = _elsewhere(rpc, contract, trust, from_block)
    lines = [
        f"{report.events} events, {report.products} products, {report.releases} releases, "
        f"{report.receipts} receipts in {report.batches} batches, up to block {report.head}",
        *[f"PROBLEM  {finding.reason}: {finding.sentence}" for finding in report.problems],
        "the chain is consistent" if report.ok else f"{len(report.problems)} problems found",
    ]
    answer(report.as_dict(), lines, as_json)
    if not report.ok:
        raise typer.Exit(1)


def _elsewhere(
    rpc: str | None, contract: str | None, trust: Path | None, from_block: int
) -> Report:
    """The chain alone; with a trust file, from its validators on and on the chain it names."""
    from protocol.ids import Address
    from registry.audit import audit as examine
    from registry.chain import Chain
    from registry.provisioning import read_trust

    if rpc is None or (contract is not None and trust is not None):
        raise Misuse(
            "usage",
            "nothing audited",
            "an audit without a registry takes --rpc, and either --contract or --trust",
            "name a node of your own with --rpc",
        )
    known = None if trust is None else read_trust(trust)
    chain = Chain.connect(rpc, known.contract if known else Address.parse(contract or ""))
    if known is not None and chain.ledger.chain_id != known.chain_id:
        raise Misuse(
            "another-ledger",
            "nothing audited",
            f"the node is of chain {chain.ledger.chain_id}, the trust file of {known.chain_id}",
            "ask a node of that chain",
        )
    say(f"auditing contract {chain.ledger.contract} on chain {chain.ledger.chain_id}")
    return examine(chain, start=from_block, validators=known.validators if known else ())


def _at_home(desk: Desk, rpc: str | None) -> Report:
    """The registry's own ledger, with its store and receipts."""
    from registry.assembly import open_records
    from registry.audit import audit as examine

    settings = desk.settings
    with _chain(desk, rpc) as chain:
        say(f"auditing contract {chain.ledger.contract} on chain {chain.ledger.chain_id}")
        blobs, receipts = open_records(settings)
        return examine(chain, start=settings.deployed_at, store=blobs, receipts=receipts)


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
