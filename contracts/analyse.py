"""Has slither read the contract, and fails on every finding that nobody has explained.

    python contracts/analyse.py [--list]

Guarantees: slither sees the sources, the compiler and the settings of contracts/build.py, all its
detectors on; each finding is named in contracts/slither.toml with the reason why it stands; a name
there that slither does not find is an error as well, so that the list does not outlive the code. A
finding is named by its check and by where it is: contract.function, with the variable if it is
about one, or the file.

It does not install slither: `requirements/install.py slither` does, into `.venv-slither`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import build  # noqa: E402  a script beside this one

SLITHER = build.ROOT / ".venv-slither" / "bin" / "slither"
EXPLAINED = HERE / "slither.toml"
OUTPUTS = {"*": {"*": ["abi", "evm.bytecode", "evm.deployedBytecode"], "": ["ast"]}}

Name = tuple[str, str]  # check, place


def request() -> dict[str, Any]:
    """The standard JSON input of contracts/build.py, with the outputs that slither reads."""
    return {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in build.sources().items()},
        "settings": {**build.SETTINGS, "outputSelection": OUTPUTS},
    }


def findings() -> list[tuple[Name, str]]:
    """What slither says: the name of each finding, and its description."""
    if not SLITHER.is_file():
        raise build.BuildError(
            "no slither", f"{SLITHER} is missing", "run `make lint`, which installs it"
        )
    with tempfile.TemporaryDirectory() as folder:
        source, report = Path(folder) / "ledger.json", Path(folder) / "report.json"
        source.write_text(json.dumps(request()), encoding="utf-8")
        done = subprocess.run(
            [
                *(SLITHER, source, "--compile-force-framework", "solc-json"),
                *("--solc", HERE / "solcjs", "--json", report),
            ],
            cwd=build.ROOT,
            capture_output=True,
            text=True,
        )
        if not report.is_file():
            raise build.BuildError("slither did not finish", done.stderr[-2000:], "see its words")
        said = json.loads(report.read_text(encoding="utf-8"))
    if not said["success"]:
        raise build.BuildError("slither failed", str(said["error"])[-2000:], "see its words")
    detectors = said["results"].get("detectors", [])
    return [((d["check"], _place(d["elements"])), d["description"]) for d in detectors]


def _place(elements: list[dict[str, Any]]) -> str:
    """contract.function(.variable) of what a finding is about first; else its file."""
    parts: list[str] = []
    element: dict[str, Any] | None = elements[0]
    while element is not None and element["type"] in ("contract", "function", "variable", "node"):
        parts.insert(0, element["name"])
        element = element.get("type_specific_fields", {}).get("parent")
    return ".".join(parts) or elements[0]["source_mapping"]["filename_relative"]


def explained() -> dict[Name, str]:
    """The reasons of contracts/slither.toml, by finding."""
    groups = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))["explained"]
    reasons: dict[Name, str] = {}
    for group in groups:
        for place in group["where"]:
            name = (group["check"], place)
            if not group["why"].strip() or name in reasons:
                raise build.BuildError(f"{name} refused", "no reason, or two", f"mend {EXPLAINED}")
            reasons[name] = group["why"]
    return reasons


def judge(found: list[tuple[Name, str]], reasons: dict[Name, str]) -> list[str]:
    """What is wrong: findings without a reason, reasons without a finding."""
    names = {name for name, _ in found}
    new = [
        f"error: {check} in {place} / {description.strip()} / mend it, or explain it"
        for (check, place), description in found
        if (check, place) not in reasons
    ]
    gone = [
        f"error: {check} in {place} is explained / slither finds no such thing / strike it"
        for check, place in sorted(reasons.keys() - names)
    ]
    return new + gone


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print every finding with its reason")
    options = parser.parse_args(argv)
    try:
        found, reasons = findings(), explained()
    except build.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    if options.list:
        for (check, place), _ in found:
            print(f"{check} in {place}: {reasons.get((check, place), 'NOT EXPLAINED')}")
    wrong = judge(found, reasons)
    print("\n".join([*wrong, f"slither: {len(found)} findings, {len(wrong)} to mend"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
