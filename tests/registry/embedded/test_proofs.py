"""`eth_getProof`: presence, absence, old blocks; checked with `trie` and with the devices' code."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import rlp
from eth_utils import keccak
from trie import HexaryTrie
from trie.exceptions import BadTrieProof

from protocol.errors import FirmledgerError
from protocol.header import encode_header
from protocol.ids import Address, Hash
from protocol.proof import assemble, verify_state
from registry.embedded import EmbeddedLedger, proofs
from registry.embedded.execution import Nodes
from tests.registry.embedded.reader import check_account_proof, unhex
from tests.registry.embedded.scene import Sender, SimClock, ask, entry, hexed, refusal


def test_presence_and_absence(ledger: EmbeddedLedger, fee: Sender, notebook: bytes) -> None:
    for key in range(1, 40):
        ledger.submit(fee.sign(notebook, entry(key, key * 1000)))
    ledger.seal_now()
    slots = [hex(slot) for slot in (1, 7, 39, 40, 2**255)]
    proof = ask(ledger, "eth_getProof", hexed(notebook), slots, "latest")
    check_account_proof(proof, ledger.head.header.state_root)
    values = [int(item["value"], 16) for item in proof["storageProof"]]
    assert values == [1000, 7000, 39000, 0, 0]
    assert unhex(proof["codeHash"]) != unhex(
        ask(ledger, "eth_getProof", fee.address, [], "latest")["codeHash"]
    )


def test_an_absent_account_is_proved_absent(ledger: EmbeddedLedger, notebook: bytes) -> None:
    proof = ask(ledger, "eth_getProof", "0x" + "77" * 20, ["0x1"], "latest")
    check_account_proof(proof, ledger.head.header.state_root)
    assert proof["balance"] == "0x0"


def test_every_height_stays_provable(ledger: EmbeddedLedger, fee: Sender, notebook: bytes) -> None:
    heights = {}
    for value in range(1, 30):
        ledger.submit(fee.sign(notebook, entry(5, value)))
        heights[ledger.seal_now().number] = value
    for height, value in heights.items():
        block = ask(ledger, "eth_getBlockByNumber", hex(height), False)
        by_hash = {"blockHash": block["hash"]}
        for named in (hex(height), by_hash):
            proof = ask(ledger, "eth_getProof", hexed(notebook), ["0x5"], named)
            check_account_proof(proof, unhex(block["stateRoot"]))
            assert int(proof["storageProof"][0]["value"], 16) == value


def test_a_tampered_proof_fails_its_check(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    ledger.submit(fee.sign(notebook, entry(5, 6)))
    ledger.seal_now()
    root = ledger.head.header.state_root
    whole = ask(ledger, "eth_getProof", hexed(notebook), ["0x5", "0x6"], "latest")
    check_account_proof(whole, root)
    lies = {"nonce": "0x9", "balance": "0x1", "codeHash": "0x" + "1" * 64}
    for name, lie in lies.items():
        with pytest.raises(AssertionError):
            check_account_proof(whole | {name: lie}, root)
    for place in (0, 1):
        for name, lie in (("value", "0x7"), ("key", "0x4")):
            bent = copy.deepcopy(whole)
            bent["storageProof"][place][name] = lie
            if (place, name) == (1, "key"):
                check_account_proof(bent, root)  # slot 4 is as empty as slot 6, by the same nodes
                continue
            with pytest.raises((AssertionError, BadTrieProof)):
                check_account_proof(bent, root)
    with pytest.raises((AssertionError, BadTrieProof)):
        check_account_proof(whole, ledger.store.header(1).state_root)  # type: ignore[union-attr]


def test_devices_verify_it_from_seals_to_slot(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> None:
    ledger.submit(fee.sign(notebook, entry(5, 6)))
    clock.advance(10)
    head = ledger.tick()
    assert head is not None
    answer = ask(ledger, "eth_getProof", hexed(notebook), ["0x5", "0x6"], hex(head.number))
    proof = assemble(encode_header(head.header), answer)
    slots = [Hash(slot.to_bytes(32, "big")) for slot in (5, 6)]
    pins: dict[str, Any] = {
        "validators": ledger.validators,
        "contract": Address(notebook),
        "code_hash": Hash.parse(answer["codeHash"]),
        "slots": slots,
    }
    state = verify_state(proof, **pins)
    assert (state.number, state.timestamp) == (head.number, clock.now())
    assert state.block_hash == head.hash
    assert [int.from_bytes(state.values[slot], "big") for slot in slots] == [6, 0]
    strangers = [Address(bytes([n]) * 20) for n in range(4)]
    for wrong in ({"validators": strangers}, {"code_hash": Hash(bytes(32))}):
        with pytest.raises(FirmledgerError):
            verify_state(proof, **(pins | wrong))


def test_too_much_is_refused(ledger: EmbeddedLedger, notebook: bytes) -> None:
    many = ["0x1"] * 1025
    assert refusal(ledger, "eth_getProof", hexed(notebook), many, "latest")["code"] == -32602
    assert refusal(ledger, "eth_getProof", hexed(notebook), [], "0xffff")["message"].startswith(
        "header not found"
    )


def test_a_node_that_lives_inside_its_parent_is_not_listed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Hashed keys never lie so close together that this happens; unhashed ones do.
    monkeypatch.setattr(proofs, "keccak256", lambda key: key)
    nodes = Nodes(lambda _key: None)
    tree = HexaryTrie(nodes)
    for slot in (0x10, 0x11, 0x20):
        tree[slot.to_bytes(32, "big")] = rlp.encode(slot)
    proof = proofs._storage(nodes, tree.root_hash, 0x11)
    listed = [unhex(node) for node in proof["proof"]]
    assert proof["value"] == "0x11"
    assert len(listed) < len(tree.get_proof((0x11).to_bytes(32, "big")))
    assert all(keccak(node) in nodes.written for node in listed)
    shown = HexaryTrie({keccak(node): node for node in listed}, tree.root_hash)
    assert shown[(0x11).to_bytes(32, "big")] == b"\x11"
