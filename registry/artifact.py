"""The compiled contract: what calls, events and refusals look like in bytes.

Guarantees: all of it follows contracts/artifacts/ReleaseLedger.json, which contracts/build.py
generates; structs come and go as `protocol.records`, other values as the types of `protocol.ids`.

Names are those of IReleaseLedger.sol: functions, events and errors as written there, members in
snake_case.

Not here: the chain (`registry.chain`), and what a refusal means in words (`registry.refusals`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.abi import (
    abi_to_signature,
    collapse_if_tuple,
    event_abi_to_log_topic,
    function_abi_to_4byte_selector,
)

from protocol import records
from protocol.digests import keccak256
from protocol.errors import Malformed, Misuse
from protocol.ids import Address, Digest, Hash, ProductId
from registry.approvals import Approvals, Signature

_STRUCTS: dict[str, type[records.Record]] = {
    struct.__name__: struct
    for struct in (
        records.Governance,
        records.Head,
        records.Product,
        records.Phase,
        records.Terms,
        records.State,
        records.Release,
        records.Device,
        Signature,
        Approvals,
    )
}
_DIGESTS = {"image_digest", "manifest_digest", "evidence", "root"}
ERROR_SELECTOR = 4


@dataclass(frozen=True)
class _Member:
    """A parameter: its name in snake_case, its ABI type, and the struct or noun it becomes."""

    name: str
    abi: str
    struct: type[records.Record] | None
    indexed: bool = False

    def outward(self, value: Any) -> Any:
        """As the ABI encoder takes it."""
        return value.to_abi() if isinstance(value, records.Record) else value

    def inward(self, value: Any) -> Any:
        """As this project has it."""
        if self.struct is not None:
            return self.struct.from_abi(value)
        if self.abi == "address[]":
            return tuple(Address.parse(item) for item in value)
        if self.abi == "address":
            return Address.parse(value)
        if self.abi == "bytes32":
            return _noun(self.name)(value)
        return value


def _noun(name: str) -> type[ProductId] | type[Digest] | type[Hash]:
    if name == "product_id":
        return ProductId
    return Digest if name in _DIGESTS else Hash


@dataclass(frozen=True)
class _Entry:
    """A function, event or error."""

    name: str
    inputs: tuple[_Member, ...]
    outputs: tuple[_Member, ...] = ()


class Artifact:
    """The contract's interface and creation code; get the one there is from `artifact`."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.abi: Sequence[Mapping[str, Any]] = raw["abi"]
        self.bytecode = bytes.fromhex(raw["bytecode"].removeprefix("0x"))
        self.code_hash = keccak256(bytes.fromhex(raw["deployedBytecode"].removeprefix("0x")))
        self._functions: dict[str, tuple[bytes, _Entry]] = {}
        self._selectors: dict[bytes, _Entry] = {}
        self._events: dict[bytes, _Entry] = {}
        self._errors: dict[bytes, _Entry] = {}
        for item in self.abi:
            self._enter(item)

    def _enter(self, item: Any) -> None:
        if item["type"] == "function":
            selector = function_abi_to_4byte_selector(item)
            self._functions[item["name"]] = (selector, _entry(item))
            self._selectors[selector] = _entry(item)
        elif item["type"] == "event":
            self._events[event_abi_to_log_topic(item)] = _entry(item)
        elif item["type"] == "error":
            self._errors[keccak256(abi_to_signature(item).encode())[:4]] = _entry(item)

    @property
    def errors(self) -> dict[str, tuple[str, ...]]:
        """The members of every custom error, by its name."""
        return {e.name: tuple(m.name for m in e.inputs) for e in self._errors.values()}

    def encode(self, function: str, args: Sequence[Any]) -> bytes:
        """Calldata; records as records, addresses and words as bytes.

        `Misuse` ``bad-arguments`` for a number that does not fit.
        """
        selector, entry = self._functions[function]
        values = [m.outward(v) for m, v in zip(entry.inputs, args, strict=True)]
        try:
            return selector + encode([m.abi for m in entry.inputs], values)
        except EncodingError as error:
            raise Misuse(
                "bad-arguments", f"{function} not called", str(error), "check what is given to it"
            ) from error

    def decode_call(self, data: bytes) -> tuple[str, dict[str, Any]] | None:
        """The function and arguments of calldata; None if the contract has no such function."""
        entry = self._selectors.get(data[:4])
        return None if entry is None else (entry.name, _decode(entry.name, entry.inputs, data[4:]))

    def decode_result(self, function: str, data: bytes) -> tuple[Any, ...]:
        """What a read-only function answered, in order."""
        _, entry = self._functions[function]
        values = _values(function, entry.outputs, data)
        return tuple(m.inward(v) for m, v in zip(entry.outputs, values, strict=True))

    def decode_event(
        self, topics: Sequence[bytes], data: bytes
    ) -> tuple[str, dict[str, Any]] | None:
        """The name and arguments of a log; None if it is no event of the contract."""
        entry = self._events.get(bytes(topics[0])) if topics else None
        if entry is None:
            return None
        indexed = tuple(m for m in entry.inputs if m.indexed)
        plain = tuple(m for m in entry.inputs if not m.indexed)
        if len(topics) != 1 + len(indexed):
            raise _unreadable(entry.name, "it has another number of topics")
        args = _decode(entry.name, indexed, b"".join(topics[1:]))
        return entry.name, args | _decode(entry.name, plain, data)

    def decode_error(self, data: bytes) -> tuple[str, dict[str, Any]] | None:
        """The name and arguments of a custom error; None if the data is none of them."""
        entry = self._errors.get(data[:ERROR_SELECTOR])
        if entry is None:
            return None
        return entry.name, _decode(entry.name, entry.inputs, data[ERROR_SELECTOR:])


@cache
def artifact() -> Artifact:
    """The contract this version of the project is about."""
    path = files("contracts") / "artifacts" / "ReleaseLedger.json"
    return Artifact(json.loads(path.read_text()))


def _entry(item: Any) -> _Entry:
    return _Entry(
        item["name"],
        tuple(_member(m) for m in item["inputs"]),
        tuple(_member(m) for m in item.get("outputs", ())),
    )


def _member(item: Any) -> _Member:
    struct = item.get("internalType", "").rpartition(".")[2]
    return _Member(
        name=re.sub(r"(?<!^)(?=[A-Z])", "_", item["name"].strip("_")).lower(),
        abi=collapse_if_tuple(item),
        struct=_STRUCTS[struct] if item["type"].startswith("tuple") else None,
        indexed=item.get("indexed", False),
    )


def _decode(what: str, members: Sequence[_Member], data: bytes) -> dict[str, Any]:
    values = _values(what, members, data)
    return {m.name: m.inward(v) for m, v in zip(members, values, strict=True)}


def _values(what: str, members: Sequence[_Member], data: bytes) -> tuple[Any, ...]:
    try:
        return tuple(decode([m.abi for m in members], data))
    except (DecodingError, OverflowError, UnicodeDecodeError) as error:
        raise _unreadable(what, str(error)) from error


def _unreadable(what: str, why: str) -> Malformed:
    return Malformed(
        "bad-abi",
        f"{what} not read",
        why,
        "check that the node serves this contract, and this version of it",
    )
