"""The API: what devices, operators and the public get, and how it says no."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from protocol.bundle import MEDIA_TYPE, Acknowledgement, Bundle, prove
from protocol.errors import Unreachable
from protocol.ids import Version
from protocol.receipt import MAX_RECEIPT_BYTES, Outcome
from protocol.records import Product, Terms
from registry.app import Server, create_app
from registry.operators import read_token
from registry.web.requests import MAX_BODY
from registry.web.waiting import RUNNING, Changes, Turns
from tests.registry.place import Place, Unit

UNIT = Unit("one")
THREADS = 40  # of the application, for all routes that are not async
COSE = {"Content-Type": "application/cose"}


@pytest.fixture
def http(place: Place) -> Iterator[TestClient]:
    """A client without a token."""
    with TestClient(create_app(place.registry), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def operator(place: Place) -> dict[str, str]:
    """The header that an operator sends."""
    return {"Authorization": f"Bearer {read_token(place.directory)}"}


def poll(place: Place, **changes: Any) -> str:
    asked = {"device": str(UNIT.id), "version": 0, "counter": 0, "hardware": 2} | changes
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    return f"/v1/products/{place.product}/bundle?{query}"


def refused(answer: Any, status: int, reason: str) -> dict[str, Any]:
    """The problem, checked for all that every problem has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["reason"] == reason
    assert problem["status"] == status
    assert problem["type"] == f"urn:firmledger:problem:{reason}"
    assert all(problem[name] for name in ("title", "detail", "family", "what", "why", "fix"))
    return problem


# -- devices -------------------------------------------------------------------------------------


def test_a_poll_brings_a_bundle_that_proves_itself(place: Place, http: TestClient) -> None:
    place.publish("1.0.0")
    answer = http.get(poll(place))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPE
    _view, offered = place.proved(answer.content)
    assert offered is not None
    payload = http.get(f"/v1/blobs/{offered.manifest.payload_digest.hex()}")
    assert len(payload.content) == offered.manifest.payload_size


def test_the_same_again_is_304_until_something_changes(place: Place, http: TestClient) -> None:
    place.publish("1.0.0")
    first = http.get(poll(place))
    known = {"If-None-Match": first.headers["etag"]}
    again = http.get(poll(place), headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    place.halt("1.0.0", "carol")
    changed = http.get(poll(place), headers=known)
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


def test_a_waiting_device_hears_of_a_publication(place: Place, http: TestClient) -> None:
    draft = place.approved(place.build("1.0.0"))
    place.submit(draft)
    place.registry.start()
    answer = http.get(poll(place, wait=55))
    _view, offered = place.proved(answer.content)
    assert offered is not None
    assert offered.terms == draft.terms


def test_a_wait_that_brings_nothing_ends_with_a_proof_of_that(
    place: Place, http: TestClient
) -> None:
    place.publish("1.0.0")
    answer = http.get(poll(place, version=int(Version.parse("1.0.0")), counter=1, wait=1))
    view, offered = place.proved(answer.content)
    assert offered is None and view.release is not None


def test_a_new_head_wakes_who_waits(place: Place) -> None:
    """By the registry's own thread, and before the time is over."""

    async def wait() -> bool:
        changes = Changes()
        place.registry.on_change(changes.notify)
        change = changes.next()
        ticking = asyncio.get_running_loop().run_in_executor(None, place.tick)
        woken = await changes.wait(change, 55)
        await ticking
        return woken

    assert asyncio.run(wait())


def test_a_server_that_ends_answers_who_waits(place: Place) -> None:
    place.publish("1.0.0")
    server = Server(place.registry, host="127.0.0.1", port=0)
    server.start()
    url = server.url + poll(place, version=int(Version.parse("1.0.0")), counter=1, wait=55)
    anchor = place.anchor_of_trust
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx2.get, url, timeout=60)
        while not server.waiting:
            assert not waiting.done()
        server.close()
        answer = waiting.result()
    assert answer.status_code == 200
    assert prove(Bundle.decode(answer.content).fresh, anchor).release is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "0x12"},
        {"device": "zz" * 32},
        {"version": -1},
        {"version": 1 << 64},
        {"version": "1.0.0"},
        {"counter": 1 << 32},
        {"hardware": ""},
        {"wait": 56},
        {"wait": -1},
        {"surplus": 1},
    ],
)
def test_a_poll_is_read_strictly(place: Place, http: TestClient, changes: dict[str, Any]) -> None:
    problem = refused(http.get(poll(place, **changes)), 400, "bad-request")
    assert next(iter(changes)) in problem["why"]


