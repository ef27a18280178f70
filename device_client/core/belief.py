"""The trusted state: what a device has been shown of its ledger, and keeps over every power cut.

Guarantees: `TrustState.decode` reads what `encode` wrote and nothing else; every list in it is
bounded. It is part of the device's book and committed with it.

Rules: the ledger's name and code are those of the trust file until a re-anchor moves them; from
then on `TrustState.anchored` has them, and the validators are always this state's.

Not here: how it may change (`device_client.core.trust`, `device_client.core.reanchor`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from protocol import cbor
from protocol.bundle import Anchor
from protocol.errors import Malformed
from protocol.header import MAX_HEADER_BYTES, MAX_VALIDATORS
from protocol.ids import U32_MAX, Address
from protocol.ledger import Status
from protocol.reanchor import Statement
from protocol.trustfile import TrustFile

MAX_STATE_BYTES = 4 * MAX_HEADER_BYTES
MAX_STATUSES = 64
_FORMAT = 1


@dataclass(frozen=True)
class TrustState:
    """What is believed now; made durable after every step forwards."""

    height: int
    """Highest block accepted; the trust file's before the first."""
    time: int
    """Its timestamp: the least that the time can be now; 0 before the first."""
    header: bytes
    """Its sealed header, kept so that a second one of the same height can be shown as evidence;
    empty before the first block after setting up or re-anchoring."""
    validators: tuple[Address, ...]
    newest: int = 0
    """Newest version the ledger was seen to have."""
    statuses: tuple[tuple[int, int], ...] = ()
    """(release id, status) as last seen, of the newest releases spoken of."""
    evidence: tuple[bytes, ...] = ()
    """Two sealed headers of one height if the device is frozen, nothing otherwise."""
    anchored: Statement | None = None
    """The last re-anchor accepted: which ledger is believed since then."""

    @classmethod
    def first(cls, trust: TrustFile) -> Self:
        """The state of a device that knows its trust file and nothing else."""
        return cls(height=trust.min_height, time=0, header=b"", validators=trust.validators)

    @property
    def frozen(self) -> bool:
        """Whether validators were caught contradicting themselves."""
        return bool(self.evidence)

    @property
    def sequence(self) -> int:
        """Of the last re-anchor accepted; 0 if there was none."""
        return self.anchored.sequence if self.anchored else 0

    def status_of(self, release_id: int) -> Status:
        """The status of a release as last proved; NONE if never."""
        return Status(dict(self.statuses).get(release_id, Status.NONE))

    def anchor(self, pinned: Anchor, validators: tuple[Address, ...] | None = None) -> Anchor:
        """What proofs are checked against now; ``validators``: others than this state's."""
        moved = replace(pinned, validators=validators or self.validators)
        if self.anchored is None:
            return moved
        return replace(moved, ledger=self.anchored.ledger, code_hash=self.anchored.code_hash)

    def encode(self) -> bytes:
        """Deterministic CBOR of all members."""
        return cbor.dumps(
            [
                *(_FORMAT, self.height, self.time, self.header),
                *([bytes(one) for one in self.validators], self.newest),
                *([list(row) for row in self.statuses], list(self.evidence)),
                self.anchored.to_list() if self.anchored else None,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes; `Malformed` otherwise."""
        row = cbor.as_list(cbor.loads(data, max_bytes=MAX_STATE_BYTES), "trusted state", size=9)
        if row[0] != _FORMAT or isinstance(row[0], bool):
            raise _damaged("it was written by another version")
        validators = _bounded(row[4], "validators", 1, MAX_VALIDATORS)
        evidence = _bounded(row[7], "evidence", 0, 2)
        read = cls(
            height=cbor.as_uint(row[1], "height"),
            time=cbor.as_uint(row[2], "time"),
            header=cbor.as_bytes(row[3], "header", maximum=MAX_HEADER_BYTES),
            validators=tuple(Address(cbor.as_bytes(v, "validator", size=20)) for v in validators),
            newest=cbor.as_uint(row[5], "newest version"),
            statuses=tuple(_status(s) for s in _bounded(row[6], "statuses", 0, MAX_STATUSES)),
            evidence=tuple(cbor.as_bytes(h, "header", maximum=MAX_HEADER_BYTES) for h in evidence),
            anchored=None if row[8] is None else Statement.from_list(row[8]),
        )
        if len(set(read.validators)) != len(validators) or len(evidence) == 1:
            raise _damaged("a validator stands in it twice, or evidence alone")
        return read


def _bounded(value: Any, what: str, least: int, most: int) -> list[Any]:
    items = cbor.as_list(value, what)
    if not least <= len(items) <= most:
        raise _damaged(f"its {what} are {len(items)}, not {least} to {most}")
    return items


def _status(item: Any) -> tuple[int, int]:
    row = cbor.as_list(item, "status", size=2)
    release_id = cbor.as_uint(row[0], "release id", maximum=U32_MAX)
    status = cbor.as_uint(row[1], "status", maximum=max(Status))
    if status == Status.NONE:
        raise _damaged("a release in it has no status")
    return release_id, status


def _damaged(why: str) -> Malformed:
    return Malformed(
        "unknown-format",
        "trusted state refused",
        why,
        "restore the device's directory or initialise it again",
    )
