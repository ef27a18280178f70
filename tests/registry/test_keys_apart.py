"""The service works without the publisher's keys (design, promise 6).

Shown twice: the server's process reports every file it opens, and none lies under ``publisher/``;
and with that folder taken away it does all of its work.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry import cli
from tests.registry.entropy import Stream

REPO = Path(__file__).resolve().parents[2]
SECONDS = 60

# Python tells an audit hook of every file opened, listed or connected to, whoever does it, sqlite3
# and the import system included; a hook cannot be removed again.
WATCHED = """
import os, sys
log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, args):
    if event in ("open", "os.listdir", "os.scandir", "sqlite3.connect", "os.rename", "os.remove"):
        os.write(log, (event + " " + repr(args[0]) + chr(10)).encode())
sys.addaudithook(watch)
from registry.cli import main
sys.exit(main())
"""


@contextmanager
def serving(directory: Path, log: Path) -> Iterator[None]:
    """The server in a process of its own, watched."""
    command = [
        sys.executable,
        "-c",
        WATCHED,
        str(log),
        "-C",
        str(directory),
        "serve",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        command,
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def run(directory: Path, *words: str | Path) -> Any:
    assert cli.main(["-C", str(directory), *map(str, words)]) == 0


def opened(log: Path) -> list[str]:
    return log.read_text().splitlines()


def publish(directory: Path, work: Path) -> None:
    """All that a publisher does, on a running server."""
    firmware, draft = work / "fw", work / "r.suit"
    firmware.write_bytes(Stream(b"image")(50_000))
    create = ("product", "create", "thermostat", "--hardware", "1", "--threshold", "1")
    run(directory, *create, "--approvers", "alice")
    words = ("--version", "1.0.0", "--security-counter", "1", "--rollout", "100%@0h")
    build = ("release", "build", firmware, "--product", "thermostat", *words)
    run(directory, *build, "-o", work / "r")
    run(directory, "release", "approve", draft, "--as", "alice")
    run(directory, "release", "publish", draft)
    run(directory, "bundle", "export", "thermostat", "1.0.0", "-o", work / "s.flb")
    halt = ("release", "halt", "thermostat", "1.0.0", "--as", "alice", "--reason", "a test")
    run(directory, *halt)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A registry after a publication, and what its server opened meanwhile."""
    folder = tmp_path_factory.mktemp("apart")
    assert cli.main(["init", str(folder / "reg"), "--anchor-every", "1s"]) == 0
    with serving(folder / "reg", folder / "opened"):
        publish(folder / "reg", folder)
    return folder / "reg", opened(folder / "opened")


@pytest.fixture
def directory(watched: tuple[Path, list[str]]) -> Path:
    return watched[0]


def test_the_service_opens_nothing_of_the_publishers(watched: tuple[Path, list[str]]) -> None:
    directory, files = watched
    for seen in ("operators.json", "fee.json", "settings.toml", "registry.sqlite", "/blobs/"):
        assert any(seen in line for line in files), f"the watch does not see {seen}"
    assert (directory / "publisher" / "approvers" / "alice.json").exists()
    assert [line for line in files if f"{directory}/publisher" in line] == []
    assert [line for line in files if "operator.token" in line] == []


def test_the_service_works_while_the_publishers_folder_is_elsewhere(
    directory: Path, tmp_path: Path
) -> None:
    (directory / "publisher").rename(tmp_path / "taken-away")
    try:
        with serving(directory, tmp_path / "opened"):
            run(directory, "release", "show", "thermostat", "1.0.0")
            run(directory, "bundle", "export", "thermostat", "1.0.0", "-o", tmp_path / "s.flb")
            assert not (directory / "publisher").exists()
    finally:
        (tmp_path / "taken-away").rename(directory / "publisher")


def test_a_stopped_server_takes_its_address_back(directory: Path, tmp_path: Path) -> None:
    with serving(directory, tmp_path / "opened"):
        run(directory, "ledger", "status")
        members = json.loads((directory / "address").read_text())
        assert members["url"].startswith("http://127.0.0.1:")
    assert not (directory / "address").exists()


def test_a_killed_server_leaves_a_stale_address_and_can_be_started_again(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError), serving(directory, tmp_path / "opened"):
        run(directory, "ledger", "status")
        pid = json.loads((directory / "address").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
    assert (directory / "address").exists()
    capsys.readouterr()
    assert cli.main(["-C", str(directory), "--patience", "0", "ledger", "status"]) == 1
    assert "stale" in capsys.readouterr().err
    with serving(directory, tmp_path / "opened"):
        run(directory, "release", "show", "thermostat", "1.0.0")
