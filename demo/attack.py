"""What an attacker tries who owns the registry, and has no key of validators or publisher.

Every attempt is made on a real device over HTTP, and what the device says is written down. One is
made on the ledger itself: a release that one approver signed and two must.

Not here: what ought to come of it (`demo.promises`).
"""

from __future__ import annotations

from demo.adversary import (
    Lie,
    LyingRegistry,
    altered_manifest,
    forged_payload,
    instead,
    not_published,
    sealed_by_strangers,
)
from demo.facts import LEDGER, Refusal
from demo.fleet import Unit
from demo.stage import Stage
from demo.view import Teller
from protocol.bundle import MAX_BUNDLE_BYTES, Anchor, Fresh
from protocol.errors import LedgerRefused
from protocol.ids import Hash
from protocol.ledger import StateWord, Status
from protocol.proof import assemble
from protocol.records import Phase, Release, State
from registry.intake import Draft

FORGED = "a forged image"
ALTERED = "an altered manifest"
OLDER = "an older release"
REPLAYED = "the halted release, by an earlier proof"
OUTDATED = "the halted release, to a new device, by a proof older than max-age"
STRANGERS = "a header sealed by strangers"
SHORT = "a publication with one approval of two"
UNPUBLISHED = "that publication all the same"
SHORT_VERSION = "6.6.6"


class Attack:
    """The attempts, on the devices of one stage."""

    def __init__(self, stage: Stage, firmware: bytes, tell: Teller) -> None:
        self._stage, self._firmware, self._tell = stage, firmware, tell
        self._kept = b""
        self._made: list[Refusal] = []

    def keep_answer(self, release_id: int) -> None:
        """Keeps what the registry says of a release now, to say it again when it is not so."""
        self._kept = self._bundle_of(release_id)

    def run(self) -> list[Refusal]:
        """Every attempt once; who refused what, and why."""
        units = self._stage.fleet.units
        with LyingRegistry(self._stage.url) as liar:
            lies = {
                FORGED: forged_payload(),
                ALTERED: altered_manifest(),
                OLDER: instead(self._bundle_of(1)),
                REPLAYED: instead(self._kept),
                STRANGERS: sealed_by_strangers(),
            }
            for number, (what, lie) in enumerate(lies.items()):
                self._lie(liar, what, lie, units[-1 - number % len(units)])
            self._lie(liar, UNPUBLISHED, self._short_of_approvals(), units[0])
            self._stage.pass_time(self._stage.max_age)
            self._lie(liar, OUTDATED, instead(self._kept), self._new_device())
        return self._made

    def _lie(self, liar: LyingRegistry, what: str, lie: Lie, unit: Unit) -> None:
        """Serves ``lie`` to one device; anything but a refusal is no entry in what was refused."""
        liar.lie = lie
        (result,) = self._stage.fleet.update([unit], liar.url)
        if result.outcome == "refused":
            self._made.append(Refusal(unit.id.hex(), what, result.reason))
        why = result.error.why if result.error else f"{result.version}, and it runs {unit.version}"
        self._tell.say(f"{what}: device {unit.name} {result.outcome} it ({result.reason}): {why}")

    def _short_of_approvals(self) -> Lie:
        """Asks the ledger for a publication that one approver signed; the lie that it said yes."""
        publisher = self._stage.publisher
        draft = publisher.build(SHORT_VERSION, self._firmware, (Phase(10_000, 0),))
        draft = publisher.approve(draft, ("alice",), self._stage.clock.now())
        try:
            publisher.publish(draft)
        except LedgerRefused as error:
            self._made.append(Refusal(LEDGER, SHORT, error.reason))
            self._tell.say(f"{SHORT}: the ledger refuses, {error.reason}: {error.why}")
        return self._record_of(draft)

    def _record_of(self, draft: Draft) -> Lie:
        """The record that the ledger would have of a release, beside what it really holds there."""
        registry, product = self._stage.registry, self._stage.publisher.product
        registry.follow()
        block = registry.catalogue.head()
        assert block is not None  # noqa: S101 - the story has published before
        record = registry.catalogue.product(product, now=block.timestamp, at=block.number).record
        code_hash = registry.settings.code_hash or Hash(bytes(32))
        anchor = Anchor(registry.chain.ledger, product, code_hash, registry.validators())
        number = record.head.latest_release + 1
        answer = registry.chain.proof(anchor.slots(number), block.hash)
        proof = assemble(registry.chain.header(block.hash), answer)
        state = State(block.timestamp, StateWord(Status.ACTIVE).pack())
        made_up = Release(number, draft.terms.hash_struct(), state)
        return not_published(draft.static, Fresh(proof, record, made_up))

    def _bundle_of(self, release_id: int) -> bytes:
        """What the registry gives out about a release, to anyone who asks."""
        product = self._stage.publisher.product
        path = f"/v1/products/{product}/releases/{release_id}/bundle"
        return self._stage.service.get_bytes(path, MAX_BUNDLE_BYTES)

    def _new_device(self) -> Unit:
        """A device from the factory, which has seen no block yet; it stays outside of the fleet."""
        trust = self._stage.publisher.trust(self._stage.url, min_height=0)
        return self._stage.fleet.make(*trust)
