"""A product as it stands: both governances spelled out, to write its record for any time.

Guarantees: `Standing.record` is what the contract takes for the product at a block time, and
`after` is what each event of the contract makes of a standing (docs/spec/commitments.md).

Not here: whether an event was allowed (`registry.audit` judges that).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from protocol.ids import Hash
from protocol.records import Governance, Head, Product, Terms

_NEW = Head()


@dataclass(frozen=True)
class Standing:
    """``pending`` takes effect at ``effective_at`` (Unix seconds); 0 if none is waiting."""

    current: Governance
    pending: Governance | None = None
    effective_at: int = 0
    head: Head = _NEW

    def in_effect(self, now: int) -> Governance:
        """The governance in effect at ``now``."""
        return self.pending if self.pending and now >= self.effective_at else self.current

    def record(self, now: int) -> Product:
        """The product's record as it is passed around at block time ``now``."""
        spelled = self.in_effect(now)
        hidden = self.current if spelled is self.pending else self.pending
        other = hidden.hash_struct() if hidden else Hash(bytes(32))
        return Product(spelled, other, self.effective_at, self.head)

    def waiting(self, now: int) -> Governance | None:
        """The governance that has yet to take effect at ``now``."""
        return self.pending if self.pending and now < self.effective_at else None

    def to_text(self) -> str:
        """As canonical JSON."""
        pending = self.pending.to_json() if self.pending else None
        return json.dumps(
            [self.current.to_json(), pending, self.effective_at, self.head.to_json()],
            sort_keys=True,
            separators=(",", ":"),
        )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """From `to_text`."""
        current, pending, effective_at, head = json.loads(text)
        return cls(
            Governance.from_json(current),
            Governance.from_json(pending) if pending else None,
            effective_at,
            Head.from_json(head),
        )


def after(standing: Standing | None, name: str, args: Mapping[str, Any]) -> Standing | None:
    """The standing after an event; as it was if the event does not touch the product's record."""
    if name in ("ProductCreated", "AmendmentProposed", "AmendmentCancelled", "GovernanceChanged"):
        # What stands before the change is spelled out in the event for its own time, and by then
        # nothing that waited before is left: it took effect, or the contract dropped it.
        product: Product = args["product"]
        return Standing(product.governance, args.get("next"), product.effective_at, product.head)
    if standing is None:
        return None
    if name in ("ProductPaused", "ProductUnpaused"):
        return replace(standing, head=args["head"])
    if name == "ReleasePublished":
        terms: Terms = args["terms"]
        head = replace(
            standing.head,
            latest_release=args["release_id"],
            version=terms.version,
            security_counter=terms.security_counter,
        )
        return replace(standing, head=head)
    return standing
