"""web3.py 8 against the ledger, over HTTP and in the same process, in one and the same way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hexbytes import HexBytes
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractCustomError, TransactionNotFound, Web3RPCError
from web3.middleware import ExtraDataToPOAMiddleware, SignAndSendRawMiddlewareBuilder
from web3.providers.base import BaseProvider

from registry.embedded import EmbeddedLedger
from registry.embedded.provider import InProcessProvider
from tests.registry.embedded.reader import check_account_proof
from tests.registry.embedded.scene import NOTEBOOK, TOPIC, Sender, SimClock, entry


@pytest.fixture
def running(ledger: EmbeddedLedger, clock: SimClock) -> Iterator[EmbeddedLedger]:
    """The sealing thread is on, and the clock runs, fast."""
    stop = threading.Event()

    def run_clock() -> None:
        while not stop.wait(0.005):
            clock.advance(1)

    ticking = threading.Thread(target=run_clock)
    ledger.start()
    ticking.start()
    yield ledger
    stop.set()
    ticking.join()


@pytest.fixture(params=["in-process", "http"])
def through(request: pytest.FixtureRequest, running: EmbeddedLedger) -> Iterator[BaseProvider]:
    if request.param == "in-process":
        yield InProcessProvider(running)
        return

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = json.dumps(running.handle(json.loads(body))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield HTTPProvider(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def test_a_round_trip(through: BaseProvider, running: EmbeddedLedger, fee: Sender) -> None:
    w3 = Web3(through)
    w3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)  # as for every QBFT chain
    w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(fee.account), layer=0)
    assert w3.is_connected()
    assert w3.eth.chain_id == running.chain_id

    copy = bytes([0x60, len(NOTEBOOK), 0x60, 12, 0x60, 0, 0x39, 0x60, len(NOTEBOOK), 0x60, 0, 0xF3])
    sent = w3.eth.send_transaction({"from": fee.address, "data": copy + NOTEBOOK})
    created = w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)
    assert created["status"] == 1
    address = created["contractAddress"]
    assert bytes(w3.eth.get_code(address)) == NOTEBOOK

    sent = w3.eth.send_transaction({"from": fee.address, "to": address, "data": entry(5, 6)})
    receipt = w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)
    assert receipt["status"] == 1
    assert [bytes(topic) for topic in receipt["logs"][0]["topics"]] == [TOPIC, entry(5, 6)[:32]]
    assert receipt["logs"] == w3.eth.get_logs({"fromBlock": 0, "address": address})
    assert receipt["logs"] == w3.eth.get_logs({"blockHash": receipt["blockHash"]})
    assert int(w3.eth.get_storage_at(address, 5).hex(), 16) == 6

    block = w3.eth.get_block(receipt["blockNumber"], True)
    assert block["hash"] == receipt["blockHash"]
    assert block["transactions"][0]["hash"] == sent
    assert w3.eth.get_transaction(sent)["blockHash"] == block["hash"]
    assert len(block["proofOfAuthorityData"]) > 300  # extraData, as that middleware renames it
    assert int(w3.eth.call({"to": address, "data": entry(1, 1)}).hex(), 16) >= block["timestamp"]
    proof = w3.provider.make_request(
        "eth_getProof", [address, ["0x5"], hex(receipt["blockNumber"])]
    )
    check_account_proof(proof["result"], bytes(block["stateRoot"]))
    item = w3.eth.get_proof(address, [5], block["number"])["storageProof"][0]
    assert item["value"] == HexBytes(6)


def test_refusals_arrive(through: BaseProvider, running: EmbeddedLedger, fee: Sender) -> None:
    w3 = Web3(through)
    with pytest.raises(TransactionNotFound):
        w3.eth.get_transaction_receipt(HexBytes(bytes(32)))
    raw = fee.sign(None, b"\x00", nonce=5)
    w3.eth.send_raw_transaction(raw)
    with pytest.raises(Web3RPCError, match="already known"):
        w3.eth.send_raw_transaction(raw)
    with w3.batch_requests() as batch:
        batch.add(w3.eth.get_block_number())
        batch.add(w3.eth.get_transaction_count(fee.address, "pending"))
        height, nonce = batch.execute()
    assert height >= 0
    assert nonce == 0
    copy = bytes([0x60, len(NOTEBOOK), 0x60, 12, 0x60, 0, 0x39, 0x60, len(NOTEBOOK), 0x60, 0, 0xF3])
    sent = w3.eth.send_raw_transaction(fee.sign(None, copy + NOTEBOOK))
    address = w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)["contractAddress"]
    with pytest.raises(ContractCustomError, match="0x0badc0de"):
        w3.eth.call({"to": address, "data": bytes(32) + bytes.fromhex("0badc0de")})
