"""What the tests of the embedded ledger play with: a clock, accounts, and one tiny contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eth_account import Account

from registry.embedded import EmbeddedLedger

START = 1_800_000_000
STRANGER = "0x" + "11" * 32  # test vector: the private key of an account without funds
TOPIC = (0xAA).to_bytes(32, "big")

# The notebook: calldata is key (32 bytes) then value. Key 0 reverts with what follows the key;
# any other is stored and logged (topics 0xaa and the key, data the value). Slot 0 keeps the time
# of the last entry, and every call returns the time.
NOTEBOOK = bytes.fromhex(
    "600035 6016 57"  # if key != 0 goto 0x16
    "60203603 6020 6000 37 60203603 6000 fd"  # revert(calldata[32:])
    "5b 602035 600035 55"  # sstore(key, value)
    "42 6000 55"  # sstore(0, timestamp)
    "602035 6000 52 600035 60aa 6020 6000 a2"  # log2(value; 0xaa, key)
    "42 6000 52 6020 6000 f3"  # return timestamp
)
# sstore(key, value), and nothing else.
PIGEONHOLE = bytes.fromhex("602035 600035 55 00")
# Calls itself with all the gas there is.
CALLS_ITSELF = bytes.fromhex("6000 6000 6000 6000 6000 30 5a f1 00")
# Returns blockhash(number - 1).
LOOKS_BACK = bytes.fromhex("6001 43 03 40 6000 52 6020 6000 f3")


class SimClock:
    """One clock for the world: ``time`` can be set at will, ``steady`` only moves forward."""

    def __init__(self, time: int = START) -> None:
        self.time = time
        self.elapsed = 0.0

    def now(self) -> int:
        return self.time

    def steady(self) -> float:
        return self.elapsed

    def advance(self, seconds: int) -> None:
        self.time += seconds
        self.elapsed += seconds


class Sender:
    """An account that signs for one ledger and counts its own nonces."""

    def __init__(self, ledger: EmbeddedLedger, private_key: str) -> None:
        self.account = Account.from_key(private_key)
        self.address: str = self.account.address
        self.chain_id = ledger.chain_id
        self.nonce = 0

    def sign(self, to: bytes | None, data: bytes = b"", **fields: Any) -> bytes:
        """A raw transaction, free and with the next nonce unless ``fields`` say otherwise."""
        prices = {} if "maxFeePerGas" in fields else {"gasPrice": 0}
        if "nonce" not in fields:
            fields["nonce"] = self.nonce
            self.nonce += 1
        whole = {"to": to, "data": data, "value": 0, "gas": 200_000, "chainId": self.chain_id}
        return bytes(self.account.sign_transaction(whole | prices | fields).raw_transaction)


def fee_sender(ledger: EmbeddedLedger, directory: Path) -> Sender:
    return Sender(ledger, json.loads((directory / "keys" / "fee.json").read_text())["private_key"])


def open_ledger(directory: Path, clock: SimClock, **options: Any) -> EmbeddedLedger:
    return EmbeddedLedger.open(directory, clock=clock, steady=clock.steady, **options)


def entry(key: int, value: int) -> bytes:
    """Calldata for the notebook."""
    return key.to_bytes(32, "big") + value.to_bytes(32, "big")


def deploy(ledger: EmbeddedLedger, sender: Sender, runtime: bytes = NOTEBOOK) -> bytes:
    """Puts ``runtime`` on the chain and returns its address."""
    copy = bytes([0x60, len(runtime), 0x60, 12, 0x60, 0, 0x39, 0x60, len(runtime), 0x60, 0, 0xF3])
    created = ledger.submit(sender.sign(None, copy + runtime))
    ledger.seal_now()
    mined = ledger.store.mined(created)
    assert mined is not None
    assert mined.contract is not None
    return mined.contract


def ask(ledger: EmbeddedLedger, method: str, *params: Any) -> Any:
    """The result of one JSON-RPC request, after a trip through JSON as over HTTP."""
    answer = exchange(ledger, method, *params)
    assert "error" not in answer, answer
    return answer["result"]


def refusal(ledger: EmbeddedLedger, method: str, *params: Any) -> dict[str, Any]:
    """The error of one JSON-RPC request."""
    answer = exchange(ledger, method, *params)
    assert "result" not in answer, answer
    return answer["error"]


def exchange(ledger: EmbeddedLedger, method: str, *params: Any) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = json.loads(json.dumps(ledger.handle(json.loads(json.dumps(request)))))
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] == 1
    return answer


def hexed(value: bytes) -> str:
    return "0x" + bytes(value).hex()
