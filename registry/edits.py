"""Edits: what somebody wants to be different in a product's governance, and what comes of it.

Guarantees: `Edits.applied` gives a governance that the contract's limits allow, of the next epoch,
with those edits and no others; what cannot be edited so is refused by name, before anybody signs.

Rules: who is added is not there yet, who is removed is; a signing key stays in the list for ever,
retired as of the newest release or revoked. Pure.

Not here: whether the change has to wait (`registry.changes`), and who agrees to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeVar

from protocol.errors import Misuse
from protocol.ids import Address, KeyId
from protocol.records import MAX_MEMBERS, Governance, HaltRule, SigningKey
from registry.changes import is_same, is_well_formed

ROLES = {
    "approver": "approvers",
    "guardian": "guardians",
    "auditor": "auditors",
    "reporter": "reporters",
}
"""What one is called, and the member of the governance that lists all."""

Member = TypeVar("Member")

_SHOW = "see `firmledger product show`"


@dataclass(frozen=True, slots=True)
class Edits:
    """``added`` and ``removed``: accounts by role; None and nothing: as it is."""

    added: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    removed: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    threshold: int | None = None
    enroller: Address | None = None
    keys_added: tuple[KeyId, ...] = ()
    keys_retired: tuple[KeyId, ...] = ()
    keys_revoked: tuple[KeyId, ...] = ()
    halt_rule: HaltRule | None = None
    release_delay: int | None = None

    def applied(self, old: Governance, latest_release: int) -> Governance:
        """The governance to come; ``latest_release``: up to which retired keys still verify."""
        changes: dict[str, Any] = {
            "threshold": self.threshold,
            "enroller": self.enroller,
            "halt_rule": self.halt_rule,
            "release_delay": self.release_delay,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        for role, name in ROLES.items():
            changes[name] = self._accounts(role, getattr(old, name))
        changes["keys"] = self._keys(old, latest_release)
        new = replace(old, epoch=old.epoch + 1, **changes)
        if new.threshold > len(new.approvers) or not new.approvers:
            _refuse(
                "bad-threshold",
                f"{new.threshold} shall approve, and there are {len(new.approvers)} approvers",
                "lower --threshold, or name more approvers",
            )
        if is_same(old, new):
            _refuse("no-change", "nothing would be different", "say what shall change; see --help")
        if not is_well_formed(new):
            why = "the ledger would not take it: a share above 100%, or the account of nobody"
            _refuse("bad-governance", why, "mend what you named")
        return new

    def _accounts(self, role: str, old: tuple[bytes, ...]) -> tuple[bytes, ...]:
        known = {*old}
        for account in self.removed.get(role, ()):
            if account not in known:
                _refuse("not-there", f"{account} is not among the {ROLES[role]}", _SHOW)
            known.remove(account)
        for account in self.added.get(role, ()):
            if account in known:
                _refuse("there-already", f"{account} is among the {ROLES[role]} already", _SHOW)
            known.add(account)
        return _bounded(ROLES[role], tuple(sorted(known)))

    def _keys(self, old: Governance, latest_release: int) -> tuple[SigningKey, ...]:
        through = {KeyId(key.key_id): key.valid_through for key in old.keys}
        for key in self.keys_added:
            if key in through:
                why = f"signing key {key} is in the list, which a key never leaves"
                _refuse("there-already", why, "draw another one with --add-key new")
        for keys, until in ((self.keys_retired, latest_release), (self.keys_revoked, 0)):
            for key in keys:
                if key not in through:
                    _refuse("not-there", f"the ledger lists no signing key {key}", _SHOW)
                if through[key] <= until:
                    _refuse("not-there", f"signing key {key} is retired or revoked already", _SHOW)
                through[key] = until
        listed = [SigningKey(key, until) for key, until in through.items()]
        listed += [SigningKey(key) for key in self.keys_added]
        return _bounded("signing keys", tuple(sorted(listed, key=lambda key: key.key_id)))


def _bounded(what: str, members: tuple[Member, ...]) -> tuple[Member, ...]:
    if len(members) > MAX_MEMBERS:
        why = f"there would be {len(members)} {what}, the ledger takes {MAX_MEMBERS}"
        _refuse("too-many", why, "remove some first")
    return members


def _refuse(reason: str, why: str, fix: str) -> NoReturn:
    raise Misuse(reason, "change not proposed", why, fix)
