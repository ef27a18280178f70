"""Setting a device up again, and back to its factory settings: what must not fall by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_client.adapters.directory import Directory
from device_client.adapters.identity import DEVICE_KEY_FORMAT
from device_client.adapters.journal import FileJournal
from device_client.core import recovery
from device_client.core.book import Book
from device_client.core.machine import BOOTING, Stage, State
from device_client.core.trust import TrustState
from protocol.digests import sha256
from protocol.errors import Refused
from protocol.ids import Digest, ProductId
from tests.device_client import registry as world
from tests.device_client.registry import image_of
from tests.device_client.test_cli import Shop
from tests.device_client.test_reanchor_cli import freeze, show


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    """A device that confirmed a release with security counter 5, and has a receipt queued."""
    with ExitStack() as stack:
        made = Shop(tmp_path, stack, capsys)
        made.init()
        made.release("1.0.0", 5)
        made.run("update", "--yes")
        yield made


def running(shop: Shop) -> bytes:
    status = shop.run("status")
    path = shop.folder / f"dev/slots/{status['slot']}.img"
    return path.read_bytes()[: status["slots"][status["slot"]]["size"]]


def journal(shop: Shop) -> Path:
    return shop.folder / "dev/journal.bin"


KEPT = ("device_id", "security_counter", "version", "slot", "receipts", "history")


def kept(status: dict[str, Any]) -> dict[str, Any]:
    ledger = {name: status["ledger"][name] for name in ("height", "time", "newest")}
    return {**{name: status[name] for name in KEPT}, **ledger}


# -- init --force ----------------------------------------------------------------------------------


def test_a_device_set_up_again_keeps_all_that_must_not_fall(shop: Shop) -> None:
    before = shop.run("status")
    answer = shop.init("--force")
    assert answer["security_counter"] == 5 and answer["height"] == before["ledger"]["height"]
    assert kept(shop.run("status")) == kept(before)
    assert running(shop) == image_of("1.0.0", 300_000)


def test_it_goes_on_from_there(shop: Shop) -> None:
    shop.init("--force")
    shop.release("0.9.0", 4)
    shop.release("2.0.0", 4)
    assert shop.run("update", "--yes", code=1)["reason"] == "counter-too-low"
    shop.release("2.0.1", 5)
    assert shop.run("update", "--yes")["version"] == "2.0.1"


def test_a_proof_from_before_is_refused_after_it(shop: Shop) -> None:
    old = shop.chain.fresh(1)
    shop.chain.halt(1)
    shop.run("check")
    shop.init("--force")
    shop.chain.fresh = lambda *_, **__: old  # type: ignore[method-assign]
    assert shop.run("check", code=1)["error"]["reason"] == "below-trusted-height"


def test_what_it_is_given_replaces_what_the_owner_had_settled(shop: Shop) -> None:
    shop.init("--force", "--mode", "manual", "--set", "bandwidth=65536")
    assert shop.run("status")["mode"] == "manual"
    assert "bandwidth = 65536" in (shop.folder / "dev/config.toml").read_text()


def test_another_image_lowers_nothing(shop: Shop) -> None:
    (shop.folder / "image").write_bytes(b"the maker's image")
    shop.init("--force", "--image", str(shop.folder / "image"))
    status = shop.run("status")
    assert (status["version"], status["slot"], status["security_counter"]) == ("0.0.0", "a", 5)
    assert running(shop) == b"the maker's image"


def test_a_slot_that_rotted_is_written_anew(shop: Shop) -> None:
    slot = shop.folder / "dev/slots/b.img"
    data = bytearray(slot.read_bytes())
    data[1000] ^= 1
    slot.write_bytes(bytes(data))
    shop.init("--force")
    status = shop.run("status")
    assert (status["version"], status["slot"], status["security_counter"]) == ("0.0.0", "a", 5)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 300_000, bytes(300_000)])
def test_a_lost_journal_is_not_replaced_in_silence(shop: Shop, damage: bytes) -> None:
    journal(shop).write_bytes(damage)
    error = shop.init("--force", code=1)["error"]
    assert error["reason"] == "journal-damaged" and "--forget" in error["fix"]
    assert journal(shop).read_bytes() == damage
    assert shop.init("--forget", code=2)["error"]["reason"] == "usage"


def test_with_the_owners_word_the_slots_tell_the_counter(shop: Shop) -> None:
    before = shop.run("status")
    journal(shop).write_bytes(b"\xff" * 300_000)
    answer = shop.init("--force", "--forget")
    assert answer["security_counter"] == 5 and answer["height"] == 0
    after = shop.run("status")
    assert after["device_id"] == before["device_id"] and after["version"] == "1.0.0"
    assert after["receipts"]["queued"] == 0
    shop.release("2.0.0", 4)
    assert shop.run("update", "--yes", code=1)["reason"] == "counter-too-low"


def test_a_frozen_device_is_believed_again_but_not_below_its_height(shop: Shop) -> None:
    freeze(shop)
    before = shop.run("status")["ledger"]
    shop.init("--force")
    after = shop.run("status")["ledger"]
    assert not after["frozen"] and after["height"] == before["height"] > 0
    shop.chain.tick()
    show(shop)
    assert shop.run("check")["outcome"] == "nothing"


def test_a_set_up_that_stops_half_way_forgets_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from device_client import provision

    before, written = shop.run("status"), []
    whole = provision.write_shared

    def broken(path: Path, data: bytes) -> None:
        written.append(path.name)
        if len(written) == 3:
            raise KeyboardInterrupt
        whole(path, data)

    monkeypatch.setattr(provision, "write_shared", broken)
    shop.init("--force", code=1)
    monkeypatch.undo()
    assert kept(shop.run("status")) == kept(before)
    shop.init("--force")
    assert kept(shop.run("status")) == kept(before)


def test_a_set_up_by_force_where_there_was_none_is_a_set_up(shop: Shop) -> None:
    shutil.rmtree(shop.folder / "dev")
    answer = shop.init("--force")
    assert (answer["security_counter"], answer["height"]) == (0, 0)
    assert shop.run("update", "--yes")["version"] == "1.0.0"


# -- what is lost ----------------------------------------------------------------------------------


@pytest.mark.parametrize("also", [(), ("config.toml",), ("boot.env", "config.toml")])
def test_a_device_without_its_journal_is_not_set_up_anew_in_silence(
    shop: Shop, also: tuple[str, ...]
) -> None:
    before = shop.run("status")
    for name in ("journal.bin", *also):
        (shop.folder / "dev" / name).unlink()
    error = shop.init(code=2)["error"]
    assert error["reason"] == "already-set-up" and "--force --forget" in error["fix"]
    error = shop.init("--force", code=1)["error"]
    assert error["reason"] == "journal-damaged" and "--forget" in error["fix"]
    assert not journal(shop).exists()
    answer = shop.init("--force", "--forget")
    assert answer["device_id"] == before["device_id"]
    if "boot.env" not in also:  # what the slots tell is kept
        assert answer["security_counter"] == 5 and running(shop) == image_of("1.0.0", 300_000)


@pytest.mark.parametrize("command", ["status", "history", "update", "reset", "check"])
def test_every_command_names_the_way_out_of_a_lost_journal(shop: Shop, command: str) -> None:
    journal(shop).unlink()
    assert "`init --force --forget`" in shop.run(command, code=1)["error"]["fix"]


@pytest.mark.parametrize("command", ["status", "update"])
def test_a_lost_boot_record_is_made_anew_by_force_and_lowers_nothing(
    shop: Shop, command: str
) -> None:
    (shop.folder / "dev/boot.env").unlink()
    assert "`init --force" in shop.run(command, code=1)["error"]["fix"]
    assert shop.init("--force")["security_counter"] == 5
    assert shop.run("status")["security_counter"] == 5


def test_a_first_set_up_that_was_cut_is_simply_done_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from device_client.adapters.journal import FileJournal

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    shutil.rmtree(shop.folder / "dev")
    with monkeypatch.context() as patched:
        patched.setattr(FileJournal, "commit", cut)
        shop.init(code=1)
    assert (shop.folder / "dev/boot.env").exists() and not journal(shop).exists()
    shop.init()
    assert not (shop.folder / "dev/unfinished").exists()
    assert shop.init(code=2)["error"]["reason"] == "already-set-up"


def test_a_lost_device_key_is_no_new_device_in_silence(shop: Shop) -> None:
    before = shop.run("status")
    (shop.folder / "dev/keys/device.json").unlink()
    assert shop.init("--force", code=1)["error"]["reason"] == "device-key-lost"
    assert not (shop.folder / "dev/keys/device.json").exists()
    answer = shop.init("--force", "--forget")
    assert answer["device_id"] != before["device_id"]
    assert (answer["security_counter"], answer["height"]) == (5, before["ledger"]["height"])
    book = Book.decode(FileJournal(Directory(shop.folder / "dev")).read() or b"")
    assert (book.sequence, book.spoken, len(book.queue)) == (0, (), 1)


def test_another_devices_key_is_refused(shop: Shop) -> None:
    key = shop.folder / "dev/keys/device.json"
    own = key.read_bytes()
    key.write_text(json.dumps({"format": DEVICE_KEY_FORMAT, "private_key": "07" * 32}))
    for arguments in (["update", "--yes"], ["check"], ["run", "--once"]):
        assert shop.run(*arguments, code=1)["error"]["reason"] == "another-key"
    assert shop.init("--force", code=1)["error"]["reason"] == "another-key"
    (check,) = (c for c in shop.run("doctor", code=1)["checks"] if c["name"] == "identity")
    assert check["level"] == "open"
    key.write_bytes(own)
    assert shop.run("update", "--yes")["outcome"] == "nothing"


def test_a_lost_lock_is_made_anew(shop: Shop) -> None:
    (shop.folder / "dev/lock").unlink()
    assert shop.run("update", "--yes")["outcome"] == "nothing"


# -- pure ------------------------------------------------------------------------------------------

CHAIN = world.Chain()
TRUST = world.trust_file(CHAIN)
BOOK = Book(
    State(Stage.OFFERED, counter=9, box=(Digest(bytes(32)),)),
    TrustState(50, 1000, b"", TRUST.validators, newest=7, statuses=((1, 3),)).encode(),
    sequence=4,
)


def test_another_product_starts_anew() -> None:
    other = replace(TRUST, product_id=ProductId(sha256(b"test vector: another")))
    assert recovery.carried_over(BOOK, TRUST, other) == recovery.first(other)


def test_another_ledger_counts_its_blocks_anew_and_the_counter_stays() -> None:
    other = replace(TRUST, chain_id=77)
    after = recovery.carried_over(BOOK, TRUST, other)
    assert after.state == State(counter=9)
    assert TrustState.decode(after.trust) == TrustState.first(other)


def test_the_same_ledger_keeps_its_validators_height_and_what_was_seen() -> None:
    after = recovery.carried_over(BOOK, TRUST, TRUST)
    assert (after.trust, after.sequence) == (BOOK.trust, 4)
    assert after.state == State(counter=9)  # the penalty box is left by the owner's word


@pytest.mark.parametrize(("least", "height"), [(10, 50), (80, 80)])
def test_a_newer_trust_file_leads_on_and_never_back(least: int, height: int) -> None:
    newer = replace(TRUST, min_height=least, validators=TRUST.validators[:1])
    after = TrustState.decode(recovery.carried_over(BOOK, TRUST, newer).trust)
    assert (after.height, after.time, after.statuses) == (height, 1000, ((1, 3),))
    assert after.validators == (newer.validators if least > 50 else TRUST.validators)


# -- factory reset ---------------------------------------------------------------------------------


def test_a_factory_reset_takes_the_owners_words_and_nothing_that_must_stay(shop: Shop) -> None:
    config = shop.folder / "dev/config.toml"
    factory = config.read_text()
    config.write_text(factory.replace('mode = "auto"', 'mode = "manual"'))
    before = shop.run("status")
    answer = shop.run("reset")
    assert (answer["device_id"], answer["security_counter"]) == (before["device_id"], 5)
    after = shop.run("status")
    assert config.read_text() == factory and after["mode"] == "auto"
    assert kept({**after, "history": before["history"]}) == kept(before)
    assert after["history"] == [] and running(shop) == image_of("1.0.0", 300_000)
    assert shop.run("reset")["height"] == before["ledger"]["height"]  # once more does no harm


def test_a_factory_reset_empties_the_penalty_box(shop: Shop) -> None:
    shop.init("--force", "--health-check", "false")
    shop.release("2.0.0", 6)
    assert shop.run("update", "--yes", code=1)["outcome"] == "rolled-back"
    assert shop.run("status")["failed_releases"] == 1
    shop.run("reset")
    assert shop.run("status")["failed_releases"] == 0


def test_no_factory_reset_during_a_trial(shop: Shop) -> None:
    shop.init("--force", "--confirm", "owner")
    shop.release("2.0.0", 6)
    shop.run("update", "--yes")
    before = journal(shop).read_bytes()
    assert shop.run("reset", code=1)["error"]["reason"] == "trial-pending"
    assert journal(shop).read_bytes() == before
    shop.run("confirm")
    assert shop.run("reset")["security_counter"] == 6


@pytest.mark.parametrize("stage", sorted(BOOTING))
def test_no_stage_of_a_trial_is_reset(stage: Stage) -> None:
    with pytest.raises(Refused):
        recovery.reset(replace(BOOK, state=State(stage)))


def test_a_frozen_device_stays_frozen() -> None:
    assert recovery.reset(replace(BOOK, state=State(Stage.FROZEN))).state.stage is Stage.FROZEN


@pytest.mark.parametrize("damage", ["", "colour = 'red'", "mode = ", "mode = 'soon'", None])
def test_a_reset_mends_settings_that_are_broken_or_lost(shop: Shop, damage: str | None) -> None:
    config = shop.folder / "dev/config.toml"
    sound = config.read_bytes()
    config.unlink() if damage is None else config.write_text(damage)
    assert shop.run("reset")["security_counter"] == 5
    assert config.read_bytes() == sound
    assert shop.run("update", "--yes")["outcome"] == "nothing"


def test_a_reset_of_no_device_is_said(shop: Shop) -> None:
    shutil.rmtree(shop.folder / "dev")
    assert shop.run("reset", code=1)["error"]["reason"] == "not-set-up"


def test_a_damaged_factory_file_resets_nothing(shop: Shop) -> None:
    (shop.folder / "dev/factory.toml").write_text("colour = 'red'")
    before = shop.run("status")
    shop.run("reset", code=2)
    assert shop.run("status") == {**before, "ledger": shop.run("status")["ledger"]}
