"""What halmos reports is judged strictly: only a check that was proved without a gap counts.

halmos itself runs by hand (`python contracts/prove.py`), for it takes minutes.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prove() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prove", ROOT / "contracts" / "prove.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(exitcode: int = 0, loops: int | None = 0) -> dict[str, Any]:
    """What halmos 0.3 writes of one check."""
    return {
        "name": "check_it(uint256)",
        "exitcode": exitcode,
        "num_paths": [5, 2, 0],
        "time": [1.4, 1.0, 0.4],
        "num_bounded_loops": loops,
    }


def test_a_proved_check_counts(prove: ModuleType) -> None:
    rows, left = prove.judge([report()], {"check_it"})
    assert rows == ["| `check_it` | proved | 5 | 1 |"] and not left


@pytest.mark.parametrize("exitcode", [1, 2, 3, 4, 5, 9])
def test_no_other_verdict_counts(prove: ModuleType, exitcode: int) -> None:
    rows, left = prove.judge([report(exitcode)], {"check_it"})
    assert "proved" not in rows[0] and left == {"check_it"}


def test_a_loop_cut_short_is_no_proof(prove: ModuleType) -> None:
    rows, left = prove.judge([report(loops=1)], {"check_it"})
    assert "cut short" in rows[0] and left == {"check_it"}


def test_a_check_that_halmos_did_not_run_is_missed(prove: ModuleType) -> None:
    _, left = prove.judge([report()], {"check_it", "check_that"})
    assert left == {"check_that"}


def test_a_failure_without_figures_is_shown(prove: ModuleType) -> None:
    failed = report(5, None) | {"num_paths": None, "time": None}
    rows, left = prove.judge([failed], {"check_it"})
    assert "failed" in rows[0] and left


def test_every_check_is_found_in_its_contract(prove: ModuleType) -> None:
    ledger = prove.wanted(["SymbolicLedger"])
    assert "check_halt_is_its_transition" in ledger
    assert ledger < prove.wanted([])
    assert not prove.wanted(["Nothing"])
