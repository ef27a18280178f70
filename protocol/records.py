"""The records a ledger commits to, field by field as contracts/IReleaseLedger.sol names them.

Guarantees: a record that exists is in range (every integer fits its Solidity type, every list its
limit); its EIP-712 ``hashStruct`` and its commitments are byte for byte those of the contract
(docs/spec/commitments.md has the definitions and golden vectors).

A record has three outer forms: a list of plain values (CBOR, in bundles), JSON (uint64 as strings,
bytes as 0x-hex), and nested tuples (ABI). Reading any of them refuses what is not exactly a record
with `Malformed`. Whether a record is *the* record is for the commitment to say, not checked here.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Any, Self

from protocol.digests import keccak256
from protocol.errors import Malformed
from protocol.ids import U32_MAX, Address, Digest, Hash, ProductId

U8 = Annotated[int, "uint8"]
U16 = Annotated[int, "uint16"]
U32 = Annotated[int, "uint32"]
U64 = Annotated[int, "uint64"]
U256 = Annotated[int, "uint256"]
Bool = Annotated[bool, "bool"]
Bytes32 = Annotated[bytes, "bytes32"]
Account = Annotated[bytes, "address"]

MAX_MEMBERS = 16
MAX_PHASES = 4
ACTIVE_KEY = U32_MAX
NOBODY = Address(bytes(20))


def word(value: int) -> bytes:
    """A uint256 as its 32-byte big-endian ABI word."""
    return value.to_bytes(32, "big")


def _refuse(name: str, why: str) -> Malformed:
    return Malformed("bad-record", f"{name} refused", why, "take the record from its source again")


@dataclasses.dataclass(frozen=True)
class _Field:
    """One member of a record: its names, Solidity type, and the nested record if it is one."""

    name: str
    member: str
    abi: str
    is_list: bool
    record: type[Record] | None

    @property
    def limit(self) -> int:
        return MAX_PHASES if self.record is Phase else MAX_MEMBERS


def _fields(cls: type[Record]) -> tuple[_Field, ...]:
    known = _KNOWN.get(cls)
    if known is None:
        known = _KNOWN[cls] = _read_fields(cls)
    return known


def _read_fields(cls: type[Record]) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        is_list = typing.get_origin(hint) is tuple
        inner = typing.get_args(hint)[0] if is_list else hint
        record = inner if isinstance(inner, type) and issubclass(inner, Record) else None
        abi = record.__name__ if record else inner.__metadata__[0]
        head, *tail = field.name.split("_")
        member = head + "".join(part.title() for part in tail)
        fields.append(_Field(field.name, member, abi, is_list, record))
    return tuple(fields)


def _scalar(where: str, abi: str, value: object) -> Any:
    if abi == "bool":
        if not isinstance(value, bool):
            raise _refuse(where, "it is not true or false")
        return value
    if abi in ("bytes32", "address"):
        size = 32 if abi == "bytes32" else 20
        if not isinstance(value, bytes) or len(value) != size:
            raise _refuse(where, f"it is not {size} bytes")
        return bytes(value)
    bits = int(abi.removeprefix("uint"))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise _refuse(where, f"it is not an integer of {bits} bits")
    return int(value)


_KNOWN: dict[type[Record], tuple[_Field, ...]] = {}


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of all records; subclasses are plain frozen dataclasses with annotated fields."""

    def __post_init__(self) -> None:
        """Refuses out-of-range members with `Malformed`."""
        for f in _fields(type(self)):
            value = getattr(self, f.name)
            where = f"{type(self).__name__}.{f.member}"
            if f.is_list:
                if not isinstance(value, tuple) or len(value) > f.limit:
                    raise _refuse(where, f"it is not a list of at most {f.limit}")
                items = value
            else:
                items = (value,)
            for item in items:
                if f.record is None:
                    _scalar(where, f.abi, item)
                elif not isinstance(item, f.record):
                    raise _refuse(where, f"it is not a {f.record.__name__}")

    # -- lists: CBOR ------------------------------------------------------------------------------

    def to_list(self) -> list[Any]:
        """The members in order, as ints, bytes, bools and lists; a uint256 as its 32-byte word."""
        row = [(f, getattr(self, f.name)) for f in _fields(type(self))]
        return [
            word(value) if f.abi == "uint256" else _outward(f, value, lambda r: r.to_list())
            for f, value in row
        ]

    @classmethod
    def from_list(cls, value: object) -> Self:
        """The record of `to_list`; `Malformed` otherwise."""
        fields = _fields(cls)
        if not isinstance(value, list | tuple) or len(value) != len(fields):
            raise _refuse(cls.__name__, f"it is not a list of {len(fields)} members")
        members = {}
        for f, item in zip(fields, value, strict=True):
            if f.abi == "uint256":
                word_bytes = _scalar(f"{cls.__name__}.{f.member}", "bytes32", item)
                members[f.name] = int.from_bytes(word_bytes, "big")
            else:
                members[f.name] = _inward(cls, f, item, lambda r, x: r.from_list(x))
        return cls(**members)

    # -- JSON -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The members by name; 64-bit integers and wider as decimal strings, bytes as 0x-hex."""
        out = {}
        for f in _fields(type(self)):
            value = _outward(f, getattr(self, f.name), lambda r: r.to_json())
            out[f.name] = (
                [_json_scalar(f.abi, v) for v in value] if f.is_list else _json_scalar(f.abi, value)
            )
        return out

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The record of `to_json`; `Malformed` for missing, unknown or ill-typed members."""
        if not isinstance(value, dict) or value.keys() != {f.name for f in _fields(cls)}:
            raise _refuse(cls.__name__, "its members are not those of the record")
        members = {}
        for f in _fields(cls):
            raw = value[f.name]
            if f.is_list and not isinstance(raw, list):
                raise _refuse(f"{cls.__name__}.{f.member}", "it is not a list")
            plain = [_from_json(f.abi, v) for v in raw] if f.is_list else _from_json(f.abi, raw)
            members[f.name] = _inward(cls, f, plain, lambda r, x: r.from_json(x))
        return cls(**members)

    # -- ABI --------------------------------------------------------------------------------------

    def to_abi(self) -> tuple[Any, ...]:
        """Nested tuples as an ABI encoder takes them; addresses as 20 bytes."""
        return tuple(
            _outward(f, getattr(self, f.name), lambda r: r.to_abi()) for f in _fields(type(self))
        )

    @classmethod
    def from_abi(cls, value: Mapping[str, Any] | Sequence[Any]) -> Self:
        """From an ABI decoder's mapping (by member name) or sequence; addresses may be hex."""
        fields = _fields(cls)
        row = [value[f.member] for f in fields] if isinstance(value, Mapping) else list(value)
        members = {}
        for f, item in zip(fields, row, strict=True):
            if f.record is None:
                item = [_decoded(f.abi, v) for v in item] if f.is_list else _decoded(f.abi, item)
            members[f.name] = _inward(cls, f, item, lambda r, x: r.from_abi(x))
        return cls(**members)

    # -- EIP-712 ----------------------------------------------------------------------------------

    @classmethod
    def encode_type(cls) -> str:
        """EIP-712 encodeType: this record's type, then those it refers to by name."""
        nested = _referenced(cls)
        return _type_text(cls) + "".join(
            _type_text(r) for r in sorted(nested, key=lambda r: r.__name__)
        )

    def hash_struct(self) -> Hash:
        """EIP-712 hashStruct: keccak256(typeHash || encodeData)."""
        data = keccak256(self.encode_type().encode())
        return keccak256(
            data + b"".join(_encode(f, getattr(self, f.name)) for f in _fields(type(self)))
        )


