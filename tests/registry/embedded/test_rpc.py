"""The JSON-RPC façade: every method, every refusal, garbage of all kinds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.header import block_hash
from registry.embedded import EmbeddedLedger
from registry.embedded.calls import Meter
from registry.embedded.methods import Methods
from registry.embedded.rows import LogFilter, condition
from tests.registry.embedded.scene import (
    CALLS_ITSELF,
    LOOKS_BACK,
    TOPIC,
    Sender,
    SimClock,
    ask,
    deploy,
    entry,
    hexed,
    open_ledger,
    refusal,
)


def word(value: int) -> str:
    return "0x" + value.to_bytes(32, "big").hex()


@pytest.fixture
def written(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> dict[int, str]:
    """Three blocks with the entries 1 to 3 twice over; block number by key."""
    found = {}
    for key in (1, 2, 3):
        for value in (key, key + 100):
            ledger.submit(fee.sign(notebook, entry(key, value)))
        clock.advance(5)
        found[key] = hex(ledger.seal_now().number)
    return found


def test_who_is_there(ledger: EmbeddedLedger) -> None:
    assert int(ask(ledger, "eth_chainId"), 16) == ledger.chain_id
    assert ask(ledger, "net_version") == str(ledger.chain_id)
    assert ask(ledger, "web3_clientVersion").startswith("firmledger-embedded/")
    assert ask(ledger, "eth_syncing") is False
    assert ask(ledger, "eth_gasPrice") == ask(ledger, "eth_maxPriorityFeePerGas") == "0x0"
    assert ask(ledger, "eth_blockNumber") == "0x0"
    history = ask(ledger, "eth_feeHistory", "0x4", "latest", [10, 90])
    assert history == {
        "oldestBlock": "0x0",
        "baseFeePerGas": ["0x0", "0x0"],
        "gasUsedRatio": [0.0],
        "reward": [["0x0", "0x0"]],
    }


def test_logs_by_range_address_topic_and_block(
    ledger: EmbeddedLedger, notebook: bytes, written: dict[int, str]
) -> None:
    def values(**wanted: Any) -> list[int]:
        return [int(log["data"], 16) for log in ask(ledger, "eth_getLogs", wanted)]

    everything = [1, 101, 2, 102, 3, 103]
    address, topic = hexed(notebook), hexed(TOPIC)
    block = ask(ledger, "eth_getBlockByNumber", written[2], False)
    assert values(fromBlock="0x0") == everything
    assert values(fromBlock="earliest", toBlock="latest", address=address) == everything
    assert values(fromBlock="0x0", address=["0x" + "99" * 20, address]) == everything
    assert values(fromBlock="0x0", address="0x" + "99" * 20) == []
    assert values() == [3, 103]
    assert values(fromBlock=written[2], toBlock=written[2]) == [2, 102]
    assert values(blockHash=block["hash"]) == [2, 102]
    assert values(fromBlock="0x0", topics=[topic]) == everything
    assert values(fromBlock="0x0", topics=[None, word(3)]) == [3, 103]
    assert values(fromBlock="0x0", topics=[topic, [word(1), word(3)]]) == [1, 101, 3, 103]
    assert values(fromBlock="0x0", topics=[word(1)]) == []
    assert values(fromBlock="0x0", topics=[topic, word(1), word(1)]) == []
    assert values(fromBlock="0x0", toBlock="0x0") == []
    assert values(fromBlock="0xffff", toBlock="0xfffff") == []
    assert values(fromBlock=hex(2**70), toBlock=hex(2**71)) == []
    second = ask(ledger, "eth_getLogs", {"blockHash": block["hash"]})[1]
    assert second == {
        "address": address,
        "topics": [topic, word(2)],
        "data": word(102),
        "blockHash": block["hash"],
        "blockNumber": written[2],
        "transactionHash": block["transactions"][1],
        "transactionIndex": "0x1",
        "logIndex": "0x1",
        "removed": False,
    }
    assert ask(ledger, "eth_getTransactionReceipt", block["transactions"][1])["logs"] == [second]


def test_logs_come_from_an_index_and_not_from_a_replay(ledger: EmbeddedLedger) -> None:
    for wanted in (
        LogFilter(0, 10_000, addresses=[b"a" * 20]),
        LogFilter(0, 10_000, topics=[[TOPIC]]),
        LogFilter(9_999, 10_000),
    ):
        where, values = condition(wanted)
        query = f"EXPLAIN QUERY PLAN SELECT * FROM log WHERE {where}"
        steps = ledger.store._writer.execute(query, values).fetchall()
        assert all(step[3].startswith("SEARCH log USING") for step in steps)


def test_too_many_logs_are_refused_whole(
    ledger: EmbeddedLedger, written: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.embedded.store.MAX_LOGS", 5)
    assert refusal(ledger, "eth_getLogs", {"fromBlock": "0x0"})["code"] == -32005
    assert len(ask(ledger, "eth_getLogs", {"fromBlock": written[2]})) == 4


def test_transactions_before_and_after_their_block(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    raws = [
        fee.sign(notebook, entry(1, 1)),
        fee.sign(notebook, entry(2, 2), maxFeePerGas=7, maxPriorityFeePerGas=3),
        fee.sign(
            notebook,
            entry(3, 3),
            accessList=[{"address": hexed(notebook), "storageKeys": [word(3)]}],
        ),
    ]
    sent = [ask(ledger, "eth_sendRawTransaction", hexed(raw)) for raw in raws]
    waiting = [ask(ledger, "eth_getTransactionByHash", name) for name in sent]
    assert [view["blockHash"] for view in waiting] == [None] * 3
    assert [ask(ledger, "eth_getTransactionReceipt", name) for name in sent] == [None] * 3
    head = ledger.seal_now()
    place = {"blockHash": str(head.hash), "blockNumber": hex(head.number)}
    for index, name in enumerate(sent):
        expected = waiting[index] | place | {"transactionIndex": hex(index)}
        assert ask(ledger, "eth_getTransactionByHash", name) == expected
    assert [view["type"] for view in waiting] == ["0x0", "0x2", "0x1"]
    assert waiting[1]["gasPrice"] == "0x3"
    assert waiting[2]["accessList"] == [
        {"address": hexed(notebook), "storageKeys": [word(3)]},
    ]
    assert ask(ledger, "eth_getTransactionByHash", word(1)) is None
    block = ask(ledger, "eth_getBlockByNumber", hex(head.number), True)
    assert block["transactions"][2]["hash"] == sent[2]


def test_accounts_now_and_then(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes, written: dict[int, str]
) -> None:
    address = hexed(notebook)
    assert ask(ledger, "eth_getCode", address, "0x0") == "0x"
    assert len(ask(ledger, "eth_getCode", address, "latest")) > 100
    assert ask(ledger, "eth_getStorageAt", address, "0x2", written[1]) == word(0)
    assert ask(ledger, "eth_getStorageAt", address, word(2), written[2]) == word(102)
    assert ask(ledger, "eth_getTransactionCount", fee.address, written[1]) == "0x3"
    assert ask(ledger, "eth_getTransactionCount", fee.address) == "0x7"


def test_a_refusal_of_the_contract_comes_with_its_data(
    ledger: EmbeddedLedger, notebook: bytes
) -> None:
    data = "0x" + "00" * 32 + "0badc0de" + "11" * 32
    for method in ("eth_call", "eth_estimateGas"):
        error = refusal(ledger, method, {"to": hexed(notebook), "data": data})
        assert error == {
            "code": 3,
            "message": "execution reverted",
            "data": "0x0badc0de" + "11" * 32,
        }


def test_an_estimate_is_enough_and_not_much_more(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes
) -> None:
    _receipt(ledger, fee.sign(notebook, entry(76, 1)))  # the first entry also fills slot 0
    message = {"from": fee.address, "to": hexed(notebook), "input": hexed(entry(77, 1))}
    estimated = int(ask(ledger, "eth_estimateGas", message), 16)
    used = int(_receipt(ledger, fee.sign(notebook, entry(77, 1), gas=estimated))["gasUsed"], 16)
    assert used <= estimated <= used * 65 // 64 + 2300
    assert _receipt(ledger, fee.sign(notebook, entry(78, 1), gas=estimated))["status"] == "0x1"
    too_little = fee.sign(notebook, entry(79, 1), gas=used - 1)
    assert _receipt(ledger, too_little)["status"] == "0x0"
    plain = {"from": fee.address, "to": fee.address}
    assert int(ask(ledger, "eth_estimateGas", plain), 16) == 21_000


def _receipt(ledger: EmbeddedLedger, raw: bytes) -> dict[str, Any]:
    sent = ledger.submit(raw)
    ledger.seal_now()
    return ask(ledger, "eth_getTransactionReceipt", hexed(sent))


def test_calls_that_cannot_run_say_why(ledger: EmbeddedLedger, notebook: bytes) -> None:
    to = hexed(notebook)
    poor = refusal(ledger, "eth_call", {"to": to, "value": "0x1"}, "latest")
    assert poor["code"] == -32000
    starved = refusal(ledger, "eth_call", {"to": to, "gas": "0x5208", "data": "0x01"}, "latest")
    assert starved["message"].startswith("intrinsic gas too low")
    dry = refusal(ledger, "eth_call", {"to": to, "gas": "0x5fff", "data": hexed(entry(1, 1))})
    assert "OutOfGas" in dry["message"]


def test_a_contract_that_calls_itself_to_the_end_harms_nobody(
    ledger: EmbeddedLedger, fee: Sender
) -> None:
    endless = {"to": hexed(deploy(ledger, fee, CALLS_ITSELF)), "gas": hex(30_000_000)}
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(ask(ledger, "eth_call", endless, "latest"))
    )
    thread.start()
    thread.join()
    answers.append(ask(ledger, "eth_call", endless, "latest"))
    assert answers == ["0x", "0x"]


def test_blockhash_is_the_hash_that_is_served(ledger: EmbeddedLedger, fee: Sender) -> None:
    looking = deploy(ledger, fee, LOOKS_BACK)
    for _ in range(3):
        head = ledger.seal_now()
        assert ask(ledger, "eth_call", {"to": hexed(looking)}, "latest") == str(head.hash)
    old = ledger.store.header(2)
    assert old is not None
    assert ask(ledger, "eth_call", {"to": hexed(looking)}, "0x2") == hexed(old.parent_hash)


def test_a_committed_block_shows_nowhere_before_it_is_served(
    ledger: EmbeddedLedger, fee: Sender, notebook: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = hexed(ledger.submit(fee.sign(notebook, entry(1, 1))))
    seen: dict[str, Any] = {}

    def look(opened: EmbeddedLedger, sealed: Any, *_: Any) -> Any:
        number = hex(sealed.number)
        seen["number"] = ask(opened, "eth_blockNumber")
        seen["block"] = ask(opened, "eth_getBlockByNumber", number, False)
        name = str(block_hash(sealed))
        seen["by hash"] = ask(opened, "eth_getBlockByHash", name, False)
        seen["receipt"] = ask(opened, "eth_getTransactionReceipt", sent)
        seen["pending"] = ask(opened, "eth_getTransactionByHash", sent)["blockHash"]
        seen["logs"] = ask(opened, "eth_getLogs", {"fromBlock": "0x0", "toBlock": number})
        return serve(opened, sealed, *_)

    serve = EmbeddedLedger._serve
    monkeypatch.setattr(EmbeddedLedger, "_serve", look)
    before = ledger.head.number
    ledger.seal_now()
    assert seen == {
        "number": hex(before),
        "block": None,
        "by hash": None,
        "receipt": None,
        "pending": None,
        "logs": [],
    }
    assert len(ask(ledger, "eth_getLogs", {"fromBlock": "0x0"})) == 1


def test_the_sealing_thread_does_it_all_by_itself(tmp_path: Path, clock: SimClock) -> None:
    EmbeddedLedger.create(tmp_path, clock=clock)
    with open_ledger(tmp_path, clock) as ledger:
        ledger.start()
        stranger = Sender(ledger, "0x" + "33" * 32)
        sent = ask(ledger, "eth_sendRawTransaction", hexed(stranger.sign(None, b"\x00")))
        for _ in range(3000):
            if ask(ledger, "eth_getTransactionReceipt", sent) is not None:
                break
            clock.advance(1)
            time.sleep(0.01)
        else:
            pytest.fail("the thread sealed nothing")
        reached = ledger.head.number
        assert reached >= 1
    with open_ledger(tmp_path, clock) as again:
        assert again.head.number >= reached


def test_the_envelope(ledger: EmbeddedLedger) -> None:
    one = {"jsonrpc": "2.0", "id": "a", "method": "eth_blockNumber"}
    assert ledger.handle(one) == {"jsonrpc": "2.0", "id": "a", "result": "0x0"}
    notice = {"jsonrpc": "2.0", "method": "eth_blockNumber"}
    assert ledger.handle(notice) is None
    assert ledger.handle([notice]) is None
    unknown = one | {"method": "eth_sign"}
    both = ledger.handle([one, notice, unknown])
    assert [answer.get("error", {}).get("code") for answer in both] == [None, -32601]
    for bad in ([], [one] * 101, "x", 3, None, {}, {"id": 1, "method": 3}):
        assert ledger.handle(bad)["error"]["code"] == -32600


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getBlockByNumber", []),
        ("eth_getBlockByNumber", ["0x"]),
        ("eth_getBlockByNumber", ["0x" + "1" * 65]),
        ("eth_getBlockByNumber", [1, True]),
        ("eth_getBlockByHash", ["0x12", True]),
        ("eth_getBalance", ["0x" + "11" * 19, "latest"]),
        ("eth_getBalance", ["0x" + "11" * 20, "newest"]),
        ("eth_getBalance", ["0x" + "11" * 20, {"blockHash": "0x"}]),
        ("eth_getStorageAt", ["0x" + "11" * 20, "0x" + "1" * 66, "latest"]),
        ("eth_getProof", ["0x" + "11" * 20, "0x1", "latest"]),
        ("eth_getLogs", ["x"]),
        ("eth_getLogs", [{"fromBlock": "0x5", "toBlock": "0x4"}]),
        ("eth_getLogs", [{"blockHash": "0x" + "11" * 32, "fromBlock": "0x1"}]),
        ("eth_getLogs", [{"topics": ["0x11"]}]),
        ("eth_getLogs", [{"topics": [None] * 5}]),
        ("eth_getLogs", [{"address": ["0x" + "11" * 20] * 257}]),
        ("eth_call", [{"to": "0x11"}, "latest"]),
        ("eth_call", ["x", "latest"]),
        ("eth_sendRawTransaction", ["zz"]),
        ("eth_sendRawTransaction", ["0x"]),
        ("eth_sendRawTransaction", ["0x" + "00" * 200_000]),
        ("eth_feeHistory", ["0x0", "latest", []]),
        ("eth_feeHistory", ["0x401", "latest", []]),
        ("eth_feeHistory", ["0x1", "latest", 5]),
        ("eth_chainId", {"not": "positional"}),
    ],
)
def test_bad_parameters_are_refused(ledger: EmbeddedLedger, method: str, params: list[Any]) -> None:
    answer = ledger.handle({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    if method == "eth_chainId":  # takes none, and reads none
        assert "result" in answer
    else:
        assert answer["error"]["code"] == -32602, answer


_VALUES = (
    *("latest", "earliest", "0x0", "0x1", "0x7fffffffffffffff0"),
    *("0x" + "11" * 20, "0x" + "22" * 32),
)
_KEYS = (
    *("to", "from", "data", "value", "gas", "topics", "address"),
    *("fromBlock", "toBlock", "blockHash", "blockNumber"),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(_VALUES),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_garbage_never_is_our_bug(ledger: EmbeddedLedger, data: st.DataObject) -> None:
    method = data.draw(st.sampled_from(sorted(Methods(ledger, Meter()).by_name)))
    params = data.draw(st.lists(_JSON, max_size=4) | _JSON)
    answer = ledger.handle({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    assert "result" in answer or answer["error"]["code"] in (-32602, -32000, 3), answer
