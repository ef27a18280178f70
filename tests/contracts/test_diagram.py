"""The tables and diagrams of docs/contract.md are what playing every act in every state gives."""

from __future__ import annotations

import pytest

from tests.contracts.diagram import LIVES, PAGE, drawn, rewritten
from tests.contracts.instep import node  # noqa: F401  a fixture

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LIVES)
def test_the_page_shows_what_the_contract_does(name: str) -> None:
    assert rewritten(TEXT, {name: drawn(name)}) == TEXT, "run python -m tests.contracts.diagram"


@pytest.mark.parametrize("name", LIVES)
def test_another_drawing_would_be_seen(name: str) -> None:
    assert rewritten(TEXT, {name: "something else\n"}) != TEXT


def test_a_page_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="release"):
        rewritten("# The contract\n", {"release": ""})
