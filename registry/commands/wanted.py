"""The options of ``product propose`` as they were typed, and the edits that they ask for.

Rules: a name that is added and has no key yet gets one, as in ``product create``; who is removed is
known by name here, or by account.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.commands.values import parse_halt_rule
from registry.rollout import parse_duration

if TYPE_CHECKING:
    from protocol.ids import Address, KeyId
    from registry.edits import Edits
    from registry.keys import Keyring


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options as they were given."""

    members: dict[str, tuple[list[str] | None, list[str] | None]]
    keys: tuple[list[str] | None, list[str] | None, list[str] | None]
    threshold: int | None
    enroller: str | None
    halt_after: str | None
    release_delay: str | None

    @property
    def something(self) -> bool:
        """Whether any was."""
        single = (self.threshold, self.enroller, self.halt_after, self.release_delay)
        several = [*self.keys, *(given for pair in self.members.values() for given in pair)]
        return any(value is not None for value in single) or any(several)

    def edits(self, keyring: Keyring, name: str, known: set[bytes]) -> Edits:
        """The edits, with accounts and keys found or drawn; ``known``: keys the ledger has."""
        from protocol.records import NOBODY, HaltRule
        from registry.edits import Edits

        added = {r: _accounts(keyring, new, draw=True) for r, (new, _) in self.members.items()}
        removed = {r: _accounts(keyring, old, draw=False) for r, (_, old) in self.members.items()}
        new, retired, revoked = (_key_ids(keyring, name, keys, known) for keys in self.keys)
        enroller = None
        if self.enroller is not None:
            nobody = self.enroller == "nobody"
            enroller = NOBODY if nobody else _accounts(keyring, [self.enroller], draw=True)[0]
        rule = None if self.halt_after is None else HaltRule(*parse_halt_rule(self.halt_after))
        delay = None if self.release_delay is None else parse_duration(self.release_delay)
        return Edits(added, removed, self.threshold, enroller, new, retired, revoked, rule, delay)


def _accounts(keyring: Keyring, names: list[str] | None, *, draw: bool) -> tuple[Address, ...]:
    """Names and 0x-accounts as accounts; ``draw``: a name without a key gets one."""
    from protocol.ids import Address

    found = []
    for each in names or ():
        if each.startswith("0x"):
            found.append(Address.parse(each))
        elif draw:
            found.append(keyring.ensure_account(each, secrets.token_bytes).address)
        else:
            found.append(keyring.account(each).address)
    return tuple(found)


def _key_ids(
    keyring: Keyring, name: str, texts: list[str] | None, known: set[bytes]
) -> tuple[KeyId, ...]:
    """Signing keys by number or id, or drawn now; ids need no keys here."""
    from protocol.ids import KeyId
    from registry import signing_keys

    found: list[KeyId] = []
    for text in texts or ():
        if text == "new":
            taken = {*known, *found}
            held = keyring.product(name)
            drawn = signing_keys.draw(keyring.folder, held, taken, secrets.token_bytes)
            found.append(drawn.id)
        elif text.startswith("0x"):
            found.append(KeyId.parse(text))
        else:
            found.append(signing_keys.named(keyring.folder, keyring.product(name), text))
    return tuple(found)
