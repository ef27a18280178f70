"""What requests pass: the bounds on their body, the registry meant, the operator's token."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocol.errors import Malformed
from protocol.ids import ProductId
from registry.assembly import Registry
from registry.depth import Nesting
from registry.web.errors import problem, unauthorized

MAX_BODY = 1 << 20
_BINARY = ("/v1/receipts",)


class BodyLimit:
    """Refuses bodies beyond a limit: by their announced length, or as soon as they pass it.

    So it does with JSON that is nested too deep, before anything parses it and whoever sent it:
    every body counts as JSON but on the paths in `_BINARY`.

    Uploads of blobs are bounded by the store instead, which knows its own limit.
    """

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY, unlimited: str = "/v1/blobs/") -> None:
        self._app, self._limit, self._unlimited = app, limit, unlimited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"].startswith(self._unlimited):
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._limit:
            await problem(self._oversized())(scope, receive, send)
            return
        nesting = None if scope["path"] in _BINARY else Nesting()
        received, answered = 0, False
        refusal: Malformed | None = None

        async def bounded() -> Message:
            nonlocal received, refusal
            message = await receive()
            piece = message.get("body", b"")
            received += len(piece)
            try:
                if received > self._limit:
                    raise self._oversized()
                if nesting is not None:
                    nesting.take(piece)
            except Malformed as found:
                refusal = found
                raise
            return message

        async def truthful(message: Message) -> None:
            """What reads the body takes our refusal for a body it cannot read: say what it was."""
            nonlocal answered
            if refusal is None:
                await send(message)
            elif not answered:
                answered = True
                await problem(refusal)(scope, receive, send)

        await self._app(scope, bounded, truthful)

    def _oversized(self) -> Malformed:
        return Malformed(
            "oversized",
            "request refused",
            f"its body is larger than {self._limit} bytes",
            "send less at once",
        )


async def registry_of(request: Request) -> Registry:
    """The registry that this application serves; async, for it needs no thread."""
    registry: Registry = request.app.state.registry
    return registry


Here = Annotated[Registry, Depends(registry_of)]


def operator_of(request: Request, registry: Here) -> str:
    """The operator whose token the request brings; `Refused` ``unauthorized`` otherwise."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    name = registry.operators.name(token.strip()) if scheme.lower() == "bearer" else None
    if name is None:
        raise unauthorized()
    return name


def product_of(product: str, registry: Here) -> ProductId:
    """The product in the path, by id or name; `Misuse` ``unknown-product``."""
    return registry.names.resolve(product)


Operator = Depends(operator_of)
ThisProduct = Annotated[ProductId, Depends(product_of)]


async def small_body(request: Request, most: int) -> bytes:
    """A body of at most ``most`` bytes; `Malformed` ``oversized`` as soon as it is longer."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Malformed(
                "oversized", "request refused", f"its body passes {most} bytes", "send less"
            )
    return bytes(body)
