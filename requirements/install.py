#!/usr/bin/env python3
"""Set up this checkout: `.venv` from a hashed lock, `node_modules` from the npm lock.

Guarantees: what is installed is what the lock files pin, digest by digest; the commands
`firmledger` and `firmledger-device` are in `.venv/bin`; a second run with nothing changed touches
neither disk nor network; a run that was cut off is taken up by the next one.

Rules:
  1. A stamp is written last and holds the digest of everything the step depended on.
  2. `dev` contains `registry`: either stamp satisfies a request for `registry`.
  3. Two runs in one checkout wait for each other.
  4. Installing the project itself uses no network and builds nothing apart (`--no-index`).
  5. `slither` and `halmos` go into `.venv-slither` and `.venv-halmos`: they pin what we do not.

It does not install anything outside the checkout, run a package's install scripts, or choose
versions; `requirements/lock` does that. It runs before anything is installed, so it uses the
standard library alone, and an older Python must still parse it to be told that it is too old.
"""

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
APART = ("slither", "halmos")
MADE = "firmledger.made"  # in a venv: the digest of its folder, so a moved checkout is set up anew
LOWEST, HIGHEST_TESTED = (3, 11), (3, 13)
CANDIDATES = ("python3", "python3.13", "python3.12", "python3.11", "python3.14", "python")
# Set by some machines, these would send packages elsewhere or hide the environment's own.
FOREIGN = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PYTHONHOME",
           "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")  # fmt: skip


class SetupError(Exception):
    """A step that cannot be done, in three parts: what, why, what to do."""

    def __init__(self, what, why, fix):
        super().__init__(f"error: {what} / {why} / {fix}")


def say(text):
    """Print one line of progress, at once."""
    print(f"firmledger: {text}", flush=True)


def clean_environment():
    """Return the environment for pip and venv, without what would lead them astray."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}


def version_of(python):
    """Return (major, minor) of an interpreter, or None if it does not run or lacks venv."""
    probe = "import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])"
    try:
        done = subprocess.run(
            [python, "-c", probe],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def choose_python(wanted):
    """Return the interpreter to use: the one asked for, else the best one found on PATH.

    Tested versions come first, in the order of CANDIDATES; a newer one is used only when no
    tested one is there, since the locks may lack wheels for it.
    """
    if wanted:
        version = version_of(wanted)
        if version is None or version < LOWEST:
            found = (
                f"is Python {version[0]}.{version[1]}" if version else "does not run, or lacks venv"
            )
            raise SetupError(
                f"PYTHON={wanted} cannot be used",
                f"it {found}; Firmledger needs Python 3.11 or newer, with its venv module",
                "leave PYTHON out, or name another interpreter: make demo PYTHON=python3.12",
            )
        return wanted
    seen = [(name, version_of(name)) for name in CANDIDATES if shutil.which(name)]
    fit = [(name, version) for name, version in seen if version and version >= LOWEST]
    tested = [name for name, version in fit if version <= HIGHEST_TESTED]
    if tested:
        return tested[0]
    if fit:
        say(f"{fit[0][0]} is newer than the Pythons tested here (3.11 to 3.13); trying it")
        return fit[0][0]
    raise SetupError(
        "no usable Python found",
        "Firmledger needs Python 3.11 or newer, with its venv module",
        "install one (Debian: apt-get install python3 python3-venv) "
        "or name it: make demo PYTHON=/path/to/python3.12",
    )


def digest(*parts):
    """Return the hex SHA-256 over parts: files by content, everything else by its text."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else str(part).encode()
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()


def holds(stamp, expected):
    """Return whether a stamp was written for exactly this input."""
    return stamp.is_file() and stamp.read_text(encoding="ascii") == expected


def sound_venv(venv, wanted):
    """Return whether a venv was made here, for this very folder, with a Python that will do."""
    if not holds(venv / MADE, digest(str(venv.parent))):
        return False
    present = version_of(str(venv / "bin" / "python"))
    return present is not None and (not wanted or version_of(wanted) == present)


