"""The contract on py-evm: sends acts at chosen times, and gives back records, events and refusals.

`Evm` is a bare chain with one contract on it; `LedgerBox` speaks `protocol.records` to it. Keys are
made from names (`key("alice")`): they are test vectors.

It judges nothing: what must hold is for the tests to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coincurve import PrivateKey
from eth.vm.spoof import SpoofTransaction
from eth_account import Account
from eth_tester.backends.pyevm.main import PyEVMBackend
from web3 import Web3
from web3.contract import Contract

from protocol import _abi
from protocol.digests import keccak256
from protocol.ids import Address, Hash
from protocol.records import Ledger, Record

ARTIFACT = json.loads(
    (Path(__file__).parents[2] / "contracts" / "artifacts" / "ReleaseLedger.json").read_text()
)
GENESIS = 1_700_000_000
GAS = 10_000_000
FEE = 10**10


def key(name: str) -> bytes:
    """The private key of a named test account."""
    return bytes(keccak256(b"firmledger test account " + name.encode()))


def address(name: str) -> Address:
    """The account of a named test key."""
    return Address(keccak256(PrivateKey(key(name)).public_key.format(compressed=False)[1:])[12:])


def addresses(*names: str) -> tuple[Address, ...]:
    """Accounts in ascending order, as the ledger wants its lists."""
    return tuple(sorted(address(n) for n in names))


@dataclass(frozen=True)
class Refusal:
    """A custom error of the contract."""

    name: str
    data: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What a transaction did: the refusal, or its events; whole gas used, refunds included."""

    time: int
    gas: int
    refusal: Refusal | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    returned: bytes = b""

    def event(self, name: str) -> dict[str, Any]:
        """The arguments of the one event of this name."""
        (found,) = [args for n, args in self.events if n == name]
        return found


class Evm:
    """A py-evm chain (Prague rules) that takes one transaction a block, at the times it is told."""

    def __init__(self, names: tuple[str, ...]) -> None:
        parameters = PyEVMBackend.generate_genesis_params({"timestamp": GENESIS})
        accounts = {bytes(address(n)): _rich() for n in names}
        self._backend = PyEVMBackend(genesis_parameters=parameters, genesis_state=accounts)
        self.chain = self._backend.chain
        self.chain_id = int(self.chain.chain_id)
        self.now = GENESIS
        self._nonces = dict.fromkeys(names, 0)

    def send(self, sender: str, to: bytes | None, data: bytes, time: int | None = None) -> Any:
        """Executes and mines; returns (receipt, computation). ``time`` must exceed the last one."""
        self.now = self.now + 1 if time is None else time
        transaction = {
            "nonce": self._nonces[sender],
            "gas": GAS,
            "gasPrice": FEE,
            "to": b"" if to is None else bytes(to),
            "value": 0,
            "data": data,
            "chainId": self.chain_id,
        }
        raw = Account.sign_transaction(transaction, key(sender)).raw_transaction
        self._nonces[sender] += 1
        self.chain.header = self.chain.header.copy(timestamp=self.now)
        decoded = self.chain.get_vm().get_transaction_builder().decode(raw)
        _, receipt, computation = self.chain.apply_transaction(decoded)
        self._backend.mine_blocks(1)
        return receipt, computation

    def call(self, to: bytes, data: bytes, time: int | None = None) -> Any:
        """Executes at ``time`` (default: a second from now) and keeps nothing."""
        header = self.chain.header.copy(timestamp=self.now + 1 if time is None else time)
        state = self.chain.get_vm(header).state
        sender = next(iter(self._nonces))
        unsigned = (
            self.chain.get_vm(header)
            .get_transaction_builder()
            .create_unsigned_transaction(
                nonce=self._nonces[sender], gas_price=FEE, gas=GAS, to=bytes(to), value=0, data=data
            )
        )
        snapshot = state.snapshot()
        computation = state.apply_transaction(
            SpoofTransaction(unsigned, from_=bytes(address(sender)))
        )
        state.revert(snapshot)
        return computation

    def code(self, account: bytes) -> bytes:
        """The code of an account."""
        return bytes(self._backend.get_code(account))

    def storage(self, account: bytes, slot: int) -> bytes:
        """A storage word of the newest state."""
        return int(self._backend.get_storage(account, slot)).to_bytes(32, "big")


def _rich() -> dict[str, Any]:
    return {"balance": 10**24, "code": b"", "nonce": 0, "storage": {}}


