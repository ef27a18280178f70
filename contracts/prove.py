"""Has halmos prove the checks of contracts/symbolic/ for every input within their bounds.

    python contracts/prove.py [CONTRACT ...]

Guarantees: every `check_` function there is run, under the solver and the bounds that its comment
names; the verdict is a line of the table that is printed; the exit code is 0 only if each of them
was proved, without a path left out. A check that reverts on every path is no proof, and fails.

The sources are compiled by forge with this project's compiler and settings (profile `symbolic`).
`requirements/install.py halmos npm` installs what this needs. A run takes minutes, so neither
`make test` nor `make lint` contains it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import foundry  # noqa: E402  a script beside this one

HALMOS = HERE.parent / ".venv-halmos" / "bin" / "halmos"
PATIENCE = 300_000  # milliseconds of solving for one assertion
VERDICTS = {0: "proved", 1: "REFUTED", 2: "not decided in time", 3: "stuck", 4: "reverts always"}


def wanted(contracts: list[str]) -> set[str]:
    """Every check there is in the contracts named, or in all of them."""
    names: set[str] = set()
    for source in (HERE / "symbolic").glob("*.sol"):
        for part in re.split(r"^contract ", source.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if not contracts or part.split()[0] in contracts:
                names |= set(re.findall(r"^    function (check_\w+)", part, re.MULTILINE))
    return names


def prove(contract: str) -> list[dict[str, Any]]:
    """What halmos reports of the checks of one contract."""
    environment = os.environ | {
        "FOUNDRY_PROFILE": "symbolic",
        "PATH": os.pathsep.join((str(foundry.binary("forge").parent), os.environ["PATH"])),
    }
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                *(HALMOS, "--root", HERE, "--forge-build-out", "out/symbolic"),
                *("--match-contract", contract, "--json-output", report, "--no-status"),
                *("--solver-timeout-assertion", str(PATIENCE)),
            ],
            env=environment,
            cwd=HERE,
            stdout=sys.stderr,
            check=False,
        )
        if not report.is_file():
            return []
        results = json.loads(report.read_text(encoding="utf-8"))["test_results"]
    return [test for tests in results.values() for test in tests]


def judge(found: list[dict[str, Any]], names: set[str]) -> tuple[list[str], set[str]]:
    """The table's rows, and which of the checks named were not proved: missing ones included."""
    rows, proved = [], set()
    for test in found:
        name = str(test["name"]).partition("(")[0]
        verdict = VERDICTS.get(test["exitcode"], "halmos failed")
        if test["num_bounded_loops"]:
            verdict = f"{verdict}, but {test['num_bounded_loops']} loops were cut short"
        elif test["exitcode"] == 0:
            proved.add(name)
        (paths, *_), (seconds, *_) = test["num_paths"] or [0], test["time"] or [0]
        rows.append(f"| `{name}` | {verdict} | {paths} | {seconds:.0f} |")
    return rows, names - proved


def main(contracts: list[str]) -> int:
    """The command line; returns the exit code."""
    if not HALMOS.is_file():
        print("error: no halmos / .venv-halmos is missing / run requirements/install.py halmos npm")
        return 1
    found = prove("|".join(f"^{name}$" for name in contracts) or "^Symbolic")
    rows, left = judge(found, wanted(contracts))
    print("\n".join(["| check | verdict | paths | seconds |", "|---|---|---|---|", *rows]))
    if left:
        print(
            f"error: not proved: {', '.join(sorted(left))} / see above / mend the rule or the check"
        )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
