"""What a check went through, step by step, in the order in which the steps are taken.

Guarantees: every step of docs/spec/trust.md and docs/spec/bundle.md stands in the answer once, with
one verdict. It is derived from where the verification ended, because a step is only reached when
all before it held; nothing is verified a second time. One step may be asked out of turn: where a
proof fails whose header contradicts a known one, both refusals are told.
"""

from __future__ import annotations

from device_client.core.trust import Step
from protocol.bundle import STEPS
from protocol.errors import FirmledgerError
from protocol.ledger import Reason

OK, REFUSED, NOT_NEEDED, NOT_REACHED = "ok", "REFUSED", "-", "not yet"

NAMES: dict[str, str] = {
    Step.READ: "the answer is a bundle",
    Step.NOT_FROZEN: "the ledger has not contradicted itself before",
    Step.PERIOD: "the last block accepted is within the trusting period",
    Step.LINKS: "links lead from the trusted validators to those of the block",
    **{str(number): name for number, name in STEPS.items() if number <= 10},
    Step.HEIGHT: "the block is not below the highest one accepted",
    Step.ONE_BLOCK: "no other block was sealed at its height",
    Step.TIME: "its time is not before the latest one accepted",
    Step.FUTURE: "its time is not ahead of this device's clock",
    Step.YOUNG: "the proof is younger than max-age",
    **{str(number): name for number, name in STEPS.items() if number > 10},
    Step.CLASS_KEY: "this device holds the key that the payload is encrypted for",
    Step.RULES: "the ledger's conditions let this device install it now",
}
"""Number and name of every step, in the order in which they are taken."""

_OF_AN_OFFER = list(NAMES)[list(NAMES).index(str(11)) :]


def explain(
    *,
    error: FirmledgerError | None = None,
    rules: Reason | None = None,
) -> list[dict[str, str]]:
    """Each step with its verdict: ``step``, ``name``, ``verdict`` and, if refused, ``reason``.

    ``error``: what ended the check, if something did; an error without a step (nothing answered,
    this machine failed) reached none. Otherwise ``rules`` is what the ledger's conditions say of
    the release that was offered; None: nothing was.
    """
    failed = str(error.data.get("step", "")) if error else ""
    if not error and rules not in (None, Reason.ELIGIBLE):
        failed = Step.RULES
    beside = str(error.data.get("beside", "")) if error else ""
    rows: list[dict[str, str]] = []
    verdict = NOT_REACHED if error and not failed else OK
    for number, name in NAMES.items():
        row = {"step": str(number), "name": name, "verdict": verdict}
        if number == beside:
            row["verdict"], verdict = REFUSED, NOT_REACHED
        elif number == failed:
            reason = error.reason if error else rules.slug if rules else ""
            row |= {"verdict": REFUSED, "reason": reason}
            verdict = NOT_REACHED
        elif not error and rules is None and number in _OF_AN_OFFER:
            row["verdict"] = NOT_NEEDED
        rows.append(row)
    return rows
