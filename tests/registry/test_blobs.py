"""Blobs: whole under their digest, or not there at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digests import sha256
from protocol.errors import LocalFault, Malformed, Misuse, Untrusted
from registry.blobs import FileBlobs

CONTENT = b"firmware" * 1000


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


def files(blobs: FileBlobs) -> list[Path]:
    return [path for path in blobs._root.rglob("*") if path.is_file()]


def pieces(content: bytes, size: int = 700) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def test_a_blob_is_found_under_the_digest_of_its_content(blobs: FileBlobs) -> None:
    digest, size = blobs.put(pieces(CONTENT), max_size=len(CONTENT), expect=sha256(CONTENT))
    assert (digest, size) == (sha256(CONTENT), len(CONTENT))
    name = digest.hex()
    assert blobs.path(digest) == blobs._root / name[:2] / name[2:4] / name
    assert blobs.path(digest).read_bytes() == CONTENT
    assert blobs.read(digest, max_size=len(CONTENT)) == CONTENT
    assert digest in blobs
    assert list(blobs) == [digest]
    assert blobs.verify(digest) == len(CONTENT)
    # Again is once.
    assert blobs.put_bytes(CONTENT, max_size=len(CONTENT)) == digest
    assert len(files(blobs)) == 1


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_any_stream_is_stored_as_it_is(chunks: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        blobs = FileBlobs(Path(folder))
        digest, size = blobs.put(chunks, max_size=5_000)
        assert blobs.read(digest, max_size=size) == b"".join(chunks)


def test_one_byte_too_many_leaves_nothing(blobs: FileBlobs) -> None:
    with pytest.raises(Malformed) as refused:
        blobs.put(pieces(CONTENT), max_size=len(CONTENT) - 1)
    assert refused.value.reason == "blob-oversized"
    assert files(blobs) == []


def test_an_endless_stream_is_cut_off(blobs: FileBlobs) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1000)

    with pytest.raises(Malformed):
        blobs.put(endless(), max_size=10_000)
    assert taken == 11
    assert files(blobs) == []


def test_the_wrong_digest_leaves_nothing(blobs: FileBlobs) -> None:
    with pytest.raises(Untrusted) as refused:
        blobs.put([CONTENT[:-1] + b"X"], max_size=len(CONTENT), expect=sha256(CONTENT))
    assert refused.value.reason == "blob-digest"
    assert files(blobs) == []


def test_a_sender_that_breaks_off_leaves_nothing(blobs: FileBlobs) -> None:
    def broken() -> Iterator[bytes]:
        yield CONTENT
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):  # their fault, not the disk's
        blobs.put(broken(), max_size=10**6)
    assert files(blobs) == []


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_nothing(
    blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    target: Any = Path if call == "rename" else os
    monkeypatch.setattr(target, call, full)
    with pytest.raises(LocalFault) as fault:
        blobs.put([CONTENT], max_size=len(CONTENT))
    monkeypatch.undo()
    assert "No space left" in fault.value.why
    assert files(blobs) == []
    assert sha256(CONTENT) not in blobs


def test_a_really_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """With the kernel's own limit on file sizes standing in for the end of the disk."""
    import resource
    import signal

    blobs = FileBlobs(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(LocalFault):
            blobs.put(pieces(CONTENT), max_size=len(CONTENT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files(blobs) == []


def test_content_is_on_disk_before_its_name(
    blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        steps.append("folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "content")
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        steps.append("name")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    blobs.put_bytes(CONTENT, max_size=len(CONTENT))
    assert steps == ["content", "name", "folder", "folder", "folder"]


def test_what_is_not_there_is_said(blobs: FileBlobs) -> None:
    for use in (blobs.path, blobs.verify):
        with pytest.raises(Misuse) as refused:
            use(sha256(b"nothing"))
        assert refused.value.reason == "unknown-blob"
    assert sha256(b"nothing") not in blobs


def test_what_changed_on_disk_is_not_handed_out(blobs: FileBlobs) -> None:
    digest = blobs.put_bytes(CONTENT, max_size=len(CONTENT))
    blobs.path(digest).write_bytes(b"F" + CONTENT[1:])
    for use in (blobs.verify, lambda d: blobs.read(d, max_size=10**6)):
        with pytest.raises(LocalFault) as fault:
            use(digest)
        assert fault.value.reason == "blob-damaged"


def test_a_blob_larger_than_asked_for_is_not_read(blobs: FileBlobs) -> None:
    digest = blobs.put_bytes(CONTENT, max_size=len(CONTENT))
    with pytest.raises(Malformed):
        blobs.read(digest, max_size=100)


def test_leftovers_of_a_killed_writer_are_no_blobs(blobs: FileBlobs) -> None:
    (blobs._root / "incoming-xyz").write_bytes(b"half")
    assert list(blobs) == []