def test_ranges_of_blobs(place: Place, http: TestClient) -> None:
    draft = place.publish("1.0.0")
    whole = draft.payload_path.read_bytes()
    where = f"/v1/blobs/{draft.payload_digest.hex()}"
    part = http.get(where, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, whole[1000:2000])
    rest = http.get(where, headers={"Range": "bytes=99990-"})
    assert (rest.status_code, rest.content) == (206, whole[99990:])
    beyond = http.get(where, headers={"Range": "bytes=100000-"})
    refused(beyond, 416, "range-beyond")
    assert beyond.headers["content-range"] == "bytes */100000"
    for strange in ("bytes=9-1", "bytes=x", "pieces=1-2", "bytes="):
        refused(http.get(where, headers={"Range": strange}), 400, "bad-range")
    head = http.head(where)
    assert (head.headers["content-length"], head.content) == ("100000", b"")
    refused(http.get(f"/v1/blobs/{'0' * 64}"), 404, "unknown-blob")
    refused(http.get("/v1/blobs/xyz"), 400, "not-hex")
    refused(http.get("/v1/blobs/..%2f..%2fkeys%2ffee.json"), 404, "not-found")


def test_receipts_are_taken_and_shown_to_be_anchored(place: Place, http: TestClient) -> None:
    place.publish("1.0.0")
    place.enrol(UNIT)
    data = Unit("one").reports(place.product, 1)
    taken = http.post("/v1/receipts", content=data, headers=COSE)
    assert taken.status_code == 202
    leaf = taken.json()["leaf"]
    assert taken.json() == {"leaf": leaf, "enrolled": True, "anchored": False}
    assert http.get(f"/v1/receipts/{leaf}").status_code == 202
    place.anchor()
    shown = http.get(f"/v1/receipts/{leaf}")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "application/cbor")
    proof = Acknowledgement.decode(shown.content)
    proof.check(bytes.fromhex(leaf[2:]), 1, prove(proof.fresh, place.anchor_of_trust))
    assert http.post("/v1/receipts", content=data, headers=COSE).status_code == 202
    refused(http.get(f"/v1/receipts/{'0' * 64}"), 404, "receipt-unknown")


def test_bad_receipts_are_refused(place: Place, http: TestClient) -> None:
    place.publish("1.0.0")
    place.enrol(UNIT)
    good = Unit("one").reports(place.product, 1)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    refused(http.post("/v1/receipts", content=forged, headers=COSE), 422, "bad-signature")
    refused(http.post("/v1/receipts", content=good), 415, "media-type")
    oversized = b"\0" * (MAX_RECEIPT_BYTES + 1)
    refused(http.post("/v1/receipts", content=oversized, headers=COSE), 413, "oversized")
    early = Unit("one").reports(place.product, 2)
    answer = http.post("/v1/receipts", content=early, headers=COSE)
    refused(answer, 503, "release-not-indexed")
    assert answer.headers["retry-after"]


def test_a_refusal_goes_to_the_queue_of_the_unenrolled(place: Place, http: TestClient) -> None:
    data = Unit("nobody").reports(place.product, 1, Outcome.REFUSED, "window")
    taken = http.post("/v1/receipts", content=data, headers=COSE)
    assert (taken.status_code, taken.json()["enrolled"]) == (202, False)
    assert http.get(f"/v1/receipts/{taken.json()['leaf']}").json()["enrolled"] is False


# -- operators -----------------------------------------------------------------------------------

