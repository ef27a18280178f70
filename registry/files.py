"""Files that are there whole or not at all, and survive power loss once they are there.

Rules: written aside, synced, then given their name, then the folder is synced. A secret gets mode
0600 before its first byte, and never replaces another file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from protocol.errors import LocalFault, Misuse
from protocol.ids import Digest

_PIECE = 1 << 20


@contextmanager
def whole_file(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A file that appears as ``path`` at the end, replacing what was there, if nothing raised."""
    aside = path.with_name(path.name + ".unfinished")
    try:
        aside.unlink(missing_ok=True)  # left by a write that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(aside, flags, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as fault:
        aside.unlink(missing_ok=True)
        raise LocalFault(
            "file-unwritable", f"{path} not written", str(fault), "check space and permissions"
        ) from fault
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_secret(path: Path, content: Mapping[str, Any]) -> None:
    """``content`` as JSON in a new file of mode 0600; `Misuse` ``key-exists`` if there is one.

    The folder is there already, with the mode its owner wants.
    """
    if path.exists():
        raise Misuse(
            "key-exists", f"{path} not written", "there is a key already", "choose another name"
        )
    with whole_file(path, mode=0o600) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")


def sync_folder(folder: Path) -> None:
    """Makes the names in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(path: Path) -> Digest:
    """SHA-256 of a file's content, read piece by piece; `LocalFault` if it cannot be read."""
    running = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                running.update(piece)
    except OSError as fault:
        raise LocalFault(
            "file-unreadable", f"{path} not read", str(fault), "check its name and permissions"
        ) from fault
    return Digest(running.digest())
