"""What the device believes of the ledger, and how that may move: forwards, by proof, or not at all.

Guarantees:

* Accepted height and time never fall; a proof below them is refused (promise 3).
* `advance` accepts nothing that the trusted validators did not seal, and a proof that fails leaves
  the trusted state as it was. One that holds moves the state *before* any policy is asked, so that
  what was once seen as halted or revoked stays seen.
* Two different blocks sealed at one height freeze the device: it keeps both headers as evidence and
  believes nothing until it is re-anchored. Evidence without a quorum never freezes it.

The steps are numbered as in docs/spec/trust.md (`Step`); those of the proof itself have the numbers
of docs/spec/bundle.md. Times are Unix seconds and arguments; ``clock`` is None where the device's
clock is not set. The caller makes the returned state durable before it acts on the view.

Not here: re-anchoring (`device_client.core.reanchor`), and whether to install
(`protocol.ledger.eligible`, `device_client.core.policy`).
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from device_client.core.belief import TrustState
from protocol import proof
from protocol.bundle import Anchor, Fresh, View, prove
from protocol.errors import FirmledgerError, Refused, Untrusted, step
from protocol.header import parse_header
from protocol.ids import Address
from protocol.ledger import known_status
from protocol.links import Contradiction, Followed, follow, require_one_block
from protocol.trustfile import FUTURE_TOLERANCE, TRUSTING_PERIOD_DEFAULT

KEPT_STATUSES = 16


class Step(StrEnum):
    """The device's own steps around a proof, by their numbers in docs/spec/trust.md."""

    READ = "T1"
    NOT_FROZEN = "T2"
    PERIOD = "T3"
    LINKS = "T4"
    HEIGHT = "T5"
    ONE_BLOCK = "T6"
    TIME = "T7"
    FUTURE = "T8"
    YOUNG = "T9"
    CLASS_KEY = "T10"
    RULES = "T11"


class Equivocation(Contradiction):
    """Two blocks sealed at one height; ``state`` is the frozen state to make durable."""

    def __init__(self, found: Contradiction, state: TrustState) -> None:
        """``state``: as it was before; kept with the two headers as evidence."""
        super().__init__(found.data["height"], found.headers)
        self.state = replace(state, evidence=found.headers)


def advance(
    state: TrustState,
    fresh: Fresh,
    pinned: Anchor,
    *,
    clock: int | None,
    build_time: int = 0,
    trusting_period: int = TRUSTING_PERIOD_DEFAULT,
) -> tuple[TrustState, View]:
    """The state and the view after a proof that holds; raises and changes nothing otherwise.

    ``pinned`` and ``trusting_period`` (seconds, 0: no limit): from the trust file; what a re-anchor
    has moved since, and the validators, are those of ``state``. `Equivocation` carries the one
    state that must be kept although the proof was refused.
    """
    with step(Step.NOT_FROZEN):
        _require_not_frozen(state)
    with step(Step.PERIOD):
        _require_period(state, max(clock or 0, build_time), trusting_period)
    with step(Step.LINKS):
        followed = _follow(state, fresh.links)
    view = _proved(state, fresh, state.anchor(pinned, followed.validators), followed)
    with step(Step.HEIGHT):
        _require_height(view, state.height, _number(followed.compared))
    _require_one_block(state, followed, view.header)
    with step(Step.TIME):
        _require_time(view, state)
    with step(Step.FUTURE):
        _require_past(view, clock)
    return _moved(state, view, followed.validators), view


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
            step=Step.YOUNG,
        )


# -- the steps ------------------------------------------------------------------------------------


def _require_not_frozen(state: TrustState) -> None:
    if state.frozen:
        raise Refused(
            "frozen",
            "nothing was accepted",
            "the ledger's validators contradicted themselves earlier",
            "re-anchor this device with the recovery keys",
        )


def _require_period(state: TrustState, now: int, trusting_period: int) -> None:
    # Holds for every proof, not only for links: whoever has the keys of a former set can seal a
    # block that lists that set as well as one that leads away from it. Before the first block
    # there is no time to count from.
    since = now - state.time
    if state.time and trusting_period and since > trusting_period:
        raise Refused(
            "trusting-period",
            "nothing was accepted",
            f"the last block was accepted {since} s ago, validators are believed for"
            f" {trusting_period} s",
            "set the device's clock if it is wrong, or re-anchor with the recovery keys",
            since=since,
            trusting_period=trusting_period,
        )


def _follow(state: TrustState, links: tuple[bytes, ...]) -> Followed:
    try:
        return follow(links, state.validators, state.height, state.header)
    except Contradiction as found:
        raise Equivocation(found, state) from None


def _proved(state: TrustState, fresh: Fresh, anchor: Anchor, followed: Followed) -> View:
    """The view that ``fresh`` proves. A header that holds is evidence even if the rest does not."""
    try:
        return prove(fresh, anchor)
    except FirmledgerError as error:
        refusing = error.data.get("step", 0)
        if refusing > proof.Step.SEAL_ORDER:
            try:
                _require_one_block(state, followed, fresh.proof.header)
            except Equivocation as contradiction:
                contradiction.data["beside"] = refusing
                raise
        raise


def _require_height(view: View, height: int, linked: int) -> None:
    if height <= view.number < linked:
        raise Untrusted(
            "below-trusted-height",
            "bundle refused",
            f"it shows block {view.number}, its own links lead to block {linked}",
            "get the bundle again, from another source",
            shown=view.number,
            linked=linked,
        )
    if view.number < height:
        raise Untrusted(
            "below-trusted-height",
            "bundle refused",
            f"it shows block {view.number}, this device has seen block {height}",
            "renew it with 'firmledger bundle refresh'",
            shown=view.number,
            trusted=height,
        )


def _require_one_block(state: TrustState, followed: Followed, header: bytes) -> None:
    with step(Step.ONE_BLOCK):
        try:
            require_one_block(state.header, header)
            require_one_block(followed.compared, header)
        except Contradiction as found:
            raise Equivocation(found, state) from None


def _require_time(view: View, state: TrustState) -> None:
    if view.timestamp < state.time:
        raise Untrusted(
            "time-falls",
            "bundle refused",
            f"block {view.number} is stamped before block {state.height}",
            "get the bundle from another source, and tell the maker",
        )


def _require_past(view: View, clock: int | None) -> None:
    if clock is not None and view.timestamp > clock + FUTURE_TOLERANCE:
        raise Untrusted(
            "from-the-future",
            "bundle refused",
            f"its block is stamped {view.timestamp - clock} s after this device's clock",
            "set the device's clock, or get the bundle from another source",
            header=view.timestamp,
            clock=clock,
        )


def _moved(state: TrustState, view: View, validators: tuple[Address, ...]) -> TrustState:
    statuses = dict(state.statuses)
    if view.release is not None:
        statuses[view.release.release_id] = known_status(view.release.state.word)
    kept = sorted(statuses.items())[-KEPT_STATUSES:]
    return replace(
        state,
        height=view.number,
        time=view.timestamp,
        header=view.header,
        validators=validators,
        newest=max(state.newest, view.product.head.version),
        statuses=tuple(kept),
    )


def _number(header: bytes) -> int:
    return parse_header(header).number if header else 0


__all__ = ["Equivocation", "Step", "TrustState", "advance", "age", "require_fresh"]
