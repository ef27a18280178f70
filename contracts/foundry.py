"""Start forge or anvil: the platform's own binary out of `node_modules`, not npm's wrapper.

Guarantees: the process becomes the tool, so its exit code, output and signals are the tool's own;
forge runs in `contracts/` with this project's compiler.

The wrapper package is not installed at all: it starts the same binary below a Node process that
keeps running and does not hand on every signal. Nothing is downloaded here: `make` has done that.

Usage: python contracts/foundry.py forge test -vv
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parent
NODE_MODULES = CONTRACTS.parent / "node_modules"
SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def binary(tool: str) -> Path:
    """Return the path of `forge` or `anvil`: npm's build for this platform, else the one on PATH.

    npm's lock holds builds for the platforms the project is tested on; elsewhere a Foundry that
    the reader installed does, and a line on stderr says that its version is not the pinned one.
    Raises FileNotFoundError, its message saying what, why and what to do, where there is neither.
    """
    system = SYSTEMS.get(platform.system(), platform.system())
    machine = MACHINES.get(platform.machine(), platform.machine())
    pinned = NODE_MODULES / "@foundry-rs" / f"{tool}-{system}-{machine}" / "bin" / tool
    if pinned.is_file():
        return pinned
    if own := shutil.which(tool):
        print(f"firmledger: npm has no {tool} for this platform; using {own}", file=sys.stderr)
        return Path(own)
    raise FileNotFoundError(
        f"error: no {tool} for {system}-{machine} / it is neither in node_modules nor on PATH"
        f" / run `make contracts` on Linux x86-64, or install Foundry 1.7.1 by its own installer"
    )


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
