"""The command line, word for word, over a real directory and a real HTTP server."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from device_client.answers import REFUSALS
from device_client.cli import main
from device_client.core.policy import Hold
from device_client.flash import BLOCK
from device_client.inquiry import PATIENT
from protocol.bundle import Bundle, stick_prefix
from protocol.ledger import Reason
from protocol.trustfile import ClassKey, ClassKeys
from tests.device_client import registry as world
from tests.device_client.http_registry import serving
from tests.device_client.registry import Made, image_of, make

HERE = Path(__file__).resolve().parents[2]
ELSE = world.ProductId(b"\x77" * 32)


class Shop:
    """A maker's files and a running registry, in a directory of their own."""

    def __init__(self, folder: Path, stack: ExitStack, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.chain = world.Chain(time=int(time.time()) - 60)
        self.registry = world.Registry(self.chain)
        self.url = stack.enter_context(serving(self.registry))
        self.trust()

    def trust(self, **members: Any) -> None:
        (self.folder / "trust.json").write_bytes(world.trust_file(self.chain, **members).to_bytes())
        pem = world.CLASS_KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        keys = ClassKeys(world.PRODUCT, (ClassKey(1, world.KID.hex(), pem.decode()),))
        (self.folder / "trust.json.key").write_bytes(keys.to_bytes())

    def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command with --json; its document."""
        assert main(["-C", str(self.folder / "dev"), *arguments, "--json"]) == code
        out, self.err = self.capsys.readouterr()
        document: dict[str, Any] = json.loads(out)
        return document

    def init(self, *more: str, code: int = 0) -> dict[str, Any]:
        trust = str(self.folder / "trust.json")
        arguments = ("--trust", trust, "--registry", self.url, "--hardware", "2", *more)
        return self.run("init", *arguments, code=code)

    def stick(self, made: Made, release_id: int) -> Path:
        bundle = Bundle(self.chain.fresh(release_id), made.static).encode()
        path = self.folder / "stick.flb"
        path.write_bytes(stick_prefix(bundle) + bundle + made.payload)
        return path

    def release(self, version: str, counter: int = 1, **terms: Any) -> Made:
        made = make(image_of(version, 300_000), version, counter, **terms)
        self.chain.publish(made)
        return made


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, stack, capsys)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_walk_through(shop: Shop) -> None:
    made = shop.init()
    assert made["hardware"] == 2 and made["product"] == str(world.PRODUCT)
    shop.release("1.0.0", 3)
    check = shop.run("check")
    assert check["offer"]["eligible"] and check["offer"]["version"] == "1.0.0"
    assert (check["version"], check["outcome"]) == ("0.0.0", "ready")
    update = shop.run("update", "--yes")
    assert (update["outcome"], update["version"], update["slot"]) == ("confirmed", "1.0.0", "b")
    assert (shop.folder / "dev/slots/b.img").read_bytes()[:300_000] == image_of("1.0.0", 300_000)
    status = shop.run("status")
    assert (status["state"], status["version"], status["security_counter"]) == ("idle", "1.0.0", 3)
    assert status["receipts"] == {"queued": 1, "sent": 1}
    assert [line["outcome"] for line in status["history"]] == ["confirmed"]
    assert shop.run("update", "--yes")["outcome"] == "nothing"


def test_device_files_are_what_the_maker_enrols_and_nobody_else_reads(shop: Shop) -> None:
    shop.init()
    dev = shop.folder / "dev"
    public = json.loads((dev / "device.json").read_text())
    assert public.keys() == {"device_id", "public_key", "product", "hardware"}
    for name in ("keys/device.json", "keys/class.json", "journal.bin", "slots/a.img"):
        assert stat.S_IMODE((dev / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((dev / "keys").stat().st_mode) == 0o700


def test_install_from_a_stick_without_any_registry(shop: Shop) -> None:
    shop.init()
    made = shop.release("1.0.0")
    stick = shop.stick(made, 1)
    shop.registry.down = True
    answer = shop.run("install", str(stick), "--yes")
    assert answer["outcome"] == "confirmed" and answer["receipts"] == {"queued": 1}
    assert answer["delivery"]["family"] == "unreachable"
    shop.registry.down = False
    shop.run("check")
    assert len(shop.registry.receipts) == 1


def test_the_same_refusal_offline_is_queued_once_and_said_while_it_is(shop: Shop) -> None:
    shop.init()
    stick = shop.stick(shop.release("1.0.0"), 1)
    whole = stick.read_bytes()
    shop.registry.down = True
    flipped = bytearray(whole)
    flipped[-700] ^= 1
    queued = []
    for _ in range(4):  # two refusals in turn, so that none is the last one made
        for spoiled in (bytes(flipped), whole[:5000]):
            stick.write_bytes(spoiled)
            shop.run("install", str(stick), "--yes", code=1)
            assert "receipts stay queued: " in shop.err
            queued.append(shop.run("status")["receipts"]["queued"])
    assert queued == [1, *[2] * 7]
    shop.registry.down = False
    shop.run("check")
    assert "receipts" not in shop.err and len(shop.registry.receipts) == 2


def test_nothing_is_said_of_receipts_where_none_is_queued(shop: Shop) -> None:
    shop.init()
    stick = shop.stick(shop.release("1.0.0", not_before=2**31), 1)
    shop.registry.down = True
    answer = shop.run("install", str(stick), "--yes")
    assert (answer["outcome"], answer["reason"]) == ("waiting", "not-started")
    assert answer["receipts"] == {"queued": 0} and "delivery" not in answer
    assert shop.err == ""


@pytest.mark.parametrize("cut", [0, 5, 11, 12, 500, 5000, -1])
def test_truncated_sticks_are_refused_whole(shop: Shop, cut: int) -> None:
    shop.init()
    stick = shop.stick(shop.release("1.0.0"), 1)
    stick.write_bytes(stick.read_bytes()[:cut])
    before = shop.run("status")["slots"]
    document = shop.run("install", str(stick), "--yes", code=1)
    assert document["error"]["family"] in ("malformed", "untrusted")
    assert shop.err.startswith("error: ") and shop.err.count(" / ") >= 2
    assert shop.run("status")["slots"]["a"] == before["a"]
    assert shop.run("status")["version"] == "0.0.0"


@pytest.mark.parametrize("place", ["prefix", "bundle", "payload"])
def test_a_changed_bit_on_the_stick_is_refused(shop: Shop, place: str) -> None:
    shop.init()
    stick = shop.stick(shop.release("1.0.0"), 1)
    data = bytearray(stick.read_bytes())
    data[{"prefix": 3, "bundle": 2000, "payload": len(data) - 700}[place]] ^= 1
    stick.write_bytes(data)
    shop.run("install", str(stick), "--yes", code=1)
    assert shop.run("status")["version"] == "0.0.0"


def test_a_stick_of_another_product_is_refused(shop: Shop) -> None:
    shop.init()
    other = make(b"x" * 5000, "1.0.0", product=world.ProductId(bytes(range(32))))
    shop.release("1.0.0")
    document = shop.run("install", str(shop.stick(other, 1)), "--yes", code=1)
    error = document["error"]
    assert (error["family"], error["reason"]) == ("untrusted", "wrong-product")
    assert str(world.PRODUCT) in error["why"] and "0x" + bytes(range(32)).hex() in error["why"]


def test_a_stick_of_another_products_ledger_is_refused_by_its_name(shop: Shop) -> None:
    """The proof is genuine, and of other slots of the state: that alone says little to people."""
    shop.init()
    stick = shop.stick(shop.release("1.0.0"), 1)
    trusted = replace(world.trust_file(shop.chain), product_id=ELSE)
    (shop.folder / "trust.json").write_bytes(trusted.to_bytes())
    keys = shop.folder / "trust.json.key"
    keys.write_bytes(replace(ClassKeys.parse(keys.read_bytes()), product_id=ELSE).to_bytes())
    shop.init("--force")
    error = shop.run("install", str(stick), "--yes", code=1)["error"]
    assert error["reason"] == "wrong-product" and error["data"]["step"] in range(1, 11)
    assert error["data"]["found"] == str(world.PRODUCT)
    assert error["data"]["expected"] == str(ELSE)
    assert shop.run("status")["ledger"]["height"] == 0


def test_a_trust_file_of_another_chain_proves_nothing(shop: Shop) -> None:
    shop.release("1.0.0")
    data = json.loads((shop.folder / "trust.json").read_text())
    data["chain_id"] += 1
    (shop.folder / "trust.json").write_text(json.dumps(data))
    shop.init()
    assert shop.run("update", "--yes", code=1)["error"]["reason"] == "wrong-product-record"


def test_an_unreachable_registry_is_said_and_changes_nothing(shop: Shop) -> None:
    shop.init("--registry", "http://127.0.0.1:1")
    shop.registry.down = True
    before = tree(shop.folder / "dev")
    assert shop.run("update", "--yes", code=1)["error"]["family"] == "unreachable"
    assert tree(shop.folder / "dev") == before


def test_a_production_device_refuses_an_embedded_ledger(shop: Shop) -> None:
    shop.trust(embedded=True)
    assert shop.init("--production", code=2)["error"]["reason"] == "embedded-ledger"
    assert not (shop.folder / "dev").exists()
    shop.init()
    config = shop.folder / "dev/config.toml"
    config.write_text(config.read_text().replace('"trial"', '"production"'))
    assert shop.run("check", code=2)["error"]["reason"] == "embedded-ledger"


def test_init_refuses_a_second_time_and_keeps_the_key_when_forced(shop: Shop) -> None:
    first = shop.init()
    assert shop.init(code=2)["error"]["reason"] == "already-set-up"
    assert shop.init("--force")["device_id"] == first["device_id"]


def test_init_takes_nothing_from_a_device_at_work(shop: Shop) -> None:
    from device_client.home import open_device

    shop.init()
    before = tree(shop.folder / "dev")
    with open_device(shop.folder / "dev"):
        assert shop.init("--force", code=1)["error"]["reason"] == "in-use"
        assert tree(shop.folder / "dev") == before
    shop.run("status")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--registry", "ftp://x"),
        ("--registry", f"http://{'a' * 70}.example"),
        ("--registry", "http://127.0.0.1/\N{LATIN SMALL LETTER U WITH DIAERESIS}"),
        ("--registry", "http://h/a b"),
        ("--window", "some day"),
        ("--timezone", "Nowhere/Atall"),
        ("--hardware", "-1"),
    ],
)
def test_init_checks_its_words_before_it_takes_anything(
    shop: Shop, option: str, value: str
) -> None:
    assert shop.init(option, value, code=2)["error"]["family"] == "misuse"
    assert not (shop.folder / "dev").exists()
    shop.init()
    before = tree(shop.folder / "dev")
    shop.init("--force", option, value, code=2)
    assert tree(shop.folder / "dev") == before


def test_init_checks_the_addresses_in_the_trust_file(shop: Shop) -> None:
    data = json.loads((shop.folder / "trust.json").read_text())
    data["registries"] = ["ftp://x"]
    (shop.folder / "trust.json").write_text(json.dumps(data))
    arguments = ("--trust", str(shop.folder / "trust.json"), "--hardware", "2")
    assert shop.run("init", *arguments, code=2)["error"]["reason"] == "registry-address"
    assert not (shop.folder / "dev").exists()


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("trust.json", b""),
        ("trust.json", b"{}"),
        ("trust.json", b"\xff" * 100),
        ("trust.json", b"[" * 10_000),
        ("trust.json", b" " * 100_000),
        ("trust.json.key", b"{}"),
        ("trust.json.key", b'{"format": "firmledger-class-key-1"}'),
    ],
)
def test_init_refuses_garbage_and_writes_nothing(shop: Shop, file: str, data: bytes) -> None:
    (shop.folder / file).write_bytes(data)
    assert shop.init(code=1)["error"]["family"] == "malformed"
    assert not (shop.folder / "dev").exists()


WRONG = [[], ["fly"], ["init"], ["install"], ["update", "--later"], ["--loud", "status"]]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: wrong usage / ") and err.count(" / ") == 2
    assert out == ""


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_is_one_document_with_json(shop: Shop, arguments: list[str]) -> None:
    error = shop.run(*arguments, code=2)["error"]
    assert (error["family"], error["reason"]) == ("misuse", "usage")
    assert error["why"] and "--help" in error["fix"]


def test_help_and_version_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, begin in (["--help"], "usage: "), (["--version"], "firmledger-device "):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(begin)


@pytest.mark.parametrize("wrong", ["nowhere.file", "."])
@pytest.mark.parametrize("option", ["--trust", "--class-key", "--image", "--board"])
def test_init_with_a_file_that_is_none_is_wrong_usage(shop: Shop, option: str, wrong: str) -> None:
    error = shop.init(option, str(shop.folder / wrong), code=2)["error"]
    assert (error["family"], error["reason"]) == ("misuse", "no-such-file")
    assert str(shop.folder / wrong) in error["what"] and "init" not in error["fix"]
    assert not (shop.folder / "dev").exists()


@pytest.mark.parametrize("command", ["install", "reanchor"])
def test_a_pipe_is_no_file(shop: Shop, command: str) -> None:
    shop.init()
    os.mkfifo(shop.folder / "pipe")
    error = shop.run(command, str(shop.folder / "pipe"), code=1)["error"]
    assert error["reason"] == "not-a-file"
    (shop.folder / "dev/config.toml").unlink()
    os.mkfifo(shop.folder / "dev/config.toml")
    assert shop.run("status", code=1)["error"]["reason"] == "not-a-file"


def test_a_trust_file_without_its_class_keys_is_said(shop: Shop) -> None:
    (shop.folder / "trust.json.key").unlink()
    error = shop.init(code=2)["error"]
    assert error["reason"] == "no-such-file" and "trust.json.key" in error["what"]


@pytest.mark.parametrize("command", ["install", "reanchor"])
def test_a_file_that_is_none_is_wrong_usage(shop: Shop, command: str) -> None:
    shop.init()
    before = tree(shop.folder / "dev")
    for wrong in ("nowhere.flb", "."):
        error = shop.run(command, wrong, code=2)["error"]
        assert (error["family"], error["reason"]) == ("misuse", "no-such-file")
        assert f" {wrong} refused" in error["what"] and "init" not in error["fix"]
    assert tree(shop.folder / "dev") == before


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\x00" * 200,
        bytes(range(256)),
        b'{"device_id": "0x',
        b"[]",
        b"[" * 4000,
        b"{}",
        b'{"device_id": 5, "public_key": "", "product": "", "hardware": 2}',
        b" " * 5000,
    ],
)
def test_a_damaged_device_file_is_said(shop: Shop, data: bytes | None) -> None:
    shop.init()
    path = shop.folder / "dev/device.json"
    path.unlink() if data is None else path.write_bytes(data)
    error = shop.run("status", code=1)["error"]
    assert (error["family"], error["reason"]) == ("local", "device-file")
    assert error["what"] and error["why"] and error["fix"]
    shop.init("--force")
    shop.run("status")


def ended(shop: Shop, shell: str) -> tuple[int, str]:
    """Exit code and stderr of a command line whose stdout is not what it should be."""
    command = f"{sys.executable} -m device_client.cli -C dev {shell}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        stderr=subprocess.PIPE,
        text=True,
        cwd=shop.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["status", "status --json", "doctor", "--help"])
def test_an_answer_that_cannot_be_written_is_said(shop: Shop, command: str) -> None:
    shop.init()
    code, err = ended(shop, f"{command} > /dev/full")
    assert code == 1
    assert err.startswith("error: answer not written / ") and err.count("\n") == 1


def test_a_reader_that_went_away_is_no_traceback(shop: Shop) -> None:
    shop.init()
    assert ended(shop, "status | true")[1] == ""
    assert ended(shop, "status >&-") == (0, "")
    assert ended(shop, "install nowhere 2> /dev/full") == (2, "")
    assert ended(shop, "install nowhere 2>&-") == (2, "")


def test_without_anybody_to_ask_an_update_waits(shop: Shop) -> None:
    shop.init("--mode", "ask")
    stick = shop.stick(shop.release("1.0.0"), 1)
    assert ended(shop, f"install {stick} <&-") == (0, "")
    assert shop.run("status")["state"] == "waiting"


@pytest.mark.parametrize("command", ["check", "update", "status", "doctor", "confirm", "rollback"])
def test_without_a_device_every_command_says_so(shop: Shop, command: str) -> None:
    assert shop.run(command, code=1)["error"]["reason"] == "not-set-up"
    assert not (shop.folder / "dev").exists()


def refused(shop: Shop) -> None:
    """The last command refused in one line on stderr, in three clauses."""
    assert shop.err.startswith("error: ") and shop.err.count(" / ") == 2
    assert shop.err.count("\n") == 1


def test_what_the_ledger_refuses_is_said_as_every_error(shop: Shop) -> None:
    shop.init()
    release = shop.release("1.0.0")
    shop.chain.halt(1)
    for arguments in (["check"], ["update", "--yes"], ["install", str(shop.stick(release, 1))]):
        answer = shop.run(*arguments, code=1)
        assert (answer["outcome"], answer["reason"]) == ("refused", "halted")
        refused(shop)
        assert shop.err.startswith("error: 1.0.0 refused / the release was halted")


def test_a_release_that_failed_here_is_refused_by_check_and_update_alike(shop: Shop) -> None:
    shop.init("--health-check", "false")
    shop.release("1.0.0")
    assert shop.run("check")["outcome"] == "ready"
    assert shop.run("update", code=1)["outcome"] == "rolled-back"
    refused(shop)
    for command in ("check", "update"):
        answer = shop.run(command, code=1)
        assert (answer["outcome"], answer["reason"]) == ("refused", "failed-here")
        refused(shop)


def test_check_waits_where_the_owner_wants_it(shop: Shop) -> None:
    shop.init("--mode", "ask")
    shop.release("1.0.0")
    answer = shop.run("check")
    assert (answer["outcome"], answer["reason"]) == ("waiting", "consent")
    assert shop.err == ""


def test_every_reason_to_refuse_has_its_sentence() -> None:
    slugs = {r.slug for r in Reason if r not in {*PATIENT, Reason.ELIGIBLE}}
    assert slugs | {Hold.PENALTY} <= REFUSALS.keys()
    assert not {r.slug for r in PATIENT} & REFUSALS.keys()
    for why, fix in REFUSALS.values():
        assert why and fix and "/" not in why + fix


def test_health_check_command_decides(shop: Shop) -> None:
    shop.init("--health-check", """sh -c '! grep -q BROKEN "$FIRMLEDGER_SLOT"'""")
    shop.chain.publish(make(b"BROKEN" + image_of("1.0.0", 9000), "1.0.0"))
    answer = shop.run("update", "--yes", code=1)
    assert (answer["outcome"], answer["reason"]) == ("rolled-back", "health-check")
    assert (answer["version"], answer["slot"]) == ("0.0.0", "a")
    assert shop.run("update", code=1)["reason"] == "failed-here"
    shop.release("1.0.1")
    assert shop.run("update", "--yes")["version"] == "1.0.1"


def test_health_check_deadline(shop: Shop) -> None:
    shop.init("--health-check", "sleep 600", "--health-deadline", "1")
    shop.release("1.0.0")
    assert shop.run("update", "--yes", code=1)["reason"] == "health-check-deadline"


def test_owner_confirms_or_rolls_back(shop: Shop) -> None:
    shop.init("--confirm", "owner")
    shop.release("1.0.0", 5)
    update = shop.run("update", "--yes")
    assert (update["outcome"], update["state"], update["version"]) == ("waiting", "trial", "1.0.0")
    assert shop.run("status")["security_counter"] == 0
    assert shop.run("confirm")["outcome"] == "confirmed"
    assert shop.run("status")["security_counter"] == 5
    assert shop.run("confirm", code=1)["error"]["reason"] == "no-trial"
    shop.release("2.0.0", 6)
    shop.run("update", "--yes")
    answer = shop.run("rollback")
    assert (answer["outcome"], answer["reason"], answer["version"]) == (
        "rolled-back",
        "owner",
        "1.0.0",
    )


def test_rollback_to_the_former_image_keeps_the_counter(shop: Shop) -> None:
    shop.init()
    shop.release("1.0.0", 5)
    shop.run("update", "--yes")
    shop.release("2.0.0", 9)
    shop.run("update", "--yes")
    answer = shop.run("rollback")
    assert (answer["version"], answer["security_counter"]) == ("1.0.0", 9)
    assert shop.run("rollback")["version"] == "2.0.0"


def test_a_device_at_work_is_not_entered_twice(shop: Shop) -> None:
    from device_client.home import open_device

    shop.init()
    with open_device(shop.folder / "dev"):
        assert shop.run("update", "--yes", code=1)["error"]["reason"] == "in-use"
    shop.run("update", "--yes")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_update_that_is_stopped_goes_on_where_it_was(shop: Shop, number: signal.Signals) -> None:
    made = make(image_of("1.0.0", 1_000_000), "1.0.0")
    shop.chain.publish(made)
    asked: list[str] = []
    stopped = threading.Event()

    def odd(handler: BaseHTTPRequestHandler) -> bool:
        if "/blobs/" not in handler.path:
            return False
        asked.append(handler.headers.get("Range", ""))
        if len(asked) > 1:
            return False
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(made.payload[:700_000])
        stopped.wait(60)
        return True

    command = [sys.executable, "-m", "device_client.cli", "-C", str(shop.folder / "dev")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with serving(shop.registry, odd) as url:
        shop.init("--registry", url)
        config = shop.folder / "dev/config.toml"
        config.write_text(config.read_text().replace(f'"{shop.url}", ', ""))
        process = subprocess.Popen(
            [*command, "update", "--yes"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # A shell starts its background jobs with interrupts ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            slot = shop.folder / "dev/slots/b.img"
            while not (slot.exists() and slot.read_bytes().startswith(made.image[: 2 * BLOCK])):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            stopped.set()
            process.kill()
            process.wait()
        assert process.returncode == 1, err
        assert (
            err == "error: stopped / by a signal / run the command again, it goes on where it was\n"
        )
        assert shop.run("update", "--yes")["outcome"] == "confirmed"
    assert BLOCK <= int(asked[1].removeprefix("bytes=").removesuffix("-")) <= 700_000


def test_status_loads_no_cryptography(shop: Shop) -> None:
    shop.init()
    code = (
        "import sys; from device_client.cli import main; main(sys.argv[1:]);"
        "heavy = {'cryptography', 'cwt', 'coincurve', 'ssl', 'rich', 'http.client', 'asyncio'};"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, "-C", str(shop.folder / "dev"), "status"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout.startswith("device    0x")


def test_damaged_state_is_said_and_never_reset(shop: Shop) -> None:
    shop.init()
    journal = shop.folder / "dev/journal.bin"
    sound = journal.read_bytes()
    for damaged in (bytes(len(sound)), b"\xff" * len(sound), b""):
        journal.write_bytes(damaged)
        error = shop.run("status", code=1)["error"]
        assert error["reason"] in ("journal-damaged", "not-set-up")
        assert shop.run("update", "--yes", code=1)["error"]["reason"] == error["reason"]
        assert journal.read_bytes() == damaged
    journal.write_bytes(sound)
    shop.run("status")


def test_a_round_of_the_daemon_that_is_refused_fails(shop: Shop) -> None:
    shop.init()
    shop.release("1.0.0")
    shop.chain.halt(1)
    assert shop.run("run", "--once", code=1)["reason"] == "halted"
    assert "\nerror: 1.0.0 refused / the release was halted" in shop.err
    shop.registry.down = True
    assert shop.run("run", "--once", code=1)["error"]["family"] == "unreachable"


def test_daemon_runs_one_round(shop: Shop) -> None:
    shop.init()
    shop.release("1.0.0")
    assert shop.run("run", "--once")["version"] == "1.0.0"
    assert shop.run("status")["version"] == "1.0.0"
