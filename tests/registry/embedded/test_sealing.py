"""Headers as QBFT seals them: layout, hashes, seals; and what a flipped bit does to them."""

from __future__ import annotations

import random

import pytest
import rlp
from eth_utils import keccak

from protocol.errors import Malformed, Untrusted
from protocol.header import check_seals, encode_header, parse_header
from registry.embedded import EmbeddedLedger
from tests.registry.embedded.reader import header_fields, sealers_of, unhex
from tests.registry.embedded.scene import Sender, SimClock, ask, entry

# Besu's BftHelpers.EXPECTED_MIX_HASH: what a QBFT header carries in mixHash.
QBFT_MIX_HASH = "0x63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365"


@pytest.fixture
def busy(ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes) -> EmbeddedLedger:
    for number in range(1, 4):
        ledger.submit(fee.sign(notebook, entry(number, number)))
        clock.advance(2)
        ledger.tick()
    return ledger


def test_blocks_over_json_rpc_are_what_was_hashed_and_sealed(busy: EmbeddedLedger) -> None:
    parent = ask(busy, "eth_getBlockByNumber", "0x0", False)
    for number in range(1, busy.head.number + 1):
        block = ask(busy, "eth_getBlockByNumber", hex(number), False)
        fields = header_fields(block)
        vanity, validators, vote, round_number, seals = rlp.decode(fields[12])
        assert (len(vanity), vote, round_number, len(seals)) == (32, [], b"", 4)
        assert validators == sorted(validators) == list(busy.validators)
        assert sealers_of(fields) == validators
        # Round 0: the digest that was sealed is the block's hash.
        fields[12] = rlp.encode([vanity, validators, [], b"", []])
        assert "0x" + keccak(rlp.encode(fields)).hex() == block["hash"]
        assert block["parentHash"] == parent["hash"]
        assert ask(busy, "eth_getBlockByHash", block["hash"], False) == block
        parent = block


def test_the_fixed_fields_are_besus(busy: EmbeddedLedger) -> None:
    block = ask(busy, "eth_getBlockByNumber", "latest", False)
    assert block["mixHash"] == QBFT_MIX_HASH
    assert block["difficulty"] == "0x1"
    assert block["nonce"] == "0x" + "00" * 8
    assert block["baseFeePerGas"] == "0x0"
    assert block["gasLimit"] == hex(30_000_000)
    assert unhex(block["sha3Uncles"]) == keccak(rlp.encode([]))
    assert unhex(block["miner"]) in busy.validators
    assert int(block["size"], 16) > len(encode_header(busy.head.header))


def test_the_roots_are_those_of_the_body(busy: EmbeddedLedger) -> None:
    """Transactions root rebuilt with `trie` from the raw transactions; the bloom from the logs."""
    from trie import HexaryTrie

    number = busy.head.number
    tree = HexaryTrie({})
    for mined in busy.store.mined_in(number):
        tree[rlp.encode(mined.position)] = mined.raw
    block = ask(busy, "eth_getBlockByNumber", hex(number), False)
    assert unhex(block["transactionsRoot"]) == tree.root_hash
    receipts = HexaryTrie({})
    for position, receipt in enumerate(ask(busy, "eth_getBlockReceipts", hex(number))):
        logs = [
            [unhex(log["address"]), [unhex(topic) for topic in log["topics"]], unhex(log["data"])]
            for log in receipt["logs"]
        ]
        body = [b"\x01", int(receipt["cumulativeGasUsed"], 16), unhex(receipt["logsBloom"]), logs]
        receipts[rlp.encode(position)] = rlp.encode(body)
        assert receipt["logsBloom"] == block["logsBloom"]
    assert unhex(block["receiptsRoot"]) == receipts.root_hash
    assert int(block["logsBloom"], 16).bit_count() > 0


def test_devices_accept_the_header_and_no_flipped_bit_of_it(busy: EmbeddedLedger) -> None:
    raw = encode_header(busy.head.header)
    check_seals(parse_header(raw), busy.validators)
    for bit in random.Random(1).sample(range(len(raw) * 8), 1500):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, Untrusted)):
            check_seals(parse_header(bytes(flipped)), busy.validators)


def test_genesis_proves_nothing(ledger: EmbeddedLedger) -> None:
    genesis = ledger.store.header(0)
    assert genesis is not None
    with pytest.raises(Untrusted) as refused:
        check_seals(genesis, ledger.validators)
    assert refused.value.reason == "genesis"
