"""The ledger over JSON-RPC: the one place, with `registry.embedded`, that sees web3.

Guarantees: implements every port of `registry.ports` for any EVM chain; node and network errors
come out as `Unreachable`, the contract's as `LedgerRefused` with a sentence, and nothing foreign.

Rules: what can be asked by block hash is. The node is the operator's own choice and may be wrong:
what matters is proved to devices, and re-derived by `registry.audit`.

Not here: when to send and what to do about refusals (`registry.publish`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from web3.providers.base import BaseProvider
from web3.providers.rpc import HTTPProvider
from web3.types import RPCEndpoint

from protocol.digests import keccak256
from protocol.errors import LedgerRefused, Misuse, Unreachable, Untrusted
from protocol.ids import Address, Hash
from protocol.ledger import Reason
from protocol.records import Device, Ledger, Product, State, Terms
from registry.artifact import artifact
from registry.depth import restore_limit
from registry.headers import header_bytes, receipts_root, root_in
from registry.node import (
    Node,
    NodeError,
    read_block,
    read_events,
    refused,
    strange,
    unanswered,
)
from registry.ports import Block, Call, Event, Fees, Receipt, Signer
from registry.refusals import refusal
from registry.signer import transaction

if TYPE_CHECKING:
    from registry.embedded import EmbeddedLedger

restore_limit()  # which a library that web3 loads raises for the whole process

NOWHERE = Address(bytes(20))
SPAN = 5_000  # blocks asked for at once
POLL = 0.2  # seconds between looks for a receipt


def node_at(rpc: str, *, timeout: float = 10.0) -> Node:
    """The node at an address; ``timeout`` in seconds for each request."""
    return _node(HTTPProvider(rpc, request_kwargs={"timeout": timeout}))


def node_inside(ledger: EmbeddedLedger) -> Node:
    """The embedded ledger of this process."""
    from registry.embedded.provider import InProcessProvider  # loads an EVM: not for other chains

    return _node(InProcessProvider(ledger))


def _node(provider: BaseProvider) -> Node:
    return Node(lambda method, params: provider.make_request(cast(RPCEndpoint, method), params))


class Chain:
    """One ledger contract on one chain; safe for threads as its provider is."""

    def __init__(self, node: Node, contract: Address) -> None:
        """Asks the node for its chain id."""
        self._node = node
        self.ledger = Ledger(node.number("eth_chainId"), contract)

    @classmethod
    def connect(cls, rpc: str, contract: Address, *, timeout: float = 10.0) -> Self:
        """The contract behind a node's address."""
        return cls(node_at(rpc, timeout=timeout), contract)

    @classmethod
    def inside(cls, ledger: EmbeddedLedger, contract: Address) -> Self:
        """The contract on the embedded ledger of this process."""
        return cls(node_inside(ledger), contract)

    # -- following --------------------------------------------------------------------------------

    def head(self) -> Block:
        """The newest block."""
        return self._tagged("latest")

    def finalized(self) -> Block:
        """The newest block the chain itself calls final."""
        return self._tagged("finalized")

    def block(self, which: int | Hash) -> Block | None:
        """By height on the canonical chain, or by hash; None if there is none."""
        shown = self._block(which)
        return None if shown is None else read_block(shown)

    def events(self, block: Hash) -> Sequence[Event]:
        """The contract's events of one block, in order."""
        return read_events(self._node.must("eth_getLogs", self._filter(blockHash=str(block))))

    def events_between(self, first: int, last: int) -> Iterator[Event]:
        """The contract's events of the canonical blocks ``first`` to ``last``, in order."""
        span = SPAN
        while first <= last:
            until = min(first + span - 1, last)
            try:
                logs = self._node.ask(
                    "eth_getLogs", self._filter(fromBlock=hex(first), toBlock=hex(until))
                )
            except NodeError as error:
                if span == 1 or not error.too_many:
                    raise unanswered("eth_getLogs", error) from error
                span = max(1, span // 4)
                continue
            yield from read_events(logs)
            first = until + 1

    # -- proving ----------------------------------------------------------------------------------

    def header(self, block: Hash) -> bytes:
        """The header, RLP, with all its seals."""
        return header_bytes(self._shown(block))

    def proof(self, slots: Sequence[Hash], block: Hash) -> Mapping[str, Any]:
        """The answer of ``eth_getProof`` for the contract (EIP-1186)."""
        wanted = [str(slot) for slot in slots]
        where = {"blockHash": str(block)}
        try:
            answer = self._node.ask("eth_getProof", str(self.ledger.contract), wanted, where)
        except NodeError:  # some nodes know heights only (EIP-1898 is optional)
            at = self.block(block)
            if at is None:
                raise strange("eth_getProof", f"there is no block {block}") from None
            answer = self._node.must(
                "eth_getProof", str(self.ledger.contract), wanted, hex(at.number)
            )
        if not isinstance(answer, dict):
            raise strange("eth_getProof", "the answer is no proof")
        return answer

    def proved_events(self, block: Hash) -> Sequence[Event]:
        """The contract's events of one block, out of receipts that hash to its header's root."""
        shown = self._shown(block)
        raw = header_bytes(shown)
        # By height, as all nodes know it: the root below binds the answer to the block.
        receipts = self._node.must("eth_getBlockReceipts", shown["number"])
        if not isinstance(receipts, list) or receipts_root(receipts) != root_in(raw):
            raise Untrusted(
                "receipts-mismatch",
                f"events of block {block} refused",
                "the receipts that the node shows are not those of the block",
                "ask another node",
            )
        logs = [log for receipt in receipts for log in receipt["logs"]]
        ours = [log for log in logs if Address.parse(log["address"]) == self.ledger.contract]
        return read_events(ours)

    def code_hash(self) -> Hash:
        """keccak256 of the contract's runtime code; `Misuse` ``no-contract`` if there is none."""
        code = self._node.must("eth_getCode", str(self.ledger.contract), "latest")
        if code in (None, "0x"):
            raise Misuse(
                "no-contract",
                f"ledger {self.ledger.contract} not used",
                "there is no contract at that address",
                "check address and chain, or deploy it with `firmledger ledger deploy`",
            )
        return keccak256(bytes.fromhex(code[2:]))

    # -- reading ----------------------------------------------------------------------------------

    def read(self, call: Call, *, sender: Address = NOWHERE) -> tuple[Any, ...]:
        """What a function answers at the head; `LedgerRefused` if it refuses."""
        request = {"from": str(sender), "to": str(self.ledger.contract), "data": self._data(call)}
        try:
            answer = self._node.ask("eth_call", request, "latest")
        except NodeError as error:
            raise refused(error, call.function) from error
        return artifact().decode_result(call.function, bytes.fromhex(answer[2:]))

    def eligible(
        self, product: Product, terms: Terms, release: int, state: State, device: Device
    ) -> Reason:
        """The contract's own verdict; `LedgerRefused` if a record is not current."""
        answer = self.read(Call("eligible", (product, terms, release, state, device)))
        return Reason(answer[0])

    # -- writing ----------------------------------------------------------------------------------

    def nonce(self, sender: Address) -> int:
        """Transactions of ``sender`` in blocks so far."""
        return self._node.number("eth_getTransactionCount", str(sender), "latest")

    def fees(self) -> Fees:
        """Twice the base fee and the tip asked; or the gas price, where there is no base fee."""
        shown = self._node.must("eth_getBlockByNumber", "latest", False)
        base = int(shown.get("baseFeePerGas") or "0x0", 16)
        if base == 0:
            return Fees(self._node.number("eth_gasPrice"))
        tip = self._node.number("eth_maxPriorityFeePerGas")
        return Fees(2 * base + tip, tip)

    def estimate(self, sender: Address, call: Call) -> int:
        """Gas that ``call`` takes now; `LedgerRefused` if the contract would refuse it."""
        request = {"from": str(sender), "to": str(self.ledger.contract), "data": self._data(call)}
        try:
            return int(self._node.ask("eth_estimateGas", request), 16)
        except NodeError as error:
            raise refused(error, call.function) from error

    def encode(self, call: Call) -> bytes:
        """Calldata."""
        return artifact().encode(call.function, call.args)

    def send(self, raw: bytes) -> Hash:
        """Offers a signed transaction; "already known" is success."""
        return self._node.send(raw)

    def receipt(self, tx: Hash) -> Receipt | None:
        """What came of it, None while it is in no block."""
        return self._node.receipt(tx)

    def sender_and_input(self, tx: Hash) -> tuple[Address, Address | None, bytes]:
        """Who sent a transaction, to whom, and its calldata, for auditors."""
        shown = self._node.must("eth_getTransactionByHash", str(tx))
        if shown is None:
            raise strange("eth_getTransactionByHash", f"there is no transaction {tx}")
        to = Address.parse(shown["to"]) if shown.get("to") else None
        return Address.parse(shown["from"]), to, bytes.fromhex(shown["input"][2:])

    def why_reverted(
        self, sender: Address, data: bytes, gas: int, receipt: Receipt
    ) -> LedgerRefused:
        """The refusal behind a failed receipt: the call is run again on the states around it."""
        request = {
            "from": str(sender),
            "to": str(self.ledger.contract),
            "data": "0x" + data.hex(),
            "gas": hex(gas),
        }
        found = artifact().decode_call(data)
        name = found[0] if found else "transaction"
        for height in (receipt.block, receipt.block - 1):
            try:
                self._node.ask("eth_call", request, hex(height))
            except NodeError as error:
                if error.reverted:
                    return refusal(error.data, name)
        return refusal(b"", name)

    def transact(
        self,
        signer: Signer,
        call: Call,
        *,
        timeout: float,
        rest: Callable[[float], None] = time.sleep,
    ) -> Receipt:
        """Signs, sends and waits for the block: for single acts of people, such as a halt.

        `LedgerRefused` before or after sending, `Unreachable` ``not-mined`` after ``timeout``
        seconds. It has no memory: what must survive a crash goes through `registry.publish`.
        """
        gas = with_margin(self.estimate(signer.address, call))
        data = self.encode(call)
        receipt = _transact(
            self._node, self.ledger, signer, self.ledger.contract, data, gas, self.fees(),
            timeout, rest,
        )  # fmt: skip
        if not receipt.succeeded:
            raise self.why_reverted(signer.address, data, gas, receipt)
        return receipt

    # -- inside -----------------------------------------------------------------------------------

    def _tagged(self, tag: str) -> Block:
        shown = self._node.must("eth_getBlockByNumber", tag, False)
        if shown is None:
            raise strange("eth_getBlockByNumber", f"there is no {tag} block")
        return read_block(shown)

    def _shown(self, block: Hash) -> dict[str, Any]:
        shown = self._block(block)
        if shown is None:
            raise strange("eth_getBlockByHash", f"there is no block {block}")
        return shown

    def _block(self, which: int | Hash) -> dict[str, Any] | None:
        if isinstance(which, int):
            shown = self._node.must("eth_getBlockByNumber", hex(which), False)
        else:
            shown = self._node.must("eth_getBlockByHash", str(which), False)
        return cast("dict[str, Any] | None", shown)

    def _filter(self, **where: str) -> dict[str, str]:
        return {"address": str(self.ledger.contract), **where}

    def _data(self, call: Call) -> str:
        return "0x" + self.encode(call).hex()


def deploy(
    node: Node, signer: Signer, *, timeout: float, rest: Callable[[float], None] = time.sleep
) -> tuple[Address, Receipt]:
    """Puts the contract on a chain; its address, and the receipt (whose block nothing precedes)."""
    code = artifact().bytecode
    ledger = Ledger(node.number("eth_chainId"), NOWHERE)
    request = {"from": str(signer.address), "data": "0x" + code.hex()}
    gas = with_margin(node.number("eth_estimateGas", request))
    fees = Chain(node, NOWHERE).fees()
    receipt = _transact(node, ledger, signer, None, code, gas, fees, timeout, rest)
    if not receipt.succeeded or receipt.contract is None:
        raise LedgerRefused(
            "not-deployed", "contract not deployed", "its creation was reverted",
            "check the block gas limit and the account's funds", error="",
        )  # fmt: skip
    return receipt.contract, receipt


def with_margin(gas: int) -> int:
    """An estimate and a fifth: state may change before the block; gas left over is not paid."""
    return gas + gas // 5 + 5_000


def _transact(
    node: Node, ledger: Ledger, signer: Signer, to: Address | None, data: bytes, gas: int,
    fees: Fees, timeout: float, rest: Callable[[float], None],
) -> Receipt:  # fmt: skip
    nonce = node.number("eth_getTransactionCount", str(signer.address), "pending")
    tx = node.send(signer.sign(transaction(ledger, to, data, nonce=nonce, gas=gas, fees=fees)))
    deadline = time.monotonic() + timeout
    while (receipt := node.receipt(tx)) is None:
        if time.monotonic() > deadline:
            raise Unreachable(
                "not-mined", f"transaction {tx} not seen in a block", f"waited {timeout:g} s",
                "look for it later: it may still be taken in", tx=str(tx),
            )  # fmt: skip
        rest(POLL)
    return receipt
