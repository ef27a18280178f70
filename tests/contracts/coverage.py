"""Which statements and branches of the contract its tests in Python reach, counted in the EVM.

    python -m tests.contracts.coverage [PYTEST ARGUMENT ...]

Guarantees: what is counted was executed. The ledger is compiled without the optimiser, so that every
instruction belongs to one place of the sources; py-evm counts how often each instruction ran; a
statement is reached if an instruction of its own ran. Statements within assembly count like others.

A branch is one way out of a condition (``if`` in Solidity and in assembly, ``? :``); the way past
an ``if`` without ``else`` was taken if its condition was asked more often than its body entered.
Branches are counted by place: two conditions on one line are two.

The forge tests are not counted here: forge reads coverage off optimised code, in which assembly and
library calls lose their places. What they and these tests together would notice is measured by
`tests.contracts.mutants`. Prints a table for docs/contract.md, and what was not reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth.vm.code_stream import CodeStream
from eth.vm.forks.spurious_dragon import computation as limits

from contracts import build
from tests.contracts import evm

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    "tests/contracts",
    "tests/test_ledger_model.py",
    "--deselect=tests/contracts/test_build.py",
]
STATEMENTS = {
    "ExpressionStatement",
    "VariableDeclarationStatement",
    "Return",
    "RevertStatement",
    "EmitStatement",
    "YulAssignment",
    "YulExpressionStatement",
    "YulVariableDeclaration",
}
Node = dict[str, Any]
Place = tuple[int, int, int]
"""Offset, length and number of the source."""


def compiled() -> Node:
    """The compiler's output for the ledger, not optimised, with source maps and syntax trees."""
    units = build.sources()
    kinds = ["abi", "evm.bytecode.object", "evm.deployedBytecode"]
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in units.items()},
        "settings": {
            **build.SETTINGS,
            "optimizer": {"enabled": False},
            "outputSelection": {"*": {"": ["ast"], build.CONTRACT: kinds}},
        },
    }
    solc = ROOT / "contracts" / "solcjs"
    done = subprocess.run(
        [solc, "--standard-json"], input=json.dumps(request), capture_output=True, text=True
    )
    output: Node = json.loads(done.stdout)
    return output


# -- counting --------------------------------------------------------------------------------------


@dataclass
class Counts:
    """How often each instruction of ``code`` ran, by its offset."""

    code: bytes
    hits: Counter[int]

    def install(self) -> None:
        """From here on py-evm counts."""
        hits, length = self.hits, len(self.code)

        def steps(stream: CodeStream) -> Iterator[int]:
            raw = stream._raw_code_bytes
            counted = len(raw) == length
            while stream.program_counter < len(raw):
                if counted:
                    hits[stream.program_counter] += 1
                opcode = raw[stream.program_counter]
                stream.program_counter += 1
                yield opcode
            yield 0  # STOP

        CodeStream.__iter__ = steps


def places(code: bytes, source_map: str) -> dict[int, Place]:
    """The place in the sources of each instruction, by its offset."""
    found: dict[int, Place] = {}
    fields = ["0", "0", "-1"]
    entries = iter(source_map.split(";"))
    at = 0
    while at < len(code) and (entry := next(entries, None)) is not None:
        for number, value in enumerate(entry.split(":")[:3]):
            fields[number] = value or fields[number]
        found[at] = (int(fields[0]), int(fields[1]), int(fields[2]))
        at += 1 + max(0, code[at] - 0x5F if code[at] <= 0x7F else 0)
    return found


class Reached:
    """Counts by place of the sources."""

    def __init__(self, hits: Counter[int], where: dict[int, Place]) -> None:
        self._most: dict[Place, int] = {}
        for at, place in where.items():
            self._most[place] = max(self._most.get(place, 0), hits[at])

    def times(self, node: Node) -> int:
        """How often the busiest instruction within this node ran; -1 if it has none."""
        start, length, source = place(node)
        within = [
            count
            for (s, n, f), count in self._most.items()
            if f == source and start <= s and s + n <= start + length
        ]
        return max(within, default=-1)


