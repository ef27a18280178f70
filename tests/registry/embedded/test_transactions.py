"""What is taken into a block, in what order, and how refusals read."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import FirmledgerError, Malformed, Refused
from registry.embedded import EmbeddedLedger, execution
from registry.embedded.admission import MAX_RAW, admit
from registry.embedded.sealing import STRANGERS_BLOCK_GAS, STRANGERS_GAS
from tests.registry.embedded.scene import (
    PIGEONHOLE,
    STRANGER,
    Sender,
    SimClock,
    ask,
    deploy,
    entry,
    hexed,
    refusal,
)

SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def send(ledger: EmbeddedLedger, raw: bytes) -> dict[str, Any]:
    """The refusal of a raw transaction."""
    return refusal(ledger, "eth_sendRawTransaction", hexed(raw))


def test_two_hundred_in_a_burst_from_one_sender(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> None:
    raws = [fee.sign(notebook, entry(n, n), gas=100_000) for n in range(1, 201)]
    sent = [ask(ledger, "eth_sendRawTransaction", hexed(raw)) for raw in raws]
    assert ask(ledger, "eth_getTransactionCount", fee.address, "latest") == "0x1"
    assert int(ask(ledger, "eth_getTransactionCount", fee.address, "pending"), 16) == 201
    clock.advance(10)
    head = ledger.tick()
    assert head is not None
    block = ask(ledger, "eth_getBlockByNumber", "latest", False)
    assert block["transactions"] == sent
    receipts = ask(ledger, "eth_getBlockReceipts", "latest")
    assert {receipt["status"] for receipt in receipts} == {"0x1"}
    assert int(block["gasUsed"], 16) == sum(int(receipt["gasUsed"], 16) for receipt in receipts)
    assert int(receipts[-1]["cumulativeGasUsed"], 16) == int(block["gasUsed"], 16)
    assert int(ask(ledger, "eth_getTransactionCount", fee.address, "latest"), 16) == 201
    assert len(ledger.pool) == 0


def test_what_does_not_fit_waits_for_the_next_block(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    burner = bytes.fromhex("fe")  # INVALID takes all the gas it was given
    raws = [fee.sign(None, burner, gas=14_000_000) for _ in range(3)]
    raws.append(fee.sign(notebook, entry(2, 2)))
    for raw in raws:
        ledger.submit(raw)
    stranger = Sender(ledger, STRANGER)
    small = stranger.sign(notebook, entry(1, 1))
    ledger.submit(small)
    made = [ledger.store.mined_in(ledger.seal_now().number) for _ in range(3)]
    # The third held its own sender back, and nobody else.
    assert [[mined.raw for mined in block] for block in made] == [[*raws[:2], small], raws[2:], []]
    assert [mined.succeeded for mined in made[1]] == [False, True]


def test_strangers_together_get_a_small_part_of_a_block(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    """Endless loops at no price: the account with funds comes last, and is in the next block."""
    loop = bytes.fromhex("5b600056")
    strangers = [Sender(ledger, "0x" + f"{n:064x}") for n in range(1, 7)]
    for stranger in strangers:
        ledger.submit(stranger.sign(None, loop, gas=STRANGERS_GAS))
    ours = fee.sign(notebook, entry(1, 1))
    ledger.submit(ours)
    mined = ledger.store.mined_in(ledger.seal_now().number)
    assert ours in [transaction.raw for transaction in mined]
    assert len(mined) == 1 + STRANGERS_BLOCK_GAS // STRANGERS_GAS
    greedy = strangers[0].sign(None, loop, gas=STRANGERS_GAS + 1)
    assert "an account without funds" in send(ledger, greedy)["message"]
    ledger.submit(fee.sign(None, loop, gas=STRANGERS_GAS + 1))


def test_strangers_cannot_fill_the_pool(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.embedded.pool.MAX_STRANGERS", 2)
    stranger = Sender(ledger, STRANGER)
    for key in (1, 2):
        ledger.submit(stranger.sign(notebook, entry(key, key)))
    assert "txpool is full" in send(ledger, stranger.sign(notebook, entry(3, 3)))["message"]
    ledger.submit(fee.sign(notebook, entry(4, 4)))


def test_lists_in_lists_without_end_are_no_transaction(ledger: EmbeddedLedger) -> None:
    raw = b""
    for _ in range(30_000):
        size = len(raw)
        if size < 56:
            raw = bytes([0xC0 + size]) + raw
        else:
            length = size.to_bytes((size.bit_length() + 7) // 8, "big")
            raw = bytes([0xF7 + len(length)]) + length + raw
    assert send(ledger, raw)["code"] == -32602


def test_transactions_of_one_block_cost_what_they_cost_apart(
    ledger: EmbeddedLedger, fee: Sender
) -> None:
    """What one has written or warmed is not the next one's beginning (EIP-2200, EIP-2929)."""
    pigeonhole = deploy(ledger, fee, PIGEONHOLE)

    def costs(key: int, *, together: bool) -> list[int]:
        sent = []
        for value in (1, 2, 0):
            sent.append(ledger.submit(fee.sign(pigeonhole, entry(key, value))))
            if not together:
                ledger.seal_now()
        ledger.seal_now()
        mined = [found for name in sent if (found := ledger.store.mined(name)) is not None]
        assert len({found.block for found in mined}) == (1 if together else 3)
        return [found.gas_used for found in mined]

    assert costs(5, together=True) == costs(6, together=False)


