"""Changing who may do what, by the command line: proposed, signed in several places, cancelled,
in effect by time alone, and what is refused on the way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from protocol.bundle import MAX_BUNDLE_BYTES, Bundle, offer, prove
from protocol.errors import LedgerRefused, Malformed, Misuse
from protocol.records import ACTIVE_KEY
from protocol.trustfile import TrustFile
from registry import cli
from registry.app import Server
from registry.assembly import Registry
from registry.client import Service, find
from registry.keys import Keyring
from registry.operators import read_token
from tests.registry.entropy import Stream
from tests.registry.place import Unit
from tests.registry.terminal import Said, Terminal

HOUR = 3600


class Ahead:
    """The system's clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return int(time.time()) + self.ahead


@dataclass
class Office:
    """A running registry, with a product of its own for each test."""

    directory: Path
    clock: Ahead
    numbers: Iterator[int] = field(default_factory=lambda: count(1))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder, clock = tmp_path_factory.mktemp("governance") / "reg", Ahead()
    assert cli.main(["init", str(folder), "--anchor-every", "1s", "--max-age", "2h"]) == 0
    with Server(Registry.open(folder, clock=clock), host="127.0.0.1", port=0):
        yield Office(folder, clock)


@pytest.fixture
def run(office: Office, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(office.directory, capsys)


@dataclass
class Product:
    """A product, 2 of alice, bob and carol, on whose governance nobody has worked yet."""

    office: Office
    run: Terminal
    name: str
    work: Path
    built: int = 0

    def propose(self, *words: str | Path) -> Said:
        return self.run("product", "propose", self.name, *words)

    def show(self) -> Any:
        return self.run("product", "show", self.name).document

    @property
    def rules(self) -> Any:
        return self.show()["record"]["governance"]

    @property
    def keyring(self) -> Keyring:
        return Keyring(self.office.directory / "publisher")

    def account(self, name: str) -> str:
        return str(self.keyring.account(name).address)

    def pass_time(self, seconds: int) -> None:
        """Until the ledger has a block of that time."""
        self.office.clock.ahead += seconds
        due = self.office.clock.now()
        while self.run("ledger", "status").document["head"]["timestamp"] < due:
            time.sleep(0.1)

    def build(self, *words: str) -> Said:
        self.built += 1
        firmware = self.work / f"fw{self.built}"
        firmware.write_bytes(Stream(f"{self.name} {self.built}".encode())(5_000))
        plain = ("--product", self.name, "--version", f"{self.built}.0.0")
        rest = (
            "--security-counter",
            "1",
            "--rollout",
            "100%@0h",
            "-o",
            self.work / f"r{self.built}",
        )
        return self.run("release", "build", firmware, *plain, *rest, *words)

    def publish(self, *names: str) -> Said:
        """What was built last, approved by these."""
        envelope = self.work / f"r{self.built}.suit"
        for name in names:
            assert self.run("release", "approve", envelope, "--as", name).code == 0
        return self.run("release", "publish", envelope)

    def trust(self) -> TrustFile:
        path = self.work / "trust.json"
        assert self.run("product", "trust", self.name, "-o", path).code == 0
        return TrustFile.parse(path.read_bytes())

    def polled(self) -> tuple[Any, Any]:
        """What a new device is shown and offered, once proved."""
        trust, asks = self.trust(), f"device={Unit('poll').id.hex()}&version=0&counter=0&hardware=2"
        with Service(find(self.office.directory, 5, lambda _text: None)) as service:
            path = f"/v1/products/{trust.product_id}/bundle?{asks}&height={trust.min_height}"
            bundle = Bundle.decode(service.get_bytes(path, MAX_BUNDLE_BYTES))
        view = prove(bundle.fresh, trust.anchor)
        return view, offer(bundle.static, view) if bundle.static else None


@pytest.fixture
def product(office: Office, run: Terminal, tmp_path: Path) -> Product:
    return make(office, run, tmp_path)


def make(office: Office, run: Terminal, work: Path, *words: str) -> Product:
    name = f"lamp{next(office.numbers)}"
    people = ("--approvers", "alice,bob,carol", "--threshold", "2", "--hardware", "1-3")
    said = run("product", "create", name, *people, "--governance-delay", "1h", *words)
    assert said.code == 0
    return Product(office, run, name, work)


BOTH = ("--as", "alice", "--as", "bob")


# -- waiting, and in effect ----------------------------------------------------------------------


def test_a_change_is_shown_before_anybody_signs(product: Product) -> None:
    before = product.show()["record"]
    said = product.propose("--add-auditor", "ada", "--threshold", "3")
    assert said.code == 0
    assert said.document["state"] == "shown"
    assert [change["loosens"] for change in said.document["changes"]] == [False, True]
    assert said.document["waits"] == HOUR
    assert product.show()["record"] == before


def test_loosening_waits_and_takes_effect_by_time_alone(product: Product) -> None:
    assert product.build().code == 0
    assert product.publish("alice", "bob").code == 0
    said = product.propose("--add-approver", "dave", *BOTH)
    assert said.code == 0 and said.document["state"] == "submitted"
    effective = said.document["effective_at"]
    assert effective >= product.office.clock.now() + HOUR - 60
    waiting = product.show()
    assert product.account("dave") in waiting["pending"]["approvers"]
    assert product.account("dave") not in waiting["record"]["governance"]["approvers"]
    shown = product.run.plain("product", "show", product.name).out
    assert "dave becomes an approver" in shown
    assert "may be cancelled by alice, bob, carol" in shown

    product.build()
    assert product.publish("alice", "dave").code == 1  # dave is nobody yet
    product.pass_time(HOUR)

    found = product.show()
    assert found["pending"] is None
    assert product.account("dave") in found["record"]["governance"]["approvers"]
    product.build()
    assert product.publish("alice", "dave").code == 0
    view, offered = product.polled()
    assert view.product.governance.epoch == 2
    assert offered is not None and offered.terms.version >> 48 == 3
    said = product.propose("--remove-approver", "dave", *BOTH)  # what follows starts from it
    assert said.document["state"] == "submitted" and said.document["effective_at"] == 0
    assert product.rules["epoch"] == 3
    assert product.run("audit").document["ok"]


def test_devices_are_shown_the_governance_in_effect_as_soon_as_it_is(product: Product) -> None:
    """Within max-age/10 of the last answer too: nothing but time has passed on the ledger."""
    product.build()
    product.publish("alice", "bob")
    assert product.propose("--threshold", "1", *BOTH).code == 0
    assert product.polled()[0].product.governance.threshold == 2
    product.office.clock.ahead += HOUR - 5
    product.polled()
    product.pass_time(6)
    assert product.polled()[0].product.governance.threshold == 1


def test_tightening_is_immediate_and_drops_what_waits(product: Product) -> None:
    assert product.propose("--add-approver", "dave", *BOTH).document["effective_at"] > 0
    said = product.propose("--threshold", "3", *BOTH)
    assert said.code == 0 and said.document["effective_at"] == 0
    assert "drops the change that waits" in said.err
    found = product.show()
    assert found["pending"] is None
    assert found["record"]["governance"]["threshold"] == 3


def test_another_loosening_is_refused_while_one_waits(product: Product) -> None:
    assert product.propose("--add-approver", "dave", *BOTH).code == 0
    product.propose("--add-auditor", "ada", *BOTH).refused(1, "change-pending")


# -- cancelling ----------------------------------------------------------------------------------


def test_one_watcher_cancels_and_the_signatures_are_void(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "change.json"
    product.propose("--add-approver", "dave", *BOTH, "-o", file)
    assert product.propose("--change", file).document["state"] == "submitted"
    said = product.run("product", "cancel", product.name, "--as", "carol")
    assert said.code == 0 and said.document["pending"] is None
    assert said.document["record"]["governance"]["epoch"] == 2
    product.propose("--change", file).refused(1, "stale-change")
    again = product.run("product", "cancel", product.name, "--as", "carol")
    again.refused(1, "nothing-pending")
    product.pass_time(HOUR)
    assert product.account("dave") not in product.rules["approvers"]


def test_a_stranger_cancels_nothing(product: Product) -> None:
    product.keyring.ensure_account("mallory", Stream(b"mallory"))
    assert product.propose("--add-approver", "dave", *BOTH).code == 0
    said = product.run("product", "cancel", product.name, "--as", "mallory")
    said.refused(1, "not-authorized")
    assert product.show()["pending"] is not None


def test_a_guardian_cannot_cancel_its_own_removal(
    office: Office, run: Terminal, tmp_path: Path
) -> None:
    product = make(office, run, tmp_path, "--guardians", "gus,gina")
    assert product.propose("--remove-guardian", "gus", *BOTH).document["effective_at"] > 0
    run("product", "cancel", product.name, "--as", "gus").refused(1, "own-removal")
    assert run("product", "cancel", product.name, "--as", "gina").code == 0
    assert product.account("gus") in product.rules["guardians"]


# -- many places ---------------------------------------------------------------------------------


def test_people_sign_one_after_the_other_in_a_file(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "change.json"
    said = product.propose("--add-auditor", "ada", "--as", "alice", "-o", file)
    assert said.document["state"] == "written" and said.document["signed_by"] == [
        product.account("alice")
    ]
    assert product.rules["auditors"] == []
    product.propose("--change", file, "--as", "alice").refused(2, "already-approved")
    said = product.propose("--change", file, "--as", "bob", "--offline")
    assert said.document["state"] == "written" and "no registry was asked" in said.err
    assert product.show()["pending"] is None
    said = product.propose("--change", file)
    assert said.document["state"] == "submitted"
    assert product.show()["pending"]["auditors"] == [product.account("ada")]


def test_a_change_is_signed_offline_without_any_registry(
    product: Product, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, away = tmp_path / "change.json", tmp_path / "away"
    assert product.propose("--add-auditor", "ada", "-o", file).code == 0
    approvers = away / "publisher" / "approvers"
    approvers.mkdir(parents=True)
    key = product.office.directory / "publisher" / "approvers" / "alice.json"
    (approvers / "alice.json").write_bytes(key.read_bytes())
    (approvers / "alice.json").chmod(0o600)
    words = ("product", "propose", product.name, "--change", file, "--as", "alice")
    elsewhere = Terminal(away, capsys)
    assert elsewhere(*words, patience=0).code != 0
    assert elsewhere(*words, "--offline", patience=0).code == 0
    assert product.propose("--change", file, "--as", "bob").document["state"] == "submitted"


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        (("next", "threshold"), 1, "not-an-approver"),
        (("approvals", "valid_until"), "4000000000", "not-an-approver"),
        (("current", "release_delay"), 7, "stale-change"),
        (("current", "threshold"), 1, "stale-change"),
        (("contract",), "0x" + "11" * 20, "not-an-approver"),
        (("chain_id",), 1, "not-an-approver"),
        (("product", "id"), "0x" + "22" * 32, "not-an-approver"),
        (("next", "epoch"), 3, "bad-change"),
        (("format",), "firmledger-change-2", "bad-change"),
        (("approvals", "signatures"), [], None),
    ],
)
def test_a_changed_file_is_refused(
    product: Product, tmp_path: Path, member: tuple[str, ...], value: Any, reason: str | None
) -> None:
    file = tmp_path / "change.json"
    product.propose("--add-auditor", "ada", *BOTH, "-o", file)
    text = json.loads(file.read_text())
    inside = text
    for name in member[:-1]:
        inside = inside[name]
    inside[member[-1]] = value
    file.write_text(json.dumps(text))
    said = product.propose("--change", file)
    if reason is None:  # without signatures it is a change that waits for them
        assert said.document["state"] == "written"
    else:
        said.refused(1, reason)
    assert product.show()["pending"] is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"nothing", b'{"format": 1}'])
