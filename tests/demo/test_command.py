"""The command around the story: what it refuses; nothing is left behind, however it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from demo import attack, command
from demo.adversary import HONEST
from demo.clock import StoryClock
from demo.fleet import Unit
from demo.view import BESIDE, LiveTable, PlainLog
from protocol.errors import LocalFault, Malformed, Misuse
from protocol.ids import DeviceId
from registry.assembly import Registry
from registry.audit import audit

ROOT = Path(__file__).resolve().parents[2]
TELL = "import sys; from demo.command import demo; demo(devices=2)"


def test_a_folder_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine").write_text("mine")
    with pytest.raises(Misuse) as refused:
        command.demo(keep=kept)
    assert refused.value.reason == "directory-not-empty"
    assert (kept / "mine").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalFault) as refused:
        command.demo(keep=tmp_path / "file" / "kept")
    assert refused.value.reason == "directory-unwritable"


def test_an_empty_or_missing_firmware_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(Malformed) as refused:
        command.demo(firmware=tmp_path / "empty")
    assert refused.value.reason == "firmware-size"
    with pytest.raises(LocalFault) as refused_too:
        command.demo(firmware=tmp_path / "missing")
    assert refused_too.value.reason == "firmware-unreadable"
    with pytest.raises(LocalFault):
        command.demo(firmware=tmp_path)


def test_a_full_disk_shows_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setattr(command, "SLOTS_EACH", 10**12)
    with pytest.raises(LocalFault) as refused:
        command.demo(keep=kept)
    assert refused.value.reason == "disk-full"
    assert list(kept.iterdir()) == []


def heeding_interrupts() -> None:
    """A shell starts its background jobs with interrupts ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_story_cut_short_leaves_nothing_behind(tmp_path: Path, sent: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TELL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath, "TMPDIR": str(tmp_path)},
        preexec_fn=heeding_interrupts,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "approved 1.0.0" in line:
                break
        assert any(tmp_path.iterdir())
        process.send_signal(sent)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode not in (0, None)
    assert list(tmp_path.iterdir()) == []


def unit(name: str, doing: str) -> Unit:
    return Unit(name, DeviceId(bytes(32)), bytes(32), Path(), doing=doing)


def test_a_plain_log_has_the_story_and_what_devices_are_done_with() -> None:
    out = io.StringIO()
    log = PlainLog(out)
    log.chapter("A chapter")
    log.say("something happened")
    log.show(unit("aaaaaaaa", "download 40 %"))
    log.show(unit("aaaaaaaa", "confirmed"))
    log.show(unit("aaaaaaaa", "confirmed"))
    log.show(unit("bbbbbbbb", "refused: halted"))
    lines = out.getvalue().splitlines()
    assert [line[:1] for line in lines] == ["["] * 4
    assert "== A chapter" in lines[0] and "something happened" in lines[1]
    assert "aaaaaaaa" in lines[2] and "confirmed" in lines[2]
    assert "bbbbbbbb" in lines[3] and "refused: halted" in lines[3]


def test_a_terminal_shows_the_devices_below_the_story() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=BESIDE + 3)
    with LiveTable(console) as table:
        for name in "abcde":
            table.show(unit(name * 8, "confirmed"))
        table.chapter("A chapter")
        table.say("something happened")
    shown = out.getvalue()
    assert "A chapter" in shown and "something happened" in shown
    last = shown[shown.rindex("does") :]
    assert "cccccccc" in last and "dddddddd" not in last
    assert "and 2 more devices" in last


def test_a_promise_that_is_not_kept_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check's own tampered twin: the forged image is the true one, so a device installs it."""
    monkeypatch.setattr(attack, "forged_payload", lambda: HONEST)
    log = io.StringIO()
    told, wrong = command.perform(tmp_path, bytes(range(256)) * 300, 2, log)
    assert wrong == ["nobody refused a forged image"]
    assert "NOT as promised" in log.getvalue()
    assert told["audit"]["ok"]


def test_a_story_that_is_kept_can_be_audited_by_the_command_line(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    command.demo(devices=1, keep=kept)
    with Registry.open(kept / "registry", clock=StoryClock()) as registry:
        report = audit(registry.chain, start=registry.settings.deployed_at)
    assert report.ok and report.releases == 4
    assert len(list((kept / "devices").iterdir())) == 2  # one, and the one that came last


def test_stories_do_not_share_a_folder_or_a_port() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TELL],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
        )
        for _ in range(2)
    ]
    try:
        ends = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], ends
