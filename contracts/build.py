"""Compiles the contract, and writes what the rest of the project knows about it.

    python contracts/build.py [--check] [--solc PATH]

Guarantees: the same sources give the same bytes on every machine, whichever of the compilers below
is used: no path, no time and no metadata enters the bytecode, and nothing of it depends on where it
is deployed, so that one code hash stands for every deployment.

Writes `contracts/artifacts/ReleaseLedger.json` (ABI, bytecode, storage layout, compiler, settings)
and `protocol/_abi.py` (the few constants a device needs). ``--check`` writes nothing and exits 1 if
either differs from what is committed.

The compiler is the first of: ``--solc PATH``; py-solc-x's installed one; one that py-solc-x
downloads; npm's `solc` behind `contracts/solcjs`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from Crypto.Hash import keccak

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CONTRACT = "ReleaseLedger"
ARTIFACT = HERE / "artifacts" / f"{CONTRACT}.json"
CONSTANTS = ROOT / "protocol" / "_abi.py"
SOLC_VERSION = "0.8.30"
CODE_LIMIT = 24_576  # EIP-170

SETTINGS: dict[str, Any] = {
    "evmVersion": "paris",
    "viaIR": True,
    "optimizer": {"enabled": True, "runs": 200},
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
}
OUTPUTS = ["abi", "evm.bytecode.object", "evm.deployedBytecode", "storageLayout"]

# What the code may not do: read what a validator chooses or who pays, or let other code act as it.
FORBIDDEN = {
    0x32: "ORIGIN",
    0x40: "BLOCKHASH",
    0x41: "COINBASE",
    0x44: "PREVRANDAO",
    0xF0: "CREATE",
    0xF1: "CALL",
    0xF2: "CALLCODE",
    0xF4: "DELEGATECALL",
    0xF5: "CREATE2",
    0xFF: "SELFDESTRUCT",
}

# Which mapping of the contract becomes which constant of protocol/_abi.py.
SLOTS = {
    "_products": "PRODUCTS_SLOT",
    "_releases": "RELEASES_SLOT",
    "_images": "IMAGES_SLOT",
    "_fleets": "FLEETS_SLOT",
    "_approved": "APPROVED_SLOT",
    "_withdrawn": "WITHDRAWN_SLOT",
}


class BuildError(Exception):
    """What went wrong, why, and what to do: three clauses, for a person."""

    def __init__(self, what: str, why: str, fix: str) -> None:
        super().__init__(f"error: {what} / {why} / {fix}")


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it."""
    return keccak.new(data=data, digest_bits=256).digest()


# -- sources ---------------------------------------------------------------------------------------


def _locate(unit: str) -> Path:
    """The file of a source unit: ours lie below contracts/, OpenZeppelin's below node_modules/."""
    path = ROOT / "node_modules" / unit if unit.startswith("@") else ROOT / unit
    if not path.is_file():
        raise BuildError(f"{unit} is missing", "it is imported", "run `npm ci`, then try again")
    return path


def _imports(unit: str, text: str) -> Iterator[str]:
    """Source units that ``text`` imports; relative ones are resolved against ``unit``."""
    for name in re.findall(r"^import\s[^;]*?[\"']([^\"']+)[\"'];", text, re.MULTILINE):
        if not name.startswith("."):
            yield name
            continue
        parts = unit.split("/")[:-1]
        for step in name.split("/"):
            if step == "..":
                parts.pop()
            elif step != ".":
                parts.append(step)
        yield "/".join(parts)


def sources() -> dict[str, str]:
    """Every source unit the contract is made of, by name."""
    found: dict[str, str] = {}
    queue = [f"contracts/{CONTRACT}.sol"]
    while queue:
        unit = queue.pop()
        if unit not in found:
            found[unit] = _locate(unit).read_text(encoding="utf-8")
            queue.extend(_imports(unit, found[unit]))
    return dict(sorted(found.items()))