def _outward(f: _Field, value: Any, turn: Any) -> Any:
    if f.record is None:
        return list(value) if f.is_list else value
    return [turn(v) for v in value] if f.is_list else turn(value)


def _inward(cls: type[Record], f: _Field, value: Any, turn: Any) -> Any:
    if f.is_list:
        if not isinstance(value, list | tuple) or len(value) > f.limit:
            raise _refuse(f"{cls.__name__}.{f.member}", f"it is not a list of at most {f.limit}")
        return tuple(turn(f.record, v) if f.record else v for v in value)
    return turn(f.record, value) if f.record else value


def _decoded(abi: str, value: Any) -> Any:
    """A scalar as ABI decoders give it: addresses in hex, bytes in types of their own."""
    if abi == "address" and isinstance(value, str):
        return _from_json(abi, value)
    return bytes(value) if isinstance(value, bytes | bytearray) else value


def _json_scalar(abi: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return str(int(value)) if abi in ("uint64", "uint256") else value


def _from_json(abi: str, value: Any) -> Any:
    if abi in ("uint64", "uint256"):
        if not isinstance(value, str) or not re.fullmatch(r"0|[1-9]\d{0,77}", value, re.ASCII):
            raise _refuse(abi, f"{_shown(value)} is not a decimal string")
        return int(value)
    if abi in ("bytes32", "address"):
        size = 64 if abi == "bytes32" else 40
        if not isinstance(value, str) or not re.fullmatch(rf"0x[0-9a-fA-F]{{{size}}}", value):
            raise _refuse(abi, f"{_shown(value)} is not 0x and {size} hex digits")
        return bytes.fromhex(value[2:])
    return value


def _shown(value: Any) -> str:
    """A text in short; of anything else the type alone, as it may be nested without end."""
    return f"{value[:80]!r}" if isinstance(value, str) else f"a {type(value).__name__}"


def _type_text(cls: type[Record]) -> str:
    members = ",".join(f"{f.abi}{'[]' if f.is_list else ''} {f.member}" for f in _fields(cls))
    return f"{cls.__name__}({members})"


def _referenced(cls: type[Record]) -> set[type[Record]]:
    direct = {f.record for f in _fields(cls) if f.record}
    return direct.union(*(_referenced(r) for r in direct)) if direct else set()


def _encode(f: _Field, value: Any) -> bytes:
    if f.is_list:
        return keccak256(b"".join(_encode_one(f, v) for v in value))
    return _encode_one(f, value)


def _encode_one(f: _Field, value: Any) -> bytes:
    if f.record is not None:
        return bytes(value.hash_struct())
    return bytes(value).rjust(32, b"\0") if isinstance(value, bytes) else word(int(value))


# -------------------------------------------------------------------------------------------------
# The records, in the order of IReleaseLedger.sol. See there for what each member means.
# -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SigningKey(Record):
    """A manifest key; ``valid_through``: highest release id it verifies (ACTIVE_KEY, id, or 0)."""

    key_id: Bytes32
    valid_through: U32 = ACTIVE_KEY


@dataclasses.dataclass(frozen=True)
class HaltRule(Record):
    """Receipts halt at ``min_failures`` failures and a share above ``max_failure_bps``; 0 = off."""

    min_failures: U32
    max_failure_bps: U16


@dataclasses.dataclass(frozen=True)
class Governance(Record):
    """Who may do what for a product; ``epoch`` rises with every change."""

    approvers: tuple[Account, ...]
    threshold: U8
    epoch: U32
    guardians: tuple[Account, ...]
    auditors: tuple[Account, ...]
    reporters: tuple[Account, ...]
    enroller: Account
    keys: tuple[SigningKey, ...]
    halt_rule: HaltRule
    release_delay: U32
    governance_delay: U32


@dataclasses.dataclass(frozen=True)
class Head(Record):
    """The newest of a product, and its pauses."""

    latest_release: U32 = 0
    version: U64 = 0
    security_counter: U32 = 0
    paused_at: U64 = 0
    paused_total: U64 = 0
    pauses: U32 = 0


@dataclasses.dataclass(frozen=True)
class Product(Record):
    """A product as it is passed around: the governance in effect, the other one by its hash."""

    governance: Governance
    other: Bytes32 = bytes(32)
    effective_at: U64 = 0
    head: Head = Head()


@dataclasses.dataclass(frozen=True)
class Phase(Record):
    """One step of a rollout; ``bps`` is cumulative, times are seconds after the start."""

    bps: U16
    delay: U32 = 0
    min_confirmed: U32 = 0
    max_failure_bps: U16 = 10_000
    gate_deadline: U32 = 0


@dataclasses.dataclass(frozen=True)
class Terms(Record):
    """What is agreed about a release, once and for all; ``hash_struct`` is the terms hash."""

    product_id: Bytes32
    version: U64
    security_counter: U32
    image_digest: Bytes32
    manifest_digest: Bytes32
    image_size: U64
    hardware_min: U32
    hardware_max: U32
    min_version: U64
    not_before: U64
    expiry: U64
    required_attestations: U8
    critical: Bool
    key_epoch: U32
    rollout: tuple[Phase, ...]


@dataclasses.dataclass(frozen=True)
class State(Record):
    """What has become of a release; ``word`` is packed, see `protocol.ledger.StateWord`."""

    starts_at: U64
    word: U256
    log_root: Bytes32 = bytes(32)


@dataclasses.dataclass(frozen=True)
class Release(Record):
    """A release as it is passed to the contract where its terms need not be read."""

    release_id: U32
    terms_hash: Bytes32
    state: State


@dataclasses.dataclass(frozen=True)
class Device(Record):
    """What the rules need to know of a device."""

    device_id: Bytes32
    version: U64
    security_counter: U32
    hardware: U32


@dataclasses.dataclass(frozen=True)
class Approval(Record):
    """What approvers sign to publish."""

    terms: Terms
    epoch: U32
    valid_until: U64


@dataclasses.dataclass(frozen=True)
class Amendment(Record):
    """What approvers sign to change the governance; ``epoch`` is the one in effect."""

    product_id: Bytes32
    next: Governance
    epoch: U32
    valid_until: U64


@dataclasses.dataclass(frozen=True)
class Decision(Record):
    """What approvers sign to resume, supersede, revoke or unpause."""

    product_id: Bytes32
    release_id: U32
    action: U8
    nonce: U32
    epoch: U32
    valid_until: U64


class Action(IntEnum):
    """What M of N decide about what exists."""

    NONE, RESUME, SUPERSEDE, REVOKE, UNPAUSE = range(5)


# -------------------------------------------------------------------------------------------------
# Commitments
# -------------------------------------------------------------------------------------------------

TAG_PRODUCT = keccak256(b"firmledger.product.v1")
TAG_RELEASE = keccak256(b"firmledger.release.v1")
_DOMAIN_TYPE = keccak256(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Which ledger: the chain and the contract's address. Every commitment is bound to both."""

    chain_id: int
    contract: Address

    def digest(self, message: Record) -> Hash:
        """The EIP-712 digest of ``message`` under this ledger's domain."""
        domain = keccak256(
            _DOMAIN_TYPE
            + keccak256(b"Firmledger")
            + keccak256(b"1")
            + word(self.chain_id)
            + self.contract.rjust(32, b"\0")
        )
        return keccak256(b"\x19\x01" + domain + message.hash_struct())

    def product_slot(self, product_id: ProductId, product: Product, now: int) -> Hash:
        """The product's commitment; ``now`` (block time) tells which governance is spelled out."""
        spelled, other = product.governance.hash_struct(), Hash(product.other)
        in_effect = product.effective_at != 0 and now >= product.effective_at
        current, pending = (other, spelled) if in_effect else (spelled, other)
        h = product.head
        return keccak256(
            TAG_PRODUCT
            + word(self.chain_id)
            + self.contract.rjust(32, b"\0")
            + product_id
            + current
            + pending
            + word(product.effective_at)
            + b"".join(word(v) for v in h.to_list())
        )

    def release_slot(
        self, product_id: ProductId, release_id: int, terms_hash: Hash, state: State
    ) -> Hash:
        """The release's commitment."""
        return keccak256(
            TAG_RELEASE
            + word(self.chain_id)
            + self.contract.rjust(32, b"\0")
            + product_id
            + word(release_id)
            + terms_hash
            + word(state.starts_at)
            + word(state.word)
            + state.log_root
        )


def product_id(creator: Address, salt: bytes) -> ProductId:
    """keccak256(abi.encode(creator, salt)), ``salt`` of 32 bytes."""
    return ProductId(keccak256(creator.rjust(32, b"\0") + Digest(salt)))
