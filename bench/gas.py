"""Gas of whole transactions (21,000, calldata and refunds included) on py-evm under Prague rules.

One product throughout: a signing key, a reporter, an auditor, an enroller, a halting rule, no named
guardians; a release of three phases, two of them gated, whose halt states a reason of 13 letters.
Where an account stands in its list depends on its address and costs up to 70 gas a place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from protocol.digests import keccak256
from protocol.ids import ProductId
from protocol.records import (
    Approval,
    Governance,
    HaltRule,
    Head,
    Phase,
    Product,
    Release,
    SigningKey,
    State,
    Terms,
    product_id,
)
from tests.contracts.evm import LedgerBox, Outcome, address, addresses

APPROVERS = ("alice", "bob", "carol", "dave", "erin")
OTHERS = ("owner", "auditor", "reporter", "enroller")
HOW = "py-evm, Prague rules, whole transaction with calldata"
HOUR = 3600


def _word(text: str) -> bytes:
    return bytes(keccak256(text.encode()))


@dataclasses.dataclass
class Published:
    """A product with one release, as the transactions under measurement find it."""

    box: LedgerBox
    gas: int
    product_id: ProductId
    product: Product
    release: Release

    def act(self, sender: str, function: str, *args: Any) -> Outcome:
        """An act on the release; its gas counts only if the ledger took it."""
        outcome = self.box.act(sender, function, self.product_id, self.product, self.release, *args)
        if outcome.refusal is not None:
            raise AssertionError(f"{function} was refused: {outcome.refusal}")
        return outcome


def _publish(approvers: tuple[str, ...], threshold: int) -> Published:
    box = LedgerBox(*APPROVERS, *OTHERS)
    governance = Governance(
        approvers=addresses(*approvers),
        threshold=threshold,
        epoch=1,
        guardians=(),
        auditors=addresses("auditor"),
        reporters=addresses("reporter"),
        enroller=address("enroller"),
        keys=(SigningKey(_word("signing key")),),
        halt_rule=HaltRule(min_failures=3, max_failure_bps=2000),
        release_delay=0,
        governance_delay=24 * HOUR,
    )
    salt = _word("salt")
    box.act("owner", "createProduct", salt, governance)
    product, pid = Product(governance), product_id(address("owner"), salt)
    terms = Terms(
        product_id=pid,
        version=1 << 48,
        security_counter=1,
        image_digest=_word("image"),
        manifest_digest=_word("manifest"),
        image_size=3_000_000,
        hardware_min=1,
        hardware_max=3,
        min_version=0,
        not_before=0,
        expiry=0,
        required_attestations=0,
        critical=False,
        key_epoch=1,
        rollout=(
            Phase(100),
            Phase(1000, 24 * HOUR, 3, 1000),
            Phase(10_000, 72 * HOUR, 30, 500),
        ),
    )
    approval = Approval(terms, 1, box.evm.now + HOUR)
    approvals = box.approvals(approval, *approvers[:threshold])
    done = box.act("owner", "publish", product, terms, approvals)
    if done.refusal is not None:
        raise AssertionError(f"publish was refused: {done.refusal}")
    state = State.from_abi(done.event("ReleasePublished")["state"])
    head = Head(1, terms.version, terms.security_counter)
    product = dataclasses.replace(product, head=head)
    return Published(box, done.gas, pid, product, Release(1, terms.hash_struct(), state))


def _row(name: str, gas: int, limit: int, how: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": gas,
        "unit": "gas",
        "against": limit,
        "ratio": round(gas / limit, 3),
        "how": f"{how}; {HOW}",
    }


def rows() -> Iterator[dict[str, Any]]:
    """Rows of ``bench/results.json``; ``against`` is our limit; a peer's figure is in ``how``."""
    yield _row(
        "gas.publish_2of3",
        _publish(APPROVERS[:3], 2).gas,
        140_000,
        "publication with two approvals (LedgerGuard publishes 366,666 for the same)",
    )
    yield _row(
        "gas.publish_3of5", _publish(APPROVERS, 3).gas, 155_000, "publication with three approvals"
    )
    halt = _publish(APPROVERS[:3], 2).act("carol", "halt", "field returns")
    yield _row("gas.halt", halt.gas, 45_000, "one guardian halts a release, 3 approvers")
    attest = _publish(APPROVERS[:3], 2).act("auditor", "attest", 0, _word("evidence"))
    yield _row("gas.attest", attest.gas, 60_000, "one auditor attests a release")
    batches = {size: _anchor(size) for size in (10, 10_000, 1_000_000)}
    for size, gas in batches.items():
        yield _row(f"gas.receipt_batch_{size}", gas, 60_000, f"a batch of {size:,} receipts")
    yield _row(
        "gas.receipt_batch",
        max(batches.values()),
        60_000,
        "the dearest batch of 10, 10,000 and 1,000,000 receipts"
        " (LedgerGuard publishes 97,836 for a root alone, 434,143 accountable)",
    )


def _anchor(receipts: int) -> int:
    """Gas of a batch that follows another, so that no count is zero before or after."""
    story = _publish(APPROVERS[:3], 2)
    first = story.act("reporter", "anchor", 10, _word("first root"), 9, 1)
    state = State.from_abi(first.event("ReceiptsAnchored")["state"])
    story.release = dataclasses.replace(story.release, state=state)
    failed = receipts // 10
    return story.act(
        "reporter", "anchor", 10 + receipts, _word("root"), receipts - failed, failed
    ).gas
