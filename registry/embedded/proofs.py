"""`eth_getProof` (EIP-1186): account and storage proofs, straight from the state tries.

Guarantees: for any block of the chain, since no node is ever deleted. Absence is proved, too. A
node under 32 bytes lives inside its parent and is not listed again, as in geth and Besu.

Cost: reading the few nodes on the path; nothing is executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import rlp  # type: ignore[import-untyped,unused-ignore]
from trie.hexary import HexaryTrie

from protocol.digests import keccak256
from registry.embedded.execution import EMPTY_ROOT, Nodes
from registry.embedded.views import data, quantity

EMPTY_CODE = keccak256(b"")
_ABSENT = [b"", b"", EMPTY_ROOT, bytes(EMPTY_CODE)]


def prove(nodes: Nodes, state_root: bytes, address: bytes, slots: Sequence[int]) -> dict[str, Any]:
    """The account ``address`` and its ``slots`` under ``state_root``, as EIP-1186 writes them."""
    encoded, account_proof = _lookup(nodes, state_root, address)
    nonce, balance, storage_root, code_hash = rlp.decode(encoded) if encoded else _ABSENT
    return {
        "address": data(address),
        "accountProof": account_proof,
        "balance": quantity(int.from_bytes(balance, "big")),
        "codeHash": data(code_hash),
        "nonce": quantity(int.from_bytes(nonce, "big")),
        "storageHash": data(storage_root),
        "storageProof": [_storage(nodes, storage_root, slot) for slot in slots],
    }


def _storage(nodes: Nodes, root: bytes, slot: int) -> dict[str, Any]:
    encoded, proof = _lookup(nodes, root, slot.to_bytes(32, "big"))
    value = int.from_bytes(rlp.decode(encoded), "big") if encoded else 0
    return {"key": quantity(slot), "value": quantity(value), "proof": proof}


def _lookup(nodes: Nodes, root: bytes, key: bytes) -> tuple[bytes, list[str]]:
    """The value under keccak256(key), empty if absent, and the nodes that show it."""
    if root == EMPTY_ROOT:
        return b"", []
    tree: Any = HexaryTrie(cast(Any, nodes), cast(Any, root))
    path = keccak256(key)
    encoded = [rlp.encode(node) for node in tree.get_proof(path)]
    listed = [data(node) for place, node in enumerate(encoded) if place == 0 or len(node) >= 32]
    return bytes(tree.get(path)), listed
