"""``firmledger ledger``: the contract and the chain it is on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from registry.commands.desk import Json, answer, desk_of, say

app = typer.Typer(no_args_is_help=True, help="The ledger: its contract, its chain.")


@app.command()
def status(
    context: typer.Context,
    rpc: Annotated[
        str | None, typer.Option(help="Ask a node of your own instead; needs no registry.")
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="With --rpc: a contract to look for there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which ledger this registry follows, and how far."""
    if rpc is not None:
        _status_at(rpc, contract, as_json)
        return
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


def _status_at(rpc: str, contract: str | None, as_json: bool) -> None:
    """What a node says of its chain, and of the contract there."""
    from protocol.ids import Address
    from registry.artifact import artifact
    from registry.chain import NOWHERE, Chain

    chain = Chain.connect(rpc, NOWHERE if contract is None else Address.parse(contract))
    head = chain.head()
    document: dict[str, Any] = {
        "rpc": rpc,
        "chain_id": chain.ledger.chain_id,
        "head": {"number": head.number, "hash": str(head.hash), "timestamp": head.timestamp},
    }
    lines = [f"chain      {chain.ledger.chain_id}", f"head       {head.number} ({head.hash})"]
    if contract is not None:
        found = chain.code_hash()
        ours = found == artifact().code_hash
        document |= {"contract": contract, "code_hash": str(found), "code_known": ours}
        lines += [f"contract   {contract}", f"code hash  {found}"]
        lines.append("code       " + ("of this version" if ours else "NOT of this version"))
    answer(document, lines, as_json)


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
