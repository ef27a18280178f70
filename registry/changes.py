"""Changes of governance: which are well formed, and which only tighten.

The rules of contracts/IReleaseLedger.sol (`amend`, `restrict`) in plain Python, for auditors and
for whoever proposes a change. Pure.

Not here: who agreed to a change, and when it takes effect (`registry.replay`), and what it is in
words (`registry.differences`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from protocol.ids import Address
from protocol.ledger import COHORTS
from protocol.records import NOBODY, Governance


def is_well_formed(g: Governance) -> bool:
    """Within the limits that IReleaseLedger.Governance names; list lengths are the record's."""
    lists: tuple[Sequence[bytes], ...] = (g.approvers, g.guardians, g.auditors, g.reporters)
    ordered = all(left < right for members in lists for left, right in pairwise(members))
    somebody = all(member != NOBODY for members in lists for member in members)
    keys = [key.key_id for key in g.keys]
    return (
        ordered
        and somebody
        and all(left < right for left, right in pairwise(keys))
        and all(any(key) for key in keys)
        and 1 <= g.threshold <= len(g.approvers)
        and g.halt_rule.max_failure_bps <= COHORTS
    )


def guardians(g: Governance) -> tuple[bytes, ...]:
    """Who may halt: those named, or the approvers."""
    return g.guardians or g.approvers


def watchers(g: Governance) -> set[bytes]:
    """Who may pause, cancel and restrict."""
    return {*g.approvers, *g.guardians}


def is_tightening(old: Governance, new: Governance) -> bool:
    """Whether M of N may make this change at once."""
    keeps_guardians = (
        not old.guardians
        if not new.guardians
        else {*(old.guardians or new.approvers)} <= {*new.guardians}
    )
    return keeps_guardians and _tightens_besides(old, new)


def is_removal(old: Governance, new: Governance, guardian: Address) -> bool:
    """Whether this change takes that guardian's seat and else only tightens."""
    others = tuple(member for member in old.guardians if member != guardian)
    return old.guardians != others == new.guardians and _tightens_besides(old, new)


def is_restriction(old: Governance, new: Governance, by: Address, latest_release: int) -> bool:
    """Whether one watcher may make this change alone; keys are revoked, or retired as of now."""
    gone = {*old.approvers} - {*new.approvers}
    same = (
        "threshold",
        "guardians",
        "release_delay",
    )
    return (
        _only_less(old, new)
        and {*new.approvers} <= {*old.approvers}
        and gone <= {by}
        and _only_closed(old, new, latest_release)
        and all(getattr(new, name) == getattr(old, name) for name in same)
    )


def is_same(old: Governance, new: Governance) -> bool:
    """Whether nothing but the epoch differs."""
    return replace(old, epoch=new.epoch) == new


def _only_closed(old: Governance, new: Governance, latest_release: int) -> bool:
    return all(
        after.valid_through in (before.valid_through, 0, latest_release)
        for before, after in zip(old.keys, new.keys, strict=True)
    )


def _tightens_besides(old: Governance, new: Governance) -> bool:
    """Whether all members but the guardians stay or are tightened."""
    return (
        _only_less(old, new)
        and {*new.approvers} <= {*old.approvers}
        and new.threshold >= old.threshold
        and new.release_delay >= old.release_delay
    )


def _only_less(old: Governance, new: Governance) -> bool:
    lowered = [key.key_id for key in old.keys] == [key.key_id for key in new.keys] and all(
        after.valid_through <= before.valid_through
        for before, after in zip(old.keys, new.keys, strict=True)
    )
    return (
        {*new.auditors} <= {*old.auditors}
        and {*new.reporters} <= {*old.reporters}
        and new.enroller in (old.enroller, NOBODY)
        and lowered
        and new.halt_rule == old.halt_rule
    )
