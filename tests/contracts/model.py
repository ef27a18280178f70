"""The whole ledger in plain Python: `protocol.ledger` on releases, and the rest around it.

`Model` takes the calls of the contract, at a given time and by a given account, and either moves or
raises `Refused` with the custom error that the contract must give. It holds records where the
contract holds words, so that after every call the words can be derived and compared.

Written from the text of IReleaseLedger.sol. Every act asks in the order in which the contract says
it does: is the record current, who asks, does the rule allow it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from protocol import ledger as rules
from protocol.ids import U32_MAX, Address, Hash, ProductId
from protocol.ledger import StateWord, Status
from protocol.records import (
    Action,
    Amendment,
    Approval,
    Decision,
    Device,
    Governance,
    Head,
    Ledger,
    Product,
    Record,
    Release,
    State,
    Terms,
    product_id,
)
from tests.contracts.rules import (
    Refused,
    is_removal,
    is_tightening,
    recover,
    require_installable,
    require_restriction,
    require_role,
    require_successor,
    require_watcher,
    require_well_formed,
)

ZERO = bytes(32)
NEW = Head()
Approvals = tuple[int, Sequence[tuple[bytes, bytes]]]


@dataclass
class Governed:
    """A product as the model keeps it: both governances in full."""

    current: Governance
    head: Head = NEW
    pending: Governance | None = None
    effective_at: int = 0

    def in_effect(self, now: int) -> Governance:
        """Which governance counts at ``now``."""
        if self.pending is not None and now >= self.effective_at:
            return self.pending
        return self.current

    def record(self, now: int) -> Product:
        """The record that is current at ``now``."""
        spelled = self.in_effect(now)
        other = self.current if spelled is self.pending else self.pending
        hashed = other.hash_struct() if other is not None else ZERO
        return Product(spelled, hashed, self.effective_at, self.head)


@dataclass
class Kept:
    """A release as the model keeps it."""

    terms: Terms
    state: State


class Model:
    """The ledger. Accounts are addresses; times are block times."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.products: dict[bytes, Governed] = {}
        self.releases: dict[tuple[bytes, int], Kept] = {}
        self.images: dict[tuple[bytes, bytes], int] = {}
        self.fleets: dict[bytes, tuple[bytes, int, int]] = {}
        self.approved: set[tuple[bytes, bytes]] = set()
        self.withdrawn: set[tuple[bytes, bytes]] = set()
        self.signers: list[bytes] = []  # whose approvals the last act was taken with

    # -- words ------------------------------------------------------------------------------------

    def product_slot(self, pid: bytes) -> bytes:
        """What storage must hold for a product; it does not depend on the time."""
        kept = self.products.get(pid)
        if kept is None:
            return ZERO
        record = dataclasses.replace(kept.record(0), effective_at=kept.effective_at)
        return self.ledger.product_slot(ProductId(pid), record, 0)

    def release_slot(self, pid: bytes, release_id: int) -> bytes:
        """What storage must hold for a release."""
        kept = self.releases.get((pid, release_id))
        if kept is None:
            return ZERO
        hashed = kept.terms.hash_struct()
        return self.ledger.release_slot(ProductId(pid), release_id, hashed, kept.state)

    # -- is it current ----------------------------------------------------------------------------

    def _product(self, pid: bytes, given: Product, now: int) -> Governed:
        kept = self.products.get(pid)
        if kept is None:
            raise Refused("UnknownProduct", pid)
        stored, shown = self.product_slot(pid), self.ledger.product_slot(ProductId(pid), given, now)
        if stored != shown:
            raise Refused("StaleProduct", pid, stored, shown)
        return kept

    def _release(self, pid: bytes, given: Release) -> Kept:
        kept = self.releases.get((pid, given.release_id))
        if kept is None:
            raise Refused("UnknownRelease", pid, given.release_id)
        shown = self.ledger.release_slot(
            ProductId(pid), given.release_id, Hash(given.terms_hash), given.state
        )
        stored = self.release_slot(pid, given.release_id)
        if stored != shown:
            raise Refused("StaleRelease", pid, given.release_id, stored, shown)
        return kept

    # -- who asks ---------------------------------------------------------------------------------

    def _approvals(self, message: Record, g: Governance, given: Approvals, now: int) -> list[bytes]:
        valid_until, signatures = given
        if now > valid_until:
            raise Refused("ApprovalsExpired", valid_until, now)
        if len(signatures) < g.threshold:
            raise Refused("TooFewApprovals", len(signatures), g.threshold)
        digest = self.ledger.digest(message)
        signers: list[bytes] = []
        for r, vs in signatures:
            if vs == ZERO and any(r[:12]):
                raise Refused("NotAnApprover", bytes(20))
            signer = recover(digest, r, vs)
            if vs == ZERO and (digest, signer) not in self.approved:
                raise Refused("NotApprovedOnChain", digest, signer)
            if signer not in g.approvers:
                raise Refused("NotAnApprover", signer)
            previous = signers[-1] if signers else bytes(20)
            if signer <= previous:
                raise Refused("SignersNotAscending", previous, signer)
            signers.append(signer)
        self.signers = signers
        return signers

    def _decided(
        self,
        pid: bytes,
        release_id: int,
        action: Action,
        nonce: int,
        g: Governance,
        given: Approvals,
        now: int,
    ) -> None:
        message = Decision(pid, release_id, action, nonce, g.epoch, given[0])
        self._approvals(message, g, given, now)

    # -- products ---------------------------------------------------------------------------------

    def create_product(self, sender: Address, now: int, salt: bytes, g: Governance) -> bytes:
        """createProduct."""
        pid = product_id(sender, salt)
        if pid in self.products:
            raise Refused("ProductExists", pid)
        if g.epoch != 1:
            raise Refused("EpochMismatch", 1, g.epoch)
        require_well_formed(g)
        self.products[pid] = Governed(g)
        return pid

    def amend(
        self,
        sender: Address,
        now: int,
        pid: bytes,
        product: Product,
        following: Governance,
        given: Approvals,
    ) -> None:
        """amend."""
        kept = self._product(pid, product, now)
        g = kept.in_effect(now)
        require_successor(g, following)
        self._approvals(Amendment(pid, following, g.epoch, given[0]), g, given, now)
        if g.governance_delay == 0 or is_tightening(g, following):
            self.products[pid] = Governed(following, kept.head)
            return
        if kept.effective_at > now:
            raise Refused("AmendmentPending", kept.effective_at)
        self.products[pid] = Governed(g, kept.head, following, now + g.governance_delay)

    def restrict(
        self, sender: Address, now: int, pid: bytes, product: Product, following: Governance
    ) -> None:
        """restrict."""
        kept = self._product(pid, product, now)
        g = kept.in_effect(now)
        require_watcher(g, sender)
        if kept.effective_at > now:
            raise Refused("AmendmentPending", kept.effective_at)
        require_successor(g, following)
        require_restriction(g, following, sender, kept.head.latest_release)
        self.products[pid] = Governed(following, kept.head)

    def cancel(
        self, sender: Address, now: int, pid: bytes, product: Product, following: Governance
    ) -> None:
        """cancel."""
        kept = self._product(pid, product, now)
        g = kept.in_effect(now)
        require_watcher(g, sender)
        if kept.pending is None or kept.effective_at <= now:
            raise Refused("NothingPending", pid)
        if following != kept.pending:
            raise Refused(
                "StaleAmendment", pid, kept.pending.hash_struct(), following.hash_struct()
            )
        if is_removal(g, following, sender):
            raise Refused("OwnRemoval", bytes(sender))
        self.products[pid] = Governed(dataclasses.replace(g, epoch=g.epoch + 1), kept.head)

    def pause(self, sender: Address, now: int, pid: bytes, product: Product) -> None:
        """pause."""
        kept = self._product(pid, product, now)
        require_watcher(kept.in_effect(now), sender)
        if kept.head.paused_at:
            raise Refused("ProductIsPaused", pid, kept.head.paused_at)
        kept.head = dataclasses.replace(kept.head, paused_at=now, pauses=kept.head.pauses + 1)

    def unpause(
        self, sender: Address, now: int, pid: bytes, product: Product, given: Approvals
    ) -> None:
        """unpause."""
        kept = self._product(pid, product, now)
        head = kept.head
        if not head.paused_at:
            raise Refused("ProductNotPaused", pid)
        self._decided(pid, 0, Action.UNPAUSE, head.pauses, kept.in_effect(now), given, now)
        total = head.paused_total + now - head.paused_at
        kept.head = dataclasses.replace(head, paused_at=0, paused_total=total)

    def set_fleet(
        self, sender: Address, now: int, pid: bytes, product: Product, root: bytes, size: int
    ) -> None:
        """setFleet."""
        g = self._product(pid, product, now).in_effect(now)
        require_role(sender, (g.enroller,), "enroller")
        self.fleets[pid] = (root, size, self.fleets.get(pid, (ZERO, 0, 0))[2] + 1)

    def approve(self, sender: Address, now: int, digest: bytes) -> None:
        """approve."""
        self.approved.add((digest, sender))

    def withdraw(
        self, sender: Address, now: int, pid: bytes, product: Product, hashed: bytes
    ) -> None:
        """withdraw."""
        g = self._product(pid, product, now).in_effect(now)
        require_role(sender, g.approvers, "approver")
        self.withdrawn.add((pid, hashed))

    # -- releases ---------------------------------------------------------------------------------

    def publish(
        self, sender: Address, now: int, product: Product, terms: Terms, given: Approvals
    ) -> bytes:
        """publish."""
        pid = terms.product_id
        kept = self._product(pid, product, now)
        head, g = kept.head, kept.in_effect(now)
        if head.paused_at:
            raise Refused("ProductIsPaused", pid, head.paused_at)
        if terms.version <= head.version:
            raise Refused("VersionNotRising", head.version, terms.version)
        if terms.security_counter < head.security_counter:
            raise Refused("CounterFalling", head.security_counter, terms.security_counter)
        require_installable(terms, now)
        hashed = terms.hash_struct()
        if (pid, hashed) in self.withdrawn:
            raise Refused("TermsAreWithdrawn", pid, hashed)
        signers = self._approvals(Approval(terms, g.epoch, given[0]), g, given, now)
        delay = rules.release_delay(g, len(signers))
        state = rules.published(head, terms, now, delay)
        release_id = head.latest_release + 1
        self.releases[pid, release_id] = Kept(terms, state)
        self.images[pid, terms.image_digest] = release_id
        kept.head = dataclasses.replace(
            head,
            latest_release=release_id,
            version=terms.version,
            security_counter=terms.security_counter,
        )
        return release_id.to_bytes(32, "big")

    def halt(
        self, sender: Address, now: int, pid: bytes, product: Product, release: Release, why: str
    ) -> None:
        """halt."""
        governed = self._product(pid, product, now)
        g, kept = governed.in_effect(now), self._release(pid, release)
        require_role(sender, g.guardians or g.approvers, "guardian")
        require_status(kept, Status.ACTIVE)
        if len(why.encode()) > 256:
            raise Refused("ReasonTooLong", len(why.encode()))
        kept.state = rules.halted(governed.head, kept.state, now)

    def resume(
        self,
        sender: Address,
        now: int,
        pid: bytes,
        product: Product,
        release: Release,
        given: Approvals,
    ) -> None:
        """resume."""
        governed = self._product(pid, product, now)
        kept = self._release(pid, release)
        require_status(kept, Status.HALTED)
        nonce = StateWord.unpack(kept.state.word).halts
        if nonce == rules.MAX_HALTS:
            raise Refused("HaltsExhausted", release.release_id)
        g = governed.in_effect(now)
        self._decided(pid, release.release_id, Action.RESUME, nonce, g, given, now)
        halted = StateWord.unpack(kept.state.word)
        total = halted.halted_total + rules.clock(governed.head, now) - halted.halted_at
        if total > U32_MAX:
            raise Refused("HaltedTooLong", total)
        kept.state = rules.resumed(governed.head, kept.state, now)

    def supersede(
        self,
        sender: Address,
        now: int,
        pid: bytes,
        product: Product,
        release: Release,
        given: Approvals,
    ) -> None:
        """supersede."""
        g = self._product(pid, product, now).in_effect(now)
        kept = self._release(pid, release)
        word = StateWord.unpack(kept.state.word)
        if word.superseded:
            raise Refused("AlreadySuperseded", release.release_id)
        self._decided(pid, release.release_id, Action.SUPERSEDE, 0, g, given, now)
        kept.state = changed(kept.state, flags=word.flags | 1)

    def revoke(
        self,
        sender: Address,
        now: int,
        pid: bytes,
        product: Product,
        release: Release,
        given: Approvals,
    ) -> None:
        """revoke."""
        g = self._product(pid, product, now).in_effect(now)
        kept = self._release(pid, release)
        if StateWord.unpack(kept.state.word).status == Status.REVOKED:
            raise Refused("WrongStatus", Status.REVOKED)
        self._decided(pid, release.release_id, Action.REVOKE, 0, g, given, now)
        kept.state = changed(kept.state, status=Status.REVOKED)

    def attest(
        self,
        sender: Address,
        now: int,
        pid: bytes,
        product: Product,
        release: Release,
        kind: int,
        evidence: bytes,
    ) -> None:
        """attest."""
        g = self._product(pid, product, now).in_effect(now)
        kept = self._release(pid, release)
        require_role(sender, g.auditors, "auditor")
        if kind > 7:
            raise Refused("InvalidKind", kind)
        attested = StateWord.unpack(kept.state.word).attested
        if attested >> kind & 1:
            raise Refused("AlreadyAttested", kind)
        kept.state = changed(kept.state, attested=attested | 1 << kind)

    def anchor(
        self,
        sender: Address,
        now: int,
        pid: bytes,
        product: Product,
        release: Release,
        size: int,
        root: bytes,
        confirmed: int,
        failed: int,
    ) -> None:
        """anchor."""
        g = self._product(pid, product, now).in_effect(now)
        kept = self._release(pid, release)
        require_role(sender, g.reporters, "reporter")
        old = StateWord.unpack(kept.state.word).log_size
        if size <= old:
            raise Refused("LogNotGrowing", old, size)
        if confirmed + failed > size - old:
            raise Refused("DeltaExceedsGrowth", size - old, confirmed + failed)
        kept.state = rules.anchored(
            product, kept.state, now, new_size=size, root=root, confirmed=confirmed, failed=failed
        )

    def eligible(
        self,
        sender: Address,
        now: int,
        product: Product,
        terms: Terms,
        release_id: int,
        state: State,
        device: Device,
    ) -> int:
        """eligible."""
        self._product(terms.product_id, product, now)
        self._release(terms.product_id, Release(release_id, terms.hash_struct(), state))
        return int(rules.eligible(product, terms, release_id, state, device, now))


def require_status(kept: Kept, wanted: Status) -> None:
    """WrongStatus unless the release has it."""
    status = StateWord.unpack(kept.state.word).status
    if status != wanted:
        raise Refused("WrongStatus", status)


def changed(state: State, **members: int) -> State:
    """``state`` with members of its word replaced."""
    word = dataclasses.replace(StateWord.unpack(state.word), **members)
    return dataclasses.replace(state, word=word.pack())