def test_a_file_that_is_no_change_is_refused(
    product: Product, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "change.json"
    file.write_bytes(content)
    said = product.propose("--change", file)
    assert said.code == 1 and said.document["error"]["family"] == "malformed"


def test_a_change_of_another_product_is_refused(
    office: Office, run: Terminal, product: Product, tmp_path: Path
) -> None:
    other, file = make(office, run, tmp_path), tmp_path / "change.json"
    product.propose("--add-auditor", "ada", *BOTH, "-o", file)
    other.propose("--change", file).refused(2, "another-product")
    assert other.show()["pending"] is None


# -- one watcher ---------------------------------------------------------------------------------


def test_one_watcher_revokes_a_key_at_once(product: Product) -> None:
    product.build()
    product.publish("alice", "bob")
    _, offered = product.polled()
    assert offered is not None
    said = product.propose("--revoke-key", "1", "--as", "carol")
    assert said.code == 0 and said.document["state"] == "restricted"
    assert said.document["by"] == product.account("carol")
    assert product.rules["keys"][0]["valid_through"] == 0
    with pytest.raises(Exception) as refused:
        product.polled()
    assert getattr(refused.value, "reason", "") == "key-revoked"
    assert product.run("audit").document["ok"]


def test_one_watcher_steps_down_but_removes_nobody_else(product: Product) -> None:
    product.propose("--remove-approver", "bob", "--as", "carol").refused(1, "too-few-signatures")
    said = product.propose("--remove-approver", "carol", "--as", "carol")
    assert said.document["state"] == "restricted"
    assert product.account("carol") not in product.rules["approvers"]


def test_nobody_restricts_while_a_change_waits(product: Product) -> None:
    assert product.propose("--add-approver", "dave", *BOTH).code == 0
    said = product.propose("--revoke-key", "1", "--as", "carol")
    said.refused(1, "amendment-pending")
    assert product.rules["keys"][0]["valid_through"] == ACTIVE_KEY


def test_one_watcher_pauses_and_m_of_n_unpause(product: Product) -> None:
    said = product.run("product", "pause", product.name, "--as", "carol")
    assert said.code == 0 and int(said.document["record"]["head"]["paused_at"]) > 0
    assert "PAUSED" in product.run.plain("product", "show", product.name).out
    alone = product.run("product", "unpause", product.name, "--as", "carol")
    alone.refused(1, "too-few-approvals")
    assert product.run("product", "unpause", product.name, *BOTH).code == 0
    assert product.show()["record"]["head"]["paused_at"] == "0"
    assert product.run("product", "unpause", product.name, *BOTH).code == 1


# -- signing keys --------------------------------------------------------------------------------


def test_a_signing_key_is_rotated(product: Product) -> None:
    product.build()
    product.publish("alice", "bob")
    said = product.propose("--add-key", "new", *BOTH)
    assert said.document["effective_at"] > 0
    keys = product.run("product", "keys", product.name).document["signing_keys"]
    assert [key["number"] for key in keys] == [1, 2]
    product.build()  # while it waits, the old key signs
    assert product.publish("alice", "bob").code == 0
    product.pass_time(HOUR)
    assert set(product.trust().signing_keys) == {bytes.fromhex(key["id"][2:]) for key in keys}
    said = product.propose("--retire-key", "1", "--as", "carol")
    assert said.document["state"] == "restricted"
    product.build()
    assert product.publish("alice", "bob").code == 0
    _, offered = product.polled()
    assert offered is not None and str(offered.key_id) == keys[1]["id"]
    product.build("--signing-key", "1")
    said = product.publish("alice", "bob")
    assert said.code == 1 and said.document["error"]["reason"] == "key-retired"


def test_a_key_that_was_drawn_and_not_sent_is_drawn_no_second_time(product: Product) -> None:
    product.propose("--add-key", "new")
    product.propose("--add-key", "new", "--as", "alice").refused(1, "too-few-signatures")
    assert len(product.run("product", "keys", product.name).document["signing_keys"]) == 2
    assert product.propose("--add-key", "new", *BOTH).code == 0
    assert len(product.run("product", "keys", product.name).document["signing_keys"]) == 2


def test_retiring_in_a_change_that_waits_is_warned_of(product: Product) -> None:
    product.build()
    product.publish("alice", "bob")
    said = product.propose("--add-key", "new", "--retire-key", "1")
    assert "warning: a key is retired as of release 1" in said.err


# -- wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "no-change"),
        (("--threshold", "2"), "no-change"),
        (("--threshold", "4"), "bad-threshold"),
        (("--remove-approver", "alice", "--remove-approver", "bob"), "bad-threshold"),
        (("--add-approver", "alice"), "there-already"),
        (("--remove-auditor", "alice"), "not-there"),
        (("--remove-auditor", "nobody-here"), "no-such-key"),
        (("--revoke-key", "7"), "no-such-key"),
        (("--revoke-key", "0x" + "33" * 32), "not-there"),
        (("--add-key", "nonsense"), "not-hex"),
        (("--halt-after", "often"), "bad-halt-rule"),
        (("--release-delay", "soon"), "bad-duration"),
        (("--offline",), "usage"),
        (("--threshold", "3", "--as", "mallory2"), "no-such-key"),
    ],
)
def test_what_cannot_be_proposed_is_refused(
    product: Product, words: tuple[str, ...], reason: str
) -> None:
    product.propose(*words).refused(2, reason)


