"""The hardening report: what may be open is opened, and must be named with a way to close it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from device_client import hardening
from device_client.adapters.directory import Directory
from device_client.adapters.journal import FileJournal
from device_client.checks import OK, OPEN, WARNING, Check
from device_client.cli import main
from device_client.core.book import MAX_QUEUE, Book
from device_client.core.clock import BUILD_TIME, TOLERANCE
from device_client.doctor import examine
from device_client.status import read_status
from protocol.receipt import Outcome
from tests.device_client.test_cli import Shop
from tests.device_client.test_reanchor_cli import freeze

AROUND = ("--system", "/nonexistent")
"""The machine that runs the tests is not what they are about."""


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, stack, capsys)


def found(shop: Shop, name: str, now: int = 2_000_000_000) -> list[Check]:
    checks = examine(shop.folder / "dev", now, Path("/nonexistent"))
    assert all(bool(check.fix) != (check.level == OK) for check in checks)
    return [check for check in checks if check.name == name]


def test_doctor_names_what_is_open(shop: Shop) -> None:
    shop.trust(embedded=True)
    shop.init()
    report = shop.run("doctor", *AROUND)
    names = {c["name"] for c in report["checks"] if c["level"] != "ok"}
    assert report["ok"] and names >= {"trust", "recovery", "transport", "health"}
    (shop.folder / "dev/slots/a.img").chmod(0o666)
    (shop.folder / "dev/keys/device.json").chmod(0o644)
    report = shop.run("doctor", *AROUND, code=1)
    assert {c["name"] for c in report["checks"] if c["level"] == "open"} == {"writable", "secrets"}


def missing(slot: Path) -> None:
    slot.unlink()


def folder(slot: Path) -> None:
    slot.unlink()
    slot.mkdir()


def random(slot: Path) -> None:
    slot.write_bytes(os.urandom(slot.stat().st_size))


def one_bit(slot: Path) -> None:
    data = bytearray(slot.read_bytes())
    data[200_000] ^= 1
    slot.write_bytes(data)


def cut_short(slot: Path) -> None:
    os.truncate(slot, 299_999)


def empty(slot: Path) -> None:
    os.truncate(slot, 0)


@pytest.mark.parametrize("damage", [missing, folder, random, one_bit, cut_short, empty])
def test_doctor_sees_a_running_slot_that_would_not_boot(
    shop: Shop, damage: Callable[[Path], None]
) -> None:
    shop.init()
    shop.release("1.0.0")
    shop.run("update", "--yes")
    assert [c["level"] for c in shop.run("doctor", *AROUND)["checks"] if c["name"] == "slot"] == [
        "ok"
    ]
    damage(shop.folder / "dev/slots/b.img")
    report = shop.run("doctor", *AROUND, code=1)
    (found,) = [c for c in report["checks"] if c["level"] == "open"]
    assert found["name"] == "slot" and found["what"] and found["fix"]
    assert not report["ok"]


def test_doctor_sees_a_boot_record_that_cannot_be_read(shop: Shop) -> None:
    shop.init()
    (shop.folder / "dev/boot.env").write_bytes(b"\xff" * 8192)
    report = shop.run("doctor", *AROUND, code=1)
    assert [c["name"] for c in report["checks"] if c["level"] == "open"] == ["slot"]


def change(shop: Shop, before: str, after: str) -> None:
    config = shop.folder / "dev/config.toml"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))


def test_the_running_slot_is_read_from_the_medium(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.init()
    synced: list[str] = []
    honest = Directory.sync

    def sync(disk: Directory, name: str) -> None:
        synced.append(name)
        honest(disk, name)

    monkeypatch.setattr(Directory, "sync", sync)
    found(shop, "slot")
    assert "slots/a.img" in synced


@pytest.mark.parametrize("name", ["keys/device.json", "keys/class.json", "device.json"])
def test_keys_that_are_none_are_found(shop: Shop, name: str) -> None:
    shop.init()
    (check,) = found(shop, "identity")
    assert check.level == OK
    path = shop.folder / "dev" / name
    sound = path.read_text()
    path.write_text("{}")
    (check,) = found(shop, "identity")
    assert check.level == OPEN
    path.write_text(re.sub('[0-9a-f]{64}"', "0" * 64 + '"', sound, count=1))
    (check,) = found(shop, "identity")
    assert check.level == OPEN


def test_a_clock_that_is_not_set(shop: Shop) -> None:
    shop.init()
    assert [c.level for c in found(shop, "clock", BUILD_TIME - 1)] == [WARNING]
    assert [c.level for c in found(shop, "clock")] == [OK]


def test_a_clock_that_is_behind_the_ledger(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.init()
    shop.run("check")
    seen = shop.chain.time
    assert [c.level for c in found(shop, "clock", seen - TOLERANCE)] == [OK]
    (check,) = found(shop, "clock", seen - TOLERANCE - 1)
    assert check.level == WARNING and "601 s behind" in check.what
    root = shop.folder / "dev"
    assert read_status(root, seen - TOLERANCE)["clock"] == "set"
    assert read_status(root, seen - TOLERANCE - 1)["clock"] == "behind"
    assert read_status(root, 0)["clock"] == "not-set"


def test_people_are_told_of_a_clock_that_is_not_believed(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.init()
    assert main(["-C", str(shop.folder / "dev"), "status"]) == 0
    assert "warning" not in capsys.readouterr().out
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert main(["-C", str(shop.folder / "dev"), "status"]) == 0
    assert "warning   the clock is not-set, and not believed" in capsys.readouterr().out


def test_trust_that_is_not_pinned(shop: Shop) -> None:
    shop.init()
    assert found(shop, "signing-keys") and found(shop, "recovery")
    from protocol.trustfile import TrustFile

    path = shop.folder / "dev/trust.json"
    trusted = TrustFile.parse(path.read_bytes())
    path.write_bytes(replace(trusted, max_age=30 * 86400).to_bytes())
    assert [c.level for c in found(shop, "max-age")] == [WARNING]


def test_a_command_that_others_may_write(shop: Shop) -> None:
    shop.init("--health-check", "./check")
    script = shop.folder / "dev/check"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert [c.level for c in found(shop, "writable")] == [OK]
    script.chmod(0o777)
    assert [c.what for c in found(shop, "writable")] == ["check is writable by others"]


def test_an_owner_who_keeps_no_former_image(shop: Shop) -> None:
    shop.init()
    assert found(shop, "former") == []
    change(shop, "keep_former = true", "keep_former = false")
    assert [c.level for c in found(shop, "former")] == [WARNING]


def test_a_production_device_without_a_real_boot_loader(shop: Shop) -> None:
    shop.init("--production")
    assert [c.level for c in found(shop, "boot")] == [WARNING]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 300_000])
def test_a_journal_that_is_lost(shop: Shop, damage: bytes) -> None:
    shop.init()
    (shop.folder / "dev/journal.bin").write_bytes(damage)
    assert [c.level for c in found(shop, "journal")] == [OPEN]


def test_a_frozen_device(shop: Shop) -> None:
    shop.init()
    shop.release("1.0.0")
    assert found(shop, "ledger") == []
    freeze(shop)
    assert [c.level for c in found(shop, "ledger")] == [OPEN]


def test_a_queue_that_is_full(shop: Shop) -> None:
    shop.init()
    disk = Directory(shop.folder / "dev")
    journal = FileJournal(disk)
    book = Book.decode(journal.read() or b"")
    for number in range(MAX_QUEUE):
        book = book.queued(b"%d" % number, number, Outcome.CONFIRMED, "")
    journal.commit(book.encode())
    disk.close()
    assert [c.level for c in found(shop, "receipts")] == [OPEN]


# -- the machine around it -------------------------------------------------------------------------

SOUND = {
    "sys/class/tty/console/active": "tty0\n",
    "etc/shadow": "root:*:20000:0:99999:7:::\nowner:$y$j9T$x$y:20000:0:99999:7:::\n",
    "etc/ssh/sshd_config": "# PasswordAuthentication yes\nPasswordAuthentication no\n",
    "sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
    "sys/class/rtc/rtc0": "",
}


def machine(folder: Path, **changed: str | None) -> list[Check]:
    """What is found on a sound machine but for these files; None: not there."""
    files: dict[str, str | None] = {
        **SOUND,
        **{k.replace("__", "/"): v for k, v in changed.items()},
    }
    (folder / "sys/class/rtc").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
    return [check for check in hardening.examine(folder) if check.name != "ports"]


def test_a_sound_machine_is_sound(tmp_path: Path) -> None:
    assert {check.level for check in machine(tmp_path)} == {OK}


def test_debug_ports_are_said_to_be_unseen(tmp_path: Path) -> None:
    (ports,) = hardening.examine(tmp_path)
    assert ports.level == WARNING and "JTAG" in ports.what


OPENED: list[tuple[str, str, str | None, str]] = [
    ("console", "sys__class__tty__console__active", "tty0 ttyS0", WARNING),
    ("console", "sys__class__tty__console__active", "ttymxc1", WARNING),
    ("accounts", "etc__shadow", "root::20000:0:99999:7:::", OPEN),
    ("logins", "etc__ssh__sshd_config", "PermitRootLogin yes\nPasswordAuthentication no", WARNING),
    ("logins", "etc__ssh__sshd_config", "Port 22", WARNING),
    ("kernel", "sys__kernel__security__lockdown", "[none] integrity confidentiality", WARNING),
    ("rtc", "sys__class__rtc__rtc0", None, WARNING),
]


@pytest.mark.parametrize(("name", "file", "content", "level"), OPENED)
def test_what_is_open_is_named(
    tmp_path: Path, name: str, file: str, content: str | None, level: str
) -> None:
    wrong = [check for check in machine(tmp_path, **{file: content}) if check.level != OK]
    assert [(check.name, check.level) for check in wrong] == [(name, level)]
    assert wrong[0].fix


def test_memory_that_everybody_may_read(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/mem").write_bytes(b"")
    (tmp_path / "dev/mem").chmod(0o666)
    assert "memory" in {check.name for check in machine(tmp_path) if check.level == OPEN}


def test_what_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    for name in ("etc/shadow", "sys/class/tty/console/active"):
        (tmp_path / name).mkdir(parents=True)
    assert [check.name for check in hardening.examine(tmp_path)] == ["ports"]
