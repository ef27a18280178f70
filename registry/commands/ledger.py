"""``firmledger ledger``: the contract and the chain it is on."""

from __future__ import annotations

from typing import Annotated

import typer

from registry.commands.desk import Json, answer, desk_of, say

app = typer.Typer(no_args_is_help=True, help="The ledger: its contract, its chain.")


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show which ledger this registry follows, and how far."""
    with desk_of(context).service() as service:
        found = service.get("/v1/status")
    if found["notice"]:
        say(found["notice"])
    head = found["head"] or {"number": 0, "timestamp": 0}
    lines = [
        f"chain      {found['chain_id']} ({'embedded' if found['embedded'] else 'by rpc'})",
        f"contract   {found['contract']}",
        f"code hash  {found['code_hash']}",
        f"head       {head['number']}, final up to {found['final_height']}",
        f"validators {len(found['validators'])}: {', '.join(found['validators'])}",
        f"sender     {found['sender']}",
        f"outbox     {found['unsettled']} not final",
    ]
    answer(found, lines, as_json)


@app.command()
def deploy(
    context: typer.Context,
    rpc: Annotated[str, typer.Option(help="JSON-RPC address of a chain's node.")],
    as_json: Json = False,
) -> None:
    """Put the contract on a chain and point this registry's settings at it.

    The registry's own account (keys/fee.json) sends and pays; stop the server first.
    """
    from registry.deployment import deploy_at

    desk = desk_of(context)
    settings = deploy_at(rpc, desk.settings)
    document = {
        "rpc": rpc,
        "chain_id": settings.chain_id,
        "contract": str(settings.contract),
        "code_hash": str(settings.code_hash),
        "deployed_at": settings.deployed_at,
    }
    lines = [f"contract {settings.contract} deployed on chain {settings.chain_id}"]
    answer(document, lines, as_json)
