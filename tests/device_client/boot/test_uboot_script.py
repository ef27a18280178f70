"""The script of docs/boot/uboot.env, run by U-Boot itself: it decides as `core.slots` does.

U-Boot runs in QEMU. The state of a board is put into its environment, `fl_decide` is run, and what
it chose and left behind is compared with the rules; so is the simulated U-Boot of tests/world.
"""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest

from device_client.adapters.qemu_boot import QEMU
from device_client.adapters.uboot_boot import parse, variables
from device_client.core.slots import BootRecord
from tests.conftest import ROOT
from tests.device_client.boot.boards import ENV_BYTES
from tests.device_client.boot.decisions import State, rules, states
from tests.world import bootloader

SCRIPT = ROOT / "docs/boot/uboot.env"
UBOOT = Path("/usr/lib/u-boot/qemu-riscv64/u-boot.bin")
ADDRESS = 0x84000000
PATIENCE = 120
TEST_MEDIUM = {
    "fl_save": "setenv saved ${fl_primary}/${fl_attempts}/${fl_a}/${fl_b}",
    "fl_check": "run check_${fl_want}",
    "check_a": "test ${ok_a} = 1",
    "check_b": "test ${ok_b} = 1",
}
SHOW = "echo RESULT slot=${fl_slot} p=${fl_primary} n=${fl_attempts} a=${fl_a} b=${fl_b} s=${saved}"
COUNTS = (0, 1, 2, 16)

in_qemu = [
    pytest.mark.debian("u-boot-qemu", str(UBOOT)),
    pytest.mark.debian("qemu-system-misc", "/usr/bin/qemu-system-riscv64"),
]


def by_the_rules(state: State, result: dict[str, str]) -> bool:
    """Whether U-Boot chose, and left behind, what the rules say; and wrote only what changed."""
    slot, left = rules(state)
    wanted = variables(left)
    shown = ("fl_primary", "p"), ("fl_attempts", "n"), ("fl_a", "a"), ("fl_b", "b")
    same = all(wanted[name] == result[short] for name, short in shown)
    names = ("fl_primary", "fl_attempts", "fl_a", "fl_b")
    saved = "nothing" if variables(state[0]) == wanted else "/".join(wanted[n] for n in names)
    return same and (result["slot"], result["s"]) == (slot, saved)


class TestInUBoot:
    """U-Boot itself."""

    pytestmark = in_qemu

    def test_it_decides_by_the_rules(self, tmp_path: Path) -> None:
        cases = states(COUNTS)
        assert len(cases) == 2 * (3 + 4) * 4
        results = run_in_u_boot(tmp_path, cases, SCRIPT.read_text())
        assert len(results) == len(cases)
        wrong = [c for c, r in zip(cases, results, strict=True) if not by_the_rules(c, r)]
        assert not wrong

    @pytest.mark.parametrize(
        ("line", "changed"),
        [
            ("${fl_attempts} - 1", "${fl_attempts} - 2"),
            ('"${fl_is}" = good', '"${fl_is}" = bad'),
            ("setenv fl_want ${fl_primary}", "setenv fl_want a"),
            ("setenv fl_attempts 0; run fl_save", "setenv fl_attempts 0"),
        ],
    )
    def test_a_changed_script_is_found_out(self, tmp_path: Path, line: str, changed: str) -> None:
        script = SCRIPT.read_text()
        assert script.count(line) == 1
        cases = states(COUNTS)
        results = run_in_u_boot(tmp_path, cases, script.replace(line, changed))
        assert not all(map(by_the_rules, cases, results))


def run_in_u_boot(folder: Path, cases: list[State], script: str) -> list[dict[str, str]]:
    """What U-Boot shows after each case, in order."""
    lines = [line for line in script.splitlines() if not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines) | TEST_MEDIUM | {"show": SHOW}
    for number, (record, ok_a, ok_b) in enumerate(cases):
        held = variables(record) | {
            "ok_a": str(int(ok_a)),
            "ok_b": str(int(ok_b)),
            "saved": "nothing",
        }
        sets = "; ".join(f"setenv {k} {v}" for k, v in held.items() if "_digest" not in k)
        values[f"case_{number}"] = f"{sets}; run fl_decide; run show"
    values["cases"] = "; ".join(f"run case_{n}" for n in range(len(cases))) + "; poweroff"
    text = folder / "environment"
    text.write_text("".join(f"{k}={v}\n" for k, v in values.items()))
    size = text.stat().st_size
    shown = talk(text, [f"env import -t {ADDRESS:x} {size:x}", "run cases"])
    results = re.findall(r"^RESULT (.*?)\r*$", shown, re.MULTILINE)
    return [dict(pair.split("=") for pair in line.split()) for line in results]


def talk(file: Path, commands: list[str], *devices: str) -> str:
    """Everything that U-Boot prints while it is given ``commands``; it finds ``file`` in memory."""
    loader = f"loader,file={file},addr={ADDRESS:#x},force-raw=on"
    machine = [*QEMU, "-nodefaults", "-display", "none", "-serial", "stdio", "-bios", str(UBOOT)]
    with subprocess.Popen(
        [*machine, "-device", loader, *devices], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        watchdog = threading.Timer(PATIENCE, process.kill)  # what is read then has an end
        watchdog.start()
        try:
            shown = read_until(process, b"autoboot:")
            for command in ["", *commands]:
                process.stdin.write(command.encode() + b"\r")
                process.stdin.flush()
                if command != commands[-1]:
                    shown += read_until(process, b"=> ")
            return (shown + process.stdout.read()).decode("utf-8", "replace")
        finally:
            watchdog.cancel()
            process.kill()


def read_until(process: subprocess.Popen[bytes], words: bytes) -> bytes:
    assert process.stdout
    shown = b""
    while not shown.endswith(words):
        byte = process.stdout.read(1)
        assert byte, f"U-Boot ended without {words!r}: {shown!r}"
        shown += byte
    return shown


def test_the_simulated_u_boot_decides_by_the_rules(tmp_path: Path) -> None:
    for state in states(COUNTS):
        record, ok_a, ok_b = state
        places = tmp_path / "env1", tmp_path / "env2"
        loader = bootloader.UBoot(places, ENV_BYTES, tmp_path / "cmdline")
        loader.format(variables(record))
        try:
            slot = loader.power_on(lambda s, ok=(ok_a, ok_b): ok[s == "b"])  # type: ignore[misc]
        except bootloader.NothingBoots:
            slot = ""
        wanted, left = rules(state)
        assert slot == wanted
        assert parse(loader.load()[2]) == BootRecord(
            left.primary, left.primary, left.attempts, left.a, left.b
        )
