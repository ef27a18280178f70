"""A chain in memory that changes its mind and loses answers: what a real one does rarely.

It implements the ports `BlockSource` and `TransactionSink` with the rules of `protocol.ledger`, for
the acts that the registry's own account performs. Signatures of approvers are counted, not checked:
tests about those run on the real contract.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import rlp
from eth_account import Account

from protocol import ledger as rules
from protocol.digests import keccak256
from protocol.errors import LedgerRefused, Refused, Unreachable
from protocol.ids import Address, Hash, ProductId
from protocol.ledger import StateWord, Status
from protocol.records import Governance, Head, Ledger, Product, Release, State, Terms, product_id
from registry.artifact import artifact
from registry.ports import Block, Call, Event, Fees, Receipt
from registry.standing import Standing

GAS = 100_000


@dataclass
class _State:
    """What the contract stores, records instead of commitments."""

    products: dict[bytes, Standing] = field(default_factory=dict)
    releases: dict[tuple[bytes, int], tuple[bytes, State]] = field(default_factory=dict)
    fleets: dict[bytes, int] = field(default_factory=dict)
    nonces: dict[bytes, int] = field(default_factory=dict)


@dataclass
class _Mined:
    block: Block
    events: list[Event]
    receipts: dict[Hash, Receipt]
    transactions: list[bytes]
    state: _State


@dataclass(frozen=True)
class _Tx:
    raw: bytes
    sender: Address
    nonce: int
    price: int
    data: bytes


class SimChain:
    """One contract on one chain. ``mine`` makes blocks, ``reorganise`` takes them back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ledger = Ledger(4242, Address(b"\xc0" * 20))
        self._clock = clock
        self._fork = 0
        genesis = Block(0, keccak256(b"genesis"), Hash(bytes(32)), int(clock()) - 1)
        self._chain = [_Mined(genesis, [], {}, [], _State())]
        self.pool: dict[tuple[bytes, int], _Tx] = {}
        self.price = 0
        self.validators: tuple[Address, ...] = ()
        """Those whom the next blocks list."""
        self.floor = 0
        """Transactions that offer less are not taken into blocks."""
        self.lose_answers = 0
        """So many transactions are taken, and the answer is lost."""
        self.refuse: Refused | None = None
        """What the node says to the next transaction instead of taking it."""

    # -- BlockSource ------------------------------------------------------------------------------

    def head(self) -> Block:
        return self._chain[-1].block

    def finalized(self) -> Block:
        return self._chain[max(0, len(self._chain) - 3)].block

    def block(self, which: int | Hash) -> Block | None:
        if isinstance(which, int):
            return self._chain[which].block if which < len(self._chain) else None
        return next((mined.block for mined in self._chain if mined.block.hash == which), None)

    def events(self, block: Hash) -> Sequence[Event]:
        for mined in self._chain:
            if mined.block.hash == block:
                return mined.events
        raise Unreachable("rpc-refused", "events not read", "unknown block", "try again")

    @property
    def all_events(self) -> list[Event]:
        return [event for mined in self._chain for event in mined.events]

    # -- TransactionSink --------------------------------------------------------------------------

    def nonce(self, sender: Address) -> int:
        return self._chain[-1].state.nonces.get(sender, 0)

    def fees(self) -> Fees:
        return Fees(self.price)

    def encode(self, call: Call) -> bytes:
        return artifact().encode(call.function, call.args)

    def estimate(self, sender: Address, call: Call) -> int:
        trial = copy.deepcopy(self._chain[-1].state)
        _run(self.ledger, trial, sender, self.encode(call), self._next_time())
        return GAS

    def send(self, raw: bytes) -> Hash:
        tx = _decode(raw)
        if self.refuse is not None:
            refusal, self.refuse = self.refuse, None
            raise refusal
        waiting = self.pool.get((tx.sender, tx.nonce))
        known = waiting == tx or self.receipt(keccak256(raw)) is not None
        if not known and tx.nonce < self.nonce(tx.sender):
            raise Refused("nonce-too-low", "transaction not taken", "nonce too low", "-")
        if not known and waiting is not None and tx.price <= waiting.price:
            raise Refused("underpriced", "transaction not taken", "underpriced", "-")
        if not known:
            self.pool[tx.sender, tx.nonce] = tx
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unreachable("rpc-unreachable", "no answer", "connection lost", "try again")
        return keccak256(raw)

    def receipt(self, tx: Hash) -> Receipt | None:
        return next((m.receipts[tx] for m in self._chain if tx in m.receipts), None)

    def why_reverted(
        self, sender: Address, data: bytes, gas: int, receipt: Receipt
    ) -> LedgerRefused:
        for height in (receipt.block, receipt.block - 1):
            trial = copy.deepcopy(self._chain[height].state)
            try:
                _run(self.ledger, trial, sender, data, self._chain[height].block.timestamp)
            except LedgerRefused as refusal:
                return refusal
        return _refused("")

    # -- what happens to a chain ------------------------------------------------------------------

    def mine(self) -> Block:
        """A block with every transaction that can run."""
        parent, now = self._chain[-1], self._next_time()
        number = parent.block.number + 1
        name = keccak256(parent.block.hash + bytes([self._fork]) + now.to_bytes(8, "big"))
        block = Block(number, name, parent.block.hash, now, self.validators)
        mined = _Mined(block, [], {}, [], copy.deepcopy(parent.state))
        for tx in sorted(self.pool.values(), key=lambda tx: (tx.sender, tx.nonce)):
            if tx.nonce == mined.state.nonces.get(tx.sender, 0) and tx.price >= self.floor:
                self._include(mined, tx)
                del self.pool[tx.sender, tx.nonce]
        self._chain.append(mined)
        return block

    def reorganise(self, depth: int, *, lose: bool = False) -> None:
        """The newest blocks never were; their transactions wait again, unless they are lost."""
        self._fork += 1
        for mined in self._chain[-depth:]:
            for raw in mined.transactions:
                tx = _decode(raw)
                if not lose:
                    self.pool[tx.sender, tx.nonce] = tx
        del self._chain[-depth:]

    def forget_pool(self) -> None:
        """The node restarts and has lost what waited."""
        self.pool.clear()

    def _include(self, mined: _Mined, tx: _Tx) -> None:
        name = keccak256(tx.raw)
        mined.state.nonces[tx.sender] = tx.nonce + 1
        mined.transactions.append(tx.raw)
        trial = copy.deepcopy(mined.state)
        try:
            found = _run(self.ledger, trial, tx.sender, tx.data, mined.block.timestamp)
            mined.state, succeeded = trial, True
        except LedgerRefused:
            found, succeeded = [], False
        events = [
            Event(event, args, mined.block.number, mined.block.hash, name, len(mined.events) + i)
            for i, (event, args) in enumerate(found)
        ]
        mined.events += events
        mined.receipts[name] = Receipt(
            name, mined.block.number, mined.block.hash, succeeded, GAS // 2, events=events
        )

    def _next_time(self) -> int:
        return max(int(self._clock()), self._chain[-1].block.timestamp + 1)


