"""The ledger's rules in plain Python: what the contract enforces and what a device evaluates.

Pure: every time is an argument, in Unix seconds. Two implementations exist, contracts/lib/*.sol and
this one; tests/test_ledger_model.py drives both with the same operations and compares them.

Rules: a status is active, halted or revoked. A state word with any other is no state of a release,
whoever proved it: `known_status` refuses it, and so does all that judges by it.

Signatures are not checked here: an act takes the set of accounts that approved it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from protocol.digests import keccak256
from protocol.errors import Untrusted
from protocol.ids import DeviceId, ProductId
from protocol.records import Device, Governance, HaltRule, Head, Product, State, Terms, word

COHORTS = 10_000
MAX_HALTS = 255


class Status(IntEnum):
    """Status of a release."""

    NONE, ACTIVE, HALTED, REVOKED = range(4)


class Reason(IntEnum):
    """Why a device may or may not install; the first that applies, in this order."""

    ELIGIBLE = 0
    PRODUCT_PAUSED = 1
    REVOKED = 2
    HALTED = 3
    WRONG_HARDWARE = 4
    ATTESTATIONS_MISSING = 5
    NOT_STARTED = 6
    EXPIRED = 7
    NOT_NEWER = 8
    STEP_REQUIRED = 9
    COUNTER_TOO_LOW = 10
    COHORT_WAITS = 11

    @property
    def slug(self) -> str:
        """The stable kebab-case id, as in receipts and ``--json``."""
        return self.name.lower().replace("_", "-")


_LAYOUT = (
    ("status", 4),
    ("flags", 4),
    ("halts", 8),
    ("attested", 8),
    ("halted_at", 40),
    ("confirmed", 32),
    ("failed", 32),
    ("base_confirmed", 32),
    ("base_failed", 32),
    ("halted_total", 32),
    ("log_size", 32),
)


@dataclass(frozen=True)
class StateWord:
    """The unpacked state word; the layout is that of IReleaseLedger.State, lowest bits first."""

    status: int
    flags: int = 0
    halts: int = 0
    attested: int = 0
    halted_at: int = 0
    confirmed: int = 0
    failed: int = 0
    base_confirmed: int = 0
    base_failed: int = 0
    halted_total: int = 0
    log_size: int = 0

    @classmethod
    def unpack(cls, packed: int) -> Self:
        """From the uint256 of `State.word`."""
        members = {}
        for name, bits in _LAYOUT:
            members[name] = packed & (1 << bits) - 1
            packed >>= bits
        return cls(**members)

    def pack(self) -> int:
        """The uint256 of `State.word`; ValueError if a member does not fit (a bug of ours)."""
        packed, shift = 0, 0
        for name, bits in _LAYOUT:
            value = getattr(self, name)
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{name}={value} does not fit {bits} bits")
            packed |= value << shift
            shift += bits
        return packed

    @property
    def superseded(self) -> bool:
        """Whether M of N marked it as superseded; sorts, forbids nothing."""
        return bool(self.flags & 1)

    @property
    def recent(self) -> tuple[int, int]:
        """(confirmed, failed) since the last resume."""
        return self.confirmed - self.base_confirmed, self.failed - self.base_failed


def known_status(packed: int) -> Status:
    """The status in `State.word`: active, halted or revoked; `Untrusted` for any other."""
    status = StateWord.unpack(packed).status
    if status not in (Status.ACTIVE, Status.HALTED, Status.REVOKED):
        raise Untrusted(
            "unknown-status",
            "release refused",
            f"the ledger has it in status {status}, which says neither active nor halted",
            "update this software; if it is the newest, tell the maker",
            status=status,
        )
    return Status(status)


def clock(head: Head, now: int) -> int:
    """The product's clock: block time less all pauses; it stands still while paused."""
    running = now - head.paused_at if head.paused_at else 0
    return now - head.paused_total - running


def release_delay(governance: Governance, approvals: int) -> int:
    """Seconds a release waits: none if all N approved and N is above the threshold."""
    spare = approvals == len(governance.approvers) and approvals > governance.threshold
    return 0 if spare else governance.release_delay


def start_of(head: Head, terms: Terms, now: int, delay: int) -> int:
    """`State.starts_at` of a release published at ``now``."""
    earliest = clock(head, now) + delay
    return max(earliest, terms.not_before - head.paused_total) if terms.not_before else earliest


def elapsed(head: Head, state: State, now: int) -> int:
    """Seconds of running, halts and pauses taken out; negative before the start."""
    w, ticks = StateWord.unpack(state.word), clock(head, now)
    halted = ticks - w.halted_at if w.status == Status.HALTED else 0
    return ticks - state.starts_at - w.halted_total - halted


