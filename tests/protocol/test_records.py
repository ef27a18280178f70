"""Records in their outer forms, and their EIP-712 hashes against eth-account's."""

import json
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.digests import keccak256
from protocol.errors import Malformed
from protocol.ids import Address, ProductId, Version
from protocol.records import (
    Amendment,
    Approval,
    Decision,
    Device,
    Governance,
    HaltRule,
    Head,
    Ledger,
    Phase,
    Product,
    Record,
    Release,
    SigningKey,
    State,
    Terms,
)

b32 = st.binary(min_size=32, max_size=32)
account = st.binary(min_size=20, max_size=20)


def uint(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


def several(items: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=most).map(tuple)


phases = st.builds(Phase, uint(16), uint(32), uint(32), uint(16), uint(32))
terms = st.builds(
    Terms, b32, uint(64), uint(32), b32, b32, uint(64), uint(32), uint(32), uint(64), uint(64),
    uint(64), uint(8), st.booleans(), uint(32), several(phases, 4),
)  # fmt: skip
keys = st.builds(SigningKey, b32, uint(32))
governances = st.builds(
    Governance, several(account), uint(8), uint(32), several(account), several(account),
    several(account), account, several(keys), st.builds(HaltRule, uint(32), uint(16)), uint(32),
    uint(32),
)  # fmt: skip
heads = st.builds(Head, uint(32), uint(64), uint(32), uint(64), uint(64), uint(32))
products = st.builds(Product, governances, b32, uint(64), heads)
states = st.builds(State, uint(64), uint(256), b32)
records = st.one_of(
    terms, products, states, st.builds(Release, uint(32), b32, states),
    st.builds(Device, b32, uint(64), uint(32), uint(32)),
)  # fmt: skip
messages = st.one_of(
    st.builds(Approval, terms, uint(32), uint(64)),
    st.builds(Amendment, b32, governances, uint(32), uint(64)),
    st.builds(Decision, b32, uint(32), uint(8), uint(32), uint(32), uint(64)),
)


@given(records)
def test_every_outer_form_leads_back(record: Record) -> None:
    kind = type(record)
    assert kind.from_list(record.to_list()) == record
    assert kind.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert kind.from_abi(record.to_abi()) == record


@given(records, st.data())
def test_a_form_with_a_member_more_or_less_or_out_of_range_is_refused(
    record: Record, data: st.DataObject
) -> None:
    kind, row = type(record), record.to_list()
    at = data.draw(st.integers(0, len(row) - 1))
    for wrong in ([*row, 0], row[:-1], [*row[:at], None, *row[at + 1 :]], None, 7):
        with pytest.raises(Malformed):
            kind.from_list(wrong)
    members = record.to_json()
    name = data.draw(st.sampled_from(sorted(members)))
    for bad in ({**members, "more": 1}, {**members, name: None}, {**members, name: -1}):
        with pytest.raises(Malformed):
            kind.from_json(bad)


def test_members_out_of_range_are_refused() -> None:
    Phase(65535)
    for bad in (65536, -1, True, "1"):
        with pytest.raises(Malformed):
            Phase(bad)  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        State(0, 2**256)
    with pytest.raises(Malformed):
        SigningKey(bytes(31))


def test_a_version_is_written_as_the_number_it_is() -> None:
    head = Head(version=Version.parse("1.2.3"))
    assert head.to_json()["version"] == str(int(Version.parse("1.2.3")))
    assert Head.from_json(head.to_json()) == head


def typed_data(message: Record, ledger: Ledger) -> dict[str, Any]:
    """The message as eth-account takes it, its types read from our own encodeType."""
    types: dict[str, list[dict[str, str]]] = {}
    for part in message.encode_type().split(")")[:-1]:
        name, members = part.split("(")
        types[name] = [
            dict(zip(("type", "name"), member.split(" "), strict=True))
            for member in members.split(",")
        ]

    def value(record: Record) -> dict[str, Any]:
        row = zip(types[type(record).__name__], vars(record).values(), strict=True)
        return {f["name"]: plain(v) for f, v in row}

    def plain(v: Any) -> Any:
        if isinstance(v, Record):
            return value(v)
        if isinstance(v, tuple):
            return [plain(item) for item in v]
        return v

    types["EIP712Domain"] = [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ]
    return {
        "types": types,
        "primaryType": type(message).__name__,
        "domain": {
            "name": "Firmledger",
            "version": "1",
            "chainId": ledger.chain_id,
            "verifyingContract": ledger.contract,
        },
        "message": value(message),
    }


@settings(max_examples=30, deadline=None)
@given(messages, uint(53), account)
def test_digests_are_those_a_wallet_shows(message: Record, chain_id: int, contract: bytes) -> None:
    ledger = Ledger(chain_id, Address(contract))
    signable = encode_typed_data(full_message=typed_data(message, ledger))
    expected = keccak256(b"\x19" + signable.version + signable.header + signable.body)
    assert ledger.digest(message) == expected


@given(products, b32, st.integers(0, 2**64 - 1))
def test_a_commitment_changes_with_everything_it_covers(
    product: Product, name: bytes, now: int
) -> None:
    ledger, product_id = Ledger(1, Address(bytes(20))), ProductId(name)
    slot = ledger.product_slot(product_id, product, now)
    other = Ledger(2, Address(bytes(20))), Ledger(1, Address(b"\1" * 20))
    assert all(where.product_slot(product_id, product, now) != slot for where in other)
    moved = Head(**{**vars(product.head), "version": product.head.version ^ 1})
    assert ledger.product_slot(product_id, Product(**{**vars(product), "head": moved}), now) != slot


@given(governances, governances, st.integers(1, 2**63))
def test_a_pending_change_takes_effect_by_time_alone(
    current: Governance, pending: Governance, at: int
) -> None:
    ledger, product_id = Ledger(1, Address(bytes(20))), ProductId(bytes(32))
    before = Product(current, pending.hash_struct(), at)
    after = Product(pending, current.hash_struct(), at)
    slot = ledger.product_slot(product_id, before, at - 1)
    assert ledger.product_slot(product_id, after, at) == slot
    if current != pending:
        assert ledger.product_slot(product_id, after, at - 1) != slot
        assert ledger.product_slot(product_id, before, at) != slot


GOOD = Terms(
    *(bytes(32), 1, 1, bytes(32), bytes(32), 1, 1, 1, 0, 0, 0, 0, False, 1), (Phase(10_000),)
)


@pytest.mark.parametrize("member", ["version", "manifest_digest", "critical", "rollout"])
def test_json_nested_without_end_is_malformed(member: str) -> None:
    """Neither read nor told: what is nested deeper than a stack is not even shown."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    document = GOOD.to_json()
    assert Terms.from_json(document) == GOOD
    with pytest.raises(Malformed) as caught:
        Terms.from_json(document | {member: deep})
    assert len(str(caught.value)) < 300
