"""``firmledger product``: who may release what, and which devices it is for."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocol.errors import Misuse
from registry.clock import moment
from registry.commands import governance, propose, recovery
from registry.commands.desk import SETTLE_SECONDS, Json, answer, desk_of
from registry.commands.shown import pending, roles
from registry.commands.values import parse_halt_rule, parse_hardware
from registry.rollout import parse_duration

if TYPE_CHECKING:
    from registry.keys import Keyring, ProductKeys

app = typer.Typer(no_args_is_help=True, help="Products: approvers, keys, devices.")
for _act in (
    *(recovery.trust, recovery.reanchor, propose.propose),
    *(governance.cancel, governance.pause, governance.unpause),
):
    app.command()(_act)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The product's name.")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    hardware: Annotated[str, typer.Option(help="Revisions it runs on, like 1-3.")],
    approvers: Annotated[str, typer.Option(help="Names or 0x-accounts, by comma.")],
    threshold: Annotated[int, typer.Option(min=1, max=16, help="How many must approve.")],
    guardians: Annotated[str, typer.Option(help="Who may halt; the approvers if nobody.")] = "",
    auditors: Annotated[str, typer.Option(help="Who may attest.")] = "",
    reporters: Annotated[str, typer.Option(help="Who anchors receipts beside us.")] = "",
    halt_after: Annotated[
        str, typer.Option(metavar="N:P%", help="Halt at N failures above P%; 'never' for none.")
    ] = "2:20%",
    release_delay: Annotated[str, typer.Option(help="From publication to start.")] = "0h",
    governance_delay: Annotated[str, typer.Option(help="How long loosening waits.")] = "24h",
    as_json: Json = False,
) -> None:
    """Create a product: draw the keys that are missing, and put it on the ledger.

    A name becomes a key file under publisher/approvers; an 0x-account keeps its key elsewhere.
    """
    from protocol.ids import Address
    from protocol.records import Governance as Rules
    from protocol.records import HaltRule, SigningKey

    desk = desk_of(context)
    keyring, revisions = desk.keyring, parse_hardware(hardware)
    rule = HaltRule(*parse_halt_rule(halt_after))
    delays = parse_duration(release_delay), parse_duration(governance_delay)
    with desk.service(operator=True) as service:
        status = service.get("/v1/status")
        sender = Address.parse(status["sender"])
        people = {
            role: _accounts(keyring, names, role)
            for role, names in (
                ("approvers", approvers),
                ("guardians", guardians),
                ("auditors", auditors),
                ("reporters", reporters),
            )
        }
        if threshold > len({*people["approvers"]}):
            raise Misuse(
                "bad-threshold",
                f"product {name} not created",
                f"{threshold} shall approve, and there are {len({*people['approvers']})} approvers",
                "lower --threshold, or name more --approvers",
            )
        people["reporters"] = tuple(sorted({*people["reporters"], sender}))
        keys = _keys(keyring, name, status, sender, revisions)
        rules = Rules(
            **people,
            threshold=threshold,
            epoch=1,
            enroller=sender,
            keys=(SigningKey(keys.signer.public.id),),
            halt_rule=rule,
            release_delay=delays[0],
            governance_delay=delays[1],
        )
        body = {"name": name, "salt": str(keys.salt), "governance": rules.to_json()}
        try:
            queued = service.post("/v1/products", body)
        except Misuse as error:
            if error.reason != "key-reused":
                raise
            raise Misuse(
                "product-exists",
                f"product {name} not created",
                "it exists already, with other rules",
                f"look at them with `firmledger product show {name}`",
            ) from error
        done = service.settled(queued["tx"], SETTLE_SECONDS)
    document = {
        "product": name,
        "id": str(keys.product),
        "tx": done["tx"],
        "gas": done["gas_used"],
        "governance": rules.to_json(),
    }
    lines = [f"product {name} created: {keys.product}", *roles(keyring, rules), _cost(done)]
    answer(document, lines, as_json)


@app.command()
def show(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show a product as the ledger has it."""
    from protocol.records import Product

    desk = desk_of(context)
    with desk.service() as service:
        found = service.get(f"/v1/products/{name}")
    record = Product.from_json(found["record"])
    head = record.head
    lines = [
        f"product    {found['name']} {found['id']}",
        *roles(desk.keyring, record.governance),
        f"newest     release {head.latest_release}, security counter {head.security_counter}",
        f"fleet      {found['fleet']['size'] if found['fleet'] else 0} devices on the ledger, "
        f"{found['enrolled']} enrolled here",
    ]
    if head.paused_at:
        lines.append(f"PAUSED     since {moment(head.paused_at)}")
    lines += pending(desk.keyring, found, record.governance)
    answer(found, lines, as_json)


