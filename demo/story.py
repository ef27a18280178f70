"""The story, step by step: each method is one chapter, and leaves what happened to be read.

Nothing is acted: publisher, ledger, registry and devices do what they do in earnest, and a chapter
only asks them to, waits, and writes down what it saw. What *ought* to have happened is said in
`demo.promises`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from demo.attack import Attack
from demo.facts import Refusal
from demo.fleet import Result, Unit
from demo.stage import Stage
from demo.view import Teller
from protocol.ids import DeviceId, Version
from protocol.ledger import COHORTS, Status, cohort
from protocol.records import HaltRule, Phase
from registry.audit import Report, audit
from registry.catalogue import ReleaseEntry
from registry.intake import Draft

DAY = 86_400
FIRST, GOOD, BAD, CURE = "1.0.0", "1.1.0", "1.2.0", "1.2.1"
MOST_CANARIES = 10
AT_ONCE = (Phase(COHORTS, 0),)


class Story:
    """One telling. The chapters are called in their order, once each."""

    def __init__(self, stage: Stage, firmware: bytes, devices: int, tell: Teller) -> None:
        """``firmware``: what images are made of; ``devices``: how many there are."""
        self.stage, self.tell = stage, tell
        self._firmware, self._devices = firmware, devices
        self._canaries = max(1, min(MOST_CANARIES, devices // 4))
        self.refusals: list[Refusal] = []
        self.canaries: dict[str, list[Unit]] = {}
        """By version: whose turn came first."""
        self.attack = Attack(stage, firmware, tell)

    @property
    def units(self) -> list[Unit]:
        """The devices, in the order in which they were made."""
        return self.stage.fleet.units

    # -- the chapters ------------------------------------------------------------------------------

    def found_product(self) -> None:
        """A product whose releases two of three people must approve, and its fleet."""
        tell, stage = self.tell, self.stage
        tell.chapter("A product, three approvers, a fleet")
        chain = stage.registry.chain.ledger
        tell.say(f"ledger {chain.contract} on chain {chain.chain_id}; registry at {stage.url}")
        stage.publisher.create(HaltRule(min(2, self._canaries), 2_000))
        tell.say("product thermostat: two of alice, bob and carol must approve a release")
        stage.fleet.provision(self._devices, *stage.publisher.trust(stage.url))
        stage.publisher.enrol([unit.public_key for unit in self.units])
        tell.say(f"devices made their keys and are enrolled: {self._devices}")

    def first_release(self) -> list[Result]:
        """Everybody's first release."""
        self.tell.chapter(f"Release {FIRST}, for all")
        self._publish(FIRST, AT_ONCE)
        results = self.ask(self.units)
        self.deliver()
        return results

    def good_release(self) -> list[list[Result]]:
        """Canaries first; the rest when a day is over *and* the canaries' success is on the ledger.

        Returns three rounds: at once, after the day, after the receipts.
        """
        self.tell.chapter(f"Release {GOOD}: canaries first, then the fleet")
        self._publish(GOOD, self._canary_rollout(GOOD))
        rounds = [self.ask(self.units)]
        self.stage.pass_time(DAY)
        self.tell.say(
            "a day passes; the ledger has no success of a canary yet, so the gate is shut"
        )
        rounds.append(self.ask(self._others(GOOD)))
        self.deliver()
        self.tell.say("the canaries' signed receipts are anchored: the ledger opens the gate")
        rounds.append(self.ask(self._others(GOOD)))
        self.deliver()
        return rounds

    def bad_release(self) -> list[list[Result]]:
        """Signed, approved, and broken: canaries go back by themselves, and the ledger halts it.

        Returns two rounds: at once, and after the halt and a day.
        """
        self.tell.chapter(f"Release {BAD}: signed, approved, and broken")
        self._publish(BAD, self._canary_rollout(BAD), defective=True)
        rounds = [self.ask(self.units)]
        self.attack.keep_answer(self.release(BAD).release_id)
        self.tell.say(self.stage.boot.fails)
        self.deliver()
        self.stage.until(
            lambda: self.release(BAD).word.status == Status.HALTED, "the ledger halted nothing"
        )
        self.tell.say(
            "their signed receipts are anchored, and THE CONTRACT HALTS the release itself"
        )
        self.stage.pass_time(DAY)
        self.tell.say("a day passes; nobody installs it any more")
        rounds.append(self.ask(self.units))
        self.deliver()
        return rounds

    def hostile_registry(self) -> list[Refusal]:
        """A cure is out, and whoever took over the registry serves everything but that."""
        self.tell.chapter(f"Release {CURE} is out, and the registry is taken over")
        self._publish(CURE, AT_ONCE)
        refusals = self.attack.run()
        self.refusals += refusals
        return refusals

    def cure(self) -> list[Result]:
        """The registry is ours again, and the fleet gets what was held back."""
        self.tell.chapter(f"The registry is ours again: {CURE} for all")
        results = self.ask(self.units)
        self.deliver()
        return results

    def audit(self) -> Report:
        """Everything derived again from the chain."""
        self.tell.chapter("The audit, from the chain alone")
        registry = self.stage.registry
        found = audit(
            registry.chain,
            start=registry.settings.deployed_at,
            store=registry.blobs,
            receipts=registry.receipts,
        )
        self.tell.say(
            f"{found.events} events, {found.releases} releases, {found.receipts} receipts in "
            f"{found.batches} batches, {found.seals} seals: {len(found.problems)} problems"
        )
        return found

    # -- what chapters are made of -----------------------------------------------------------------

    def ask(self, units: Sequence[Unit]) -> list[Result]:
        """Each asks the registry and installs what it may; says what came of it."""
        results = self.stage.fleet.update(units)
        for result in results:
            if result.outcome == "refused":
                what = f"release {result.version}" if result.version else "an answer"
                self.refusals.append(Refusal(result.unit.id.hex(), what, result.reason))
        for said, count in sorted(Counter(map(_sentence, results)).items()):
            self.tell.say(f"{count} of {len(results)} devices {said}")
        return results

    def deliver(self) -> None:
        """All receipts are handed over, anchored, and shown to be."""
        fleet = self.stage.fleet
        self.stage.until(lambda: fleet.deliver(self.units) == 0, "receipts are not anchored")

    def release(self, version: str) -> ReleaseEntry:
        """A release as the catalogue has it now."""
        self.stage.registry.follow()
        product = self.stage.publisher.product
        return self.stage.registry.catalogue.release_by_version(product, Version.parse(version))

    def _publish(self, version: str, rollout: Sequence[Phase], *, defective: bool = False) -> Draft:
        publisher = self.stage.publisher
        draft = publisher.build(version, self._firmware, rollout, defective=defective)
        draft = publisher.approve(draft, ("alice", "bob"), self.stage.clock.now())
        settled = publisher.publish(draft)
        self.tell.say(
            f"alice and bob approved {version}; published for {settled['gas_used']:,} gas"
        )
        self.stage.registry.follow()
        return draft

    def _canary_rollout(self, version: str) -> tuple[Phase, Phase]:
        """A first phase of just as many devices as are wanted: anyone can compute who that is."""
        product = self.stage.publisher.product
        entry = self.stage.registry.catalogue.product(product)
        number = entry.record.head.latest_release + 1

        def place(unit: Unit) -> int:
            return cohort(product, number, DeviceId(unit.id))

        share = sorted(map(place, self.units))[self._canaries - 1] + 1
        self.canaries[version] = [unit for unit in self.units if place(unit) < share]
        gate = Phase(COHORTS, DAY, len(self.canaries[version]), 1_000)
        return Phase(share, 0), gate

    def _others(self, version: str) -> list[Unit]:
        return [unit for unit in self.units if unit not in self.canaries[version]]


def _sentence(result: Result) -> str:
    """What a device did, to be counted."""
    did = {
        "confirmed": f"run {result.version}: healthy, confirmed",
        "rolled-back": f"tried {result.version}, and went back by themselves",
        "waiting": f"wait for {result.version}",
        "refused": f"refuse {result.version}",
        "nothing": "have nothing to do",
    }.get(result.outcome, result.outcome)
    return f"{did} ({result.reason})" if result.reason else did
