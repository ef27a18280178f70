"""The audit: a true history passes, and for every kind of lie there is one that is caught."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.digests import sha256
from protocol.errors import Unreachable
from protocol.header import encode_header, parse_header, with_seals
from protocol.ids import Address, Hash, ProductId
from protocol.ledger import StateWord, Status
from protocol.receipt import Outcome
from protocol.records import NOBODY, Phase, Product, State
from registry.approvals import Signature
from registry.audit import Report
from registry.blobs import FileBlobs
from registry.chain import Chain, node_inside
from registry.node import Node
from registry.ports import Event
from tests.registry.scene import FOREVER, Scene, person
from tests.registry.story import Fleet, Story

KEBAB = re.compile(r"[a-z]+(-[a-z]+)+")


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """One history for all tests that only read it."""
    scene = Scene(tmp_path_factory.mktemp("past"))
    try:
        made = Story(scene)
        made.tell()
        yield made
    finally:
        scene.close()


@pytest.fixture
def story(scene: Scene) -> Story:
    """A history that may go on."""
    made = Story(scene)
    made.tell()
    return made


def reasons(report: Report) -> set[str]:
    return {finding.reason for finding in report.problems}


def test_a_true_history_passes(past: Story, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    blobs.put_bytes(b"payload", max_size=100)
    report = past.audit(receipts=past.fleet, store=blobs)
    assert report.problems == ()
    assert report.ok
    counted = (report.products, report.releases, report.receipts, report.batches, report.blobs)
    assert counted == (1, 2, 7, 3, 1)
    assert report.recounted == 7
    assert report.seals >= 3 * report.events / 2
    names = {event.name for event in past.scene.chain.events_between(0, report.head)}
    assert len(names) == 14, names
    assert report.as_dict()["ok"] is True


# -- lies ----------------------------------------------------------------------------------------

Alter = Callable[[Event], Event | None]


class LyingChain:
    """The true chain, but for what it is told to say instead."""

    def __init__(self, chain: Any, alter: Alter | None = None, **instead: Any) -> None:
        self._chain = chain
        self._alter = alter or (lambda event: event)
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name) or getattr(self._chain, name)

    def _altered(self, events: Any) -> Iterator[Event]:
        return (told for event in events if (told := self._alter(event)) is not None)

    def events_between(self, first: int, last: int) -> Iterator[Event]:
        ask = self._instead.get("events_between", self._chain.events_between)
        return self._altered(ask(first, last))

    def proved_events(self, block: Hash) -> list[Event]:
        """As if the contract itself had done what is told."""
        ask = self._instead.get("proved_events", self._chain.proved_events)
        return list(self._altered(ask(block)))


def told(name: str, *, nth: int = 0, **changes: Any) -> Alter:
    """The ``nth`` event of that name, with other arguments; callables make them from the old."""
    seen: dict[tuple[Hash, int], int] = {}

    def alter(event: Event) -> Event:
        if event.name != name:
            return event
        place = seen.setdefault((event.tx, event.index), len(seen))
        if place != nth:
            return event
        made = {k: v(event.args[k]) if callable(v) else v for k, v in changes.items()}
        return replace(event, args={**event.args, **made})

    return alter


def left_out(name: str, *, nth: int = 0) -> Alter:
    """All but the ``nth`` event of that name."""
    seen: dict[tuple[Hash, int], int] = {}

    def alter(event: Event) -> Event | None:
        if event.name != name:
            return event
        place = seen.setdefault((event.tx, event.index), len(seen))
        return None if place == nth else event

    return alter


def governed(**changes: Any) -> Callable[[Product], Product]:
    return lambda product: replace(product, governance=replace(product.governance, **changes))


def headed(**changes: Any) -> Callable[[Product], Product]:
    return lambda product: replace(product, head=replace(product.head, **changes))


def worded(**changes: Any) -> Callable[[State], State]:
    def change(state: State) -> State:
        return replace(state, word=replace(StateWord.unpack(state.word), **changes).pack())

    return change


def of(**changes: Any) -> Callable[[Any], Any]:
    return lambda record: replace(record, **changes)


STRANGER = person("mallory").address
SOMEBODY = ProductId(bytes(31) + b"\1")

# What the contract might have done wrong, and the finding that must come of it.
LIES: dict[str, list[Alter]] = {
    "wrong-product-id": [told("ProductCreated", creator=STRANGER)],
    "wrong-product": [
        told("ProductCreated", product=of(other=b"\1" * 32)),
        told("GovernanceChanged", product=of(effective_at=FOREVER)),
        told("ReleasePublished", terms=of(product_id=bytes(SOMEBODY))),
    ],
    "wrong-epoch": [
        told("ProductCreated", product=governed(epoch=2)),
        told("GovernanceChanged", product=governed(epoch=9)),
        told("FleetSet", epoch=7),
        told("ReleasePublished", epoch=3),
    ],
    "bad-governance": [
        told("ProductCreated", product=governed(threshold=4)),
        told("ProductCreated", product=governed(threshold=0)),
        told("ProductCreated", product=governed(auditors=(STRANGER, STRANGER))),
    ],
    "delay-changed": [told("GovernanceChanged", product=governed(governance_delay=5))],
    "wrong-head": [
        told("GovernanceChanged", product=headed(version=99)),
        told("ProductPaused", head=of(pauses=7)),
        told("ProductUnpaused", head=of(paused_total=0)),
    ],
    "not-authorized": [
        told("ProductPaused", by=STRANGER),
        told("FleetSet", by=STRANGER),
        told("TermsWithdrawn", approver=STRANGER),
        told("ReleaseHalted", nth=1, by=STRANGER),
        told("ReleaseAttested", auditor=STRANGER),
        told("ReceiptsAnchored", reporter=STRANGER),
    ],
    "too-few-approvals": [
        told("ProductUnpaused", signers=(person("alice").address,)),
        told("ReleaseResumed", signers=()),
        told("ReleaseRevoked", signers=lambda s: s[::-1]),
        told("ReleaseSuperseded", signers=lambda s: (s[0], s[0])),
        told("ReleasePublished", approvals=lambda a: replace(a, signatures=a.signatures[:1])),
        told("ReleasePublished", approvals=lambda a: replace(a, signatures=a.signatures[::-1])),
        told("ReleasePublished", approvals=of(valid_until=FOREVER + 1)),
        told("ReleasePublished", terms=of(image_size=1)),
    ],
    "change-not-agreed": [
        told("GovernanceChanged", product=governed(auditors=(STRANGER,))),
        told("GovernanceChanged", signers=(STRANGER,)),
        told("GovernanceChanged", nth=1, signers=()),
    ],
    "wrong-image": [told("ReleasePublished", image_digest=sha256(b"another"))],
    "wrong-release-id": [told("ReleasePublished", nth=1, release_id=5)],
    "version-not-rising": [told("ReleasePublished", nth=1, terms=of(version=1))],
    "counter-falling": [told("ReleasePublished", nth=1, terms=of(security_counter=0))],
    "bad-terms": [
        told("ReleasePublished", terms=of(expiry=1)),
        told("ReleasePublished", terms=of(hardware_max=0)),
        told("ReleasePublished", terms=of(rollout=())),
        told("ReleasePublished", terms=of(rollout=(Phase(10_001),))),
        told("ReleasePublished", terms=of(rollout=(Phase(10_000, min_confirmed=1),))),
    ],
    "approvals-expired": [told("ReleasePublished", approvals=of(valid_until=1))],
    "bad-signature": [
        told(
            "ReleasePublished",
            approvals=lambda a: replace(
                a, signatures=(Signature(b"\xff" * 32, b"\x7f" * 32), *a.signatures)
            ),
        )
    ],
    "not-approved": [
        told(
            "ReleasePublished",
            approvals=lambda a: replace(
                a,
                signatures=(
                    Signature(person("alice").address.rjust(32, b"\0"), bytes(32)),
                    *a.signatures,
                ),
            ),
        )
    ],
    "wrong-status": [
        left_out("ReleaseHalted"),
        told("ReleaseResumed", release_id=1),
        told("ReleaseSuperseded", state=worded(status=Status.REVOKED)),
    ],
    "impossible-state": [told("ProductCreated", product=headed(paused_at=1))],
    "wrong-state": [
        told("ReleasePublished", state=of(starts_at=1)),
        told("ReleaseHalted", state=worded(halted_at=1)),
        told("ReleaseResumed", state=worded(base_failed=0)),
        told("ReleaseSuperseded", state=worded(status=Status.ACTIVE)),
        told("ReleaseRevoked", state=worded(status=Status.HALTED)),
        told("ReleaseAttested", state=worded(attested=3)),
        told("ReceiptsAnchored", state=worded(confirmed=3)),
        told("ReceiptsAnchored", confirmed_delta=1),
    ],
    "wrong-kind": [told("ReleaseAttested", kind=9)],
    "log-shrinks": [told("ReceiptsAnchored", nth=2, state=worded(log_size=1))],
    "counts-exceed": [told("ReceiptsAnchored", confirmed_delta=3)],
    "halt-not-due": [told("ReceiptsAnchored", nth=2, failed_delta=1, state=worded(failed=1))],
    "halt-missing": [
        left_out("ReleaseHalted"),
        told("ReleaseHalted", release_id=1),
    ],
    "unknown-product": [told("FleetSet", product_id=SOMEBODY)],
    "unknown-release": [told("ReleaseAttested", release_id=77)],
    "published-while-paused": [told("ProductCreated", product=headed(paused_at=1))],
    "wrong-commitment": [
        left_out("ReleaseRevoked"),
        told("ReleaseAttested", release_id=1),
        told("FleetSet", root=sha256(b"another")),
        told("TermsWithdrawn", terms_hash=Hash(sha256(b"others"))),
    ],
}


@pytest.mark.parametrize(
    ("reason", "which"), [(reason, n) for reason, lies in LIES.items() for n in range(len(lies))]
)
def test_what_the_rules_forbid_is_found(past: Story, reason: str, which: int) -> None:
    report = past.audit(LyingChain(past.scene.chain, LIES[reason][which]))
    assert not report.ok
    assert reason in reasons(report), report.problems
    named = [finding for finding in report.problems if finding.reason == reason]
    assert all(finding.sentence.endswith(".") for finding in named)
    if reason not in ("wrong-commitment",):
        assert all(finding.tx and str(finding.tx) in finding.sentence for finding in named)


# -- changes that wait ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A product whose loosening changes wait an hour: two were cancelled, one took effect."""
    scene = Scene(tmp_path_factory.mktemp("slow"))
    try:
        yield _slow(scene)
    finally:
        scene.close()


