"""A scene for each test, closed at its end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.place import Place, make
from tests.registry.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def laid_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a product, laid once."""
    folder = tmp_path_factory.mktemp("laid")
    make(folder / "reg", folder)
    return folder / "reg"


@pytest.fixture
def place(laid_place: Path, tmp_path: Path) -> Iterator[Place]:
    """A registry of the test's own, open and with nothing running in the background."""
    shutil.copytree(laid_place, tmp_path / "reg")
    found = Place(tmp_path / "reg", tmp_path)
    try:
        yield found
    finally:
        found.close()
