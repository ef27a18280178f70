"""The owner's settings: read strictly, reachable from `init`, and what they say is what happens."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from device_client.cli import main
from device_client.config import Config, with_settings
from device_client.core.policy import in_window
from protocol.errors import Malformed, Misuse
from protocol.receipt import Outcome
from tests.device_client.registry import image_of, make
from tests.device_client.test_cli import Shop


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, stack, capsys)


def test_settings_survive() -> None:
    config = Config(
        hardware=7,
        registries=["http://[::1]:8700", 'odd"name'],
        windows=["daily 02:00-04:00"],
        timezone="Europe/Berlin",
        critical_may_pass=["window"],
        health_check=["sh", "-c", 'echo "\\t"'],
        bandwidth=4096,
        stability=3600,
        keep_former=False,
        wait=55,
    )
    assert Config.parse(config.to_toml().encode()) == config


@pytest.mark.parametrize(
    "line",
    ["mode = 'sometimes'", "windows = ['now']", "timezone = 'Mars/Olympus'", "hardware = -1",
     "hardware = true", "attempts = 0", "attempts = 256", "colour = 'red'", "profile = 'x'",
     "registries = 'http://x'", "registries = [1]", "critical_may_pass = ['space']",
     "critical_may_pass = ['receipts']", "confirm = 'never'", "health_deadline = 0",
     "timezone = '../../etc/passwd'", "mode =", "bandwidth = 4095", "bandwidth = -1",
     "stability = -1", "stability = 604801", "keep_former = 1", "wait = 56", "retries = 0",
     "retry_after = 59", "ca_file = 5"],
)  # fmt: skip
def test_wrong_settings_are_refused(line: str) -> None:
    with pytest.raises((Misuse, Malformed)):
        Config.parse(line.encode())


def test_every_setting_can_be_given_to_init() -> None:
    other = {"int": "7", "str": "x", "bool": "false", "list[str]": '["a", "b"]'}
    for f in fields(Config):
        if f.name != "board":
            given = with_settings(Config(keep_former=True), [f"{f.name}={other[str(f.type)]}"])
            assert getattr(given, f.name) in (7, "x", False, ["a", "b"])


@pytest.mark.parametrize(
    "word", ["", "wait", "wait=", "wait=x", "wait=1\nmode='x'", "colour=1", "board=1", "boot=grub",
             "registries=x", "keep_former=1", "wait=1.5"],
)  # fmt: skip
def test_what_sets_nothing_is_wrong_usage(shop: Shop, word: str) -> None:
    shop.init("--set", word, code=2)
    assert not (shop.folder / "dev").exists()


def test_several_windows_and_their_time_zone_from_init(shop: Shop) -> None:
    windows = ("--window", "mon-fri 22:00-06:00", "--window", "sun 00:00-24:00")
    shop.init(*windows, "--timezone", "America/New_York")
    config = Config.parse((shop.folder / "dev/config.toml").read_bytes())
    assert config.windows == ["mon-fri 22:00-06:00", "sun 00:00-24:00"]
    there = ZoneInfo("America/New_York")
    for text, inside in (
        ("2026-11-23 23:00", True),  # a Monday
        ("2026-11-23 12:00", False),
        ("2026-11-22 12:00", True),
    ):
        moment = datetime.fromisoformat(text).replace(tzinfo=there)
        assert in_window(config.policy, int(moment.timestamp()), config.zone) is inside


# -- what may be in the way ------------------------------------------------------------------------


def another_hour(shop: Shop) -> list[str]:
    later = datetime.now(UTC) + timedelta(hours=6)
    return ["--window", f"daily {later:%H}:00-{later:%H}:30"]


INHIBITORS: dict[str, tuple[Callable[[Shop], list[str]], str]] = {
    "a lock file": (lambda shop: ["--set", "busy_file=busy"], "busy"),
    "a command": (lambda shop: ["--set", 'busy_command=["test", "-e", "busy"]'], "busy"),
    "a battery": (lambda shop: ["--set", "battery_file=busy"], "battery"),
    "a metered link": (lambda shop: ["--set", "metered_file=busy"], "metered"),
    "the hour": (another_hour, "window"),
    "the owner": (lambda shop: ["--mode", "ask"], "consent"),
    "the owner's hand": (lambda shop: ["--mode", "manual"], "manual"),
}


def in_the_way(shop: Shop, what: str) -> str:
    """A device that something keeps from installing, and a release for it; the reason."""
    options, reason = INHIBITORS[what]
    shop.init(*options(shop))
    (shop.folder / "dev/busy").write_text("5")
    return reason


@pytest.mark.parametrize("what", INHIBITORS)
def test_what_is_in_the_way_is_waited_for(shop: Shop, what: str) -> None:
    reason = in_the_way(shop, what)
    shop.release("1.0.0")
    answer = shop.run("update")
    assert (answer["outcome"], answer["reason"]) == ("waiting", reason)
    assert shop.run("status")["version"] == "0.0.0"
    if reason in ("busy", "metered", "battery"):
        busy = shop.folder / "dev/busy"
        busy.write_text("95") if reason == "battery" else busy.unlink()
        assert shop.run("update")["outcome"] == "confirmed"


@pytest.mark.parametrize("what", [w for w in INHIBITORS if INHIBITORS[w][1] != "manual"])
def test_a_critical_release_passes_it_by_the_owners_leave_alone(shop: Shop, what: str) -> None:
    reason = in_the_way(shop, what)
    shop.release("1.0.0", critical=True)
    assert shop.run("update")["reason"] == reason
    config = shop.folder / "dev/config.toml"
    text = config.read_text().replace("critical_may_pass = []", f'critical_may_pass = ["{reason}"]')
    config.write_text(text)
    assert shop.run("update")["outcome"] == "confirmed"
    shop.release("1.0.1")
    assert shop.run("update")["reason"] == reason


def test_too_little_room_is_waited_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from device_client.adapters import system

    shop.init()
    shop.release("1.0.0")
    free = system.ConfiguredSite._free
    monkeypatch.setattr(system.ConfiguredSite, "_free", lambda self: 299_999)
    assert shop.run("update", "--yes")["reason"] == "space"
    monkeypatch.setattr(system.ConfiguredSite, "_free", free)
    assert shop.run("update")["outcome"] == "confirmed"


def test_consent_is_in_the_receipt(shop: Shop) -> None:
    from protocol.receipt import verify

    shop.init("--mode", "ask")
    shop.release("1.0.0")
    shop.run("update", "--yes")
    public = bytes.fromhex(shop.init("--force")["public_key"])
    (receipt,) = [verify(data, public) for data in shop.registry.receipts]
    assert receipt.outcome is Outcome.CONFIRMED
    assert receipt.consent is not None and receipt.consent.by == "owner"


# -- without a registry ----------------------------------------------------------------------------


def no_registry(shop: Shop) -> None:
    trust = str(shop.folder / "trust.json")
    shop.run("init", "--trust", trust, "--hardware", "2")


def test_a_device_without_any_registry_installs_from_files(shop: Shop) -> None:
    no_registry(shop)
    made = shop.release("1.0.0", 3)
    answer = shop.run("install", str(shop.stick(made, 1)), "--yes")
    assert answer["outcome"] == "confirmed"
    assert answer["receipts"] == {"queued": 1} and answer["delivery"]["reason"] == "no-registry"
    status = shop.run("status")
    slot = (shop.folder / f"dev/slots/{status['slot']}.img").read_bytes()
    assert slot.startswith(image_of("1.0.0", 300_000))


@pytest.mark.parametrize("command", [["check"], ["update", "--yes"], ["run", "--once"]])
def test_there_is_nobody_to_ask_and_it_is_said(shop: Shop, command: list[str]) -> None:
    no_registry(shop)
    answer = shop.run(*command, code=2)
    assert answer["error"]["reason"] == "no-registry"


def test_a_bandwidth_does_not_slow_a_file_down(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from device_client.adapters.system import SystemClock

    def sleep(self: SystemClock, seconds: float) -> None:
        raise AssertionError("it waits")

    shop.init("--set", "bandwidth=4096")
    made = shop.release("1.0.0", 3)
    monkeypatch.setattr(SystemClock, "sleep", sleep)
    assert shop.run("install", str(shop.stick(made, 1)), "--yes")["outcome"] == "confirmed"


# -- history ---------------------------------------------------------------------------------------


def test_history_tells_what_happened(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.init("--health-check", """sh -c '! grep -q BROKEN "$FIRMLEDGER_SLOT"'""")
    assert shop.run("history") == {"history": []}
    assert main(["-C", str(shop.folder / "dev"), "history"]) == 0
    assert capsys.readouterr().out == "nothing has happened yet\n"
    shop.release("1.0.0")
    shop.run("update", "--yes")
    shop.chain.publish(make(b"BROKEN" + image_of("2.0.0", 9000), "2.0.0"))
    shop.run("update", "--yes", code=1)
    shop.chain.publish(make(image_of("3.0.0", 9000), "3.0.0", hardware_min=3))
    shop.run("update", "--yes", code=1)
    lines = shop.run("history")["history"]
    assert [(line["version"], line["outcome"], line["reason"]) for line in lines] == [
        ("1.0.0", "confirmed", ""),
        ("2.0.0", "rolled-back", "health-check"),
        ("3.0.0", "refused", "wrong-hardware"),
    ]
    assert main(["-C", str(shop.folder / "dev"), "history"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and told[1].endswith("2.0.0       rolled-back (health-check)")


@pytest.mark.parametrize(
    "line",
    ["health_check = ['true', 'a\\u0000b']", "busy_command = ['\\u0000']", "busy_file = 'a\\u0000'",
     "[command]\nargv = ['a\\u0000']"],
)  # fmt: skip
def test_a_nul_is_refused_wherever_a_path_or_an_argument_is(line: str) -> None:
    sound, nul = line.replace("\\u0000", ""), line.replace("'", '"')
    with pytest.raises(Misuse) as caught:
        Config.parse(f"hardware = 1\n{nul}\n".encode())
    assert "NUL" in caught.value.why
    if "[" not in line[:1] and "['']" not in sound:
        Config.parse(f"hardware = 1\n{sound}\n".encode())


def test_history_of_no_device(shop: Shop) -> None:
    assert shop.run("history", code=1)["error"]["reason"] == "not-set-up"
    shop.init()
    shutil.copy(shop.folder / "dev/config.toml", shop.folder / "dev/journal.bin")
    assert shop.run("history", code=1)["error"]["reason"] == "journal-damaged"