def cohort(product_id: ProductId, release_id: int, device_id: DeviceId) -> int:
    """0 to 9999: a device's place in one release's rollout, for anyone to recompute."""
    return int.from_bytes(keccak256(product_id + word(release_id) + device_id), "big") % COHORTS


def open_share(terms: Terms, state: State, running: int) -> int:
    """The share of the fleet, in 1/10000, whose turn has come after ``running`` seconds."""
    w = StateWord.unpack(state.word)
    confirmed, failed = w.recent
    share = 0
    for phase in terms.rollout:
        if running < phase.delay:
            break
        lapsed = phase.gate_deadline != 0 and running >= phase.gate_deadline
        if w.confirmed < phase.min_confirmed and not lapsed:
            break
        if failed * COHORTS > phase.max_failure_bps * (confirmed + failed):
            break
        share = phase.bps
    return share


def eligible(
    product: Product, terms: Terms, release_id: int, state: State, device: Device, now: int
) -> Reason:
    """Whether a device may install a release at ``now`` (block time), and if not, why.

    The records must already be proven; nothing of them is checked here but the status, which is
    one that the contract writes: `Untrusted` as in `known_status` otherwise.
    """
    w, status = StateWord.unpack(state.word), known_status(state.word)
    running = elapsed(product.head, state, now)
    checks = (
        (product.head.paused_at != 0, Reason.PRODUCT_PAUSED),
        (status is Status.REVOKED, Reason.REVOKED),
        (status is Status.HALTED, Reason.HALTED),
        (
            not terms.hardware_min <= device.hardware <= terms.hardware_max,
            Reason.WRONG_HARDWARE,
        ),
        (
            terms.required_attestations & ~w.attested != 0,
            Reason.ATTESTATIONS_MISSING,
        ),
        (running < 0 or now < terms.not_before, Reason.NOT_STARTED),
        (terms.expiry != 0 and now >= terms.expiry, Reason.EXPIRED),
        (device.version >= terms.version, Reason.NOT_NEWER),
        (device.version < terms.min_version, Reason.STEP_REQUIRED),
        (terms.security_counter < device.security_counter, Reason.COUNTER_TOO_LOW),
    )
    for applies, reason in checks:
        if applies:
            return reason
    turn = cohort(ProductId(terms.product_id), release_id, DeviceId(device.device_id))
    return Reason.ELIGIBLE if turn < open_share(terms, state, running) else Reason.COHORT_WAITS


def halts(rule: HaltRule, w: StateWord) -> bool:
    """Whether receipts since the last resume meet the product's halting rule."""
    confirmed, failed = w.recent
    return (
        rule.min_failures != 0
        and failed >= rule.min_failures
        and failed * COHORTS > rule.max_failure_bps * (confirmed + failed)
    )


# -- transitions of a release --------------------------------------------------------------------


def published(head: Head, terms: Terms, now: int, delay: int) -> State:
    """The state a release is born with."""
    return State(start_of(head, terms, now, delay), StateWord(Status.ACTIVE).pack())


def halted(head: Head, state: State, now: int) -> State:
    """After a halt of an active release at ``now``."""
    w = StateWord.unpack(state.word)
    w = dataclasses.replace(
        w,
        status=Status.HALTED,
        halted_at=clock(head, now),
        halts=min(w.halts + 1, MAX_HALTS),
    )
    return dataclasses.replace(state, word=w.pack())


def resumed(head: Head, state: State, now: int) -> State:
    """After a resume of a halted release at ``now``: a new baseline, the halted time taken out."""
    w = StateWord.unpack(state.word)
    w = dataclasses.replace(
        w,
        status=Status.ACTIVE,
        halted_at=0,
        halted_total=w.halted_total + clock(head, now) - w.halted_at,
        base_confirmed=w.confirmed,
        base_failed=w.failed,
    )
    return dataclasses.replace(state, word=w.pack())


def anchored(
    product: Product,
    state: State,
    now: int,
    *,
    new_size: int,
    root: bytes,
    confirmed: int,
    failed: int,
) -> State:
    """After a batch of receipts was anchored; halted as well if the rule is met."""
    w = StateWord.unpack(state.word)
    w = dataclasses.replace(
        w, confirmed=w.confirmed + confirmed, failed=w.failed + failed, log_size=new_size
    )
    state = dataclasses.replace(state, word=w.pack(), log_root=root)
    if w.status == Status.ACTIVE and halts(product.governance.halt_rule, w):
        return halted(product.head, state, now)
    return state
