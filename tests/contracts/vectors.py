"""Makes `protocol/vectors/commitments.json`: what a deployed contract says, for all to match.

    PYTHONPATH=. python -m tests.contracts.vectors

Every hash in the file is an answer of the contract or a word of its storage, on a chain and at an
address that come out the same every time. Python's own hashes are compared with them in the tests.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from protocol import _abi, ledger
from protocol.digests import keccak256
from protocol.records import (
    ACTIVE_KEY,
    Action,
    Amendment,
    Approval,
    Decision,
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
from tests.contracts.evm import GENESIS, LedgerBox, address, addresses, mapped

PATH = Path(__file__).parents[2] / "protocol" / "vectors" / "commitments.json"
SALT = bytes(range(32))
DAY = 86_400
ROLES = ("alice", "bob", "carol", "guard", "auditor", "reporter", "enroller", "owner")


def word(text: str) -> bytes:
    """A 32-byte test value."""
    return bytes(keccak256(text.encode()))


def governance() -> Governance:
    """Every list filled, one key retired: nothing that could be hashed wrongly is left out."""
    keys = (SigningKey(word("key 1")), SigningKey(word("key 2"), 7))
    return Governance(
        approvers=addresses("alice", "bob", "carol"),
        threshold=2,
        epoch=1,
        guardians=addresses("bob", "guard"),
        auditors=addresses("auditor"),
        reporters=addresses("reporter"),
        enroller=address("enroller"),
        keys=tuple(sorted(keys, key=lambda k: k.key_id)),
        halt_rule=HaltRule(3, 2_500),
        release_delay=600,
        governance_delay=3 * DAY,
    )


def loosened(old: Governance) -> Governance:
    """The next governance: a reporter more, every list but one emptied, every key active."""
    return dataclasses.replace(
        old,
        epoch=old.epoch + 1,
        guardians=(),
        auditors=(),
        reporters=addresses("reporter", "owner"),
        keys=tuple(dataclasses.replace(k, valid_through=ACTIVE_KEY) for k in old.keys),
    )


def terms(pid: bytes) -> Terms:
    """No two members alike, no member zero."""
    return Terms(
        product_id=pid,
        version=1 << 48 | 2 << 32 | 3,
        security_counter=4,
        image_digest=word("image"),
        manifest_digest=word("manifest"),
        image_size=5_000_000_000,
        hardware_min=6,
        hardware_max=9,
        min_version=1 << 48,
        not_before=GENESIS + DAY,
        expiry=GENESIS + 400 * DAY,
        required_attestations=0b101,
        critical=True,
        key_epoch=10,
        rollout=(Phase(100), Phase(2_000, DAY, 11, 1_200, 9 * DAY), Phase(10_000, 2 * DAY)),
    )


class Story:
    """A product's life on the contract, with a snapshot of its records and words after each act."""

    def __init__(self) -> None:
        self.box = LedgerBox(*ROLES)
        self.pid = product_id(address("owner"), SALT)
        self.product = Product(governance())
        self.terms = terms(self.pid)
        self.release: Release | None = None
        self.snapshots: list[dict[str, Any]] = []

    def act(self, name: str, sender: str, function: str, *args: Any) -> dict[str, Any]:
        """An act that must succeed, and its one event's arguments."""
        outcome = self.box.act(sender, function, *args)
        if outcome.refusal is not None:
            raise AssertionError(f"{name}: {outcome.refusal}")
        ((_, event),) = outcome.events
        if event.get("product"):
            self.product = Product.from_abi(event["product"])
        if event.get("head"):
            self.product = dataclasses.replace(self.product, head=Head.from_abi(event["head"]))
        if event.get("state"):
            state = State.from_abi(event["state"])
            self.release = Release(event["releaseId"], self.terms_hash(), state)
        if name == "published":
            head = Head(1, self.terms.version, self.terms.security_counter)
            self.product = dataclasses.replace(self.product, head=head)
        self.snap(name)
        return event

    def snap(self, name: str) -> None:
        """The records and the words in storage as they are now."""
        entry: dict[str, Any] = {
            "after": name,
            "time": self.box.evm.now,
            "product": self.product.to_json(),
            "productSlot": hexed(self.box.product_slot(self.pid)),
        }
        if self.release is not None:
            entry["release"] = self.release.to_json()
            entry["releaseSlot"] = hexed(self.box.release_slot(self.pid, 1))
        self.snapshots.append(entry)

    def terms_hash(self) -> bytes:
        """The contract's hash of the terms."""
        return bytes(self.box.read("termsHash", self.terms))

    def run(self) -> None:
        """The life: created, published, tried, halted, amended, changed by time alone, revoked."""
        box, pid = self.box, self.pid
        self.act("created", "owner", "createProduct", SALT, self.product.governance)
        approval = Approval(self.terms, 1, GENESIS + DAY)
        signed = box.approvals(approval, "alice", "carol")
        self.act("published", "bob", "publish", self.product, self.terms, signed)
        self.act("attested", "auditor", "attest", pid, self.product, self.release, 2, word("lab"))
        batch = (9, word("root of 9"), 6, 2)
        self.act("anchored", "reporter", "anchor", pid, self.product, self.release, *batch)
        self.act("halted", "guard", "halt", pid, self.product, self.release, "smoke")
        self.resume()
        self.act("paused", "guard", "pause", pid, self.product)
        self.amend()
        self.product = dataclasses.replace(
            self.product,
            governance=loosened(governance()),
            other=governance().hash_struct(),  # were it wrong, the next act would be refused
        )
        box.evm.now = self.product.effective_at - 1
        unpause = Decision(pid, 0, Action.UNPAUSE, 1, 2, GENESIS + 9 * DAY)
        signed = box.approvals(unpause, "bob", "alice")
        self.act("unpaused under the new governance", "bob", "unpause", pid, self.product, signed)
        revoke = Decision(pid, 1, Action.REVOKE, 0, 2, GENESIS + 9 * DAY)
        signed = box.approvals(revoke, "carol", "alice")
        self.act("revoked", "bob", "revoke", pid, self.product, self.release, signed)

    def resume(self) -> None:
        """M of N resume the halted release."""
        decision = Decision(self.pid, 1, Action.RESUME, 1, 1, GENESIS + DAY)
        signed = self.box.approvals(decision, "alice", "bob")
        args = (self.pid, self.product, self.release, signed)
        self.act("resumed", "bob", "resume", *args)

    def amend(self) -> None:
        """M of N agree on a loosening, which waits."""
        following = loosened(governance())
        signed = self.box.approvals(
            Amendment(self.pid, following, 1, GENESIS + DAY), "carol", "bob"
        )
        args = (self.pid, self.product, following, signed)
        self.act("amendment proposed", "bob", "amend", *args)