def test_the_other_form_of_a_signature_is_refused(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    """EIP-2: of the two s that verify only the lower one, or a transaction had two hashes."""
    for prices in ({"gasPrice": 0}, {"maxFeePerGas": 0, "maxPriorityFeePerGas": 0}):
        raw = fee.sign(notebook, entry(1, 1), nonce=1, **prices)
        assert admit(raw, ledger.chain_id).nonce == 1
        kind = b"" if "gasPrice" in prices else raw[:1]
        fields = rlp.decode(raw[len(kind) :])
        parity = int.from_bytes(fields[-3], "big")
        other = parity ^ 1 if kind else (ledger.chain_id * 2 + 35) * 2 + 1 - parity
        high = SECP256K1_ORDER - int.from_bytes(fields[-1], "big")
        bent = kind + rlp.encode([*fields[:-3], other, fields[-2], high])
        with pytest.raises(Malformed):
            admit(bent, ledger.chain_id)


def test_an_account_without_funds_sends_for_nothing(
    ledger: EmbeddedLedger, notebook: bytes
) -> None:
    stranger = Sender(ledger, STRANGER)
    legacy = ledger.submit(stranger.sign(notebook, entry(1, 1)))
    dynamic = ledger.submit(
        stranger.sign(notebook, entry(2, 2), maxFeePerGas=0, maxPriorityFeePerGas=0)
    )
    ledger.seal_now()
    for sent, kind in ((legacy, "0x0"), (dynamic, "0x2")):
        receipt = ask(ledger, "eth_getTransactionReceipt", hexed(sent))
        assert (receipt["status"], receipt["type"]) == ("0x1", kind)
        assert receipt["from"] == stranger.address.lower()
        assert receipt["effectiveGasPrice"] == "0x0"


def test_a_reverting_transaction_is_mined_with_status_0(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    sent = ledger.submit(fee.sign(notebook, entry(0, 1)))
    ledger.seal_now()
    receipt = ask(ledger, "eth_getTransactionReceipt", hexed(sent))
    assert receipt["status"] == "0x0"
    assert receipt["logs"] == []
    assert int(ask(ledger, "eth_getTransactionCount", fee.address, "latest"), 16) == 2


def test_a_gap_waits_and_is_filled(ledger: EmbeddedLedger, fee: Sender, notebook: bytes) -> None:
    raws = [fee.sign(notebook, entry(n, n)) for n in range(1, 4)]
    ledger.submit(raws[2])
    ledger.submit(raws[1])
    ledger.seal_now()
    assert ledger.store.mined_in(ledger.head.number) == []
    ledger.submit(raws[0])
    ledger.seal_now()
    assert [mined.raw for mined in ledger.store.mined_in(ledger.head.number)] == raws


def test_known_transactions_answer_already_known(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    raw = fee.sign(notebook, entry(1, 1))
    ledger.submit(raw)
    expected = {"code": -32000, "message": "already known"}
    assert send(ledger, raw) == expected
    ledger.seal_now()
    assert send(ledger, raw) == expected


def test_refusals_read_as_clients_expect(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    stranger = Sender(ledger, STRANGER)
    first = fee.nonce
    ledger.submit(fee.sign(notebook, entry(1, 1)))
    cases = {
        "nonce too low: next nonce 1, tx nonce 0": fee.sign(notebook, entry(2, 2), nonce=0),
        "nonce too high: next nonce 2, tx nonce 300": fee.sign(notebook, b"", nonce=300),
        "replacement transaction underpriced: ": fee.sign(notebook, entry(3, 3), nonce=first),
        "insufficient funds for gas * price + value: address ": stranger.sign(
            notebook, entry(4, 4), nonce=0, gasPrice=1
        ),
        "intrinsic gas too low: ": fee.sign(notebook, entry(5, 5), nonce=2, gas=21_000),
        "exceeds block gas limit: ": fee.sign(notebook, b"", nonce=2, gas=30_000_001),
        "invalid sender: invalid chain id: have 1, ": fee.sign(notebook, b"", nonce=2, chainId=1),
        "max priority fee per gas higher than max fee per gas: ": fee.sign(
            notebook, b"", nonce=2, maxFeePerGas=1, maxPriorityFeePerGas=2
        ),
    }
    for message, raw in cases.items():
        error = send(ledger, raw)
        assert error["message"].startswith(message), error
        assert error["code"] == -32000
    assert len(ledger.pool) == 1


def test_an_unprotected_transaction_is_refused(ledger: EmbeddedLedger, fee: Sender) -> None:
    raw = fee.account.sign_transaction(
        {"to": fee.address, "value": 0, "gas": 21_000, "gasPrice": 0, "nonce": 0}
    ).raw_transaction
    assert "replay-protected" in send(ledger, bytes(raw))["message"]


def test_a_higher_fee_replaces_and_goes_first(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    stranger = Sender(ledger, STRANGER)
    ledger.submit(stranger.sign(notebook, entry(9, 9)))
    cheap = ledger.submit(fee.sign(notebook, entry(1, 1), nonce=1))
    bumped = ledger.submit(fee.sign(notebook, entry(1, 2), nonce=1, gasPrice=5))
    assert send(ledger, fee.sign(notebook, entry(1, 3), nonce=1, gasPrice=5))["message"]
    ledger.seal_now()
    first, second = ledger.store.mined_in(ledger.head.number)
    assert first.hash == bumped
    assert hexed(second.sender) == stranger.address.lower()
    assert ask(ledger, "eth_getTransactionReceipt", hexed(cheap)) is None
    paid = ask(ledger, "eth_getTransactionReceipt", hexed(bumped))
    assert paid["effectiveGasPrice"] == "0x5"


def test_a_full_pool_makes_room_for_a_higher_fee_only(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.embedded.pool.MAX_POOL", 3)
    strangers = [Sender(ledger, "0x" + f"{n:02x}" * 32) for n in range(0x31, 0x35)]
    for stranger in strangers[:3]:
        ledger.submit(stranger.sign(notebook, entry(1, 1)))
    assert send(ledger, strangers[3].sign(notebook, entry(1, 1)))["message"].startswith(
        "txpool is full"
    )
    ledger.submit(fee.sign(notebook, entry(2, 2), gasPrice=1))
    ledger.seal_now()
    senders = [hexed(mined.sender) for mined in ledger.store.mined_in(ledger.head.number)]
    assert senders == [s.address.lower() for s in (fee, *strangers[:2])]


def test_many_threads_send_and_ask_and_nothing_is_lost(
    ledger: EmbeddedLedger, clock: SimClock, notebook: bytes
) -> None:
    senders = [Sender(ledger, "0x" + f"{n:02x}" * 32) for n in range(0x41, 0x45)]
    signed = {s.address: [s.sign(notebook, entry(n, n)) for n in range(1, 16)] for s in senders}
    problems: list[BaseException] = []

    def work(raws: list[bytes]) -> None:
        try:
            for raw in reversed(raws):
                ledger.submit(raw)
        except BaseException as problem:  # shown by the assertion below
            problems.append(problem)

    def question() -> None:
        try:
            for _ in range(25):
                block = ask(ledger, "eth_getBlockByNumber", "latest", True)
                logs = ask(ledger, "eth_getLogs", {"blockHash": block["hash"]})
                assert len(logs) == len(block["transactions"])
                message = {"to": hexed(notebook), "data": hexed(entry(1, 1))}
                assert int(ask(ledger, "eth_call", message, "latest"), 16) > 0
        except BaseException as problem:  # shown by the assertion below
            problems.append(problem)

    ledger.seal_now()  # so that no block with the notebook's creation is among those asked for
    threads = [threading.Thread(target=work, args=(raws,)) for raws in signed.values()]
    threads += [threading.Thread(target=question) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        clock.advance(1)
        ledger.tick()
    ledger.seal_now()
    assert problems == []
    assert len(ledger.pool) == 0
    for address in signed:
        assert int(ask(ledger, "eth_getTransactionCount", address, "latest"), 16) == 15


def test_a_transaction_the_machine_chokes_on_does_not_stop_the_chain(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = execution.ParisState.apply_transaction
    stranger = Sender(ledger, STRANGER)
    poison = ledger.submit(stranger.sign(notebook, entry(1, 1)))

    def choke(state: Any, transaction: Any) -> Any:
        computation = original(state, transaction)
        if transaction.hash == poison:
            raise AssertionError("planted: a fault in the middle of a transaction")
        return computation

    monkeypatch.setattr(execution.ParisState, "apply_transaction", choke)
    good = ledger.submit(fee.sign(notebook, entry(2, 2)))
    ledger.seal_now()
    assert [mined.hash for mined in ledger.store.mined_in(ledger.head.number)] == [good]
    assert len(ledger.pool) == 0
    # What the failed one had written is gone with it.
    assert int(ask(ledger, "eth_getStorageAt", hexed(notebook), "0x1", "latest"), 16) == 0
    assert int(ask(ledger, "eth_getTransactionCount", stranger.address, "latest"), 16) == 0


def test_every_flipped_bit_of_a_transaction_is_another_sender_or_a_refusal(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    raw = fee.sign(notebook, entry(1, 1), maxFeePerGas=0, maxPriorityFeePerGas=0)
    whole = admit(raw, ledger.chain_id)
    assert hexed(whole.sender) == fee.address.lower()
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            other = admit(bytes(flipped), ledger.chain_id)
        except (Malformed, Refused):
            continue
        assert other.sender != whole.sender
        assert other.hash != whole.hash


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda b: b"\x02" + b)))
def test_garbage_gets_our_own_errors_only(raw: bytes) -> None:
    with pytest.raises(FirmledgerError):
        admit(raw, 1)


def test_an_oversized_transaction_is_refused_unread(ledger: EmbeddedLedger) -> None:
    with pytest.raises(Malformed, match="at most"):
        admit(bytes(MAX_RAW + 1), ledger.chain_id)
