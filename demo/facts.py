"""What chapters write down for others to read."""

from __future__ import annotations

from dataclasses import dataclass

LEDGER = "ledger"


@dataclass(frozen=True, slots=True)
class Refusal:
    """``who`` (a device's id in hex, or `LEDGER`) refused ``what``, for ``reason``."""

    who: str
    what: str
    reason: str
