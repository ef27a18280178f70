"""Block headers sealed by QBFT, and how many seals by whom make one true.

Guarantees: `check_seals` and `link_ok` return only if a quorum of distinct, known validators signed
exactly this header. Parsing is strict: a header that parses encodes to the same bytes again.

Rules:

* ``extraData = RLP[vanity32, [validator…], vote, round, [seal…]]``; the vote is ``[]`` or
  ``[address, 0xff (add) or empty (drop)]``, the round a scalar. Source: Hyperledger Besu,
  QbftExtraDataCodec.
* The *seal digest* is keccak256 of the header with the list of seals empty. The *block hash* is the
  same with the round zero as well: nodes may differ in the round. Source: Besu, BftBlockHashing.
* A quorum is ceil(2n/3). One duplicate or foreign seal voids the whole header, however many good
  ones stand beside it.
* A seal is r || s || v with v 0 or 1 and s in the lower half, as Besu signs: no second form exists.
* Fields after the known fifteen are opaque: authenticated by the seals, never interpreted.
* The genesis block is sealed by nobody; a chain whose validators a contract selects lists none in
  its headers. Both are refused by name.

Not here: whether the height is new enough (`device_client.core.trust`), and what the sealed state
says (`protocol.proof`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

from protocol.digests import keccak256
from protocol.errors import Malformed, Misuse, Untrusted
from protocol.ids import Address, Hash
from protocol.rlp import Item, decode, encode, from_uint, to_bytes, to_list, to_uint

MAX_HEADER_BYTES = 8192
MAX_FIELDS = 32
MAX_ITEMS = 256
"""Items of a header, those within opaque fields included: garbage is read in no time."""
MAX_VALIDATORS = 64
VANITY_BYTES = 32
SEAL_BYTES = 65
_MAX_EXTRA_ITEMS = 8 + 2 * MAX_VALIDATORS  # four lists, vanity, round and the two of a vote
_MAX_ROUND = 2**31 - 1  # Besu keeps it in a signed 32-bit integer
_ADD, _DROP = b"\xff", b""
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half the order of secp256k1 (SEC 2, section 2.4.1), rounded down."""


class Field(IntEnum):
    """The positions of a header's known fields (Ethereum Yellow Paper, section 4.3)."""

    PARENT_HASH = 0
    OMMERS_HASH = 1
    COINBASE = 2
    STATE_ROOT = 3
    TRANSACTIONS_ROOT = 4
    RECEIPTS_ROOT = 5
    LOGS_BLOOM = 6
    DIFFICULTY = 7
    NUMBER = 8
    GAS_LIMIT = 9
    GAS_USED = 10
    TIMESTAMP = 11
    EXTRA_DATA = 12
    MIX_HASH = 13
    NONCE = 14


_FIXED = {
    Field.PARENT_HASH: 32,
    Field.OMMERS_HASH: 32,
    Field.COINBASE: 20,
    Field.STATE_ROOT: 32,
    Field.TRANSACTIONS_ROOT: 32,
    Field.RECEIPTS_ROOT: 32,
    Field.LOGS_BLOOM: 256,
    Field.MIX_HASH: 32,
    Field.NONCE: 8,
}
_SCALAR = {
    Field.DIFFICULTY: 32,
    Field.NUMBER: 8,
    Field.GAS_LIMIT: 8,
    Field.GAS_USED: 8,
    Field.TIMESTAMP: 8,
}


@dataclass(frozen=True, slots=True)
class Vote:
    """A validator's proposal to change the set; recorded, of no effect on this block's seals."""

    recipient: Address
    add: bool


