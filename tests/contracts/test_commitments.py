"""The same bytes on all sides: contract, Python, an EIP-712 library, and the page about it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak

from protocol import _abi, ledger
from protocol.ids import Address, Hash, ProductId
from protocol.records import (
    TAG_PRODUCT,
    TAG_RELEASE,
    Action,
    Amendment,
    Approval,
    Decision,
    Governance,
    Ledger,
    Product,
    Record,
    Release,
    Terms,
    product_id,
)
from tests.contracts import vectors
from tests.contracts.evm import ARTIFACT, mapped

GOLDEN = json.loads(vectors.PATH.read_text())
SPEC = Path(__file__).parents[2] / "docs" / "spec" / "commitments.md"


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


LEDGER = Ledger(int(GOLDEN["chainId"]), Address(_bytes(GOLDEN["contract"])))
PID = ProductId(_bytes(GOLDEN["productId"]))
TERMS = Terms.from_json(GOLDEN["terms"])


def _messages() -> dict[str, Record]:
    given = GOLDEN["digests"]
    approval, amendment, decision = (given[k] for k in ("approval", "amendment", "decision"))
    return {
        "approval": Approval(TERMS, approval["epoch"], int(approval["validUntil"])),
        "amendment": Amendment(
            PID,
            Governance.from_json(GOLDEN["next"]),
            amendment["epoch"],
            int(amendment["validUntil"]),
        ),
        "decision": Decision(
            PID,
            decision["releaseId"],
            Action(decision["action"]),
            decision["nonce"],
            decision["epoch"],
            int(decision["validUntil"]),
        ),
    }


def test_the_contract_still_says_what_the_file_says() -> None:
    assert vectors.document() == GOLDEN


def test_python_names_the_product_and_its_places() -> None:
    assert product_id(Address(_bytes(GOLDEN["creator"])), _bytes(GOLDEN["salt"])) == PID
    product = mapped(PID, _abi.PRODUCTS_SLOT)
    release = mapped((1).to_bytes(32, "big"), mapped(PID, _abi.RELEASES_SLOT))
    assert product.to_bytes(32, "big") == _bytes(GOLDEN["places"]["product"])
    assert release.to_bytes(32, "big") == _bytes(GOLDEN["places"]["release 1"])


def test_python_hashes_terms_as_the_contract_does() -> None:
    assert TERMS.hash_struct() == _bytes(GOLDEN["termsHash"])


@pytest.mark.parametrize("name", ["approval", "amendment", "decision"])
def test_digest_is_that_of_the_contract_and_of_an_independent_library(name: str) -> None:
    message = _messages()[name]
    digest = _bytes(GOLDEN["digests"][name]["digest"])
    assert LEDGER.digest(message) == digest
    signable = encode_typed_data(full_message=_typed_data(message))
    assert keccak(b"\x19" + signable.version + signable.header + signable.body) == digest


@pytest.mark.parametrize("snapshot", GOLDEN["snapshots"], ids=lambda s: s["after"])
def test_python_commits_as_the_contract_stored(snapshot: dict[str, Any]) -> None:
    product, time = Product.from_json(snapshot["product"]), snapshot["time"]
    assert LEDGER.product_slot(PID, product, time) == _bytes(snapshot["productSlot"])
    if "release" in snapshot:
        release = Release.from_json(snapshot["release"])
        terms_hash = Hash(release.terms_hash)
        slot = LEDGER.release_slot(PID, release.release_id, terms_hash, release.state)
        assert slot == _bytes(snapshot["releaseSlot"])


def test_a_pending_governance_takes_over_by_time_alone() -> None:
    """The word in storage stays; from `effectiveAt` on, another record matches it."""
    by_name = {s["after"]: s for s in GOLDEN["snapshots"]}
    proposed = by_name["amendment proposed"]
    before = Product.from_json(proposed["product"])
    after = dataclasses.replace(
        before,
        governance=Governance.from_json(GOLDEN["next"]),
        other=before.governance.hash_struct(),
    )
    stored, due = _bytes(proposed["productSlot"]), before.effective_at
    assert before.other == Governance.from_json(GOLDEN["next"]).hash_struct()
    assert LEDGER.product_slot(PID, before, due - 1) == stored
    assert LEDGER.product_slot(PID, after, due - 1) != stored
    assert LEDGER.product_slot(PID, before, due) != stored
    assert LEDGER.product_slot(PID, after, due) == stored


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Terms)])
def test_every_member_of_the_terms_moves_the_hash(field: str) -> None:
    value = getattr(TERMS, field)
    if isinstance(value, bool):
        other: Any = not value
    elif isinstance(value, int):
        other = value ^ 1
    elif isinstance(value, bytes):
        other = bytes([value[0] ^ 1]) + value[1:]
    else:
        other = value[:-1]
    changed = dataclasses.replace(TERMS, **{field: other})
    assert changed.hash_struct() != _bytes(GOLDEN["termsHash"])


def test_cohort() -> None:
    given = GOLDEN["cohort"]
    device = _bytes(given["deviceId"])
    assert ledger.cohort(PID, given["releaseId"], device) == given["cohort"]  # type: ignore[arg-type]


def test_the_page_shows_the_golden_values_and_types() -> None:
    text = SPEC.read_text()
    known = json.dumps(GOLDEN) + TAG_PRODUCT.hex() + TAG_RELEASE.hex() + ARTIFACT["codeHash"]
    shown = re.findall(r"\b(?:0x)?([0-9a-f]{64}|[0-9a-f]{40})\b", text)
    assert len(shown) >= 8
    assert [h for h in shown if h not in known] == []
    flat = re.sub(r"\s+", "", text)
    for record in (Approval, Amendment, Decision):
        for part in re.findall(r"\w+\([^)]*\)", record.encode_type()):
            assert part.replace(" ", "") in flat, part


def _typed_data(message: Record) -> dict[str, Any]:
    """The message as a wallet is given it: eth-account hashes it by its own code."""
    parts = re.findall(r"(\w+)\(([^)]*)\)", message.encode_type())
    types = {
        name: [dict(zip(("type", "name"), m.split(" "), strict=True)) for m in members.split(",")]
        for name, members in parts
    }
    domain = {
        "name": "Firmledger",
        "version": "1",
        "chainId": LEDGER.chain_id,
        "verifyingContract": "0x" + LEDGER.contract.hex(),
    }
    types["EIP712Domain"] = [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ]
    return {
        "types": types,
        "primaryType": type(message).__name__,
        "domain": domain,
        "message": _message(message),
    }


def _message(value: Any) -> Any:
    if isinstance(value, Record):
        named = {}
        for field in dataclasses.fields(value):
            head, *tail = field.name.split("_")
            name = head + "".join(part.title() for part in tail)
            named[name] = _message(getattr(value, field.name))
        return named
    if isinstance(value, tuple):
        return [_message(v) for v in value]
    return "0x" + value.hex() if isinstance(value, bytes) and len(value) == 20 else value
