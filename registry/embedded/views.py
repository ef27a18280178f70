"""Blocks, transactions, receipts and logs as JSON-RPC shows them (field names as Besu's).

Rule: every block hash in here is the QBFT hash, and extraData carries the seals, so that whoever
reads a block over JSON-RPC can verify it offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rlp  # type: ignore[import-untyped,unused-ignore]

from protocol.header import Header, block_hash
from protocol.ids import Hash
from registry.embedded.execution import decode_transaction
from registry.embedded.pool import Pending
from registry.embedded.rows import FoundLog, Mined
from registry.embedded.sealing import BASE_FEE, DIFFICULTY, raw_field
from registry.headers import FIELDS

LEGACY = 0


def quantity(value: int) -> str:
    """A number as 0x-hex without leading zeros."""
    return hex(value)


def data(value: bytes) -> str:
    """Bytes as 0x-hex."""
    return "0x" + bytes(value).hex()


def block(header: Header, mined: Sequence[Mined], *, whole: bool) -> dict[str, Any]:
    """A block; its transactions ``whole``, or as hashes."""
    name = block_hash(header)
    shown: dict[str, Any] = {"hash": data(name)}
    for place, (key, is_number) in enumerate(FIELDS[: len(header.fields)]):
        value = raw_field(header, place)
        shown[key] = quantity(int.from_bytes(value, "big")) if is_number else data(value)
    shown["totalDifficulty"] = quantity(DIFFICULTY * (header.number + 1))
    shown["size"] = quantity(_size(header, mined))
    shown["transactions"] = [
        transaction(item, name) if whole else data(item.hash) for item in mined
    ]
    shown["uncles"] = []
    return shown


def transaction(mined: Mined, block: Hash) -> dict[str, Any]:
    """A transaction in its block."""
    place = {
        "blockHash": data(block),
        "blockNumber": quantity(mined.block),
        "transactionIndex": quantity(mined.position),
    }
    return _transaction(mined.raw, mined.hash, mined.sender) | place


def waiting(pending: Pending) -> dict[str, Any]:
    """A transaction that is in no block yet."""
    place = {"blockHash": None, "blockNumber": None, "transactionIndex": None}
    return _transaction(pending.raw, pending.hash, pending.sender) | place


def receipt(mined: Mined, block: Hash, logs: Sequence[FoundLog]) -> dict[str, Any]:
    """What came of a transaction; ``logs`` are its own."""
    decoded = decode_transaction(mined.raw)
    return {
        "transactionHash": data(mined.hash),
        "transactionIndex": quantity(mined.position),
        "blockHash": data(block),
        "blockNumber": quantity(mined.block),
        "from": data(mined.sender),
        "to": data(decoded.to) if decoded.to else None,
        "contractAddress": data(mined.contract) if mined.contract else None,
        "status": quantity(int(mined.succeeded)),
        "gasUsed": quantity(mined.gas_used),
        "cumulativeGasUsed": quantity(mined.cumulative_gas),
        "effectiveGasPrice": quantity(_price(decoded)),
        "type": quantity(_type_of(decoded)),
        "logsBloom": data(mined.bloom),
        "logs": [log(found) for found in logs],
    }


def log(found: FoundLog) -> dict[str, Any]:
    """An event where it happened."""
    return {
        "address": data(found.log.address),
        "topics": [data(topic) for topic in found.log.topics],
        "data": data(found.log.data),
        "blockHash": data(found.block_hash),
        "blockNumber": quantity(found.block),
        "transactionHash": data(found.mined_hash),
        "transactionIndex": quantity(found.mined_position),
        "logIndex": quantity(found.position),
        "removed": False,
    }


def _transaction(raw: bytes, own_hash: bytes, sender: bytes) -> dict[str, Any]:
    decoded: Any = decode_transaction(raw)
    kind = _type_of(decoded)
    view: dict[str, Any] = {
        "hash": data(own_hash),
        "type": quantity(kind),
        "chainId": quantity(decoded.chain_id),
        "nonce": quantity(decoded.nonce),
        "from": data(sender),
        "to": data(decoded.to) if decoded.to else None,
        "value": quantity(decoded.value),
        "gas": quantity(decoded.gas),
        "gasPrice": quantity(_price(decoded)),
        "input": data(decoded.data),
        "v": quantity(decoded.v if kind == LEGACY else decoded.y_parity),
        "r": quantity(decoded.r),
        "s": quantity(decoded.s),
    }
    if kind != LEGACY:
        view["yParity"] = quantity(decoded.y_parity)
        view["accessList"] = [
            {"address": data(account), "storageKeys": [_word(key) for key in keys]}
            for account, keys in decoded.access_list
        ]
    if kind == 2:
        view["maxFeePerGas"] = quantity(decoded.max_fee_per_gas)
        view["maxPriorityFeePerGas"] = quantity(decoded.max_priority_fee_per_gas)
    return view


def _word(value: int) -> str:
    return data(value.to_bytes(32, "big"))


def _type_of(decoded: Any) -> int:
    return int(getattr(decoded, "type_id", None) or LEGACY)


def _price(decoded: Any) -> int:
    return int(min(decoded.max_fee_per_gas, decoded.max_priority_fee_per_gas + BASE_FEE))


def _size(header: Header, mined: Sequence[Mined]) -> int:
    bodies = [m.raw if m.raw[0] < 0xC0 else rlp.decode(m.raw) for m in mined]
    return len(rlp.encode([list(header.fields), bodies, []]))
