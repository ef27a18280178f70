"""The whole flow once, in order, and beside it a world that lies.

Read it from the top: every test is a chapter, and the next goes on where it ended. Publisher,
ledger, registry and devices are the real ones, on a simulated clock, over HTTP on this machine.
`firmledger demo` tells the same story from the same chapters (`demo.story`).
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
from protocol.ledger import Status
from protocol.records import Phase

pytestmark = pytest.mark.xdist_group("story")

ROOT = Path(__file__).resolve().parent.parent
DEVICES = 8
FIRMWARE = bytes(range(256)) * 1024
OPENSBI = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
UBOOT = "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A stage with a ledger, a registry that serves, a publisher, and devices yet to be made."""
    log = PlainLog(sys.stdout)
    with Stage(tmp_path_factory.mktemp("story"), log.show) as stage:
        yield Story(stage, FIRMWARE, DEVICES, log)


def outcomes(results: list[Result]) -> Counter[tuple[str, str]]:
    return Counter((result.outcome, result.reason) for result in results)


# -- the story -----------------------------------------------------------------------------------


def test_a_product_is_agreed_by_two_of_three(story: Story) -> None:
    story.found_product()
    product = story.stage.registry.catalogue.product(story.stage.publisher.product)
    governance = product.record.governance
    assert (len(governance.approvers), governance.threshold) == (3, 2)
    assert product.fleet is not None and product.fleet.size == DEVICES
    assert all(unit.version == "factory" for unit in story.units)


def test_every_device_installs_the_first_release_and_confirms_it(story: Story) -> None:
    results = story.first_release()
    assert outcomes(results) == {("confirmed", ""): DEVICES}
    assert {(unit.version, unit.slot) for unit in story.units} == {(FIRST, "b")}
    word = story.release(FIRST).word
    assert (word.confirmed, word.failed, word.log_size) == (DEVICES, 0, DEVICES)


def test_what_boots_is_what_the_publisher_built(story: Story) -> None:
    built = (story.stage.publisher.releases / f"{FIRST}.img").read_bytes()
    for unit in story.units:
        assert (unit.root / "slots/b.img").read_bytes() == built
    payload = story.stage.registry.artifacts.of(story.release(FIRST).terms_hash)
    assert payload is not None
    stored = story.stage.registry.blobs.path(payload.payload).read_bytes()
    assert FIRMWARE[:4096] not in stored  # the registry never has the firmware in clear


def test_a_good_release_goes_to_canaries_first(story: Story) -> None:
    at_once, after_a_day, after_the_receipts = story.good_release()
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


def test_the_ledger_halts_a_bad_release_by_itself(story: Story) -> None:
    at_once, after_the_halt = story.bad_release()
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


def test_a_device_that_went_back_keeps_the_good_image_whole(story: Story) -> None:
    good = (story.stage.publisher.releases / f"{GOOD}.img").read_bytes()
    for unit in story.canaries[BAD]:
        assert (unit.root / "slots/a.img").read_bytes() == good
        with open_device(unit.root, clock=story.stage.clock) as device:
            record = device.agent.parts.boot.record()
            assert (record.primary, record.running, record.trial) == ("a", "a", None)
            assert record.b.standing is Standing.BAD


# -- the world that lies ---------------------------------------------------------------------------


def test_every_lie_of_a_registry_is_refused_with_its_reason(story: Story) -> None:
    refusals = story.hostile_registry()
    assert {refusal.what: refusal.reason for refusal in refusals} == REFUSED_BECAUSE


def test_lies_change_nothing_that_boots(story: Story) -> None:
    good = (story.stage.publisher.releases / f"{GOOD}.img").read_bytes()
    for unit in story.units:
        assert (unit.version, unit.slot, unit.state) == (GOOD, "a", "idle")
        assert (unit.root / "slots/a.img").read_bytes() == good


def test_lies_are_told_of_by_signed_receipts(story: Story) -> None:
    queued = sum(unit.queued for unit in story.units)
    silent = {attack.OLDER}  # an older release is nothing to report: it is on the ledger
    told = set(REFUSED_BECAUSE) - silent - {attack.SHORT, attack.OUTDATED}
    assert queued == len(told)


def test_the_ledger_has_nothing_of_what_was_not_approved(story: Story) -> None:
    product = story.stage.publisher.product
    versions = [str(r.version) for r in story.stage.registry.catalogue.releases(product)]
    assert versions == [FIRST, GOOD, BAD, CURE]


def test_one_more_approval_is_all_that_was_missing(story: Story) -> None:
    """The tampered twin's twin: the same draft, with the second approval, would have passed."""
    publisher = story.stage.publisher
    draft = publisher.build("6.6.7", FIRMWARE, (Phase(10_000, 0),))
    draft = publisher.approve(draft, ("alice", "bob"), story.stage.clock.now())
    assert draft.agreed is not None
    assert len(draft.agreed.approvals.signatures) == 2  # and is not published: the story goes on


# -- and its end -----------------------------------------------------------------------------------


def test_the_fleet_gets_the_cure_when_the_registry_is_ours_again(story: Story) -> None:
    assert outcomes(story.cure()) == {("confirmed", ""): DEVICES}
    assert {(unit.version, unit.slot) for unit in story.units} == {(CURE, "b")}
    assert all(unit.queued == 0 for unit in story.units)


def test_the_audit_finds_all_of_it_on_the_chain_alone(story: Story) -> None:
    report = story.audit()
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
