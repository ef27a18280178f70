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
from device_client.core.trust import Equivocation, advance
from protocol import bundle
from protocol.errors import Malformed, Untrusted
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
    """What a device knows before it reads: the trust file, and the newest block it believed."""

    anchor: bundle.Anchor
    height: int = 0
    time: int = 0

    def as_mapping(self) -> dict[str, Any]:
        """For the twin."""
        anchor = self.anchor
        return {
            "chain_id": anchor.ledger.chain_id,
            "contract": bytes(anchor.ledger.contract),
            "code_hash": bytes(anchor.code_hash),
            "product": bytes(anchor.product_id),
            "validators": [bytes(one) for one in anchor.validators],
            "height": self.height,
            "time": self.time,
        }

    def as_state(self) -> TrustState:
        """For the product's device."""
        return TrustState(self.height, self.time, b"", self.anchor.validators)


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
        _, view = advance(pinned.as_state(), read.fresh, pinned.anchor, clock=None)
        values = [view.number, view.timestamp, bytes(view.block_hash), plain(view.sealers)]
        values += [plain(view.product), plain(view.release)]
        if read.static is not None:
            found = bundle.offer(read.static, view)
            values += [plain(found.terms), manifest_values(found.manifest), bytes(found.key_id)]
    except Equivocation as error:  # by a proof that fails afterwards: the error names no step
        return Verdict(step=error.data.get("step", "T6"), why=error.reason)
    except (Malformed, Untrusted) as error:
        return Verdict(step=error.data.get("step", "T1"), why=error.reason)
    return Verdict(values)


def twin_says(data: bytes, pinned: Pinned) -> Verdict:
    """The twin: one function."""
    try:
        offer = verifier.verify_bundle(data, pinned.as_mapping())
    except verifier.Refusal as refusal:
        return Verdict(step=refusal.step, why=refusal.why)
    header = offer["header"]
    values = [header["number"], header["time"], header["block_hash"], header["sealers"]]
    values += [plain(offer["product"]), plain(offer["release"])]
    if "terms" in offer:
        said = offer["manifest"]
        names = [member for member in said if member != "notes"]
        values += [plain(offer["terms"]), [said[name] for name in names], offer["key_id"]]
    return Verdict(values)


def agreed(data: bytes, pinned: Pinned) -> Verdict:
    """The verdict of both; fails if they differ."""
    ours, theirs = product_says(data, pinned), twin_says(data, pinned)
    assert ours == theirs, f"product {ours}, twin {theirs}, bundle {data.hex()}"
    return ours
