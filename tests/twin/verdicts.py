"""What each of the two verifiers says of the same bytes, in one form: accepted values, or a step.

Guarantee: nothing is compared that was not computed by each side from the bytes alone; pinned
values are handed to both. Steps are those of docs/spec/bundle.md and trust.md; what the product
refuses while reading has no step in the error and is T1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from device_client.core.belief import TrustState
from device_client.core.reanchor import reanchor
from device_client.core.trust import advance, require_fresh
from protocol import bundle
from protocol.errors import Malformed, Refused, Untrusted
from protocol.trustfile import TrustFile
from tests.twin import verifier


@dataclass(frozen=True)
class Verdict:
    """``values`` if accepted, otherwise ``step``."""

    values: Any = None
    step: int | str | None = None
    why: str = dataclasses.field(default="", compare=False)

    @property
    def accepted(self) -> bool:
        return self.values is not None


@dataclass(frozen=True)
class Pinned:
    """What a device knows before it reads: trust file, clock, and what it believed last."""

    anchor: bundle.Anchor
    height: int = 0
    time: int = 0
    header: bytes = b""
    """Of the block believed last, where there is one."""
    clock: int | None = None
    build_time: int = 0
    trusting_period: int = 0
    max_age: int = 2**32 - 1
    state: TrustState | None = None
    """In place of height, time, header and the anchor's validators: all that was remembered."""

    def as_mapping(self) -> dict[str, Any]:
        """For the twin."""
        anchor, state = self.anchor, self.as_state()
        moved = state.anchor(anchor)
        return {
            "chain_id": moved.ledger.chain_id,
            "contract": bytes(moved.ledger.contract),
            "code_hash": bytes(moved.code_hash),
            "product": bytes(anchor.product_id),
            "validators": [bytes(one) for one in state.validators],
            "height": state.height,
            "time": state.time,
            "header": verifier.read_header(state.header) if state.header else None,
            "newest": state.newest,
            "statuses": [tuple(row) for row in state.statuses],
            "evidence": [verifier.read_header(header) for header in state.evidence],
            "statement": state.anchored and verifier.read_statement(state.anchored.encode()),
            "now": self.clock,
            "build_time": self.build_time,
            "trusting_period": self.trusting_period,
            "max_age": self.max_age,
        }

    def as_state(self) -> TrustState:
        """For the product's device."""
        first = TrustState(self.height, self.time, self.header, self.anchor.validators)
        return self.state or first


def plain(value: Any) -> Any:
    """Records, mappings and sequences as lists of plain values, member by member."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [plain(getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return [plain(item) for item in value.values()]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, bool) or value is None or isinstance(value, str | Enum):
        return value
    return int(value)


def manifest_values(said: Any) -> list[Any]:
    """What the product read in a manifest, in the twin's order."""
    names = "product version security_counter image_digest image_size payload_digest key_epoch"
    return [plain(getattr(said, name)) for name in names.split()]


def product_says(data: bytes, pinned: Pinned) -> Verdict:
    """The product: reading, the device's trust, then the offer."""
    try:
        read = bundle.Bundle.decode(data)
        state, view = advance(
            *(pinned.as_state(), read.fresh, pinned.anchor),
            clock=pinned.clock,
            build_time=pinned.build_time,
            trusting_period=pinned.trusting_period,
        )
        known = {"clock": pinned.clock, "build_time": pinned.build_time}
        require_fresh(view, state, pinned.max_age, **known)
        values = [
            state.encode(),
            view.number,
            view.timestamp,
            bytes(view.block_hash),
            plain(view.sealers),
        ]
        values += [plain(view.product), plain(view.release)]
        if read.static is not None:
            found = bundle.offer(read.static, view)
            values += [plain(found.terms), manifest_values(found.manifest), bytes(found.key_id)]
    except (Malformed, Untrusted, Refused) as error:
        return Verdict(step=error.data.get("step", "T1"), why=error.reason)
    return Verdict(values)


def twin_says(data: bytes, pinned: Pinned) -> Verdict:
    """The twin: one function."""
    try:
        offer = verifier.verify_bundle(data, pinned.as_mapping())
    except verifier.Refusal as refusal:
        return Verdict(step=refusal.step, why=refusal.why)
    header = offer["header"]
    values = [
        verifier.state_bytes(offer["trusted"]),
        header["number"],
        header["time"],
        header["block_hash"],
        header["sealers"],
    ]
    values += [plain(offer["product"]), plain(offer["release"])]
    if "terms" in offer:
        said = offer["manifest"]
        names = [member for member in said if member != "notes"]
        values += [plain(offer["terms"]), [said[name] for name in names], offer["key_id"]]
    return Verdict(values)


def reanchored(data: bytes, state: TrustState, trust: TrustFile) -> tuple[Verdict, Verdict]:
    """What each says of a re-anchor statement: the state that it leads to, or the step."""
    pinned = Pinned(trust.anchor, state=state).as_mapping()
    keys = [bytes.fromhex(key) for key in trust.recovery_keys]
    pinned |= {"recovery_keys": keys, "threshold": trust.recovery_threshold}
    try:
        ours = Verdict(reanchor(state, data, trust).encode())
    except (Malformed, Untrusted) as error:
        ours = Verdict(step=error.data["step"], why=error.reason)
    try:
        return ours, Verdict(verifier.state_bytes(verifier.reanchor(data, pinned)))
    except verifier.Refusal as refusal:
        return ours, Verdict(step=refusal.step, why=refusal.why)


def agreed(data: bytes, pinned: Pinned) -> Verdict:
    """The verdict of both; fails if they differ."""
    ours, theirs = product_says(data, pinned), twin_says(data, pinned)
    assert ours == theirs, f"product {ours}, twin {theirs}, bundle {data.hex()}"
    return ours
