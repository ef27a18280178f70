"""The methods of the JSON-RPC façade, by name (Ethereum JSON-RPC specification).

Rules: only what the served head covers is shown. "latest", "pending", "safe" and "finalized" are
the head, since a sealed block is final; calls on it see the time of now. There are no accounts to
sign with, and no filters to keep.

Errors: our own families only; `rpc` turns them into codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from protocol.errors import Refused
from protocol.header import Field, Header, block_hash
from protocol.ids import Address
from registry.embedded import calls, parameters, proofs, views
from registry.embedded.calls import Meter
from registry.embedded.execution import Nodes, Surroundings
from registry.embedded.parameters import invalid, positional
from registry.embedded.rows import LogFilter, Mined
from registry.embedded.sealing import BLOCK_GAS, raw_field

if TYPE_CHECKING:
    from registry.embedded.ledger import EmbeddedLedger

MAX_PROVED_SLOTS = 1024
MAX_FEE_HISTORY = 1024
MAX_PERCENTILES = 100
CLIENT = "firmledger-embedded/1"
HEAD_TAGS = frozenset({"latest", "pending", "safe", "finalized"})


class Methods:
    """Each method takes the request's ``params`` and returns its ``result``; for one request."""

    def __init__(self, ledger: EmbeddedLedger, meter: Meter) -> None:
        self._ledger, self._meter = ledger, meter
        self.by_name: dict[str, Callable[[object], Any]] = {
            "web3_clientVersion": lambda _: CLIENT,
            "net_version": lambda _: str(ledger.chain_id),
            "net_listening": lambda _: True,
            "eth_chainId": lambda _: views.quantity(ledger.chain_id),
            "eth_syncing": lambda _: False,
            "eth_accounts": lambda _: [],
            "eth_gasPrice": lambda _: views.quantity(0),
            "eth_maxPriorityFeePerGas": lambda _: views.quantity(0),
            "eth_blockNumber": lambda _: views.quantity(ledger.head.number),
            "eth_feeHistory": self._fee_history,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getTransactionCount": self._transaction_count,
            "eth_getBalance": self._balance,
            "eth_getCode": self._code,
            "eth_getStorageAt": self._storage,
            "eth_getProof": self._proof,
            "eth_getLogs": self._logs,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send,
        }

    # Blocks and transactions

    def _block_by_number(self, params: object) -> Any:
        tag, whole = positional(params, 1, 2)
        number = self._number(tag)
        return None if number > self._ledger.head.number else self._shown(number, bool(whole))

    def _block_by_hash(self, params: object) -> Any:
        wanted, whole = positional(params, 1, 2)
        number = self._ledger.store.number_of(parameters.fixed(wanted, 32))
        if number is None or number > self._ledger.head.number:
            return None
        return self._shown(number, bool(whole))

    def _block_receipts(self, params: object) -> Any:
        header = self._header(positional(params, 1, 1)[0])
        return [self._receipt_of(mined) for mined in self._ledger.store.mined_in(header.number)]

    def _transaction(self, params: object) -> Any:
        wanted = parameters.fixed(positional(params, 1, 1)[0], 32)
        # Pool first: a transaction leaves it only after its block is served.
        pending, mined = self._ledger.pool.get(wanted), self._mined(wanted)
        if mined is not None:
            return views.transaction(mined, block_hash(self._at(mined.block)))
        return None if pending is None else views.waiting(pending)

    def _receipt(self, params: object) -> Any:
        mined = self._mined(parameters.fixed(positional(params, 1, 1)[0], 32))
        return None if mined is None else self._receipt_of(mined)

    def _logs(self, params: object) -> Any:
        (wanted,) = positional(params, 1, 1)
        if not isinstance(wanted, dict):
            raise invalid("a filter is an object")
        first, last = self._range(wanted)
        addresses = parameters.address_choice(wanted.get("address"))
        topics = parameters.topic_choices(wanted.get("topics"))
        head = self._ledger.head.number
        if first > head:
            return []
        found = self._ledger.store.logs(LogFilter(first, min(last, head), addresses, topics))
        return [views.log(item) for item in found]

    def _fee_history(self, params: object) -> Any:
        count, newest, percentiles = positional(params, 2, 3)
        last = self._header(newest).number
        wanted = parameters.quantity(count) if isinstance(count, str) else count
        if not isinstance(wanted, int) or not 0 < wanted <= MAX_FEE_HISTORY:
            raise invalid(f"a fee history has 1 to {MAX_FEE_HISTORY} blocks")
        wanted_rewards = percentiles or []
        if not isinstance(wanted_rewards, list) or len(wanted_rewards) > MAX_PERCENTILES:
            raise invalid(f"at most {MAX_PERCENTILES} percentiles are taken, in a list")
        headers = [self._at(number) for number in range(max(0, last - wanted + 1), last + 1)]
        free = views.quantity(0)
        return {
            "oldestBlock": views.quantity(headers[0].number),
            "baseFeePerGas": [free] * (len(headers) + 1),
            "gasUsedRatio": [_gas_used(header) / BLOCK_GAS for header in headers],
            "reward": [[free] * len(wanted_rewards) for _ in headers],
        }

    # Accounts and calls

    def _balance(self, params: object) -> str:
        address, tag = positional(params, 1, 2)
        accounts = self._ledger.accounts(self._header(tag))
        return views.quantity(accounts.balance(parameters.fixed(address, 20)))

    def _code(self, params: object) -> str:
        address, tag = positional(params, 1, 2)
        accounts = self._ledger.accounts(self._header(tag))
        return views.data(accounts.code(parameters.fixed(address, 20)))

    def _storage(self, params: object) -> str:
        address, slot, tag = positional(params, 2, 3)
        accounts = self._ledger.accounts(self._header(tag))
        word = accounts.storage(parameters.fixed(address, 20), parameters.slot(slot))
        return views.data(word.to_bytes(32, "big"))

    def _transaction_count(self, params: object) -> str:
        given, tag = positional(params, 1, 2)
        sender = Address(parameters.fixed(given, 20))
        count = self._ledger.accounts(self._header(tag)).nonce(sender)
        if tag == "pending":
            count = self._ledger.pool.next_nonce(sender, count)
        return views.quantity(count)

    def _proof(self, params: object) -> Any:
        address, slots, tag = positional(params, 2, 3)
        if not isinstance(slots, list) or len(slots) > MAX_PROVED_SLOTS:
            raise invalid(f"a proof covers a list of at most {MAX_PROVED_SLOTS} slots")
        header = self._header(tag)
        return proofs.prove(
            Nodes(self._ledger.store.node),
            header.state_root,
            parameters.fixed(address, 20),
            [parameters.slot(slot) for slot in slots],
        )

    def _call(self, params: object) -> str:
        message, tag = positional(params, 1, 2)
        root, around = self._scene(tag)
        nodes = Nodes(self._ledger.store.node)
        return views.data(calls.call(nodes, root, around, parameters.call(message), self._meter))

    def _estimate(self, params: object) -> str:
        message, tag = positional(params, 1, 2)
        root, around = self._scene(tag)
        nodes = Nodes(self._ledger.store.node)
        wanted = parameters.call(message)
        return views.quantity(calls.estimate(nodes, root, around, wanted, self._meter))

    def _send(self, params: object) -> str:
        return views.data(self._ledger.submit(parameters.data(positional(params, 1, 1)[0])))

    # Which block is meant

    def _number(self, tag: object) -> int:
        if tag is None or (isinstance(tag, str) and tag in HEAD_TAGS):
            return self._ledger.head.number
        return 0 if tag == "earliest" else parameters.quantity(tag)

    def _header(self, tag: object) -> Header:
        """The block that ``tag`` names: a tag, a number, or an EIP-1898 object."""
        if isinstance(tag, dict):
            if "blockHash" in tag:
                return self._at(
                    self._ledger.store.number_of(parameters.fixed(tag["blockHash"], 32))
                )
            tag = tag.get("blockNumber")
        elif not (tag is None or isinstance(tag, str)):
            raise invalid("a block is named by tag, number or hash")
        return self._at(self._number(tag))

    def _at(self, number: int | None) -> Header:
        head = self._ledger.head
        if number == head.number:
            return head.header
        header = (
            None if number is None or number > head.number else self._ledger.store.header(number)
        )
        if header is None:
            raise Refused(
                "unknown-block",
                "query refused",
                "there is no such block",
                f"the head is at {head.number}",
            )
        return header

    def _range(self, wanted: dict[str, Any]) -> tuple[int, int]:
        if "blockHash" in wanted:
            if "fromBlock" in wanted or "toBlock" in wanted:
                raise invalid("a filter has blockHash, or fromBlock and toBlock")
            number = self._header({"blockHash": wanted["blockHash"]}).number
            return number, number
        first, last = self._number(wanted.get("fromBlock")), self._number(wanted.get("toBlock"))
        if first > last:
            raise invalid("fromBlock is above toBlock")
        return first, last

    def _scene(self, tag: object) -> tuple[bytes, Surroundings]:
        """State root and surroundings of a call: at the head, those of a block made now."""
        header, head = self._header(tag), self._ledger.head.header
        if header.number == head.number:
            return header.state_root, self._ledger.next_surroundings(header)
        return header.state_root, self._ledger.surroundings_of(header)

    # What is shown

    def _shown(self, number: int, whole: bool) -> dict[str, Any]:
        return views.block(self._at(number), self._ledger.store.mined_in(number), whole=whole)

    def _mined(self, transaction: bytes) -> Mined | None:
        mined = self._ledger.store.mined(transaction)
        return None if mined is None or mined.block > self._ledger.head.number else mined

    def _receipt_of(self, mined: Mined) -> dict[str, Any]:
        logs = self._ledger.store.logs_of(mined)
        return views.receipt(mined, block_hash(self._at(mined.block)), logs)


def _gas_used(header: Header) -> int:
    return int.from_bytes(raw_field(header, Field.GAS_USED), "big")
