"""What follows from the model on chain, bit for bit: every word of storage, and each act's logs.

The words are all there may be: their root is that of the contract's storage trie, so a word written
anywhere else shows. The logs are encoded from the model's records by the ABI, topics and data.

The model judges; here is only spelled out what its records look like from outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from protocol import _abi
from protocol.ids import Address
from protocol.ledger import StateWord
from protocol.records import Governance, Product, Record, Release, State, Terms, product_id, word
from tests.contracts.evm import ARTIFACT, CODEC, Log, abi_type, mapped
from tests.contracts.model import Approvals, Model

EVENTS = {e["name"]: e["inputs"] for e in ARTIFACT["abi"] if e["type"] == "event"}


# -- storage ---------------------------------------------------------------------------------------


def words(model: Model) -> dict[int, bytes]:
    """Every storage word that there is, by its place."""
    held: dict[int, bytes] = {}
    for pid in model.products:
        held[mapped(pid, _abi.PRODUCTS_SLOT)] = model.product_slot(pid)
    for pid, number in model.releases:
        place = mapped(word(number), mapped(pid, _abi.RELEASES_SLOT))
        held[place] = model.release_slot(pid, number)
    for (pid, image), number in model.images.items():
        held[mapped(image, mapped(pid, _abi.IMAGES_SLOT))] = word(number)
    for pid, (root, size, epoch) in model.fleets.items():
        place = mapped(pid, _abi.FLEETS_SLOT)
        held[place], held[place + 1] = root, word(epoch << 32 | size)
    for digest, approver in model.approved:
        place = mapped(approver.rjust(32, b"\0"), mapped(digest, _abi.APPROVED_SLOT))
        held[place] = word(1)
    for pid, hashed in model.withdrawn:
        held[mapped(hashed, mapped(pid, _abi.WITHDRAWN_SLOT))] = word(1)
    return held


# -- logs ------------------------------------------------------------------------------------------


def log(name: str, *values: Any) -> Log:
    """An event with its arguments in the order of its declaration."""
    plain = [v.to_abi() if isinstance(v, Record) else v for v in values]
    topics, types, data = [_abi.TOPICS[name]], [], []
    for declared, value in zip(EVENTS[name], plain, strict=True):
        if declared["indexed"]:
            topics.append(word(value) if isinstance(value, int) else value.rjust(32, b"\0"))
        else:
            types.append(abi_type(declared))
            data.append(value)
    return Log(tuple(map(bytes, topics)), CODEC.encode(types, data))


def logs(model: Model, sender: Address, function: str, args: Any) -> tuple[Log, ...]:
    """What an act that the model has just taken must have emitted."""
    spelled = _SPELLED[function](model, sender, *args)
    return spelled if isinstance(spelled, tuple) else (spelled,)


def _amended(m: Model, by: Address, pid: bytes, p: Product, to: Governance, a: Approvals) -> Log:
    kept = m.products[pid]
    if kept.pending is None:
        return log("GovernanceChanged", pid, Product(to, head=p.head), m.signers)
    return log("AmendmentProposed", pid, kept.record(0), to, m.signers)


def _cancelled(m: Model, by: Address, pid: bytes, p: Product, *_: Any) -> Log:
    kept = dataclasses.replace(p.governance, epoch=p.governance.epoch + 1)
    return log("AmendmentCancelled", pid, by, Product(kept, head=p.head))


def _published(m: Model, by: Address, p: Product, t: Terms, a: Approvals) -> Log:
    pid, number = t.product_id, p.head.latest_release + 1
    state = m.releases[pid, number].state
    epoch = p.governance.epoch
    return log("ReleasePublished", pid, number, t.image_digest, t, state, epoch, a)


def _decided(name: str) -> Callable[..., Log]:
    def spelled(m: Model, by: Address, pid: bytes, p: Product, r: Release, a: Approvals) -> Log:
        return log(name, pid, r.release_id, _state(m, pid, r), m.signers)

    return spelled


def _anchored(
    m: Model, by: Address, pid: bytes, p: Product, r: Release, size: int, root: bytes, *deltas: int
) -> Log | tuple[Log, ...]:
    before, after = StateWord.unpack(r.state.word), _state(m, pid, r)
    counted = dataclasses.replace(
        before,
        confirmed=before.confirmed + deltas[0],
        failed=before.failed + deltas[1],
        log_size=size,
    )
    between = State(r.state.starts_at, counted.pack(), root)
    anchored = log("ReceiptsAnchored", pid, r.release_id, by, *deltas, between)
    if between == after:
        return anchored
    why = "halting rule met"
    return anchored, log("ReleaseHalted", pid, r.release_id, m.ledger.contract, after, why)


def _state(m: Model, pid: bytes, r: Release) -> State:
    return m.releases[pid, r.release_id].state


# For each act: the model after it, the sender, and the act's arguments -> what it emitted.
_SPELLED: dict[str, Callable[..., Log | tuple[Log, ...]]] = {
    "createProduct": lambda m, by, salt, g: log(
        "ProductCreated", product_id(by, salt), by, salt, Product(g)
    ),
    "amend": _amended,
    "restrict": lambda m, by, pid, p, to: log(
        "GovernanceChanged", pid, Product(to, head=p.head), [by]
    ),
    "cancel": _cancelled,
    "pause": lambda m, by, pid, p: log("ProductPaused", pid, by, m.products[pid].head),
    "unpause": lambda m, by, pid, p, a: log(
        "ProductUnpaused", pid, m.products[pid].head, m.signers
    ),
    "setFleet": lambda m, by, pid, p, root, size: log(
        "FleetSet", pid, by, root, size, m.fleets[pid][2]
    ),
    "approve": lambda m, by, digest: log("DigestApproved", digest, by),
    "withdraw": lambda m, by, pid, p, hashed: log("TermsWithdrawn", pid, hashed, by),
    "publish": _published,
    "halt": lambda m, by, pid, p, r, why: log(
        "ReleaseHalted", pid, r.release_id, by, _state(m, pid, r), why
    ),
    "resume": _decided("ReleaseResumed"),
    "supersede": _decided("ReleaseSuperseded"),
    "revoke": _decided("ReleaseRevoked"),
    "attest": lambda m, by, pid, p, r, kind, evidence: log(
        "ReleaseAttested", pid, r.release_id, by, kind, evidence, _state(m, pid, r)
    ),
    "anchor": _anchored,
}