def _slow(scene: Scene) -> Story:
    story = Story(scene, governance_delay=3_600, guardians=(person("gus").address,))
    story.amend(release_delay=0, auditors=())  # tightening: at once
    story.cancelled("carol", guardians=())
    story.cancelled("gus", threshold=1)
    story.amend(threshold=1)
    story.publish("1.0.0")
    scene.clock.time += 3_700
    scene.rest()
    story.product = story.spelled_out(threshold=1)
    story.publish("1.1.0", "alice")
    story.amend(threshold=2)
    return story


def test_a_change_that_waited_is_followed(slow: Story) -> None:
    report = slow.audit()
    assert report.problems == ()
    names = [event.name for event in slow.scene.chain.events_between(0, report.head)]
    assert names.count("AmendmentProposed") == 3
    assert names.count("AmendmentCancelled") == 2
    assert names[-1] == "GovernanceChanged"


def restricted_instead(name: str, *, by: Address) -> Alter:
    """The first event of that name is a watcher's restriction, which no pending change allows."""
    seen: dict[tuple[Hash, int], int] = {}

    def alter(event: Event) -> Event:
        if event.name != name or seen.setdefault((event.tx, event.index), len(seen)):
            return event
        product = replace(event.args["product"], other=Hash(bytes(32)), effective_at=0)
        governance = replace(product.governance, enroller=NOBODY)
        args = {
            "product_id": event.args["product_id"],
            "product": replace(product, governance=governance),
            "signers": (by,),
        }
        return replace(event, name="GovernanceChanged", args=args)

    return alter


