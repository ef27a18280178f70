"""Contract and Python model, driven by the same random acts: the same words, logs and refusals.

Hypothesis draws acts, accounts, records (now and then stale ones), approvals (now and then short,
foreign, late, in disorder, or for something else) and waits; `tests.contracts.instep` plays each
act on the model, on py-evm and on anvil, and compares them. What a device asks (`eligible`) is read
on both at the time of the next act, reason codes included.

FIRMLEDGER_MODEL_DEPTH=N plays N times as many examples, each half as long again.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.ledger import StateWord
from protocol.records import (
    ACTIVE_KEY,
    Action,
    Amendment,
    Approval,
    Decision,
    Device,
    Governance,
    HaltRule,
    Phase,
    Product,
    Record,
    Release,
    SigningKey,
    State,
    Terms,
    product_id,
)
from tests.contracts.evm import address, addresses, compact
from tests.contracts.instep import APPROVERS, NAMES, InStep, node  # noqa: F401  a fixture

DAY = 86_400
FAR = 2**40

rarely = st.sampled_from([False] * 11 + [True])
names = st.sampled_from(NAMES)
subsets = st.sets(names, max_size=3).map(lambda s: addresses(*s))
watchers = st.sampled_from(["guard", "alice", "alice", "bob", "guard", "outsider"])
counter_steps = st.sampled_from([0, 0, 1, -1])
words = st.sampled_from([bytes([n]) * 32 for n in range(1, 4)])
governances = st.builds(
    Governance,
    approvers=st.sets(st.sampled_from(APPROVERS), min_size=2).map(lambda s: addresses(*s)),
    threshold=st.integers(1, 2),
    epoch=st.just(1),
    guardians=st.sampled_from([(), addresses("guard"), addresses("guard", "alice")]),
    auditors=st.just(addresses("auditor")),
    reporters=st.just(addresses("reporter")),
    enroller=st.just(address("enroller")),
    keys=st.just((SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32))),
    halt_rule=st.builds(
        HaltRule, st.sampled_from([1, 1, 2, 3, 0]), st.sampled_from([2_500, 2_500, 10_000, 0])
    ),
    release_delay=st.sampled_from([0, 600]),
    governance_delay=st.sampled_from([0, 3 * DAY, 3 * DAY]),
)
first_phases = st.builds(Phase, st.sampled_from([1, 2_500, 5_000]), st.sampled_from([0, 0, 600]))
later_phases = st.builds(
    Phase,
    st.integers(5_001, 10_000),
    st.sampled_from([600, DAY]),
    st.integers(0, 8),
    st.sampled_from([0, 1_000, 10_000]),
    st.sampled_from([0, 1, 2 * DAY]),
)
wild_phases = st.builds(
    Phase,
    st.integers(0, 10_001),
    st.integers(0, DAY),
    st.integers(0, 2),
    st.integers(9_999, 10_001),
    st.integers(0, 2),
)
rollouts = st.sampled_from([0] * 9 + [1]).flatmap(
    lambda wild: (
        st.lists(wild_phases, max_size=4).map(tuple)
        if wild
        else st.one_of(st.tuples(first_phases), st.tuples(first_phases, later_phases))
    )
)
validities = [ACTIVE_KEY, 0, 1, 2]
edits: dict[str, st.SearchStrategy[Any]] = {
    "approvers": st.sets(st.sampled_from(APPROVERS), min_size=2).map(lambda s: addresses(*s)),
    "threshold": st.sampled_from([1, 2, 3, 0]),
    "guardians": subsets,
    "auditors": st.one_of(st.just(()), subsets),
    "reporters": st.one_of(st.just(()), subsets),
    "enroller": st.sampled_from([bytes(20), address("outsider")]),
    "keys": st.tuples(*(st.sampled_from(validities) for _ in range(2))).map(
        lambda t: tuple(SigningKey(bytes([i + 1]) * 32, v) for i, v in enumerate(t))
    ),
    "halt_rule": st.builds(HaltRule, st.integers(0, 3), st.sampled_from([2_500, 0, 10_001])),
    "release_delay": st.sampled_from([601, 600, 0]),
    "epoch": st.integers(1, 4),
    "governance_delay": st.sampled_from([0, 3 * DAY]),
}
likely = st.sampled_from([*list(edits)[:9] * 3, *edits])
removals: dict[str, st.SearchStrategy[Any]] = {
    "auditors": st.just(()),
    "reporters": st.just(()),
    "enroller": st.just(bytes(20)),
    "keys": st.sampled_from([0, 1]).map(
        lambda v: (SigningKey(b"\x01" * 32, v), SigningKey(b"\x02" * 32))
    ),
}


class Differential(InStep, RuleBasedStateMachine):
    """The ledgers in step, under acts that Hypothesis draws."""

    def __init__(self) -> None:
        super().__init__()
        self.product_ids: list[bytes] = []
        self.seen_products: list[Product] = []
        self.seen_releases: list[Release] = []

    @invariant()
    def words_match(self) -> None:
        """Every word in storage is that of the model's record."""
        self.compare_words()

    @invariant()
    def counts_conserve(self) -> None:
        """No log holds fewer entries than are counted from it; versions rise with the ids."""
        for (pid, release_id), kept in self.model.releases.items():
            word = StateWord.unpack(kept.state.word)
            assert word.confirmed + word.failed <= word.log_size
            assert word.base_confirmed <= word.confirmed and word.base_failed <= word.failed
            if release_id > 1:
                assert kept.terms.version > self.model.releases[pid, release_id - 1].terms.version

    # -- what acts are drawn from -----------------------------------------------------------------

    def draw_product(self, data: Any, released: bool = False) -> tuple[bytes, Product]:
        """A product and its record; mostly the first, and one with a release where that matters."""
        able = [p for p in self.product_ids if self.model.products[p].head.latest_release]
        ids = able if able and released and not data.draw(rarely) else self.product_ids
        pid = data.draw(st.sampled_from([*ids[:1] * 3, *ids]))
        product = self.model.products[pid].record(self.now)
        self.seen_products.append(product)
        if data.draw(rarely):
            product = data.draw(st.sampled_from(self.seen_products))
        return pid, product

    def draw_release(self, data: Any, pid: bytes) -> Release:
        latest = max(1, self.model.products[pid].head.latest_release)
        release_id = data.draw(st.integers(1, latest))
        kept = self.model.releases.get((pid, release_id))
        release = Release(release_id, bytes(32), State(0, 0))
        if kept is not None:
            release = Release(release_id, kept.terms.hash_struct(), kept.state)
        self.seen_releases.append(release)
        if data.draw(rarely):
            release = data.draw(st.sampled_from(self.seen_releases))
        return release

    def draw_approvals(self, data: Any, message: Any, g: Governance) -> Any:
        """Approvals of ``message``, usually in order; its ``valid_until`` may be in the past."""
        able = [n for n in sorted(NAMES, key=address) if address(n) in g.approvers]
        if data.draw(rarely):
            able = data.draw(st.lists(names, max_size=3))
        elif not data.draw(rarely):
            able = able[: data.draw(st.integers(g.threshold, len(able)))]
        signed: Record = message
        if data.draw(rarely):
            signed = dataclasses.replace(message, epoch=message.epoch + 1)
        digest = self.box.ledger.digest(signed)
        on_chain = data.draw(st.sets(st.sampled_from(able))) if able and data.draw(rarely) else ()
        for name in on_chain:
            if data.draw(st.booleans()):
                self.do(name, "approve", digest)
        entries = [
            (address(n).rjust(32, b"\0"), bytes(32)) if n in on_chain else compact(digest, n)
            for n in able
        ]
        return message.valid_until, entries

    def valid_until(self, data: Any) -> int:
        return self.now - 1 if data.draw(rarely) else FAR

    # -- acts -------------------------------------------------------------------------------------

    @initialize(g=governances, rollout=st.tuples(first_phases, later_phases))
    def first_release(self, g: Governance, rollout: tuple[Phase, ...]) -> None:
        self.create(g, bytes(32), "alice")
        pid = self.product_ids[0]
        terms = Terms(pid, 5, 1, b"\x01" * 32, b"\x77" * 32, 1, 2, 3, 0, 0, 0, 0, False, 1, rollout)
        able = [n for n in sorted(APPROVERS, key=address) if address(n) in g.approvers]
        approvals = self.box.approvals(Approval(terms, 1, FAR), *able[: g.threshold])
        self.do("alice", "publish", self.model.products[pid].record(self.now), terms, approvals)

    @precondition(lambda self: len(self.product_ids) < 3)
    @rule(g=governances, salt=words, sender=st.sampled_from(["alice", "outsider"]))
    def create(self, g: Governance, salt: bytes, sender: str) -> None:
        self.do(sender, "createProduct", salt, g)
        pid = product_id(address(sender), salt)
        if pid not in self.product_ids:
            self.product_ids.append(pid)

    @rule(seconds=st.sampled_from([1, 59, 600, 3_600, DAY, 3 * DAY]))
    def later(self, seconds: int) -> None:
        self.wait += seconds

    @rule(data=st.data(), off=st.integers(-1, 1))
    def until_a_change_takes_effect(self, data: Any, off: int) -> None:
        pid = data.draw(st.sampled_from(self.product_ids))
        due = self.model.products[pid].effective_at + off
        self.wait = max(self.wait, due - self.box.evm.now)

    @rule(data=st.data(), rollout=rollouts, image=words, rise=st.sampled_from([1, 1, 1, 2, 0]))
    def publish(self, data: Any, rollout: tuple[Phase, ...], image: bytes, rise: int) -> None:
        pid, product = self.draw_product(data)
        head = self.model.products[pid].head
        terms = Terms(
            product_id=pid,
            version=max(0, head.version + rise),
            security_counter=max(
                0, head.security_counter + data.draw(st.sampled_from([0, 0, 1, -1]))
            ),
            image_digest=bytes(32) if data.draw(rarely) else image,
            manifest_digest=b"\x77" * 32,
            image_size=0 if data.draw(rarely) else 1,
            hardware_min=2,
            hardware_max=1 if data.draw(rarely) else 3,
            min_version=data.draw(st.sampled_from([0, 0, 1, head.version])),
            not_before=data.draw(st.sampled_from([0, 0, self.now + DAY])),
            expiry=data.draw(st.sampled_from([0, 0, 0, self.now, self.now + 2 * DAY])),
            required_attestations=data.draw(st.sampled_from([0, 0, 1])),
            critical=False,
            key_epoch=1,
            rollout=rollout,
        )
        g = product.governance
        approval = Approval(terms, g.epoch, self.valid_until(data))
        approvals = self.draw_approvals(data, approval, g)
        if data.draw(rarely):
            self.do(data.draw(names), "withdraw", pid, product, terms.hash_struct())
        self.do(data.draw(names), "publish", product, terms, approvals)

    @rule(data=st.data(), sender=watchers)
    def halt(self, data: Any, sender: str) -> None:
        pid, product = self.draw_product(data, released=True)
        release = self.draw_release(data, pid)
        reason = "x" * (257 if data.draw(rarely) else 9)
        self.do(sender, "halt", pid, product, release, reason)

    @rule(data=st.data(), action=st.sampled_from([Action.RESUME] * 3 + list(Action)))
    def decide(self, data: Any, action: Action) -> None:
        functions = {
            Action.RESUME: "resume",
            Action.SUPERSEDE: "supersede",
            Action.REVOKE: "revoke",
        }
        pid, product = self.draw_product(data, released=True)
        g, head = product.governance, self.model.products[pid].head
        if action in functions:
            release = self.draw_release(data, pid)
            halts = StateWord.unpack(release.state.word).halts
            nonce = halts if action == Action.RESUME else 0
            target, args = release.release_id, (pid, product, release)
            function = functions[action]
        else:
            action, target, nonce = Action.UNPAUSE, 0, head.pauses
            args, function = (pid, product), "unpause"  # type: ignore[assignment]
        if data.draw(rarely):
            nonce += 1
        message = Decision(pid, target, action, nonce, g.epoch, self.valid_until(data))
        self.do(data.draw(names), function, *args, self.draw_approvals(data, message, g))

    @rule(data=st.data(), sender=watchers)
    def pause(self, data: Any, sender: str) -> None:
        self.do(sender, "pause", *self.draw_product(data))

    @rule(data=st.data(), kind=st.integers(0, 8), evidence=words)
    def attest(self, data: Any, kind: int, evidence: bytes) -> None:
        pid, product = self.draw_product(data, released=True)
        release = self.draw_release(data, pid)
        sender = data.draw(st.sampled_from(["auditor", "auditor", "reporter"]))
        self.do(sender, "attest", pid, product, release, kind % 8 if kind < 8 else 8, evidence)

    @rule(data=st.data(), batches=st.integers(1, 3))
    def anchor(self, data: Any, batches: int) -> None:
        """Batches in a row; three good ones to a bad one are just not above a rate of 2,500."""
        for _ in range(batches):
            pid, product = self.draw_product(data, released=True)
            release = self.draw_release(data, pid)
            bad = data.draw(st.sampled_from([0, 1, 1, 2, 3]))
            good = data.draw(st.sampled_from([0, 3 * bad, 3 * bad, 3 * bad + 1, 9]))
            spare = data.draw(st.sampled_from([0, 0, 0, 1, 5, -1]))
            size = max(0, StateWord.unpack(release.state.word).log_size + good + bad + spare)
            sender = data.draw(st.sampled_from(["reporter"] * 7 + ["auditor"]))
            root = data.draw(words)
            self.do(sender, "anchor", pid, product, release, size, root, good, bad)

    def draw_next(self, data: Any, g: Governance) -> Governance:
        """The governance after up to two edits."""
        following = dataclasses.replace(g, epoch=g.epoch + 1)
        for edit in data.draw(st.lists(likely, max_size=2)):
            following = dataclasses.replace(following, **{edit: data.draw(edits[edit])})
        return following

    @rule(data=st.data())
    def amend(self, data: Any) -> None:
        pid, product = self.draw_product(data)
        g = product.governance
        following = self.draw_next(data, g)
        message = Amendment(pid, following, g.epoch, self.valid_until(data))
        approvals = self.draw_approvals(data, message, g)
        self.do(data.draw(names), "amend", pid, product, following, approvals)

    @rule(data=st.data(), sender=watchers)
    def restrict(self, data: Any, sender: str) -> None:
        pid, product = self.draw_product(data)
        if data.draw(rarely):
            following = self.draw_next(data, product.governance)
        else:
            g = product.governance
            following = dataclasses.replace(g, epoch=g.epoch + 1)
            edit = data.draw(st.sampled_from([*removals, "itself"]))
            if edit == "itself":
                left = tuple(a for a in g.approvers if a != address(sender))
                following = dataclasses.replace(following, approvers=left)
            else:
                following = dataclasses.replace(following, **{edit: data.draw(removals[edit])})
        self.do(sender, "restrict", pid, product, following)

    @rule(data=st.data(), sender=watchers)
    def cancel(self, data: Any, sender: str) -> None:
        pid, product = self.draw_product(data)
        pending = self.model.products[pid].pending
        if pending is None or data.draw(rarely):
            pending = self.draw_next(data, product.governance)
        self.do(sender, "cancel", pid, product, pending)

    @rule(data=st.data(), more=st.sampled_from([{}, {}, {"auditors": ()}, {"release_delay": 0}]))
    def remove_a_guardian(self, data: Any, more: dict[str, Any]) -> None:
        """One guardian's seat, and what else the change does; then somebody may cancel it."""
        pid, product = self.draw_product(data)
        g = product.governance
        left = g.guardians[: data.draw(st.integers(0, max(0, len(g.guardians) - 1)))]
        following = dataclasses.replace(g, epoch=g.epoch + 1, guardians=left, **more)
        approvals = self.draw_approvals(data, Amendment(pid, following, g.epoch, FAR), g)
        self.do(data.draw(names), "amend", pid, product, following, approvals)
        if data.draw(st.booleans()):
            record = self.model.products[pid].record(self.now)
            self.do(data.draw(watchers), "cancel", pid, record, following)

    @rule(data=st.data(), root=words, sender=st.sampled_from(["enroller", "enroller", "alice"]))
    def set_fleet(self, data: Any, root: bytes, sender: str) -> None:
        pid, product = self.draw_product(data)
        self.do(sender, "setFleet", pid, product, root, 7)
        self.compare_reads(self.model.fleets.get(pid, (bytes(32), 0, 0)), "fleet", pid)

    # -- reading ----------------------------------------------------------------------------------

    @precondition(lambda self: self.model.releases)
    @rule(
        data=st.data(),
        device=st.integers(0, 40),
        hardware=st.sampled_from([2, 3, 2, 3, 2, 3, 1, 4]),
        seconds=st.sampled_from([0, 0, 600, DAY, 2 * DAY]),
    )
    def ask(self, data: Any, device: int, hardware: int, seconds: int) -> None:
        self.wait += seconds
        pid, release_id = data.draw(st.sampled_from(sorted(self.model.releases)))
        kept = self.model.releases[pid, release_id]
        version = max(0, kept.terms.version - data.draw(st.sampled_from([1, 1, 2, 0])))
        counter = data.draw(st.sampled_from([0, 1, 0, 1, 2]))
        facts = Device(device.to_bytes(32, "big"), version, counter, hardware)
        product = self.model.products[pid].record(self.now)
        args = (product, kept.terms, release_id, kept.state, facts)
        reason = self.model.eligible(address("alice"), self.now, *args)
        self.compare_reads(reason, "eligible", *args)
        image = kept.terms.image_digest
        self.compare_reads(self.model.images[pid, image], "releaseOf", pid, image)


DEPTH = int(os.environ.get("FIRMLEDGER_MODEL_DEPTH", "0"))

TestLedgerModel = Differential.TestCase
TestLedgerModel.settings = settings(
    max_examples=30 * max(1, DEPTH),
    stateful_step_count=60 if DEPTH else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
