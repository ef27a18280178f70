"""How the tests read what the ledger says, with other people's code: rlp, trie and eth_keys.

Nothing in here uses the package under test, so that both cannot be wrong in the same way.
"""

from __future__ import annotations

from typing import Any

import rlp
from eth_keys import keys
from eth_utils import keccak
from trie import HexaryTrie

from protocol.header import Header, encode_header
from protocol.ids import Address

BLOCK_FIELDS = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot"),
    *("logsBloom", "difficulty", "number", "gasLimit", "gasUsed", "timestamp", "extraData"),
    *("mixHash", "nonce", "baseFeePerGas"),
)
NUMBERS = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas"}


def unhex(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def header_fields(block: dict[str, Any]) -> list[bytes]:
    """The header's fields as RLP takes them, from a block's JSON."""
    fields = []
    for name in BLOCK_FIELDS:
        if name in NUMBERS:
            fields.append(rlp.sedes.big_endian_int.serialize(int(block[name], 16)))
        else:
            fields.append(unhex(block[name]))
    return fields


def hash_without_seals(fields: list[bytes]) -> bytes:
    vanity, validators, vote, round_number, _seals = rlp.decode(fields[12])
    bare = [*fields]
    bare[12] = rlp.encode([vanity, validators, vote, round_number, []])
    return keccak(rlp.encode(bare))


def sealers_of(fields: list[bytes]) -> list[bytes]:
    """Who sealed a header, in the order of the seals."""
    digest = hash_without_seals(fields)
    *_, seals = rlp.decode(fields[12])
    signatures = [keys.Signature(signature_bytes=seal) for seal in seals]
    return [s.recover_public_key_from_msg_hash(digest).to_canonical_address() for s in signatures]


def sealers(header: Header) -> list[Address]:
    return [Address(sealer) for sealer in sealers_of(rlp.decode(encode_header(header)))]


def check_account_proof(proof: dict[str, Any], state_root: bytes) -> None:
    """Every claim of an `eth_getProof` answer, against a state root; raises on any lie."""
    nodes = [rlp.decode(unhex(node)) for node in proof["accountProof"]]
    account = HexaryTrie.get_from_proof(state_root, keccak(unhex(proof["address"])), nodes)
    claimed = [
        rlp.sedes.big_endian_int.serialize(int(proof["nonce"], 16)),
        rlp.sedes.big_endian_int.serialize(int(proof["balance"], 16)),
        unhex(proof["storageHash"]),
        unhex(proof["codeHash"]),
    ]
    if account:
        assert rlp.decode(account) == claimed
    else:
        assert claimed == [b"", b"", keccak(rlp.encode(b"")), keccak(b"")]
    for item in proof["storageProof"]:
        _check_slot(item, claimed[2])


def _check_slot(item: dict[str, Any], storage_root: bytes) -> None:
    key = keccak(int(item["key"], 16).to_bytes(32, "big"))
    nodes = [rlp.decode(unhex(node)) for node in item["proof"]]
    if not nodes:
        assert storage_root == keccak(rlp.encode(b""))
        assert item["value"] == "0x0"
        return
    found = HexaryTrie.get_from_proof(storage_root, key, nodes)
    proved = int.from_bytes(rlp.decode(found), "big") if found else 0
    assert proved == int(item["value"], 16)