def create_venv(venv, wanted):
    """Make a venv, unless a sound one is there; return its interpreter."""
    python = venv / "bin" / "python"
    if sound_venv(venv, wanted):
        return python
    base = choose_python(wanted)
    say(f"creating {venv.name} with {base}")
    done = subprocess.run([base, "-m", "venv", "--clear", str(venv)], env=clean_environment())
    if done.returncode:
        raise SetupError(
            "no virtual environment",
            f"`{base} -m venv` failed as shown above",
            "install its venv module (Debian: apt-get install python3-venv) and run make again",
        )
    (venv / MADE).write_text(digest(str(venv.parent)), encoding="ascii")
    return python


def run_pip(python, *arguments):
    """Run pip and show its steps as one short line each; on failure show all it said."""
    command = [str(python), "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    said = []
    with subprocess.Popen(
        command,
        cwd=str(ROOT),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    ) as pip:
        for line in pip.stdout:
            said.append(line)
            if line.startswith(("Collecting ", "Installing collected")):
                print("  " + line.split(" (from")[0].split(":")[0].rstrip(), flush=True)
    if pip.returncode:
        sys.stderr.write("".join(said[-40:]))
        raise SetupError(
            "pip did not install what the lock names",
            "see its words above; most often the network is down or a proxy is in the way",
            "check the connection (pip's own settings apply) and run make again: it continues",
        )


def install_lock(python, level):
    """Install what requirements/LEVEL.txt pins, digest by digest."""
    lock = f"requirements/{level}.txt"
    count = sum("==" in line for line in (ROOT / lock).read_text(encoding="utf-8").splitlines())
    say(f"installing {lock} (up to {count} packages, about a minute)")
    run_pip(python, "install", "--require-hashes", "--only-binary", ":all:", "-r", lock)


def install_python(level, wanted):
    """Bring `.venv` to a level: `registry` (what the product runs on) or `dev` (its tests too)."""
    python = create_venv(VENV, wanted)

    def inputs(name):
        return digest(ROOT / "requirements" / f"{name}.txt", ROOT / "pyproject.toml")

    levels = ["dev"] if level == "dev" else ["registry", "dev"]
    if any(holds(VENV / f"firmledger.{name}", inputs(name)) for name in levels):
        return
    install_lock(python, level)
    say("installing the commands firmledger and firmledger-device")
    run_pip(python, "install", "--no-index", "--no-deps", "--no-build-isolation", "-e", ".")
    (VENV / f"firmledger.{level}").write_text(inputs(level), encoding="ascii")


def install_apart(level, wanted):
    """Bring `.venv-LEVEL` to its lock."""
    venv = ROOT / f".venv-{level}"
    python = create_venv(venv, wanted)
    stamp = venv / f"firmledger.{level}"
    expected = digest(ROOT / "requirements" / f"{level}.txt")
    if not holds(stamp, expected):
        install_lock(python, level)
        stamp.write_text(expected, encoding="ascii")


def install_npm():
    """Bring `node_modules` to the npm lock: the Solidity compiler, forge and anvil."""
    npm = shutil.which("npm")
    stamp = ROOT / "node_modules" / ".firmledger"
    lock, settings = ROOT / "package-lock.json", ROOT / ".npmrc"
    expected = digest(lock, settings, platform.system(), platform.machine())
    if holds(stamp, expected):
        return
    if npm is None:
        raise SetupError(
            "no npm found",
            "the contract is compiled and tested by tools that come from npm",
            "install Node.js 18 or newer with npm (Debian: apt-get install npm), or run "
            "`make demo`, which needs neither",
        )
    say("installing the Solidity tools into node_modules")
    if subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=str(ROOT)).returncode:
        raise SetupError(
            "npm did not install what package-lock.json names",
            "see its words above; most often the network is down or a proxy is in the way",
            "check the connection (npm's own settings apply) and run make again",
        )
    stamp.write_text(expected, encoding="ascii")


def main():
    """Install what is named on the command line, one run at a time."""
    parser = argparse.ArgumentParser(description="Set up this checkout from its lock files.")
    parser.add_argument("levels", nargs="+", choices=["registry", "dev", "npm", *APART])
    parser.add_argument("--python", default="", help="interpreter to make .venv with")
    options = parser.parse_args()
    with Path(__file__).open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for level in options.levels:
            if level == "npm":
                install_npm()
            elif level in APART:
                install_apart(level, options.python)
            else:
                install_python(level, options.python)


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("error: set-up stopped / interrupted / run make again: it continues")
