"""The storage of an account as its trie: words in, root out, by the `trie` library.

Keeps what it has and changes what differs, so that following a contract act by act is cheap.
"""

from __future__ import annotations

import rlp
from trie import HexaryTrie

from protocol.digests import keccak256


class StorageTrie:
    """A storage trie that follows a set of words."""

    def __init__(self) -> None:
        self._trie = HexaryTrie({})
        self._held: dict[int, bytes] = {}

    def root(self, words: dict[int, bytes]) -> bytes:
        """The root over ``words`` (32 bytes each, by place); a word of zeros is none."""
        wanted = {place: word for place, word in words.items() if any(word)}
        for place in self._held.keys() - wanted.keys():
            del self._trie[_key(place)]
        for place, word in wanted.items() - self._held.items():
            self._trie[_key(place)] = rlp.encode(word.lstrip(b"\0"))
        self._held = wanted
        return bytes(self._trie.root_hash)


def _key(place: int) -> bytes:
    return bytes(keccak256(place.to_bytes(32, "big")))
