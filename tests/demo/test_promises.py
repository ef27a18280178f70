"""The story's check names whatever did not come true, one thing at a time."""

import copy
from typing import Any

import pytest

from demo.promises import REFUSED_BECAUSE, differences
from demo.story import BAD, CURE, FIRST, GOOD

DEVICES = 3


def as_promised() -> dict[str, Any]:
    """A document of three devices, the first of them the canary, in which all came true."""
    names = [digit * 64 for digit in "abc"]
    return {
        "releases": [
            _release(FIRST, "active", (3, 0)),
            _release(GOOD, "active", (3, 0)),
            _release(BAD, "halted", (0, 1)) | {"halted_by": ["ledger"]},
            _release(CURE, "active", (3, 0)),
        ],
        "devices": [
            _device(names[0], [f"{BAD} rolled-back"], [GOOD, BAD]),
            _device(names[1], [], []),
            _device(names[2], [], []),
        ],
        "refusals": [
            *({"device": n, "reason": "halted", "what": f"release {BAD}"} for n in names),
            *(
                {
                    "device": "ledger" if reason == "too-few-approvals" else names[1],
                    "reason": reason,
                    "what": what,
                }
                for what, reason in REFUSED_BECAUSE.items()
            ),
        ],
        "proof": {"bytes": 1555, "verify_ms": 0.5, "seals": 3, "validators": 4},
        "receipts": {"count": 13, "batches": 5, "gas_per_batch": 45_000},
        "audit": {"ok": True, "events": 20, "releases": 4, "receipts": 13, "problems": []},
    }


def _release(version: str, status: str, counts: tuple[int, int]) -> dict[str, Any]:
    confirmed, failed = counts
    return {
        "version": version,
        "status": status,
        "halted_by": [],
        "confirmed": confirmed,
        "failed": failed,
    }


def _device(name: str, tried: list[str], canary_of: list[str]) -> dict[str, Any]:
    history = [f"{FIRST} confirmed", f"{GOOD} confirmed", *tried, f"{CURE} confirmed"]
    return {
        "id": name,
        "version": CURE,
        "slot": "b",
        "state": "idle",
        "outcome": "confirmed",
        "history": history,
        "canary_of": canary_of,
    }


def test_nothing_differs_when_all_came_true() -> None:
    assert differences(as_promised(), DEVICES) == []


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("releases", 2, "status"), "active", "the releases are"),
        (("releases", 2, "halted_by"), ["0x" + 20 * "11"], "not by the ledger"),
        (("releases", 2, "confirmed"), 1, f"installs of {BAD}"),
        (("releases", 2, "failed"), 0, f"installs of {BAD}"),
        (("releases", 1, "confirmed"), 2, f"installs of {GOOD}"),
        (("releases", 3, "failed"), 1, f"installs of {CURE}"),
        (("devices", 1, "version"), GOOD, "device bbbbbbbb is idle at 1.1.0"),
        (("devices", 0, "state"), "trial", "device aaaaaaaa is trial"),
        (("devices", 2, "outcome"), "rolled-back", "device cccccccc is idle"),
        (("devices", 1, "history"), [f"{BAD} confirmed"], "device bbbbbbbb lived through"),
        (("devices", 0, "canary_of"), [], "device aaaaaaaa lived through"),
        (("refusals", 0, "reason"), "not-newer", "aaaaaaaa was not told"),
        (("refusals", 3, "reason"), "image-digest", "a forged image was refused for"),
        (("refusals", 4, "what"), "something else", "nobody refused an altered manifest"),
        (("refusals", 9, "device"), "b" * 64, "was not refused by the ledger"),
        (("proof", "bytes"), 5000, "a proof has 5000 bytes"),
        (("proof", "seals"), 2, "a proof has 2 seals"),
        (("receipts", "batches"), 0, "no receipts"),
        (("audit", "ok"), False, "the audit found problems"),
        (("audit", "problems"), ["something"], "something"),
        (("audit", "receipts"), 12, "12 receipts"),
    ],
)
def test_what_did_not_come_true_is_named(
    path: tuple[str | int, ...], value: object, named: str
) -> None:
    told: Any = copy.deepcopy(as_promised())
    *way, last = path
    place = told
    for step in way:
        place = place[step]
    assert place[last] != value
    place[last] = value
    assert any(named in difference for difference in differences(told, DEVICES))


def test_a_missing_device_is_named() -> None:
    told = as_promised()
    del told["devices"][2]
    assert any("2 devices, not 3" in difference for difference in differences(told, DEVICES))
