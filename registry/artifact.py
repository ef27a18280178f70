"""The compiled contract: its interface, and the bytes that calls, events and refusals are made of.

Guarantees: what `encode` makes and `decode_event` reads follows contracts/artifacts/ReleaseLedger.json,
the one source of the interface in Python; structs come and go as `protocol.records`.

Not here: the chain (`registry.chain`), and what a refusal means in words (`registry.refusals`).
"""

from __future__ import annotations
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.ids import Hash


@dataclass(frozen=True)
class Artifact:
    abi: Sequence[Mapping[str, Any]]
    bytecode: bytes

    def encode(self, function: str, args: Sequence[Any]) -> bytes: ...
    def decode_result(self, function: str, data: bytes) -> tuple[Any, ...]: ...
    def decode_event(self, topics: Sequence[bytes], data: bytes) -> tuple[str, dict[str, Any]] | None: ...
    def decode_error(self, data: bytes) -> tuple[str, dict[str, Any]] | None: ...


def load() -> Artifact: ...
