"""``firmledger release``: from firmware to publication, and what may become of it after."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocol.errors import FirmledgerError, Misuse, Refused
from protocol.ids import Version
from registry.commands import acts
from registry.commands.acts import As, Product_, Version_, release_shown
from registry.commands.desk import SETTLE_SECONDS, Desk, Json, answer, desk_of, progress, say
from registry.commands.values import parse_hardware, parse_time, parse_version
from registry.rollout import describe

if TYPE_CHECKING:
    from protocol.records import Terms
    from registry.client import Service
    from registry.intake import Draft

app = typer.Typer(no_args_is_help=True, help="Releases: build, approve, publish, halt, revoke.")

Envelope = Annotated[Path, typer.Argument(metavar="FILE.suit", help="What `build` wrote.")]


@app.command()
def build(
    context: typer.Context,
    firmware: Annotated[Path, typer.Argument(metavar="FIRMWARE", help="The plaintext image.")],
    product: Annotated[str, typer.Option(help="The product's name.")],
    version: Annotated[str, typer.Option(help="major.minor.patch, above the newest.")],
    security_counter: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Never falls.")],
    rollout: Annotated[str, typer.Option(help="Phases, like 1%@0h,10%@24h,100%@72h.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Prefix of the files written.")],
    hardware: Annotated[str, typer.Option(help="Revisions, if not all of the product's.")] = "",
    min_version: Annotated[str, typer.Option(help="Lowest version to install it from.")] = "",
    not_before: Annotated[str, typer.Option(help="Time with zone, or Unix seconds.")] = "",
    expiry: Annotated[str, typer.Option(help="Time with zone, or Unix seconds.")] = "",
    critical: Annotated[
        bool, typer.Option("--critical", help="Ask owners to let it override inhibitors.")
    ] = False,
    require_attestation: Annotated[
        list[int] | None, typer.Option(min=0, max=7, help="Kinds of attestation it needs.")
    ] = None,
    signing_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Its id or number, if not the newest active.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Encrypt and sign a firmware image: FILE.suit, FILE.bin and FILE.json."""
    from protocol.records import Governance
    from registry import intake, signing_keys
    from registry import rollout as syntax

    desk = desk_of(context)
    keys, known = desk.keyring.product(product), _known(desk, product)
    signer = signing_keys.chosen(
        desk.keyring.folder,
        keys,
        signing_key,
        Governance.from_json(known["record"]["governance"]) if known else None,
    )
    keys = replace(keys, signing_secret=signer.secret)
    fleet = int(known["enrolled"]) if known and "," in rollout else None
    plan = syntax.parse(rollout, fleet)
    for warning in plan.warnings:
        say(f"warning: {warning}")
    conditions = intake.Conditions(
        version=parse_version(version),
        security_counter=security_counter,
        rollout=plan.phases,
        hardware=parse_hardware(hardware) if hardware else keys.hardware,
        min_version=int(parse_version(min_version)) if min_version else 0,
        not_before=parse_time(not_before),
        expiry=parse_time(expiry),
        required_attestations=sum({1 << kind for kind in require_attestation or []}),
        critical=critical,
    )
    if not firmware.exists():
        raise Misuse("no-such-file", f"{firmware} not built", "it is not there", "check its name")
    size = firmware.stat().st_size if firmware.is_file() else 0
    with progress(f"encrypting {firmware.name}", size) as bar:
        draft = intake.build(
            firmware, output, keys, conditions, entropy=secrets.token_bytes, progress=bar
        )
    document = _draft(draft) | {"warnings": list(plan.warnings)}
    lines = [*_terms(draft.terms), f"written: {draft.path} (envelope), {draft.payload_path}"]
    answer(document, lines, as_json)


