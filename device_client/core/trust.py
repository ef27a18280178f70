"""What the device believes of the ledger, and how that may move: forwards, by proof, or not at all.

Guarantees:

* Accepted height and time never fall; a proof below them is refused (promise 3).
* `advance` accepts nothing that the trusted validators did not seal, and a proof that fails leaves
  the trusted state as it was. One that holds moves the state *before* any policy is asked, so that
  what was once seen as halted or revoked stays seen.
* Two different blocks sealed at one height freeze the device: it keeps both headers as evidence and
  believes nothing until it is re-anchored. Evidence without a quorum never freezes it.

Times are Unix seconds and arguments; ``clock`` is None where the device's clock is not set. The
caller makes the returned state durable before it acts on the view.

Not here: whether to install (`protocol.ledger.eligible`, `device_client.core.policy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from protocol import cbor
from protocol.bundle import Anchor, Fresh, View, prove
from protocol.errors import Malformed, Refused, Untrusted
from protocol.header import MAX_HEADER_BYTES, MAX_VALIDATORS, block_hash, parse_header
from protocol.ids import Address, Hash
from protocol.ledger import StateWord, Status
from protocol.proof import verify_link
from protocol.trustfile import TrustFile

FUTURE_TOLERANCE = 600
"""Seconds by which a header may lead a set clock."""
MAX_STATE_BYTES = 4 * MAX_HEADER_BYTES
KEPT_STATUSES = 16
_FORMAT = 1


@dataclass(frozen=True)
class TrustState:
    """What is believed now; made durable after every step forwards."""

    height: int
    """Highest block accepted; 0 before the first."""
    time: int
    """Its timestamp: the least that the time can be now."""
    header: bytes
    """Its sealed header, kept so that a second one of the same height can be shown as evidence."""
    validators: tuple[Address, ...]
    newest: int = 0
    """Newest version the ledger was seen to have."""
    statuses: tuple[tuple[int, int], ...] = ()
    """(release id, status) as last seen, of the newest `KEPT_STATUSES` releases spoken of."""
    evidence: tuple[bytes, ...] = field(default=())
    """Two sealed headers of one height if the device is frozen, nothing otherwise."""

    @classmethod
    def first(cls, trust: TrustFile) -> Self:
        """The state of a device that knows its trust file and nothing else."""
        return cls(height=trust.min_height, time=0, header=b"", validators=trust.validators)

    @property
    def frozen(self) -> bool:
        """Whether validators were caught contradicting themselves."""
        return bool(self.evidence)

    def status_of(self, release_id: int) -> Status:
        """The status of a release as last proved; NONE if never."""
        return Status(dict(self.statuses).get(release_id, Status.NONE))

    def encode(self) -> bytes:
        """Deterministic CBOR of all members."""
        rows = [list(row) for row in self.statuses]
        return cbor.dumps(
            [
                *(_FORMAT, self.height, self.time, self.header, list(self.validators)),
                *(self.newest, rows, list(self.evidence)),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes; `Malformed` otherwise."""
        row = cbor.as_list(cbor.loads(data, max_bytes=MAX_STATE_BYTES), "trusted state", size=8)
        if row[0] != _FORMAT:
            raise Malformed(
                "unknown-format",
                "trusted state refused",
                "it was written by another version",
                "restore the device's directory or initialise it again",
            )
        validators = cbor.as_list(row[4], "validators")[:MAX_VALIDATORS]
        return cls(
            height=cbor.as_uint(row[1], "height"),
            time=cbor.as_uint(row[2], "time"),
            header=cbor.as_bytes(row[3], "header", maximum=MAX_HEADER_BYTES),
            validators=tuple(Address(cbor.as_bytes(v, "validator", size=20)) for v in validators),
            newest=cbor.as_uint(row[5], "newest version"),
            statuses=tuple(_status(item) for item in cbor.as_list(row[6], "statuses")),
            evidence=tuple(
                cbor.as_bytes(h, "evidence", maximum=MAX_HEADER_BYTES)
                for h in cbor.as_list(row[7], "evidence")
            ),
        )


def _status(item: Any) -> tuple[int, int]:
    row = cbor.as_list(item, "status", size=2)
    return cbor.as_uint(row[0], "release id"), cbor.as_uint(row[1], "status", maximum=max(Status))


