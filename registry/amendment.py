"""A change of governance on its way: what it was, what it shall be, and who has signed so far.

It travels as a file, so that people sign it in different places, one after the other.

Guarantees: a `Change` that was opened is well formed, of the next epoch, and every signature in it
is by an approver of the governance it starts from. Saving replaces the file in one step.

Rules: all signatures share one ``valid_until``, since the contract takes one for all. What the file
says the governance *is* is its author's word: `Change.require_current` compares it with the
ledger's before it is shown to somebody who signs.

Not here: what the change is in words (`registry.differences`), and sending it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from protocol.errors import LocalFault, Malformed, Misuse, Refused, Untrusted
from protocol.ids import Address, Hash, ProductId
from protocol.records import Amendment, Governance, Ledger, Product
from registry.approvals import Approvals, gather, recover
from registry.changes import is_well_formed
from registry.depth import read_json
from registry.files import whole_file
from registry.keys import Account

CHANGE_FORMAT = "firmledger-change-1"
MAX_CHANGE_BYTES = 64 * 1024
APPROVAL_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Change:
    """``current`` becomes ``next``, if enough of the approvers of ``current`` sign."""

    ledger: Ledger
    product: ProductId
    product_name: str
    current: Governance
    next: Governance
    approvals: Approvals

    @property
    def digest(self) -> Hash:
        """What is signed: EIP-712, until ``approvals.valid_until``."""
        until = self.approvals.valid_until
        message = Amendment(self.product, self.next, self.current.epoch, until)
        return self.ledger.digest(message)

    @property
    def signers(self) -> list[Address]:
        """Who signed, ascending; `Untrusted` if a signature is none."""
        return [recover(self.digest, one) for one in self.approvals.signatures]

    @property
    def is_agreed(self) -> bool:
        """Whether as many signed as the ledger asks for."""
        return len(self.signers) >= self.current.threshold

    def signed_by(self, account: Account) -> Change:
        """With this account's signature; not saved yet. `Misuse` if it has none to give."""
        if account.address not in self.current.approvers:
            raise Misuse(
                "not-an-approver",
                f"signature of {account.name} refused",
                f"{account.address} is no approver of {self.product_name}",
                "let an approver sign; see `firmledger product show`",
            )
        if account.address in self.signers:
            raise Misuse(
                "already-approved",
                f"signature of {account.name} refused",
                "it is there already",
                "let another approver sign",
            )
        until = self.approvals.valid_until
        signatures = (*self.approvals.signatures, account.sign(self.digest))
        return replace(self, approvals=gather(self.digest, until, signatures))

    def require_current(self, ledger: Ledger, product: Product) -> None:
        """`Refused` unless the ledger has the very governance that this change starts from."""
        if ledger != self.ledger:
            raise Misuse(
                "another-ledger",
                "change refused",
                f"it is for contract {self.ledger.contract} on chain {self.ledger.chain_id}",
                "use a registry of that ledger (-C)",
            )
        if product.governance != self.current:
            raise Refused(
                "stale-change",
                "change refused",
                f"it starts from epoch {self.current.epoch}, the ledger has epoch"
                f" {product.governance.epoch} of {self.product_name}, or other members",
                "propose it anew, and let everybody sign again",
            )

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "format": CHANGE_FORMAT,
            "product": {"id": str(self.product), "name": self.product_name},
            "chain_id": self.ledger.chain_id,
            "contract": str(self.ledger.contract),
            "current": self.current.to_json(),
            "next": self.next.to_json(),
            "approvals": self.approvals.to_json(),
        }

    def save(self, path: Path) -> None:
        """Writes the file, in one step."""
        with whole_file(path) as file:
            file.write(json.dumps(self.to_json(), indent=2).encode() + b"\n")


def propose(
    ledger: Ledger, product: ProductId, name: str, record: Product, coming: Governance, now: int
) -> Change:
    """A change that nobody has signed yet; signatures count for `APPROVAL_SECONDS` from ``now``."""
    nobody = Approvals(now + APPROVAL_SECONDS, ())
    return Change(ledger, product, name, record.governance, coming, nobody)


def open_change(path: Path) -> Change:
    """The change in a file; `Misuse` if there is none, `Malformed` or `Untrusted` if it is bad."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CHANGE_BYTES + 1)
    except FileNotFoundError:
        raise Misuse(
            "no-such-file",
            f"{path} not used",
            "it is not there",
            "write one with `firmledger product propose -o`",
        ) from None
    except OSError as fault:
        raise LocalFault("file-unreadable", f"{path} not read", str(fault), "check it") from fault
    if len(data) > MAX_CHANGE_BYTES:
        raise Malformed(
            "oversized", f"{path} refused", f"it passes {MAX_CHANGE_BYTES} bytes", "check the file"
        )
    change = _parse(path, data)
    signers = change.signers
    strangers = [str(signer) for signer in signers if signer not in change.current.approvers]
    if strangers:
        raise Untrusted(
            "not-an-approver",
            f"{path} refused",
            f"{strangers[0]} signed it and is no approver, or signed something else",
            "get the file again from whoever proposed it",
        )
    if any(left >= right for left, right in pairwise(signers)):
        raise _bad(path, "its signatures do not ascend by signer, each once")
    return change


def _parse(path: Path, data: bytes) -> Change:
    try:
        text = read_json(data)
        if text["format"] != CHANGE_FORMAT:
            raise ValueError(f"its format is {text['format']!r}")
        current, coming = (Governance.from_json(text[name]) for name in ("current", "next"))
        follows = coming.epoch == current.epoch + 1
        if not (follows and is_well_formed(current) and is_well_formed(coming)):
            raise ValueError("no such governance can follow another")
        return Change(
            ledger=Ledger(int(text["chain_id"]), Address.parse(text["contract"])),
            product=ProductId.parse(text["product"]["id"]),
            product_name=str(text["product"]["name"]),
            current=current,
            next=coming,
            approvals=Approvals.from_json(text["approvals"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, Malformed) as fault:
        raise _bad(path, f"it is not what `product propose` wrote: {fault}") from fault


def _bad(path: Path, why: str) -> Malformed:
    fix = "get it again from whoever proposed it"
    return Malformed("bad-change", f"{path} refused", why, fix)
