"""The flows everybody relies on, on the contract and its model in step, act by act."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bench import gas
from protocol.ids import DeviceId
from protocol.ledger import Reason, StateWord, Status, cohort
from protocol.records import (
    Action,
    Amendment,
    Approval,
    Decision,
    Device,
    Governance,
    Product,
    Record,
    Release,
    Terms,
    product_id,
)
from tests.contracts.evm import address, addresses, compact
from tests.contracts.instep import InStep, node  # noqa: F401  a fixture
from tests.contracts.vectors import DAY, governance, terms, word

FAR = 2**40
SALT = bytes(32)


class Flow(InStep):
    """Model and contract in step, walked by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.pid = product_id(address("alice"), SALT)
        self.accepted("alice", "createProduct", SALT, governance())

    @property
    def product(self) -> Product:
        return self.model.products[self.pid].record(self.now)

    def terms(self, **members: Any) -> Terms:
        plain = dataclasses.replace(
            terms(self.pid), not_before=0, expiry=0, required_attestations=0
        )
        return dataclasses.replace(plain, **members)

    def release(self, release_id: int = 1) -> Release:
        kept = self.model.releases[self.pid, release_id]
        return Release(release_id, kept.terms.hash_struct(), kept.state)

    def status(self) -> int:
        return StateWord.unpack(self.release().state.word).status

    def accepted(self, sender: str, function: str, *args: Any) -> None:
        """An act that must be taken, by all."""
        self.do(sender, function, *args)
        assert self.last_refusal is None, self.last_refusal
        self.compare_words()

    def refused(self, error: str, sender: str, function: str, *args: Any) -> None:
        """An act that must be refused, by all, with this error."""
        self.do(sender, function, *args)
        assert self.last_refusal is not None and self.last_refusal.name == error
        self.compare_words()

    def signed(self, message: Record, *names: str) -> Any:
        return self.box.approvals(message, *names)

    def publish(self, t: Terms, *names: str) -> None:
        approval = Approval(t, self.product.governance.epoch, FAR)
        self.accepted("owner", "publish", self.product, t, self.signed(approval, *names))

    def decision(self, action: Action, nonce: int) -> Any:
        epoch = self.product.governance.epoch
        return self.signed(Decision(self.pid, 1, action, nonce, epoch, FAR), "alice", "bob")


@pytest.fixture
def flow() -> Flow:
    return Flow()


