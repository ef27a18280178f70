"""The rules of products and their governance, one function for each event.

They are those of contracts/IReleaseLedger.sol, read by an auditor: each function looks at an event
and at what was before, and says what does not follow.

Not here: what is the state afterwards (`registry.standing`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from protocol.records import Governance, Product, product_id
from registry.changes import (
    is_removal,
    is_restriction,
    is_same,
    is_tightening,
    is_well_formed,
    watchers,
)
from registry.judged import Judged


def _created(j: Judged) -> None:
    product: Product = j.args["product"]
    made = product_id(j.args["creator"], j.args["salt"])
    j.expect(made == j.which, "wrong-product-id", f"claims product {j.which}, not {made}")
    j.expect(j.which not in j.history.products, "product-twice", "creates a product again")
    fresh = product == Product(product.governance)
    j.expect(fresh, "wrong-product", "creates a product that is not a fresh one")
    _well_formed(j, product.governance, epoch=1)


def _well_formed(j: Judged, g: Governance, *, epoch: int) -> None:
    j.expect(g.epoch == epoch, "wrong-epoch", f"sets epoch {g.epoch}, not {epoch}")
    j.expect(is_well_formed(g), "bad-governance", "sets a governance that is not well formed")


def _successor(j: Judged, g: Governance) -> None:
    before = j.governance
    _well_formed(j, g, epoch=before.epoch + 1)
    same = g.governance_delay == before.governance_delay
    j.expect(same, "delay-changed", "changes the governance delay, which is fixed for ever")


def _same_head(j: Judged) -> None:
    j.expect(j.args["product"].head == j.head, "wrong-head", "changes the head of the product")


def _proposed(j: Judged) -> None:
    product: Product = j.args["product"]
    coming: Governance = j.args["next"]
    _successor(j, coming)
    _same_head(j)
    j.expect_agreed()
    waiting = j.product.standing.waiting(j.now)
    j.expect(waiting is None, "change-pending", "proposes a change while another one waits")
    j.expect(
        product.governance == j.governance and product.other == coming.hash_struct(),
        "wrong-product",
        "changes the governance before its time",
    )
    due = j.now + j.governance.governance_delay
    j.expect(
        product.effective_at >= due and coming.governance_delay > 0,
        "delay-too-short",
        f"lets a change take effect at {product.effective_at}, before {due}",
    )


def _changed(j: Judged) -> None:
    product: Product = j.args["product"]
    old, new, signers = j.governance, product.governance, j.args["signers"]
    _successor(j, new)
    _same_head(j)
    j.expect(product == Product(new, head=product.head), "wrong-product", "leaves a change pending")
    if j.agreed(signers) and (old.governance_delay == 0 or is_tightening(old, new)):
        return
    alone = len(signers) == 1 and signers[0] in watchers(old)
    waiting = j.product.standing.waiting(j.now)
    j.expect(
        waiting is None and alone and is_restriction(old, new, signers[0], j.head.latest_release),
        "change-not-agreed",
        "loosens the governance at once, or was not agreed by those who may while a change waits",
    )


def _cancelled(j: Judged) -> None:
    product: Product = j.args["product"]
    j.by("watcher", "by", watchers(j.governance))
    waiting = j.product.standing.waiting(j.now)
    j.expect(waiting is not None, "nothing-pending", "cancels a change where none waits")
    own = waiting is not None and is_removal(j.governance, waiting, j.args["by"])
    j.expect(not own, "own-removal", f"is by guardian {j.args['by']}, whom the change removes")
    _successor(j, product.governance)
    _same_head(j)
    kept = is_same(j.governance, product.governance) and product.effective_at == 0
    j.expect(kept, "wrong-product", "changes more than it cancels")


def _paused(j: Judged) -> None:
    j.by("watcher", "by", watchers(j.governance))
    expected = replace(j.head, paused_at=j.now, pauses=j.head.pauses + 1)
    running = j.head.paused_at == 0
    j.expect(running and j.args["head"] == expected, "wrong-head", "pauses against the rules")


def _unpaused(j: Judged) -> None:
    j.expect_agreed()
    total = j.head.paused_total + j.now - j.head.paused_at
    expected = replace(j.head, paused_at=0, paused_total=total)
    paused = j.head.paused_at != 0
    j.expect(paused and j.args["head"] == expected, "wrong-head", "unpauses against the rules")


def _fleet_set(j: Judged) -> None:
    j.by("enroller", "by", (j.governance.enroller,))
    fleets = j.product.fleets
    epoch = fleets[-1][2] + 1 if fleets else 1
    given = j.args["epoch"]
    j.expect(given == epoch, "wrong-epoch", f"sets fleet epoch {given}, not {epoch}")
    fleets.append((j.args["root"], j.args["size"], given))


def _withdrawn(j: Judged) -> None:
    j.by("approver", "approver", j.governance.approvers)
    j.product.withdrawn.add(j.args["terms_hash"])


def _digest_approved(j: Judged) -> None:
    j.history.approved.add((j.args["digest"], j.args["approver"]))


PRODUCT_RULES: dict[str, Callable[[Judged], None]] = {
    "ProductCreated": _created,
    "AmendmentProposed": _proposed,
    "AmendmentCancelled": _cancelled,
    "GovernanceChanged": _changed,
    "ProductPaused": _paused,
    "ProductUnpaused": _unpaused,
    "FleetSet": _fleet_set,
    "DigestApproved": _digest_approved,
    "TermsWithdrawn": _withdrawn,
}
