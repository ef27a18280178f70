"""Gas that gets worse is noticed; other figures depend on the machine and are not judged."""

from typing import Any

from bench.__main__ import drifted


def row(name: str, value: float, unit: str = "gas") -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit}


def test_two_percent_are_let_pass_and_more_is_not() -> None:
    before = [row("gas.halt", 40_000), row("proof.verify_ms", 1, "ms")]
    assert drifted(before, [row("gas.halt", 40_800), row("proof.verify_ms", 9, "ms")]) == []
    (sentence,) = drifted(before, [row("gas.halt", 40_801)])
    assert "gas.halt" in sentence and "40801" in sentence
    assert drifted(before, [row("gas.halt", 30_000), row("gas.new", 9)]) == []
