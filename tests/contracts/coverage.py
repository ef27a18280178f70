"""Which statements and branches of the contract its tests in Python reach, counted in the EVM.

    python -m tests.contracts.coverage [PYTEST ARGUMENT ...]

Guarantees: what is counted was executed. The ledger is compiled without the optimiser, so that
every instruction belongs to one place of the sources; py-evm counts how often each instruction ran.
A statement is reached if an instruction of its own ran; an assembly block is one statement, for the
compiler gives its instructions one place. A branch is one way out of a condition (``if``, ``? :``):
it was taken if the conditional jump that the compiler made of it went that way.

The forge tests are not counted here: forge reads coverage off optimised code, in which assembly and
library calls lose their places. What all tests together would notice is measured by
`tests.contracts.mutants`. Prints a table for docs/contract.md, and what was not reached. Limits of
gas and the build's own tests are left out, for the code is not the one that is deployed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
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
    "--deselect=tests/contracts/test_flows.py::test_gas_stays_within_its_limits",
]
STATEMENTS = {
    "ExpressionStatement",
    "VariableDeclarationStatement",
    "Return",
    "RevertStatement",
    "EmitStatement",
    "InlineAssembly",
}
CONDITIONS = {"IfStatement", "Conditional"}
JUMPI = 0x57
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
    """How often each instruction of ``code`` ran, and how often each conditional jump jumped."""

    code: bytes
    hits: Counter[int] = field(default_factory=Counter)
    jumps: Counter[int] = field(default_factory=Counter)

    def install(self) -> None:
        """From here on py-evm counts."""
        hits, jumps, length = self.hits, self.jumps, len(self.code)

        def steps(stream: CodeStream) -> Iterator[int]:
            raw = stream._raw_code_bytes
            counted = len(raw) == length
            while (at := stream.program_counter) < len(raw):
                stream.program_counter += 1
                hits[at] += counted
                yield raw[at]
                if counted and raw[at] == JUMPI and stream.program_counter != at + 1:
                    jumps[at] += 1
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

    def __init__(self, counts: Counts, where: dict[int, Place]) -> None:
        self._hits: Counter[Place] = Counter()
        self._ways: dict[Place, tuple[int, int]] = {}
        for at, spot in where.items():
            self._hits[spot] += counts.hits[at]
            if counts.code[at] == JUMPI:
                on, off = self._ways.get(spot, (0, 0))
                jumped = counts.jumps[at]
                self._ways[spot] = (on + jumped, off + counts.hits[at] - jumped)

    def ran(self, node: Node) -> bool | None:
        """Whether an instruction within this node ran; None if it has none."""
        start, length, source = place(node)
        within = [
            count
            for (s, n, f), count in self._hits.items()
            if f == source and start <= s and s + n <= start + length
        ]
        return any(within) if within else None

    def ways(self, node: Node) -> int:
        """How many of the two ways the jump went that this condition became."""
        return sum(1 for times in self._ways[place(node)] if times)


# -- what there is to reach ------------------------------------------------------------------------


def place(node: Node) -> Place:
    """Where a node of a syntax tree stands."""
    start, length, source = map(int, node["src"].split(":"))
    return start, length, source


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


def table(output: Node, reached: Reached) -> tuple[str, list[str]]:
    """Rows by source, and a line for all that was not reached."""
    rows, missed = [], []
    total = Counter[str]()
    for unit, text in build.sources().items():
        if unit.startswith("@") or unit.endswith("IReleaseLedger.sol"):
            continue
        raw, count = text.encode(), Counter[str]()
        for node in nodes(output["sources"][unit]["ast"]):
            line = raw[: place(node)[0]].count(b"\n") + 1
            spot = f"{unit}:{line}"
            if node["nodeType"] in STATEMENTS and (ran := reached.ran(node)) is not None:
                count += Counter(statements=1, reached=int(ran))
                missed += [] if ran else [f"{spot}: statement"]
            if node["nodeType"] in CONDITIONS:
                taken = reached.ways(node)
                count += Counter(branches=2, taken=taken)
                missed += [] if taken == 2 else [f"{spot}: {2 - taken} of two ways"]
        total += count
        rows.append(_row(unit.removeprefix("contracts/"), count))
    return "\n".join([*rows, _row("together", total)]), missed


def _row(name: str, count: Counter[str]) -> str:
    def share(part: str, whole: str) -> str:
        if not count[whole]:
            return "none"
        return f"{count[part]} of {count[whole]} ({100 * count[part] / count[whole]:.1f} %)"

    return f"| {name} | {share('reached', 'statements')} | {share('taken', 'branches')} |"


def main(arguments: list[str]) -> int:
    """The command line; returns pytest's exit code."""
    output = compiled()
    made = output["contracts"][f"contracts/{build.CONTRACT}.sol"][build.CONTRACT]
    runtime = made["evm"]["deployedBytecode"]
    code = bytes.fromhex(runtime["object"])
    counts = Counts(code)
    limits.EIP170_CODE_SIZE_LIMIT = 10 * build.CODE_LIMIT  # it is larger than can be deployed
    evm.ARTIFACT["bytecode"] = "0x" + made["evm"]["bytecode"]["object"]
    counts.install()
    failed = pytest.main(["-q", "-p", "no:cacheprovider", *TESTS, *arguments])
    rows, missed = table(output, Reached(counts, places(code, runtime["sourceMap"])))
    sys.stdout.write("\n".join(["", *missed, "", rows, ""]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
