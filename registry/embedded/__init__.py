"""The embedded ledger: a QBFT-sealed chain in one process and one directory (design section 6).

It speaks Ethereum JSON-RPC, and its blocks, seals and proofs are such that devices verify them with
the code they run against Besu. What it is not: decentralised. Whoever owns its host owns the
ledger; a trust file for it says ``embedded``, and production devices refuse that.

A transaction's way: `rpc` -> `admission` -> `pool` -> `ledger` (stamps) -> `execution` (runs) ->
`sealing` (seals) -> `store` (commits), and only then it is served.
"""

from __future__ import annotations

from registry.depth import restore_limit
from registry.embedded.home import Home
from registry.embedded.ledger import Clock, EmbeddedLedger, Head

__all__ = ["Clock", "EmbeddedLedger", "Head", "Home"]

restore_limit()  # which py-evm raises for the whole process; see `registry.depth`
