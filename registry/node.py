"""A JSON-RPC node: its answers as our types, its refusals as our errors.

Guarantees: whatever a node answers, only `Unreachable`, `Refused` and `LedgerRefused` come out, and
never a foreign error; a transaction that the node has already counts as sent.

Not here: how the node is reached (`registry.chain` hands in a function), and what a call means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protocol.digests import keccak256
from protocol.errors import LedgerRefused, Malformed, Refused, Unreachable
from protocol.header import parse_extra
from protocol.ids import Address, Hash
from registry.artifact import artifact
from registry.ports import Block, Event, Receipt
from registry.refusals import refusal

Request = Callable[[str, list[Any]], Any]

_KNOWN = ("already known", "known transaction", "already imported", "alreadyexists")
_TOO_LOW = ("nonce too low", "nonce_too_low", "nonce below")
_TOO_CHEAP = ("underpriced", "gas price too low", "below configured minimum", "fee too low")
_TOO_MANY = ("more than", "limit exceeded", "too many", "range")


class NodeError(Exception):
    """What a node answered instead of a result; does not leave this package's chain modules."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", error))[:500])
        self.code = error.get("code")
        self.text = str(self).lower()
        self.data = _revert_data(error)

    @property
    def reverted(self) -> bool:
        """Whether the contract, not the node, refused."""
        return self.code == 3 or bool(self.data) or "revert" in self.text

    @property
    def too_many(self) -> bool:
        """Whether fewer blocks asked for at once may be answered."""
        return any(hint in self.text for hint in _TOO_MANY)


class Node:
    """A node; speaks in plain JSON values, but for what has a type of ours."""

    def __init__(self, request: Request) -> None:
        """``request``: method and parameters to response; raises `OSError` or `ValueError`."""
        self._request = request

    def ask(self, method: str, *params: Any) -> Any:
        """A result; `NodeError` if the node refuses, `Unreachable` if there is no answer."""
        try:
            answer = self._request(method, list(params))
        except (OSError, ValueError) as fault:  # requests' errors are OSErrors, JSON's ValueErrors
            raise Unreachable(
                "rpc-unreachable",
                f"{method} not answered",
                str(fault)[:300] or type(fault).__name__,
                "check that the node is running and its address is right",
            ) from fault
        if not isinstance(answer, dict) or ("error" not in answer and "result" not in answer):
            raise strange(method, "the answer is no JSON-RPC response")
        if answer.get("error") is not None:
            error = answer["error"]
            raise NodeError(error if isinstance(error, dict) else {"message": error})
        return answer.get("result")

    def must(self, method: str, *params: Any) -> Any:
        """A result where no refusal is foreseen; `Unreachable` ``rpc-refused`` for any."""
        try:
            return self.ask(method, *params)
        except NodeError as error:
            raise unanswered(method, error) from error

    def number(self, method: str, *params: Any) -> int:
        """A result that is a quantity."""
        result = self.must(method, *params)
        try:
            return int(result, 16)
        except (TypeError, ValueError) as error:
            raise strange(method, f"{str(result)[:80]!r} is no quantity") from error

    def send(self, raw: bytes) -> Hash:
        """Offers a signed transaction; `Refused` as `registry.ports.TransactionSink` says."""
        try:
            self.ask("eth_sendRawTransaction", "0x" + raw.hex())
        except NodeError as error:
            if not any(hint in error.text for hint in _KNOWN):
                raise _unsent(error) from error
        return keccak256(raw)

    def receipt(self, tx: Hash) -> Receipt | None:
        """What came of a transaction, None while it is in no block."""
        shown = self.must("eth_getTransactionReceipt", str(tx))
        if shown is None or shown.get("blockHash") is None:
            return None
        contract = shown.get("contractAddress")
        return Receipt(
            tx=tx,
            block=int(shown["blockNumber"], 16),
            block_hash=Hash.parse(shown["blockHash"]),
            succeeded=int(shown["status"], 16) == 1,
            gas_used=int(shown["gasUsed"], 16),
            contract=Address.parse(contract) if contract else None,
            events=read_events(shown["logs"]),
        )


def _unsent(error: NodeError) -> Refused:
    if any(hint in error.text for hint in _TOO_LOW):
        reason, fix = "nonce-too-low", "the account was used elsewhere; it is sent anew"
    elif any(hint in error.text for hint in _TOO_CHEAP):
        reason, fix = "underpriced", "the fee is raised, up to fee_cap in settings.toml"
    else:
        reason, fix = "rejected", "check the account's funds and the node's limits"
    return Refused(reason, "transaction not taken", str(error), fix)


def read_block(shown: Mapping[str, Any]) -> Block:
    """A block as ``eth_getBlockBy…`` shows it."""
    return Block(
        number=int(shown["number"], 16),
        hash=Hash.parse(shown["hash"]),
        parent=Hash.parse(shown["parentHash"]),
        timestamp=int(shown["timestamp"], 16),
        validators=_validators(shown),
    )


def _validators(shown: Mapping[str, Any]) -> tuple[Address, ...]:
    """Those that the header lists, if it is QBFT's."""
    try:
        return parse_extra(bytes.fromhex(str(shown.get("extraData", "0x"))[2:])).validators
    except (ValueError, Malformed):
        return ()


def read_events(logs: Sequence[Mapping[str, Any]]) -> list[Event]:
    """The logs as events, in the order of the chain; foreign ones are left out."""
    events = []
    for log in logs:
        topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
        found = artifact().decode_event(topics, bytes.fromhex(log["data"][2:]))
        if found is None or log.get("removed"):
            continue
        events.append(
            Event(
                name=found[0],
                args=found[1],
                block=int(log["blockNumber"], 16),
                block_hash=Hash.parse(log["blockHash"]),
                tx=Hash.parse(log["transactionHash"]),
                index=int(log["logIndex"], 16),
            )
        )
    return sorted(events, key=lambda event: (event.block, event.index))


def refused(error: NodeError, function: str) -> LedgerRefused | Unreachable:
    """The contract's refusal of a call of ``function``, or the node's."""
    if error.reverted:
        return refusal(error.data, function)
    return unanswered(function, error)


def _revert_data(error: Mapping[str, Any]) -> bytes:
    """Revert data, which nodes put in ``data``, in ``data.data``, or into a sentence."""
    data = error.get("data")
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if not isinstance(data, str):
        return b""
    digits = data.rpartition("0x")[2].strip()
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def unanswered(method: str, error: NodeError) -> Unreachable:
    """The node refused something that it normally does."""
    return Unreachable(
        "rpc-refused", f"{method} not answered", str(error), "try again, or another node"
    )


def strange(method: str, why: str) -> Unreachable:
    """The node answered something that makes no sense."""
    return Unreachable("rpc-strange", f"{method} not used", why, "try again, or another node")
