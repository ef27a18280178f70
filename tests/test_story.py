"""The whole flow once, in order, and beside it a world that lies.

Read it from the top: every test names the chapter that it is about, and the next goes on where it
ended. Publisher, ledger, registry and devices are the real ones, on a simulated clock, over HTTP on
this machine. `firmledger demo` tells the same story from the same chapters (`demo.story`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import attack
from demo.fleet import Result
from demo.promises import REFUSED_BECAUSE, differences
from demo.report import document
from demo.stage import Stage
from demo.story import BAD, CURE, FIRST, GOOD, Story
from demo.view import PlainLog
from device_client.core.slots import Standing
from device_client.home import open_device
from protocol.errors import LedgerRefused
from protocol.ledger import Status
from protocol.records import Phase
from registry.ports import Call

pytestmark = pytest.mark.xdist_group("story")

ROOT = Path(__file__).resolve().parent.parent
DEVICES = 8
CHAPTERS = (
    "found_product",
    "first_release",
    "good_release",
    "bad_release",
    "hostile_registry",
    "cure",
    "audit",
)
FIRMWARE = bytes(range(256)) * 1024
OPENSBI = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
UBOOT = "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"


class Telling:
    """A story that is told as far as a test needs it, and no chapter twice."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._told: dict[str, Any] = {}

    def until(self, chapter: str) -> Any:
        """What came of ``chapter``, after all those before it."""
        for name in CHAPTERS[: CHAPTERS.index(chapter) + 1]:
            if name not in self._told:
                self._told[name] = getattr(self.story, name)()
        return self._told[chapter]


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telling]:
    """A stage with a ledger, a registry that serves, a publisher, and devices yet to be made."""
    log = PlainLog(sys.stdout)
    with Stage(tmp_path_factory.mktemp("story"), log.show) as stage:
        yield Telling(Story(stage, FIRMWARE, DEVICES, log))


@pytest.fixture
def story(telling: Telling) -> Story:
    """The story, for what can be seen of it by now."""
    return telling.story


def outcomes(results: list[Result]) -> Counter[tuple[str, str]]:
    return Counter((result.outcome, result.reason) for result in results)


# -- the story -----------------------------------------------------------------------------------


def test_a_product_is_agreed_by_two_of_three(telling: Telling, story: Story) -> None:
    telling.until("found_product")
    product = story.stage.registry.catalogue.product(story.stage.publisher.product)
    governance = product.record.governance
    assert (len(governance.approvers), governance.threshold) == (3, 2)
    assert product.fleet is not None and product.fleet.size == DEVICES
    assert all(unit.version == "factory" for unit in story.units)


def test_every_device_installs_the_first_release_and_confirms_it(
    telling: Telling, story: Story
) -> None:
    results = telling.until("first_release")
    assert outcomes(results) == {("confirmed", ""): DEVICES}
    assert {(unit.version, unit.slot) for unit in story.units} == {(FIRST, "b")}
    word = story.release(FIRST).word
    assert (word.confirmed, word.failed, word.log_size) == (DEVICES, 0, DEVICES)


def test_what_boots_is_what_the_publisher_built(telling: Telling, story: Story) -> None:
    telling.until("first_release")
    built = (story.stage.publisher.releases / f"{FIRST}.img").read_bytes()
    for unit in story.units:
        assert (unit.root / "slots/b.img").read_bytes() == built
    payload = story.stage.registry.artifacts.of(story.release(FIRST).terms_hash)
    assert payload is not None
    stored = story.stage.registry.blobs.path(payload.payload).read_bytes()
    assert FIRMWARE[:4096] not in stored  # the registry never has the firmware in clear


def test_a_good_release_goes_to_canaries_first(telling: Telling, story: Story) -> None:
    at_once, after_a_day, after_the_receipts = telling.until("good_release")
    canaries = len(story.canaries[GOOD])
    assert canaries == 2
    # Canaries install; for everybody else it is not time yet.
    assert outcomes(at_once) == {
        ("confirmed", ""): canaries,
        ("waiting", "cohort-waits"): DEVICES - canaries,
    }
    assert {result.unit.name for result in at_once if result.outcome == "confirmed"} == {
        unit.name for unit in story.canaries[GOOD]
    }
    # Time alone opens nothing: the ledger has heard of no success.
    assert outcomes(after_a_day) == {("waiting", "cohort-waits"): DEVICES - canaries}
    # The canaries' signed receipts, anchored on the ledger, open the gate.
    assert outcomes(after_the_receipts) == {("confirmed", ""): DEVICES - canaries}
    assert {(unit.version, unit.slot) for unit in story.units} == {(GOOD, "a")}


def test_the_ledger_halts_a_bad_release_by_itself(telling: Telling, story: Story) -> None:
    at_once, after_the_halt = telling.until("bad_release")
    canaries = len(story.canaries[BAD])
    # Signed, approved, valid: canaries install it, it fails its self-test, and they go back.
    assert outcomes(at_once) == {
        ("rolled-back", "health-check"): canaries,
        ("waiting", "cohort-waits"): DEVICES - canaries,
    }
    assert {unit.version for unit in story.units} == {GOOD}
    # Their receipts are on the ledger; nobody but the contract decided what follows.
    release = story.release(BAD)
    assert release.word.status == Status.HALTED
    assert (release.word.confirmed, release.word.failed) == (0, canaries)
    (halt,) = story.stage.registry.catalogue.events(
        story.stage.publisher.product, names=("ReleaseHalted",), limit=10
    )
    assert halt.args["by"] == str(story.stage.registry.chain.ledger.contract)
    # A day later, when everybody's turn would have come, nobody installs it.
    assert outcomes(after_the_halt) == {("refused", "halted"): DEVICES}


