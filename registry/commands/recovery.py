"""``firmledger product trust`` and ``reanchor``: what devices start from, and are put back to.

The trust file names the recovery keys; a statement that enough of them signed is the one thing that
moves a device's trust without a proof (docs/spec/reanchor.md). So a new one says what a bundle just
proved of the ledger, and without ``--as`` it is only shown, to be compared before it is signed.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.errors import Misuse
from registry.clock import moment
from registry.commands.desk import Desk, Json, answer, desk_of, say
from registry.commands.governance import Name

if TYPE_CHECKING:
    from protocol.reanchor import Reanchor
    from registry.keys import Keyring, ProductKeys
    from registry.recovery import RecoverySet

# How a device would ask that has everything: the answer proves where the ledger is.
NOBODY = f"device={'0' * 64}&version={2**64 - 1}&counter={2**32 - 1}&hardware=0"
USUAL = (2, 3)


def trust(
    context: typer.Context,
    name: Name,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.")],
    recovery: Annotated[
        str | None,
        typer.Option(metavar="K-of-N", help="Recovery keys to draw at first (2-of-3), or 'none'."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what devices are provisioned with: a public trust file, and its class keys (0600).

    The first time it draws the product's recovery keys, under publisher/recovery.
    """
    from protocol.bundle import MAX_BUNDLE_BYTES
    from protocol.records import ACTIVE_KEY, Product
    from registry.provisioning import class_key_file, shown_view, trust_file, write_trust

    desk = desk_of(context)
    held = desk.keyring.product(name)
    with desk.service() as service:
        status, found = service.get("/v1/status"), service.get(f"/v1/products/{held.product}")
        shown = service.get_bytes(f"/v1/products/{held.product}/bundle?{NOBODY}", MAX_BUNDLE_BYTES)
        url = service.url
    record = Product.from_json(found["record"])
    active = [key.key_id for key in record.governance.keys if key.valid_through == ACTIVE_KEY]
    document = trust_file(held, status, active, url)
    document = replace(document, min_height=shown_view(shown, document).number)
    keys = _recovery_set(desk.keyring, held, recovery)
    if keys is not None:
        document = replace(document, recovery_threshold=keys.threshold, recovery_keys=keys.keys)
    secret = write_trust(output, document, class_key_file(held))
    if document.embedded:
        say("this trust file is for an embedded ledger: production devices refuse it")
    lines = [f"trust file  {output} (public)", f"class keys  {secret} (secret, 0600)"]
    if keys is None:
        lines.append("recovery    none: such a device cannot be re-anchored")
    else:
        folder = desk.keyring.folder / "recovery"
        lines.append(f"recovery    {keys.threshold} of {len(keys.keys)} keys, under {folder}")
        lines.append("            take each to another place, off this machine")
    files = {
        "trust": str(output),
        "class_keys": str(secret),
        "min_height": document.min_height,
        "recovery": {
            "threshold": document.recovery_threshold,
            "keys": list(document.recovery_keys),
        },
    }
    answer(files, lines, as_json)


def reanchor(
    context: typer.Context,
    name: Name,
    keys: Annotated[
        list[str] | None, typer.Option("--as", metavar="KEY", help="A key's number, or its file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write a new statement.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--statement", metavar="FILE", help="Sign this one, offline.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say with recovery keys which ledger devices shall believe; each frozen one is given FILE.

    A new statement is of the ledger as this registry proves it. Holders of other keys then sign
    the file where they are, with --statement.
    """
    from registry import recovery

    if (output is None) == (file is None):
        raise Misuse(
            "usage",
            "no statement signed",
            "either a new one is written, or one that is there is signed",
            "give -o FILE or --statement FILE",
        )
    desk = desk_of(context)
    folder = desk.keyring.folder
    used = [recovery.find_key(folder, name, key) for key in keys or ()]
    path = output or file
    assert path is not None  # noqa: S101 - one of them is given
    statement = recovery.open_statement(path) if file else _new_statement(desk, name)
    held = desk.keyring.product(name) if desk.keyring.has_product(name) else None
    among = recovery.known(folder, held) if held else None
    for key in used:
        statement = recovery.signed(statement, key, among)
    if used or file is None:
        recovery.save(statement, path)
    known = [key.threshold for key in used] if among is None else [among.threshold]
    _tell(name, path, statement, known[0] if known else None, as_json)


def _recovery_set(keyring: Keyring, held: ProductKeys, wanted: str | None) -> RecoverySet | None:
    """The product's recovery keys, drawn now if there are none; None if none are wanted."""
    from registry import recovery

    if wanted == "none":
        return None
    numbers = USUAL
    if wanted is not None:
        match = re.fullmatch(r"(\d{1,2})-of-(\d{1,2})", wanted, re.ASCII)
        if match is None:
            raise Misuse(
                "bad-recovery",
                f"--recovery {wanted[:40]!r} refused",
                "it is not K-of-N",
                "write it like 2-of-3, or none",
            )
        numbers = int(match[1]), int(match[2])
    found = recovery.known(keyring.folder, held)
    if found is None:
        return recovery.draw(keyring.folder, held, *numbers, secrets.token_bytes)
    if wanted is not None and numbers != (found.threshold, len(found.keys)):
        raise Misuse(
            "recovery-keys-exist",
            f"no trust file of {held.name} written",
            f"its recovery keys were drawn already, {found.threshold} of {len(found.keys)}, and"
            " devices may hold by them",
            "leave --recovery out",
        )
    return found


def _new_statement(desk: Desk, name: str) -> Reanchor:
    from protocol.bundle import MAX_BUNDLE_BYTES
    from registry import recovery
    from registry.clock import SystemClock
    from registry.provisioning import shown_view, trust_file

    held = desk.keyring.product(name)
    with desk.service() as service:
        status = service.get("/v1/status")
        shown = service.get_bytes(f"/v1/products/{held.product}/bundle?{NOBODY}", MAX_BUNDLE_BYTES)
        view = shown_view(shown, trust_file(held, status, (), service.url))
    # The time of signing counts up by itself, on whichever machine and from whichever backup.
    return recovery.statement_of(held, status, view, SystemClock().now())


def _tell(name: str, path: Path, signed: Reanchor, threshold: int | None, as_json: bool) -> None:
    said, count = signed.statement, len(signed.signatures)
    document = {
        "file": str(path),
        "product": str(said.product_id),
        "sequence": said.sequence,
        "chain_id": said.ledger.chain_id,
        "contract": str(said.ledger.contract),
        "code_hash": str(said.code_hash),
        "validators": [str(one) for one in said.validators],
        "height": said.height,
        "time": said.time,
        "signatures": count,
        "threshold": threshold,
    }
    lines = [
        f"statement  {path}, number {said.sequence}",
        f"ledger     chain {said.ledger.chain_id}, contract {said.ledger.contract}",
        f"code       {said.code_hash}",
        *[f"validator  {one}" for one in said.validators],
        f"from       block {said.height}, {moment(said.time)}",
        f"signed by  {count} recovery keys" + (f", {threshold} must" if threshold else ""),
    ]
    if threshold is None or count < threshold:
        lines.append(f"next: firmledger product reanchor {name} --statement {path} --as KEY")
    answer(document, lines, as_json)
