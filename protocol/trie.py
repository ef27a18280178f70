"""Merkle-Patricia proofs: what a 32-byte root says about one key, present or absent.

Guarantees: `verify` answers a value only if the trie with that root holds it at that key, and None
only if the trie holds nothing there (Ethereum Yellow Paper, appendix D, for tries whose keys are
keccak-256 hashes: the state trie and every storage trie). A missing node is an error, never an
absence.

Rules:

* A `NodePool` hashes each node once, at the start. Nodes are looked up by hash, so that proofs
  share them.
* The pool knows which nodes were used, in the order of their first use; `NodePool.require_spent`
  refuses any other sequence. Thus no byte of a proof is unauthenticated: a node more, a node
  twice or a node out of its place is refused.
* Every node has at most 532 bytes (a full branch), a path 64 nibbles, a walk 65 nodes.

Not here: what a value means. Leaf values are handed out as the bytes that stand in the leaf (for
accounts and storage words themselves RLP).
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.digests import keccak256
from protocol.errors import Malformed, Untrusted
from protocol.ids import Hash
from protocol.rlp import Item, decode, encode

EMPTY_ROOT = Hash.parse("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421")
"""Root of the trie that holds nothing: keccak256(RLP of the empty string)."""

MAX_NODES = 128
MAX_NODE_BYTES = 532  # a branch with 16 hashes: 3 + 16 * 33 + 1; an account's leaf has up to 148
MAX_VALUE_BYTES = 110  # an account with the largest nonce and balance
_PATH_NIBBLES = 64
_HASH_BYTES = 32
_BRANCH_ITEMS = 17


def bound_nodes(nodes: Sequence[bytes]) -> None:
    """`Malformed` unless there are at most `MAX_NODES`, each of 32 to `MAX_NODE_BYTES` bytes."""
    if len(nodes) > MAX_NODES:
        raise _malformed("proof-oversized", f"it has {len(nodes)} nodes, the limit is {MAX_NODES}")
    for raw in nodes:
        if not _HASH_BYTES <= len(raw) <= MAX_NODE_BYTES:
            why = f"a node has {len(raw)} bytes, not {_HASH_BYTES} to {MAX_NODE_BYTES}"
            raise _malformed("node-size", why)


class NodePool:
    """The trie nodes that came with a proof, each hashed once; remembers which were used.

    Not safe to share between verifications: make one for each.
    """

    def __init__(self, nodes: Sequence[bytes]) -> None:
        """``nodes``: encoded, within the limits of `bound_nodes`."""
        bound_nodes(nodes)
        self._given = [keccak256(raw) for raw in nodes]
        self._raw = dict(zip(self._given, nodes, strict=True))
        self._spent: dict[Hash, list[Item]] = {}  # decoded; its order is that of first use

    def take(self, ref: Hash) -> list[Item]:
        """The decoded node whose hash is ``ref``; `Untrusted` when it is not in the pool."""
        node = self._spent.get(ref)
        if node is None:
            raw = self._raw.get(ref)
            if raw is None:
                raise _untrusted("node-missing", f"trie node {ref} is not in it")
            node = self._spent[ref] = _decode_node(raw)
        return node

    def spent(self) -> tuple[bytes, ...]:
        """The encoded nodes used so far, each once, in the order of first use."""
        return tuple(self._raw[ref] for ref in self._spent)

    def require_spent(self) -> None:
        """`Untrusted` unless the pool was exactly the nodes used, in the order of first use."""
        if self._given != list(self._spent):
            why = (
                f"its {len(self._given)} nodes are not the {len(self._spent)} of the walk, in order"
            )
            raise _untrusted("surplus-nodes", why)


def verify(root: Hash, key: bytes, pool: NodePool) -> bytes | None:
    """What the trie with ``root`` holds at keccak256(``key``): a leaf's value, or None for nothing.

    Raises `Untrusted` when a node on the way is missing, `Malformed` when one is not a trie node.
    """
    return lookup(root, keccak256(key), pool)


def lookup(root: Hash, path: Hash, pool: NodePool) -> bytes | None:
    """As `verify`, for a key that is hashed already."""
    if root == EMPTY_ROOT:
        return None
    nibbles, at = path.hex(), 0  # one hexadecimal digit is one nibble
    node = pool.take(root)
    while True:  # ends: every turn moves `at` on, and 64 is the end of every path
        if len(node) == _BRANCH_ITEMS:
            child = _branch_child(node, nibbles[at:])
            at += 1
            if child == b"":
                return None
        else:
            is_leaf, part = _hex_prefix(node[0])
            if is_leaf:
                return _leaf_value(node[1], part, nibbles[at:])
            if not 0 < len(part) < _PATH_NIBBLES - at:
                raise _malformed("bad-extension", "an extension leads nowhere or past its key")
            if not nibbles.startswith(part, at):
                return None
            at += len(part)
            child = node[1]
        node = _follow(child, pool, after_extension=len(node) == 2)


def _branch_child(node: list[Item], rest: str) -> Item:
    """What the branch holds for the first nibble of ``rest``: nothing, a reference or a node."""
    if not rest or node[16] != b"":
        raise _malformed("bad-branch", "a branch stands, or holds a value, where a path has ended")
    return node[int(rest[0], 16)]


def _leaf_value(value: Item, part: str, rest: str) -> bytes | None:
    """The leaf's value if it is the leaf of this path; None if it is another key's."""
    if len(part) != len(rest):
        raise _malformed("bad-leaf", f"a leaf ends after {len(part)} nibbles, not {len(rest)}")
    if not isinstance(value, bytes) or not 0 < len(value) <= MAX_VALUE_BYTES:
        raise _malformed("bad-leaf", f"a leaf's value is not 1 to {MAX_VALUE_BYTES} bytes")
    return value if part == rest else None


def _follow(child: Item, pool: NodePool, *, after_extension: bool) -> list[Item]:
    """The node that ``child`` stands for: the one with that hash, or ``child`` itself (inline)."""
    if isinstance(child, list):
        if len(encode(child)) >= _HASH_BYTES:
            raise _malformed("bad-reference", "a node of 32 bytes or more is inline")
        node = _shaped(child)
    elif len(child) == _HASH_BYTES:
        node = pool.take(Hash(child))
    else:
        raise _malformed("bad-reference", f"a reference has {len(child)} bytes, not 32")
    if after_extension and len(node) != _BRANCH_ITEMS:
        raise _malformed("bad-extension", "an extension is not followed by a branch")
    return node


def _decode_node(raw: bytes) -> list[Item]:
    """A node of two items (leaf or extension) or seventeen (branch)."""
    # Inline nodes nest three deep at most: an extension, a branch and a leaf fit in 31 bytes, two
    # branches do not.
    return _shaped(decode(raw, max_bytes=MAX_NODE_BYTES, max_depth=4, max_items=MAX_NODE_BYTES))


def _shaped(item: Item) -> list[Item]:
    if not isinstance(item, list) or len(item) not in (2, _BRANCH_ITEMS):
        raise _malformed("bad-node", "it is neither a branch nor an extension nor a leaf")
    return item


def _hex_prefix(item: Item) -> tuple[bool, str]:
    """Whether a node is a leaf, and its nibbles (Yellow Paper, appendix C)."""
    text = item.hex() if isinstance(item, bytes) else ""
    if not text or text[0] not in "0123":
        raise _malformed("bad-path", "a path's flag is none of the four known")
    odd = text[0] in "13"
    if not odd and text[1] != "0":
        raise _malformed("bad-path", "an even path's padding is not zero")
    return text[0] in "23", text[1:] if odd else text[2:]


def _untrusted(reason: str, why: str) -> Untrusted:
    return Untrusted(reason, "state proof refused", why, "fetch the proof again")


def _malformed(reason: str, why: str) -> Malformed:
    return Malformed(reason, "state proof refused", why, "fetch the proof again")
