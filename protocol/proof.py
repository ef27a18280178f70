"""What a consensus-sealed ledger holds, proved offline: header, seals, account, storage words.

Guarantees: `verify_state` returns only what a quorum of the trusted validators sealed: the words at
exactly the given slots of exactly the given contract, running exactly the given code. It has no
state, and what it costs is bounded before it starts, whoever made the proof.

Rules:

* Validators, contract, code hash and slots are *pinned*: they come from the caller, never from
  the proof. Slots are derived with `mapping_slot` and `nested_slot` from pinned ids.
* A word that is not stored is zero, and being not stored is proved like anything else.
* One proof has one encoding: seals ascend by sealer, trie nodes stand in the order in which the
  walk first needs them (account first, then slots ascending), none is missing, none left over.
* The steps are those of docs/spec/proof.md, section 4. An error carries the number of the step
  that refused as ``data["step"]``.

Not here: whether height, time and validators are the latest (`device_client.core.trust`), what the
words mean (`protocol.ledger`), and how a proof travels (`protocol.bundle`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from protocol.digests import keccak256
from protocol.errors import FirmledgerError, Malformed, Misuse, Untrusted
from protocol.header import (
    MAX_HEADER_BYTES,
    MAX_VALIDATORS,
    block_hash,
    check_seals,
    encode_header,
    parse_header,
    quorum,
    sealers,
    trim_seals,
)
from protocol.ids import Address, Hash
from protocol.rlp import decode, to_bytes, to_list, to_uint
from protocol.trie import (
    MAX_NODE_BYTES,
    MAX_NODES,
    MAX_VALUE_BYTES,
    NodePool,
    bound_nodes,
    verify,
)

MAX_SLOTS = 16
MAX_PROOF_BYTES = MAX_HEADER_BYTES + MAX_NODES * MAX_NODE_BYTES
WORD_BYTES = 32


class Step(IntEnum):
    """The steps of docs/spec/proof.md, section 4, by their numbers there."""

    BOUND = 1
    HEADER = 2
    SEALS = 3
    SEAL_ORDER = 4
    ACCOUNT = 5
    CODE = 6
    STORAGE = 7
    NOTHING_ELSE = 8


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything that has to travel; nothing in it is true before `verify_state` has said so."""

    header: bytes
    """The sealed block header, RLP."""
    nodes: tuple[bytes, ...]
    """Trie nodes of the account and of its storage, each once, in the order of the walk."""

    @property
    def size(self) -> int:
        """Bytes of header and nodes together, without the framing of whatever carries them."""
        return len(self.header) + sum(map(len, self.nodes))


@dataclass(frozen=True, slots=True)
class ProvenState:
    """What the ledger held at one block, proved."""

    number: int
    """Height of the block; the caller checks that it does not fall."""
    timestamp: int
    """Seconds since 1970, UTC, as the block says; the caller checks its age."""
    block_hash: Hash
    """Differs from another proven one of the same height only if validators equivocated."""
    sealers: tuple[Address, ...]
    validators: tuple[Address, ...]
    values: Mapping[Hash, bytes]
    """The 32-byte word at each slot asked for; zeros where nothing is stored."""


@dataclass(frozen=True, slots=True)
class ProvenLink:
    """A block that a quorum of the validators it lists sealed; whose word that is, it cannot say.

    It leads from other validators to its own if those others believe it: `believed_by`.
    """

    number: int
    """Height of a block that lists them; the caller checks that it rises."""
    timestamp: int
    """Seconds since 1970, UTC. Nobody judges it: the trusting period counts from the block accepted
    last, not from links."""
    block_hash: Hash
    validators: tuple[Address, ...]
    sealers: tuple[Address, ...]

    def believed_by(self, trusted: Collection[Address]) -> bool:
        """Whether ceil(2t/3) of the t validators ``trusted`` so far are among its sealers."""
        return len(set(trusted).intersection(self.sealers)) >= quorum(len(trusted))


def mapping_slot(key: bytes, slot: int | bytes) -> Hash:
    """Where a mapping at ``slot`` keeps ``key`` (32 bytes): Solidity's storage layout."""
    base = slot.to_bytes(WORD_BYTES, "big") if isinstance(slot, int) else slot
    if len(key) != WORD_BYTES or len(base) != WORD_BYTES:
        why = f"key and slot have {len(key)} and {len(base)} bytes"
        raise Misuse(
            "bad-slot", "storage slot not derived", why, "pad both to 32 bytes on the left"
        )
    return keccak256(key + base)


def nested_slot(slot: int | bytes, *keys: bytes) -> Hash:
    """Where a mapping of mappings at ``slot`` keeps ``keys``, the outermost key first."""
    if not keys:
        raise Misuse("bad-slot", "storage slot not derived", "no key is given", "give at least one")
    base = mapping_slot(keys[0], slot)
    for key in keys[1:]:
        base = mapping_slot(key, base)
    return base


