"""Blobs: bytes kept under the SHA-256 of their content, in DIR/blobs/ab/cd/<sha256>.

Guarantees:

* What is at an address has that digest: it was hashed on the way in, and only then given its name.
* A blob is there whole and durable, or not at all: written aside, synced, renamed, folder synced.
* A full disk, an oversized or a wrong blob leaves nothing behind.

Rules: the largest size is a mandatory argument; a blob is never changed, so writing it twice is
writing it once. Nothing is encrypted or decrypted here: artifacts come encrypted.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import LocalFault, Malformed, Misuse, Untrusted
from protocol.ids import Digest

CHUNK = 1 << 20


class FileBlobs:
    """The file store; safe for any number of threads and processes."""

    def __init__(self, root: Path) -> None:
        """``root`` is made if it is missing."""
        self._root = root
        with _faults(root):
            root.mkdir(mode=0o755, parents=True, exist_ok=True)

    def put(
        self, chunks: Iterable[bytes], *, max_size: int, expect: Digest | None = None
    ) -> tuple[Digest, int]:
        """Stores a stream; returns its digest and size in bytes.

        `Malformed` ``blob-oversized`` beyond ``max_size``, `Untrusted` ``blob-digest`` if it is not
        ``expect``, `LocalFault` if the disk refuses; whatever ``chunks`` raises goes through.
        """
        with self._aside() as (handle, path):
            digest, size = self._copy(chunks, handle, max_size)
            if expect is not None and digest != expect:
                raise Untrusted(
                    "blob-digest",
                    f"blob {expect} refused",
                    f"the bytes have the digest {digest}",
                    "send them again, whole and unchanged",
                )
            with _faults(self._root):
                self._settle(handle, path, digest)
        return digest, size

    def put_bytes(self, content: bytes, *, max_size: int) -> Digest:
        """Stores what is in memory already."""
        return self.put([content], max_size=max_size)[0]

    def path(self, digest: Digest) -> Path:
        """The file of a blob, for ranged reading; `Misuse` ``unknown-blob`` if there is none."""
        path = self._place(digest)
        if not path.is_file():
            raise Misuse(
                "unknown-blob",
                f"blob {digest} not found",
                "this registry does not hold it",
                "ask another registry, or publish it here",
            )
        return path

    def read(self, digest: Digest, *, max_size: int) -> bytes:
        """A small blob whole, its digest checked again; `Malformed` if larger than ``max_size``."""
        with _faults(self._root), self.path(digest).open("rb") as file:
            content = file.read(max_size + 1)
        if len(content) > max_size:
            raise _oversized(max_size)
        if hashlib.sha256(content).digest() != digest:
            raise self._damaged(digest)
        return content

    def verify(self, digest: Digest) -> int:
        """Hashes a blob again and returns its size; `LocalFault` ``blob-damaged`` if it changed."""
        running, size = hashlib.sha256(), 0
        with _faults(self._root), self.path(digest).open("rb") as file:
            while chunk := file.read(CHUNK):
                running.update(chunk)
                size += len(chunk)
        if running.digest() != digest:
            raise self._damaged(digest)
        return size

    def __contains__(self, digest: Digest) -> bool:
        return self._place(digest).is_file()

    def __iter__(self) -> Iterator[Digest]:
        """The digests of all blobs, ascending."""
        for path in sorted(self._root.glob("??/??/*")):
            if len(path.name) == 2 * Digest.size:
                yield Digest.parse(path.name)

    def _place(self, digest: Digest) -> Path:
        name = digest.hex()
        return self._root / name[:2] / name[2:4] / name

    @contextmanager
    def _aside(self) -> Iterator[tuple[int, Path]]:
        """A file of no blob's name, gone at the end unless it was renamed."""
        with _faults(self._root):
            handle, name = tempfile.mkstemp(prefix="incoming-", dir=self._root)
        try:
            yield handle, Path(name)
        finally:
            os.close(handle)
            Path(name).unlink(missing_ok=True)

    def _copy(self, chunks: Iterable[bytes], handle: int, max_size: int) -> tuple[Digest, int]:
        running, size = hashlib.sha256(), 0
        for chunk in chunks:  # what they raise is theirs, not the disk's
            size += len(chunk)
            if size > max_size:  # before it is written: an endless sender fills no disk
                raise _oversized(max_size)
            running.update(chunk)
            view = memoryview(chunk)
            with _faults(self._root):
                while view:
                    view = view[os.write(handle, view) :]
        return Digest(running.digest()), size

    def _settle(self, handle: int, path: Path, digest: Digest) -> None:
        """1 content on disk, 2 folders on disk, 3 its name: never a name without the content."""
        target = self._place(digest)
        os.fsync(handle)
        os.fchmod(handle, 0o644)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        for folder in (target.parent, target.parent.parent, self._root):
            _sync(folder)

    def _damaged(self, digest: Digest) -> LocalFault:
        return LocalFault(
            "blob-damaged",
            f"blob {digest} not used",
            "its content is no longer what it was when it was stored",
            f"delete {self._place(digest)} and store it again; check the disk",
        )


def _oversized(max_size: int) -> Malformed:
    return Malformed(
        "blob-oversized",
        "blob refused",
        f"it is larger than {max_size} bytes",
        "raise max_blob in settings.toml if it is meant to be that large",
    )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _faults(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise LocalFault(
            "blob-store",
            f"{root} not used",
            str(fault),
            "check free space and permissions; nothing was half-written",
        ) from fault
