"""``firmledger product propose``: changing who may do what for a product.

Two ways lead onto the ledger: M of N approvers sign, here or one after the other in a file that is
passed on, and the registry's account sends it; or one watcher restricts, with a transaction of
their own. A change that loosens waits for the governance delay, one that only tightens takes effect
at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocol.errors import Misuse, Refused
from protocol.ids import Address, ProductId
from protocol.records import Ledger, Product
from registry.commands.acts import own_act
from registry.commands.desk import SETTLE_SECONDS, Desk, Json, desk_of, say
from registry.commands.governance import Name
from registry.commands.shown import Shown, effective_at
from registry.commands.wanted import Wanted

if TYPE_CHECKING:
    from registry.amendment import Change
    from registry.client import Service
    from registry.keys import Account

Signers = Annotated[list[str] | None, typer.Option("--as", metavar="NAME", help="Whose keys sign.")]
Who = Annotated[list[str] | None, typer.Option(metavar="WHO", help="A name, or an 0x-account.")]
Keys = Annotated[list[str] | None, typer.Option(metavar="KEY", help="A key's id or number here.")]


def propose(
    context: typer.Context,
    name: Name,
    add_approver: Who = None,
    remove_approver: Who = None,
    threshold: Annotated[int | None, typer.Option(min=1, help="How many must approve.")] = None,
    add_guardian: Who = None,
    remove_guardian: Who = None,
    add_auditor: Who = None,
    remove_auditor: Who = None,
    add_reporter: Who = None,
    remove_reporter: Who = None,
    enroller: Annotated[
        str | None, typer.Option(metavar="WHO", help="Who sets the fleet, or 'nobody'.")
    ] = None,
    add_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A key's id, or 'new' to draw one.")
    ] = None,
    retire_key: Keys = None,
    revoke_key: Keys = None,
    halt_after: Annotated[
        str | None, typer.Option(metavar="N:P%", help="Halt at N failures above P%, or 'never'.")
    ] = None,
    release_delay: Annotated[
        str | None, typer.Option(metavar="TIME", help="From publication to start.")
    ] = None,
    names: Signers = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it for others to sign.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--change", metavar="FILE", help="Go on with one written by -o.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Sign FILE without a registry, and believe it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Propose a change of who may do what; sent once enough approvers signed it.

    Without --as it is only shown. One watcher who restricts (revokes a key, steps down) needs
    nobody else.
    """
    wanted = Wanted(
        {
            "approver": (add_approver, remove_approver),
            "guardian": (add_guardian, remove_guardian),
            "auditor": (add_auditor, remove_auditor),
            "reporter": (add_reporter, remove_reporter),
        },
        (add_key, retire_key, revoke_key),
        threshold,
        enroller,
        halt_after,
        release_delay,
    )
    desk = desk_of(context)
    accounts = [desk.keyring.account(each) for each in names or ()]
    if file is None:
        if offline:
            raise _misused("--offline is for a change in a file", "name it with --change")
        _new_change(desk, name, wanted, accounts, output, as_json)
        return
    if wanted.something or output is not None:
        raise _misused("the change stands in FILE already", "give --change and --as alone")
    if offline:
        _sign_offline(desk, name, file, accounts, as_json)
    else:
        _go_on(desk, name, file, accounts, as_json)


def _new_change(
    desk: Desk,
    name: str,
    wanted: Wanted,
    accounts: list[Account],
    output: Path | None,
    as_json: bool,
) -> None:
    """Makes a change of what is wanted; shows, writes or sends it."""
    from protocol.records import Governance
    from registry import amendment
    from registry.clock import SystemClock

    with desk.service(operator=bool(accounts)) as service:
        ledger, found, record = _here(service, name)
        known = {key.key_id for key in record.governance.keys}
        if found["pending"] is not None:
            known |= {key.key_id for key in Governance.from_json(found["pending"]).keys}
        edits = wanted.edits(desk.keyring, name, known)
        coming = edits.applied(record.governance, record.head.latest_release)
        product, now = ProductId.parse(found["id"]), SystemClock().now()
        called = found["name"] or name
        change = amendment.propose(ledger, product, called, record, coming, now)
        if output is None and len(accounts) == 1 and _is_for_one(change, accounts[0], record):
            shown = Shown(desk.keyring, change)
            _restrict(desk, service, accounts[0], change, shown, as_json)
            return
        for account in accounts:
            change = change.signed_by(account)
        shown = Shown(desk.keyring, change)
        shown.weigh(record.head.latest_release, effective_at(found))
        if output is not None:
            change.save(output)
            shown.tell("written", [f"written: {output}", _next_step(name, output)], as_json)
        elif not accounts:
            shown.tell("shown", ["nothing was signed: give --as, or -o FILE"], as_json)
        elif change.is_agreed:
            _submit(service, change, shown, as_json)
        else:
            raise Refused(
                "too-few-signatures",
                f"change of {called} not sent",
                f"{len(accounts)} signed it, {change.current.threshold} must",
                "give more --as, or -o FILE and let others sign it",
            )


