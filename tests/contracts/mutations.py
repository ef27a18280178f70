"""What is changed to make mutants of the contract: one small thing at a time.

Guarantees: `mutants` yields every change that the table `_KINDS` describes, everywhere in the
contract's own sources, comments excepted; each names itself by what it changes, not by a line
number, so that its name outlives changes elsewhere.

The interface and OpenZeppelin's code are not changed. `EQUIVALENT` names the mutants that behave as
the original does, with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_SPACE = r"[^\S\n]*"
_SWAPS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "&&": "||",
    "||": "&&",
}
_NEXT = {
    "Status.Active": "Status.Halted",
    "Status.Halted": "Status.Revoked",
    "Status.Revoked": "Status.Active",
    "Action.Resume": "Action.Supersede",
    "Action.Supersede": "Action.Revoke",
    "Action.Revoke": "Action.Unpause",
    "Action.Unpause": "Action.Resume",
}
_LISTS = {
    "APPROVERS": "AUDITORS",
    "GUARDIANS": "APPROVERS",
    "AUDITORS": "REPORTERS",
    "REPORTERS": "AUDITORS",
}

EQUIVALENT: dict[str, str] = {
    "lib/Governing.sol isRemoval: < -> <=": (
        "a change that keeps the guardians and else only tightens takes effect at once,"
        " so it is never pending"
    ),
    "lib/Rollout.sol openShare: break; -> continue;": (
        "the delays of valid phases do not fall, so no later phase is due where this one is not"
    ),
    "lib/Rollout.sol startOf: > -> >=": (
        "where both are equal, the difference is 0, which is above no start"
    ),
    "lib/Rollout.sol startOf: > -> >= (2)": "where both are equal, the start stays what it is",
}
"""Names of mutants that no test can kill, and why not."""


@dataclass(frozen=True)
class Mutant:
    """``before`` at ``start`` of the source ``unit`` becomes ``after``."""

    unit: str
    function: str
    start: int
    before: str
    after: str
    key: str = ""

    def applied(self, text: str) -> str:
        """The source with the change."""
        end = self.start + len(self.before)
        if text[self.start : end] != self.before:
            raise ValueError(f"{self.key}: not this source")
        return text[: self.start] + self.after + text[end:]


Change = tuple[int, str, str]
"""Where, what, and what becomes of it."""


def mutants(sources: Mapping[str, str]) -> Iterator[Mutant]:
    """All mutants of the contract's own sources, in the order of the files."""
    for unit, text in sources.items():
        if unit.startswith("@") or unit.endswith("IReleaseLedger.sol"):
            continue
        bare = without_comments(text)
        seen: Counter[str] = Counter()
        found = {change for kind in _KINDS for change in kind(bare)}
        for start, before, after in sorted(found):
            function = _function(bare, start)
            flat = " ".join(f"{before} -> {after}".split())
            name = f"{unit.removeprefix('contracts/')} {function}: {flat}"
            seen[name] += 1
            key = name if seen[name] == 1 else f"{name} ({seen[name]})"
            yield Mutant(unit, function, start, before, after, key)


def without_comments(text: str) -> str:
    """The text with comments and import lines blanked; every place stays where it was."""
    pattern = r'"[^"\n]*"|//[^\n]*|/\*.*?\*/|^import[^\n]*|^pragma[^\n]*'

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0][0] == '"' else re.sub(r"[^\n]", " ", match[0])

    return re.sub(pattern, blank, text, flags=re.DOTALL | re.MULTILINE)


def _function(text: str, place: int) -> str:
    names = re.findall(r"\bfunction (\w+)\(", text[:place])
    return names[-1] if names else "constants"


