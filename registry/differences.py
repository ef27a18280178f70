"""What a change of governance is in words, member by member, and whether it has to wait.

Guarantees: a change that only tightens (`registry.changes.is_tightening`) has no difference that
loosens, any other has at least one; so what is shown to approvers is why a change waits. Pure.

Not here: the rules themselves (`registry.changes`), and who agreed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from protocol.records import ACTIVE_KEY, NOBODY, Governance, HaltRule, SigningKey
from registry.rollout import write_time

Name = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One step of a change. ``loosens``: on account of it the whole change waits."""

    text: str
    loosens: bool


def plainly(account: bytes) -> str:
    """An account as 0x-hex, for whom nobody has another name."""
    return "0x" + account.hex()


def differences(old: Governance, new: Governance, name: Name = plainly) -> list[Difference]:
    """Everything that differs but the epoch; ``name`` says what an account is called."""
    return [Difference(text, loosens) for text, loosens in _found(old, new, name)]


def _found(old: Governance, new: Governance, name: Name) -> Iterator[tuple[str, bool]]:
    yield from _members("approver", old.approvers, new.approvers, name)
    if old.threshold != new.threshold:
        of = f"of {len(new.approvers)}"
        yield (
            f"{new.threshold} {of} must approve, not {old.threshold}",
            new.threshold < old.threshold,
        )
    yield from _guardians(old, new, name)
    yield from _members("auditor", old.auditors, new.auditors, name)
    yield from _members("reporter", old.reporters, new.reporters, name)
    if old.enroller != new.enroller:
        nobody = new.enroller == NOBODY
        text = (
            "nobody sets the fleet any more" if nobody else f"{name(new.enroller)} sets the fleet"
        )
        yield text, not nobody
    yield from _keys(old.keys, new.keys)
    if old.halt_rule != new.halt_rule:
        yield f"halts by itself {describe_rule(new.halt_rule)}", True
    if old.release_delay != new.release_delay:
        wait = write_time(new.release_delay)
        shorter = new.release_delay < old.release_delay
        yield f"releases start {wait} after publication", shorter
    if old.governance_delay != new.governance_delay:  # which the contract never takes
        yield f"loosening waits {write_time(new.governance_delay)}", True


def _members(
    role: str, old: tuple[bytes, ...], new: tuple[bytes, ...], name: Name
) -> Iterator[tuple[str, bool]]:
    for account in sorted({*new} - {*old}):
        yield f"{name(account)} becomes {_article(role)}", True
    for account in sorted({*old} - {*new}):
        yield f"{name(account)} is no {role} any more", False


def _guardians(old: Governance, new: Governance, name: Name) -> Iterator[tuple[str, bool]]:
    """More of them tighten, fewer loosen; the approvers are the guardians where none is named."""
    if old.guardians and not new.guardians:
        yield "the approvers are the guardians", True
    elif not old.guardians and new.guardians:
        named = ", ".join(map(name, new.guardians))
        left_out = not {*new.approvers} <= {*new.guardians}
        yield f"the guardians are {named}, instead of the approvers", left_out
    else:
        for account in sorted({*new.guardians} - {*old.guardians}):
            yield f"{name(account)} becomes a guardian", False
        for account in sorted({*old.guardians} - {*new.guardians}):
            yield f"{name(account)} is no guardian any more", True


def _keys(old: tuple[SigningKey, ...], new: tuple[SigningKey, ...]) -> Iterator[tuple[str, bool]]:
    before = {key.key_id: key.valid_through for key in old}
    after = {key.key_id: key.valid_through for key in new}
    for key in sorted(after.keys() - before.keys()):
        yield f"signing key {plainly(key)} is added, {describe_key(after[key])}", True
    for key in sorted(before.keys() - after.keys()):
        yield f"signing key {plainly(key)} is dropped from the list", True
    for key in sorted(before.keys() & after.keys()):
        if before[key] != after[key]:
            text = f"signing key {plainly(key)} is {describe_key(after[key])}"
            yield text, after[key] > before[key]


def describe_key(valid_through: int) -> str:
    """What a signing key may still do."""
    if valid_through == ACTIVE_KEY:
        return "active"
    if valid_through == 0:
        return "revoked: it verifies nothing"
    return f"retired: it verifies releases up to {valid_through}"


def describe_rule(rule: HaltRule) -> str:
    """When receipts halt a release by themselves."""
    if not rule.min_failures:
        return "never"
    return f"at {rule.min_failures} failures above {rule.max_failure_bps / 100:g}%"


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
