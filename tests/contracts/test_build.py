"""What the build promises, as far as it can be seen without a compiler."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol import _abi
from protocol.digests import keccak256
from tests.contracts.evm import ARTIFACT, LedgerBox

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """contracts/build.py; `contracts` is no package."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "contracts" / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_constants_are_those_of_the_artifact(build: ModuleType) -> None:
    assert (ROOT / "protocol" / "_abi.py").read_text() == build.constants(ARTIFACT)


def test_the_artifact_is_of_these_sources() -> None:
    own = {k: v for k, v in ARTIFACT["sources"].items() if k.startswith("contracts/")}
    present = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "contracts").rglob("*.sol")
        if not {"test", "symbolic", "out", "cache"} & set(p.parts)
    }
    assert own.keys() == present
    for name, digest in own.items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == digest, name


def test_the_code_hash_is_that_of_any_deployment() -> None:
    boxes = [LedgerBox(*names) for names in (("alice",), ("bob",))]
    assert boxes[0].contract != boxes[1].contract
    assert {keccak256(b.evm.code(b.contract)) for b in boxes} == {_abi.CODE_HASH}


def test_the_code_fits(build: ModuleType) -> None:
    assert len(ARTIFACT["deployedBytecode"]) // 2 - 1 < build.CODE_LIMIT


def test_the_code_reads_nothing_a_validator_chooses(build: ModuleType) -> None:
    code = bytes.fromhex(ARTIFACT["deployedBytecode"][2:])
    assert not set(build.opcodes(code)) & build.FORBIDDEN.keys()


@pytest.mark.parametrize("opcode", [0x32, 0x40, 0x41, 0x44, 0xF4, 0xFF])
def test_a_forbidden_instruction_is_found(build: ModuleType, opcode: int) -> None:
    shown = bytes([0x60, opcode, opcode])  # PUSH1 carries the first, not the second
    with pytest.raises(build.BuildError, match=build.FORBIDDEN[opcode]):
        build.artifact(made_of(shown))
    carried = bytes([0x61, opcode, opcode])  # PUSH2 carries both
    assert build.artifact(made_of(carried))["codeHash"] == str(keccak256(carried))


def test_immutables_and_too_much_code_are_refused(build: ModuleType) -> None:
    made = made_of(b"\0")
    made["evm"]["deployedBytecode"]["immutableReferences"] = {"1": []}
    with pytest.raises(build.BuildError, match="immutables"):
        build.artifact(made)
    with pytest.raises(build.BuildError, match="24577 bytes"):
        build.artifact(made_of(bytes(build.CODE_LIMIT + 1)))


def test_no_compiler_names_all_four_ways(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_solcx_installed", "_solcx_downloaded", "_npm"):
        monkeypatch.setattr(build, name, lambda: None)
    with pytest.raises(build.BuildError) as caught:
        build.find_solc(None)
    for way in ("--solc", "py-solc-x has it", "py-solc-x downloads", "npm"):
        assert way in str(caught.value)


def test_another_compiler_is_refused(build: ModuleType, tmp_path: Path) -> None:
    other = tmp_path / "solc"
    other.write_text("#!/bin/sh\necho 'Version: 0.8.29+commit.ab55807c.Linux.g++'\n")
    other.chmod(0o755)
    with pytest.raises(build.BuildError, match=r"not solc 0\.8\.30"):
        build.compile_contract(other)


def test_the_constants_cost_nothing_to_import() -> None:
    code = (
        "import json, sys, typing; before = set(sys.modules); import protocol._abi;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["protocol", "protocol._abi"]


def made_of(code: bytes) -> dict[str, Any]:
    """A compiler's answer with this runtime code."""
    return {
        "evm": {"bytecode": {"object": ""}, "deployedBytecode": {"object": code.hex()}},
        "storageLayout": {"storage": [], "types": {}},
        "compiler": "0.8.30+commit.73712a01",
        "units": {},
        "abi": [],
    }
