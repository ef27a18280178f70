"""What the contract's custom errors mean: one sentence why and one what to do, for each.

Guarantees: every error of contracts/IReleaseLedger.sol has its row, with no member that it lacks;
a test compares the two. `refusal` is the only place where they become errors of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from protocol.errors import LedgerRefused
from protocol.ids import Version
from protocol.ledger import Status
from registry.artifact import artifact
from registry.clock import moment

_RETRY = "take the record from the newest event and try again"
_SHOW = "see `firmledger product show`"
_TIMES = {"valid_until", "timestamp", "paused_at", "effective_at"}

# error: (why, what to do)
SENTENCES: dict[str, tuple[str, str]] = {
    "ProductExists": (
        "product {product_id} is there already",
        "use it, or create another with a new salt",
    ),
    "UnknownProduct": (
        "this ledger has no product {product_id}",
        "check the product id and that this is the right ledger",
    ),
    "StaleProduct": (
        "the record of product {product_id} is no longer current",
        _RETRY,
    ),
    "UnknownRelease": (
        "product {product_id} has no release {release_id}",
        "see `firmledger release list`",
    ),
    "StaleRelease": (
        "the record of release {release_id} is no longer current",
        _RETRY,
    ),
    "NotAuthorized": (
        "{caller} is not the product's {role}",
        f"let somebody act who holds that role; {_SHOW}",
    ),
    "ApprovalsExpired": (
        "the approvals were valid until {valid_until}, and the ledger's time is {timestamp}",
        "approve again",
    ),
    "TooFewApprovals": (
        "it has {given} approvals and needs {threshold}",
        "let more approvers approve, then give the same command again",
    ),
    "NotAnApprover": (
        "an approval is by {signer}, who is no approver; or it is of something else; or, if that is"
        " all zeros, it is no valid signature",
        f"drop that approval, or approve exactly this; {_SHOW}",
    ),
    "SignersNotAscending": (
        "the approval of {signer} does not stand above that of {previous}",
        "order the approvals by signer, each once",
    ),
    "NotApprovedOnChain": (
        "{approver} has not approved {digest} by a transaction of its own",
        "let it call approve, or leave it out",
    ),
    "TermsAreWithdrawn": (
        "an approver withdrew the terms {terms_hash}",
        "agree on new terms; these can never be published",
    ),
    "ProductIsPaused": (
        "the product is paused since {paused_at}",
        "let the approvers unpause it first",
    ),
    "ProductNotPaused": (
        "the product is not paused",
        "there is nothing to do",
    ),
    "VersionNotRising": (
        "version {given} is not above the newest, {newest}",
        "build the release with a higher version",
    ),
    "CounterFalling": (
        "security counter {given} is below the newest, {newest}",
        "build the release with that security counter or a higher one",
    ),
    "InvalidTerms": (
        "the terms are not valid in {field}",
        "build the release with other terms: the interface's Terms say what each may be",
    ),
    "InvalidRollout": (
        "phase {phase} of the rollout is not valid in {field}",
        "mend the rollout and build the release again",
    ),
    "InvalidGovernance": (
        "the governance is not valid in {field}",
        "mend that member; limits stand in docs/contract.md",
    ),
    "EpochMismatch": (
        "it is for epoch {given} and the ledger is at {expected}",
        "the governance has changed: make it again, and approve it again",
    ),
    "AmendmentPending": (
        "another change takes effect at {effective_at}",
        "wait for it, or cancel it first",
    ),
    "NothingPending": (
        "product {product_id} has no change waiting",
        "there is nothing to cancel; what is in effect is changed by an amendment",
    ),
    "StaleAmendment": (
        "the change that waits is {pending}, and {given} is given",
        "take the pending governance from the newest proposal and try again",
    ),
    "OwnRemoval": (
        "the change that waits removes guardian {guardian} and loosens nothing",
        "let another watcher cancel it, if it is to be cancelled",
    ),
    "NotATightening": (
        "it does more than restrict: {field}",
        "propose it as an amendment, with approvals",
    ),
    "WrongStatus": (
        "the release is {status}",
        "see `firmledger release show`",
    ),
    "AlreadySuperseded": (
        "release {release_id} is superseded already",
        "there is nothing to do",
    ),
    "HaltedTooLong": (
        "the release would have been halted for {halted_total} seconds, more than its record holds",
        "publish a higher version instead",
    ),
    "HaltsExhausted": (
        "release {release_id} was halted too often to be resumed",
        "publish a higher version instead",
    ),
    "AlreadyAttested": (
        "an attestation of kind {kind} is there already",
        "there is nothing to do",
    ),
    "InvalidKind": (
        "there is no attestation of kind {kind}",
        "use a kind from 0 to 7",
    ),
    "LogNotGrowing": (
        "the receipt log has {size} entries already, and {new_size} are given",
        "anchor what came after them",
    ),
    "DeltaExceedsGrowth": (
        "{delta} outcomes are counted for {growth} new receipts",
        "count each new receipt at most once",
    ),
    "ReasonTooLong": (
        "the reason has {length} bytes and may have 256",
        "say it in fewer words",
    ),
}


def refusal(data: bytes, function: str) -> LedgerRefused:
    """The refusal that revert data stands for, of a call of ``function``."""
    what = f"{function} refused by the ledger"
    found = artifact().decode_error(data)
    if found is None:
        return LedgerRefused(
            "reverted",
            what,
            f"it was reverted with {'0x' + data[:64].hex() if data else 'no reason'}",
            "check that the contract's address and version are right",
            error="",
        )
    name, args = found
    why, fix = SENTENCES[name]
    return LedgerRefused(
        re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(),
        what,
        why.format_map(_shown(name, args)),
        fix,
        error=name,
        **{key: _plain(value) for key, value in args.items()},
    )


def _shown(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: moment(value) if key in _TIMES else value for key, value in args.items()}
    if name == "VersionNotRising":
        shown = {key: Version(value) for key, value in args.items()}
    elif name == "WrongStatus":
        shown["status"] = Status(args["status"]).name.lower()
    return shown


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, bytes) else value