WRITES = [
    ("POST", "/v1/products"),
    ("POST", "/v1/products/thermostat/fleet"),
    ("PUT", f"/v1/blobs/{'0' * 64}"),
    ("POST", "/v1/releases"),
    ("POST", "/v1/products/thermostat/decisions"),
    ("GET", "/v1/tx/1"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic abc", "Bearer", "Bearer \x7f"])
def test_what_changes_something_needs_a_token(
    http: TestClient, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = http.request(method, path, headers=headers, content=b"{}")
    refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def release_body(draft: Any) -> dict[str, Any]:
    return {
        "envelope": "0x" + draft.envelope.hex(),
        "signer": "0x" + draft.signer.hex(),
        "terms": draft.terms.to_json(),
        "epoch": draft.agreed.epoch,
        "approvals": draft.agreed.approvals.to_json(),
    }


def test_upload_submit_ask(place: Place, http: TestClient, operator: dict[str, str]) -> None:
    draft = place.approved(place.build("1.0.0"))
    data = draft.payload_path.read_bytes()
    where = f"/v1/blobs/{draft.payload_digest.hex()}"
    stored = http.put(where, content=data, headers=operator)
    assert stored.json() == {"digest": str(draft.payload_digest), "size": len(data)}
    queued = http.post("/v1/releases", json=release_body(draft), headers=operator)
    assert queued.status_code == 202
    row = queued.json()["tx"]
    assert http.get(f"/v1/tx/{row}", headers=operator).json()["status"] == "queued"
    place.settle(row)
    done = http.get(f"/v1/tx/{row}?wait=5", headers=operator).json()
    assert (done["status"], done["error"]) == ("mined", None)
    shown = http.get("/v1/products/thermostat/releases/1.0.0").json()
    assert Terms.from_json(shown["terms"]) == draft.terms
    assert (shown["status"], shown["open_bps"], shown["release_id"]) == ("active", 10_000, 1)
    assert shown["payload"] == str(draft.payload_digest)
    assert shown == http.get(f"/v1/products/{place.product}/releases/1").json()
    assert len(shown["approvers"]) == 2


def test_a_refusal_by_the_ledger_is_told_in_words(
    place: Place, http: TestClient, operator: dict[str, str]
) -> None:
    draft = place.approved(place.build("1.0.0"), "alice")
    data = draft.payload_path.read_bytes()
    http.put(f"/v1/blobs/{draft.payload_digest.hex()}", content=data, headers=operator)
    row = http.post("/v1/releases", json=release_body(draft), headers=operator).json()["tx"]
    place.tick()
    failed = http.get(f"/v1/tx/{row}", headers=operator).json()
    assert failed["status"] == "failed"
    assert failed["error"]["family"] == "ledger"
    assert failed["error"]["data"]["error"] == "TooFewApprovals"


def test_a_blob_is_what_its_address_says(
    place: Place, http: TestClient, operator: dict[str, str]
) -> None:
    answer = http.put(f"/v1/blobs/{'0' * 64}", content=b"other", headers=operator)
    refused(answer, 422, "blob-digest")
    assert list(place.registry.blobs) == []


def test_a_blob_beyond_the_limit_is_refused(
    place: Place, http: TestClient, operator: dict[str, str]
) -> None:
    place.registry.settings = place.registry.settings.model_copy(update={"max_blob": 1000})
    answer = http.put(f"/v1/blobs/{'0' * 64}", content=b"x" * 1001, headers=operator)
    refused(answer, 413, "blob-oversized")


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"devices": []},
        {"devices": [{"public_key": "0x12"}]},
        {"devices": [{"public_key": "0x" + "0" * 64, "more": 1}]},
        {"devices": [{"public_key": "0x" + "0" * 64}], "more": 1},
        {"devices": "all"},
    ],
)
def test_bodies_are_read_strictly(http: TestClient, operator: dict[str, str], body: object) -> None:
    where = "/v1/products/thermostat/fleet"
    refused(http.post(where, json=body, headers=operator), 400, "bad-request")


def test_terms_are_read_strictly(place: Place, http: TestClient, operator: dict[str, str]) -> None:
    body = release_body(place.approved(place.build("1.0.0")))
    for change in ({"version": 1}, {"extra": 1}, {"critical": 0}, {"rollout": [{}] * 5}):
        bent = body | {"terms": body["terms"] | change}
        refused(http.post("/v1/releases", json=bent, headers=operator), 400, "bad-request")
    del body["terms"]["expiry"]
    refused(http.post("/v1/releases", json=body, headers=operator), 400, "bad-request")


