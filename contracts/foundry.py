"""Start forge or anvil: the platform's own binary out of `node_modules`, not npm's wrapper.

Guarantees: the process becomes the tool, so its exit code, output and signals are the tool's own;
forge runs in `contracts/` with this project's compiler.

The wrapper is left aside because it starts the same binary below a Node process that keeps
running and does not hand on every signal. Nothing is downloaded here: `make` has done that.

Usage: python contracts/foundry.py forge test -vv
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parent
NODE_MODULES = CONTRACTS.parent / "node_modules"
SYSTEMS = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}
MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def binary(tool: str) -> Path:
    """Return the path of `forge` or `anvil` for this platform.

    Raises FileNotFoundError, its message saying what, why and what to do, where there is none.
    """
    system = SYSTEMS.get(platform.system(), platform.system())
    machine = MACHINES.get(platform.machine(), platform.machine())
    name = f"{tool}.exe" if system == "win32" else tool
    path = NODE_MODULES / "@foundry-rs" / f"{tool}-{system}-{machine}" / "bin" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"error: no {tool} for {system}-{machine} / npm's @foundry-rs/{tool}-{system}-{machine}"
            f" is not in node_modules / run `make contracts`; if it stays away, the lock has no"
            f" build for this platform: run the contract's tests on Linux x86-64"
        )
    return path


def main(arguments: list[str]) -> None:
    """Become the tool named first, with the arguments that follow."""
    if not arguments or arguments[0] not in ("forge", "anvil"):
        sys.exit("error: which tool? / forge or anvil / python contracts/foundry.py forge test")
    try:
        path = binary(arguments[0])
    except FileNotFoundError as missing:
        sys.exit(str(missing))
    os.chdir(CONTRACTS)
    sys.stdout.flush()
    os.execv(path, [str(path), *arguments[1:]])  # noqa: S606  the tool replaces this process


if __name__ == "__main__":
    main(sys.argv[1:])
