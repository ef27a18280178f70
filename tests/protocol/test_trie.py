"""Merkle-Patricia proofs, against package ``trie``: presence, absence, and no other answer."""

from __future__ import annotations

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from protocol.digests import keccak256
from protocol.errors import FirmledgerError, Malformed, Untrusted
from protocol.ids import Hash
from protocol.trie import (
    EMPTY_ROOT,
    MAX_NODE_BYTES,
    MAX_NODES,
    MAX_VALUE_BYTES,
    NodePool,
    lookup,
    verify,
)
from tests.protocol.sealed import build_trie, filler_accounts, proof_nodes

# Paths that share long prefixes, so that extensions and inline nodes come about.
PATHS = st.builds(
    lambda lead, length, tail: Hash((bytes([lead]) * length + tail)[:32]),
    st.sampled_from([0x00, 0x11, 0x12]),
    st.integers(0, 32),
    st.binary(min_size=32, max_size=32),
)
VALUES = st.one_of(st.binary(min_size=1, max_size=2), st.binary(min_size=1, max_size=110))
TRIES = st.dictionaries(PATHS, VALUES, max_size=24)


def oracle_of(items: dict[Hash, bytes]) -> HexaryTrie:
    oracle = HexaryTrie({})
    for path, value in items.items():
        oracle.set(bytes(path), value)
    return oracle


def raw_proof(oracle: HexaryTrie, path: bytes) -> list[bytes]:
    """The oracle's proof, without the nodes it repeats although they are inline."""
    raws = [rlp.encode(node) for node in oracle.get_proof(path)]
    return [raw for raw in raws if len(raw) >= 32]


@given(TRIES, st.lists(PATHS, max_size=6))
def test_every_answer_is_the_oracles(items: dict[Hash, bytes], others: list[Hash]) -> None:
    oracle = oracle_of(items)
    root = Hash(oracle.root_hash)
    for path in [*items, *others]:
        pool = NodePool(raw_proof(oracle, bytes(path)))
        assert (lookup(root, path, pool) or b"") == oracle.get(bytes(path))
        pool.require_spent()


@given(TRIES)
def test_the_tries_of_these_tests_are_the_oracles(items: dict[Hash, bytes]) -> None:
    root, nodes = build_trie(items)
    oracle = oracle_of(items)
    assert root == oracle.root_hash
    for path in items:
        assert proof_nodes(root, path, nodes) == raw_proof(oracle, bytes(path))


@settings(deadline=None)
@given(st.dictionaries(st.binary(max_size=40), VALUES, min_size=1, max_size=60), st.binary())
def test_keys_are_hashed(items: dict[bytes, bytes], other: bytes) -> None:
    oracle = oracle_of({keccak256(key): value for key, value in items.items()})
    for key in [*items, other]:
        pool = NodePool(raw_proof(oracle, bytes(keccak256(key))))
        assert verify(Hash(oracle.root_hash), key, pool) == items.get(key)


def test_the_empty_trie_holds_nothing() -> None:
    pool = NodePool([])
    assert oracle_of({}).root_hash == EMPTY_ROOT
    assert verify(EMPTY_ROOT, b"anything", pool) is None
    pool.require_spent()


@settings(deadline=None, max_examples=30)
@given(TRIES.filter(bool), st.data())
def test_no_flipped_bit_of_any_node_gives_an_answer(
    items: dict[Hash, bytes], data: st.DataObject
) -> None:
    root, nodes = build_trie(items)
    path = data.draw(st.one_of(st.sampled_from(sorted(items)), PATHS))
    proof = proof_nodes(root, path, nodes)
    for index, raw in enumerate(proof):
        bit = data.draw(st.integers(0, 8 * len(raw) - 1))
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        pool = NodePool([*proof[:index], bytes(flipped), *proof[index + 1 :]])
        with pytest.raises(Untrusted) as caught:
            lookup(root, path, pool)
        assert caught.value.reason == "node-missing"


def world() -> tuple[Hash, Hash, list[bytes]]:
    items = filler_accounts(300)
    root, nodes = build_trie(items)
    path = keccak256(b"account 5")
    return root, path, proof_nodes(root, path, nodes)


def test_a_missing_node_is_never_an_absence() -> None:
    root, path, proof = world()
    assert len(proof) >= 3
    assert lookup(root, path, NodePool(proof)) is not None
    for index in range(len(proof)):
        with pytest.raises(Untrusted) as caught:
            lookup(root, path, NodePool(proof[:index] + proof[index + 1 :]))
        assert caught.value.reason == "node-missing"


