"""The command line: exit codes, one document on stdout, errors in three parts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer

from protocol.bundle import Bundle, prove
from protocol.errors import Misuse
from protocol.ids import Address
from protocol.trustfile import ClassKeys, TrustFile
from registry import cli, sticks
from registry.app import Server
from registry.assembly import Registry
from registry.clock import SystemClock
from registry.embedded import EmbeddedLedger
from registry.keys import Keyring
from tests.registry.entropy import Stream
from tests.registry.place import Unit
from tests.registry.terminal import Terminal

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running registry; a 2-of-3 product ``thermostat``."""
    folder = tmp_path_factory.mktemp("cli") / "reg"
    assert cli.main(["init", str(folder), "--anchor-every", "1s"]) == 0
    with Server(Registry.open(folder, clock=SystemClock()), host="127.0.0.1", port=0):
        create = ["product", "create", "thermostat", "--hardware", "1-3", "--threshold", "2"]
        assert cli.main(["-C", str(folder), *create, "--approvers", "alice,bob,carol"]) == 0
        yield folder


@pytest.fixture
def run(served: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(served, capsys)


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    path = tmp_path / "fw.bin"
    path.write_bytes(Stream(str(tmp_path).encode())(50_000))
    return path


def newest(run: Terminal) -> str:
    """A version above the newest: tests share the product."""
    releases = run("release", "list", "thermostat").document["releases"]
    return f"{len(releases) + 1}.0.0"


def built(run: Terminal, firmware: Path, out: Path) -> Path:
    """The envelope of a new release of the next version, approved by nobody."""
    words = ("--version", newest(run), "--security-counter", "1", "--rollout", "100%@0h")
    said = run("release", "build", firmware, "--product", "thermostat", *words, "-o", out)
    assert said.code == 0
    return out.with_suffix(".suit")


def publish(run: Terminal, draft: Path) -> str:
    """Approves and publishes; the version."""
    for name in ("alice", "bob"):
        assert run("release", "approve", draft, "--as", name).code == 0
    done = run("release", "publish", draft)
    assert done.code == 0
    return str(done.document["version"])


@pytest.fixture
def draft(run: Terminal, firmware: Path, tmp_path: Path) -> Path:
    return built(run, firmware, tmp_path / "r")


@pytest.fixture
def published(run: Terminal, draft: Path) -> str:
    """A published release; its version."""
    return publish(run, draft)


# -- the frame -----------------------------------------------------------------------------------


def every_command(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_of_the_design_is_there_and_takes_json() -> None:
    found = dict(every_command(typer.main.get_command(cli.app)))
    nouns = {
        "": ("init", "serve", "audit"),
        "ledger": ("deploy", "status"),
        "product": (
            *("create", "show", "list", "keys", "trust", "enrol"),
            *("propose", "cancel", "pause", "unpause"),
        ),
        "release": (
            *("build", "approve", "publish", "show", "list"),
            *("halt", "resume", "revoke", "attest"),
        ),
        "bundle": ("export", "verify", "refresh"),
    }
    wanted = {(noun, verb) if noun else (verb,) for noun, verbs in nouns.items() for verb in verbs}
    assert wanted <= found.keys()
    for path, command in found.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, path
        assert command.help, path


def test_the_readmes_table_names_every_command_and_no_other() -> None:
    text = (REPO / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`firmledger .*?`) \|", text, re.MULTILINE)
    named: set[tuple[str, ...]] = set()
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row)
        _program, *noun, verb = first.split()
        named |= {(*noun, each) for each in (verb, *others)}
    assert named - {("demo",)} == {
        path for path, _ in every_command(typer.main.get_command(cli.app))
    } - {("demo",)}


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["release", "nonsense"],
        ["product", "create"],
        ["release", "halt", "thermostat", "1.0.0"],
        ["serve", "--port", "none"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["family"] == "misuse"
    assert err.startswith("error: ") and err.count(" / ") == 2


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "release" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0


def test_starting_up_loads_nothing_heavy() -> None:
    heavy = "web3 eth eth_account fastapi sqlalchemy pydantic_settings uvicorn httpx2 rich.console"
    program = (
        "import sys; from registry.cli import main; main(['release', '--help']);"
        f"print([m for m in '{heavy}'.split() if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_plugins_are_loaded_when_called_and_not_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point = EntryPoint("hello", f"{__name__}:hello", cli.PLUGINS)
    broken = EntryPoint("broken", "no.such.module:app", cli.PLUGINS)
    monkeypatch.setattr(cli, "entry_points", lambda group: [point, broken])
    assert cli.main(["hello", "--name", "world"]) == 0
    assert capsys.readouterr().out == "hello world\n"
    assert cli.main(["release", "--help"]) == 0


def hello(name: str = "nobody") -> None:
    """Greets."""
    typer.echo(f"hello {name}")


# -- directory and server ------------------------------------------------------------------------


def test_where_there_is_no_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(tmp_path, capsys)("product", "list").refused(2, "no-registry")


def test_a_file_is_no_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    Terminal(tmp_path / "file", capsys)("audit").refused(2, "no-registry")


def test_a_registry_is_not_made_twice(run: Terminal, served: Path) -> None:
    before = (served / "settings.toml").read_bytes()
    run("init", served).refused(2, "registry-exists")
    assert (served / "settings.toml").read_bytes() == before


def test_a_second_server_is_refused(run: Terminal) -> None:
    run("serve", "--port", "0").refused(1, "ledger-locked")


def bare(tmp_path: Path, served: Path) -> Path:
    """A directory with settings and a token, and no server."""
    for name in ("settings.toml", "operator.token"):
        (tmp_path / name).write_bytes((served / name).read_bytes())
    return tmp_path


def test_no_server(tmp_path: Path, served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Terminal(bare(tmp_path, served), capsys)
    said = run("ledger", "status", patience=0).refused(1, "no-server")
    assert "serve" in said.document["error"]["fix"]


@pytest.mark.parametrize("port", [1, None])
def test_a_stale_address_is_told_from_a_live_one(
    tmp_path: Path, served: Path, capsys: pytest.CaptureFixture[str], port: int | None
) -> None:
    """Of a server that was killed: nobody listens there any more, or by now somebody else does."""
    members = json.loads((served / "address").read_text())
    if port:
        members["url"] = f"http://127.0.0.1:{port}"
    (bare(tmp_path, served) / "address").write_text(json.dumps(members | {"instance": "former"}))
    said = Terminal(tmp_path, capsys)("ledger", "status", patience=0).refused(1, "no-server")
    assert "stale" in said.document["error"]["why"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"url": 1}'])
def test_a_damaged_address_is_no_address(
    tmp_path: Path, served: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (bare(tmp_path, served) / "address").write_bytes(content)
    Terminal(tmp_path, capsys)("ledger", "status", patience=0).refused(1, "no-server")


def test_a_command_waits_for_a_server_that_is_starting(
    tmp_path: Path, served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Terminal(bare(tmp_path, served), capsys)
    address = (served / "address").read_bytes()
    late = threading.Timer(0.6, lambda: (tmp_path / "address").write_bytes(address))
    late.start()
    try:
        said = run("ledger", "status", patience=30)
    finally:
        late.cancel()
    assert said.code == 0
    assert "waiting" in said.err


# -- products ------------------------------------------------------------------------------------


def test_keys_are_secret_files_and_the_trust_file_is_public(
    run: Terminal, served: Path, tmp_path: Path
) -> None:
    said = run("product", "trust", "thermostat", "-o", tmp_path / "trust.json")
    assert said.code == 0
    trust = TrustFile.parse((tmp_path / "trust.json").read_bytes())
    keys = ClassKeys.parse((tmp_path / "trust.json.key").read_bytes())
    held = Keyring(served / "publisher").product("thermostat")
    assert trust.product_id == keys.product_id == held.product
    assert trust.signing_keys == (held.signer.public.id,)
    assert len(trust.validators) == 4 and trust.embedded and trust.min_height > 0
    assert [key.kid for key in keys.epochs] == [held.class_key.kid.hex()]
    secrets = [*(served / "publisher").rglob("*.json"), tmp_path / "trust.json.key"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in secrets)
    assert (served / "publisher").stat().st_mode & 0o077 == 0
    shown = run("product", "keys", "thermostat")
    assert held.signing_secret.hex() not in shown.out
    assert held.class_key.secret.hex() not in shown.out


def test_an_interrupted_creation_can_be_given_again(run: Terminal) -> None:
    words = ("product", "create", "boiler", "--hardware", "2", "--approvers", "dora")
    first = run(*words, "--threshold", "1")
    again = run(*words, "--threshold", "1")
    assert (first.code, again.code) == (0, 0)
    assert first.document["id"] == again.document["id"]
    assert first.document["tx"] == again.document["tx"]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--hardware", "3-1", "--approvers", "alice"), 2, "bad-hardware"),
        (("--hardware", "1", "--approvers", "alice,alice"), 2, "named-twice"),
        (("--hardware", "1", "--approvers", "../alice"), 2, "bad-name"),
        (("--hardware", "1", "--approvers", "0x12"), 1, "wrong-length"),
        (("--hardware", "1", "--approvers", "alice", "--halt-after", "2"), 2, "bad-halt-rule"),
        (("--hardware", "1", "--approvers", "alice", "--halt-after", "2:101%"), 2, "bad-share"),
        (("--hardware", "1", "--approvers", "alice", "--release-delay", "1"), 2, "bad-duration"),
    ],
)
def test_a_product_that_cannot_be(
    run: Terminal, words: tuple[str, ...], code: int, reason: str
) -> None:
    run("product", "create", "kettle", "--threshold", "1", *words).refused(code, reason)
    run("product", "show", "kettle").refused(2, "unknown-product")


def test_a_threshold_above_its_approvers_is_wrong_usage(run: Terminal) -> None:
    words = ("--hardware", "1", "--approvers", "alice", "--threshold", "2")
    run("product", "create", "toaster", *words).refused(2, "bad-threshold")
    mended = run("product", "create", "toaster", *words[:-1], "1")
    assert mended.code == 0


def test_a_product_is_not_created_again_with_other_rules(run: Terminal) -> None:
    words = ("product", "create", "thermostat", "--hardware", "1-3")
    words += ("--approvers", "alice,bob,carol", "--threshold")
    said = run(*words, "3").refused(2, "product-exists")
    assert "other rules" in said.err


def test_keys_drawn_for_other_hardware_are_not_taken(run: Terminal) -> None:
    words = ("product", "create", "iron", "--approvers", "alice", "--threshold", "1")
    assert run(*words, "--hardware", "1-2").code == 0
    run(*words, "--hardware", "1-3").refused(2, "product-keys-exist")


def identity(run: Terminal, path: Path, **changes: str) -> Path:
    unit = Unit(path.name)
    product = run("product", "show", "thermostat").document["id"]
    members = {
        "device_id": str(unit.id),
        "public_key": unit.public.raw.hex(),
        "product": product,
        "hardware": 2,
    }
    path.write_text(json.dumps(members | changes))
    return path


def test_devices_are_enrolled_by_their_identity_files(run: Terminal, tmp_path: Path) -> None:
    before = run("product", "show", "thermostat").document["enrolled"]
    files = [identity(run, tmp_path / name) for name in ("a", "b")]
    said = run("product", "enrol", "thermostat", *files)
    assert said.code == 0
    assert said.document["fleet"]["size"] == before + 2


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"public_key": "00" * 32}, 1, "bad-device-file"),
        ({"public_key": "00"}, 1, "bad-device-file"),
        ({"device_id": "0x12"}, 1, "bad-device-file"),
        ({"product": "0x" + "00" * 32}, 2, "another-product"),
    ],
)
def test_an_identity_that_does_not_fit_enrols_nobody(
    run: Terminal, tmp_path: Path, changes: dict[str, str], code: int, reason: str
) -> None:
    before = run("product", "show", "thermostat").document["enrolled"]
    files = [identity(run, tmp_path / "good"), identity(run, tmp_path / "bad", **changes)]
    run("product", "enrol", "thermostat", *files).refused(code, reason)
    assert run("product", "show", "thermostat").document["enrolled"] == before


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{" * 9000, b"[" * 60_000])
def test_a_foreign_file_enrols_nobody(run: Terminal, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    run("product", "enrol", "thermostat", tmp_path / "file").refused(1, "bad-device-file")
    run("product", "enrol", "thermostat", tmp_path / "none").refused(2, "no-such-file")


def test_a_new_device_is_not_below_what_its_trust_file_asks_for(
    run: Terminal, published: str, tmp_path: Path
) -> None:
    """The trust file is written long after the bundle that is still being given out."""
    unit, path = Unit("new"), tmp_path / "trust.json"
    run("product", "enrol", "thermostat", identity(run, tmp_path / "moves the ledger on"))
    assert run("product", "trust", "thermostat", "-o", path).code == 0
    trust = TrustFile.parse(path.read_bytes())
    url = json.loads((run.directory / "address").read_text())["url"]
    asked = f"device={unit.id}&version=0&counter=0&hardware=2"
    answer = httpx2.get(f"{url}/v1/products/{trust.product_id}/bundle?{asked}").content
    assert prove(Bundle.decode(answer).fresh, trust.anchor).number >= trust.min_height


# -- releases ------------------------------------------------------------------------------------


def test_a_release_from_build_to_revocation(run: Terminal, published: str) -> None:
    shown = run("release", "show", "thermostat", published).document
    assert (shown["status"], shown["open_bps"]) == ("active", 10_000)
    halted = run("release", "halt", "thermostat", published, "--as", "carol", "--reason", "smoke")
    assert (halted.code, halted.document["status"]) == (0, "halted")
    assert halted.document["gas"] > 0
    few = run("release", "resume", "thermostat", published, "--as", "alice")
    few.refused(1, "too-few-approvals")
    resumed = run("release", "resume", "thermostat", published, "--as", "alice", "--as", "bob")
    assert resumed.document["status"] == "active"
    revoked = run("release", "revoke", "thermostat", published, "--as", "bob", "--as", "carol")
    assert revoked.document["status"] == "revoked"
    again = run("release", "halt", "thermostat", published, "--as", "carol", "--reason", "x")
    again.refused(1, "wrong-status")


def test_publishing_again_is_publishing_once(run: Terminal, draft: Path) -> None:
    for name in ("alice", "bob"):
        run("release", "approve", draft, "--as", name)
    first, again = run("release", "publish", draft), run("release", "publish", draft)
    assert (first.code, again.code) == (0, 0)
    assert first.document["tx"] == again.document["tx"]
    assert first.document["release_id"] == again.document["release_id"]


def test_short_of_approvals_the_ledger_refuses(run: Terminal, draft: Path) -> None:
    run("release", "publish", draft).refused(1, "not-approved")
    run("release", "approve", draft, "--as", "alice")
    run("release", "publish", draft).refused(1, "too-few-approvals")
    run("release", "approve", draft, "--as", "alice").refused(2, "already-approved")
    run("release", "approve", draft, "--as", "nobody").refused(2, "no-such-key")
    run("release", "approve", draft, "--as", "bob")
    assert run("release", "publish", draft).code == 0


def test_a_stranger_approves_and_halts_nothing(
    run: Terminal, draft: Path, served: Path, published: str
) -> None:
    Keyring(served / "publisher").ensure_account("mallory", Stream(b"mallory"))
    run("release", "halt", "thermostat", published, "--as", "mallory", "--reason", "x").refused(
        1, "not-authorized"
    )


def test_a_strangers_approval_does_not_count(run: Terminal, draft: Path, served: Path) -> None:
    Keyring(served / "publisher").ensure_account("mallory", Stream(b"mallory"))
    for name in ("alice", "mallory"):
        run("release", "approve", draft, "--as", name)
    run("release", "publish", draft).refused(1, "not-an-approver")


def test_approving_needs_no_server_if_the_epoch_is_known(
    run: Terminal, draft: Path, tmp_path: Path, served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alone").mkdir()
    alone = bare(tmp_path / "alone", served)
    (alone / "publisher").symlink_to(served / "publisher")
    offline = Terminal(alone, capsys)
    said = offline("release", "approve", draft, "--as", "alice", "--epoch", "1", patience=0)
    assert said.code == 0
    offline("release", "approve", draft, "--as", "bob", patience=0).refused(1, "no-server")


def test_a_changed_payload_is_neither_approved_nor_published(run: Terminal, draft: Path) -> None:
    run("release", "approve", draft, "--as", "alice")
    payload = draft.with_suffix(".bin")
    payload.write_bytes(payload.read_bytes()[:-1] + b"\0")
    run("release", "approve", draft, "--as", "bob").refused(1, "payload-digest")
    run("release", "publish", draft).refused(1, "payload-digest")


def test_a_release_of_another_ledger_is_not_published(run: Terminal, draft: Path) -> None:
    run("release", "approve", draft, "--as", "alice")
    beside = draft.with_suffix(".json")
    text = json.loads(beside.read_text()) | {"chain_id": 1}
    beside.write_text(json.dumps(text))
    run("release", "publish", draft).refused(2, "another-ledger")


def test_a_version_that_does_not_rise_is_the_ledgers_to_refuse(
    run: Terminal, published: str, firmware: Path, tmp_path: Path
) -> None:
    words = ("--version", published, "--security-counter", "1", "--rollout", "100%@0h")
    built = ("--product", "thermostat", *words, "-o", tmp_path / "again")
    assert run("release", "build", firmware, *built).code == 0
    for name in ("alice", "bob"):
        run("release", "approve", tmp_path / "again.suit", "--as", name)
    run("release", "publish", tmp_path / "again.suit").refused(1, "version-not-rising")


def test_the_builder_warns_of_a_canary_that_may_be_nobody(
    run: Terminal, firmware: Path, tmp_path: Path
) -> None:
    words = ("--version", "9.0.0", "--security-counter", "1", "--rollout", "1%@0h,100%@24h")
    out = ("-o", tmp_path / "w")
    said = run("release", "build", firmware, "--product", "thermostat", *words, *out)
    assert said.code == 0
    assert any("canary" in warning for warning in said.document["warnings"])
    assert "warning: " in said.err


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--version", "1"), 2, "version-syntax"),
        (("--rollout", "all"), 2, "bad-rollout"),
        (("--expiry", "tomorrow"), 2, "bad-time"),
        (("--expiry", "2027-01-31T22:00:00"), 2, "bad-time"),
        (("--product", "kettle"), 2, "no-such-product"),
    ],
)
def test_a_release_that_cannot_be_built_leaves_nothing(
    run: Terminal,
    firmware: Path,
    tmp_path: Path,
    words: tuple[str, str],
    code: int,
    reason: str,
) -> None:
    plain = {
        "--product": "thermostat",
        "--version": "9.9.9",
        "--security-counter": "1",
        "--rollout": "100%@0h",
    } | {words[0]: words[1]}
    given = [part for pair in plain.items() for part in pair]
    run("release", "build", firmware, *given, "-o", tmp_path / "r").refused(code, reason)
    assert not list(tmp_path.glob("r.*"))


def test_conditions_reach_the_terms(run: Terminal, firmware: Path, tmp_path: Path) -> None:
    words = (
        *("--product", "thermostat", "--version", "9.1.0", "--security-counter", "4"),
        *("--rollout", "100%@0h", "--hardware", "2", "--min-version", "1.2.0", "--critical"),
        *("--not-before", "2027-01-31T22:00:00+01:00", "--expiry", "1900000000"),
        *("--require-attestation", "0", "--require-attestation", "3", "-o", tmp_path / "c"),
    )
    terms = run("release", "build", firmware, *words).document["terms"]
    assert (terms["hardware_min"], terms["hardware_max"]) == (2, 2)
    assert terms["not_before"] == "1801429200"
    assert (terms["expiry"], terms["critical"]) == ("1900000000", True)
    assert terms["required_attestations"] == 0b1001
    assert terms["min_version"] == str(1 << 48 | 2 << 32)


def test_an_auditor_attests_once_per_kind(run: Terminal, firmware: Path, tmp_path: Path) -> None:
    people = ("--approvers", "alice", "--auditors", "ada", "--hardware", "1", "--threshold", "1")
    run("product", "create", "pump", *people)
    words = ("--version", "1.0.0", "--security-counter", "1", "--rollout", "100%@0h")
    needs = ("--require-attestation", "2", "-o", tmp_path / "r")
    run("release", "build", firmware, "--product", "pump", *words, *needs)
    run("release", "approve", tmp_path / "r.suit", "--as", "alice")
    assert run("release", "publish", tmp_path / "r.suit").document["attested"] == 0
    attest = ("release", "attest", "pump", "1.0.0", "--kind", "2", "--evidence", firmware, "--as")
    run(*attest, "alice").refused(1, "not-authorized")
    assert run(*attest, "ada").document["attested"] == 0b100
    run(*attest, "ada").refused(1, "already-attested")
    (tmp_path / "gone").mkdir()
    run(*attest[:-3], "--evidence", tmp_path / "gone", "--as", "ada").refused(1, "file-unreadable")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """A chain elsewhere whose node lets everyone deploy, unlike a registry's /rpc; its address."""
    EmbeddedLedger.create(tmp_path / "chain", clock=SystemClock())
    with EmbeddedLedger.open(tmp_path / "chain", clock=SystemClock()) as ledger:

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                said = json.dumps(ledger.handle(json.loads(asked))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            ledger.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()


def test_a_registry_can_follow_a_ledger_elsewhere(
    run: Terminal, node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second registry, by JSON-RPC, on a chain that is not its own."""
    rpc = node
    shutil.copy(tmp_path / "chain" / "keys" / "fee.json", tmp_path / "fee.json")
    away = Terminal(tmp_path / "away", capsys)
    assert away("init", tmp_path / "away").code == 0
    # A test vector's way to funds: the account that the chain was made with.
    shutil.copy(tmp_path / "fee.json", tmp_path / "away" / "keys" / "fee.json")
    deployed = away("ledger", "deploy", "--rpc", rpc)
    assert deployed.code == 0
    assert deployed.document["contract"] != run("ledger", "status").document["contract"]
    with Server(Registry.open(tmp_path / "away", clock=SystemClock()), host="127.0.0.1", port=0):
        status = away("ledger", "status").document
        assert not status["embedded"] and status["contract"] == deployed.document["contract"]
        words = ("--approvers", "alice", "--hardware", "1", "--threshold", "1")
        assert away("product", "create", "lamp", *words).code == 0
    away("ledger", "deploy", "--rpc", rpc).refused(2, "another-ledger")


def test_no_node_to_deploy_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    away = Terminal(tmp_path / "away", capsys)
    assert away("init", tmp_path / "away").code == 0
    away("ledger", "deploy", "--rpc", "http://127.0.0.1:1").refused(1, "rpc-unreachable")


def test_a_full_disk_leaves_no_half_build(served: Path, firmware: Path, tmp_path: Path) -> None:
    """The process may write no file beyond 20 kB, as if the disk were full by then."""
    words = ["--version", "8.0.0", "--security-counter", "1", "--rollout", "100%@0h", "--json"]
    build = ["release", "build", str(firmware), "--product", "thermostat", *words]
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from registry.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-C", served, *build, "-o", tmp_path / "full"],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["reason"] == "file-unwritable"
    assert not list(tmp_path.glob("full*"))


def test_prose_is_for_people_and_says_the_same(run: Terminal, published: str) -> None:
    for words in (
        ("product", "list"),
        ("product", "show", "thermostat"),
        ("product", "keys", "thermostat"),
        ("release", "list", "thermostat"),
        ("release", "show", "thermostat", published),
        ("ledger", "status"),
    ):
        said = run.plain(*words)
        assert said.code == 0
        assert said.out and not said.out.lstrip().startswith("{")


# -- sticks --------------------------------------------------------------------------------------


@pytest.fixture
def stick(run: Terminal, published: str, tmp_path: Path) -> Path:
    assert run("product", "trust", "thermostat", "-o", tmp_path / "trust.json").code == 0
    assert run("bundle", "export", "thermostat", published, "-o", tmp_path / "s.flb").code == 0
    return tmp_path / "s.flb"


def test_a_stick_proves_itself_refreshed_as_well(run: Terminal, stick: Path) -> None:
    trust = ("--trust", stick.with_name("trust.json"))
    first = run("bundle", "verify", stick, *trust)
    assert first.code == 0
    taken = [step["step"] for step in first.document["steps"]]
    proof, release = [str(n) for n in range(1, 11)], [str(n) for n in range(11, 16)]
    assert taken == ["T1", "T4", *proof, "T5", "T6", "T8", *release, "payload"]
    version = first.document["release"]["version"]
    run("release", "halt", "thermostat", version, "--as", "alice", "--reason", "smoke")
    assert run("bundle", "verify", stick, *trust).document["release"]["status"] == "active"
    assert run("bundle", "refresh", stick).code == 0
    then = run("bundle", "verify", stick, *trust).document
    assert then["ok"] and then["release"]["status"] == "halted"
    assert then["proof"]["height"] > first.document["proof"]["height"]


def test_a_stick_below_the_trusted_height_is_refused_until_refreshed(
    run: Terminal, stick: Path, tmp_path: Path
) -> None:
    later, trust = tmp_path / "later.json", tmp_path / "trust.json"
    version = run("bundle", "verify", stick, "--trust", trust).document["release"]["version"]
    run("release", "halt", "thermostat", version, "--as", "carol", "--reason", "the ledger moves")
    assert run("product", "trust", "thermostat", "-o", later).code == 0
    refused = run("bundle", "verify", stick, "--trust", later)
    assert refused.code == 1
    assert refused.document["steps"][-1] == {
        "step": "T5",
        "name": "the block is not below the trust file's height",
        "ok": False,
    }
    assert "bundle refresh" in refused.document["error"]["fix"]
    run("bundle", "refresh", stick)
    assert run("bundle", "verify", stick, "--trust", later).code == 0


def test_a_stick_with_a_link_that_leads_nowhere_is_refused(
    run: Terminal, stick: Path, tmp_path: Path
) -> None:
    bundle, file = sticks.open_stick(stick)
    with file:
        payload = file.read()
    for link, step in ((bundle.fresh.proof.header, "T1"), (b"\x80", "T4"), (b"", "T4")):
        links = (link,) * (17 if step == "T1" else 1)  # sixteen are the limit
        forged = replace(bundle, fresh=replace(bundle.fresh, links=links)).encode()
        sticks.write(stick, forged, [payload])
        said = run("bundle", "verify", stick, "--trust", tmp_path / "trust.json")
        assert said.code == 1
        assert said.document["steps"][-1]["step"] == step


def test_a_stick_cut_short_or_grown_is_refused(run: Terminal, stick: Path) -> None:
    trust = ("--trust", stick.with_name("trust.json"))
    data = stick.read_bytes()
    for changed in (b"", data[:11], data[:12], data[:500], data[:-1], data + b"\0"):
        stick.write_bytes(changed)
        said = run("bundle", "verify", stick, *trust)
        assert said.code == 1
        assert said.document["steps"][-1]["ok"] is False
    stick.unlink()
    run("bundle", "verify", stick, *trust).refused(2, "no-such-file")


def test_a_damaged_stick_is_not_refreshed(run: Terminal, stick: Path) -> None:
    """A new proof does not make a payload whole: the file stays as it is, and is refused."""
    data = stick.read_bytes()
    for changed, reason in (
        (data[:-1], "payload-size"),
        (data + b"\0", "payload-size"),
        (data[:-1] + bytes([data[-1] ^ 1]), "payload-digest"),
    ):
        stick.write_bytes(changed)
        run("bundle", "refresh", stick).refused(1, reason)
        assert stick.read_bytes() == changed
    stick.write_bytes(data)
    assert run("bundle", "refresh", stick).code == 0


def test_a_stick_of_another_product_or_ledger_is_refused(
    run: Terminal, stick: Path, tmp_path: Path
) -> None:
    words = ("product", "create", "heater", "--hardware", "1", "--approvers", "alice")
    run(*words, "--threshold", "1")
    run("product", "trust", "heater", "-o", tmp_path / "other.json")
    said = run("bundle", "verify", stick, "--trust", tmp_path / "other.json")
    assert said.code == 1 and not said.document["ok"]
    assert said.document["error"]["reason"] == "wrong-product"
    (tmp_path / "other.json").write_text("{}")
    run("bundle", "verify", stick, "--trust", tmp_path / "other.json").refused(1, "bad-trust-file")


def test_a_stick_of_another_product_is_neither_exported_nor_refreshed(
    run: Terminal, stick: Path, tmp_path: Path
) -> None:
    trust = tmp_path / "trust.json"
    document = json.loads(trust.read_text())
    version = run("bundle", "verify", stick, "--trust", trust).document["release"]["version"]
    assert run("bundle", "refresh", stick, "--trust", trust).code == 0
    document["product"]["id"] = "0x" + "44" * 32
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    before = stick.read_bytes()
    run("bundle", "refresh", stick, "--trust", other).refused(1, "wrong-product")
    assert stick.read_bytes() == before
    out = tmp_path / "out.flb"
    export = ("bundle", "export", "thermostat", version, "-o", out, "--trust")
    run(*export, other).refused(1, "wrong-product")
    assert not out.exists()
    assert run(*export, trust).code == 0
    run("bundle", "refresh", stick, "--trust", tmp_path / "none").refused(2, "no-such-file")


def test_a_draft_that_nests_without_end_is_refused(run: Terminal, draft: Path) -> None:
    draft.with_suffix(".json").write_text('{"format": ' + "[" * 30_000)
    said = run("release", "approve", draft, "--as", "alice")
    said.refused(1, "bad-draft")
    assert "nested" in said.document["error"]["why"]


def test_a_stick_is_not_refreshed_into_another_release(
    run: Terminal, stick: Path, firmware: Path, tmp_path: Path
) -> None:
    data, other = stick.read_bytes(), tmp_path / "other.flb"
    version = publish(run, built(run, firmware, tmp_path / "r2"))
    assert run("bundle", "export", "thermostat", version, "-o", other).code == 0
    bundle, file = sticks.open_stick(other)
    file.close()
    with pytest.raises(Misuse) as refusal:
        sticks.refresh(stick, bundle.encode())
    assert refusal.value.reason == "another-release"
    assert stick.read_bytes() == data


def test_verifying_loads_no_registry_machinery(stick: Path) -> None:
    heavy = "web3 eth fastapi sqlalchemy pydantic_settings uvicorn httpx2"
    program = (
        "import sys; from registry.cli import main;"
        f"code = main(['bundle', 'verify', '{stick}', '--trust', '{stick.parent}/trust.json']);"
        f"print(code, [m for m in '{heavy}'.split() if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "0 []"


# -- elsewhere, and other surroundings -----------------------------------------------------------


def test_an_audit_needs_no_registry(
    run: Terminal, stick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a node alone, by contract or trust file; and what does not fit is refused."""
    trust = stick.with_name("trust.json")
    rpc = json.loads((run.directory / "address").read_text())["url"] + "/rpc"
    contract = run("ledger", "status").document["contract"]
    afar = Terminal(tmp_path / "nothing", capsys)
    at_home = run("audit").document
    for which in (
        ("--contract", contract),
        ("--trust", trust),
        ("--trust", trust, "--from-block", "1"),
    ):
        said = afar("audit", "--rpc", rpc, *which)
        assert said.code == 0 and said.document["ok"]
        assert said.document["releases"] == at_home["releases"] > 0
    late = afar("audit", "--rpc", rpc, "--trust", trust, "--from-block", str(at_home["head"]))
    assert late.code == 1 and not late.document["ok"]
    nowhere = ("--rpc", rpc, "--contract", "0x" + "11" * 20)
    afar("audit", *nowhere).refused(2, "no-contract")
    forged = tmp_path / "forged.json"
    forged.write_bytes(
        replace(
            TrustFile.parse(trust.read_bytes()),
            validators=tuple(Address(bytes([n]) * 20) for n in range(1, 5)),
        ).to_bytes()
    )
    unsealed = afar("audit", "--rpc", rpc, "--trust", forged)
    assert "not-sealed" in [problem["reason"] for problem in unsealed.document["problems"]]
    afar("audit", "--trust", trust).refused(2, "usage")
    afar("audit", "--rpc", rpc, "--trust", tmp_path / "none").refused(2, "no-such-file")
    status = afar("ledger", "status", "--rpc", rpc, "--contract", contract).document
    assert status["code_known"] and status["head"]["number"] >= at_home["head"]
    afar("ledger", "status", *nowhere).refused(2, "no-contract")


def test_no_proxy_is_asked_for_this_machine(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert run("product", "show", "thermostat", patience=0).code == 0


def test_a_stopped_command_says_so(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("registry.client.find", stop)
    said = run("product", "show", "thermostat").refused(1, "stopped")
    assert "nothing is published twice" in said.err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    declared = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"firmledger {declared}\n"


def test_firmware_that_is_not_there_is_wrong_usage(run: Terminal, tmp_path: Path) -> None:
    words = ("--product", "thermostat", "--version", "9.9.9", "--security-counter", "1")
    more = ("--rollout", "100%@0h", "-o", tmp_path / "r")
    run("release", "build", tmp_path / "none.bin", *words, *more).refused(2, "no-such-file")
