"""npm's Solidity compiler behind the native command line: what forge and py-solc-x rely on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOLCJS = ROOT / "contracts" / "solcjs"
HEADER = "// SPDX-License-Identifier: Apache-2.0\npragma solidity ^0.8.0;\n"

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and (ROOT / "node_modules" / "solc").is_dir()),
    reason="needs Node.js and npm's solc: run `make test`, which installs it",
)


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([SOLCJS, *arguments], input=given, capture_output=True, text=True)


def compile_(main: str, *arguments: str) -> dict[str, Any]:
    """Compile one source that may import others; return the compiler's answer."""
    question = {
        "language": "Solidity",
        "sources": {"Main.sol": {"content": HEADER + main}},
        "settings": {
            "viaIR": True,
            "outputSelection": {"*": {"*": ["evm.deployedBytecode.object"]}},
        },
    }
    done = run("--standard-json", *arguments, given=json.dumps(question))
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def errors(answer: dict[str, Any]) -> str:
    return "\n".join(error["message"] for error in answer.get("errors", []))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for folder in ("base", "include", "outside"):
        (tmp_path / folder).mkdir()
        source = f"{HEADER}library {folder.title()} {{}}\n"
        (tmp_path / folder / f"{folder.title()}.sol").write_text(source, encoding="utf-8")
    return tmp_path


def test_version_reads_as_the_native_compilers() -> None:
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]["solc"]
    pattern = rf"solc, .*\nVersion: {re.escape(pinned)}\+commit\.[0-9a-f]{{8}}\S*\n"
    assert re.fullmatch(pattern, run("--version").stdout)


def test_compiles_without_imports() -> None:
    answer = compile_("contract C { uint256 public x; }")
    code = answer["contracts"]["Main.sol"]["C"]["evm"]["deployedBytecode"]["object"]
    assert len(code) > 100


def test_imports_are_found_below_base_and_include_paths(library: Path) -> None:
    source = 'import "Base.sol"; import "Include.sol"; contract C {}'
    base = ("--base-path", str(library / "base"))
    include = f"--include-path={library / 'include'}"
    assert not errors(compile_(source, *base, include))
    assert '"Include.sol" not found' in errors(compile_(source, *base))
    assert '"Base.sol" not found' in errors(compile_(source, include, "--base-path", "/nowhere"))


def test_an_import_found_twice_is_ambiguous(library: Path) -> None:
    shutil.copy(library / "base" / "Base.sol", library / "include")
    paths = ("--base-path", str(library / "base"), "--include-path", str(library / "include"))
    assert "Ambiguous" in errors(compile_('import "Base.sol"; contract C {}', *paths))


def test_a_link_that_leads_outside_the_allowed_paths_is_not_read(library: Path) -> None:
    (library / "base" / "Linked.sol").symlink_to(library / "outside" / "Outside.sol")
    source = 'import "Linked.sol"; contract C {}'
    base = ("--base-path", str(library / "base"))
    assert "outside of allowed" in errors(compile_(source, *base))
    assert not errors(compile_(source, *base, "--allow-paths", str(library / "outside")))


def test_a_path_that_leads_upwards_is_not_followed(library: Path) -> None:
    source = f'import "{library}/base/../outside/Outside.sol"; contract C {{}}'
    assert "outside of allowed" in errors(compile_(source, "--allow-paths", str(library / "base")))


def test_a_wrong_source_is_an_answer_not_a_crash() -> None:
    assert "ParserError" in {e["type"] for e in compile_("contract {")["errors"]}


def test_input_that_is_not_json_is_an_answer_not_a_crash() -> None:
    answer = json.loads(run("--standard-json", given="{").stdout)
    assert answer["errors"][0]["type"] == "JSONError"


@pytest.mark.parametrize("arguments", [["--bin", "x.sol"], []])
def test_other_modes_are_refused_by_name(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert re.match(r"error: .* / .* / .*", done.stderr)
