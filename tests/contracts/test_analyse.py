"""What slither says is judged strictly: nothing unexplained passes, and no explanation outlives it.

slither itself runs in `make lint`, in an environment of its own.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def analyse() -> ModuleType:
    spec = importlib.util.spec_from_file_location("analyse", ROOT / "contracts" / "analyse.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FOUND = ("timestamp", "ReleaseLedger.amend")


def test_what_is_explained_passes(analyse: ModuleType) -> None:
    assert analyse.judge([(FOUND, "compares a time")], {FOUND: "because"}) == []


@pytest.mark.parametrize("other", [("assembly", FOUND[1]), (FOUND[0], "ReleaseLedger.halt")])
def test_what_is_not_explained_fails(analyse: ModuleType, other: tuple[str, str]) -> None:
    wrong = analyse.judge([(FOUND, ""), (other, "is new")], {FOUND: "because"})
    assert len(wrong) == 1 and other[0] in wrong[0] and other[1] in wrong[0]


def test_an_explanation_of_nothing_fails(analyse: ModuleType) -> None:
    (wrong,) = analyse.judge([], {FOUND: "because"})
    assert FOUND[1] in wrong and "no such thing" in wrong


@pytest.mark.parametrize(
    "text",
    [
        '[[explained]]\ncheck = "a"\nwhere = ["b"]\nwhy = " "\n',
        '[[explained]]\ncheck = "a"\nwhere = ["b", "b"]\nwhy = "because"\n',
    ],
    ids=["no reason", "two reasons"],
)
def test_each_finding_has_one_reason(
    analyse: ModuleType, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "slither.toml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(analyse, "EXPLAINED", file)
    with pytest.raises(analyse.build.BuildError):
        analyse.explained()


def test_the_reasons_in_the_tree_can_be_read(analyse: ModuleType) -> None:
    assert all(analyse.explained().values())


def test_without_slither_it_says_how_to_get_it(
    analyse: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(analyse, "SLITHER", tmp_path / "slither")
    assert analyse.main([]) == 1
    assert "make lint" in capsys.readouterr().err


def test_slither_reads_what_is_compiled(analyse: ModuleType) -> None:
    request = analyse.request()
    assert request["sources"].keys() == analyse.build.sources().keys()
    assert analyse.build.SETTINGS.items() <= request["settings"].items()
