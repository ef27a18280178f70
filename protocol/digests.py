"""Hash functions and the RFC 6962 Merkle tree that receipts and fleets share.

Pure functions over bytes. The tree is that of RFC 6962 section 2.1 (leaf prefix 0x00, node prefix
0x01, unbalanced to the left), with SHA-256; proofs are checked as in RFC 9162 sections 2.1.3.2
(inclusion) and 2.1.4.2 (consistency).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from protocol.ids import Digest, Hash

EMPTY_ROOT = Digest(hashlib.sha256(b"").digest())
MAX_PROOF_NODES = 64


def keccak256(data: bytes) -> Hash:
    """Keccak-256 as Ethereum uses it (not FIPS 202 SHA3-256)."""
    from Crypto.Hash import keccak  # here: a device that only says its status needs no keccak

    return Hash(keccak.new(data=data, digest_bits=256).digest())


def sha256(data: bytes) -> Digest:
    """SHA-256 (FIPS 180-4)."""
    return Digest(hashlib.sha256(data).digest())


def leaf_hash(entry: bytes) -> Digest:
    """RFC 6962 leaf: SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry)


def node_hash(left: bytes, right: bytes) -> Digest:
    """RFC 6962 inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right)


def _split(size: int) -> int:
    """The largest power of two smaller than ``size`` (size >= 2)."""
    return 1 << (size - 1).bit_length() - 1


def merkle_root(leaves: Sequence[bytes]) -> Digest:
    """Root over *leaf hashes* (each from `leaf_hash`); SHA-256 of nothing for none."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return Digest(leaves[0])
    k = _split(len(leaves))
    return node_hash(merkle_root(leaves[:k]), merkle_root(leaves[k:]))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[Digest]:
    """The audit path of ``leaves[index]``, lowest sibling first (RFC 6962 section 2.1.1)."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_proof(leaves[:k], index), merkle_root(leaves[k:])]
    return [*inclusion_proof(leaves[k:], index - k), merkle_root(leaves[:k])]


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> bool:
    """Whether ``leaf`` (a leaf hash) stands at ``index`` of the tree of ``size`` with ``root``."""
    if not 0 <= index < size or len(path) > MAX_PROOF_NODES:
        return False
    fn, sn, running = index, size - 1, Digest(leaf)
    for sibling in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            running = node_hash(sibling, running)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            running = node_hash(running, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and running == root


def consistency_proof(leaves: Sequence[bytes], old: int) -> list[Digest]:
    """Proof that the tree of ``old`` leaves is a prefix of ``leaves`` (RFC 6962 section 2.1.2)."""
    if not 0 < old <= len(leaves):
        raise IndexError(old)
    return _subproof(old, leaves, whole=True)


def _subproof(old: int, leaves: Sequence[bytes], *, whole: bool) -> list[Digest]:
    if old == len(leaves):
        return [] if whole else [merkle_root(leaves)]
    k = _split(len(leaves))
    if old <= k:
        return [*_subproof(old, leaves[:k], whole=whole), merkle_root(leaves[k:])]
    return [*_subproof(old - k, leaves[k:], whole=False), merkle_root(leaves[:k])]


def verify_consistency(
    old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes
) -> bool:
    """Whether the tree (``new``, ``new_root``) only appended to (``old``, ``old_root``)."""
    if not 0 < old <= new or len(path) > MAX_PROOF_NODES:
        return False
    if old == new:
        return not path and old_root == new_root
    nodes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not nodes:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = Digest(nodes[0])
    for node in nodes[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(node, fr), node_hash(node, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root