WAITING_LIES: dict[str, list[Alter]] = {
    "delay-too-short": [told("AmendmentProposed", product=of(effective_at=FOREVER - 10**8 + 9))],
    "change-pending": [left_out("AmendmentCancelled")],
    "nothing-pending": [left_out("AmendmentProposed")],
    "too-few-approvals": [
        told("AmendmentProposed", signers=()),
        told("ReleasePublished", nth=1, approvals=lambda a: replace(a, signatures=())),
    ],
    "wrong-product": [
        told("AmendmentProposed", product=governed(threshold=1)),
        told("AmendmentProposed", product=of(other=b"\1" * 32)),
        told("AmendmentCancelled", product=governed(threshold=1)),
    ],
    "not-authorized": [told("AmendmentCancelled", by=STRANGER)],
    "own-removal": [told("AmendmentCancelled", by=person("gus").address)],
    "delay-changed": [told("AmendmentProposed", next=of(governance_delay=1))],
    "wrong-epoch": [told("AmendmentProposed", next=of(epoch=1))],
    "wrong-head": [told("AmendmentCancelled", product=headed(pauses=3))],
    "change-not-agreed": [
        told("GovernanceChanged", product=governed(threshold=1)),
        restricted_instead("AmendmentCancelled", by=person("gus").address),
    ],
}


