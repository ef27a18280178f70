"""The runbooks' commands, word for word and in their order, on a product as the pages have it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.test_walkthrough import ROOT, Shell, environment, free_port

PAGES = ROOT / "docs" / "runbooks"
BEFORE = """
. path/to/firmledger/.venv/bin/activate
firmledger init reg --port 8700
firmledger -C reg serve &
firmledger -C reg product create thermostat --hardware 1-3 --approvers alice,bob,carol \\
    --threshold 2 --guardians gus,gina {more}
"""
DEVICE = """
firmledger -C reg product trust thermostat -o first.json
firmledger-device -C dev init --trust first.json --registry http://127.0.0.1:8700 --hardware 2
"""


def blocks(text: str) -> str:
    """Everything between fences, indented or not."""
    found = re.findall(r"^ *```\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return "".join(textwrap.dedent(block) for block in found)


def lines(text: str) -> list[str]:
    joined: list[str] = []
    for line in text.strip().splitlines():
        if joined and joined[-1].rstrip().endswith("\\"):
            joined[-1] += "\n" + line
        else:
            joined.append(line)
    return joined


def set_up(page: str) -> str:
    """What is there before the page."""
    if page == "README.md":  # a change shall wait there until it is cancelled
        return BEFORE.format(more="--governance-delay 1h")
    text = BEFORE.format(more="--auditors ada --governance-delay 3s")
    return text + DEVICE if page == "recovery.md" else text


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_every_command_of_a_runbook_works(page: str, tmp_path: Path) -> None:
    commands = lines(blocks((PAGES / page).read_text(encoding="utf-8")))
    assert commands
    environment(tmp_path)
    said = Shell(tmp_path, lines(set_up(page)) + commands).run(free_port())
    assert len(said) >= len(commands)


def test_every_runbook_is_on_the_first_page() -> None:
    text = (PAGES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", text))
    assert named == {path.name for path in PAGES.glob("*.md")} - {"README.md"}
