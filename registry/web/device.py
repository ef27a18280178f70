"""The device's side of the API: bundles, payloads, receipts.

Rules: what goes out proves itself, what comes in is signed, so nobody logs in here. An answer is
bytes that any mirror could have given.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from protocol.bundle import MEDIA_TYPE
from protocol.errors import Malformed
from protocol.ids import DeviceId, Digest
from protocol.receipt import MAX_RECEIPT_BYTES
from protocol.records import Device
from registry.bundles import Answer
from registry.web import models
from registry.web.errors import problem
from registry.web.requests import Here, ThisProduct, small_body
from registry.web.waiting import Changes

routes = APIRouter(prefix="/v1", tags=["device"])

_BUNDLE: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA_TYPE: {}}, "description": "A bundle (docs/spec/bundle.md)"},
    304: {"description": "Nothing else than what If-None-Match names"},
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The blob"},
    206: {"content": {"application/octet-stream": {}}, "description": "The range asked for"},
}
_RECEIPT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/cbor": {}}, "description": "The proof that it is anchored"},
    202: {"model": models.TakenView, "description": "Taken, and not anchored yet"},
}


class _Blob(FileResponse):
    """A file in pieces of 1 MiB: a sixteenth of the default's work per byte."""

    chunk_size = 1 << 20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The file, or the range asked for; what is wrong with a range is told as a problem."""
        refused = False

        async def told(message: Message) -> None:
            nonlocal refused
            status = message.get("status", 200)
            if status >= 400:
                refused = True
                answer = problem(_bad_range(beyond=status == 416))
                known = [item for item in message["headers"] if item[0] == b"content-range"]
                answer.raw_headers.extend(known)
                await answer(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, told)


@routes.get("/products/{product}/bundle", response_class=Response, responses=_BUNDLE)
async def poll(
    request: Request,
    registry: Here,
    product: ThisProduct,
    asked: Annotated[models.Poll, Query()],
    if_none_match: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """What the ledger has for a device, with its proof; "nothing for you" has one, too.

    With ``wait``, the answer comes when there is something to install or, given If-None-Match,
    something else than that; at the latest after ``wait`` seconds, or when the server ends.
    """
    device = Device(DeviceId.parse(asked.device), asked.version, asked.counter, asked.hardware)
    changes: Changes = request.app.state.changes
    until = time.monotonic() + asked.wait
    while True:
        change = changes.next()
        answer = await run_in_threadpool(registry.bundles.answer, product, device, asked.height)
        left = until - time.monotonic()
        if _is_worth_it(answer, if_none_match) or left <= 0 or changes.closing:
            return _bundle(answer, if_none_match)
        await changes.wait(change, left)


@routes.get(
    "/products/{product}/releases/{release_id}/bundle", response_class=Response, responses=_BUNDLE
)
def bundle_of_release(
    registry: Here,
    product: ThisProduct,
    release_id: int,
    height: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
    if_none_match: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """The bundle of one release, for sticks and mirrors; devices decide whether to install it.

    It follows the validators from ``height``, the least of the devices it is for.
    """
    return _bundle(registry.bundles.of_release(product, release_id, height), if_none_match)


@routes.head("/blobs/{digest}", response_class=Response, include_in_schema=False)
@routes.get("/blobs/{digest}", response_class=Response, responses=_BYTES)
def blob(registry: Here, digest: str) -> Response:
    """A blob by the SHA-256 of its content; Range is understood."""
    known = Digest.parse(digest)
    return _Blob(
        registry.blobs.path(known),
        media_type="application/octet-stream",
        headers={
            "ETag": f'"{known.hex()}"',
            "Cache-Control": "public, max-age=31536000, immutable",
        },
    )


@routes.post("/receipts", status_code=202, response_model=models.TakenView)
async def report(request: Request, registry: Here) -> dict[str, Any]:
    """Takes one signed receipt (COSE_Sign1, docs/spec/receipt.md); the same again is no error."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/cose":
        raise Malformed(
            "media-type",
            "receipt refused",
            f"its media type is {kind[:80] or 'missing'}",
            "send it as application/cose",
        )
    data = await small_body(request, MAX_RECEIPT_BYTES)
    taken = await run_in_threadpool(registry.receipts.accept, data, registry.clock.now())
    return {"leaf": str(taken.leaf), "enrolled": taken.enrolled, "anchored": False}


@routes.get("/receipts/{leaf}", response_class=Response, responses=_RECEIPT)
def acknowledgement(registry: Here, leaf: str) -> Response:
    """The proof that a receipt stands in its release's log, once the ledger has the log's root."""
    known = Digest.parse(leaf)
    proof = registry.anchoring.acknowledge(known)
    if proof is not None:
        return Response(proof.encode(), media_type="application/cbor")
    enrolled = registry.receipts.is_logged(known)
    view = models.TakenView(leaf=str(known), enrolled=enrolled, anchored=False)
    return Response(view.model_dump_json(), 202, media_type="application/json")


def _bad_range(*, beyond: bool) -> Malformed:
    why = "the range lies beyond the blob's end" if beyond else "the Range header is not understood"
    reason = "range-beyond" if beyond else "bad-range"
    return Malformed(reason, "request refused", why, "ask for bytes=FIRST-LAST within the blob")


def _is_worth_it(answer: Answer, known: str | None) -> bool:
    return answer.offers if known is None else not _matches(answer, known)


def _matches(answer: Answer, known: str | None) -> bool:
    return known is not None and answer.etag in [tag.strip() for tag in known.split(",")]


def _bundle(answer: Answer, known: str | None) -> Response:
    headers = {"ETag": answer.etag, "Cache-Control": "no-cache"}
    if _matches(answer, known):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type=MEDIA_TYPE, headers=headers)
