"""The golden vectors of re-anchoring; ``python -m tests.protocol.golden_reanchor`` writes them.

A change of a vector is a change of the format: devices in the field hold to the old one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol.errors import FirmledgerError
from protocol.ids import ProductId
from protocol.reanchor import Reanchor, Statement, sign, verify
from tests.protocol.published import flipped
from tests.protocol.recovering import KEYS, STATEMENT, STRANGER, signed, trust_file

PATH = Path(__file__).resolve().parents[2] / "protocol" / "vectors" / "reanchor.json"
TRUST = trust_file()


def told(statement: Statement) -> dict[str, Any]:
    """A statement as JSON."""
    return {
        "product": statement.product_id.hex(),
        "sequence": str(statement.sequence),
        "chain_id": statement.ledger.chain_id,
        "contract": statement.ledger.contract.hex(),
        "code_hash": statement.code_hash.hex(),
        "validators": [one.hex() for one in statement.validators],
        "height": str(statement.height),
        "time": statement.time,
    }


def refused() -> dict[str, bytes]:
    """Files that must be refused, by what is wrong with them."""
    good = signed()
    one, two = Reanchor.decode(good).signatures
    other = replace(STATEMENT, height=0)
    return {
        "one bit of the statement changed": flipped(good, 8 * 40),
        "one bit of the last signature changed": flipped(good, 8 * len(good) - 1),
        "a byte follows": good + b"\0",
        "one signature of two": signed(keys=KEYS[:1]),
        "the same signature twice": Reanchor(STATEMENT, (one, one)).encode(),
        "signatures out of order": Reanchor(STATEMENT, (two, one)).encode(),
        "signed by a stranger": signed(keys=[KEYS[0], STRANGER]),
        "signatures of another statement": Reanchor(other, (one, two)).encode(),
        "another product": signed(replace(STATEMENT, product_id=ProductId(bytes(32)))),
        "a signature over another statement among good ones": Reanchor(STATEMENT)
        .signed(KEYS[0])
        .signed(replace(KEYS[1], sign=lambda _: sign(other, KEYS[1])[-64:]))
        .encode(),
    }


def check(data: bytes) -> Statement:
    """As a device with `TRUST` does."""
    return verify(
        data,
        product_id=TRUST.product_id,
        keys=TRUST.recovery_public_keys,
        threshold=TRUST.recovery_threshold,
    )


def document() -> dict[str, Any]:
    """The whole file."""
    accepted = {
        "two of three keys": signed(),
        "all three": signed(keys=KEYS),
        "a later one": signed(replace(STATEMENT, sequence=2, height=60), KEYS[1:]),
    }
    return {
        "note": "Test vector of Firmledger. The keys are hashes of texts; use them for nothing.",
        "product": TRUST.product_id.hex(),
        "threshold": TRUST.recovery_threshold,
        "keys": list(TRUST.recovery_keys),
        "accepted": [
            {"name": name, "file": data.hex(), "statement": told(check(data))}
            for name, data in accepted.items()
        ],
        "refused": [
            {"name": name, "file": data.hex(), **_refusal(data)} for name, data in refused().items()
        ],
    }


def _refusal(data: bytes) -> dict[str, str]:
    try:
        check(data)
    except FirmledgerError as error:
        return {"reason": error.reason, "step": error.data["step"]}
    raise AssertionError("accepted, and must be refused")


if __name__ == "__main__":
    PATH.write_text(json.dumps(document(), indent=1) + "\n")