# -- the contract ---------------------------------------------------------------------------------

Found = list[tuple[str, dict[str, Any]]]


def _run(ledger: Ledger, state: _State, sender: Address, data: bytes, now: int) -> Found:
    decoded = artifact().decode_call(data)
    assert decoded is not None, "calldata of another contract"
    function, args = decoded
    return _FUNCTIONS[function](_Act(ledger, state, sender, now), **args)


@dataclass
class _Act:
    ledger: Ledger
    state: _State
    sender: Address
    now: int

    def current(self, which: ProductId, product: Product) -> Standing:
        standing = self.state.products.get(which)
        if standing is None:
            raise _refused("UnknownProduct", product_id=str(which))
        if standing.record(self.now) != product:
            raise _refused("StaleProduct", product_id=str(which))
        return standing

    def release(self, which: ProductId, release: Release) -> StateWord:
        stored = self.state.releases.get((which, release.release_id))
        if stored is None:
            raise _refused("UnknownRelease", release_id=release.release_id)
        if stored != (release.terms_hash, release.state):
            raise _refused("StaleRelease", release_id=release.release_id)
        return StateWord.unpack(release.state.word)

    def store(self, which: ProductId, release: Release, state: State) -> dict[str, Any]:
        self.state.releases[which, release.release_id] = (release.terms_hash, state)
        return {"product_id": which, "release_id": release.release_id, "state": state}


def _create(act: _Act, salt: Hash, governance: Governance) -> Found:
    which = product_id(act.sender, salt)
    if which in act.state.products:
        raise _refused("ProductExists", product_id=str(which))
    act.state.products[which] = Standing(governance)
    args = {"product_id": which, "creator": act.sender, "salt": salt}
    return [("ProductCreated", {**args, "product": Product(governance)})]