def _is_for_one(change: Change, account: Account, record: Product) -> bool:
    """Whether it takes one watcher alone, and M of N have not signed with that."""
    from registry.changes import is_restriction, watchers

    current = change.current
    if account.address not in watchers(current):
        return False
    if account.address in current.approvers and current.threshold == 1:
        return False
    latest = record.head.latest_release
    return is_restriction(current, change.next, account.address, latest)


def _go_on(desk: Desk, name: str, file: Path, accounts: list[Account], as_json: bool) -> None:
    """Signs a change from a file, after comparing it with the ledger; sends it if it is agreed."""
    from registry.amendment import open_change

    change = open_change(file)
    with desk.service(operator=True) as service:
        ledger, found, record = _here(service, name)
        _require_product(change, found["id"], file)
        change.require_current(ledger, record)
        for account in accounts:
            change = change.signed_by(account)
        if accounts:
            change.save(file)
        shown = Shown(desk.keyring, change)
        shown.weigh(record.head.latest_release, effective_at(found))
        if change.is_agreed:
            _submit(service, change, shown, as_json)
        else:
            shown.tell("written", [_next_step(name, file)], as_json)


def _here(service: Service, name: str) -> tuple[Ledger, Any, Product]:
    """The ledger, and a product of it: as the API shows it, and its record."""
    status, found = service.get("/v1/status"), service.get(f"/v1/products/{name}")
    ledger = Ledger(int(status["chain_id"]), Address.parse(status["contract"]))
    return ledger, found, Product.from_json(found["record"])


def _sign_offline(
    desk: Desk, name: str, file: Path, accounts: list[Account], as_json: bool
) -> None:
    from registry.amendment import open_change

    change = open_change(file)
    if change.product_name != name:
        _require_product(change, name, file)  # which may be the id as well
    for account in accounts:
        change = change.signed_by(account)
    change.save(file)
    say("no registry was asked: what changes is shown as the file says it")
    Shown(desk.keyring, change).tell("written", [_next_step(name, file)], as_json)


def _submit(service: Service, change: Change, shown: Shown, as_json: bool) -> None:
    body = {"next": change.next.to_json(), "approvals": change.approvals.to_json()}
    queued = service.post(f"/v1/products/{change.product}/amendments", body)
    done = service.settled(queued["tx"], SETTLE_SECONDS)
    found = service.get(f"/v1/products/{change.product}")
    spent = {"tx": done["tx"], "gas": done["gas_used"], "block": done["block"]}
    shown.tell("submitted", [], as_json, found, spent)


def _restrict(
    desk: Desk, service: Service, account: Account, change: Change, shown: Shown, as_json: bool
) -> None:
    """One watcher's own transaction, for as long as the governance is what it was."""
    from registry.ports import Call

    def call() -> Call:
        ledger, _found, record = _here(service, str(change.product))
        change.require_current(ledger, record)
        return Call("restrict", (change.product, record, change.next))

    receipt = own_act(desk, service, account, call)
    found = service.get(f"/v1/products/{change.product}")
    spent = {"tx": str(receipt.tx), "gas": receipt.gas_used, "block": receipt.block}
    spent["by"] = str(account.address)
    shown.tell("restricted", [f"by {account.name} alone"], as_json, found, spent)


def _next_step(name: str, file: Path) -> str:
    return f"next: firmledger product propose {name} --change {file} --as NAME"


def _require_product(change: Change, product: str, file: Path) -> None:
    if str(change.product) != product:
        raise Misuse(
            "another-product",
            f"{file} not used",
            f"it changes {change.product_name} ({change.product})",
            "name that product",
        )


def _misused(why: str, fix: str) -> Misuse:
    return Misuse("usage", "change not proposed", why, fix)
