"""A `Chain` on anvil: revm in a process of its own, spoken to by JSON-RPC over one connection.

Guarantees: what it reports is what the node says of the very transaction that was sent, revert data
included (`debug_traceTransaction`); nothing is estimated or called beforehand. The process listens
on a port of its own choosing on 127.0.0.1 and ends with the context manager.

One process serves many ledgers, one after the other: `fresh` takes it back to its genesis.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from contracts.foundry import binary
from tests.contracts.evm import GAS, GENESIS, RICH, Executed, Log, address
from tests.contracts.storage import StorageTrie

LISTENING = re.compile(r"Listening on 127\.0\.0\.1:(\d+)\n")
PATIENCE = 60.0  # seconds for one answer: a loaded machine is slow, a dead node never answers


class Anvil:
    """A `Chain`; made by `running`."""

    def __init__(self, connection: HTTPConnection, chain_id: int, names: tuple[str, ...]) -> None:
        self._connection = connection
        self.chain_id = chain_id
        self.now = GENESIS
        for name in names:
            self.ask("anvil_setBalance", hexed(address(name)), hex(RICH))
        self._genesis = self.ask("evm_snapshot")
        self._storage = StorageTrie()

    def fresh(self) -> Anvil:
        """The chain as it was when the process began; a snapshot can be gone back to once."""
        self.ask("evm_revert", self._genesis)
        self._genesis = self.ask("evm_snapshot")
        self._storage = StorageTrie()
        self.now = GENESIS
        return self

    def ask(self, method: str, *params: Any) -> Any:
        """The result of one request; AnvilError if the node answers with an error."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/", json.dumps(request), headers)
        answer = json.loads(self._connection.getresponse().read())
        if "error" in answer:
            raise AnvilError(method, answer["error"])
        return answer["result"]

    def send(self, raw: bytes, time: int) -> Executed:
        """Executes and mines; the receipt says what it cost, the trace what it returned."""
        self.now = time
        self.ask("evm_setNextBlockTimestamp", time)
        receipt = self.ask("eth_sendRawTransactionSync", hexed(raw))
        block = self.ask("eth_getBlockByNumber", receipt["blockNumber"], False)
        if int(block["timestamp"], 16) != time or len(block["transactions"]) != 1:
            raise AnvilError("eth_sendRawTransactionSync", block)
        tracer = {"tracer": "callTracer"}
        trace = self.ask("debug_traceTransaction", receipt["transactionHash"], tracer)
        return Executed(
            failed=receipt["status"] == "0x0",
            output=unhexed(trace.get("output", "0x")),
            gas=int(receipt["gasUsed"], 16),
            logs=tuple(
                Log(tuple(map(unhexed, log["topics"])), unhexed(log["data"]))
                for log in receipt["logs"]
            ),
            created=unhexed(receipt["contractAddress"] or "0x"),
        )

    def call(self, sender: bytes, to: bytes, data: bytes, time: int) -> Executed:
        """Executes under the newest block's header with another time."""
        message = {
            "from": hexed(sender),
            "to": hexed(to),
            "data": hexed(data),
            "gas": hex(GAS),
        }
        try:
            output = self.ask("eth_call", message, "latest", {}, {"time": hex(time)})
        except AnvilError as refused:
            if "data" not in refused.error:
                raise
            return Executed(True, unhexed(refused.error["data"]))
        return Executed(False, unhexed(output))

    def storage(self, account: bytes, place: int) -> bytes:
        """By `eth_getStorageAt`."""
        return unhexed(self.ask("eth_getStorageAt", hexed(account), hex(place), "latest"))

    def storage_root(self, account: bytes) -> bytes:
        """Over what the node dumps: the root in `eth_getProof` counts zeros that were read."""
        state = json.loads(gzip.decompress(unhexed(self.ask("anvil_dumpState"))))
        held = state["accounts"][hexed(account)]["storage"]
        return self._storage.root({int(p, 16): unhexed(word) for p, word in held.items()})

    def code(self, account: bytes) -> bytes:
        """By `eth_getCode`."""
        return unhexed(self.ask("eth_getCode", hexed(account), "latest"))


class AnvilError(Exception):
    """The node did not do what it was asked for: a fault of the test or of the node."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        super().__init__(method, error)
        self.error = error


@contextmanager
def running(chain_id: int, names: tuple[str, ...]) -> Iterator[Anvil]:
    """A node of its own for as long as the context lasts, with funds for the named accounts."""
    options = {"port": 0, "chain-id": chain_id, "timestamp": GENESIS, "accounts": 0}
    flags = [f"--{name}={value}" for name, value in options.items()]
    flags.append("--disable-code-size-limit")  # py-evm has it; tests.contracts.coverage lifts it
    process = subprocess.Popen(
        [binary("anvil"), *flags, "--host=127.0.0.1", "--hardfork=prague"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        connection = HTTPConnection("127.0.0.1", _port(process), timeout=PATIENCE)
        yield Anvil(connection, chain_id, names)
        connection.close()
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[str]) -> int:
    """Reads what the node says until it names its port; whatever it says later goes nowhere."""
    said = process.stdout
    assert said is not None
    heard = []
    for line in said:
        heard.append(line)
        if found := LISTENING.fullmatch(line):
            threading.Thread(target=_drain, args=(said,), daemon=True).start()
            return int(found[1])
    raise AssertionError(f"anvil ended before it listened: {''.join(heard)}")


def _drain(said: Any) -> None:
    """It logs each request, and would stand still once the pipe is full."""
    for _ in said:
        pass


def hexed(data: bytes) -> str:
    """Bytes as JSON-RPC spells them."""
    return "0x" + bytes(data).hex()


def unhexed(text: str) -> bytes:
    """Bytes from JSON-RPC's spelling."""
    return bytes.fromhex(text[2:])
