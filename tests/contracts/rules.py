"""What is well formed, what only tightens, who signed: the rules beside those of `protocol.ledger`.

Written from the text of IReleaseLedger.sol, for `tests.contracts.model`. Refusals are `Refused`,
with the name and the data of the contract's custom error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from coincurve import PublicKey

from protocol.digests import keccak256
from protocol.records import Governance, SigningKey, Terms

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class Refused(Exception):
    """The custom error the contract must answer with."""

    def __init__(self, name: str, *data: Any) -> None:
        super().__init__(name, data)
        self.name = name
        self.data = data


def recover(digest: bytes, r: bytes, vs: bytes) -> bytes:
    """Who signed, by libsecp256k1 rather than the precompile; zero if it is no signature."""
    if not any(vs):
        return bytes(r[12:])
    number = int.from_bytes(vs, "big")
    s = number & (1 << 255) - 1
    if s > HALF_ORDER:
        return bytes(20)
    raw = r + s.to_bytes(32, "big") + bytes([number >> 255])
    try:
        key = PublicKey.from_signature_and_message(raw, digest, hasher=None)
    except Exception:  # coincurve raises bare Exception and ValueError alike
        return bytes(20)
    return bytes(keccak256(key.format(compressed=False)[1:])[12:])


def require_role(sender: bytes, members: Sequence[bytes], role: str) -> None:
    """NotAuthorized unless ``sender`` is among ``members``."""
    if sender not in members:
        raise Refused("NotAuthorized", bytes(sender), role)


def require_watcher(g: Governance, sender: bytes) -> None:
    """Approvers and guardians watch."""
    require_role(sender, (*g.approvers, *g.guardians), "watcher")


def require_well_formed(g: Governance) -> None:
    """InvalidGovernance unless lists ascend and numbers are within their limits."""
    if not g.approvers or not ascending(g.approvers):
        raise Refused("InvalidGovernance", "approvers")
    if not 1 <= g.threshold <= len(g.approvers):
        raise Refused("InvalidGovernance", "threshold")
    for field in ("guardians", "auditors", "reporters"):
        if not ascending(getattr(g, field)):
            raise Refused("InvalidGovernance", field)
    if not ascending([k.key_id for k in g.keys]):
        raise Refused("InvalidGovernance", "keys")
    if g.halt_rule.max_failure_bps > 10_000:
        raise Refused("InvalidGovernance", "haltRule")


def ascending(members: Sequence[bytes]) -> bool:
    """Strictly, and without zero."""
    return all(any(m) for m in members) and list(members) == sorted(set(members))


def require_successor(g: Governance, following: Governance) -> None:
    """The next epoch, well formed, with the same delay."""
    if following.epoch != g.epoch + 1:
        raise Refused("EpochMismatch", g.epoch + 1, following.epoch)
    require_well_formed(following)
    if following.governance_delay != g.governance_delay:
        raise Refused("InvalidGovernance", "governanceDelay")


def loosened(g: Governance, to: Governance) -> str:
    """The first field, of those both kinds of tightening look at, that is loosened; or ''."""
    if not set(to.auditors) <= set(g.auditors):
        return "auditors"
    if not set(to.reporters) <= set(g.reporters):
        return "reporters"
    if to.enroller not in (g.enroller, bytes(20)):
        return "enroller"
    if not only_lowered(g.keys, to.keys):
        return "keys"
    return "" if to.halt_rule == g.halt_rule else "haltRule"


def only_lowered(old: Sequence[SigningKey], new: Sequence[SigningKey]) -> bool:
    """The same keys, none valid for longer."""
    return [k.key_id for k in old] == [k.key_id for k in new] and all(
        n.valid_through <= o.valid_through for o, n in zip(old, new, strict=True)
    )


def is_tightening(g: Governance, to: Governance) -> bool:
    """Whether M of N may change ``g`` into ``to`` at once."""
    could_halt = set(g.guardians or to.approvers)
    can_halt = set(to.guardians or to.approvers)
    keeps_guardians = could_halt <= can_halt and not (g.guardians and not to.guardians)
    return keeps_guardians and tightens_besides(g, to)


def tightens_besides(g: Governance, to: Governance) -> bool:
    """Whether all members but the guardians stay or are tightened."""
    return (
        not loosened(g, to)
        and set(to.approvers) <= set(g.approvers)
        and to.threshold >= g.threshold
        and to.release_delay >= g.release_delay
    )


def is_removal(g: Governance, to: Governance, guardian: bytes) -> bool:
    """Whether ``to`` takes this guardian's seat and else only tightens."""
    left = tuple(member for member in g.guardians if member != guardian)
    return guardian in g.guardians and to.guardians == left and tightens_besides(g, to)


def require_restriction(g: Governance, to: Governance, watcher: bytes, latest: int) -> None:
    """NotATightening unless one watcher may do it, and it is something."""
    field = loosened(g, to)
    if not field and any(
        n.valid_through not in (o.valid_through, 0, latest)
        for o, n in zip(g.keys, to.keys, strict=True)
    ):
        field = "keys"
    left = tuple(a for a in g.approvers if a != watcher)
    for name, allowed in (
        ("approvers", (g.approvers, left)),
        ("threshold", (g.threshold,)),
        ("guardians", (g.guardians,)),
        ("release_delay", (g.release_delay,)),
    ):
        if getattr(to, name) not in allowed:
            field = "releaseDelay" if name == "release_delay" else name
            break
    if not field and dataclasses.replace(to, epoch=g.epoch) == g:
        field = "epoch"
    if field:
        raise Refused("NotATightening", field)


def require_installable(terms: Terms, now: int) -> None:
    """InvalidTerms or InvalidRollout for what no device could ever follow."""
    if not any(terms.image_digest):
        raise Refused("InvalidTerms", "imageDigest")
    if not any(terms.manifest_digest):
        raise Refused("InvalidTerms", "manifestDigest")
    if terms.image_size == 0:
        raise Refused("InvalidTerms", "imageSize")
    if terms.hardware_min > terms.hardware_max:
        raise Refused("InvalidTerms", "hardwareMax")
    if terms.min_version >= terms.version:
        raise Refused("InvalidTerms", "minVersion")
    if terms.expiry and terms.expiry <= max(now, terms.not_before):
        raise Refused("InvalidTerms", "expiry")
    if not terms.rollout:
        raise Refused("InvalidTerms", "rollout")
    bps = delay = 0
    for i, phase in enumerate(terms.rollout):
        first = i == 0
        for field, fine in (
            ("bps", bps < phase.bps <= 10_000),
            ("delay", phase.delay >= delay),
            (
                "maxFailureBps",
                phase.max_failure_bps == 10_000 if first else phase.max_failure_bps <= 10_000,
            ),
            ("minConfirmed", not first or phase.min_confirmed == 0),
            ("gateDeadline", not first or phase.gate_deadline == 0),
        ):
            if not fine:
                raise Refused("InvalidRollout", i, field)
        bps, delay = phase.bps, phase.delay
