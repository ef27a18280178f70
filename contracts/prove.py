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


def wanted() -> set[str]:
    """Every check there is, by name."""
    sources = sorted((HERE / "symbolic").glob("*.sol"))
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    return set(re.findall(r"^    function (check_\w+)", text, re.MULTILINE))


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


def main(contracts: list[str]) -> int:
    """The command line; returns the exit code."""
    if not HALMOS.is_file():
        print("error: no halmos / .venv-halmos is missing / run requirements/install.py halmos npm")
        return 1
    found = prove("|".join(f"^{name}$" for name in contracts) or "^Symbolic")
    proved = set()
    print("| check | verdict | paths | seconds |\n|---|---|---|---|")
    for test in found:
        name = _name(test)
        verdict = VERDICTS.get(test["exitcode"], "halmos failed")
        if test["num_bounded_loops"]:
            verdict = f"{verdict}, but {test['num_bounded_loops']} loops were cut short"
        elif test["exitcode"] == 0:
            proved.add(name)
        (paths, *_), (seconds, *_) = test["num_paths"] or [0], test["time"] or [0]
        print(f"| {name} | {verdict} | {paths} | {seconds:.0f} |")
    missing = (wanted() if not contracts else {_name(test) for test in found}) - proved
    return 1 if missing or not found else 0


def _name(test: dict[str, Any]) -> str:
    return str(test["name"]).partition("(")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
