"""Breaks the contract in every place in turn, and requires that some test notices.

    python -m tests.contracts.mutants [--list] [--only TEXT] [--again]

Guarantees: every mutant of `tests.contracts.mutations` is put in the ledger's place under the
forge tests, unit tests first, then the invariants; one that survives those is compiled for real and
meets the contract's tests in Python. docs/contract-mutants.md is the table of what killed which.
Exit code 1 if a mutant survives that `EQUIVALENT` does not name, with the reason.

Rules: mutants share compiled programs (`tests.contracts.schemata`), without the optimiser, for
speed: the ledger has no immutables, so code can be put anywhere. On each program the unbroken
ledger goes first, and must pass. What a mutant died of is kept in `contracts/cache/`, so that a
second run does only what is new or survived.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from contracts import build
from tests.contracts.mutations import EQUIVALENT, Mutant, mutants
from tests.contracts.schemata import boards

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "contracts" / "cache" / "mutants.json"
TABLE = ROOT / "docs" / "contract-mutants.md"
SOLC = ROOT / "contracts" / "solcjs"
FORGE = (sys.executable, str(ROOT / "contracts" / "foundry.py"), "forge", "test", "--fail-fast")
UNIT = ("--no-match-path", "*invariants*")
INVARIANTS = ("--match-path", "*invariants*")
FLOWS = ("tests/contracts", "tests/test_ledger_model.py")
FAILURE = re.compile(  # in forge's summary; an invariant's sequence of calls comes before its name
    r"^Encountered \d+ failing tests? in test/(\w+)[^\n]*\n\[FAIL[\s\S]*?"
    r"(?<!calldata=)\b((?:test|invariant)\w*|setUp)\(",
    re.MULTILINE,
)
BATCH = 4
PATIENCE = 600  # seconds; a mutant that loops for ever is dead, too
ALIVE = "**alive**"
NOT_RUN = "not run"
NOBODY = 1_000_000  # the number of no mutant
Settings = dict[str, Any]
PLAIN: Settings = {**build.SETTINGS, "optimizer": {"enabled": False}}
Staged = tuple[Mutant, int, str | None]


# -- compiling -------------------------------------------------------------------------------------


def compiled(many: Sequence[Mapping[str, str]], settings: Settings = PLAIN) -> list[Settings]:
    """The compiler's output for each set of sources; `ValueError` if one of them is no program."""
    units = {}
    for number, sources in enumerate(many):
        for name, text in sources.items():
            place = name if name.startswith("@") else f"m{number}/{name}"
            units[place] = {"content": text}
    wanted = {"*": {build.CONTRACT: ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}}
    request = {
        "language": "Solidity",
        "sources": units,
        "settings": {**settings, "outputSelection": wanted},
    }
    done = subprocess.run(
        [SOLC, "--standard-json"], input=json.dumps(request), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise ValueError(done.stderr)
    output = json.loads(done.stdout)
    if errors := [e for e in output.get("errors", ()) if e["severity"] == "error"]:
        raise ValueError(errors[0]["formattedMessage"])
    unit = f"contracts/{build.CONTRACT}.sol"
    return [output["contracts"][f"m{n}/{unit}"][build.CONTRACT] for n in range(len(many))]


def staged(sources: Mapping[str, str], wanted: Sequence[Mutant]) -> Iterator[Staged]:
    """Every mutant, its number, and the code that holds it; no code if it is no program."""
    ready = boards(sources, wanted)
    while batch := list(islice(ready, BATCH)):
        try:
            made = compiled([board.sources for board in batch])
        except ValueError:
            made = []
        for board, contract in zip(batch, made, strict=False):
            for number, mutant in board.mutants.items():
                yield mutant, number, contract["evm"]["deployedBytecode"]["object"]
        everybody = [m for board in batch for m in board.mutants.values()]
        if not made and len(everybody) == 1:
            yield everybody[0], 0, None
        elif not made:  # one of them spoils it for all: by halves
            half = len(everybody) // 2
            yield from staged(sources, everybody[:half])
            yield from staged(sources, everybody[half:])


# -- killing ---------------------------------------------------------------------------------------


def forge(code: str, number: int, which: Sequence[str]) -> str | None:
    """The first forge test that fails with this code in the ledger's place, that mutant picked."""
    environment = {
        **os.environ,
        "FIRMLEDGER_MUTANT": str(number),
        "FIRMLEDGER_MUTANTS": "0x" + code,
        "FOUNDRY_FUZZ_RUNS": "64",
        "FOUNDRY_INVARIANT_RUNS": "8",
    }
    command = [*FORGE, *which]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return "no end in sight"
    if done.returncode == 0:
        return None
    failed = FAILURE.search(done.stdout)
    if failed is None:
        raise RuntimeError(f"forge failed, and no test did:\n{done.stdout}\n{done.stderr}")
    return f"{failed[1]}: {failed[2]}"


def flows(mutant: Mutant, sources: Mapping[str, str]) -> str | None:
    """The first test in Python that fails; they deploy the ledger, so it is compiled for real."""
    broken = {**sources, mutant.unit: mutant.applied(sources[mutant.unit])}
    (made,) = compiled([broken], build.SETTINGS)
    code = {key: "0x" + made["evm"][key]["object"] for key in ("bytecode", "deployedBytecode")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.json"
        path.write_text(json.dumps({"abi": made["abi"], **code}))
        start = (
            "import json, sys, pytest; from tests.contracts import evm;"
            f"evm.ARTIFACT.update(json.load(open({str(path)!r})));"
            f"sys.exit(pytest.main(['-xq', '--basetemp={folder}/t', '-p', 'no:cacheprovider',"
            f" '--deselect', 'tests/contracts/test_build.py', *{FLOWS!r}]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", start],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=ROOT,
        )
    if done.returncode == 0:
        return None
    failed = re.search(r"^FAILED \S*?([^/]+)\.py::(\S+)", done.stdout, re.MULTILINE)
    if failed is None:
        raise RuntimeError(f"pytest failed, and no test did:\n{done.stdout}\n{done.stderr}")
    return f"{failed[1]}: {failed[2]}"


def killer(mutant: Mutant, number: int, code: str, sources: Mapping[str, str]) -> str | None:
    """What kills a mutant; None if nothing does."""
    return forge(code, number, UNIT) or forge(code, number, INVARIANTS) or flows(mutant, sources)


# -- the table -------------------------------------------------------------------------------------


def report(results: Mapping[str, str | None], wanted: Sequence[Mutant]) -> str:
    """docs/contract-mutants.md."""
    verdicts = {m.key: verdict(m, results) for m in wanted}
    kinds = [text.split(":")[0] for text in verdicts.values()]
    count = {kind: kinds.count(kind) for kind in ("equivalent", ALIVE, NOT_RUN)}
    lines = [
        "# Mutants of the contract",
        "",
        "GENERATED by `python -m tests.contracts.mutants`; do not edit. Each line is the contract",
        "with one thing changed, and the first test that failed with it. What is changed, and how,",
        "is said in `tests/contracts/mutations.py`. Mutants that were not run have no line.",
        "",
        f"{len(wanted)} mutants: {len(wanted) - sum(count.values())} killed,"
        f" {count['equivalent']} equivalent, {count[ALIVE]} alive, {count[NOT_RUN]} not run.",
        "",
    ]
    for unit in dict.fromkeys(m.unit for m in wanted):
        lines += [f"## {unit}", "", "| function | code | becomes | verdict |", "|---|---|---|---|"]
        for m in (m for m in wanted if m.unit == unit and verdicts[m.key] != NOT_RUN):
            cells = (m.function, _code(m.before), _code(m.after), verdicts[m.key])
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def verdict(mutant: Mutant, results: Mapping[str, str | None]) -> str:
    """What became of a mutant: the test that killed it, or why none did."""
    if reason := EQUIVALENT.get(mutant.key):
        return f"equivalent: {reason}"
    if mutant.key not in results:
        return NOT_RUN
    return results[mutant.key] or ALIVE


def _code(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return f"`{flat}`" if flat else "(left out)"


def say(lines: Iterable[str]) -> None:
    """On standard output, at once."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the mutants, run nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="those whose name contains TEXT")
    parser.add_argument("--again", action="store_true", help="those, too, that were run before")
    options = parser.parse_args(argv)
    sources = build.sources()
    wanted = list(mutants(sources))
    chosen = [m for m in wanted if options.only in m.key]
    if options.list:
        say(m.key for m in chosen)
        return 0
    known: dict[str, str | None] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {m.key: known[m.key] for m in wanted if m.key in known}
    todo = [m for m in chosen if m.key not in EQUIVALENT]
    todo = [m for m in todo if options.again or not results.get(m.key)]
    sound: str | None = None
    for mutant, number, code in staged(sources, todo):
        if code is not None and number and code != sound:
            if (failed := forge(code, NOBODY, UNIT)) is not None:
                say([f"error: unbroken, it fails {failed} / see it / mend it"])
                return 1
            sound = code
        died = "the compiler" if code is None else killer(mutant, number, code, sources)
        results[mutant.key] = died
        say([f"{died or 'SURVIVES'}  <-  {mutant.key}"])
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    TABLE.write_text(report(results, wanted))
    alive = [m for m in chosen if results.get(m.key) is None and m.key not in EQUIVALENT]
    say(f"error: nothing kills {m.key} / write the test that does" for m in alive)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