def test_the_pool_is_spent_exactly_and_in_order() -> None:
    root, path, proof = world()
    _, strange = build_trie({keccak256(b"another"): b"value" * 9})
    for nodes in (
        [*proof, *strange.values()],
        [*strange.values(), *proof],
        [proof[0], *proof],
        list(reversed(proof)),
    ):
        pool = NodePool(nodes)
        assert lookup(root, path, pool) is not None
        with pytest.raises(Untrusted) as caught:
            pool.require_spent()
        assert caught.value.reason == "surplus-nodes"
        assert pool.spent() == tuple(proof)


def test_sizes_are_bounded_before_hashing() -> None:
    NodePool([bytes(MAX_NODE_BYTES)] * MAX_NODES)
    for nodes, reason in (
        ([bytes(32)] * (MAX_NODES + 1), "proof-oversized"),
        ([bytes(MAX_NODE_BYTES + 1)], "node-size"),
        ([bytes(31)], "node-size"),
    ):
        with pytest.raises(Malformed) as caught:
            NodePool(nodes)
        assert caught.value.reason == reason


def test_the_largest_nodes_and_values_fit_their_limits() -> None:
    account = rlp.encode([b"\xff" * 8, b"\xff" * 32, b"\xff" * 32, b"\xff" * 32])
    assert len(account) == MAX_VALUE_BYTES
    items = {keccak256(b"%d" % n): account for n in range(600)}
    root, nodes = build_trie(items)
    assert max(map(len, nodes.values())) == MAX_NODE_BYTES
    for path in list(items)[:20]:
        assert lookup(root, path, NodePool(proof_nodes(root, path, nodes))) == account


HASH = b"\xee" * 32
BRANCH = [b""] * 17


def leaf_of(path: bytes, *, flag: str = "20") -> list[object]:
    return [bytes.fromhex(flag + path.hex()), b"value"]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ([b"\x20" + bytes(32)], "bad-node"),
        ([b"\x20" + bytes(32), b"v", b"w"], "bad-node"),
        (b"a byte string of more than 32 bytes, no list", "bad-node"),
        ([bytes.fromhex("40") + bytes(32), b"value"], "bad-path"),  # an unknown flag
        ([bytes.fromhex("2f") + bytes(32), b"value"], "bad-path"),  # padding that is not zero
        ([bytes.fromhex("01") + bytes(9), HASH], "bad-path"),
        ([b"", b"value" * 9], "bad-path"),
        ([[b"\x20"], b"value" * 9], "bad-path"),
        ([b"\x20" + bytes(31), b"value"], "bad-leaf"),  # too short a path
        ([b"\x20" + bytes(33), b"value"], "bad-leaf"),  # too long a path
        ([b"\x20" + bytes(32), b""], "bad-leaf"),
        ([b"\x20" + bytes(32), [b"value"]], "bad-leaf"),
        ([b"\x20" + bytes(32), b"v" * 111], "bad-leaf"),
        ([b"\x00", HASH], "bad-extension"),  # an empty extension
        ([b"\x00" + bytes(32), HASH], "bad-extension"),  # one that ends the path
        ([b"\x00" + bytes(20), [b"\x20" + bytes(12), b"value"]], "bad-extension"),  # before a leaf
        ([b"\x00" + bytes(16), b"\xee" * 31], "bad-reference"),
        ([HASH[:31], *BRANCH[1:]], "bad-reference"),
        ([[b"\x20" + bytes(31), b"value"], *BRANCH[1:]], "bad-reference"),  # too long to be inline
        ([HASH, *BRANCH[1:16], b"value"], "bad-branch"),  # a value that no 32-byte key can have
        ([[b"short"], HASH, *BRANCH[2:]], "bad-node"),
    ],
)
def test_what_no_trie_holds_is_malformed_even_under_its_own_root(node: object, reason: str) -> None:
    raw = rlp.encode(node)
    with pytest.raises(Malformed) as caught:
        lookup(keccak256(raw), Hash(bytes(32)), NodePool([raw]))
    assert caught.value.reason == reason


def test_a_branch_below_the_last_nibble_is_malformed() -> None:
    bottom = rlp.encode([HASH, *BRANCH[1:]])
    middle = rlp.encode([bytes(keccak256(bottom)), *BRANCH[1:]])
    top = rlp.encode([bytes.fromhex("1" + "0" * 63), bytes(keccak256(middle))])
    with pytest.raises(Malformed) as caught:
        lookup(keccak256(top), Hash(bytes(32)), NodePool([top, middle, bottom]))
    assert caught.value.reason == "bad-branch"


@settings(max_examples=300)
@given(st.binary(min_size=32, max_size=120))
def test_garbage_under_its_own_root_is_only_our_error(raw: bytes) -> None:
    try:
        lookup(keccak256(raw), Hash(bytes(32)), NodePool([raw]))
    except FirmledgerError as error:
        assert isinstance(error, (Malformed, Untrusted))