# -- the compiler ----------------------------------------------------------------------------------


def _solcx_installed() -> Path | None:
    import solcx  # here, because --solc and npm's compiler do without it

    if SOLC_VERSION not in {str(v) for v in solcx.get_installed_solc_versions()}:
        return None
    return Path(solcx.install.get_executable(SOLC_VERSION))


def _solcx_downloaded() -> Path | None:
    import solcx

    solcx.install_solc(SOLC_VERSION)
    return _solcx_installed()


def _npm() -> Path | None:
    shim = HERE / "solcjs"
    return shim if (ROOT / "node_modules" / "solc").is_dir() else None


def find_solc(given: Path | None) -> Path:
    """The compiler to use, in the documented order; `BuildError` names all four ways."""
    if given is not None:
        return given.resolve()
    tried = []
    for name, find in (
        ("py-solc-x has it installed", _solcx_installed),
        ("py-solc-x downloads it", _solcx_downloaded),
        ("npm's solc", _npm),
    ):
        try:
            if (path := find()) is not None:
                return path
            tried.append(f"{name}: no")
        except Exception as error:  # whatever a download may raise: the next way is tried
            tried.append(f"{name}: {type(error).__name__}")
    raise BuildError(
        f"no Solidity compiler {SOLC_VERSION}",
        "; ".join(["--solc PATH: not given", *tried]),
        "run `npm ci`, or give --solc PATH",
    )


def compile_contract(solc: Path) -> dict[str, Any]:
    """Standard JSON in, the contract's part of standard JSON out, with the compiler's version."""
    try:
        asked = subprocess.run([solc, "--version"], capture_output=True, text=True)
    except OSError as fault:
        raise BuildError(f"{solc} not run", str(fault.strerror), "give another --solc") from fault
    banner = asked.stdout
    version = re.search(r"Version: (\d+\.\d+\.\d+\+commit\.[0-9a-f]{8})", banner)
    if version is None or not version[1].startswith(f"{SOLC_VERSION}+"):
        raise BuildError(f"{solc} refused", f"it is not solc {SOLC_VERSION}", "give another --solc")
    units = sources()
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in units.items()},
        "settings": {**SETTINGS, "outputSelection": {"*": {CONTRACT: OUTPUTS}}},
    }
    done = subprocess.run(
        [solc, "--standard-json"], input=json.dumps(request), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BuildError("the compiler failed", done.stderr.strip(), "see its message")
    output = json.loads(done.stdout)
    if output.get("errors"):  # warnings, too: a contract that cannot be mended has none
        messages = "\n".join(e["formattedMessage"] for e in output["errors"])
        raise BuildError("the contract does not compile cleanly", messages, "mend the sources")
    made: dict[str, Any] = output["contracts"][f"contracts/{CONTRACT}.sol"][CONTRACT]
    made["compiler"] = version[1]
    made["units"] = units
    return made


# -- what is written -------------------------------------------------------------------------------


def opcodes(code: bytes) -> Iterator[int]:
    """The instructions of ``code`` in order, without what PUSH1 to PUSH32 carry."""
    at = 0
    while at < len(code):
        yield code[at]
        at += 1 + max(0, code[at] - 0x5F if code[at] <= 0x7F else 0)


def artifact(made: dict[str, Any]) -> dict[str, Any]:
    """The committed description of the contract."""
    runtime = made["evm"]["deployedBytecode"]
    code = bytes.fromhex(runtime["object"])
    if runtime.get("immutableReferences"):
        raise BuildError("immutables refused", "they vary the code hash", "use constants")
    if found := sorted(FORBIDDEN[op] for op in set(opcodes(code)) & FORBIDDEN.keys()):
        raise BuildError(
            f"{', '.join(found)} refused", "the ledger has no use for it", "write it without"
        )
    if len(code) > CODE_LIMIT:
        raise BuildError(
            f"{len(code)} bytes of code", f"{CODE_LIMIT} may be deployed", "shorten it"
        )
    types = made["storageLayout"]["types"]
    return {
        "contractName": CONTRACT,
        "compiler": {"name": "solc", "version": made["compiler"], "settings": SETTINGS},
        "sources": {
            name: hashlib.sha256(text.encode()).hexdigest() for name, text in made["units"].items()
        },
        "storageLayout": [
            {"label": s["label"], "slot": int(s["slot"]), "type": types[s["type"]]["label"]}
            for s in made["storageLayout"]["storage"]
        ],
        "codeHash": "0x" + keccak256(code).hex(),
        "abi": made["abi"],
        "bytecode": "0x" + made["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + code.hex(),
    }


def _type(parameter: dict[str, Any]) -> str:
    if not parameter["type"].startswith("tuple"):
        return str(parameter["type"])
    inner = ",".join(_type(c) for c in parameter["components"])
    return f"({inner}){parameter['type'].removeprefix('tuple')}"


def _signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(_type(p) for p in entry['inputs'])})"


