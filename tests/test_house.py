"""The house itself: its doors, its locks, its set-up, and what may lie about in it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
LEVELS = ("base", "registry", "dev")
PIN = re.compile(r"([a-z0-9-]+)==([^ ;\\]+)(?: ;.*)? \\")


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def pins(level: str) -> dict[str, str]:
    """Name -> version of every package a lock installs."""
    lines = text(LOCKS / f"{level}.txt").splitlines()
    return {m[1]: m[2] for line in lines if (m := PIN.fullmatch(line))}


def ours() -> list[Path]:
    """Every text file of the project: what git tracks, and what it would."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    files = [ROOT / name for name in listing.split("\0") if name]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:8000]]


# --- doors ---


def doors() -> list[str]:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return re.findall(r"^  make ([a-z]+)  +\S", done.stdout, re.MULTILINE)


def test_help_names_every_door_and_there_are_few() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", text(ROOT / "Makefile"), re.MULTILINE)
    assert phony
    assert sorted(doors()) == sorted(phony[1].split())
    assert {"help", "demo", "test"} <= set(doors())
    assert len(doors()) <= 8


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_pages_name_only_doors_that_exist(page: str) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text(ROOT / page), re.MULTILINE))
    assert named <= set(doors())


def test_ci_opens_the_doors_of_a_newcomer_and_no_others() -> None:
    lines = text(ROOT / ".ci" / "run").splitlines()
    opened = [line for line in lines if line.startswith("make")]
    assert opened == ["make lint", "make test"]


# --- locks ---


@pytest.mark.parametrize("level", [*LEVELS, "slither", "halmos"])
def test_a_lock_pins_by_digest_and_names_no_address(level: str) -> None:
    lock = text(LOCKS / f"{level}.txt")
    assert not re.search(r"://|file:|--(?:extra-)?index|--find-links|--trusted|(?<=\s)@\s", lock)
    entries = [entry for entry in re.split(r"\n(?=\S)", lock) if not entry.startswith("#")]
    for entry in entries:
        assert PIN.match(entry.splitlines()[0]), entry[:60]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry[:60]
    assert len(pins(level)) == len(entries) > 0


def test_locks_contain_one_another() -> None:
    base, registry, dev = (pins(level) for level in LEVELS)
    assert base.items() < registry.items() < dev.items()


@pytest.mark.parametrize("level", LEVELS)
def test_locks_are_in_step_with_pyproject(level: str) -> None:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    wanted = list(project["dependencies"])
    for extra in LEVELS[1 : LEVELS.index(level) + 1]:
        wanted += project["optional-dependencies"][extra]
    locked = pins(level)
    for requirement in map(Requirement, wanted):
        version = locked.get(requirement.name)
        assert version, f"{requirement} is not locked: run requirements/lock"
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_a_device_is_not_made_to_install_the_registry() -> None:
    assert not {"web3", "rlp", "trie", "pydantic", "fastapi", "setuptools"} & set(pins("base"))


def test_npm_lock_pins_by_digest_and_names_no_address() -> None:
    wanted = json.loads(text(ROOT / "package.json"))
    lock = json.loads(text(ROOT / "package-lock.json"))["packages"]
    direct = wanted["devDependencies"] | wanted["optionalDependencies"]
    for name, version in direct.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    for name, entry in lock.items():
        assert "resolved" not in entry, name
        assert not name or entry["integrity"].startswith("sha512-"), name


# --- set-up ---


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the set-up and nothing to set up yet."""
    (tmp_path / "requirements").mkdir()
    shutil.copy(LOCKS / "install.py", tmp_path / "requirements")
    for name in ("package-lock.json", ".npmrc", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(folder: Path, name: str, script: str) -> Path:
    """An executable shell script; the way to put an old Python or a broken npm on PATH."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def set_up(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "requirements/install.py", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout)},
    )


def test_the_set_up_can_be_read_by_a_python_too_old_to_use() -> None:
    ast.parse(text(LOCKS / "install.py"), feature_version=(3, 7))


def test_an_old_python_is_refused_before_anything_is_made(checkout: Path) -> None:
    old = program(checkout / "bin", "python-old", "echo 3 9")
    done = set_up(checkout, "registry", "--python", str(old))
    assert done.returncode == 1
    assert re.fullmatch(r"error: PYTHON=.*python-old .* / .*3\.9.* / .*PYTHON.*\n", done.stderr)
    assert not (checkout / ".venv").exists()


def test_no_python_on_path_says_how_to_get_one(checkout: Path) -> None:
    program(checkout / "bin", "python3", "echo 3 10")
    program(checkout / "bin", "python3.12", "exit 127")
    done = set_up(checkout, "registry")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no usable Python found / ")
    assert not (checkout / ".venv").exists()


def test_no_npm_says_how_to_get_it_and_what_needs_none(checkout: Path) -> None:
    done = set_up(checkout, "npm")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no npm found / ")
    assert "make demo" in done.stderr


