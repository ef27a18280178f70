"""A product's governance as it is shown, and a change of it: in words, and what became of it.

Rules: what loosens is marked, for it is why the change waits; accounts whose keys are here go by
their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from protocol.errors import Refused
from registry.clock import moment
from registry.commands.desk import answer, say
from registry.rollout import write_time

if TYPE_CHECKING:
    from protocol.records import Governance
    from registry.amendment import Change
    from registry.differences import Difference
    from registry.keys import Keyring


class Shown:
    """A change in words."""

    def __init__(self, keyring: Keyring, change: Change) -> None:
        from registry.changes import is_tightening
        from registry.differences import differences

        self._change, self._names = change, names_of(keyring)
        self._differences = differences(change.current, change.next, self._names)
        self.waits = 0
        if not is_tightening(change.current, change.next):
            self.waits = change.current.governance_delay

    def weigh(self, latest_release: int, pending_until: int) -> None:
        """What its author should know, to stderr; `Refused` if another change is in its way.

        ``pending_until``: when a change that waits takes effect, 0 if none does.
        """
        if pending_until and self.waits:
            raise Refused(
                "change-pending",
                f"change of {self._change.product_name} not proposed",
                f"another one takes effect at {moment(pending_until)}",
                "wait for it, or cancel it first with `firmledger product cancel`",
            )
        if pending_until:
            say("this drops the change that waits")
        before = self._change.current.keys
        closed = [k for k in self._change.next.keys if 0 < k.valid_through <= latest_release]
        if self.waits and any(key not in before for key in closed):
            say(
                f"warning: a key is retired as of release {latest_release}: what it signs while"
                f" this change waits {write_time(self.waits)} is refused afterwards"
            )

    def tell(
        self,
        state: str,
        more: list[str],
        as_json: bool,
        found: Any = None,
        spent: dict[str, Any] | None = None,
    ) -> None:
        """The answer; ``found``: the product after it was sent, which cost ``spent``."""
        change, signers = self._change, self._change.signers
        effective = effective_at(found) if found else 0
        document = {
            "product": change.product_name,
            "id": str(change.product),
            "state": state,
            "changes": [{"text": d.text, "loosens": d.loosens} for d in self._differences],
            "waits": self.waits,
            "epoch": change.next.epoch,
            "digest": str(change.digest),
            "signed_by": [str(signer) for signer in signers],
            "threshold": change.current.threshold,
            "effective_at": effective,
            **(spent or {}),
        }
        lines = [self._line(difference) for difference in self._differences]
        if found is None:
            lines.append(self._when())
            lines.append(
                f"signed by {', '.join(map(self._names, signers)) or 'nobody'}: "
                f"{len(signers)} of {change.current.threshold}"
            )
        elif effective:
            watchers = ", ".join(sorted(map(self._names, watchers_of(change.current))))
            lines.append(f"takes effect at {moment(effective)}; until then {watchers} may cancel")
        else:
            lines.append("in effect")
        if spent:
            lines.append(f"tx {spent['tx']}, {spent['gas']} gas, block {spent['block']}")
        answer(document, [*lines, *more], as_json)

    def _line(self, difference: Difference) -> str:
        return f"{'loosens ' if difference.loosens else 'tightens'}  {difference.text}"

    def _when(self) -> str:
        if self.waits:
            return f"takes effect {write_time(self.waits)} after it is on the ledger"
        return "takes effect at once"


def roles(keyring: Keyring, rules: Governance) -> list[str]:
    """Who may do what, and by which keys and rules."""
    from protocol.records import NOBODY
    from registry.differences import describe_key, describe_rule

    called = names_of(keyring)

    def listed(accounts: tuple[bytes, ...]) -> str:
        return ", ".join(map(called, accounts))

    delays = f"releases {write_time(rules.release_delay)}, loosening "
    lines = [
        f"approvers  {rules.threshold} of {len(rules.approvers)}: {listed(rules.approvers)}",
        f"guardians  {listed(rules.guardians) or 'the approvers'}",
        f"auditors   {listed(rules.auditors) or 'nobody'}",
        f"reporters  {listed(rules.reporters) or 'nobody'}",
        f"enroller   {'nobody' if rules.enroller == NOBODY else called(rules.enroller)}",
        f"halts      by itself {describe_rule(rules.halt_rule)}",
        f"delays     {delays}{write_time(rules.governance_delay)}",
    ]
    keys = [f"0x{key.key_id.hex()} {describe_key(key.valid_through)}" for key in rules.keys]
    return lines + [f"key        {key}" for key in keys]


def pending(keyring: Keyring, found: Any, rules: Governance) -> list[str]:
    """The change that waits, when it takes effect, and who may cancel it."""
    from protocol.records import Governance as Rules
    from registry.differences import differences

    if found["pending"] is None:
        return []
    called = names_of(keyring)
    coming = differences(rules, Rules.from_json(found["pending"]), called)
    watchers = ", ".join(sorted(map(called, watchers_of(rules))))
    return [
        f"PENDING    takes effect at {moment(effective_at(found))}",
        *[f"           {difference.text}" for difference in coming],
        f"           may be cancelled by {watchers}",
    ]


def names_of(keyring: Keyring) -> Callable[[bytes], str]:
    """What an account is called here: its key's name, or 0x-hex."""
    names = {bytes(keyring.account(name).address): name for name in keyring.account_names()}

    def called(account: bytes) -> str:
        return names.get(bytes(account), "0x" + account.hex())

    return called


def watchers_of(rules: Governance) -> list[bytes]:
    """Who may pause, cancel and restrict, ascending."""
    from registry.changes import watchers

    return sorted(watchers(rules))


def effective_at(found: Any) -> int:
    """When the change that waits takes effect, by a product as the API shows it; 0 if none."""
    return int(found["record"]["effective_at"]) if found["pending"] else 0