def _of_kind(abi: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return sorted((e for e in abi if e["type"] == kind), key=lambda e: str(e["name"]))


def constants(made: dict[str, Any]) -> str:
    """The text of protocol/_abi.py: plain literals, nothing to compute at import."""
    abi, described = made["abi"], made["storageLayout"]
    lines = [
        '"""The contract from outside. GENERATED by contracts/build.py; do not edit."""',
        "",
        "from typing import Final",
        "",
        "# keccak256 of the deployed code: the same for every deployment",
        f"CODE_HASH: Final = bytes.fromhex({made['codeHash'][2:]!r})",
        "",
        "# places of the mappings in storage",
        *(f"{SLOTS[s['label']]}: Final = {s['slot']}" for s in described),
        "",
        "# the first 4 bytes of keccak256 of a function's signature",
        "SELECTORS: Final[dict[str, bytes]] = {",
    ]
    for entry in _of_kind(abi, "function"):
        selector = keccak256(_signature(entry).encode())[:4]
        lines.append(f"    {entry['name']!r}: bytes.fromhex({selector.hex()!r}),")
    lines += ["}", "", "# keccak256 of an event's signature", "TOPICS: Final[dict[str, bytes]] = {"]
    for entry in _of_kind(abi, "event"):
        topic = keccak256(_signature(entry).encode())
        lines.append(f"    {entry['name']!r}: bytes.fromhex({topic.hex()!r}),")
    lines += [
        "}",
        "",
        "# custom errors by selector: name, then (name, type) of each argument",
        "ERRORS: Final[dict[bytes, tuple[str, tuple[tuple[str, str], ...]]]] = {",
    ]
    for entry in _of_kind(abi, "error"):
        selector = keccak256(_signature(entry).encode())[:4]
        fields = tuple((str(p["name"]), str(p["type"])) for p in entry["inputs"])
        lines.append(f"    bytes.fromhex({selector.hex()!r}): ({entry['name']!r}, {fields!r}),")
    return "\n".join([*lines, "}", ""])


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is committed")
    parser.add_argument("--solc", type=Path, help="path of solc " + SOLC_VERSION)
    options = parser.parse_args(argv)
    try:
        made = artifact(compile_contract(find_solc(options.solc)))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    written = {ARTIFACT: json.dumps(made, indent=1) + "\n", CONSTANTS: constants(made)}
    stale = [p for p, text in written.items() if not p.is_file() or p.read_text("utf-8") != text]
    if options.check:
        for path in stale:
            print(
                f"error: {path.relative_to(ROOT)} is stale / the sources have changed"
                " / run `python contracts/build.py` and commit",
                file=sys.stderr,
            )
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(written[path], "utf-8")
    size = len(made["deployedBytecode"]) // 2 - 1
    print(f"{CONTRACT}: {size} bytes of code, {made['codeHash']}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
