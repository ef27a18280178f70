"""What survives power loss: files in their order of steps, databases by their settings."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from protocol.errors import LocalFault
from registry.files import whole_file, write_secret
from registry.store import CATALOGUE, REGISTRY, open_database, reading, writing
from tests.registry.place import Place

FULL, NORMAL = 2, 1


def synchronous(engine: Engine) -> set[int]:
    """The setting as readers, writers and a second connection at the same time have it."""
    found = set()
    with writing(engine) as first, reading(engine) as second:
        for connection in (first, second):
            found.add(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    return found


def test_what_cannot_be_derived_is_synced_at_every_commit(tmp_path: Path) -> None:
    assert synchronous(open_database(tmp_path / "a", REGISTRY, durable=True)) == {FULL}
    assert synchronous(open_database(tmp_path / "b", CATALOGUE, durable=False)) == {NORMAL}


def test_the_registry_opens_its_own_database_durably(place: Place) -> None:
    """The outbox is what must not forget: what it signed may be on the ledger."""
    engines = {
        Path(str(engine.url.database)).name: engine
        for part in vars(place.registry).values()
        for engine in _engines(part)
    }
    assert synchronous(engines["registry.sqlite"]) == {FULL}


def _engines(part: Any) -> list[Engine]:
    if isinstance(part, Engine):
        return [part]
    return [value for value in getattr(part, "__dict__", {}).values() if isinstance(value, Engine)]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every sync and rename from now on, in order; each is done as well."""
    taken: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        size = "" if folder else f" of {os.fstat(handle).st_size}"
        taken.append(f"sync {'folder' if folder else name}{size}")
        fsync(handle)

    def watched_replace(source: Any, target: Any, **more: Any) -> None:
        taken.append(f"rename {Path(source).name} to {Path(target).name}")
        replace(source, target, **more)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return taken


def test_a_file_is_synced_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, steps: list[str]
) -> None:
    with whole_file(tmp_path / "f") as file:
        file.write(b"content")
        assert steps == []
    assert steps == ["sync f.unfinished of 7", "rename f.unfinished to f", "sync folder"]
    steps.clear()
    write_secret(tmp_path / "s", {"a": 1})
    assert [step.split()[0] for step in steps] == ["sync", "rename", "sync"]
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_a_damaged_catalogue_may_be_deleted_and_the_registry_may_not(tmp_path: Path) -> None:
    for name, tables, told in (
        ("catalogue.sqlite", CATALOGUE, True),
        ("registry.sqlite", REGISTRY, False),
    ):
        (tmp_path / name).write_bytes(b"no database at all" * 1000)
        with pytest.raises(LocalFault) as refusal:
            open_database(tmp_path / name, tables, durable=True)
        assert ("delete it" in refusal.value.fix) is told
