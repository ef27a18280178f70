"""What is to be done on the ledger, without the records that change under way (skeleton).

Each is a frozen dataclass; `registry.publish` stores it as JSON and builds calldata from the newest
records just before signing.
"""
from __future__ import annotations
from dataclasses import dataclass
from protocol.ids import Digest, Hash, ProductId
from protocol.records import Governance, Terms
from registry.approvals import Approvals


class Intent:
    """Base; ``.to_json()``, ``from_json(dict)``."""


@dataclass(frozen=True)
class CreateProduct(Intent):
    salt: Hash
    governance: Governance
@dataclass(frozen=True)
class Publish(Intent):
    terms: Terms
    approvals: Approvals
@dataclass(frozen=True)
class SetFleet(Intent):
    product_id: ProductId
    root: Digest
    size: int
@dataclass(frozen=True)
class Anchor(Intent):
    product_id: ProductId
    release_id: int
    old_size: int
    new_size: int
    root: Digest
    confirmed: int
    failed: int
@dataclass(frozen=True)
class Halt(Intent):
    product_id: ProductId
    release_id: int
    reason: str
@dataclass(frozen=True)
class Decide(Intent):
    """resume | supersede | revoke | unpause (release_id 0), with approvals over the Decision."""
    action: int
    product_id: ProductId
    release_id: int
    approvals: Approvals
@dataclass(frozen=True)
class Amend(Intent):
    product_id: ProductId
    next: Governance
    approvals: Approvals
@dataclass(frozen=True)
class Restrict(Intent):
    product_id: ProductId
    next: Governance
@dataclass(frozen=True)
class Cancel(Intent):
    product_id: ProductId
@dataclass(frozen=True)
class Pause(Intent):
    product_id: ProductId
@dataclass(frozen=True)
class Attest(Intent):
    product_id: ProductId
    release_id: int
    kind: int
    evidence: Digest
@dataclass(frozen=True)
class Withdraw(Intent):
    product_id: ProductId
    terms_hash: Hash
@dataclass(frozen=True)
class Approve(Intent):
    digest: Hash