@dataclass(frozen=True, slots=True)
class Extra:
    """The extraData field, decoded."""

    vanity: bytes
    """32 bytes of no meaning."""
    validators: tuple[Address, ...]
    """Who may seal this block, ascending; compared with the trusted set by `check_seals`."""
    vote: Vote | None
    round: int
    """The consensus round in which the block was agreed; 0 unless a proposer failed."""
    seals: tuple[bytes, ...]
    """65 bytes each; unchecked until `check_seals`."""


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header. Nothing in it is true before its seals are checked.

    Made by `parse_header` and `build_header` only, which keep the other members true to ``fields``.
    """

    fields: tuple[Item, ...]
    parent_hash: Hash
    state_root: Hash
    number: int
    timestamp: int
    """Seconds since 1970, UTC."""
    extra: Extra


def parse_header(raw: bytes) -> Header:
    """The header in ``raw`` (RLP, at most `MAX_HEADER_BYTES`); `Malformed` if it is not one."""
    # Opaque fields may be lists (execution witnesses are), hence the depth and the number of items.
    item = decode(raw, max_bytes=MAX_HEADER_BYTES, max_depth=8, max_items=MAX_ITEMS)
    fields = to_list(item, "header")
    if not len(Field) <= len(fields) <= MAX_FIELDS:
        raise _malformed("header-shape", f"it has {len(fields)} fields, not 15 to {MAX_FIELDS}")
    fixed = {at: to_bytes(fields[at], size, at.name.lower()) for at, size in _FIXED.items()}
    scalar = {at: to_uint(fields[at], size, at.name.lower()) for at, size in _SCALAR.items()}
    extra = fields[Field.EXTRA_DATA]
    if not isinstance(extra, bytes):
        raise _malformed("header-shape", "its extraData is a list")
    return Header(
        fields=tuple(fields),
        parent_hash=Hash(fixed[Field.PARENT_HASH]),
        state_root=Hash(fixed[Field.STATE_ROOT]),
        number=scalar[Field.NUMBER],
        timestamp=scalar[Field.TIMESTAMP],
        extra=parse_extra(extra),
    )


def build_header(fields: Sequence[Item], extra: Extra) -> Header:
    """The header with ``fields`` (at least the known fifteen) and ``extra`` as its extraData."""
    parts = list(fields)
    if len(parts) < len(Field):
        raise Misuse(
            "header-shape", "header not built", f"{len(parts)} fields given", "give all 15"
        )
    parts[Field.EXTRA_DATA] = encode_extra(extra)
    return parse_header(encode(parts))


def encode_header(header: Header) -> bytes:
    """The bytes that `parse_header` reads back."""
    return encode(header.fields)


def parse_extra(raw: bytes) -> Extra:
    """QBFT's extraData; `Malformed` if it is anything else."""
    item = decode(raw, max_bytes=MAX_HEADER_BYTES, max_depth=2, max_items=_MAX_EXTRA_ITEMS)
    parts = to_list(item, "extraData")
    if len(parts) != 5:
        raise _malformed("extra-shape", f"its extraData has {len(parts)} parts, not 5")
    listed, seals = to_list(parts[1], "validators"), to_list(parts[4], "seals")
    if max(len(listed), len(seals)) > MAX_VALIDATORS:
        raise _malformed("extra-oversized", f"over {MAX_VALIDATORS} validators or seals are in it")
    validators = tuple(Address(to_bytes(item, 20, "validator")) for item in listed)
    if any(left >= right for left, right in pairwise(validators)):
        raise _malformed("extra-validators", "its validators are not ascending, each once")
    round_number = to_uint(parts[3], 4, "round")
    if round_number > _MAX_ROUND:
        raise _malformed("extra-round", f"round {round_number} is over {_MAX_ROUND}")
    return Extra(
        vanity=to_bytes(parts[0], VANITY_BYTES, "vanity"),
        validators=validators,
        vote=_parse_vote(parts[2]),
        round=round_number,
        seals=tuple(to_bytes(seal, SEAL_BYTES, "seal") for seal in seals),
    )


def encode_extra(extra: Extra) -> bytes:
    """The bytes that `parse_extra` reads back."""
    vote: list[Item] = []
    if extra.vote is not None:
        vote = [bytes(extra.vote.recipient), _ADD if extra.vote.add else _DROP]
    return encode([extra.vanity, extra.validators, vote, from_uint(extra.round), extra.seals])


def with_seals(header: Header, seals: Sequence[bytes]) -> Header:
    """The same header with these seals instead of its own."""
    return build_header(header.fields, replace(header.extra, seals=tuple(seals)))


def seal_digest(header: Header) -> Hash:
    """What validators sign: keccak256 of the header without seals, its round included."""
    return _digest(header, replace(header.extra, seals=()))


def block_hash(header: Header) -> Hash:
    """The block's name on the chain: keccak256 of the header without seals and with round 0."""
    return _digest(header, replace(header.extra, seals=(), round=0))


def sign_seal(header: Header, key: bytes) -> bytes:
    """The seal of the validator with the secp256k1 ``key`` (32 bytes), deterministic (RFC 6979)."""
    from coincurve import PrivateKey  # here: reading a header needs no curve

    return PrivateKey(key).sign_recoverable(seal_digest(header), hasher=None)


def quorum(validators: int) -> int:
    """How many of ``validators`` must seal: ceil(2n/3), in integers that never round down."""
    if validators < 1:
        raise Misuse("bad-validators", "no quorum", f"{validators} validators given", "name some")
    return (2 * validators + 2) // 3


def sealers(header: Header) -> tuple[Address, ...]:
    """Who sealed ``header``, in the order of its seals: a quorum of those *it lists*, nobody else.

    Says nothing of whom to trust: that is for `check_seals` and `link_ok`, which raise the same.
    """
    _require_sealable(header)
    listed = frozenset(header.extra.validators)
    seals, needed = header.extra.seals, quorum(len(listed))
    # Counted before a curve is touched: the work is bounded by the number of validators.
    if not needed <= len(seals) <= len(listed):
        raise _untrusted("no-quorum", f"it has {len(seals)} seals, not {needed} to {len(listed)}")
    digest = seal_digest(header)
    found: list[Address] = []
    for seal in seals:
        sealer = _recover(digest, seal)
        if sealer not in listed:
            raise _untrusted("foreign-seal", f"{sealer} sealed it and is no validator")
        if sealer in found:
            raise _untrusted("duplicate-seal", f"{sealer} sealed it twice")
        found.append(sealer)
    return tuple(found)


