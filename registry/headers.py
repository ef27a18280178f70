"""Block headers and receipts as bytes, made from what JSON-RPC tells of a block.

Guarantees: the bytes of `header_bytes` hash to the block's hash, by QBFT's rule (seals and round
left out) or by Ethereum's; a block with header fields this module does not know is refused, never
guessed. `receipts_root` is the root of the trie of receipts (Yellow Paper 4.3.1, EIP-2718).

Not here: whether anyone sealed it (`protocol.header`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trie.hexary import HexaryTrie

from protocol.digests import keccak256
from protocol.errors import FirmledgerError, Unreachable
from protocol.header import MAX_HEADER_BYTES, Field, block_hash, parse_header
from protocol.ids import Hash
from protocol.rlp import Item, decode, encode, to_bytes, to_list

# JSON-RPC names in the order of the header; True: a number. The latter ones came with later forks
# (EIP-1559, 4895, 4844, 4788, 7685) and are there as far as the first that a block lacks.
FIELDS = (
    ("parentHash", False),
    ("sha3Uncles", False),
    ("miner", False),
    ("stateRoot", False),
    ("transactionsRoot", False),
    ("receiptsRoot", False),
    ("logsBloom", False),
    ("difficulty", True),
    ("number", True),
    ("gasLimit", True),
    ("gasUsed", True),
    ("timestamp", True),
    ("extraData", False),
    ("mixHash", False),
    ("nonce", False),
    ("baseFeePerGas", True),
    ("withdrawalsRoot", False),
    ("blobGasUsed", True),
    ("excessBlobGas", True),
    ("parentBeaconBlockRoot", False),
    ("requestsHash", False),
)
_KNOWN = 15


def header_bytes(block: Mapping[str, Any]) -> bytes:
    """The header, RLP, of a block as ``eth_getBlockBy…`` shows it.

    `Unreachable` ``header-mismatch`` if it does not hash to the block's hash.
    """
    fields: list[Item] = []
    for place, (name, is_number) in enumerate(FIELDS):
        value = block.get(name)
        if value is None:
            if place < _KNOWN:
                raise _mismatch(block, f"it has no {name}")
            break
        fields.append(_field(value, is_number))
    raw = encode(fields)
    if Hash.parse(block["hash"]) not in (keccak256(raw), _qbft_hash(raw)):
        raise _mismatch(block, "what the node tells of it does not hash to its name")
    return raw


def receipts_root(receipts: Sequence[Mapping[str, Any]]) -> Hash:
    """The root over a block's receipts, as ``eth_getBlockReceipts`` shows them."""
    tree = HexaryTrie({})
    for position, receipt in enumerate(receipts):
        tree[encode(_scalar(position))] = _receipt(receipt)
    return Hash(tree.root_hash)


def _receipt(shown: Mapping[str, Any]) -> bytes:
    logs: list[Item] = [
        [_bytes(log["address"]), [_bytes(topic) for topic in log["topics"]], _bytes(log["data"])]
        for log in shown["logs"]
    ]
    status, gas = _field(shown["status"], True), _field(shown["cumulativeGasUsed"], True)
    body = encode([status, gas, _bytes(shown["logsBloom"]), logs])
    kind = int(shown.get("type") or "0x0", 16)
    return bytes([kind]) + body if kind else body


def root_in(raw: bytes) -> Hash:
    """The receipts root in a header."""
    item = decode(raw, max_bytes=MAX_HEADER_BYTES, max_depth=8, max_items=MAX_HEADER_BYTES)
    return Hash(to_bytes(to_list(item, "header")[Field.RECEIPTS_ROOT], 32, "receipts root"))


def is_qbft(raw: bytes) -> bool:
    """Whether the header has QBFT's extraData."""
    return _qbft_hash(raw) is not None


def _qbft_hash(raw: bytes) -> Hash | None:
    try:
        return block_hash(parse_header(raw))
    except FirmledgerError:
        return None


def _mismatch(block: Mapping[str, Any], why: str) -> Unreachable:
    return Unreachable(
        "header-mismatch",
        f"block {block['hash']} not read",
        why,
        "ask another node; the chain may have a fork this version does not know",
    )


def _field(value: str, is_number: bool) -> bytes:
    return _scalar(int(value, 16)) if is_number else _bytes(value)


def _scalar(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))
