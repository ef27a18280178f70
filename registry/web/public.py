"""What anyone may ask: the catalogue, how the registry is, and the ledger if it is embedded."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from protocol.errors import Malformed, Unreachable
from protocol.ids import Version
from registry.assembly import Registry
from registry.catalogue import ReleaseEntry
from registry.depth import shallow
from registry.web import models, views
from registry.web.requests import MAX_BODY, Here, ThisProduct, small_body
from registry.web.waiting import Turns

routes = APIRouter(prefix="/v1", tags=["public"])
health = APIRouter(tags=["health"])
ledger = APIRouter(tags=["ledger"])


@routes.get("/status", response_model=models.StatusView)
def status(registry: Here) -> dict[str, Any]:
    """Which ledger, how far it was followed, and what waits."""
    return views.status_view(registry)


@routes.get("/products", response_model=models.ProductList)
def products(registry: Here) -> dict[str, Any]:
    """All products of the ledger that this registry follows."""
    found = registry.catalogue.products(now=registry.now())
    return {"products": [views.product_view(registry, entry) for entry in found]}


@routes.get("/products/{product}", response_model=models.ProductView)
def product(registry: Here, product: ThisProduct) -> dict[str, Any]:
    """One product, by id or name."""
    return views.product_view(registry, registry.product(product))


@routes.get("/products/{product}/releases", response_model=models.ReleaseList)
def releases(registry: Here, product: ThisProduct) -> dict[str, Any]:
    """A product's releases, oldest first."""
    record = registry.catalogue.product(product).record
    entries = registry.catalogue.releases(product)
    return {"releases": [views.release_view(registry, record, entry) for entry in entries]}


@routes.get("/products/{product}/releases/{which}", response_model=models.ReleaseView)
def release(registry: Here, product: ThisProduct, which: str) -> dict[str, Any]:
    """One release, by version (1.4.0) or release id (3)."""
    record = registry.catalogue.product(product).record
    entry: ReleaseEntry
    if which.isascii() and which.isdigit() and len(which) < 11:
        entry = registry.catalogue.release(product, int(which))
    else:
        entry = registry.catalogue.release_by_version(product, Version.parse(which))
    return views.release_view(registry, record, entry)


@health.get("/healthz")
async def alive(request: Request) -> dict[str, Any]:
    """That the process answers; ``instance`` is that of DIR/address."""
    return {"ok": True, "instance": request.app.state.instance}


@health.get("/readyz")
async def ready(registry: Here) -> dict[str, Any]:
    """That it can do its work: the ledger is followed and young; a problem otherwise."""
    head = registry.catalogue.head()  # one row: no thread, which others may all be using
    if head is None:
        raise Unreachable(
            "not-ready",
            "not ready",
            "no block of the ledger was followed yet",
            "wait a moment, then look at the log",
        )
    age = registry.clock.now() - head.timestamp
    if age > registry.bundles.renewed_every:
        raise Unreachable(
            "head-stale",
            "not ready",
            f"the newest block followed is {age} s old",
            "look whether the ledger makes blocks, and at the log",
        )
    return {"ok": True, "head": head.number}


@health.get("/metrics", response_class=Response)
def metrics(request: Request, registry: Here) -> Response:
    """Gauges in Prometheus' text format."""
    gauges = _Gauges(registry, request.app.state.changes.waiting)
    return Response(generate_latest(gauges), media_type=CONTENT_TYPE_LATEST)


@ledger.post("/rpc", response_class=Response)
async def rpc(request: Request, registry: Here) -> Response:
    """Ethereum JSON-RPC of the embedded ledger; whoever sends a transaction signs it."""
    embedded = registry.ledger
    if embedded is None:
        raise Unreachable(
            "no-embedded-ledger",
            "request refused",
            "this registry's ledger is elsewhere",
            "ask the node that /v1/status names",
        )
    try:
        asked = json.loads(shallow(await small_body(request, MAX_BODY)))
    except (ValueError, RecursionError) as fault:
        raise Malformed(
            "not-json", "request refused", "its body is not JSON", "send a JSON-RPC request"
        ) from fault
    turns: Turns = request.app.state.turns
    async with turns.one():
        answer = await run_in_threadpool(embedded.handle_strangers, asked)
    if answer is None:
        return Response(status_code=204)
    return Response(json.dumps(answer, allow_nan=False), media_type="application/json")


class _Gauges(CollectorRegistry):
    """Reads everything at the moment it is asked."""

    def __init__(self, registry: Registry, waiting: int) -> None:
        super().__init__()
        self._registry, self._waiting = registry, waiting
        self.register(self)

    def collect(self) -> Any:
        """The gauges."""
        here, head = self._registry, self._registry.catalogue.head()
        yield GaugeMetricFamily(
            "firmledger_head_height", "Newest block followed", head.number if head else 0
        )
        yield GaugeMetricFamily(
            "firmledger_head_age_seconds",
            "Age of that block",
            here.clock.now() - head.timestamp if head else 0,
        )
        yield GaugeMetricFamily(
            "firmledger_waiting_devices", "Devices whose poll is held", self._waiting
        )
        unsettled = GaugeMetricFamily(
            "firmledger_outbox_unsettled", "Acts that are not final yet", labels=["status"]
        )
        for status_name, count in views.unsettled(here).items():
            unsettled.add_metric([status_name], count)
        yield unsettled
        yield GaugeMetricFamily(
            "firmledger_products", "Products followed", len(here.catalogue.products())
        )