@app.command()
def approve(
    context: typer.Context,
    envelope: Envelope,
    name: As,
    epoch: Annotated[
        int | None, typer.Option(min=1, help="Approvers' epoch, to sign without a server.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add one approver's signature, after checking that the files belong together."""
    from registry.clock import SystemClock

    desk = desk_of(context)
    draft = _opened(envelope)
    account = desk.keyring.account(name)
    if epoch is None:
        with desk.service() as service:
            found = service.get(f"/v1/products/0x{draft.terms.product_id.hex()}")
        epoch = int(found["record"]["governance"]["epoch"])
    approved = draft.approved_by(account, epoch, SystemClock().now())
    approved.save()
    lines = [*_terms(draft.terms), f"approved by {name} ({account.address})"]
    answer(_draft(approved), lines, as_json)


@app.command()
def publish(context: typer.Context, envelope: Envelope, as_json: Json = False) -> None:
    """Upload and publish a release; waits until the ledger has it for good."""
    desk = desk_of(context)
    draft = _opened(envelope)
    if draft.agreed is None:
        raise Refused(
            "not-approved",
            f"{envelope} not published",
            "nobody has approved it yet",
            f"let the approvers run `firmledger release approve {envelope} --as NAME`",
        )
    with desk.service(operator=True) as service:
        _check_ledger(draft, service)
        size = draft.payload_path.stat().st_size
        with progress(f"uploading {draft.payload_path.name}", size) as bar:
            service.upload(f"/v1/blobs/{draft.payload_digest.hex()}", draft.payload_path, bar)
        body = {
            "envelope": "0x" + draft.envelope.hex(),
            "signer": "0x" + draft.signer.hex(),
            "terms": draft.terms.to_json(),
            "epoch": draft.agreed.epoch,
            "approvals": draft.agreed.approvals.to_json(),
        }
        queued = service.post("/v1/releases", body)
        done = service.settled(queued["tx"], SETTLE_SECONDS)
        version = Version(draft.terms.version)
        found = service.get(f"/v1/products/{queued['product']}/releases/{version}")
    document = {**found, "tx": done["tx"], "gas": done["gas_used"], "block": done["block"]}
    lines = [
        f"{draft.product_name} {version} published as release {found['release_id']}",
        f"tx {done['tx']}, {done['gas_used']} gas, block {done['block']}",
    ]
    answer(document, lines, as_json)


@app.command()
def show(
    context: typer.Context, product: Product_, version: Version_, as_json: Json = False
) -> None:
    """Show a release: its terms, its state, who approved it."""
    from protocol.records import Terms as Record

    with desk_of(context).service() as service:
        found = release_shown(service, product, version)
    lines = [
        f"release    {found['release_id']}, {found['status']}"
        + (", superseded" if found["superseded"] else ""),
        *_terms(Record.from_json(found["terms"])),
        f"open to    {found['open_bps'] / 100:g}% of the fleet",
        f"receipts   {found['receipts']}: {found['confirmed']} confirmed, {found['failed']} failed",
        f"approved   {', '.join(found['approvers'])}",
        f"published  block {found['published']['block']}, tx {found['published']['tx']}",
    ]
    answer(found, lines, as_json)


@app.command(name="list")
def list_releases(context: typer.Context, product: Product_, as_json: Json = False) -> None:
    """List a product's releases, oldest first."""
    with desk_of(context).service() as service:
        found = service.get(f"/v1/products/{product}/releases")
    lines = [
        f"{r['release_id']:4}  {r['version']:14} {r['status']:8} {r['open_bps'] / 100:5g}% open  "
        f"{r['confirmed']} confirmed, {r['failed']} failed"
        for r in found["releases"]
    ]
    answer(found, lines or ["no releases yet"], as_json)


for _act in (acts.halt, acts.resume, acts.revoke, acts.attest):
    app.command()(_act)


# -- drafts ---------------------------------------------------------------------------------------


def _opened(envelope: Path) -> Draft:
    from registry import intake

    size = envelope.with_suffix(".bin")
    total = size.stat().st_size if size.is_file() else 0
    with progress(f"checking {envelope.name}", total) as bar:
        return intake.open_draft(envelope, progress=bar)


def _check_ledger(draft: Draft, service: Service) -> None:
    status = service.get("/v1/status")
    there = (int(status["chain_id"]), status["contract"])
    if there != (draft.ledger.chain_id, str(draft.ledger.contract)):
        raise Misuse(
            "another-ledger",
            f"{draft.path} not published",
            f"it was built for contract {draft.ledger.contract} on chain {draft.ledger.chain_id}",
            "publish it through a registry of that ledger (-C)",
        )


def _known(desk: Desk, product: str) -> Any:
    """The product as the registry has it, if it can be asked right now."""
    from registry.client import Service, find

    try:
        with Service(find(desk.directory, 0, lambda _text: None)) as service:
            return service.get(f"/v1/products/{product}")
    except FirmledgerError:
        return None


def _draft(draft: Draft) -> dict[str, Any]:
    agreed = draft.agreed
    signers = agreed.signers(draft.ledger, draft.terms) if agreed else []
    return {
        "envelope": str(draft.path),
        "payload": str(draft.payload_path),
        "payload_digest": str(draft.payload_digest),
        "version": str(Version(draft.terms.version)),
        "terms": draft.terms.to_json(),
        "terms_hash": str(draft.terms.hash_struct()),
        "approved_by": [str(address) for address in signers],
    }


def _terms(terms: Terms) -> list[str]:
    hardware = f"{terms.hardware_min} to {terms.hardware_max}"
    lines = [
        f"version    {Version(terms.version)}, security counter {terms.security_counter}",
        f"image      sha256 {terms.image_digest.hex()}, {terms.image_size} bytes",
        f"manifest   sha256 {terms.manifest_digest.hex()}",
        f"hardware   {hardware}",
        f"rollout    {', '.join(describe(phase) for phase in terms.rollout)}",
    ]
    if terms.min_version:
        lines.append(f"from       {Version(terms.min_version)} on")
    if terms.not_before:
        lines.append(f"not before {terms.not_before}")
    if terms.expiry:
        lines.append(f"expires    {terms.expiry}")
    if terms.required_attestations:
        lines.append(f"needs      attestations {terms.required_attestations:#010b}")
    if terms.critical:
        lines.append("critical   yes")
    return lines
