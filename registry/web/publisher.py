"""The operator's side of the API: products, devices, blobs, releases, decisions.

Rules: everything here needs an operator's token. What is queued is answered with 202 and its place
in the outbox; what the ledger says to it is asked there. No key and no plaintext passes through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anyio import from_thread
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from protocol.bundle import Static
from protocol.errors import Unreachable
from protocol.ids import Digest, Hash
from protocol.records import Governance, Terms
from registry.approvals import Approvals
from registry.intents import Amend, Decide
from registry.queue import Row, Status
from registry.web import models, views
from registry.web.requests import Here, Operator, ThisProduct

routes = APIRouter(prefix="/v1", tags=["operator"], dependencies=[Operator])

MAX_WAIT = 30


@routes.post("/products", status_code=202, response_model=models.QueuedView)
def create_product(registry: Here, asked: models.NewProduct) -> dict[str, Any]:
    """Queues a product's creation by the registry's own account; the same again is no error."""
    governance = Governance.from_json(asked.governance.model_dump())
    queued = registry.create_product(asked.name, Hash.parse(asked.salt), governance)
    return {"product": str(queued.product), "tx": queued.row}


@routes.post("/products/{product}/fleet", status_code=202, response_model=models.QueuedView)
def enrol(registry: Here, product: ThisProduct, asked: models.Enrolment) -> dict[str, Any]:
    """Adds devices to the fleet whose receipts count; those enrolled already change nothing."""
    keys = [bytes.fromhex(device.public_key[2:]) for device in asked.devices]
    _fleet, queued = registry.enrol(product, keys)
    return {"product": str(queued.product), "tx": queued.row}


@routes.put("/blobs/{digest}", response_model=models.BlobView)
async def upload(registry: Here, digest: str, request: Request) -> dict[str, Any]:
    """Stores a blob under the SHA-256 of its content; refused if that is not its digest."""
    expected = Digest.parse(digest)
    incoming = request.stream()

    async def next_chunk() -> bytes | None:
        return await anext(incoming, None)

    def chunks() -> Iterator[bytes]:
        while (chunk := from_thread.run(next_chunk)) is not None:
            yield chunk

    most = registry.settings.max_blob
    found, size = await run_in_threadpool(
        registry.blobs.put, chunks(), max_size=most, expect=expected
    )
    return {"digest": str(found), "size": size}


@routes.post("/releases", status_code=202, response_model=models.QueuedView)
def publish(registry: Here, asked: models.NewRelease) -> dict[str, Any]:
    """Takes a release in and queues its publication; its payload is uploaded before."""
    static = Static(
        bytes.fromhex(asked.envelope[2:]),
        bytes.fromhex(asked.signer[2:]),
        Terms.from_json(asked.terms.model_dump()),
    )
    approvals = Approvals.from_json(asked.approvals.model_dump())
    row = registry.submission.take(static, asked.epoch, approvals)
    return {"product": "0x" + static.terms.product_id.hex(), "tx": row}


@routes.post("/products/{product}/decisions", status_code=202, response_model=models.QueuedView)
def decide(registry: Here, product: ThisProduct, asked: models.NewDecision) -> dict[str, Any]:
    """Queues what M of N decided: to resume, supersede or revoke a release, or to unpause."""
    approvals = Approvals.from_json(asked.approvals.model_dump())
    row = registry.decide(Decide(asked.action, product, asked.release_id, approvals))
    return {"product": str(product), "tx": row}


@routes.post("/products/{product}/amendments", status_code=202, response_model=models.QueuedView)
def amend(registry: Here, product: ThisProduct, asked: models.NewAmendment) -> dict[str, Any]:
    """Queues a change of governance; one that loosens takes effect after the governance delay."""
    coming = Governance.from_json(asked.next.model_dump())
    approvals = Approvals.from_json(asked.approvals.model_dump())
    row = registry.amend(Amend(product, coming, approvals))
    return {"product": str(product), "tx": row}


@routes.get("/tx/{row}", response_model=models.TxView)
async def transaction(registry: Here, row: int, wait: int = 0) -> dict[str, Any]:
    """What became of an act in the outbox; with ``wait``, once it is final or after that long."""

    def find() -> Row:
        found = registry.outbox.row(row)
        if found.status in (Status.MINED, Status.FAILED) or wait <= 0:
            return found
        try:
            return registry.outbox.wait(row, min(wait, MAX_WAIT))
        except Unreachable:
            return registry.outbox.row(row)

    return views.tx_view(await run_in_threadpool(find))
