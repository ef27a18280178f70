"""``firmledger product cancel``, ``pause`` and ``unpause``: what stops things, and lets them go on.

One approver or guardian cancels or pauses, with a transaction of their own; M of N approvers
unpause, and the registry's account sends it.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from protocol.errors import Refused
from registry.commands.acts import As, AsMany, decide, own_act
from registry.commands.desk import Json, answer, desk_of

Name = Annotated[str, typer.Argument(metavar="NAME", help="The product's name.")]


def cancel(context: typer.Context, name: Name, who: As, as_json: Json = False) -> None:
    """Cancel the change that waits; one approver or guardian does."""
    from protocol.ids import ProductId
    from protocol.records import Governance, Product
    from registry.ports import Call

    desk = desk_of(context)
    account = desk.keyring.account(who)
    with desk.service() as service:

        def call() -> Call:
            found = service.get(f"/v1/products/{name}")
            if found["pending"] is None:
                raise Refused(
                    "nothing-pending",
                    f"no change of {name} cancelled",
                    "none waits; what took effect is changed by another change",
                    f"see `firmledger product show {name}`",
                )
            pending = Governance.from_json(found["pending"])
            record = Product.from_json(found["record"])
            return Call("cancel", (ProductId.parse(found["id"]), record, pending))

        receipt = own_act(desk, service, account, call)
        found = service.get(f"/v1/products/{name}")
    _done(found, receipt, f"the change of {name} is cancelled by {who}", as_json)


def pause(context: typer.Context, name: Name, who: As, as_json: Json = False) -> None:
    """Stop every release of a product at once; one approver or guardian does."""
    from protocol.ids import ProductId
    from protocol.records import Product
    from registry.ports import Call

    desk = desk_of(context)
    account = desk.keyring.account(who)
    with desk.service() as service:

        def call() -> Call:
            found = service.get(f"/v1/products/{name}")
            record = Product.from_json(found["record"])
            return Call("pause", (ProductId.parse(found["id"]), record))

        receipt = own_act(desk, service, account, call)
        found = service.get(f"/v1/products/{name}")
    _done(found, receipt, f"{name} is paused by {who}: nothing of it is installed", as_json)


def unpause(
    context: typer.Context,
    name: Name,
    names: AsMany,
    as_json: Json = False,
) -> None:
    """End a pause; M of N approvers decide."""
    from protocol.ids import ProductId
    from protocol.records import Action, Product

    desk = desk_of(context)
    accounts = [desk.keyring.account(each) for each in names]
    with desk.service(operator=True) as service:
        found = service.get(f"/v1/products/{name}")
        product, record = ProductId.parse(found["id"]), Product.from_json(found["record"])
        nonce = record.head.pauses
        done = decide(service, accounts, product, record, Action.UNPAUSE, 0, nonce)
        found = service.get(f"/v1/products/{name}")
    document = {**found, "tx": done["tx"], "gas": done["gas_used"], "block": done["block"]}
    lines = [
        f"{name} is not paused any more",
        f"tx {done['tx']}, {done['gas_used']} gas, block {done['block']}",
    ]
    answer(document, lines, as_json)


def _done(found: Any, receipt: Any, said: str, as_json: bool) -> None:
    spent = {"tx": str(receipt.tx), "gas": receipt.gas_used, "block": receipt.block}
    line = f"tx {receipt.tx}, {receipt.gas_used} gas, block {receipt.block}"
    answer({**found, **spent}, [said, line], as_json)
