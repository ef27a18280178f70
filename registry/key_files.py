"""Private key files at the publisher's side: JSON, mode 0600, in folders of mode 0700.

Guarantees: a key file is written whole or not at all, and never overwritten; a file that others may
read is refused, and one that is damaged says so, whatever is in it.

Not here: what is in them (`registry.keys`, `registry.signing_keys`, `registry.recovery`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from protocol.errors import LocalFault, Malformed
from registry.depth import read_json
from registry.files import write_secret

MAX_KEY_FILE = 64 * 1024


class readable:
    """Reads a key file (a JSON object), and maps what is wrong with it inside to `LocalFault`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> dict[str, Any]:
        try:
            if self._path.stat().st_mode & 0o077:
                raise LocalFault(
                    "key-exposed",
                    f"{self._path} not used",
                    "other accounts of this machine may read or write it",
                    f"find out who did, then `chmod 600 {self._path}`",
                )
            with self._path.open("rb") as file:
                content = read_json(file.read(MAX_KEY_FILE))
        except OSError as fault:
            raise LocalFault(
                "key-unreadable", f"{self._path} not used", str(fault), "check its permissions"
            ) from fault
        except ValueError as fault:
            raise self._damaged(fault) from fault
        if not isinstance(content, dict):
            raise self._damaged("it is no JSON object")
        return content

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> None:
        if isinstance(fault, Malformed | ValueError | KeyError | TypeError | AttributeError):
            raise self._damaged(fault) from fault

    def _damaged(self, fault: object) -> LocalFault:
        return LocalFault(
            "key-damaged", f"{self._path} not used", f"it is not a key file: {fault}", "restore it"
        )


def write_key_file(root: Path, path: Path, content: dict[str, Any]) -> None:
    """A new key file in a folder of ``root``, both made if need be; `Misuse` if it is there."""
    for folder in (root, path.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
    write_secret(path, content)


def secret_of(text: object) -> bytes:
    """32 bytes from 0x and 64 hex digits; ValueError for anything else."""
    if not isinstance(text, str) or not re.fullmatch(r"0x[0-9a-f]{64}", text, re.ASCII):
        raise ValueError("a private key is not 0x and 64 hex digits")
    return bytes.fromhex(text[2:])
