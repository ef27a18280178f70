"""Every refusal of the contract, one by one, by the contract and its model with the same data.

The random histories of `tests.test_ledger_model` meet most of them by chance; here each has a
place. Lists that are too long are left to the forge tests: no record of ours can hold one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from protocol.records import (
    Action,
    Amendment,
    Approval,
    Decision,
    Governance,
    HaltRule,
    Phase,
    SigningKey,
    Terms,
    product_id,
)
from tests.contracts.evm import address, addresses
from tests.contracts.instep import node  # noqa: F401  a fixture
from tests.contracts.test_flows import FAR, Flow
from tests.contracts.vectors import DAY, governance, word

A, B = sorted([b"\x11" * 20, b"\x22" * 20])
KEYS = tuple(SigningKey(bytes([n]) * 32) for n in (1, 2))


@pytest.fixture
def flow() -> Flow:
    return Flow()


def data(flow: Flow) -> tuple[Any, ...]:
    """What the last refusal carried."""
    assert flow.last_refusal is not None
    return flow.last_refusal.data


def changed(g: Governance, **members: Any) -> Governance:
    return dataclasses.replace(g, epoch=g.epoch + 1, **members)


# -- governance ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("approvers", {"approvers": ()}),
        ("approvers", {"approvers": (bytes(20),)}),
        ("approvers", {"approvers": (B, A)}),
        ("approvers", {"approvers": (A, A)}),
        ("threshold", {"threshold": 0}),
        ("threshold", {"threshold": 4}),
        ("guardians", {"guardians": (B, A)}),
        ("auditors", {"auditors": (A, A)}),
        ("reporters", {"reporters": (bytes(20), A)}),
        ("keys", {"keys": (KEYS[1], KEYS[0])}),
        ("keys", {"keys": (KEYS[0], KEYS[0])}),
        ("haltRule", {"halt_rule": HaltRule(1, 10_001)}),
    ],
)
def test_a_governance_that_is_not_well_formed(
    flow: Flow, field: str, members: dict[str, Any]
) -> None:
    broken = dataclasses.replace(governance(), **members)
    flow.refused("InvalidGovernance", "alice", "createProduct", word("new"), broken)
    assert data(flow) == (field,)
    following = changed(flow.product.governance, **members)
    agreed = flow.signed(Amendment(flow.pid, following, 1, FAR), "alice", "bob")
    flow.refused("InvalidGovernance", "owner", "amend", flow.pid, flow.product, following, agreed)
    assert data(flow) == (field,)


def test_what_is_wrong_with_a_creation(flow: Flow) -> None:
    flow.refused("ProductExists", "alice", "createProduct", bytes(32), governance())
    late = dataclasses.replace(governance(), epoch=2)
    flow.refused("EpochMismatch", "alice", "createProduct", word("new"), late)


def test_what_can_follow_nothing(flow: Flow) -> None:
    g = flow.product.governance
    for error, following in (
        ("EpochMismatch", dataclasses.replace(g, epoch=3)),
        ("InvalidGovernance", changed(g, governance_delay=0)),
    ):
        agreed = flow.signed(Amendment(flow.pid, following, 1, FAR), "alice", "bob")
        flow.refused(error, "owner", "amend", flow.pid, flow.product, following, agreed)
        flow.refused(error, "guard", "restrict", flow.pid, flow.product, following)


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("auditors", {"auditors": (A,)}),
        ("reporters", {"reporters": (A,)}),
        ("enroller", {"enroller": A}),
        ("keys", {"keys": KEYS}),
        ("keys", {"keys": ()}),
        ("haltRule", {"halt_rule": HaltRule(1, 1)}),
        ("approvers", {"approvers": addresses("alice", "bob")}),
        ("approvers", {"approvers": addresses("alice", "bob", "outsider")}),
        ("threshold", {"threshold": 3}),
        ("guardians", {"guardians": ()}),
        ("releaseDelay", {"release_delay": 10**6}),
        ("epoch", {}),
    ],
)
def test_what_one_watcher_may_not_change(flow: Flow, field: str, members: dict[str, Any]) -> None:
    following = changed(flow.product.governance, **members)
    flow.refused("NotATightening", "guard", "restrict", flow.pid, flow.product, following)
    assert data(flow) == (field,)


def test_a_key_is_revoked_or_retired_now_and_nothing_in_between(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    for through, taken in ((7, False), (1, True), (0, True)):
        g = flow.product.governance
        keys = (dataclasses.replace(g.keys[0], valid_through=through), *g.keys[1:])
        act = ("guard", "restrict", flow.pid, flow.product, changed(g, keys=keys))
        if taken:
            flow.accepted(*act)
        else:
            flow.refused("NotATightening", *act)


def test_who_names_guardians_keeps_every_approver_among_them(flow: Flow) -> None:
    plain = dataclasses.replace(governance(), guardians=())
    flow.accepted("alice", "createProduct", word("unnamed"), plain)
    flow.pid = product_id(address("alice"), word("unnamed"))
    for named, at_once in ((addresses("guard"), False), (plain.approvers, True)):
        g = flow.product.governance
        following = changed(g, guardians=named)
        agreed = flow.signed(Amendment(flow.pid, following, g.epoch, FAR), "alice", "bob")
        flow.accepted("owner", "amend", flow.pid, flow.product, following, agreed)
        assert (flow.product.effective_at == 0) is at_once
        if not at_once:
            flow.accepted("carol", "cancel", flow.pid, flow.product, following)


def test_one_loosening_at_a_time(flow: Flow) -> None:
    flow.refused(
        "NothingPending", "guard", "cancel", flow.pid, flow.product, flow.product.governance
    )
    g = flow.product.governance
    first, second = changed(g, threshold=1), changed(g, release_delay=0)
    for following, error in ((first, None), (second, "AmendmentPending")):
        agreed = flow.signed(Amendment(flow.pid, following, 1, FAR), "alice", "bob")
        act = ("owner", "amend", flow.pid, flow.product, following, agreed)
        flow.refused(error, *act) if error else flow.accepted(*act)
    flow.wait = 3 * DAY
    following = changed(flow.product.governance, release_delay=0)
    agreed = flow.signed(Amendment(flow.pid, following, 2, FAR), "alice")
    flow.accepted("owner", "amend", flow.pid, flow.product, following, agreed)


# -- terms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("imageDigest", {"image_digest": bytes(32)}),
        ("manifestDigest", {"manifest_digest": bytes(32)}),
        ("imageSize", {"image_size": 0}),
        ("hardwareMax", {"hardware_min": 5, "hardware_max": 4}),
        ("minVersion", {"min_version": 1 << 60}),
        ("expiry", {"expiry": 1}),
        ("expiry", {"expiry": FAR, "not_before": FAR}),
        ("rollout", {"rollout": ()}),
    ],
)
def test_terms_that_no_device_could_follow(flow: Flow, field: str, members: dict[str, Any]) -> None:
    _refused(flow, "InvalidTerms", flow.terms(**members))
    assert data(flow) == (field,)


@pytest.mark.parametrize(
    ("phase", "field", "rollout"),
    [
        (0, "bps", (Phase(0),)),
        (1, "bps", (Phase(5), Phase(5))),
        (1, "bps", (Phase(5), Phase(10_001))),
        (1, "delay", (Phase(5, 9), Phase(6, 8))),
        (0, "maxFailureBps", (Phase(5, 0, 0, 9_999),)),
        (1, "maxFailureBps", (Phase(5), Phase(6, 0, 0, 10_001))),
        (0, "minConfirmed", (Phase(5, 0, 1),)),
        (0, "gateDeadline", (Phase(5, 0, 0, 10_000, 1),)),
    ],
)
def test_rollouts_that_are_none(
    flow: Flow, phase: int, field: str, rollout: tuple[Phase, ...]
) -> None:
    _refused(flow, "InvalidRollout", flow.terms(rollout=rollout))
    assert data(flow) == (phase, field)


def test_what_is_wrong_with_a_publication(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    t = flow.terms()
    _refused(flow, "VersionNotRising", t)
    higher = dataclasses.replace(t, version=t.version + 1)
    _refused(flow, "CounterFalling", dataclasses.replace(higher, security_counter=0))
    agreed = flow.signed(Approval(higher, 1, 7), "alice", "bob")
    flow.refused("ApprovalsExpired", "owner", "publish", flow.product, higher, agreed)
    flow.accepted("bob", "withdraw", flow.pid, flow.product, higher.hash_struct())
    _refused(flow, "TermsAreWithdrawn", higher)
    flow.accepted("guard", "pause", flow.pid, flow.product)
    _refused(flow, "ProductIsPaused", higher)
    flow.refused("ProductIsPaused", "guard", "pause", flow.pid, flow.product)
    flow.refused("NotAuthorized", "guard", "withdraw", flow.pid, flow.product, word("terms"))


def _refused(flow: Flow, error: str, t: Terms) -> None:
    agreed = flow.signed(Approval(t, 1, FAR), "alice", "bob")
    flow.refused(error, "owner", "publish", flow.product, t, agreed)


# -- releases --------------------------------------------------------------------------------------


def test_what_is_wrong_with_an_act_on_a_release(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    on = (flow.pid, flow.product)
    flow.refused("WrongStatus", "owner", "resume", *on, flow.release(), _agreed(flow))
    flow.refused("ReasonTooLong", "guard", "halt", *on, flow.release(), "x" * 257)
    flow.refused("InvalidKind", "auditor", "attest", *on, flow.release(), 8, word("e"))
    flow.accepted("auditor", "attest", *on, flow.release(), 7, word("e"))
    flow.refused("AlreadyAttested", "auditor", "attest", *on, flow.release(), 7, word("e"))
    flow.refused("LogNotGrowing", "reporter", "anchor", *on, flow.release(), 0, word("r"), 0, 0)
    flow.refused(
        "DeltaExceedsGrowth", "reporter", "anchor", *on, flow.release(), 1, word("r"), 1, 1
    )
    missing = dataclasses.replace(flow.release(), release_id=2)
    flow.refused("UnknownRelease", "guard", "halt", *on, missing, "")
    for action, error in ((Action.SUPERSEDE, "AlreadySuperseded"), (Action.REVOKE, "WrongStatus")):
        name = action.name.lower()
        flow.accepted("owner", name, *on, flow.release(), flow.decision(action, 0))
        flow.refused(error, "owner", name, *on, flow.release(), flow.decision(action, 0))
    flow.refused("ProductNotPaused", "owner", "unpause", *on, _agreed(flow))
    flow.refused("UnknownProduct", "guard", "pause", word("none"), flow.product)


def test_nobody_acts_for_another_role(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    on = (flow.pid, flow.product)
    for act in (
        ("halt", flow.release(), ""),
        ("attest", flow.release(), 0, word("e")),
        ("anchor", flow.release(), 1, word("r"), 1, 0),
        ("setFleet", word("root"), 1),
        ("withdraw", word("terms")),
        ("pause",),
        ("restrict", flow.product.governance),
        ("cancel", flow.product.governance),
    ):
        name, *rest = act
        flow.refused("NotAuthorized", "outsider", name, *on, *rest)
        assert data(flow)[0] == address("outsider")


def test_the_255th_halt_is_the_last(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    on = (flow.pid, flow.product)
    for halts in range(1, 256):
        flow.accepted("guard", "halt", *on, flow.release(), "")
        if halts < 255:
            resume = flow.decision(Action.RESUME, halts)
            flow.accepted("owner", "resume", *on, flow.release(), resume)
    last = flow.decision(Action.RESUME, 255)
    flow.refused("HaltsExhausted", "owner", "resume", *on, flow.release(), last)


def test_halts_of_more_than_136_years_cannot_be_resumed(flow: Flow) -> None:
    flow.publish(flow.terms(), "alice", "bob")
    on = (flow.pid, flow.product)
    flow.accepted("guard", "halt", *on, flow.release(), "")
    flow.wait = 2**32 + 1
    resume = flow.decision(Action.RESUME, 1)
    flow.refused("HaltedTooLong", "owner", "resume", *on, flow.release(), resume)
    assert data(flow) == (2**32 + 1,)


def test_both_of_two_do_not_skip_the_delay(flow: Flow) -> None:
    before = flow.product.governance
    following = changed(before, approvers=addresses("alice", "bob"))
    flow.accepted("carol", "restrict", flow.pid, flow.product, following)
    published = flow.now
    flow.publish(flow.terms(), "alice", "bob")
    assert flow.release().state.starts_at == published + before.release_delay


def _agreed(flow: Flow) -> Any:
    decision = Decision(flow.pid, 1, Action.RESUME, 0, flow.product.governance.epoch, FAR)
    return flow.signed(decision, "alice", "bob")
