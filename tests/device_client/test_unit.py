"""The device's service unit: what it starts can be started, and systemd reads all of it.

Where Debian's ``systemd`` is installed its own checker reads the unit too; elsewhere the unit is
read by the rules that matter here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from device_client.arguments import parser_of
from device_client.cli import COMMANDS

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/firmledger-device.service"


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(name, []).append(value)
    return found


def test_what_the_unit_starts_is_a_command_that_tells_it_when_it_is_ready() -> None:
    unit = settings()
    assert unit["Type"] == ["notify"] and unit["WatchdogSec"] and unit["Restart"] == ["always"]
    (line,) = unit["ExecStart"]
    program, *words = line.replace("${NOTIFY_SOCKET}", "/run/systemd/notify").split()
    assert program.endswith("/firmledger-device")
    options = parser_of(COMMANDS).parse_args(words)
    assert options.name == "run" and options.notify == "/run/systemd/notify"
    assert "AF_UNIX" in unit["RestrictAddressFamilies"][0]  # the socket it tells it by


def test_the_unit_closes_what_the_daemon_does_not_need() -> None:
    unit = settings()
    closed = (
        *("ProtectSystem", "ProtectHome", "PrivateTmp", "NoNewPrivileges", "DevicePolicy"),
        *(
            "ProtectKernelModules",
            "ProtectKernelTunables",
            "RestrictNamespaces",
            "SystemCallFilter",
        ),
        *("CapabilityBoundingSet", "MemoryDenyWriteExecute", "MemoryMax", "UMask"),
    )
    assert set(closed) <= set(unit)
    assert unit["CapabilityBoundingSet"] == [""] and unit["UMask"] == ["0077"]


def test_systemd_itself_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    copy = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    program = settings()["ExecStart"][0].split()[0]
    copy.write_text(text.replace(program, sys.executable), encoding="utf-8")
    if tool is None:
        assert all(value for value in settings()["ExecStart"])
        return
    done = subprocess.run(
        [tool, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and UNIT.name not in done.stderr, done.stderr
    rated = subprocess.run(
        [tool, "security", "--offline=true", "--threshold=25", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-300:]