def hexed(value: bytes) -> str:
    """0x-hex."""
    return "0x" + bytes(value).hex()


def document() -> dict[str, Any]:
    """The whole file."""
    story = Story()
    story.run()
    box, pid = story.box, story.pid
    until = GENESIS + DAY
    following = loosened(governance())
    approval = box.read("approvalDigest", story.terms_hash(), 1, until)
    amendment = box.read("amendmentDigest", pid, following, 1, until)
    decision = box.read("decisionDigest", pid, 1, int(Action.RESUME), 3, 2, until)
    device = word("device")
    return {
        "chainId": str(box.evm.chain_id),
        "contract": hexed(box.contract),
        "creator": hexed(address("owner")),
        "salt": hexed(SALT),
        "productId": hexed(pid),
        "places": {
            "product": hexed(mapped(pid, _abi.PRODUCTS_SLOT).to_bytes(32, "big")),
            "release 1": hexed(box.release_place(pid, 1).to_bytes(32, "big")),
        },
        "terms": story.terms.to_json(),
        "termsHash": hexed(story.terms_hash()),
        "next": following.to_json(),
        "digests": {
            "approval": {
                "epoch": 1,
                "validUntil": str(until),
                "digest": hexed(approval),
            },
            "amendment": {
                "epoch": 1,
                "validUntil": str(until),
                "digest": hexed(amendment),
            },
            "decision": {
                "releaseId": 1,
                "action": int(Action.RESUME),
                "nonce": 3,
                "epoch": 2,
                "validUntil": str(until),
                "digest": hexed(decision),
            },
        },
        "cohort": {
            "releaseId": 1,
            "deviceId": hexed(device),
            "cohort": ledger.cohort(pid, 1, device),  # type: ignore[arg-type]
        },
        "snapshots": story.snapshots,
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(document(), indent=1) + "\n")
    sys.stderr.write(f"{PATH.name} written\n")