def test_a_bad_release_is_halted_by_its_receipts_resumed_and_revoked(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    on = (flow.pid, flow.product)
    flow.accepted("reporter", "anchor", *on, flow.release(), 8, word("a"), 6, 2)
    assert flow.status() == Status.ACTIVE
    flow.accepted("reporter", "anchor", *on, flow.release(), 9, word("b"), 0, 1)
    assert flow.status() == Status.HALTED
    flow.refused("WrongStatus", "guard", "halt", *on, flow.release(), "again")
    flow.accepted("owner", "resume", *on, flow.release(), flow.decision(Action.RESUME, nonce=1))
    assert flow.status() == Status.ACTIVE
    flow.accepted("owner", "supersede", *on, flow.release(), flow.decision(Action.SUPERSEDE, 0))
    flow.accepted("owner", "revoke", *on, flow.release(), flow.decision(Action.REVOKE, 0))
    flow.accepted("reporter", "anchor", *on, flow.release(), 20, word("c"), 0, 11)
    assert flow.status() == Status.REVOKED


def test_a_rate_that_is_just_met_halts_nothing(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    on = (flow.pid, flow.product)
    flow.accepted("reporter", "anchor", *on, flow.release(), 12, word("a"), 9, 3)  # 25 % of 12
    assert flow.status() == Status.ACTIVE
    flow.accepted("reporter", "anchor", *on, flow.release(), 13, word("b"), 0, 1)
    assert flow.status() == Status.HALTED


def test_a_canary_then_everybody(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob", "carol")
    kept = flow.model.releases[flow.pid, 1]
    early, late = two_devices(flow)
    for seconds, expected in (
        (1, (Reason.ELIGIBLE, Reason.COHORT_WAITS)),
        (2 * DAY, (Reason.ELIGIBLE, Reason.COHORT_WAITS)),  # the gate wants 11 confirmed
        (9 * DAY, (Reason.ELIGIBLE, Reason.ELIGIBLE)),  # its deadline has passed
    ):
        flow.wait = seconds
        for device, reason in zip((early, late), expected, strict=True):
            args = (flow.product, kept.terms, 1, kept.state, device)
            flow.compare_reads(reason, "eligible", *args)
            assert flow.model.eligible(address("owner"), flow.now, *args) == reason


def two_devices(flow: Flow) -> tuple[Device, Device]:
    """One of the first percent, and one that comes last."""
    ids = [DeviceId(word(f"device {n}")) for n in range(2_000)]
    first = next(i for i in ids if cohort(flow.pid, 1, i) < 100)
    last = next(i for i in ids if cohort(flow.pid, 1, i) >= 2_000)
    version = 1 << 48
    return Device(first, version, 0, 7), Device(last, version, 0, 7)


def test_a_new_reporter_waits_and_needs_no_further_transaction(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    g = flow.product.governance
    following = dataclasses.replace(g, epoch=2, reporters=addresses("reporter", "outsider"))
    amendment = flow.signed(Amendment(flow.pid, following, 1, FAR), "bob", "carol")
    flow.accepted("owner", "amend", flow.pid, flow.product, following, amendment)
    batch = (1, word("root"), 1, 0)
    on = (flow.pid, flow.product, flow.release())
    flow.refused("NotAuthorized", "outsider", "anchor", *on, *batch)
    flow.wait = 3 * DAY
    flow.accepted("outsider", "anchor", flow.pid, flow.product, flow.release(), *batch)


def test_a_thief_of_m_keys_is_cancelled_by_a_guardian(flow: Flow) -> None:
    g = flow.product.governance
    stolen = dataclasses.replace(
        g, epoch=2, approvers=addresses("outsider"), threshold=1, guardians=()
    )
    agreed = flow.signed(Amendment(flow.pid, stolen, 1, FAR), "alice", "bob")
    flow.accepted("outsider", "amend", flow.pid, flow.product, stolen, agreed)
    flow.accepted("guard", "cancel", flow.pid, flow.product, stolen)
    flow.refused("EpochMismatch", "outsider", "amend", flow.pid, flow.product, stolen, agreed)
    flow.wait = 4 * DAY
    assert flow.product.governance == dataclasses.replace(g, epoch=2)


def test_a_stolen_guardian_is_out_after_the_delay(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    g = flow.product.governance
    others = tuple(member for member in g.guardians if member != address("guard"))
    following = dataclasses.replace(g, epoch=2, guardians=others)
    agreed = flow.signed(Amendment(flow.pid, following, 1, FAR), "alice", "bob")
    flow.accepted("owner", "amend", flow.pid, flow.product, following, agreed)
    on = (flow.pid, flow.product, following)
    flow.refused("OwnRemoval", "guard", "cancel", *on)
    restricted = dataclasses.replace(g, epoch=2, auditors=())
    flow.refused("AmendmentPending", "guard", "restrict", flow.pid, flow.product, restricted)
    flow.accepted("guard", "pause", flow.pid, flow.product)
    flow.wait = 3 * DAY
    assert flow.product.governance == following
    flow.refused("NotAuthorized", "guard", "halt", flow.pid, flow.product, flow.release(), "x")
    flow.accepted("bob", "halt", flow.pid, flow.product, flow.release(), "x")


def test_every_other_watcher_may_cancel_a_removal(flow: Flow) -> None:
    g = flow.product.governance
    others = tuple(member for member in g.guardians if member != address("guard"))
    following = dataclasses.replace(g, epoch=2, guardians=others)
    agreed = flow.signed(Amendment(flow.pid, following, 1, FAR), "alice", "bob")
    flow.accepted("owner", "amend", flow.pid, flow.product, following, agreed)
    other = dataclasses.replace(following, release_delay=1)
    flow.refused("StaleAmendment", "carol", "cancel", flow.pid, flow.product, other)
    flow.accepted("carol", "cancel", flow.pid, flow.product, following)


def test_a_wallet_approves_on_chain(flow: Flow) -> None:
    t = flow.terms()
    digest = flow.box.ledger.digest(Approval(t, 1, FAR))
    alice, bob = address("alice"), address("bob")
    entries = {alice: compact(digest, "alice"), bob: (bob.rjust(32, b"\0"), bytes(32))}
    approvals = (FAR, [entries[a] for a in sorted(entries)])
    flow.refused("NotApprovedOnChain", "owner", "publish", flow.product, t, approvals)
    flow.accepted("bob", "approve", digest)
    flow.accepted("owner", "publish", flow.product, t, approvals)


def test_everything_works_under_the_largest_governance(flow: Flow) -> None:
    crowd = tuple(bytes([n]) * 20 for n in range(1, 14))
    keys = tuple(dataclasses.replace(governance().keys[0], key_id=word(f"{n}")) for n in range(16))
    full = Governance(
        approvers=tuple(sorted((*crowd, *addresses("alice", "bob", "carol")))),
        threshold=3,
        epoch=1,
        guardians=tuple(sorted((*crowd, *addresses("guard", "auditor", "reporter")))),
        auditors=tuple(sorted((*crowd, address("auditor")))),
        reporters=tuple(sorted((*crowd, address("reporter")))),
        enroller=address("enroller"),
        keys=tuple(sorted(keys, key=lambda k: k.key_id)),
        halt_rule=governance().halt_rule,
        release_delay=0,
        governance_delay=DAY,
    )
    flow.accepted("alice", "createProduct", b"\1" * 32, full)
    flow.pid = product_id(address("alice"), b"\1" * 32)
    flow.publish(flow.terms(product_id=flow.pid), "alice", "bob", "carol")
    flow.accepted("guard", "halt", flow.pid, flow.product, flow.release(), "x" * 256)


def test_gas_stays_within_its_limits() -> None:
    for row in gas.rows():
        assert row["value"] <= row["against"], row
