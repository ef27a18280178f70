"""The audit: everything re-derived from the chain alone, and compared with store and receipts.

Guarantees: a report is ``ok`` only if

1. the contract runs the code of this version, so that the rules are the ones replayed here;
2. every event is in receipts that hash to the root in a header, and the header is sealed by the
   validators (on a chain that is sealed by QBFT);
3. every event follows from those before it by the rules, and every publication carries the
   signatures it took (`registry.replay`);
4. at the head, the contract's storage is proved to hold exactly what the replay comes to;
5. given receipts: they are what was anchored, and were counted right (`registry.recount`);
6. given a store: every blob is what its name says.

Rules: nothing of the registry's catalogue is read. No archive is needed: state is proved at the
head only. A node that does not answer is an error (`Unreachable`), never a clean report.

Not here: whether firmware is good, and whether devices tell the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from protocol.errors import FirmledgerError, LocalFault, Malformed, Untrusted
from protocol.header import MAX_HEADER_BYTES, Field, check_seals, link_ok, parse_header
from protocol.ids import Address, Hash
from protocol.ledger import StateWord
from protocol.proof import MAX_SLOTS, assemble, verify_state
from protocol.rlp import decode, to_bytes, to_list, to_uint
from protocol.trie import MAX_VALUE_BYTES, NodePool, verify
from registry.artifact import artifact
from registry.headers import is_qbft
from registry.judged import Finding
from registry.ports import BlobSource, Block, Chain, Event, ReceiptLog
from registry.recount import Recount
from registry.replay import Replay


@dataclass(frozen=True)
class Report:
    """What was found; ``ok`` means no problem."""

    head: int
    head_hash: Hash
    events: int
    products: int
    releases: int
    receipts: int
    """Receipts that the ledger's logs hold."""
    recounted: int
    """Receipts that were there to be checked one by one."""
    batches: int
    seals: int
    """Seals verified; 0 on a chain that QBFT does not seal."""
    blobs: int
    problems: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; problems as sentences with reason, transaction and block."""
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {
            "ok": self.ok,
            **counts,
            "head_hash": str(self.head_hash),
            "problems": [
                {
                    "reason": finding.reason,
                    "sentence": finding.sentence,
                    "tx": str(finding.tx) if finding.tx else None,
                    "block": finding.block,
                }
                for finding in self.problems
            ],
        }


def audit(
    chain: Chain,
    *,
    start: int,
    store: BlobSource | None = None,
    receipts: ReceiptLog | None = None,
    validators: Sequence[Address] = (),
) -> Report:
    """Audits one ledger from its deployment at height ``start`` to the head.

    ``validators``: those trusted at ``start``; if none are given, those that its block lists.
    `Unreachable` if the node does not answer; then nothing is said.
    """
    head = chain.head()
    run = _Run(chain, head, validators)
    run.check_code()
    run.replay_events(start)
    run.check_storage()
    recount = Recount(receipts) if receipts is not None else None
    if recount is not None:
        recount.check(run.replay.history.batches)
        run.findings += recount.findings
    blobs = run.check_blobs(store) if store is not None else 0
    states = [past.state for past in run.replay.history.releases.values()]
    return Report(
        head=head.number,
        head_hash=head.hash,
        events=run.replay.events,
        products=run.replay.products,
        releases=run.replay.releases,
        receipts=sum(StateWord.unpack(state.word).log_size for state in states),
        recounted=recount.receipts if recount else 0,
        batches=len(run.replay.history.batches),
        seals=run.seals,
        blobs=blobs,
        problems=tuple(run.findings),
    )


class _Run:
    """One audit under way."""

    def __init__(self, chain: Chain, head: Block, validators: Sequence[Address]) -> None:
        self._chain = chain
        self._head = head
        self._trusted = tuple(validators)
        self.replay = Replay(chain.ledger)
        self.findings = self.replay.history.findings
        self.seals = 0

    def find(self, reason: str, sentence: str, event: Event | None = None) -> None:
        tx, block = (event.tx, event.block) if event else (None, None)
        self.findings.append(Finding(reason, sentence, tx, block))

    # 1
    def check_code(self) -> None:
        """The contract is the one whose rules are replayed."""
        found, known = self._chain.code_hash(), artifact().code_hash
        if found != known:
            self.find(
                "foreign-code",
                f"The contract {self._chain.ledger.contract} runs code {found}, not {known}:"
                " its rules are not those of this version.",
            )

    # 2, 3
    def replay_events(self, start: int) -> None:
        """Every event, block by block: are they the block's, is it sealed, are they allowed."""
        for number, events in _by_block(self._chain.events_between(start, self._head.number)):
            block = self._chain.block(number)
            if block is None or any(event.block_hash != block.hash for event in events):
                self.find("chain-moved", f"Block {number} changed during the audit.", events[0])
                continue
            self._check_events(block, events)
            self._check_seals(block)
            for event in events:
                self.replay.take(event, block.timestamp)
        self.replay.close()
        self._check_seals(self._head)

    def _check_events(self, block: Block, events: Sequence[Event]) -> None:
        try:
            proved = self._chain.proved_events(block.hash)
        except (Untrusted, Malformed) as error:
            self.find("events-unproved", f"Block {block.number}: {error.why}.", events[0])
            return
        if list(proved) != list(events):
            self.find(
                "events-altered",
                f"The node tells other events of block {block.number} than its receipts hold.",
                events[0],
            )

    def _check_seals(self, block: Block) -> None:
        raw = self._chain.header(block.hash)
        if block.number == 0 or not is_qbft(raw):
            return
        header = parse_header(raw)
        if not self._trusted:
            self._trusted = header.extra.validators
        try:
            if set(header.extra.validators) == {*self._trusted}:
                self.seals += len(check_seals(header, self._trusted))
            else:
                self._trusted = link_ok(header, self._trusted)
                self.seals += len(header.extra.seals)
        except FirmledgerError as error:
            self.find("not-sealed", f"Block {block.number} ({block.hash}): {error.why}.")

    # 4
    def check_storage(self) -> None:
        """What the contract stores at the head is what the events come to."""
        expected = self.replay.commitments()
        raw = self._chain.header(self._head.hash)
        slots = iter(sorted(expected))
        while chunk := list(islice(slots, MAX_SLOTS)):
            try:
                words = self._proved_words(raw, chunk)
            except (Untrusted, Malformed) as error:
                self.find("state-unproved", f"State of block {self._head.number}: {error.why}.")
                continue
            for slot in chunk:
                what, word = expected[slot]
                if words[slot] != word:
                    self.find(
                        "wrong-commitment",
                        f"The {what} is 0x{words[slot].hex()} on the ledger; the events come to"
                        f" 0x{word.hex()}.",
                    )

    def _proved_words(self, raw: bytes, slots: Sequence[Hash]) -> Mapping[Hash, bytes]:
        answer = self._chain.proof(slots, self._head.hash)
        contract, code = self._chain.ledger.contract, self._chain.code_hash()
        if not is_qbft(raw):
            return _unsealed_words(raw, answer, contract, slots)
        proof = assemble(raw, answer)
        listed = parse_header(raw).extra.validators
        state = verify_state(
            proof, validators=listed, contract=contract, code_hash=code, slots=slots
        )
        return state.values

    # 6
    def check_blobs(self, store: BlobSource) -> int:
        """Every blob hashes to its name; how many there are."""
        count = 0
        for digest in store:
            count += 1
            try:
                store.verify(digest)
            except LocalFault as error:
                self.find(error.reason, f"Blob {digest}: {error.why}.")
        return count


