"""The registry on a chain that is neither embedded nor QBFT: base fees, no seals, later forks.

Anvil comes with `make test` (npm); where it is missing these tests are skipped, and CI fails.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contracts.foundry import binary
from protocol.records import product_id
from registry.chain import Chain, deploy, node_at
from registry.intents import CreateProduct, Publish
from registry.queue import Status
from tests.registry.office import Office
from tests.registry.scene import SALT, START, Scene, SimClock, governance, person, terms
from tests.registry.story import Story

PEOPLE = ("fee", "alice", "bob", "carol", "rita", "ada", "gus")


@dataclass
class AnvilScene(Scene):
    """The scene of the other tests, on anvil; the account ``fee`` stands for the registry's."""

    rpc: str = ""

    def __post_init__(self) -> None:
        self.node = node_at(self.rpc)
        self.fee = person("fee")
        for name in PEOPLE:
            self.node.ask("anvil_setBalance", str(person(name).address), hex(10**20))
        self.contract, receipt = deploy(self.node, self.fee, timeout=20, rest=self.rest)
        self.deployed_at = receipt.block
        self.chain = Chain(self.node, self.contract)
        self.ledger = self.chain.ledger
        self.product = product_id(self.fee.address, SALT)

    def rest(self, _seconds: float = 0) -> None:
        self.clock.time += 1
        self.node.ask("evm_setNextBlockTimestamp", hex(self.clock.time))
        self.node.ask("evm_mine")

    def close(self) -> None:
        """Nothing of it is open."""


@pytest.fixture(scope="module")
def rpc() -> Iterator[str]:
    try:
        tool = binary("anvil")
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    options = ["--port", "0", "--no-mining", "--timestamp", str(START), "--hardfork", "prague"]
    process = subprocess.Popen([tool, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Listening on "):
                yield "http://" + line.removeprefix("Listening on ").strip()
                break
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def anvil(rpc: str, tmp_path: Path) -> AnvilScene:
    node = node_at(rpc)
    newest = int(node.ask("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    return AnvilScene(tmp_path, SimClock(newest), rpc)


def test_the_whole_story_is_told_indexed_and_audited(anvil: AnvilScene) -> None:
    story = Story(anvil)
    story.tell()
    report = story.audit(receipts=story.fleet)
    assert report.problems == ()
    assert (report.releases, report.recounted, report.seals) == (2, 7, 0)


def test_a_state_that_is_not_what_the_events_come_to_is_found(anvil: AnvilScene) -> None:
    """Whoever owns this chain writes into its storage; the audit reads it."""
    story = Story(anvil)
    story.tell()
    slot = sorted(_commitments(story))[0]
    anvil.node.ask("anvil_setStorageAt", str(anvil.contract), str(slot), "0x" + "77" * 32)
    anvil.rest()
    report = story.audit()
    assert [finding.reason for finding in report.problems] == ["wrong-commitment"]


def _commitments(story: Story) -> dict[Any, Any]:
    from registry.replay import Replay

    replay = Replay(story.scene.ledger)
    for event in story.scene.chain.events_between(0, story.scene.chain.head().number):
        block = story.scene.chain.block(event.block)
        assert block is not None
        replay.take(event, block.timestamp)
    return replay.commitments()


def test_the_outbox_offers_what_the_chain_asks_and_more_when_it_waits(anvil: AnvilScene) -> None:
    office = Office(
        anvil.directory, anvil.chain, anvil.fee, clock=anvil.clock, rest=anvil.rest,
        start=anvil.deployed_at, fee_cap=10**12,
    )  # fmt: skip
    fees = anvil.chain.fees()
    assert fees.tip is not None and fees.price > fees.tip
    office.do("product", CreateProduct(SALT, governance()))
    wanted = terms(anvil.product)
    row = office.outbox.submit("r1", Publish(wanted, anvil.agreed(wanted)))
    office.outbox.step()
    first = office.outbox.row(row).tx
    anvil.clock.time += 61  # nobody mines, so the fee is raised
    office.outbox.step()
    office.outbox.step()
    raised = office.outbox.row(row).tx
    assert raised != first
    done = office.outbox.wait(row, 20, rest=anvil.rest)
    assert (done.status, done.tx) == (Status.MINED, raised)
    assert office.catalogue.release(anvil.product, 1).published.tx == raised
    office.close()