def closing(text: str, opening: int, pair: str = "()") -> int:
    """The place of the bracket that closes the one at ``opening``."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {pair[0]: 1, pair[1]: -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError("a bracket is open to the end")


def _arguments(text: str, opening: int) -> list[tuple[int, str]]:
    """Place and text of each argument of the call whose bracket opens at ``opening``."""
    found, depth, start = [], 0, opening + 1
    for place in range(opening, closing(text, opening) + 1):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if (text[place] == "," and depth == 1) or depth == 0:
            raw = text[start:place]
            found.append((start + len(raw) - len(raw.lstrip()), raw.strip()))
            start = place + 1
    return found


# -- the kinds of change ---------------------------------------------------------------------------


def _conditions(text: str) -> Iterator[Change]:
    """A guard that never acts: every condition of an ``if`` or ``while`` is false."""
    for match in re.finditer(r"\b(?:if|while) \(", text):
        opening = match.end() - 1
        yield opening, text[opening : closing(text, opening) + 1], "(false)"


def _guards(text: str) -> Iterator[Change]:
    """A guard that is not asked: a statement which calls a ``require...``."""
    for match in re.finditer(rf"^{_SPACE}((?:\w+\.)?_?require\w*\()", text, re.MULTILINE):
        end = closing(text, match.end() - 1) + 2
        if text[: match.start(1)].rstrip()[-1] in ";{}":  # not the rest of a longer statement
            yield match.start(1), text[match.start(1) : end], ""


def _operators(text: str) -> Iterator[Change]:
    """A comparison that is off by one or turned round; "and" for "or"."""
    for match in re.finditer(r"(?<= )(<=?|>=?|==|!=|&&|\|\|)(?= )", text):
        yield match.start(), match[0], _SWAPS[match[0]]


def _arithmetic(text: str) -> Iterator[Change]:
    """A sum for a difference, a union for an intersection."""
    swaps = {"+": "-", "-": "+", "|": "&", "&": "|", "+=": "-=", "*": "+"}
    for match in re.finditer(r"(?<= )(\+=?|-|\||&|\*)(?= )", text):
        yield match.start(), match[0], swaps[match[0]]


def _constants(text: str) -> Iterator[Change]:
    """A limit, or the place of a field, that is one more; a name that is another."""
    for match in re.finditer(r"\bconstant \w+ = ([^;]+);", text):
        if "keccak256" not in match[1]:
            yield match.start(1), match[1], f"({match[1]}) + 1"
    for match in re.finditer(r'keccak256\(\s*"', text):
        yield match.end(), text[match.end()], "x"


def _members(text: str) -> Iterator[Change]:
    """A member that is left out of a hash: zero is hashed in its place."""
    for match in re.finditer(r"\bmstore\(", text):
        (_, _), (place, value) = _arguments(text, match.end() - 1)
        yield place, value, "0"
    for match in re.finditer(r"\bcalldatacopy\(", text):
        (_, to), (_, _), (_, size) = _arguments(text, match.end() - 1)
        end = closing(text, match.end() - 1) + 1
        copy = text[match.start() : end]
        for offset in range(0, int(size, 16), 0x20) if size.startswith("0x") else ():
            yield match.start(), copy, f"{copy} mstore(add({to}, {offset:#x}), 0)"
    for match in re.finditer(r"\bkeccak256\((\w+, )(0x\w+)\)", text):
        yield match.start(2), match[2], f"{int(match[2], 16) - 0x20:#x}"
    for match in re.finditer(r"\babi\.encode(?:Packed)?\(", text):
        for place, value in _arguments(text, match.end() - 1):
            yield place, value, 'bytes32("x")'


def _assembly(text: str) -> Iterator[Change]:
    """A condition in assembly that is another."""
    swaps = {"lt": "gt", "gt": "lt", "eq": "lt", "and": "or"}
    for match in re.finditer(rf"\b({'|'.join(swaps)})(?=\()", text):
        yield match.start(), match[0], swaps[match[0]]
    for match in re.finditer(r"\biszero\(", text):
        end = closing(text, match.end() - 1)
        yield match.start(), text[match.start() : end + 1], text[match.end() : end]
    for match in re.finditer(r"\bif pausedAt ", text):
        yield match.start(), match[0], "if 0 "


def _effects(text: str) -> Iterator[Change]:
    """An effect that fails to happen: an assignment to storage or to a head, or an event."""
    stored = r"_\w+\[[^=;]*?\](?:\.value)?|place\.value|head\.\w+|changed\.\w+"
    stored += r"|\(current\.root[^)]*\)|\(bps, delay\)"
    for match in re.finditer(rf"^{_SPACE}((?:{stored}) \+?=[^;]*;)", text, re.MULTILINE):
        yield match.start(1), match[1], ""
    for match in re.finditer(r"\bemit [^;]*;", text):
        yield match.start(), match[0], ""


def _answers(text: str) -> Iterator[Change]:
    """Another answer, status, action, list or reason."""
    for match in re.finditer(r"\breturn (true|false);", text):
        yield match.start(1), match[1], {"true": "false", "false": "true"}[match[1]]
    for match in re.finditer(r"\b(?:Status|Action)\.\w+", text):
        yield match.start(), match[0], _NEXT[match[0]]
    for match in re.finditer(r"\breturn IReleaseLedger\.(Reason\.\w+)", text):
        other = "Reason.CohortWaits" if match[1] == "Reason.Eligible" else "Reason.Eligible"
        yield match.start(1), match[1], other
    for match in re.finditer(rf"(?<=, )({'|'.join(_LISTS)})(?=[,)])", text):
        yield match.start(), match[0], _LISTS[match[0]]
    for match in re.finditer(r"\bbreak;", text):
        yield match.start(), match[0], "continue;"
    for match in re.finditer(r" \? ([^:;?]+) : ([^;?,]+?)(?=;|,|\) )", text):
        if match[2].count("(") == match[2].count(")"):
            yield match.start(1), f"{match[1]} : {match[2]}", f"{match[2]} : {match[1]}"


_KINDS = (
    _conditions,
    _guards,
    _operators,
    _arithmetic,
    _constants,
    _members,
    _assembly,
    _effects,
    _answers,
)
