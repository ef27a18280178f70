"""Block headers as bytes, made from what JSON-RPC tells of a block.

Guarantees: the bytes returned hash to the block's hash, by QBFT's rule (seals and round left out)
or by Ethereum's; a block with header fields this module does not know is refused, never guessed.

Not here: whether anyone sealed it (`protocol.header`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.digests import keccak256
from protocol.errors import FirmledgerError, Unreachable
from protocol.header import block_hash, parse_header
from protocol.ids import Hash
from protocol.rlp import Item, encode

# JSON-RPC names in the order of the header; True: a number. The latter ones came with later forks
# (EIP-1559, 4895, 4844, 4788, 7685) and are there as far as the first that a block lacks.
_FIELDS = (
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
    for place, (name, is_number) in enumerate(_FIELDS):
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
    digits = value.removeprefix("0x")
    if is_number:
        number = int(digits, 16)
        return number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes.fromhex(digits)