def verify_state(
    proof: Proof,
    *,
    validators: Collection[Address],
    contract: Address,
    code_hash: Hash,
    slots: Sequence[Hash],
) -> ProvenState:
    """The words at ``slots`` of ``contract`` as ``validators`` sealed them (docs/spec/proof.md, 4).

    Raises `Malformed` when the bytes cannot be read, `Untrusted` when they do not prove it,
    `Misuse` for pinned values that cannot be; the first two carry ``data["step"]``.
    """
    wanted = _distinct(slots)
    with _step(Step.BOUND):  # 1. sizes, before anything is read
        _bound(proof)
    with _step(Step.HEADER):  # 2. strict RLP, fifteen known fields, QBFT extraData
        header = parse_header(proof.header)
    with _step(Step.SEALS):  # 3. a quorum of the trusted set, each once, nobody else
        sealed_by = check_seals(header, validators)
    with _step(Step.SEAL_ORDER):  # 4. one order only, as no signature covers it
        _require_ascending(sealed_by)
    # From here on every byte is bound to the sealed state root; nodes are hashed only now.
    with _step(Step.ACCOUNT):  # 5. the contract's account in the state trie
        pool = NodePool(proof.nodes)
        storage_root, code = _account(header.state_root, contract, pool)
    with _step(Step.CODE):  # 6. not a proxy, not another contract
        if code != code_hash:
            raise _untrusted("wrong-code", f"the contract runs code {code}, not {code_hash}")
    with _step(Step.STORAGE):  # 7. each slot, present or absent
        values = {slot: _word(storage_root, slot, pool) for slot in wanted}
    with _step(Step.NOTHING_ELSE):  # 8. no node more, none twice, none elsewhere
        pool.require_spent()
    return ProvenState(
        number=header.number,
        timestamp=header.timestamp,
        block_hash=block_hash(header),
        sealers=sealed_by,
        validators=header.extra.validators,
        values=values,
    )


def read_link(
    header: bytes,
    most_seals: int = MAX_VALIDATORS,
    *,
    above: int = 0,
    trusted: Collection[Address] = (),
) -> ProvenLink:
    """The block of ``header``, sealed by a quorum of those it lists: steps 1 to 4, without trust.

    A header with over ``most_seals`` seals is refused as ``too-many-seals``, before any is looked
    at; so is one of a block ``above`` which too few of ``trusted`` are listed, as ``no-overlap``:
    whom it does not list cannot have sealed it. Raises `Malformed` or `Untrusted`, with
    ``data["step"]``.
    """
    with _step(Step.BOUND):
        _bound(Proof(header, ()))
    with _step(Step.HEADER):
        parsed = parse_header(header)
    with _step(Step.SEALS):
        if len(parsed.extra.seals) > most_seals:
            why = f"it has {len(parsed.extra.seals)} seals, {most_seals} more are looked at"
            raise _untrusted("too-many-seals", why)
        if trusted and parsed.number > above:
            _require_overlap(parsed.number, parsed.extra.validators, trusted)
        sealed_by = sealers(parsed)
    with _step(Step.SEAL_ORDER):
        _require_ascending(sealed_by)
    return ProvenLink(
        number=parsed.number,
        timestamp=parsed.timestamp,
        block_hash=block_hash(parsed),
        validators=parsed.extra.validators,
        sealers=sealed_by,
    )


def verify_link(header: bytes, trusted: Collection[Address]) -> ProvenLink:
    """The validators to trust from the block of ``header`` on, if ``trusted`` are those so far.

    As `read_link`, and step 3 refuses as ``no-overlap`` what ``trusted`` do not believe.
    """
    link = read_link(header)
    with _step(Step.SEALS):
        require_believed(link, trusted)
    return link


def require_believed(link: ProvenLink, trusted: Collection[Address]) -> None:
    """`Untrusted` as no-overlap unless ``trusted`` believe ``link``."""
    _require_overlap(link.number, link.sealers, trusted)


def assemble(header: bytes, answer: Mapping[str, Any], trusted: Collection[Address] = ()) -> Proof:
    """The smallest `Proof` in a block header and the answer of ``eth_getProof`` for it (EIP-1186).

    ``header``: RLP with all its seals; surplus ones are dropped, and with ``trusted`` those of that
    set are kept first. ``answer``: ``address``, ``accountProof`` and ``storageProof`` with ``key``
    and ``proof``, as hex or bytes; what else it says is not used. The result verifies against the
    header's own validators; where it cannot, this raises `Untrusted` or `Malformed`.
    """
    sealed = trim_seals(parse_header(header), trusted)
    try:
        contract, slots, nodes = _read_answer(answer)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _malformed("bad-answer", "the node's answer is not EIP-1186's") from error
    pool = NodePool(nodes)
    # The walk that the verifier will do: what it uses, in the order in which it uses it.
    storage_root, _ = _account(sealed.state_root, contract, pool)
    for slot in _distinct(slots):
        _word(storage_root, slot, pool)
    return Proof(encode_header(sealed), pool.spent())


