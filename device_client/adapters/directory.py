"""A directory as the device's medium: one file per region.

Guarantees: `write` and `read` are whole or raise; `sync` is fsync, after which the region's pages
are dropped from the cache, so that reading back asks the medium; a new file's name is durable too.
On a file system that is read-only all can be read, and every write is refused as that.
Errors of the system become `LocalFault`, in one place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from device_client.ports import Bytes
from protocol.errors import LocalFault, Malformed

_FIXES = {
    errno.ENOSPC: ("disk-full", "free some space; what was written so far is kept"),
    errno.EDQUOT: ("disk-full", "free some space; what was written so far is kept"),
    errno.EROFS: ("read-only", "mount the file system writable"),
    errno.EACCES: ("no-permission", "run as the user who owns the device directory"),
    errno.EPERM: ("no-permission", "run as the user who owns the device directory"),
    errno.ENOENT: ("missing-file", "restore it, or set the device up again with `init --force`"),
    errno.EIO: ("medium-failed", "replace the medium"),
}


def fault(what: str, error: OSError) -> LocalFault:
    """The system's error as ours."""
    fallback = ("local-io", "see the system's log")
    reason, fix = _FIXES.get(error.errno or 0, fallback)
    return LocalFault(reason, f"{what} failed", os.strerror(error.errno or 0), fix)


@contextlib.contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turns an OSError inside into a `LocalFault`."""
    try:
        yield
    except OSError as error:
        raise fault(what, error) from error


class Directory:
    """Implements `ports.Disk` over the files below ``root``. Not shared between threads."""

    def __init__(self, root: Path) -> None:
        """``root`` must exist. Files are opened when first used, and stay open until `close`."""
        self._root = root
        self._open: dict[str, int] = {}
        self._read_only: set[str] = set()

    def size(self, name: str) -> int:
        """How many bytes the region has; 0 if there is none."""
        path = self._root / name
        with mapped(f"reading {name}"):
            return path.stat().st_size if path.exists() else 0

    def reserve(self, name: str, size: int) -> None:
        """Give the region at least ``size`` bytes, on blocks that are its own from then on."""
        path = self._root / name
        with mapped(f"reserving {size} bytes for {name}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            descriptor = self._descriptor(name, create=True)
            held = os.fstat(descriptor)
            if held.st_size < size:
                _grow(descriptor, held.st_size, size)
            if new:
                sync_directory(path.parent)

    def read(self, name: str, offset: int, into: memoryview) -> int:
        """Fill ``into`` from ``offset``; how many bytes there were."""
        done = 0
        with mapped(f"reading {name}"):
            descriptor = self._descriptor(name)
            while done < len(into):
                count = os.preadv(descriptor, [into[done:]], offset + done)
                if count == 0:
                    break
                done += count
        return done

    def write(self, name: str, offset: int, data: Bytes) -> None:
        """Write all of ``data``."""
        rest, done = memoryview(data), 0
        with mapped(f"writing {name}"):
            descriptor = self._descriptor(name)
            if name in self._read_only:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            while done < len(rest):
                done += os.pwrite(descriptor, rest[done:], offset + done)

    def sync(self, name: str) -> None:
        """Durable; and the cache is dropped."""
        with mapped(f"making {name} durable"):
            descriptor = self._descriptor(name)
            if name not in self._read_only:  # nothing of it waits to be written
                os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def lock(self, name: str) -> None:
        """Make the region this process's alone until `close`; `LocalFault` if another has it."""
        descriptor = self._descriptor(name, create=True)  # nothing is in it that could be lost
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LocalFault(
                "in-use",
                f"{name} refused",
                "another process is working on it",
                "wait until it has ended, or stop it",
            ) from error

    def close(self) -> None:
        """Close all files; locks end here."""
        self._read_only.clear()
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, name: str, *, create: bool = False) -> int:
        if name not in self._open:
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            with mapped(f"opening {name}"):
                try:
                    self._open[name] = os.open(self._root / name, flags, 0o600)
                except OSError as error:
                    if error.errno != errno.EROFS:
                        raise
                    self._open[name] = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
                    self._read_only.add(name)
        return self._open[name]


def _grow(descriptor: int, held: int, size: int) -> None:
    """Extend a file to ``size`` on blocks of its own, or leave it as it was.

    A failing allocation keeps what it got until then, up to the whole disk: so the room is looked
    at before, and what was taken in vain is given back.
    """
    stats = os.fstatvfs(descriptor)
    if size - held > stats.f_bavail * stats.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.ftruncate(descriptor, held)
        raise
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_secret(path: Path, data: bytes) -> None:
    """A new file of mode 0600 with ``data``, durable and whole, or none."""
    draft = path.with_suffix(path.suffix + ".new")
    with mapped(f"writing {path.name}"):
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
        sync_directory(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """The file, to be read; `LocalFault` for a pipe or a device, which might never answer."""
    with mapped(f"reading {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise LocalFault(
        "not-a-file",
        f"{path.name} refused",
        "it is a directory, a pipe or a device",
        "give the path of a file",
    )


def read_bounded(path: Path, maximum: int) -> bytes:
    """The file's bytes; `Malformed` if there are more than ``maximum``."""
    data = bytearray()
    with mapped(f"reading {path}"), open_regular(path) as file:
        while piece := file.read(min(1 << 20, maximum + 1 - len(data))):
            data += piece
    if len(data) > maximum:
        raise Malformed(
            "oversized",
            f"{path.name} refused",
            f"it has more than {maximum} bytes",
            "check that it is the right file",
        )
    return bytes(data)
