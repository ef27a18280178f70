"""``firmledger bundle``: releases on a stick, and what proves them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocol.errors import Misuse
from registry.commands.desk import Json, answer, desk_of, progress

if TYPE_CHECKING:
    from protocol.trustfile import TrustFile

app = typer.Typer(no_args_is_help=True, help="Bundles: export to a stick, verify, refresh.")

Stick = Annotated[Path, typer.Argument(metavar="FILE", help="A stick file (.flb).")]
Trust = Annotated[
    Path | None, typer.Option(help="The trust file of the devices it is for: nobody else's links.")
]


@app.command()
def export(
    context: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="Its name or id.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Like 1.4.0.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Write a release, its proof and its payload into one file.

    With --trust it is for devices that start from that file, and of their product.
    """
    from protocol.bundle import MAX_BUNDLE_BYTES, Bundle
    from protocol.ids import Version
    from registry import sticks
    from registry.provisioning import read_trust

    trusted = read_trust(trust) if trust else None
    with desk_of(context).service() as service:
        found = service.get(f"/v1/products/{product}/releases/{Version.parse(version)}")
        if found["payload"] is None:
            raise Misuse(
                "no-artifacts",
                f"{product} {version} not exported",
                "this registry does not hold its payload",
                "ask the registry it was published through",
            )
        where = f"/v1/products/{found['product']}/releases/{found['release_id']}/bundle"
        bundle = service.get_bytes(where + _from(trusted), MAX_BUNDLE_BYTES)
        if trusted:
            sticks.require_product(Bundle.decode(bundle), trusted)
        total = found["payload_size"]
        with progress(f"writing {output.name}", total) as bar:
            payload = service.download(f"/v1/blobs/{found['payload'][2:]}", total, bar)
            size = sticks.write(output, bundle, payload)
    document = {
        "file": str(output),
        "bytes": size,
        "bundle_bytes": len(bundle),
        "product": found["product"],
        "version": found["version"],
        "release_id": found["release_id"],
    }
    answer(document, [f"{output}: {product} {version}, {size} bytes"], as_json)


@app.command()
def verify(
    stick: Stick,
    trust: Annotated[Path, typer.Option(help="The trust file to check it against.")],
    as_json: Json = False,
) -> None:
    """Check a stick file step by step, offline, as a device would; exit 1 if a step fails."""
    from registry import sticks
    from registry.clock import SystemClock
    from registry.provisioning import read_trust

    trusted, now = read_trust(trust), SystemClock().now()
    total = stick.stat().st_size if stick.is_file() else 0
    with progress(f"checking {stick.name}", total) as bar:
        verdict = sticks.verify(stick, trusted, now, bar)
    document = sticks.describe(verdict, trusted, now)
    marks = {True: "ok     ", False: "REFUSED"}
    lines = [f"{step['step']:>7}  {marks[step['ok']]}  {step['name']}" for step in verdict.steps()]
    if "release" in document:
        release, proof = document["release"], document["proof"]
        lines.append(
            f"{release['product']} {release['version']} is {release['status']} at block "
            f"{proof['height']}; the proof is {proof['age']} s old"
            + ("" if proof["fresh"] else ", older than max-age: refresh it")
        )
    answer(document, lines, as_json)
    if verdict.error is not None:
        if not as_json:
            raise verdict.error
        raise typer.Exit(1)


@app.command()
def refresh(
    context: typer.Context, stick: Stick, trust: Trust = None, as_json: Json = False
) -> None:
    """Give a stick file a newer proof; its payload stays."""
    from protocol.bundle import MAX_BUNDLE_BYTES, Bundle
    from protocol.ids import ProductId
    from registry import sticks
    from registry.provisioning import read_trust

    trusted = read_trust(trust) if trust else None
    old, file = sticks.open_stick(stick)
    file.close()
    if trusted:
        sticks.require_product(old, trusted)
    product, release_id = sticks.release_of(old)
    with desk_of(context).service() as service:
        where = f"/v1/products/{ProductId(product)}/releases/{release_id}/bundle"
        bundle = service.get_bytes(where + _from(trusted), MAX_BUNDLE_BYTES)
    size = sticks.refresh(stick, bundle)
    from protocol.header import parse_header

    height = parse_header(Bundle.decode(bundle).fresh.proof.header).number
    document = {"file": str(stick), "bytes": size, "height": height, "release_id": release_id}
    answer(document, [f"{stick}: its proof is of block {height} now"], as_json)


def _from(trusted: TrustFile | None) -> str:
    """From which height on a bundle shall follow the validators."""
    return f"?height={trusted.min_height}" if trusted else ""
