"""The RFC 6962 tree: known roots, and every proof with its tampered twins."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import digests
from protocol.digests import Digest

# Roots of the first n of these entries: the inputs and values of Certificate Transparency's own
# tests (google/certificate-transparency, merkle_tree_test.cc).
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def leaves(count: int) -> list[Digest]:
    return [digests.leaf_hash(b"entry %d" % n) for n in range(count)]


@pytest.mark.parametrize("size", ROOTS)
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    hashes = [digests.leaf_hash(entry) for entry in ENTRIES[:size]]
    assert digests.merkle_root(hashes).hex() == ROOTS[size]


def test_the_empty_tree_hashes_nothing() -> None:
    assert digests.merkle_root([]) == hashlib.sha256(b"").digest()


def test_keccak_is_not_sha3() -> None:
    # keccak256("") as every Ethereum account without code carries it (Yellow Paper, section 4.1).
    assert digests.keccak256(b"").hex() == (
        "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_is_included_and_no_other(size: int) -> None:
    hashes = leaves(size)
    root = digests.merkle_root(hashes)
    for index, leaf in enumerate(hashes):
        path = digests.inclusion_proof(hashes, index)
        assert digests.verify_inclusion(leaf, index, size, path, root)
        twins = [
            (digests.leaf_hash(b"another"), index, size, path, root),
            (leaf, index, size, path, digests.leaf_hash(b"root")),
            (leaf, index, size, [*path, leaf], root),
            (leaf, size, size, path, root),
        ]
        if path:
            twins.append((leaf, index, size, path[:-1], root))
            twins.append((leaf, index, size, [digests.sha256(path[0]), *path[1:]], root))
        if size > 1:
            twins.append((leaf, (index + 1) % size, size, path, root))
        for twin in twins:
            assert not digests.verify_inclusion(*twin)


@pytest.mark.parametrize("new", range(1, 20))
def test_growth_is_proved_and_rewriting_is_not(new: int) -> None:
    hashes = leaves(new)
    root = digests.merkle_root(hashes)
    for old in range(1, new + 1):
        before = digests.merkle_root(hashes[:old])
        path = digests.consistency_proof(hashes, old)
        assert digests.verify_consistency(old, new, path, before, root)
        rewritten = digests.merkle_root([digests.leaf_hash(b"other"), *hashes[1:old]])
        assert not digests.verify_consistency(old, new, path, rewritten, root)
        assert not digests.verify_consistency(old, new, [*path, root], before, root)
        if path:
            assert not digests.verify_consistency(old, new, path[:-1], before, root)


@given(
    st.integers(-1, 9),
    st.integers(-1, 9),
    st.lists(st.binary(min_size=32, max_size=32), max_size=70),
)
def test_made_up_proofs_prove_nothing(index: int, size: int, path: list[bytes]) -> None:
    leaf, root = digests.leaf_hash(b"leaf"), digests.sha256(b"root")
    assert not digests.verify_inclusion(leaf, index, size, path, root)
    assert not digests.verify_consistency(index, size, path, leaf, root)
