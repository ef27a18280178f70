"""RFC 6962 trees that are asked often: all levels are kept, so a path costs their number.

`protocol.digests` defines the same tree by recursion, which is what a verifier reads and what the
tests hold this one against; there every path costs the whole tree.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.digests import EMPTY_ROOT, node_hash
from protocol.ids import Digest


class Tree:
    """A tree over leaf hashes (each from `protocol.digests.leaf_hash`); it does not change.

    A level's odd one out moves up as it is: that is RFC 6962's split at the largest power of two.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """Takes one hash per inner node; 32 bytes times twice the leaves of memory."""
        self._levels: list[list[bytes]] = [list(leaves)]
        while len(self._levels[-1]) > 1:
            self._levels.append(_above(self._levels[-1]))

    def __len__(self) -> int:
        return len(self._levels[0])

    @property
    def root(self) -> Digest:
        """The root; SHA-256 of nothing for no leaves."""
        top = self._levels[-1]
        return Digest(top[0]) if top else EMPTY_ROOT

    def path(self, index: int) -> list[Digest]:
        """The audit path of a leaf, lowest sibling first; IndexError if there is no such leaf."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(Digest(level[sibling]))
            index >>= 1
        return path


def _above(level: list[bytes]) -> list[bytes]:
    pairs = zip(level[0::2], level[1::2], strict=False)
    upper: list[bytes] = [node_hash(left, right) for left, right in pairs]
    return upper + level[len(level) & ~1 :]
