"""A ledger small enough to hold in the hand: tries built whole, headers sealed by test validators.

The tries are built bottom-up from sorted keys and encoded with package ``rlp``: a construction that
shares nothing with the verifier, and is compared with package ``trie`` in test_trie.py. All keys in
here are test vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import rlp
from coincurve import PrivateKey

from protocol.digests import keccak256
from protocol.header import Extra, Header, Vote, build_header, encode_header, sign_seal, with_seals
from protocol.ids import Address, Hash
from protocol.rlp import Item, from_uint

CONTRACT = Address(bytes.fromhex("f1") * 20)
CODE_HASH = keccak256(b"test vector: the code of the release ledger")
EMPTY_ROOT = keccak256(rlp.encode(b""))

Nodes = dict[bytes, bytes]


def build_trie(items: Mapping[bytes, bytes]) -> tuple[Hash, Nodes]:
    """Root and nodes by hash of the trie with ``items`` (32-byte paths to leaf values)."""
    nodes: Nodes = {}
    pairs = sorted((path.hex(), value) for path, value in items.items())
    if not pairs:
        return EMPTY_ROOT, nodes
    raw = rlp.encode(_build(pairs, 0, nodes))
    root = keccak256(raw)
    nodes[root] = raw
    return root, nodes


def _build(pairs: list[tuple[str, bytes]], depth: int, nodes: Nodes) -> list[Item]:
    first, last = pairs[0][0], pairs[-1][0]
    if len(pairs) == 1:
        return [_hex_prefix(first[depth:], leaf=True), pairs[0][1]]
    shared = depth
    while first[shared] == last[shared]:
        shared += 1
    if shared > depth:
        child = _reference(_build(pairs, shared, nodes), nodes)
        return [_hex_prefix(first[depth:shared], leaf=False), child]
    branch: list[Item] = [b""] * 17
    groups: dict[str, list[tuple[str, bytes]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0][depth], []).append(pair)
    for digit, group in groups.items():
        branch[int(digit, 16)] = _reference(_build(group, depth + 1, nodes), nodes)
    return branch


def _reference(node: list[Item], nodes: Nodes) -> Item:
    raw = rlp.encode(node)
    if len(raw) < 32:
        return node
    ref = keccak256(raw)
    nodes[ref] = raw
    return bytes(ref)


def _hex_prefix(nibbles: str, *, leaf: bool) -> bytes:
    flag = 2 * leaf + len(nibbles) % 2
    return bytes.fromhex(f"{flag:x}" + ("" if len(nibbles) % 2 else "0") + nibbles)


def proof_nodes(root: bytes, path: bytes, nodes: Nodes) -> list[bytes]:
    """The hashed nodes on the way to ``path``, root first, as ``eth_getProof`` lists them."""
    found: list[bytes] = []
    digits, node = path.hex(), bytes(root)
    while isinstance(node, list) or node in nodes:
        if not isinstance(node, list):
            found.append(nodes[node])
            node = rlp.decode(nodes[node])
        if len(node) == 17:
            node, digits = node[int(digits[0], 16)], digits[1:]
            continue
        text = node[0].hex()
        part = text[1:] if text[0] in "13" else text[2:]
        if text[0] in "23" or not digits.startswith(part):
            break
        node, digits = node[1], digits[len(part) :]
    return found


def storage_items(words: Mapping[bytes, int]) -> dict[bytes, bytes]:
    """Leaves of a storage trie: keccak(slot) to RLP of the word; zero words are not stored."""
    return {keccak256(slot): rlp.encode(from_uint(word)) for slot, word in words.items() if word}


def account_leaf(storage_root: bytes, code_hash: bytes = CODE_HASH) -> bytes:
    """The RLP of an account with nonce 1 and nothing in it."""
    return rlp.encode([b"\x01", b"", bytes(storage_root), bytes(code_hash)])


def filler_accounts(count: int) -> dict[bytes, bytes]:
    """``count`` leaves of ordinary accounts, at the paths of made-up addresses."""
    leaf = rlp.encode([b"\x07", b"\x0d" * 8, bytes(EMPTY_ROOT), bytes(keccak256(b""))])
    return {keccak256(b"account %d" % n): leaf for n in range(count)}


@dataclass(frozen=True)
class Validator:
    """A test validator: its key is a hash of its number."""

    number: int

    @property
    def key(self) -> bytes:
        return bytes(keccak256(b"firmledger test validator %d" % self.number))

    @property
    def address(self) -> Address:
        public = PrivateKey(self.key).public_key.format(compressed=False)
        return Address(keccak256(public[1:])[12:])


def validators(count: int, start: int = 0) -> list[Validator]:
    """Test validators ``start`` to ``start + count``, ascending by address as Besu lists them."""
    return sorted((Validator(start + n) for n in range(count)), key=lambda one: one.address)


def addresses(group: Iterable[Validator]) -> tuple[Address, ...]:
    return tuple(one.address for one in group)


def make_header(
    group: Sequence[Validator],
    *,
    state_root: bytes = EMPTY_ROOT,
    number: int = 7,
    timestamp: int = 1_800_000_000,
    round_number: int = 0,
    vote: Vote | None = None,
    more: Sequence[Item] = (),
) -> Header:
    """An unsealed header that lists ``group``; ``more`` fields follow the known ones."""
    fields: list[Item] = [
        bytes(keccak256(b"parent of %d" % number)),
        bytes(keccak256(rlp.encode([]))),
        bytes(group[0].address) if group else bytes(20),
        bytes(state_root),
        bytes(EMPTY_ROOT),
        bytes(EMPTY_ROOT),
        bytes(256),
        b"\x01",
        from_uint(number),
        from_uint(30_000_000),
        b"",
        from_uint(timestamp),
        b"",
        bytes.fromhex("63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365"),
        bytes(8),
        *more,
    ]
    vanity = b"firmledger test vector".ljust(32, b"\0")
    return build_header(fields, Extra(vanity, addresses(group), vote, round_number, ()))


def seal(header: Header, group: Iterable[Validator]) -> Header:
    """``header`` sealed by ``group``, in that order."""
    return with_seals(header, [sign_seal(header, one.key) for one in group])


@dataclass(frozen=True)
class World:
    """One block of a chain with one contract, and what a node would answer about it."""

    words: Mapping[bytes, int]
    accounts: int = 20
    group: Sequence[Validator] = field(default_factory=lambda: validators(4))
    code_hash: Hash = CODE_HASH
    more: Sequence[Item] = ()

    def __post_init__(self) -> None:
        storage_root, storage = build_trie(storage_items(self.words))
        state = filler_accounts(self.accounts)
        state[keccak256(CONTRACT)] = account_leaf(storage_root, self.code_hash)
        state_root, accounts = build_trie(state)
        for name, value in (
            ("storage", (storage_root, storage)),
            ("state", (state_root, accounts)),
        ):
            object.__setattr__(self, "_" + name, value)

    def header(self, *, sealed_by: Sequence[Validator] | None = None, **members: int) -> Header:
        """The sealed header of the block; by all validators unless told otherwise."""
        state_root = self._state[0]  # type: ignore[attr-defined]
        made = make_header(self.group, state_root=state_root, more=self.more, **members)
        return seal(made, self.group if sealed_by is None else sealed_by)

    def raw_header(self, **members: int) -> bytes:
        return encode_header(self.header(**members))

    def get_proof(self, slots: Sequence[bytes]) -> dict[str, object]:
        """The answer to ``eth_getProof``, as JSON would carry it."""
        state_root, accounts = self._state  # type: ignore[attr-defined]
        storage_root, storage = self._storage  # type: ignore[attr-defined]
        return {
            "address": "0x" + CONTRACT.hex(),
            "accountProof": _hex(proof_nodes(state_root, keccak256(CONTRACT), accounts)),
            "storageProof": [
                {
                    "key": "0x" + slot.hex(),
                    "value": hex(self.words.get(slot, 0)),
                    "proof": _hex(proof_nodes(storage_root, keccak256(slot), storage)),
                }
                for slot in slots
            ],
        }


def _hex(parts: Iterable[bytes]) -> list[str]:
    return ["0x" + part.hex() for part in parts]