def _publish(act: _Act, product: Product, terms: Terms, approvals: Any) -> Found:
    which = ProductId(terms.product_id)
    standing = act.current(which, product)
    if terms.version <= standing.head.version:
        raise _refused("VersionNotRising", newest=standing.head.version, given=terms.version)
    if len(approvals.signatures) < product.governance.threshold:
        raise _refused("TooFewApprovals", given=len(approvals.signatures))
    release_id = standing.head.latest_release + 1
    delay = rules.release_delay(product.governance, len(approvals.signatures))
    state = rules.published(standing.head, terms, act.now, delay)
    head = Head(
        release_id, terms.version, terms.security_counter, 0, standing.head.paused_total,
        standing.head.pauses,
    )  # fmt: skip
    act.state.products[which] = replace(standing, head=head)
    act.state.releases[which, release_id] = (bytes(terms.hash_struct()), state)
    args = {"product_id": which, "release_id": release_id, "image_digest": terms.image_digest}
    rest = {"state": state, "epoch": product.governance.epoch, "approvals": approvals}
    return [("ReleasePublished", {**args, "terms": terms, **rest})]


def _set_fleet(act: _Act, product_id: ProductId, product: Product, root: Any, size: int) -> Found:
    act.current(product_id, product)
    epoch = act.state.fleets[product_id] = act.state.fleets.get(product_id, 0) + 1
    args = {"product_id": product_id, "by": act.sender, "root": root, "size": size}
    return [("FleetSet", {**args, "epoch": epoch})]


def _anchor(
    act: _Act, product_id: ProductId, product: Product, release: Release, new_size: int,
    root: Any, confirmed_delta: int, failed_delta: int,
) -> Found:  # fmt: skip
    act.current(product_id, product)
    before = act.release(product_id, release)
    if new_size <= before.log_size:
        raise _refused("LogNotGrowing", size=before.log_size, new_size=new_size)
    word = replace(
        before, log_size=new_size, confirmed=before.confirmed + confirmed_delta,
        failed=before.failed + failed_delta,
    )  # fmt: skip
    plain = replace(release.state, word=word.pack(), log_root=bytes(root))
    state = rules.anchored(
        product, release.state, act.now, new_size=new_size, root=bytes(root),
        confirmed=confirmed_delta, failed=failed_delta,
    )  # fmt: skip
    deltas = {"confirmed_delta": confirmed_delta, "failed_delta": failed_delta}
    args = act.store(product_id, release, state)
    found: Found = [
        ("ReceiptsAnchored", {**args, "reporter": act.sender, **deltas, "state": plain})
    ]
    if state != plain:
        found.append(
            ("ReleaseHalted", {**args, "by": act.ledger.contract, "reason": "halting rule met"})
        )
    return found


def _halt(
    act: _Act, product_id: ProductId, product: Product, release: Release, reason: str
) -> Found:
    act.current(product_id, product)
    word = act.release(product_id, release)
    if word.status != Status.ACTIVE:
        raise _refused("WrongStatus", status=word.status)
    args = act.store(product_id, release, rules.halted(product.head, release.state, act.now))
    return [("ReleaseHalted", {**args, "by": act.sender, "reason": reason})]


def _pause(act: _Act, product_id: ProductId, product: Product) -> Found:
    standing = act.current(product_id, product)
    head = replace(standing.head, paused_at=act.now, pauses=standing.head.pauses + 1)
    act.state.products[product_id] = replace(standing, head=head)
    return [("ProductPaused", {"product_id": product_id, "by": act.sender, "head": head})]


_FUNCTIONS: dict[str, Callable[..., Found]] = {
    "createProduct": _create,
    "publish": _publish,
    "setFleet": _set_fleet,
    "anchor": _anchor,
    "halt": _halt,
    "pause": _pause,
}


def _refused(name: str, **data: Any) -> LedgerRefused:
    return LedgerRefused(name, "refused by the simulated ledger", name, "-", error=name, **data)


def _decode(raw: bytes) -> _Tx:
    fields = rlp.decode(raw if raw[0] >= 0xC0 else raw[1:])
    at = 0 if raw[0] >= 0xC0 else 1  # typed transactions start with the chain id
    nonce, price, data = (
        fields[at],
        fields[at + 1 if at == 0 else at + 2],
        fields[5 if at == 0 else 7],
    )
    return _Tx(
        raw=raw,
        sender=Address.parse(Account.recover_transaction(raw)),
        nonce=int.from_bytes(nonce, "big"),
        price=int.from_bytes(price, "big"),
        data=data,
    )