@pytest.mark.parametrize(
    ("reason", "which"),
    [(reason, n) for reason, lies in WAITING_LIES.items() for n in range(len(lies))],
)
def test_what_the_rules_of_waiting_forbid_is_found(slow: Story, reason: str, which: int) -> None:
    report = slow.audit(LyingChain(slow.scene.chain, WAITING_LIES[reason][which]))
    assert reason in reasons(report), report.problems


def test_terms_published_after_their_withdrawal_are_found(past: Story) -> None:
    first = next(
        event.args["terms"].hash_struct()
        for event in past.scene.chain.events_between(0, past.scene.chain.head().number)
        if event.name == "ReleasePublished"
    )
    fleet = {"done": False}

    def alter(event: Event) -> Event:
        """The fleet was never set: an approver withdrew the first release's terms instead."""
        if event.name != "FleetSet":
            return event
        fleet["done"] = True
        args = {
            "product_id": event.args["product_id"],
            "terms_hash": first,
            "approver": person("alice").address,
        }
        return replace(event, name="TermsWithdrawn", args=args)

    report = past.audit(LyingChain(past.scene.chain, alter))
    assert fleet["done"]
    assert "terms-withdrawn" in reasons(report)


def test_a_product_is_not_created_twice(past: Story) -> None:
    def twice(events: Any) -> Iterator[Event]:
        for event in events:
            yield event
            if event.name == "ProductCreated":
                yield event

    chain = past.scene.chain
    lying = LyingChain(
        chain,
        events_between=lambda first, last: twice(chain.events_between(first, last)),
        proved_events=lambda block: list(twice(chain.proved_events(block))),
    )
    assert "product-twice" in reasons(past.audit(lying))


# -- the node, the validators, the contract ------------------------------------------------------


def test_another_contract_is_found(past: Story) -> None:
    lying = LyingChain(past.scene.chain, code_hash=lambda: Hash(sha256(b"other code")))
    assert {"foreign-code", "state-unproved"} == reasons(past.audit(lying))


def test_events_that_are_not_in_the_receipts_are_found(past: Story) -> None:
    chain, alter = past.scene.chain, told("ReleaseHalted", nth=1, reason="no reason")
    lying = LyingChain(
        chain,
        events_between=lambda first, last: (
            alter(event) for event in chain.events_between(first, last)
        ),
        proved_events=chain.proved_events,
    )
    assert reasons(past.audit(lying)) == {"events-altered"}


def test_receipts_that_are_not_the_blocks_are_found(past: Story) -> None:
    """A node that tells the same lie everywhere is caught by the header's root."""
    honest = node_inside(past.scene.embedded)

    def request(method: str, params: list[Any]) -> Any:
        answer = honest.ask(method, *params)
        if method == "eth_getBlockReceipts" and answer:
            answer[0]["logs"][0]["data"] = answer[0]["logs"][0]["data"][:-2] + "77"
        return {"result": answer}

    report = past.audit(Chain(Node(request), past.scene.contract))
    assert "events-unproved" in reasons(report)


def test_a_chain_that_moves_meanwhile_is_found(past: Story) -> None:
    chain = past.scene.chain
    other = chain.block(1)
    lying = LyingChain(chain, block=lambda number: other)
    assert "chain-moved" in reasons(past.audit(lying))


def test_too_few_seals_are_found(past: Story) -> None:
    chain = past.scene.chain

    def header(block: Hash) -> bytes:
        parsed = parse_header(chain.header(block))
        return encode_header(with_seals(parsed, parsed.extra.seals[:2]))

    assert "not-sealed" in reasons(past.audit(LyingChain(chain, header=header)))


def test_seals_by_others_than_the_trusted_are_found(past: Story) -> None:
    strangers = [person(name).address for name in ("v1", "v2", "v3", "v4")]
    assert "not-sealed" in reasons(past.audit(validators=strangers))
    assert past.audit(validators=past.scene.embedded.validators).ok


def test_a_proof_of_another_state_is_found(past: Story) -> None:
    chain = past.scene.chain
    early = chain.block(past.scene.deployed_at)
    assert early is not None
    lying = LyingChain(chain, proof=lambda slots, block: chain.proof(slots, early.hash))
    assert "state-unproved" in reasons(past.audit(lying))