@app.command(name="list")
def list_products(context: typer.Context, as_json: Json = False) -> None:
    """List the products of the ledger."""
    with desk_of(context).service() as service:
        found = service.get("/v1/products")
    lines = [f"{p['name'] or '(no name here)':24} {p['id']}" for p in found["products"]]
    answer(found, lines or ["no products yet"], as_json)


@app.command()
def keys(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show the public side of a product's keys, and where the private ones lie."""
    from protocol.cose import public_key_to_bytes
    from registry import signing_keys

    keyring = desk_of(context).keyring
    held = keyring.product(name)
    accounts = {n: str(keyring.account(n).address) for n in keyring.account_names()}
    signing = signing_keys.held(keyring.folder, held)
    document = {
        "product": name,
        "id": str(held.product),
        "signing_keys": [
            {
                "number": key.number,
                "id": str(key.id),
                "public": public_key_to_bytes(key.signer.public).hex(),
            }
            for key in signing
        ],
        "class_keys": [{"epoch": key.epoch, "kid": key.kid.hex()} for key in held.class_keys],
        "accounts": accounts,
        "folder": str(keyring.folder),
    }
    lines = [
        *[f"signing key  {key.number}: {key.id} (Ed25519)" for key in signing],
        *[f"class key    epoch {key.epoch}, kid {key.kid.hex()}" for key in held.class_keys],
        *[f"account      {address} {account}" for account, address in accounts.items()],
        f"private keys are under {keyring.folder}",
    ]
    answer(document, lines, as_json)


@app.command()
def enrol(
    context: typer.Context,
    name: Name,
    devices: Annotated[list[Path], typer.Argument(metavar="FILE...", help="device.json files.")],
    as_json: Json = False,
) -> None:
    """Enrol devices: from now on the ledger's fleet has them, and their receipts count."""
    from registry.provisioning import device_key

    with desk_of(context).service(operator=True) as service:
        product = service.get(f"/v1/products/{name}")["id"]
        public_keys = [device_key(path, product) for path in devices]
        body = {"devices": [{"public_key": "0x" + key.hex()} for key in public_keys]}
        queued = service.post(f"/v1/products/{name}/fleet", body)
        done = service.settled(queued["tx"], SETTLE_SECONDS)
        found = service.get(f"/v1/products/{name}")
    document = {
        "product": name,
        "enrolled": len(public_keys),
        "fleet": found["fleet"],
        "tx": done["tx"],
        "gas": done["gas_used"],
    }
    size = found["fleet"]["size"] if found["fleet"] else 0
    lines = [f"{len(public_keys)} enrolled; the fleet of {name} has {size} devices", _cost(done)]
    answer(document, lines, as_json)


def _keys(
    keyring: Keyring, name: str, status: Any, sender: Any, hardware: tuple[int, int]
) -> ProductKeys:
    """The product's keys: those of an attempt that was interrupted, or new ones."""
    from protocol.ids import Address
    from protocol.records import Ledger

    ledger = Ledger(int(status["chain_id"]), Address.parse(status["contract"]))
    if keyring.has_product(name):
        held = keyring.product(name)
        if held.ledger != ledger:
            raise Misuse(
                "another-ledger",
                f"product {name} not created",
                "its keys were drawn for another ledger",
                "choose another name",
            )
        if held.hardware != hardware:
            raise Misuse(
                "product-keys-exist",
                f"product {name} not created",
                f"its keys were drawn for hardware {held.hardware[0]}-{held.hardware[1]} already",
                "give the same --hardware, or choose another name",
            )
        return held
    return keyring.draw_product(
        name, creator=sender, ledger=ledger, hardware=hardware, entropy=secrets.token_bytes
    )


def _accounts(keyring: Keyring, text: str, role: str) -> tuple[bytes, ...]:
    """Names and 0x-accounts, by comma, as accounts in ascending order; new names get keys."""
    from protocol.ids import Address

    found: set[bytes] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        known = part.startswith("0x")
        account = (
            Address.parse(part)
            if known
            else keyring.ensure_account(part, secrets.token_bytes).address
        )
        if account in found:
            raise Misuse(
                "named-twice", f"{role} refused", f"{part} is among them twice", "name each once"
            )
        found.add(account)
    return tuple(sorted(found))


def _cost(done: Any) -> str:
    return f"tx {done['tx']}, {done['gas_used']} gas, block {done['block']}"
