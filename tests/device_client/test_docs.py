"""The device's pages say all that there is, and nothing that is not."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from device_client.arguments import parser_of
from device_client.checks import OK
from device_client.cli import COMMANDS
from device_client.config import Config
from device_client.core.policy import Hold
from device_client.report import OWNER_CONFIRMS, SETTLING

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/device.md").read_text(encoding="utf-8")
CHECKLIST = (ROOT / "docs/integration.md").read_text(encoding="utf-8")


def part(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_column(title: str) -> set[str]:
    rows = [line.split("|")[1] for line in part(title).splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_setting_is_explained_with_its_default() -> None:
    known = {f.name for f in fields(Config)} - {"board"}
    explained = first_column("Settings")
    assert known <= explained
    assert explained - known == {"boot", "[uboot]", "[slots]"}


def test_every_command_is_explained() -> None:
    assert {name.split()[0] for name in first_column("Commands")} == set(COMMANDS)


def test_every_reason_to_wait_is_named() -> None:
    reasons = {str(hold) for hold in Hold if hold is not Hold.PENALTY} | {SETTLING, OWNER_CONFIRMS}
    assert reasons <= set(re.findall(r"`([^`]+)`", part("What a refusal means")))


def test_every_file_of_a_new_device_is_in_the_table(tmp_path: Path) -> None:
    from bench.device import provision
    from tests.device_client.registry import Chain

    device = provision(tmp_path, Chain())
    there = {str(p.relative_to(device)) for p in device.rglob("*") if p.is_file()}
    assert there <= first_column("The directory")


def test_every_file_that_a_device_may_have_is_in_the_table() -> None:
    from device_client import home

    named = set(re.findall(r"^``([^`]+[^/`])``", home.__doc__ or "", re.MULTILINE))
    assert {"factory.toml", "lock", "boot.entries", "console.log", "unfinished"} <= named
    assert named <= first_column("The directory")


def test_every_finding_of_the_doctor_is_in_the_checklist() -> None:
    sources = ("doctor.py", "hardening.py")
    text = "".join((ROOT / "device_client" / name).read_text(encoding="utf-8") for name in sources)
    names = set(re.findall(r'Check\(\s*"([a-z-]+)"', text))
    assert len(names) > 15 and OK not in names
    assert names <= set(re.findall(r"`([^`]+)`", CHECKLIST))


def test_options_that_the_page_names_exist() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", parser_of(COMMANDS).format_help()))
    for action in parser_of(COMMANDS)._actions:
        for sub in (getattr(action, "choices", None) or {}).values():
            known |= set(re.findall(r"--[a-z][a-z-]+", sub.format_help()))
    named = set(re.findall(r"--[a-z][a-z-]+", part("Commands") + part("Setting it up again")))
    assert named <= known
