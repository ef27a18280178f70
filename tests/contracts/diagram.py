"""What every act does in every state: played on the contract and its model, and drawn.

    python -m tests.contracts.diagram

Writes the tables and diagrams of docs/contract.md, between their markers. Nothing of them is told:
for each state a ledger is brought there by acts, then each act is played by each role in turn, or
with one approval more each time, and what comes of it is read from the records, which model, py-evm
and anvil must agree upon. Where nobody may, the cell names the refusal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol.ledger import StateWord, Status
from tests.contracts.anvil import running
from tests.contracts.evm import Evm
from tests.contracts.instep import NAMES, InStep
from tests.contracts.stage import ACTS, TIME, VOTED, NothingToDo, Stage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contract.md"
ROLES = {
    "approver": "alice",
    "guardian": "guard",
    "auditor": "auditor",
    "reporter": "reporter",
    "enroller": "enroller",
    "anyone": "outsider",
}
NOTHING = "\N{EN DASH}"


# -- states ----------------------------------------------------------------------------------------


def _release_state(s: Stage) -> str:
    kept = s.model.releases.get((s.pid, 1))
    return Status(StateWord.unpack(kept.state.word).status).name.capitalize() if kept else "none"


def _product_state(s: Stage) -> str:
    kept = s.model.products.get(s.pid)
    return "none" if kept is None else "paused" if kept.head.paused_at else "running"


def _governance_state(s: Stage) -> str:
    kept = s.model.products[s.pid]
    return "pending" if kept.effective_at > s.box.evm.now else "settled"


@dataclass(frozen=True)
class Life:
    """One table: how its states are read and reached, and which acts are played."""

    read: Callable[[Stage], str]
    states: dict[str, tuple[str, ...]]  # name -> acts that lead there, taken by whoever may
    acts: tuple[str, ...]


LIVES = {
    "product": Life(
        _product_state,
        {"none": (), "running": ("createProduct",), "paused": ("createProduct", "pause")},
        ("createProduct", "pause", "unpause", "publish", "setFleet", "withdraw"),
    ),
    "governance": Life(
        _governance_state,
        {"settled": ("createProduct",), "pending": ("createProduct", "amend, loosening")},
        ("amend, loosening", "amend, tightening", "restrict", "cancel", TIME),
    ),
    "release": Life(
        _release_state,
        {
            "none": ("createProduct",),
            "Active": ("createProduct", "publish"),
            "Halted": ("createProduct", "publish", "halt"),
            "Revoked": ("createProduct", "publish", "revoke"),
        },
        (
            *("publish", "halt", "anchor", "anchor, the halting rule met"),
            *("attest", "resume", "supersede", "revoke"),
        ),
    ),
}
WAY = {"createProduct": "owner", "pause": "guard", "halt": "guard"}


# -- playing ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What came of an act in a state: who got it through and where it led, or the refusal."""

    who: str = ""
    leads_to: str = ""
    refusal: str = ""


def _bring(s: Stage, way: tuple[str, ...]) -> None:
    s.empty()
    for act in way:
        ACTS[act](s, WAY.get(act, "outsider"), 2)
        if s.last_refusal is not None:
            raise AssertionError(f"{act}: {s.last_refusal}")


def _cell(s: Stage, life: Life, way: tuple[str, ...], act: str) -> Cell:
    tries = [(role, name, 0) for role, name in ROLES.items()]
    if act in VOTED:
        tries = [(f"{n} of 3", "outsider", n) for n in (0, 1, 2, 3)]
    taken: dict[str, str] = {}
    refusals: list[str] = []
    fresh = False
    for who, sender, count in tries:
        if not fresh:
            _bring(s, way)
        try:
            ACTS[act](s, sender, count)
        except NothingToDo:
            return Cell()
        fresh = s.last_refusal is not None
        if fresh:
            refusals.append(s.last_refusal.name)
        else:
            taken[who] = life.read(s)
    if not taken:  # what is said to whoever may, where it could be done
        return Cell(refusal=min(refusals, key=("NotAuthorized", "TooFewApprovals").__contains__))
    (leads_to,) = set(taken.values())
    return Cell(_who(act, set(taken)), leads_to)


def _who(act: str, taken: set[str]) -> str:
    """Those who got it through, as docs/contract.md names them."""
    if taken == {"2 of 3", "3 of 3"}:
        return "M of N"
    if taken == set(ROLES):
        return "time alone" if act == TIME else "anyone"
    if taken == {"approver", "guardian"}:
        return "watcher"
    return " or ".join(role for role in ROLES if role in taken)


def play(life: Life) -> dict[tuple[str, str], Cell]:
    """Every act in every state."""
    s = Stage()
    return {
        (act, state): _cell(s, life, way, act)
        for act in life.acts
        for state, way in life.states.items()
    }


# -- drawing ---------------------------------------------------------------------------------------


def drawn(name: str) -> str:
    """One table with its diagram, as Markdown."""
    life = LIVES[name]
    cells = play(life)
    edges: dict[tuple[str, str], list[str]] = {}
    for (act, state), cell in cells.items():
        if cell.leads_to and cell.leads_to != state:
            edges.setdefault((state, cell.leads_to), []).append(f"{act} ({cell.who})")
    lines = ["```mermaid", "stateDiagram-v2"]
    if "none" not in life.states:
        lines.append(f"    [*] --> {next(iter(life.states))}")
    for (state, to), labels in edges.items():
        lines.append(f"    {'[*]' if state == 'none' else state} --> {to}: {' / '.join(labels)}")
    lines += [
        "```",
        "",
        f"| act | by | {' | '.join(life.states)} |",
        f"|---|---|{'---|' * len(life.states)}",
    ]
    for act in life.acts:
        row = [cells[act, state] for state in life.states]
        who = {cell.who for cell in row if cell.who}
        if len(who) != 1:
            raise AssertionError(f"{act} is open to {who or 'nobody'}, by state")
        shown = [f"`{c.refusal}`" if c.refusal else c.leads_to or NOTHING for c in row]
        lines.append(f"| {act} | {who.pop()} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def rewritten(page: str, parts: dict[str, str]) -> str:
    """The page with each generated part in its place; ValueError if a place is missing."""
    for name, part in parts.items():
        begin, end = (
            f"<!-- generated: tests.contracts.diagram {name} -->\n",
            "<!-- end of generated part -->",
        )
        found = re.search(re.escape(begin) + r".*?" + re.escape(end), page, re.DOTALL)
        if found is None:
            raise ValueError(f"{PAGE.name} has no place for {name}")
        page = page[: found.start()] + begin + part + end + page[found.end() :]
    return page


def main() -> None:
    """Write the page anew."""
    with running(Evm(()).chain_id, NAMES) as InStep.anvil:
        parts = {name: drawn(name) for name in LIVES}
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
