"""The contract on a chain: sends acts at chosen times, gives back records, events and refusals.

`Chain` is what a ledger needs of a chain; it has two drivers, `Evm` here (py-evm in this process,
set up by eth-tester) and `tests.contracts.anvil.Anvil` (revm in a process of its own). `LedgerBox`
deploys the contract on either and speaks `protocol.records` to it. Keys are made from names
(`key("alice")`): they are test vectors.

It judges nothing: what must hold is for the tests to say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import rlp
from coincurve import PrivateKey
from eth.rlp.accounts import Account as StoredAccount
from eth.vm.spoof import SpoofTransaction
from eth_account import Account
from eth_tester.backends.pyevm.main import PyEVMBackend
from trie import HexaryTrie
from web3 import Web3
from web3.contract import Contract

from protocol import _abi
from protocol.digests import keccak256
from protocol.ids import Address, Hash
from protocol.records import Ledger, Record

ARTIFACT = json.loads(
    (Path(__file__).parents[2] / "contracts" / "artifacts" / "ReleaseLedger.json").read_text()
)
FUNCTIONS = {e["name"]: e for e in ARTIFACT["abi"] if e["type"] == "function"}
CODEC = Web3().codec
# web3 says it is a class where no address is given; what decodes is on the class, too.
DECODER: Contract = Web3().eth.contract(abi=ARTIFACT["abi"])  # type: ignore[assignment]
GENESIS = 1_700_000_000
GAS = 10_000_000
FEE = 10**10
RICH = 10**24


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
class Log:
    """What a transaction emitted, as it stands in its receipt."""

    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class Outcome:
    """What a transaction did: the refusal, or its logs; whole gas used, refunds included."""

    time: int
    gas: int
    refusal: Refusal | None = None
    returned: bytes = b""
    logs: tuple[Log, ...] = ()

    @cached_property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """The logs, decoded: name and arguments."""
        return [_decoded(log) for log in self.logs]

    def event(self, name: str) -> dict[str, Any]:
        """The arguments of the one event of this name."""
        (found,) = [args for n, args in self.events if n == name]
        return found


# -- chains ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Executed:
    """What an EVM made of a message: its return or revert data; for a transaction, its receipt."""

    failed: bool
    output: bytes
    gas: int = 0
    logs: tuple[Log, ...] = ()
    created: bytes = b""


class Chain(Protocol):
    """A chain under Prague rules whose blocks come when they are told to."""

    chain_id: int
    now: int
    """Time of the newest block; it may be set ahead."""

    def send(self, raw: bytes, time: int) -> Executed:
        """Executes a signed transaction, alone in a block of ``time``, later than the last."""

    def call(self, sender: bytes, to: bytes, data: bytes, time: int) -> Executed:
        """Executes on the newest state, at ``time``, and keeps nothing."""

    def storage(self, account: bytes, place: int) -> bytes:
        """A storage word of the newest state."""

    def storage_root(self, account: bytes) -> bytes:
        """The root over all storage of an account: it shows words that nobody asked for."""

    def code(self, account: bytes) -> bytes:
        """The code of an account."""


class Evm:
    """A `Chain` on py-evm, which eth-tester's backend sets up; it lives in this process."""

    def __init__(self, names: tuple[str, ...]) -> None:
        parameters = PyEVMBackend.generate_genesis_params({"timestamp": GENESIS})
        accounts = {bytes(address(n)): _rich() for n in names}
        self._backend = PyEVMBackend(genesis_parameters=parameters, genesis_state=accounts)
        self.chain = self._backend.chain
        self.chain_id = int(self.chain.chain_id)
        self.now = GENESIS

    def send(self, raw: bytes, time: int) -> Executed:
        """Executes and mines."""
        self.now = time
        self.chain.header = self.chain.header.copy(timestamp=time)
        decoded = self.chain.get_vm().get_transaction_builder().decode(raw)
        _, receipt, computation = self.chain.apply_transaction(decoded)
        self._backend.mine_blocks(1)
        logs = tuple(
            Log(tuple(t.to_bytes(32, "big") for t in log.topics), bytes(log.data))
            for log in receipt.logs
        )
        created = bytes(computation.msg.storage_address) if computation.msg.is_create else b""
        failed, output = bool(computation.is_error), bytes(computation.output)
        return Executed(failed, output, int(receipt.gas_used), logs, created)

    def call(self, sender: bytes, to: bytes, data: bytes, time: int) -> Executed:
        """Executes on a copy of the head's header."""
        vm = self.chain.get_vm(self.chain.header.copy(timestamp=time))
        unsigned = vm.get_transaction_builder().create_unsigned_transaction(
            nonce=vm.state.get_nonce(sender), gas_price=FEE, gas=GAS, to=to, value=0, data=data
        )
        snapshot = vm.state.snapshot()
        computation = vm.state.apply_transaction(SpoofTransaction(unsigned, from_=sender))
        vm.state.revert(snapshot)
        return Executed(bool(computation.is_error), bytes(computation.output))

    def storage(self, account: bytes, place: int) -> bytes:
        """By the backend."""
        return int(self._backend.get_storage(account, place)).to_bytes(32, "big")

    def storage_root(self, account: bytes) -> bytes:
        """Out of the state trie."""
        head = self.chain.get_canonical_head()
        leaf = HexaryTrie(self.chain.chaindb.db, head.state_root).get(keccak256(account))
        return bytes(rlp.decode(leaf, StoredAccount).storage_root)

    def code(self, account: bytes) -> bytes:
        """By the backend."""
        return bytes(self._backend.get_code(account))