def check_seals(header: Header, trusted: Collection[Address]) -> tuple[Address, ...]:
    """Who sealed ``header``, in the order of its seals: a quorum of ``trusted``, whom it must list.

    Raises `Untrusted`: ``genesis``, ``validators-by-contract``, ``validators-changed`` (follow the
    change with `link_ok` first), ``no-quorum``, ``foreign-seal``, ``duplicate-seal``, ``bad-seal``.
    """
    members = _members(trusted)
    _require_sealable(header)
    if set(header.extra.validators) != members:
        raise _untrusted(
            "validators-changed",
            f"block {header.number} lists other validators than those trusted",
            "fetch the links that lead from the trusted validators to these",
        )
    return sealers(header)


def link_ok(header: Header, trusted: Collection[Address]) -> tuple[Address, ...]:
    """The validators that ``header`` lists, to be trusted from now on.

    They are if a quorum of them sealed it, and among the sealers are at least ceil(2t/3) of the t
    validators ``trusted`` before; `Untrusted` (``no-overlap``, or as in `check_seals`) otherwise.
    Not checked here, because only the caller can: that the height rises, and the trusting period.
    """
    overlap = _members(trusted).intersection(sealers(header))
    needed = quorum(len(trusted))
    if len(overlap) < needed:
        raise _untrusted(
            "no-overlap",
            f"{len(overlap)} trusted validators sealed block {header.number}, {needed} must",
            "fetch links with fewer changes each, or re-anchor with the recovery keys",
        )
    return header.extra.validators


def trim_seals(header: Header, trusted: Collection[Address] = ()) -> Header:
    """The header with as few seals as `check_seals` needs, ascending by sealer.

    With ``trusted``, as few as `link_ok` needs, seals of that set being kept first. All seals are
    verified on the way; `Untrusted` as in `check_seals`.
    """
    sealed = dict(zip(sealers(header), header.extra.seals, strict=True))
    before = frozenset(trusted)
    enough = max(quorum(len(header.extra.validators)), quorum(len(before)) if before else 0)
    kept = sorted(sealed, key=lambda sealer: (sealer not in before, sealer))[:enough]
    return with_seals(header, [sealed[sealer] for sealer in sorted(kept)])


def _require_sealable(header: Header) -> None:
    """The header is one that validators seal and that says who they are."""
    if header.number == 0:
        raise _untrusted("genesis", "nobody seals block 0", "prove from a later block")
    if not header.extra.validators:
        raise _untrusted(
            "validators-by-contract",
            "it lists no validators, so a contract selects them",
            "use a chain whose QBFT validators are selected by block headers",
        )


def _recover(digest: Hash, seal: bytes) -> Address:
    """Who made ``seal`` over ``digest``; `Untrusted` if it is not in the one form allowed."""
    from coincurve import PublicKey  # here: reading a header needs no curve

    if seal[64] > 1 or int.from_bytes(seal[32:64], "big") > _HALF_ORDER:
        raise _untrusted("bad-seal", "a seal is not in its canonical form")
    try:
        key = PublicKey.from_signature_and_message(seal, digest, hasher=None)
    except ValueError as error:  # coincurve's answer to every r and s that no key can have made
        raise _untrusted("bad-seal", "a seal is no signature by anyone") from error
    return Address(keccak256(key.format(compressed=False)[1:])[12:])


def _members(trusted: Collection[Address]) -> frozenset[Address]:
    members = frozenset(trusted)
    if not 0 < len(members) <= MAX_VALIDATORS or len(members) != len(trusted):
        why = f"{len(trusted)} given, {len(members)} distinct, 1 to {MAX_VALIDATORS} allowed"
        raise Misuse("bad-validators", "trusted validators refused", why, "name each of them once")
    return members


def _digest(header: Header, extra: Extra) -> Hash:
    fields = list(header.fields)
    fields[Field.EXTRA_DATA] = encode_extra(extra)
    return keccak256(encode(fields))


def _parse_vote(item: Item) -> Vote | None:
    parts = to_list(item, "vote")
    if not parts:
        return None
    if len(parts) != 2 or parts[1] not in (_ADD, _DROP):
        raise _malformed("extra-vote", "its vote is not [address, add or drop]")
    return Vote(Address(to_bytes(parts[0], 20, "vote recipient")), parts[1] == _ADD)


def _malformed(reason: str, why: str) -> Malformed:
    return Malformed(reason, "block header refused", why, "fetch it again, from another source")


def _untrusted(reason: str, why: str, fix: str = "fetch it from another source") -> Untrusted:
    return Untrusted(reason, "block header refused", why, fix)