def _by_block(events: Iterable[Event]) -> Iterator[tuple[int, list[Event]]]:
    number, gathered = -1, list[Event]()
    for event in events:
        if event.block != number and gathered:
            yield number, gathered
            gathered = []
        number = event.block
        gathered.append(event)
    if gathered:
        yield number, gathered


def _unsealed_words(
    raw: bytes, answer: Mapping[str, Any], contract: Address, slots: Sequence[Hash]
) -> dict[Hash, bytes]:
    """The words proved against a header that no validators seal."""
    item = decode(raw, max_bytes=MAX_HEADER_BYTES, max_depth=8, max_items=MAX_HEADER_BYTES)
    state_root = Hash(to_bytes(to_list(item, "header")[Field.STATE_ROOT], 32, "state root"))
    parts = [answer["accountProof"], *(entry["proof"] for entry in answer["storageProof"])]
    nodes = {bytes.fromhex(node[2:]): None for part in parts for node in part if node != "0x80"}
    pool = NodePool(tuple(nodes))
    leaf = verify(state_root, contract, pool)
    if leaf is None:
        raise Untrusted("no-contract", "state refused", "there is no contract", "ask another node")
    account = to_list(decode(leaf, max_bytes=MAX_VALUE_BYTES, max_depth=1, max_items=5), "account")
    storage_root = Hash(to_bytes(account[2], 32, "storage root"))
    words = {}
    for slot in slots:
        value = verify(storage_root, slot, pool)
        number = 0
        if value is not None:
            number = to_uint(decode(value, max_bytes=33, max_depth=0, max_items=1), 32, "word")
        words[slot] = number.to_bytes(32, "big")
    return words