def test_npm_runs_once_for_one_lock(checkout: Path) -> None:
    program(checkout / "bin", "npm", 'echo "$@" >> calls; /bin/mkdir -p node_modules')
    calls = checkout / "calls"
    assert set_up(checkout, "npm").returncode == 0
    assert set_up(checkout, "npm").returncode == 0
    assert len(text(calls).splitlines()) == 1
    with (checkout / "package-lock.json").open("a", encoding="utf-8") as lock:
        lock.write("\n")
    assert set_up(checkout, "npm").returncode == 0
    assert len(text(calls).splitlines()) == 2


def test_a_failed_npm_leaves_no_stamp(checkout: Path) -> None:
    program(checkout / "bin", "npm", "/bin/mkdir -p node_modules; exit 1")
    assert set_up(checkout, "npm").stderr.startswith("error: npm did not install")
    assert not (checkout / "node_modules" / ".firmledger").exists()


# --- skips ---


def run_pytest(folder: Path, no_skip: bool) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "FIRMLEDGER_NO_SKIP"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment | ({"FIRMLEDGER_NO_SKIP": "1"} if no_skip else {}),
    )


@pytest.fixture
def small_suite(tmp_path: Path) -> Path:
    """A suite of its own, under this suite's conftest."""
    for folder in ("tests", ".ci"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    shutil.copy(ROOT / ".ci" / "debian-packages", tmp_path / ".ci")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


SKIPPING = {
    "marked": "@pytest.mark.skip(reason='because')\ndef test_it(): pass",
    "called": "def test_it(): pytest.skip('because')",
    "whole file": "pytest.skip('because', allow_module_level=True)",
    "debian": "@pytest.mark.debian('opensbi', '/nowhere/because')\ndef test_it(): pass",
}


@pytest.mark.parametrize("source", SKIPPING.values(), ids=SKIPPING.keys())
def test_a_skip_fails_where_no_skip_is_allowed(small_suite: Path, source: str) -> None:
    file = small_suite / "tests" / "test_skipping.py"
    file.write_text(f"import pytest\n{source}\n", encoding="utf-8")
    assert "1 skipped" in run_pytest(small_suite, no_skip=False).stdout
    strict = run_pytest(small_suite, no_skip=True)
    assert strict.returncode != 0
    assert "skipped where no test may be" in strict.stdout
    assert "because" in strict.stdout


def test_an_expected_failure_is_no_skip(small_suite: Path) -> None:
    file = small_suite / "tests" / "test_expected.py"
    file.write_text(
        "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n", encoding="utf-8"
    )
    assert run_pytest(small_suite, no_skip=True).returncode == 0


def test_a_package_that_ci_does_not_install_is_refused(small_suite: Path) -> None:
    file = small_suite / "tests" / "test_unknown.py"
    file.write_text(
        "import pytest\n@pytest.mark.debian('unlisted', '/bin/sh')\ndef test_it(): pass\n",
        encoding="utf-8",
    )
    done = run_pytest(small_suite, no_skip=False)
    assert done.returncode != 0
    assert "unlisted is not in .ci/debian-packages" in done.stdout + done.stderr


# --- what lies about ---

SECRET = re.compile(
    r"BEGIN [A-Z ]*PRIVATE KEY|(?i:private|secret|seed)[^\n]{0,40}[\"'= ](?:0x)?[0-9a-f]{64}\b"
)
FOREIGN_PATH = re.compile(r"(?<![\w./-])/(?:root|home|work|Users)/\w")


def secrets_outside_vectors(file: Path, content: str) -> list[str]:
    """Lines that hold what looks like a private key, outside of what is named a test vector."""
    parts = file.relative_to(ROOT).parts
    if "vectors" in parts or ("tests" in parts and "vector" in file.stem):
        return []
    lines = content.splitlines()
    return [line for line in lines if SECRET.search(line) and "test vector" not in line]


def test_keys_in_the_repository_are_named_test_vectors() -> None:
    found = {str(file): secrets_outside_vectors(file, text(file)) for file in ours()}
    assert not {file: lines for file, lines in found.items() if lines}


@pytest.mark.parametrize("line", ["-----BEGIN EC " + "PRIVATE KEY-----", "secret = '" + "ab" * 32])
def test_a_planted_key_is_found(line: str) -> None:
    assert secrets_outside_vectors(ROOT / "registry" / "planted.py", line)
    assert not secrets_outside_vectors(ROOT / "protocol" / "vectors" / "key.json", line)


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    found = [str(file) for file in ours() if FOREIGN_PATH.search(text(file))]
    assert not found


def test_every_solidity_file_states_its_licence() -> None:
    sources = [file for file in ours() if file.suffix == ".sol"]
    assert sources
    for file in sources:
        assert text(file).startswith("// SPDX-License-Identifier: Apache-2.0\n"), file