def test_a_device_that_went_back_keeps_the_good_image_whole(telling: Telling, story: Story) -> None:
    telling.until("bad_release")
    good = (story.stage.publisher.releases / f"{GOOD}.img").read_bytes()
    for unit in story.canaries[BAD]:
        assert (unit.root / "slots/a.img").read_bytes() == good
        with open_device(unit.root, clock=story.stage.clock) as device:
            record = device.agent.parts.boot.record()
            assert (record.primary, record.running, record.trial) == ("a", "a", None)
            assert record.b.standing is Standing.BAD


# -- the world that lies ---------------------------------------------------------------------------


def test_every_lie_of_a_registry_is_refused_with_its_reason(telling: Telling, story: Story) -> None:
    refusals = telling.until("hostile_registry")
    assert {refusal.what: refusal.reason for refusal in refusals} == REFUSED_BECAUSE


def test_lies_change_nothing_that_boots(telling: Telling, story: Story) -> None:
    telling.until("hostile_registry")
    good = (story.stage.publisher.releases / f"{GOOD}.img").read_bytes()
    for unit in story.units:
        assert (unit.version, unit.slot, unit.state) == (GOOD, "a", "idle")
        assert (unit.root / "slots/a.img").read_bytes() == good


def test_lies_are_told_of_by_signed_receipts(telling: Telling, story: Story) -> None:
    telling.until("hostile_registry")
    queued = sum(unit.queued for unit in story.units)
    silent = {attack.OLDER}  # an older release is nothing to report: it is on the ledger
    told = set(REFUSED_BECAUSE) - silent - {attack.SHORT, attack.OUTDATED}
    assert queued == len(told)


def test_the_ledger_has_nothing_of_what_was_not_approved(telling: Telling, story: Story) -> None:
    telling.until("hostile_registry")
    product = story.stage.publisher.product
    versions = [str(r.version) for r in story.stage.registry.catalogue.releases(product)]
    assert versions == [FIRST, GOOD, BAD, CURE]


def test_one_more_approval_is_all_that_was_missing(telling: Telling, story: Story) -> None:
    """The twin of the refusal: asked with two approvals, the contract takes the same terms."""
    telling.until("hostile_registry")
    publisher, registry = story.stage.publisher, story.stage.registry
    draft = publisher.build("6.6.7", FIRMWARE, (Phase(10_000, 0),))
    record = registry.catalogue.product(publisher.product).record

    def gas(*names: str) -> int:
        agreed = publisher.approve(draft, names, story.stage.clock.now()).agreed
        assert agreed is not None
        call = Call("publish", (record, draft.terms, agreed.approvals))
        return registry.chain.estimate(registry.sender, call)  # asked, and not sent

    with pytest.raises(LedgerRefused) as refused:
        gas("carol")
    assert refused.value.data["error"] == "TooFewApprovals"
    assert gas("alice", "carol") > 0


# -- and its end -----------------------------------------------------------------------------------


def test_the_fleet_gets_the_cure_when_the_registry_is_ours_again(
    telling: Telling, story: Story
) -> None:
    assert outcomes(telling.until("cure")) == {("confirmed", ""): DEVICES}
    assert {(unit.version, unit.slot) for unit in story.units} == {(CURE, "b")}
    assert all(unit.queued == 0 for unit in story.units)


def test_the_audit_finds_all_of_it_on_the_chain_alone(telling: Telling, story: Story) -> None:
    report = telling.until("audit")
    assert report.ok, report.problems
    assert report.releases == 4
    told = document(story, report)
    assert differences(told, DEVICES) == []
    assert told["receipts"]["count"] == report.receipts


# -- the same in one command -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entry points of pyproject.toml as an installation has them, for a subprocess's path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = tmp_path_factory.mktemp("path")
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"]
    (info / "METADATA").write_text(lines[0], encoding="utf-8")
    groups = project["entry-points"].items()
    text = "".join(
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
        for group, points in groups
    )
    (info / "entry_points.txt").write_text(text, encoding="utf-8")
    return folder


def demo(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "registry.cli", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PYTHONPATH": f"{installed}:{ROOT}", "PATH": "/usr/bin:/bin"},
    )


KEYS = {
    "releases": {"version", "status", "image_digest", "manifest_digest", "tx", "gas"},
    "devices": {"id", "version", "slot", "state", "outcome"},
    "refusals": {"device", "reason"},
    "proof": {"bytes", "verify_ms", "seals", "validators"},
    "receipts": {"count", "batches", "gas_per_batch"},
    "audit": {"ok", "events", "releases", "receipts", "problems"},
}


def check_document(told: dict[str, Any], devices: int) -> None:
    """Everything that design section 7 and the story itself promise."""
    assert told["differences"] == differences(told, devices) == []
    for name, keys in KEYS.items():
        for row in told[name] if isinstance(told[name], list) else [told[name]]:
            assert keys <= row.keys()
    assert told["product"] and told["contract"] and told["chain_id"]
    assert len({refusal["reason"] for refusal in told["refusals"]}) >= 5


@pytest.mark.parametrize(
    "firmware",
    [
        pytest.param(UBOOT, marks=pytest.mark.debian("u-boot-qemu", UBOOT), id="u-boot"),
        pytest.param(OPENSBI, marks=pytest.mark.debian("opensbi", OPENSBI), id="opensbi"),
    ],
)
def test_the_demo_tells_it_of_real_firmware(installed: Path, firmware: str) -> None:
    done = demo(installed, "--devices", "3", "--firmware", firmware, "--json")
    assert done.returncode == 0, done.stderr
    check_document(json.loads(done.stdout), 3)
    assert "THE CONTRACT HALTS" in done.stderr