def test_a_change_needs_signatures_of_approvers(product: Product) -> None:
    product.keyring.ensure_account("ada", Stream(b"ada"))
    said = product.propose("--add-auditor", "ada", "--as", "alice", "--as", "ada")
    said.refused(2, "not-an-approver")
    product.propose("--add-auditor", "ada", "--as", "alice").refused(1, "too-few-signatures")
    assert product.show()["pending"] is None


def test_the_service_takes_amendments_from_operators_only(product: Product) -> None:
    with Service(find(product.office.directory, 5, lambda _text: None)) as service:
        body = {"next": product.rules, "approvals": {"valid_until": "1", "signatures": []}}
        with pytest.raises(Exception) as refused:
            service.post(f"/v1/products/{product.name}/amendments", body)
    assert getattr(refused.value, "reason", "") == "unauthorized"


def test_what_a_client_does_not_stop_the_ledger_does(product: Product, tmp_path: Path) -> None:
    """The service is not the judge: what it is sent goes to the contract, which says no."""
    file = tmp_path / "change.json"
    product.propose("--add-auditor", "ada", "--as", "alice", "-o", file)
    text = json.loads(file.read_text())
    where = f"/v1/products/{product.name}/amendments"
    url = find(product.office.directory, 5, lambda _text: None)
    with Service(url, read_token(product.office.directory)) as service:
        for spoil, reason in (
            ({}, "too-few-approvals"),
            ({"next": text["next"] | {"epoch": 7}}, "epoch-mismatch"),
            ({"next": text["next"] | {"threshold": 4}}, "invalid-governance"),
        ):
            body = {"next": text["next"], "approvals": text["approvals"]} | spoil
            queued = service.post(where, body)
            with pytest.raises(LedgerRefused) as refused:
                service.settled(queued["tx"], 60)
            assert refused.value.reason == reason
        with pytest.raises(Malformed):
            service.post(where, {"next": text["next"]})
        with pytest.raises(Misuse):
            service.post(f"/v1/products/0x{'55' * 32}/amendments", body)
    assert product.show()["pending"] is None
