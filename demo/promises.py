"""What the story promises, and what of it did not come true.

Pure: it reads the document of `demo.report`, as anybody can who has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from demo import attack
from demo.facts import LEDGER
from demo.story import BAD, CURE, FIRST, GOOD

REFUSED_BECAUSE = {
    attack.FORGED: "payload-digest",
    attack.ALTERED: "wrong-manifest",
    attack.OLDER: "not-newer",
    attack.REPLAYED: "below-trusted-height",
    attack.OUTDATED: "stale",
    attack.STRANGERS: "foreign-seal",
    attack.SHORT: "too-few-approvals",
    attack.UNPUBLISHED: "not-on-ledger",
}
STATUSES = {FIRST: "active", GOOD: "active", BAD: "halted", CURE: "active"}
MAX_PROOF_BYTES = 5_000


def differences(told: dict[str, Any], devices: int) -> list[str]:
    """A sentence for everything that is not as promised; ``devices``: how many there should be."""
    return [
        *_of_releases(told["releases"], devices),
        *_of_devices(told["devices"], devices),
        *_of_refusals(told["refusals"], told["devices"]),
        *_of_proof_and_audit(told),
    ]


def _of_releases(releases: list[dict[str, Any]], devices: int) -> Iterator[str]:
    statuses = {release["version"]: release["status"] for release in releases}
    if statuses != STATUSES:
        yield f"the releases are {statuses}, not {STATUSES}"
    for release in releases:
        version, counts = release["version"], (release["confirmed"], release["failed"])
        if version == BAD:
            if release["halted_by"] != [LEDGER]:
                yield f"{version} was halted by {release['halted_by']}, not by the ledger"
            if counts[0] or not counts[1]:
                yield f"the ledger counts {counts} confirmed and failed installs of {version}"
        elif counts != (devices, 0):
            yield f"the ledger counts {counts} confirmed and failed installs of {version}"


def _of_devices(devices: list[dict[str, Any]], promised: int) -> Iterator[str]:
    if len(devices) != promised:
        yield f"there are {len(devices)} devices, not {promised}"
    for device in devices:
        who = f"device {device['id'][:8]}"
        if (device["version"], device["state"], device["outcome"]) != (CURE, "idle", "confirmed"):
            yield f"{who} is {device['state']} at {device['version']}: {device['outcome']}"
        tried = [f"{BAD} rolled-back"] if BAD in device["canary_of"] else []
        lived = [f"{v} confirmed" for v in (FIRST, GOOD)] + tried + [f"{CURE} confirmed"]
        if device["history"] != lived:
            yield f"{who} lived through {device['history']}, not {lived}"


def _of_refusals(refusals: list[dict[str, Any]], devices: list[dict[str, Any]]) -> Iterator[str]:
    found = {refusal["what"]: refusal for refusal in refusals}
    for what, reason in REFUSED_BECAUSE.items():
        if what not in found:
            yield f"nobody refused {what}"
        elif found[what]["reason"] != reason:
            yield f"{what} was refused for {found[what]['reason']}, not {reason}"
    if attack.SHORT in found and found[attack.SHORT]["device"] != LEDGER:
        yield f"{attack.SHORT} was not refused by the ledger"
    halted = {refusal["device"] for refusal in refusals if refusal["reason"] == "halted"}
    for device in devices:
        if device["id"] not in halted:
            yield f"device {device['id'][:8]} was not told that {BAD} is halted"


def _of_proof_and_audit(told: dict[str, Any]) -> Iterator[str]:
    proof, receipts = told["proof"], told["receipts"]
    if not 0 < proof["bytes"] < MAX_PROOF_BYTES:
        yield f"a proof has {proof['bytes']} bytes, not less than {MAX_PROOF_BYTES}"
    if not 2 * proof["validators"] <= 3 * proof["seals"] <= 3 * proof["validators"]:
        yield f"a proof has {proof['seals']} seals of {proof['validators']} validators"
    if not receipts["count"] or not receipts["batches"]:
        yield "no receipts were anchored"
    audit = told["audit"]
    if not audit["ok"] or audit["problems"]:
        yield f"the audit found problems: {audit['problems']}"
    if audit["releases"] != len(told["releases"]) or audit["receipts"] != receipts["count"]:
        yield f"the audit saw {audit['releases']} releases and {audit['receipts']} receipts"