def _rich() -> dict[str, Any]:
    return {"balance": RICH, "code": b"", "nonce": 0, "storage": {}}


# -- the ledger on one -----------------------------------------------------------------------------


class LedgerBox:
    """A deployed ledger, addressed with records."""

    def __init__(self, *names: str, chain: Chain | None = None) -> None:
        self.evm: Chain = Evm(names) if chain is None else chain
        self._nonces = dict.fromkeys(names, 0)
        self._reader = bytes(address(names[0]))
        deployed = self._send(names[0], b"", bytes.fromhex(ARTIFACT["bytecode"][2:]), None)
        if deployed.failed:
            raise AssertionError(f"not deployed: {deployed.output.hex()}")
        self.deploy_gas = deployed.gas
        self.contract = Address(deployed.created)
        self.ledger = Ledger(self.evm.chain_id, self.contract)

    # -- acts and reads ---------------------------------------------------------------------------

    def act(self, sender: str, function: str, *args: Any, time: int | None = None) -> Outcome:
        """Sends a transaction; a refusal is an outcome like any other."""
        done = self._send(sender, self.contract, self.encode(function, args), time)
        if done.failed:
            return Outcome(self.evm.now, done.gas, refusal(done.output))
        return Outcome(self.evm.now, done.gas, None, done.output, done.logs)

    def read(self, function: str, *args: Any, time: int | None = None) -> Any:
        """Calls a view, a second from now if not told otherwise; its value(s), or the `Refusal`."""
        time = self.evm.now + 1 if time is None else time
        done = self.evm.call(self._reader, self.contract, self.encode(function, args), time)
        if done.failed:
            return refusal(done.output)
        types = [abi_type(o) for o in FUNCTIONS[function]["outputs"]]
        values = CODEC.decode(types, done.output)
        return values[0] if len(values) == 1 else values

    def _send(self, sender: str, to: bytes, data: bytes, time: int | None) -> Executed:
        transaction = {
            "nonce": self._nonces[sender],
            "gas": GAS,
            "gasPrice": FEE,
            "to": bytes(to),
            "value": 0,
            "data": data,
            "chainId": self.evm.chain_id,
        }
        raw = Account.sign_transaction(transaction, key(sender)).raw_transaction
        self._nonces[sender] += 1
        return self.evm.send(bytes(raw), self.evm.now + 1 if time is None else time)

    def encode(self, function: str, args: tuple[Any, ...]) -> bytes:
        """Calldata; records are turned into tuples."""
        plain = [a.to_abi() if isinstance(a, Record) else a for a in args]
        types = [abi_type(i) for i in FUNCTIONS[function]["inputs"]]
        return _abi.SELECTORS[function] + CODEC.encode(types, plain)

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
    return Refusal(name, tuple(CODEC.decode([t for _, t in fields], output[4:])))


def abi_type(declared: dict[str, Any]) -> str:
    """The type of a parameter as an ABI encoder takes it: records as tuples of their members."""
    if not declared["type"].startswith("tuple"):
        return str(declared["type"])
    members = ",".join(abi_type(c) for c in declared["components"])
    return f"({members}){declared['type'].removeprefix('tuple')}"


def _decoded(log: Log) -> tuple[str, dict[str, Any]]:
    (name,) = [n for n, t in _abi.TOPICS.items() if t == log.topics[0]]
    entry = {
        "address": "0x" + bytes(20).hex(),
        "topics": log.topics,
        "data": log.data,
        "blockNumber": 0,
        "transactionHash": bytes(32),
        "transactionIndex": 0,
        "blockHash": bytes(32),
        "logIndex": 0,
    }
    return name, dict(DECODER.events[name]().process_log(entry)["args"])
