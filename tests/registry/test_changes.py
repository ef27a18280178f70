"""What a change of governance is in words, and what edits make of one: against the rules that the
contract has, for governances drawn at random.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.digests import sha256
from protocol.errors import Misuse
from protocol.ids import Address, KeyId
from protocol.records import ACTIVE_KEY, NOBODY, Governance, HaltRule, SigningKey
from registry.changes import is_restriction, is_same, is_tightening, is_well_formed
from registry.differences import differences
from registry.edits import Edits
from tests.contracts import rules
from tests.registry.scene import governance

PEOPLE = [Address(bytes([n]) * 20) for n in range(1, 5)]
KEYS = [KeyId(sha256(bytes([n]))) for n in range(3)]


def some(minimum: int = 0) -> st.SearchStrategy[tuple[Address, ...]]:
    lists = st.lists(st.sampled_from(PEOPLE), min_size=minimum, unique=True)
    return lists.map(lambda members: tuple(sorted(members)))


@st.composite
def governances(draw: Any) -> Governance:
    approvers = draw(some(1))
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True))
    through = st.sampled_from([0, 2, 3, ACTIVE_KEY])
    return Governance(
        approvers=approvers,
        threshold=draw(st.integers(1, len(approvers))),
        epoch=1,
        guardians=draw(some()),
        auditors=draw(some()),
        reporters=draw(some()),
        enroller=draw(st.sampled_from([NOBODY, *PEOPLE[:2]])),
        keys=tuple(SigningKey(key, draw(through)) for key in sorted(keys)),
        halt_rule=draw(st.sampled_from([HaltRule(0, 0), HaltRule(2, 2_000)])),
        release_delay=draw(st.sampled_from([0, 60])),
        governance_delay=60,
    )


@settings(max_examples=400, deadline=None)
@given(governances(), governances())
def test_a_change_is_said_to_loosen_exactly_if_it_has_to_wait(
    old: Governance, new: Governance
) -> None:
    found = differences(old, new)
    assert any(difference.loosens for difference in found) is not is_tightening(old, new)
    assert bool(found) is not is_same(old, new)


@settings(max_examples=400, deadline=None)
@given(
    governances(),
    governances(),
    st.sampled_from(PEOPLE),
    st.integers(0, 4),
    st.tuples(*[st.sampled_from([0, 1, 2, 3])] * len(KEYS)),
)
def test_what_one_watcher_may_is_what_the_contract_says(
    old: Governance, new: Governance, watcher: Address, latest: int, through: tuple[int, ...]
) -> None:
    lowered = tuple(
        replace(key, valid_through=least) for key, least in zip(old.keys, through, strict=False)
    )
    near = replace(old, auditors=new.auditors, keys=new.keys, approvers=new.approvers)
    for coming in (new, near, replace(old, keys=lowered)):
        try:
            rules.require_restriction(old, coming, watcher, latest)
            allowed = True
        except rules.Refused:
            allowed = False
        if not is_same(old, coming):
            assert is_restriction(old, coming, watcher, latest) is allowed


@settings(max_examples=300, deadline=None)
@given(
    governances(),
    st.dictionaries(st.sampled_from(["approver", "guardian", "auditor", "reporter"]), some()),
    st.dictionaries(st.sampled_from(["approver", "guardian", "auditor", "reporter"]), some()),
    st.none() | st.integers(1, 4),
    st.lists(st.sampled_from(KEYS), unique=True, max_size=2),
)
def test_edits_make_a_governance_that_the_ledger_takes_or_are_refused(
    old: Governance, added: Any, removed: Any, threshold: int | None, retired: list[KeyId]
) -> None:
    edits = Edits(added, removed, threshold, keys_retired=tuple(retired))
    try:
        new = edits.applied(old, 2)
    except Misuse:
        return
    assert is_well_formed(new) and new.epoch == old.epoch + 1 and not is_same(old, new)
    for role, members in added.items():
        assert {*members} <= {*getattr(new, role + "s")}
    for role, members in removed.items():
        if not {*members} & {*added.get(role, ())}:
            assert not {*members} & {*getattr(new, role + "s")}
    assert all(key.valid_through == 2 for key in new.keys if key.key_id in retired)


def test_more_keys_than_a_product_lists_are_refused() -> None:
    many = tuple(KeyId(sha256(b"%d" % n)) for n in range(17))
    with pytest.raises(Misuse) as refused:
        Edits(keys_added=many).applied(governance(), 0)
    assert refused.value.reason == "too-many"


def test_a_share_above_all_is_refused() -> None:
    with pytest.raises(Misuse) as refused:
        Edits(halt_rule=HaltRule(1, 10_001)).applied(governance(), 0)
    assert refused.value.reason == "bad-governance"


def test_a_key_is_closed_once() -> None:
    (key,) = governance().keys
    retired = replace(governance(), keys=(replace(key, valid_through=2),))
    revoked = replace(governance(), keys=(replace(key, valid_through=0),))
    name = KeyId(key.key_id)
    for before, edits in (
        (retired, Edits(keys_retired=(name,))),
        (revoked, Edits(keys_retired=(name,))),
        (revoked, Edits(keys_revoked=(name,))),
    ):
        with pytest.raises(Misuse) as refused:
            edits.applied(before, 5)
        assert refused.value.reason == "not-there"
    (closed,) = Edits(keys_revoked=(name,)).applied(retired, 5).keys
    assert closed.valid_through == 0
