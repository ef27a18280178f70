"""The golden vectors are what the generator makes, and say what the verifier says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.errors import Malformed, Untrusted
from protocol.header import block_hash, check_seals, parse_header, quorum, seal_digest
from protocol.ids import Address, Hash
from protocol.proof import Proof, verify_link, verify_state
from tests.protocol.proof_vectors import HOME, files, written


def rows(file_name: str, part: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((HOME / file_name).read_text())[part]
    return found


def raw(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def named(values: list[str]) -> list[Address]:
    return [Address.parse(value) for value in values]


def test_the_committed_files_are_what_is_made() -> None:
    for file_name, content in files().items():
        assert (HOME / file_name).read_text() == written(content), file_name


@pytest.mark.parametrize("row", rows("proof-headers.json", "headers"), ids=lambda row: row["name"])
def test_golden_headers(row: dict[str, Any]) -> None:
    header = parse_header(raw(row["header"]))
    assert check_seals(header, named(row["trusted"])) == tuple(named(row["sealers"]))
    assert (header.number, header.timestamp) == (row["number"], row["timestamp"])
    assert header.extra.round == row["round"]
    assert str(header.state_root) == row["state_root"]
    assert str(seal_digest(header)) == row["seal_digest"]
    assert str(block_hash(header)) == row["block_hash"]
    assert quorum(len(row["trusted"])) == row["quorum"]


@pytest.mark.parametrize(
    "row", rows("proof-headers.json", "refused"), ids=lambda row: row["reason"]
)
def test_golden_headers_that_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(Untrusted) as caught:
        check_seals(parse_header(raw(row["header"])), named(row["trusted"]))
    assert caught.value.reason == row["reason"]


@pytest.mark.parametrize("row", rows("proof-headers.json", "links"), ids=lambda row: row["name"])
def test_golden_links(row: dict[str, Any]) -> None:
    if row["reason"] is None:
        link = verify_link(raw(row["header"]), named(row["trusted"]))
        assert link.validators == tuple(named(row["validators"]))
    else:
        with pytest.raises(Untrusted) as caught:
            verify_link(raw(row["header"]), named(row["trusted"]))
        assert caught.value.reason == row["reason"]


def verify(row: dict[str, Any]) -> dict[Hash, bytes]:
    state = verify_state(
        Proof(raw(row["header"]), tuple(map(raw, row["nodes"]))),
        validators=named(row["validators"]),
        contract=Address.parse(row["contract"]),
        code_hash=Hash.parse(row["code_hash"]),
        slots=[Hash.parse(slot) for slot in row["slots"]],
    )
    return dict(state.values)


@pytest.mark.parametrize("row", rows("proof-states.json", "proofs"), ids=lambda row: row["name"])
def test_golden_proofs(row: dict[str, Any]) -> None:
    expected = zip(row["slots"], row["values"], strict=True)
    assert verify(row) == {Hash.parse(slot): raw(value) for slot, value in expected}


@pytest.mark.parametrize("row", rows("proof-states.json", "refused"), ids=lambda row: row["name"])
def test_golden_proofs_that_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises((Malformed, Untrusted)) as caught:
        verify(row)
    assert (caught.value.reason, caught.value.data["step"]) == (row["reason"], row["step"])
