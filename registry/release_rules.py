"""The rules of releases, one function for each event.

They are those of contracts/IReleaseLedger.sol, read by an auditor: each function looks at an event
and at what was before, and says what does not follow. Signatures of approvers are recovered here,
from what the events themselves carry.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from protocol import ledger as rules
from protocol.errors import Untrusted
from protocol.ids import Address, Digest, Version
from protocol.ledger import COHORTS, MAX_HALTS, StateWord, Status
from protocol.records import Approval, Phase, Terms
from registry.approvals import Approvals, recover
from registry.changes import guardians
from registry.judged import Batch, Judged


def _published(j: Judged) -> None:
    terms: Terms = j.args["terms"]
    number, head = j.args["release_id"], j.head
    j.expect(terms.product_id == j.which, "wrong-product", "has the terms of another product")
    j.expect(
        j.args["image_digest"] == terms.image_digest, "wrong-image", "is filed under another image"
    )
    expected = head.latest_release + 1
    j.expect(number == expected, "wrong-release-id", f"is release {number}, not {expected}")
    j.expect(
        terms.version > head.version,
        "version-not-rising",
        f"publishes version {Version(terms.version)} after {Version(head.version)}",
    )
    j.expect(
        terms.security_counter >= head.security_counter,
        "counter-falling",
        f"lets the security counter fall to {terms.security_counter}",
    )
    j.expect(head.paused_at == 0, "published-while-paused", "publishes while the product is paused")
    rollout = "publishes with terms that are not valid"
    j.expect(_valid_terms(terms, j.now), "bad-terms", rollout)
    gone = terms.hash_struct() in j.product.withdrawn
    j.expect(not gone, "terms-withdrawn", "publishes terms that an approver had withdrawn")
    signers = _signers(j, terms)
    delay = rules.release_delay(j.governance, len({*signers} & {*j.governance.approvers}))
    j.expect_state(rules.published(head, terms, j.now, delay))


def _signers(j: Judged, terms: Terms) -> list[Address]:
    """Who signed, recovered from the signatures in the event; findings unless M of N did."""
    approvals: Approvals = j.args["approvals"]
    g, epoch = j.governance, j.args["epoch"]
    j.expect(epoch == g.epoch, "wrong-epoch", f"was approved for epoch {epoch}, not {g.epoch}")
    j.expect(
        j.now <= approvals.valid_until,
        "approvals-expired",
        f"was approved until {approvals.valid_until} and published at {j.now}",
    )
    digest = j.history.ledger.digest(Approval(terms, g.epoch, approvals.valid_until))
    signers: list[Address] = []
    for signature in approvals.signatures:
        try:
            signer = recover(digest, signature)
        except Untrusted:
            j.find("bad-signature", "carries an approval that is no signature")
            continue
        on_chain = signature.on_chain is None or (digest, signer) in j.history.approved
        j.expect(on_chain, "not-approved", f"counts {signer}, who never approved on chain")
        signers.append(signer)
    named = ", ".join(map(str, signers)) or "nobody"
    j.expect(
        j.agreed(signers),
        "too-few-approvals",
        f"was approved by {named}: not {g.threshold} of the approvers, each once",
    )
    return signers


def _valid_terms(terms: Terms, now: int) -> bool:
    named = any(terms.image_digest) and any(terms.manifest_digest) and terms.image_size > 0
    ranges = terms.hardware_min <= terms.hardware_max and terms.min_version < terms.version
    lasting = terms.expiry == 0 or terms.expiry > max(now, terms.not_before)
    return named and ranges and lasting and _valid_rollout(terms.rollout)


def _valid_rollout(phases: tuple[Phase, ...]) -> bool:
    ungated = Phase(phases[0].bps, phases[0].delay) == phases[0] if phases else False
    rising = all(a.bps < b.bps and a.delay <= b.delay for a, b in pairwise(phases))
    bounded = all(0 < p.bps <= COHORTS and p.max_failure_bps <= COHORTS for p in phases)
    return ungated and rising and bounded


def _halted(j: Judged) -> None:
    before = j.release.state
    status = StateWord.unpack(before.word).status
    j.expect(status == Status.ACTIVE, "wrong-status", f"halts a release that is {_name(status)}")
    j.expect_state(rules.halted(j.head, before, j.now))
    if j.args["by"] != j.history.ledger.contract:
        j.by("guardian", "by", guardians(j.governance))
        return
    met = rules.halts(j.governance.halt_rule, StateWord.unpack(before.word))
    last = j.history.batches[-1] if j.history.batches else None
    anchored = last is not None and last.tx == j.event.tx
    j.expect(met and anchored, "halt-not-due", "halts by itself, and the halting rule was not met")


def _resumed(j: Judged) -> None:
    j.expect_agreed()
    before = StateWord.unpack(j.release.state.word)
    j.expect(
        before.status == Status.HALTED and before.halts < MAX_HALTS,
        "wrong-status",
        f"resumes a release that is {_name(before.status)}, halted {before.halts} times",
    )
    j.expect_state(rules.resumed(j.head, j.release.state, j.now))


def _superseded(j: Judged) -> None:
    j.expect_agreed()
    before = StateWord.unpack(j.release.state.word)
    j.expect(not before.superseded, "wrong-status", "supersedes a release again")
    j.expect_word(flags=before.flags | 1)


def _revoked(j: Judged) -> None:
    j.expect_agreed()
    status = StateWord.unpack(j.release.state.word).status
    j.expect(status != Status.REVOKED, "wrong-status", "revokes a release again")
    j.expect_word(status=Status.REVOKED)


def _attested(j: Judged) -> None:
    j.by("auditor", "auditor", j.governance.auditors)
    before, bit = StateWord.unpack(j.release.state.word), 1 << j.args["kind"]
    new = bit < 1 << 8 and not before.attested & bit
    j.expect(new, "wrong-kind", f"attests kind {j.args['kind']}, unknown or there already")
    if new:
        j.expect_word(attested=before.attested | bit)


def _anchored(j: Judged) -> None:
    j.by("reporter", "reporter", j.governance.reporters)
    before = j.release.state
    old, given = StateWord.unpack(before.word), StateWord.unpack(j.args["state"].word)
    confirmed, failed = j.args["confirmed_delta"], j.args["failed_delta"]
    growth = given.log_size - old.log_size
    j.expect(growth > 0, "log-shrinks", f"takes the log from {old.log_size} to {given.log_size}")
    j.expect(
        confirmed + failed <= max(growth, 0),
        "counts-exceed",
        f"counts {confirmed} confirmed and {failed} failed in {growth} receipts",
    )
    j.expect_word(
        log_root=j.args["state"].log_root,
        log_size=given.log_size,
        confirmed=old.confirmed + confirmed,
        failed=old.failed + failed,
    )
    key = (j.which, j.args["release_id"])
    j.history.batches.append(
        Batch(
            *key, old.log_size, given.log_size, Digest(j.args["state"].log_root), confirmed,
            failed, j.event.tx, j.event.block,
            tuple(root for root, _size, _epoch in j.product.fleets),
        )
    )  # fmt: skip
    if given.status == Status.ACTIVE and rules.halts(j.governance.halt_rule, given):
        j.history.due = (key, j.event.tx)


def _name(status: int) -> str:
    return Status(status).name.lower() if status in {*Status} else f"in status {status}"


RELEASE_RULES: dict[str, Callable[[Judged], None]] = {
    "ReleasePublished": _published,
    "ReleaseHalted": _halted,
    "ReleaseResumed": _resumed,
    "ReleaseSuperseded": _superseded,
    "ReleaseRevoked": _revoked,
    "ReleaseAttested": _attested,
    "ReceiptsAnchored": _anchored,
}
