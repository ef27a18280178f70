"""What came of a call, told: as plain data for programs, in a sentence and a refusal for people.

`REFUSALS` has a sentence for every reason that ledger or policy give for an answer of no; a reason
of the health check is the board's own, and told as it is. Decides nothing, and prints nothing.
"""

from __future__ import annotations

from typing import Any

from device_client.agent import Agent
from device_client.core.machine import Stage
from device_client.core.policy import Hold
from device_client.report import NOTHING, READY, Report
from protocol.errors import Refused
from protocol.ids import Version
from protocol.ledger import Reason

_ASK = "ask the maker; the device keeps its present image"

REFUSALS: dict[str, tuple[str, str]] = {
    Reason.PRODUCT_PAUSED.slug: (
        "the maker paused the whole product",
        "nothing: try again when it is resumed",
    ),
    Reason.REVOKED.slug: ("the maker revoked the release", "wait for its successor"),
    Reason.HALTED.slug: (
        "the release was halted, by its maker or by failures in the field",
        "wait until it is resumed, or for its successor",
    ),
    Reason.WRONG_HARDWARE.slug: (
        "the release is for other revisions of the hardware",
        "check `hardware` in config.toml; otherwise wait for a release for this one",
    ),
    Reason.EXPIRED.slug: ("the release has expired", "ask the maker for a newer one"),
    Reason.NOT_NEWER.slug: (
        "the release is not newer than what runs here",
        "for the former image use `firmledger-device rollback`",
    ),
    Reason.STEP_REQUIRED.slug: (
        "the release wants an earlier one installed before it",
        "install that one first: see the release's minimum version",
    ),
    Reason.COUNTER_TOO_LOW.slug: (
        "the release's security counter is below the device's",
        "install a release that is not older in security",
    ),
    str(Hold.PENALTY): (
        "this very release failed on this device before",
        "wait for its successor, or agree with `firmledger-device update --yes`",
    ),
    "did-not-come-up": ("the image did not come up; the former one runs again", _ASK),
    "health-check": ("the health check found it faulty; the former one runs again", _ASK),
    "health-check-deadline": (
        "the health check did not end in time; the former image runs again",
        "see `health_deadline` in config.toml, or ask the maker",
    ),
    "health-check-missing": (
        "the health check's command was not found; the former image runs again",
        "correct `health_check` in config.toml",
    ),
    "console-silent": ("the console never said that it runs; the former image runs again", _ASK),
}


def refusal(report: Report) -> Refused:
    """A report that is not good, in the form of all errors."""
    version = str(report.version) if report.version is not None else "image"
    why, fix = REFUSALS.get(report.reason, (report.reason or "no reason was given", _ASK))
    return Refused(report.reason or str(report.outcome), f"{version} {report.outcome}", why, fix)


def told(agent: Agent, report: Report) -> dict[str, Any]:
    """A report as plain data."""
    running = agent.running
    answer: dict[str, Any] = {
        "device_id": str(agent.parts.identity.device_id),
        "outcome": str(report.outcome),
        "reason": report.reason,
        "state": str(agent.book.state.stage),
        "version": str(running.version),
        "slot": agent.parts.boot.record().running,
        "security_counter": agent.book.state.counter,
        "ledger": {
            "height": agent.trust.height,
            "time": agent.trust.time,
            "newest": str(Version(agent.trust.newest)),
        },
        "offer": _offer(report),
    }
    if agent.book.state.stage is Stage.FROZEN:
        answer["reason"] = answer["reason"] or "frozen"
    return answer


def _offer(report: Report) -> dict[str, Any] | None:
    finding = report.finding
    if finding is None or finding.offer is None:
        return None
    terms = finding.offer.terms
    return {
        "release_id": finding.offer.release_id,
        "version": str(Version(terms.version)),
        "security_counter": terms.security_counter,
        "image_digest": "0x" + terms.image_digest.hex(),
        "manifest_digest": "0x" + terms.manifest_digest.hex(),
        "size": terms.image_size,
        "critical": terms.critical,
        "eligible": finding.target is not None,
        "reason": finding.reason.slug,
        "hold": str(report.hold.hold) if report.hold and report.hold.hold else None,
        "until": report.hold.until if report.hold else None,
    }


def sentence(answer: dict[str, Any]) -> str:
    """A report as one line for people."""
    offer, outcome, reason = answer["offer"], answer["outcome"], answer["reason"]
    runs = f"runs {answer['version']} from slot {answer['slot']}"
    if outcome == NOTHING:
        return f"{runs}; the ledger offers nothing newer (block {answer['ledger']['height']})"
    about = f"{offer['version']} " if offer else ""
    if outcome == READY:
        return f"{runs}; {about}may be installed now"
    why = f" ({reason})" if reason else ""
    return f"{runs}; {about}{outcome}{why}"
