"""The story as one JSON document (design section 7), read off ledger, registry and devices.

Guarantees: every value was found where it says, after the last chapter; nothing is remembered from
what was meant to happen.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from demo.publisher import PRODUCT
from demo.story import Story
from protocol.bundle import MAX_BUNDLE_BYTES, Anchor, Bundle, prove
from protocol.header import parse_header
from protocol.ids import Address, Hash
from protocol.ledger import Status
from registry.audit import Report
from registry.catalogue import MAX_PAGE, ReleaseEntry

ROUNDS = 21


def document(story: Story, audited: Report) -> dict[str, Any]:
    """All of it; ``audited`` is what the last chapter found."""
    registry, publisher = story.stage.registry, story.stage.publisher
    registry.follow()
    releases = registry.catalogue.releases(publisher.product)
    return {
        "product": str(publisher.product),
        "product_name": PRODUCT,
        "contract": str(registry.chain.ledger.contract),
        "chain_id": registry.chain.ledger.chain_id,
        "releases": [_release(story, entry) for entry in releases],
        "devices": [
            {
                "id": unit.id.hex(),
                "version": unit.version,
                "slot": unit.slot,
                "state": unit.state,
                "outcome": unit.outcome,
                "history": unit.history,
                "canary_of": [v for v, units in story.canaries.items() if unit in units],
            }
            for unit in story.units
        ],
        "refusals": [
            {"device": refusal.who, "reason": refusal.reason, "what": refusal.what}
            for refusal in story.refusals
        ],
        "proof": _proof(story),
        "receipts": _receipts(story, releases),
        "audit": audited.as_dict(),
    }


def summary(told: dict[str, Any]) -> list[str]:
    """The document in a few lines, for people."""
    releases = [f"{release['version']} {release['status']}" for release in told["releases"]]
    proof, receipts, reasons = told["proof"], told["receipts"], told["refusals"]
    return [
        f"product {told['product']} on contract {told['contract']}",
        f"releases: {', '.join(releases)}",
        f"a proof has {proof['bytes']:,} bytes, {proof['seals']} seals of {proof['validators']} "
        f"validators, and takes a device {proof['verify_ms']} ms",
        f"{receipts['count']} receipts in {receipts['batches']} batches of "
        f"{receipts['gas_per_batch']:,} gas",
        f"{len(reasons)} refusals: {', '.join(sorted({r['reason'] for r in reasons}))}",
    ]


def _release(story: Story, entry: ReleaseEntry) -> dict[str, Any]:
    chain = story.stage.registry.chain
    mined = chain.receipt(entry.published.tx)
    halted = _events(story, "ReleaseHalted", entry.release_id)
    by = {str(chain.ledger.contract): "ledger"}
    return {
        "version": str(entry.version),
        "status": Status(entry.word.status).name.lower(),
        "halted_by": [by.get(event.args["by"], event.args["by"]) for event in halted],
        "image_digest": "0x" + entry.terms.image_digest.hex(),
        "manifest_digest": "0x" + entry.terms.manifest_digest.hex(),
        "tx": str(entry.published.tx),
        "gas": mined.gas_used if mined else None,
        "confirmed": entry.word.confirmed,
        "failed": entry.word.failed,
    }


def _proof(story: Story) -> dict[str, Any]:
    """The proof that the registry gives out now, verified as a device would, `ROUNDS` times."""
    stage = story.stage
    product, chain = stage.publisher.product, stage.registry.chain
    newest = stage.registry.catalogue.product(product).record.head.latest_release
    path = f"/v1/products/{product}/releases/{newest}/bundle"
    fresh = Bundle.decode(stage.service.get_bytes(path, MAX_BUNDLE_BYTES)).fresh
    validators = tuple(
        Address.parse(address) for address in stage.service.get("/v1/status")["validators"]
    )
    code_hash = stage.registry.settings.code_hash or Hash(bytes(32))
    anchor = Anchor(chain.ledger, product, code_hash, validators)
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        prove(fresh, anchor)
        times.append(time.perf_counter() - start)
    return {
        "bytes": fresh.proof.size,
        "verify_ms": round(statistics.median(times) * 1000, 2),
        "seals": len(parse_header(fresh.proof.header).extra.seals),
        "validators": len(validators),
    }


def _receipts(story: Story, releases: list[ReleaseEntry]) -> dict[str, Any]:
    chain = story.stage.registry.chain
    anchored = _events(story, "ReceiptsAnchored", None)
    mined = [chain.receipt(event.place.tx) for event in anchored]
    gas = [receipt.gas_used for receipt in mined if receipt is not None]
    return {
        "count": sum(entry.word.log_size for entry in releases),
        "batches": len(anchored),
        "gas_per_batch": round(statistics.mean(gas)) if gas else None,
    }


def _events(story: Story, name: str, release_id: int | None) -> list[Any]:
    product, catalogue = story.stage.publisher.product, story.stage.registry.catalogue
    return catalogue.events(product, release_id=release_id, names=(name,), limit=MAX_PAGE)
