"""Bytes that look random and are the same in every run."""

from __future__ import annotations

import hashlib


class Stream:
    """SHAKE-256 of a seed, read on and on; stands in for `secrets.token_bytes`."""

    def __init__(self, seed: bytes) -> None:
        self._seed, self._calls = seed, 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(self._seed + self._calls.to_bytes(8, "big")).digest(size)
