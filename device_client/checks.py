"""One finding of the hardening report, as `doctor` and `hardening` make it."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, OPEN = "ok", "warning", "open"


@dataclass(frozen=True)
class Check:
    """``level``: ok, warning (know it) or open (close it); ``fix``: how to close it."""

    name: str
    level: str
    what: str
    fix: str = ""