class LedgerBox:
    """A deployed ledger, addressed with records."""

    def __init__(self, *names: str) -> None:
        self.evm = Evm(names)
        self.abi: Contract = Web3().eth.contract(abi=ARTIFACT["abi"])  # type: ignore[assignment]
        code = bytes.fromhex(ARTIFACT["bytecode"][2:])
        receipt, computation = self.evm.send(names[0], None, code)
        if computation.is_error:
            raise AssertionError(f"not deployed: {computation.error}")
        self.deploy_gas = int(receipt.gas_used)
        self.contract = Address(computation.msg.storage_address)
        self.ledger = Ledger(self.evm.chain_id, self.contract)

    # -- acts and reads ---------------------------------------------------------------------------

    def act(self, sender: str, function: str, *args: Any, time: int | None = None) -> Outcome:
        """Sends a transaction; a refusal is an outcome like any other."""
        receipt, computation = self.evm.send(
            sender, self.contract, self.encode(function, args), time
        )
        gas = int(receipt.gas_used)
        if computation.is_error:
            return Outcome(self.evm.now, gas, refusal(computation.output))
        events = [self._event(log) for log in receipt.logs]
        return Outcome(self.evm.now, gas, None, events, bytes(computation.output))

    def read(self, function: str, *args: Any, time: int | None = None) -> Any:
        """Calls a view; returns its decoded value(s), or the `Refusal`."""
        computation = self.evm.call(self.contract, self.encode(function, args), time)
        if computation.is_error:
            return refusal(computation.output)
        (entry,) = [e for e in ARTIFACT["abi"] if e.get("name") == function]
        types = [o["type"] for o in entry["outputs"]]
        values = Web3().codec.decode(types, computation.output)
        return values[0] if len(values) == 1 else values

    def encode(self, function: str, args: tuple[Any, ...]) -> bytes:
        """Calldata; records are turned into tuples."""
        plain = [a.to_abi() if isinstance(a, Record) else a for a in args]
        return bytes.fromhex(self.abi.encode_abi(function, plain)[2:])

    def _event(self, log: Any) -> tuple[str, dict[str, Any]]:
        (name,) = [n for n, t in _abi.TOPICS.items() if int.from_bytes(t, "big") == log.topics[0]]
        entry = {
            "address": "0x" + log.address.hex(),
            "topics": [t.to_bytes(32, "big") for t in log.topics],
            "data": log.data,
            "blockNumber": 0,
            "transactionHash": bytes(32),
            "transactionIndex": 0,
            "blockHash": bytes(32),
            "logIndex": 0,
        }
        return name, dict(self.abi.events[name]().process_log(entry)["args"])

    # -- approvals --------------------------------------------------------------------------------

    def approvals(self, message: Record, *names: str) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Approvals of an Approval, Amendment or Decision record by named accounts."""
        digest = self.ledger.digest(message)
        signers = sorted(names, key=address)
        valid_until: int = message.valid_until  # type: ignore[attr-defined]
        return valid_until, [compact(digest, n) for n in signers]

    # -- commitments ------------------------------------------------------------------------------

    def product_slot(self, product_id: bytes) -> bytes:
        """The stored commitment, read as a device's proof reads it: by storage place."""
        return self.evm.storage(self.contract, mapped(product_id, _abi.PRODUCTS_SLOT))

    def release_slot(self, product_id: bytes, release_id: int) -> bytes:
        """The stored commitment, read as a device's proof reads it: by storage place."""
        return self.evm.storage(self.contract, self.release_place(product_id, release_id))

    @staticmethod
    def release_place(product_id: bytes, release_id: int) -> int:
        """Where the commitment to a release is stored."""
        return mapped(release_id.to_bytes(32, "big"), mapped(product_id, _abi.RELEASES_SLOT))


def mapped(name: bytes, slot: int) -> int:
    """The storage place of ``mapping[name]`` for a mapping at ``slot``."""
    return int.from_bytes(keccak256(bytes(name) + slot.to_bytes(32, "big")), "big")


def compact(digest: Hash, name: str) -> tuple[bytes, bytes]:
    """An ECDSA signature over ``digest`` in the form of EIP-2098."""
    raw = PrivateKey(key(name)).sign_recoverable(digest, hasher=None)
    vs = int.from_bytes(raw[32:64], "big") | raw[64] << 255
    return raw[:32], vs.to_bytes(32, "big")


def refusal(output: bytes) -> Refusal:
    """The custom error in revert data; a revert without one has the name ''."""
    known = _abi.ERRORS.get(bytes(output[:4]))
    if known is None:
        return Refusal("", (bytes(output),))
    name, fields = known
    return Refusal(name, tuple(Web3().codec.decode([t for _, t in fields], output[4:])))
