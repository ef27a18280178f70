"""Operators: who may write to this registry through its API.

Guarantees: the service keeps hashes only (``DIR/keys/operators.json``); the token itself lies in
``DIR/operator.token`` (0600), where the command line on this machine finds it, and the service
never opens that file. Comparing takes the same time whatever is wrong.

Rules: a token is 32 random bytes; its SHA-256 needs no salt and no stretching.

Not here: scopes. A token's holder may submit releases and enrol devices; what is published is still
the approvers' to decide.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

from protocol.errors import LocalFault, Misuse
from registry.files import whole_file, write_secret

TOKEN_FILE = "operator.token"  # noqa: S105 - a file name
MAX_FILE = 64 * 1024
_PREFIX = "fl_"


def draw_operator(directory: Path, entropy: Callable[[int], bytes]) -> None:
    """Draws a token and writes both files, the hash first; nothing if there is a token already."""
    if (directory / TOKEN_FILE).exists():
        return
    token = _PREFIX + entropy(32).hex()
    hashes = directory / "keys" / "operators.json"
    hashes.unlink(missing_ok=True)
    write_secret(hashes, {"tokens": [{"name": "operator", "sha256": _hash(token)}]})
    with whole_file(directory / TOKEN_FILE, mode=0o600) as file:
        file.write(token.encode() + b"\n")


def read_token(directory: Path) -> str:
    """The token for the command line; `Misuse` ``no-token`` if this account cannot read it."""
    path = directory / TOKEN_FILE
    try:
        with path.open(encoding="ascii") as file:
            return file.read(MAX_FILE).strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise Misuse(
            "no-token",
            "nothing asked of the registry",
            f"{path} cannot be read: {fault}",
            "run this as the account that made the registry",
        ) from fault


class Operators:
    """Recognises tokens by their hashes."""

    def __init__(self, directory: Path) -> None:
        """Reads the hashes; `LocalFault` if they cannot be."""
        path = directory / "keys" / "operators.json"
        try:
            with path.open(encoding="utf-8") as file:
                rows = json.loads(file.read(MAX_FILE))["tokens"]
            self._names = {str(row["sha256"]): str(row["name"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise LocalFault(
                "operators-unreadable",
                f"{path} not read",
                str(fault) or type(fault).__name__,
                "restore it, or write it anew: "
                '{"tokens": [{"name": "operator", "sha256": "<of what operator.token holds>"}]}',
            ) from fault

    def name(self, token: str) -> str | None:
        """Whose token it is, None if nobody's."""
        given, found = _hash(token), None
        for known, name in self._names.items():
            if hmac.compare_digest(known, given):
                found = name
        return found


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
