"""The README's walk-through, word for word: its commands in a shell, in an empty directory.

Two things are not as on the reader's machine: the path to the environment, which is a folder that
leads to this interpreter, and the port, for others may be using 8700.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {"firmledger": "registry.cli", "firmledger-device": "device_client.cli"}
PORT = "8700"
MINUTES = 5


def commands() -> list[str]:
    """The commands of README.md's section "Walk-through", one string each, as they stand there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Walk-through\n", 1)[1].split("\n## ", 1)[0]
    block = re.findall(r"^```(?:sh)?\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert len(block) == 1
    found: list[str] = []
    for line in block[0].splitlines():
        if found and found[-1].rstrip().endswith("\\"):
            found[-1] += "\n" + line
        else:
            found.append(line)
    return found


def environment(folder: Path) -> None:
    """``path/to/firmledger/.venv`` under ``folder``, with both programs on the PATH it sets."""
    programs = folder / "path/to/firmledger/.venv/bin"
    programs.mkdir(parents=True)
    for name, module in PROGRAMS.items():
        script = programs / name
        run = f"{shlex.quote(sys.executable)} -m {module}"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {run} "$@"\n')
        script.chmod(0o755)
    (programs / "activate").write_text(f"PATH={shlex.quote(str(programs))}:$PATH\n")


class Shell:
    """A shell that runs one command after the other and stops at the first that fails."""

    def __init__(self, folder: Path, lines: list[str]) -> None:
        self._folder, self._lines = folder, lines

    def run(self, port: str) -> list[tuple[str, str]]:
        """(command, its stdout) for each; an assertion says which command failed, and how."""
        script = ["set -e", "trap 'kill %1 2>/dev/null; wait' EXIT"]
        for number, line in enumerate(self._lines):
            script += [f"printf '\\n@@ {number}\\n' | tee /dev/stderr", line.replace(PORT, port)]
        done = subprocess.Popen(
            ["bash", "-c", "\n".join(script)],
            cwd=self._folder,
            env={**os.environ, "FIRMLEDGER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = done.communicate(timeout=60 * MINUTES)
        finally:
            if done.poll() is None:
                os.killpg(done.pid, signal.SIGKILL)
                done.communicate()
        parts = re.split(r"\n@@ (\d+)\n", out)
        reached = int(parts[-2])
        assert done.returncode == 0, f"{self._lines[reached]}\n{out[-2000:]}\n{err[-4000:]}"
        assert reached == len(self._lines) - 1
        return list(zip(self._lines, parts[2::2], strict=True))


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """The folder after the whole walk-through, and what each command said."""
    folder = tmp_path_factory.mktemp("walk")
    environment(folder)
    return folder, Shell(folder, commands()).run(free_port())


def said(walked: tuple[Path, list[tuple[str, str]]], words: str) -> Any:
    """The document that the one command with these words printed."""
    (found,) = [out for command, out in walked[1] if words in command]
    return json.loads(found)


def test_the_device_is_offered_the_release_and_told_why(walked: Any) -> None:
    offer = said(walked, "dev check --json")["offer"]
    assert (offer["version"], offer["eligible"], offer["reason"]) == ("1.0.0", True, "eligible")


def test_the_device_installs_confirms_and_runs_it(walked: Any) -> None:
    folder, _ = walked
    updated = said(walked, "dev update --yes --json")
    assert (updated["outcome"], updated["version"]) == ("confirmed", "1.0.0")
    status = said(walked, "dev status --json")
    assert status["version"] == "1.0.0"
    assert status["security_counter"] == 1
    image = (folder / "fw.bin").read_bytes()
    assert any(image in path.read_bytes() for path in (folder / "dev").rglob("*") if path.is_file())
    assert all(
        image[:1024] not in path.read_bytes()
        for path in (folder / "reg").rglob("*")
        if path.is_file()
    ), "the registry holds plaintext firmware"


def test_the_stick_proves_itself_offline(walked: Any) -> None:
    verdict = said(walked, "bundle verify stick.flb")
    assert verdict["ok"]
    assert all(step["ok"] for step in verdict["steps"])
    assert verdict["release"]["version"] == "1.0.0"
    assert verdict["proof"]["bytes"] < 2500


def test_the_audit_finds_the_story_and_no_problem(walked: Any) -> None:
    report = said(walked, "audit --json")
    assert report["ok"] and report["problems"] == []
    assert (report["products"], report["releases"]) == (1, 1)
    assert report["events"] >= 4


@pytest.mark.parametrize("position", [0, 8, 15, 40, 700, 1500, 2300, 5000, -1])
def test_a_changed_byte_on_the_stick_is_refused(
    walked: tuple[Path, Any], tmp_path: Path, position: int
) -> None:
    folder, _ = walked
    data = bytearray((folder / "stick.flb").read_bytes())
    data[position] ^= 0x01
    changed = tmp_path / "changed.flb"
    changed.write_bytes(data)
    verify = ["bundle", "verify", str(changed), "--trust", str(folder / "trust.json"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "registry.cli", *verify],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout)
    assert not verdict["ok"]
    assert not verdict["steps"][-1]["ok"]


def test_it_leaves_nothing_running(walked: tuple[Path, Any]) -> None:
    folder, _ = walked
    assert not (folder / "reg/address").exists()
