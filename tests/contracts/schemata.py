"""Many mutants in one program: beside a function its broken twins, and a word that picks one.

Guarantees: a `Board` behaves as the mutant whose number stands in storage at `SWITCH`, and with any
other number as the contract does. Compiling it takes little longer than compiling the contract,
however many mutants it holds; that is what it is for.

Rules: a change inside a function becomes a copy of that function with the change, and a line at
the head of the original that goes there. What is ``pure`` becomes ``view``, for storage is read. A
change outside of functions (a constant) has a board of its own, with the number 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.contracts.mutations import Mutant, closing, without_comments

SWITCH = "mutant"
"""The storage word: the ASCII letters, left-aligned."""
SEATS = 30
_READ = f"""
    function _mutant() private view returns (uint256 picked) {{
        assembly ("memory-safe") {{ picked := sload("{SWITCH}") }}
    }}
"""


@dataclass
class Board:
    """Sources, and the mutants in them by the number that picks them."""

    sources: dict[str, str]
    mutants: dict[int, Mutant] = field(default_factory=dict)


@dataclass(frozen=True)
class _Function:
    """Places of a function in its source: of its name, of its body's brackets; its parts."""

    start: int
    name: str
    arguments: str
    names: str
    head: str
    opening: int
    end: int


def boards(sources: Mapping[str, str], mutants: Sequence[Mutant]) -> Iterator[Board]:
    """Boards that together hold all ``mutants``, at most `SEATS` on each."""
    inside = [m for m in mutants if _around(sources[m.unit], m) is not None]
    for first in range(0, len(inside), SEATS):
        numbered = dict(enumerate(inside[first : first + SEATS], start=1))
        yield Board(_switched(sources, numbered), numbered)
    for mutant in mutants:
        if _around(sources[mutant.unit], mutant) is None:
            unit = mutant.unit
            yield Board({**sources, unit: mutant.applied(sources[unit])}, {0: mutant})


def _switched(sources: Mapping[str, str], numbered: Mapping[int, Mutant]) -> dict[str, str]:
    made = {}
    for unit, text in sources.items():
        if unit.startswith("@"):
            made[unit] = text
            continue
        insertions: list[tuple[int, str]] = []
        for number, mutant in numbered.items():
            function = _around(text, mutant) if mutant.unit == unit else None
            if function is not None:
                insertions += _twin(text, function, mutant, number)
        for place, line in sorted(insertions, key=lambda i: i[0], reverse=True):
            text = text[:place] + line + text[place:]
        if insertions:
            text = text.rstrip().removesuffix("}") + _READ + "}\n"
        made[unit] = re.sub(r"\bpure\b", "view", text)
    return made


def _twin(text: str, function: _Function, mutant: Mutant, number: int) -> list[tuple[int, str]]:
    """The line that goes to the twin, and the twin, each with its place."""
    twin = f"{function.name}_{number}"
    call = f"{twin}({function.names})"
    jump = f"return {call};" if "returns" in function.head else f"{{ {call}; return; }}"
    body = text[function.opening : mutant.start] + mutant.after
    body += text[mutant.start + len(mutant.before) : function.end]
    head = re.sub(r"\b(external|internal|private)\b", "private", function.head)
    return [
        (function.opening + 1, f"\n        if (_mutant() == {number}) {jump}"),
        (function.end, f"\n    function {twin}({function.arguments}){head}{body}\n"),
    ]


def _around(text: str, mutant: Mutant) -> _Function | None:
    """The function in whose body the change is."""
    for function in _functions(text):
        if function.opening < mutant.start < function.end:
            return function
    return None


def _functions(text: str) -> Iterator[_Function]:
    bare = without_comments(text)
    for match in re.finditer(r"^    function (\w+)\(", bare, re.MULTILINE):
        bracket = closing(bare, match.end() - 1)
        opening = bare.index("{", bracket)
        arguments = " ".join(bare[match.end() : bracket].split())
        names = ", ".join(a.split()[-1] for a in arguments.split(",") if a.strip())
        head = bare[bracket + 1 : opening]
        end = closing(bare, opening, "{}") + 1
        yield _Function(match.start(), match[1], arguments, names, head, opening, end)