def test_bodies_that_are_no_json_or_too_long(http: TestClient, operator: dict[str, str]) -> None:
    where = "/v1/products/thermostat/fleet"
    refused(http.post(where, content=b"{", headers=operator), 400, "bad-request")
    refused(http.post(where, content=b"[" * 5000, headers=operator), 400, "too-deep")
    refused(http.post(where, content=b"x" * (MAX_BODY + 1), headers=operator), 413, "oversized")
    pieces = (b"x" * 65536 for _ in range(MAX_BODY // 65536 + 1))  # without a content-length
    refused(http.post(where, content=pieces, headers=operator), 413, "oversized")


# -- public --------------------------------------------------------------------------------------


def test_status_products_and_health(place: Place, http: TestClient) -> None:
    place.publish("1.0.0")
    status = http.get("/v1/status").json()
    assert status["contract"] == str(place.registry.chain.ledger.contract)
    assert status["head"]["number"] == place.registry.chain.head().number
    assert len(status["validators"]) == 4
    assert "whoever owns this host" in status["notice"]
    (product,) = http.get("/v1/products").json()["products"]
    assert product["name"] == "thermostat"
    assert Product.from_json(product["record"]).head.latest_release == 1
    assert http.get("/healthz").json()["ok"]
    assert http.get("/readyz").json()["ok"]
    assert "firmledger_head_height" in http.get("/metrics").text


def test_a_registry_whose_ledger_stands_still_is_not_ready(place: Place, http: TestClient) -> None:
    assert http.get("/readyz").status_code == 200
    place.clock.time += place.registry.bundles.renewed_every + 60
    refused(http.get("/readyz"), 503, "head-stale")
    assert http.get("/healthz").status_code == 200


def test_what_is_not_there(place: Place, http: TestClient) -> None:
    refused(http.get("/v1/products/boiler"), 404, "unknown-product")
    refused(http.get("/v1/products/boiler/releases"), 404, "unknown-product")
    refused(http.get("/v1/products/thermostat/releases/1.0.0"), 404, "unknown-release")
    refused(http.get("/v1/products/thermostat/releases/7"), 404, "unknown-release")
    refused(http.get("/v1/products/thermostat/releases/new"), 400, "version-syntax")
    refused(http.get("/v1/nothing"), 404, "not-found")
    refused(http.delete("/v1/status"), 405, "method")


def test_the_embedded_ledger_answers_json_rpc(place: Place, http: TestClient) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    answer = http.post("/rpc", json=call).json()
    assert int(answer["result"], 16) == place.registry.chain.ledger.chain_id
    refused(http.post("/rpc", content=b"{"), 400, "not-json")
    notification = http.post("/rpc", json={"jsonrpc": "2.0", "method": "eth_chainId"})
    assert (notification.status_code, notification.content) == (204, b"")


def test_few_ask_the_ledger_at_once_and_health_needs_no_turn(
    place: Place, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both turns are taken, and every thread: requests are refused as busy, health answers."""
    ledger, go = place.registry.ledger, threading.Event()
    assert ledger is not None
    inside = threading.Semaphore(0)

    def slow(request: object) -> object:
        inside.release()
        go.wait()
        return request

    monkeypatch.setattr(ledger, "handle_strangers", slow)
    monkeypatch.setattr(place.registry.catalogue, "products", lambda **_: slow([]))
    http.app.state.turns = Turns(patience=0.1)  # type: ignore[attr-defined]
    with ThreadPoolExecutor(42) as pool:
        try:
            asked = [pool.submit(http.post, "/rpc", json={}) for _ in range(RUNNING)]
            asked += [pool.submit(http.get, "/v1/products") for _ in range(THREADS - RUNNING)]
            for _ in range(THREADS):
                assert inside.acquire(timeout=30)
            refused(http.post("/rpc", json={}), 503, "busy")
            assert http.get("/healthz").json()["ok"]
            assert http.get("/readyz").json()["ok"]
        finally:
            go.set()
        assert {answer.result().status_code for answer in asked} == {200}


def test_no_more_than_so_many_wait_for_their_turn() -> None:
    async def crowd() -> list[str]:
        turns, go = Turns(running=1, queued=2, patience=60), asyncio.Event()

        async def visit() -> str:
            try:
                async with turns.one():
                    await go.wait()
                    return "in"
            except Unreachable as error:
                return error.reason

        visits = [asyncio.create_task(visit()) for _ in range(4)]
        done, _pending = await asyncio.wait(visits, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == ["busy"]
        go.set()
        return sorted(await asyncio.gather(*visits))

    assert asyncio.run(crowd()) == ["busy", "in", "in", "in"]


def test_calls_of_strangers_are_short(place: Place, http: TestClient) -> None:
    """An endless loop ends at the gas that strangers have, and a batch has little more."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [{"data": "0x5b600056"}]}
    assert "OutOfGas" in http.post("/rpc", json=call).json()["error"]["message"]
    whole = http.post("/rpc", json=[call] * 5).json()
    said = [answer["error"]["message"] for answer in whole]
    assert [text.startswith("gas budget") for text in said] == [False, False, True, True, True]


def test_an_id_that_is_no_json_is_not_sent_back(place: Place, http: TestClient) -> None:
    for strange in ("1e999", "NaN", "-Infinity", "[1]", "{}", "true"):
        body = f'{{"jsonrpc": "2.0", "id": {strange}, "method": "eth_chainId"}}'
        answer = json.loads(http.post("/rpc", content=body).content, parse_constant=pytest.fail)
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)
    for fine in ('"x"', "7", "null", "1.5"):
        body = f'{{"jsonrpc": "2.0", "id": {fine}, "method": "eth_chainId"}}'
        assert http.post("/rpc", content=body).json()["id"] == json.loads(fine)


def test_a_bug_inside_is_a_problem_and_tells_nothing(
    place: Place, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(place.registry.catalogue, "products", fail)
    answer = http.get("/v1/products")
    refused(answer, 500, "internal")
    assert "secret detail" not in answer.text


def test_the_api_describes_itself(http: TestClient) -> None:
    described = http.get("/v1/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert schemas["Terms"]["additionalProperties"] is False
    assert schemas["Terms"]["properties"]["version"]["type"] == "string"
    documented = json.dumps(described["paths"])
    for path in ("/v1/products/{product}/bundle", "/v1/receipts", "/v1/blobs/{digest}"):
        assert path in documented
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} says nothing of itself"


def test_every_path_is_in_the_documentation(http: TestClient) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    for path, methods in http.get("/v1/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in text, f"{method} {path} is not documented"