def test_a_node_that_is_silent_is_no_clean_report(past: Story) -> None:
    def request(method: str, params: list[Any]) -> Any:
        if method == "eth_getProof":
            raise ConnectionError("gone")
        return {"result": node_inside(past.scene.embedded).ask(method, *params)}

    with pytest.raises(Unreachable):
        past.audit(Chain(Node(request), past.scene.contract))


# -- receipts and blobs --------------------------------------------------------------------------


def test_a_damaged_blob_is_found(past: Story, tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    digest = blobs.put_bytes(b"payload", max_size=100)
    blobs.path(digest).write_bytes(b"pAyload")
    assert reasons(past.audit(store=blobs)) == {"blob-damaged"}


def lost(fleet: Fleet) -> None:
    fleet.logs[2].pop()


def swapped(fleet: Fleet) -> None:
    fleet.logs[2][0], fleet.logs[2][1] = fleet.logs[2][1], fleet.logs[2][0]


def flipped(fleet: Fleet) -> None:
    forged = bytearray(fleet.logs[2][3])
    forged[-1] ^= 1
    fleet.logs[2][3] = bytes(forged)


def garbage(fleet: Fleet) -> None:
    fleet.logs[2][3] = b"garbage"


def key_lost(fleet: Fleet) -> None:
    del fleet.keys[next(iter(fleet.keys))]


def fleet_lost(fleet: Fleet) -> None:
    fleet.fleets.clear()


def fleet_padded(fleet: Fleet) -> None:
    for members in fleet.fleets.values():
        members.append(b"\xff" * 32)


RECEIPT_LIES: list[tuple[str, Callable[[Fleet], None]]] = [
    ("receipts-missing", lost),
    ("wrong-log-root", swapped),
    ("receipt-forged", flipped),
    ("receipt-forged", garbage),
    ("miscounted", flipped),
    ("device-unknown", key_lost),
    ("fleet-unknown", fleet_lost),
    ("fleet-unknown", fleet_padded),
    ("not-enrolled", fleet_lost),
]


@pytest.mark.parametrize(("reason", "spoil"), RECEIPT_LIES)
def test_receipts_that_are_not_what_was_anchored_are_found(
    past: Story, reason: str, spoil: Callable[[Fleet], None]
) -> None:
    fleet = past.fleet.copy()
    spoil(fleet)
    assert reason in reasons(past.audit(receipts=fleet))


@pytest.mark.parametrize("counts", [(1, 0), (0, 1), (1, 1)])
def test_a_reporter_who_counts_wrongly_is_found(story: Story, counts: tuple[int, int]) -> None:
    """The contract cannot see it; who recounts the receipts does."""
    story.fleet.report(5, 2, Outcome.REFUSED)
    story.fleet.report(0, 2, Outcome.CONFIRMED, sequence=2, previous=sha256(b"y"))  # its second
    story.anchor(2, *counts)
    assert story.audit().ok
    report = story.audit(receipts=story.fleet)
    assert reasons(report) == {"miscounted"}


def test_receipts_for_other_releases_do_not_count(story: Story) -> None:
    story.fleet.logs[2].append(story.fleet.report(4, 1, Outcome.CONFIRMED))
    story.anchor(2, 1, 0)
    found = reasons(story.audit(receipts=story.fleet))
    assert found == {"receipt-elsewhere", "miscounted"}


def test_a_device_that_signs_two_histories_is_found(story: Story) -> None:
    story.fleet.report(5, 2, Outcome.CONFIRMED)
    story.fleet.report(5, 2, Outcome.ROLLED_BACK)
    story.anchor(2, 1, 0)
    assert reasons(story.audit(receipts=story.fleet)) == {"receipt-forked"}


# -- every kind ----------------------------------------------------------------------------------


def test_there_is_a_lie_for_every_kind_of_finding() -> None:
    """Every reason that the sources can give is named in a test of this file."""
    named = set()
    for module in ("audit", "replay", "judged", "product_rules", "release_rules", "recount"):
        tree = ast.parse(Path("registry", f"{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in ("find", "expect", "_find", "Finding"):
                    texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
                    named |= {t for t in texts if isinstance(t, str) and KEBAB.fullmatch(t)}
    here = Path(__file__).read_text()
    assert len(named) > 40
    assert {reason for reason in named if f'"{reason}"' not in here} == set()