def place(node: Node) -> Place:
    """Where a node of a syntax tree stands."""
    start, length, source = map(int, node["src"].split(":"))
    return start, length, source


# -- what there is to reach ------------------------------------------------------------------------


def nodes(tree: Any) -> Iterator[Node]:
    """All nodes of a syntax tree."""
    if isinstance(tree, list):
        for item in tree:
            yield from nodes(item)
    elif isinstance(tree, dict):
        if "nodeType" in tree:
            yield tree
        for item in tree.values():
            yield from nodes(item)


def branches(node: Node, reached: Reached) -> Iterator[tuple[str, bool]]:
    """Each way out of a condition, and whether it was taken."""
    kind = node["nodeType"]
    if kind == "Conditional":
        yield "the first of two", reached.times(node["trueExpression"]) > 0
        yield "the second of two", reached.times(node["falseExpression"]) > 0
    if kind not in ("IfStatement", "YulIf"):
        return
    body = node["trueBody"] if kind == "IfStatement" else node["body"]
    inside = max(0, entered(body, reached))
    yield "into it", inside > 0
    if other := node.get("falseBody"):
        yield "into the other", entered(other, reached) > 0
    else:
        yield "past it", reached.times(node["condition"]) > inside


def entered(body: Node, reached: Reached) -> int:
    """How often a body was entered: as often as its first statement."""
    first = body["statements"][0] if body.get("statements") else body
    if first["nodeType"] in ("Break", "YulBreak", "Continue"):
        return max(0, reached.times(body))
    return reached.times(first)


def table(output: Node, reached: Reached) -> tuple[str, list[str]]:
    """Rows by source, and a line for all that was not reached."""
    rows, missed = [], []
    total = Counter[str]()
    for unit, text in build.sources().items():
        if unit.startswith("@") or unit.endswith("IReleaseLedger.sol"):
            continue
        raw, count = text.encode(), Counter[str]()
        for node in nodes(output["sources"][unit]["ast"]):
            line = raw[: place(node)[0]].count(b"\n") + 1 if "src" in node else 0
            if node["nodeType"] in STATEMENTS and (times := reached.times(node)) >= 0:
                count["statements"] += 1
                count["reached"] += times > 0
                if times == 0:
                    missed.append(f"{unit}:{line}: statement")
            for name, taken in branches(node, reached):
                count["branches"] += 1
                count["taken"] += taken
                if not taken:
                    missed.append(f"{unit}:{line}: {name}")
        total += count
        rows.append(_row(unit.removeprefix("contracts/"), count))
    return "\n".join([*rows, _row("together", total)]), missed


def _row(name: str, count: Counter[str]) -> str:
    lines = f"{count['reached']} of {count['statements']}"
    ways = f"{count['taken']} of {count['branches']}"
    return (
        f"| {name} | {lines} | {100 * count['reached'] / max(1, count['statements']):.1f} %"
        f" | {ways} | {100 * count['taken'] / max(1, count['branches']):.1f} % |"
    )


def main(arguments: list[str]) -> int:
    """The command line; returns pytest's exit code."""
    output = compiled()
    made = output["contracts"][f"contracts/{build.CONTRACT}.sol"][build.CONTRACT]
    runtime = made["evm"]["deployedBytecode"]
    code = bytes.fromhex(runtime["object"])
    counts = Counts(code, Counter())
    limits.EIP170_CODE_SIZE_LIMIT = 10 * build.CODE_LIMIT  # it is larger than can be deployed
    evm.ARTIFACT["bytecode"] = "0x" + made["evm"]["bytecode"]["object"]
    counts.install()
    failed = pytest.main(["-q", "-p", "no:cacheprovider", *(arguments or TESTS)])
    rows, missed = table(output, Reached(counts.hits, places(code, runtime["sourceMap"])))
    sys.stdout.write("\n".join(["", *missed, "", rows, ""]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