class Equivocation(Untrusted):
    """Two blocks sealed at one height; ``state`` is the frozen state to make durable."""

    def __init__(self, height: int, state: TrustState) -> None:
        """``height``: of the two headers, which ``state`` holds as evidence."""
        super().__init__(
            "equivocation",
            "the ledger is not believed any more",
            f"its validators sealed two different blocks at height {height}",
            "report the kept headers to the maker and re-anchor with the recovery keys",
            height=height,
        )
        self.state = state


def advance(
    state: TrustState, fresh: Fresh, pinned: Anchor, *, clock: int | None
) -> tuple[TrustState, View]:
    """The state and the view after a proof that holds; raises and changes nothing otherwise.

    ``pinned``: from the trust file; its validators give way to those of ``state``. `Equivocation`
    carries the one state that must be kept although the proof was refused.
    """
    if state.frozen:
        raise Refused(
            "frozen",
            "nothing was accepted",
            "the ledger's validators contradicted themselves earlier",
            "re-anchor this device with the recovery keys",
        )
    validators, height = _follow(state, fresh.links)
    view = prove(fresh, replace(pinned, validators=validators))
    if view.number < height:
        raise Untrusted(
            "below-trusted-height",
            "bundle refused",
            f"it shows block {view.number}, this device has seen block {height}",
            "renew it with 'firmledger bundle refresh'",
            shown=view.number,
            trusted=height,
        )
    if view.number == state.height and state.header:
        _require_same_block(state, view)
    if view.timestamp < state.time:
        raise Untrusted(
            "time-falls",
            "bundle refused",
            f"block {view.number} is stamped before block {state.height}",
            "get the bundle from another source, and tell the maker",
        )
    if clock is not None and view.timestamp > clock + FUTURE_TOLERANCE:
        raise Untrusted(
            "from-the-future",
            "bundle refused",
            f"its block is stamped {view.timestamp - clock} s after this device's clock",
            "set the device's clock, or get the bundle from another source",
            header=view.timestamp,
            clock=clock,
        )
    return _moved(state, view, validators), view


def age(view_time: int, state: TrustState, *, clock: int | None, build_time: int) -> int:
    """Seconds since the proof's block, by the latest time known to have come."""
    return max(clock or 0, state.time, build_time) - view_time


def require_fresh(
    view: View, state: TrustState, max_age: int, *, clock: int | None, build_time: int
) -> None:
    """`Refused` as stale if the proof is older than ``max_age`` seconds; trust stays as it is."""
    seconds = age(view.timestamp, state, clock=clock, build_time=build_time)
    if seconds > max_age:
        raise Refused(
            "stale",
            "nothing is installed",
            f"the newest proof is {seconds} s old, at most {max_age} are allowed",
            "reach a registry, or renew the file with 'firmledger bundle refresh'",
            age=seconds,
            max_age=max_age,
        )


def _follow(state: TrustState, links: tuple[bytes, ...]) -> tuple[tuple[Address, ...], int]:
    """Validators and height after the overlap links, each higher than the one before."""
    validators, height = state.validators, state.height
    for raw in links:
        link = verify_link(raw, validators)
        if link.number <= height:
            raise Untrusted(
                "link-order",
                "validator link refused",
                f"it is of block {link.number}, after one of block {height}",
                "get the bundle again, from another source",
            )
        validators, height = link.validators, link.number
    return validators, height


def _require_same_block(state: TrustState, view: View) -> None:
    known = parse_header(state.header)
    if block_hash(known) != view.block_hash:
        frozen = replace(state, evidence=(state.header, view.header))
        raise Equivocation(view.number, frozen)


def _moved(state: TrustState, view: View, validators: tuple[Address, ...]) -> TrustState:
    statuses = dict(state.statuses)
    if view.release is not None:
        status = StateWord.unpack(view.release.state.word).status
        statuses[view.release.release_id] = status
    kept = sorted(statuses.items())[-KEPT_STATUSES:]
    return TrustState(
        height=view.number,
        time=view.timestamp,
        header=view.header,
        validators=validators,
        newest=max(state.newest, view.product.head.version),
        statuses=tuple(kept),
    )


def block_of(state: TrustState) -> Hash | None:
    """Hash of the highest block accepted; None before the first."""
    return block_hash(parse_header(state.header)) if state.header else None
