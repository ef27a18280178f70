"""The walls of the house: who may import whom, and what a pure room may call.

import-linter checks the directions (its contracts are in pyproject.toml); a reading of the syntax
tree checks what imports do not show: clocks, files, randomness, the environment; a fresh
interpreter checks what a device really loads. Each check is shown to find a planted breach.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("protocol", "registry", "device_client", "demo")
PURE = (ROOT / "protocol", ROOT / "device_client" / "core")

# What the device's core may import beside protocol and itself: values, types, arithmetic.
CORE_MAY_IMPORT = {
    "__future__", "abc", "base64", "binascii", "bisect", "collections", "copy", "dataclasses",
    "datetime", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "itertools", "json",
    "math", "operator", "re", "string", "struct", "types", "typing", "zlib", "zoneinfo",
    "protocol", "device_client.core",
}  # fmt: skip

# What a device must not load to say how it is: each costs start-up time or memory by itself.
HEAVY = (
    "web3", "rlp", "trie", "eth_utils", "eth_hash", "eth_abi", "eth_account", "pydantic", "httpx2",
    "coincurve", "cwt", "ssl", "rich", "fastapi", "sqlalchemy",
)  # fmt: skip

CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"}
FILES = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir"}
RANDOM = {"urandom", "generate", "generate_key", "token_bytes", "get_random_bytes", "uuid4"}


def modules(*folders: Path) -> list[Path]:
    """Every Python file of ours below the folders."""
    return sorted(file for folder in folders for file in folder.rglob("*.py"))


def impurities(tree: ast.AST) -> Iterator[str]:
    """Name every call that reaches a clock, a file, randomness or a terminal."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in {"open", "print", "input", "__import__"}:
            yield f"line {node.lineno}: {called.id}()"
        if isinstance(called, ast.Name) and called.id in RANDOM:
            yield f"line {node.lineno}: {called.id}() is a source of randomness"
        if isinstance(called, ast.Attribute) and called.attr in CLOCKS | FILES | RANDOM:
            yield f"line {node.lineno}: .{called.attr}()"


def environment_reads(tree: ast.AST) -> Iterator[str]:
    """Name every mention of the process environment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}:
            yield f"line {node.lineno}: os.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            for name in node.names:
                if name.name in {"environ", "environb", "getenv"}:
                    yield f"line {node.lineno}: from os import {name.name}"


def imported(tree: ast.AST) -> Iterator[str]:
    """The full name of every module imported anywhere in a file, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def may_enter_core(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in CORE_MAY_IMPORT)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "COLUMNS": "200"},
    )


def test_imports_run_one_way() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


BREACHES = [
    ("protocol/planted.py", "import registry", "Rooms"),
    ("registry/planted.py", "import device_client", "Rooms"),
    ("device_client/planted.py", "import registry", "Rooms"),
    ("registry/planted.py", "import demo", "Rooms"),
    ("device_client/core/planted.py", "import device_client.adapters", "Device:"),
    ("protocol/planted.py", "import socket", "Protocol is pure"),
    ("device_client/core/planted.py", "import threading", "The device's core is pure"),
    ("protocol/planted.py", "import rlp", "A device loads nothing heavy"),
    ("device_client/planted.py", "def later():\n    import pydantic", "A device loads nothing"),
    ("registry/planted.py", "import web3", "web3 is seen by"),
    ("registry/planted.py", "from fastapi import FastAPI", "The web framework"),
]


@pytest.mark.parametrize(("file", "line", "contract"), BREACHES)
def test_a_planted_import_is_found(tmp_path: Path, file: str, line: str, contract: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / file).write_text(f"{line}\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    broken = [row for row in done.stdout.splitlines() if "BROKEN" in row]
    assert done.returncode != 0
    assert any(row.startswith(contract) for row in broken), done.stdout + done.stderr


@pytest.mark.parametrize("file", modules(*PURE), ids=lambda file: str(file.relative_to(ROOT)))
def test_pure_rooms_reach_no_clock_file_or_randomness(file: Path) -> None:
    assert list(impurities(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "datetime.now(UTC)",
        "date.today()",
        "time.time()",
        "open('x')",
        "Path('x').open()",
        "Path('x').read_bytes()",
        "os.urandom(32)",
        "Ed25519PrivateKey.generate()",
        "print('x')",
    ],
)
def test_a_planted_impurity_is_found(line: str) -> None:
    assert list(impurities(ast.parse(f"def f():\n    return {line}")))


def test_the_core_imports_values_and_protocol_alone() -> None:
    for file in modules(ROOT / "device_client" / "core"):
        names = set(imported(ast.parse(file.read_text(encoding="utf-8"))))
        foreign = {name for name in names if not may_enter_core(name)}
        assert not foreign, f"{file.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("name", ["os", "selectors", "device_client.ports", "cryptography"])
def test_the_core_admits_no_stranger(name: str) -> None:
    assert not may_enter_core(name)


def test_the_environment_is_read_in_settings_alone() -> None:
    allowed = ROOT / "registry" / "settings.py"
    for file in modules(*(ROOT / room for room in ROOMS)):
        if file != allowed:
            found = list(environment_reads(ast.parse(file.read_text(encoding="utf-8"))))
            assert not found, f"{file.relative_to(ROOT)}: {found}"


@pytest.mark.parametrize("line", ["os.environ['X']", "os.getenv('X')", "from os import environ"])
def test_a_planted_environment_read_is_found(line: str) -> None:
    assert list(environment_reads(ast.parse(line)))


def test_names_are_nouns_of_the_field() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "manager", "service", "services"}
    for file in modules(*(ROOT / room for room in ROOMS)):
        assert not vague & set(file.relative_to(ROOT).with_suffix("").parts), file


def loaded_by(program: str, folder: Path) -> set[str]:
    """Run a program in a fresh interpreter; return the heavy modules it has loaded at its end."""
    report = f"import json, sys; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{report}"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def device_modules() -> list[str]:
    """What a device imports before it knows what is asked of it."""
    pure = [file for folder in PURE for file in modules(folder)]
    command_line = ROOT / "device_client" / "cli.py"
    files = [*pure, command_line] if command_line.exists() else pure
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return [name.removesuffix(".__init__") for name in names]


def test_a_device_starts_light(tmp_path: Path) -> None:
    program = "\n".join(f"import {name}" for name in device_modules())
    assert loaded_by(program, tmp_path) == set()


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    assert "rlp" in loaded_by("import rlp", tmp_path)


if (ROOT / "device_client" / "cli.py").exists():

    def test_status_loads_nothing_heavy(tmp_path: Path) -> None:
        program = """
import sys
from device_client.cli import main
sys.argv = ["firmledger-device", "-C", "nowhere", "status", "--json"]
try:
    main()
except SystemExit as ended:
    assert ended.code == 1, ended.code
"""
        assert loaded_by(program, tmp_path) == set()