def _require_overlap(number: int, among: Collection[Address], trusted: Collection[Address]) -> None:
    if len(set(trusted).intersection(among)) < quorum(len(trusted)):
        raise Untrusted(
            "no-overlap",
            "validator link refused",
            f"too few of the {len(trusted)} trusted validators can have sealed block {number}",
            "fetch links with fewer changes each, or re-anchor with the recovery keys",
        )


def _bound(proof: Proof) -> None:
    if len(proof.header) > MAX_HEADER_BYTES:
        why = f"its header has {len(proof.header)} bytes, the limit is {MAX_HEADER_BYTES}"
        raise _malformed("proof-oversized", why)
    bound_nodes(proof.nodes)


def _account(state_root: Hash, contract: Address, pool: NodePool) -> tuple[Hash, Hash]:
    """The contract's storage root and code hash: RLP [nonce, balance, storageRoot, codeHash]."""
    leaf = verify(state_root, contract, pool)
    if leaf is None:
        raise _untrusted("no-contract", f"there is no account {contract} at that block")
    account = to_list(decode(leaf, max_bytes=MAX_VALUE_BYTES, max_depth=1, max_items=5), "account")
    if len(account) != 4:
        raise _malformed("bad-account", f"the account has {len(account)} fields, not 4")
    to_uint(account[0], 8, "nonce")
    to_uint(account[1], 32, "balance")
    return Hash(to_bytes(account[2], 32, "storage root")), Hash(
        to_bytes(account[3], 32, "code hash")
    )


def _word(storage_root: Hash, slot: Hash, pool: NodePool) -> bytes:
    """The word at ``slot``, 32 bytes; zeros if the trie holds nothing there."""
    leaf = verify(storage_root, slot, pool)
    if leaf is None:
        return bytes(WORD_BYTES)
    value = to_uint(
        decode(leaf, max_bytes=33, max_depth=0, max_items=1), WORD_BYTES, "storage word"
    )
    if value == 0:
        raise _malformed("bad-word", "a stored word is zero, which tries do not store")
    return value.to_bytes(WORD_BYTES, "big")


def _distinct(slots: Sequence[Hash]) -> list[Hash]:
    """The slots, ascending: the order of the walk does not depend on that of the question."""
    if len(set(slots)) != len(slots) or len(slots) > MAX_SLOTS:
        why = f"{len(slots)} given, {len(set(slots))} distinct, at most {MAX_SLOTS} allowed"
        raise Misuse("bad-slots", "state not proved", why, "name each slot once")
    return sorted(slots)


@contextmanager
def _step(step: Step) -> Iterator[None]:
    """Marks what is refused inside with the number of the step."""
    try:
        yield
    except FirmledgerError as error:
        error.data["step"] = int(step)
        raise


def _require_ascending(sealed_by: Sequence[Address]) -> None:
    if list(sealed_by) != sorted(sealed_by):
        raise _untrusted("seal-order", "its seals do not ascend by the address of the sealer")


def _read_answer(answer: Mapping[str, Any]) -> tuple[Address, list[Hash], list[bytes]]:
    """Address, slots and all distinct nodes of an ``eth_getProof`` answer."""
    storage = answer["storageProof"]
    slots = [Hash(_raw(entry["key"]).rjust(WORD_BYTES, b"\0")) for entry in storage]
    given = [answer["accountProof"], *(entry["proof"] for entry in storage)]
    nodes = dict.fromkeys(_raw(node) for proof in given for node in proof)
    nodes.pop(b"\x80", None)  # how some tell of an empty trie; no walk needs it
    return Address(_raw(answer["address"])), slots, list(nodes)


def _raw(value: str | bytes) -> bytes:
    """Bytes from a JSON-RPC answer: ``0x``-hex, of odd length for quantities, or bytes already."""
    if isinstance(value, bytes):
        return bytes(value)
    digits = value.removeprefix("0x")
    return bytes.fromhex("0" * (len(digits) % 2) + digits)


def _untrusted(reason: str, why: str) -> Untrusted:
    return Untrusted(
        reason, "state proof refused", why, "fetch the proof again, from another source"
    )


def _malformed(reason: str, why: str) -> Malformed:
    return Malformed(reason, "state proof refused", why, "fetch it again, from another source")
