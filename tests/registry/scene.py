"""A product on an embedded ledger, and the people around it, for the tests of the registry.

Every key in here is a test vector, derived from a name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from protocol.digests import sha256
from protocol.ids import Address, Hash, ProductId, Version
from protocol.records import (
    Action,
    Approval,
    Decision,
    Governance,
    HaltRule,
    Phase,
    Record,
    SigningKey,
    Terms,
    product_id,
)
from registry.approvals import Approvals, Signature, gather, sign
from registry.chain import Chain, deploy, node_inside
from registry.embedded import EmbeddedLedger
from registry.ports import Call, Receipt
from registry.signer import KeySigner, file_signer

START = 1_800_000_000
FOREVER = START + 10**8
SALT = Hash(hashlib.sha256(b"thermostat").digest())


def secret(name: str) -> bytes:
    """The private key (test vector) of a person of that name."""
    return hashlib.sha256(f"firmledger test vector: {name}".encode()).digest()


def person(name: str) -> KeySigner:
    return KeySigner(secret(name))


def sorted_accounts(*names: str) -> tuple[Address, ...]:
    return tuple(sorted(person(name).address for name in names))


class SimClock:
    """The one clock of ledger and registry; it moves when told to."""

    def __init__(self, time: int = START) -> None:
        self.time = time

    def now(self) -> int:
        return self.time

    def steady(self) -> float:
        return float(self.time)

    def __call__(self) -> float:
        return float(self.time)


def governance(**changes: Any) -> Governance:
    """2 of 3 (alice, bob, carol); rita reports and enrols; ada audits; gus guards."""
    plain = Governance(
        approvers=sorted_accounts("alice", "bob", "carol"),
        threshold=2,
        epoch=1,
        guardians=(),
        auditors=sorted_accounts("ada"),
        reporters=sorted_accounts("rita"),
        enroller=person("rita").address,
        keys=(SigningKey(sha256(b"signing key")),),
        halt_rule=HaltRule(2, 2_000),
        release_delay=0,
        governance_delay=0,
    )
    return replace(plain, **changes)


def terms(product: ProductId, version: str = "1.0.0", **changes: Any) -> Terms:
    plain = Terms(
        product_id=product,
        version=int(Version.parse(version)),
        security_counter=1,
        image_digest=sha256(f"image {version}".encode()),
        manifest_digest=sha256(f"manifest {version}".encode()),
        image_size=3_000_000,
        hardware_min=1,
        hardware_max=3,
        min_version=0,
        not_before=0,
        expiry=0,
        required_attestations=0,
        critical=False,
        key_epoch=1,
        rollout=(Phase(10_000),),
    )
    return replace(plain, **changes)


def unsigned(count: int) -> Approvals:
    """Approvals that nobody gave, for ledgers that only count them."""
    return Approvals(FOREVER, (Signature(bytes(32), b"\1" * 32),) * count)


@dataclass
class Scene:
    """One embedded ledger with the contract deployed."""

    directory: Path
    clock: SimClock = field(default_factory=SimClock)

    def __post_init__(self) -> None:
        EmbeddedLedger.create(self.directory, clock=self.clock)
        self.embedded = EmbeddedLedger.open(
            self.directory, clock=self.clock, steady=self.clock.steady
        )
        self.fee = file_signer(self.directory / "keys" / "fee.json")
        node = node_inside(self.embedded)
        self.contract, receipt = deploy(node, self.fee, timeout=5, rest=self.rest)
        self.deployed_at = receipt.block
        self.chain = Chain(node, self.contract)
        self.ledger = self.chain.ledger
        self.product = product_id(self.fee.address, SALT)

    def rest(self, _seconds: float = 0) -> None:
        """Time passes: a second, and a block."""
        self.clock.time += 1
        self.embedded.seal_now()

    def act(self, who: str | KeySigner, function: str, *args: Any) -> Receipt:
        signer = person(who) if isinstance(who, str) else who
        return self.chain.transact(signer, Call(function, args), timeout=5, rest=self.rest)

    def approvals(self, message: Record, *names: str, until: int = FOREVER) -> Approvals:
        digest = self.ledger.digest(message)
        return gather(digest, until, [sign(digest, secret(name)) for name in names])

    def agreed(self, wanted: Terms, *names: str, epoch: int = 1) -> Approvals:
        """Approvals to publish; by alice and bob unless others are named."""
        names = names or ("alice", "bob")
        return self.approvals(Approval(wanted, epoch, FOREVER), *names)

    def decided(
        self, action: Action, release: int, nonce: int, *names: str, epoch: int = 1
    ) -> Approvals:
        message = Decision(self.product, release, action, nonce, epoch, FOREVER)
        return self.approvals(message, *(names or ("alice", "bob")))

    def close(self) -> None:
        self.embedded.close()
