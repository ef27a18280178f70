"""The chain over JSON-RPC: the real contract on the embedded ledger, and nodes in every mood."""

from __future__ import annotations

import json
import re
import string
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from protocol.digests import keccak256, sha256
from protocol.errors import LedgerRefused, LocalFault, Misuse, Refused, Unreachable, Untrusted
from protocol.header import block_hash, parse_header
from protocol.ids import Address, Hash
from protocol.ledger import Reason
from protocol.records import Device, Product
from registry.approvals import Signature, gather, recover, sign
from registry.artifact import artifact
from registry.chain import Chain, node_at, node_inside
from registry.headers import header_bytes
from registry.node import Node
from registry.ports import Call, Fees
from registry.refusals import SENTENCES, refusal
from registry.signer import file_signer, transaction
from tests.registry.scene import SALT, Scene, governance, person, secret, terms

INTERFACE = Path("contracts/IReleaseLedger.sol").read_text()


# -- calls, events, proofs -----------------------------------------------------------------------


def test_a_call_is_sent_mined_and_read_back_as_records(scene: Scene) -> None:
    wanted = governance()
    receipt = scene.act(scene.fee, "createProduct", SALT, wanted)

    assert receipt.succeeded
    (event,) = scene.chain.events(receipt.block_hash)
    assert event == receipt.events[0]
    assert event.name == "ProductCreated"
    assert event.args["product_id"] == scene.product
    assert event.args["creator"] == scene.fee.address
    assert event.args["product"] == Product(wanted)
    slot = scene.chain.read(Call("productSlot", (scene.product,)))[0]
    now = scene.chain.head().timestamp
    assert slot == scene.ledger.product_slot(scene.product, Product(wanted), now)
    assert list(scene.chain.events_between(0, receipt.block)) == [event]
    assert list(scene.chain.proved_events(receipt.block_hash)) == [event]


def test_the_contracts_own_verdict_is_asked(scene: Scene) -> None:
    scene.act(scene.fee, "createProduct", SALT, governance())
    wanted = terms(scene.product)
    agreed = scene.agreed(wanted)
    receipt = scene.act(scene.fee, "publish", Product(governance()), wanted, agreed)
    state = receipt.events[0].args["state"]
    head = {"latest_release": 1, "version": wanted.version, "security_counter": 1}
    product = Product(governance(), head=type(Product(governance()).head)(**head))
    for hardware, verdict in ((2, Reason.ELIGIBLE), (9, Reason.WRONG_HARDWARE)):
        device = Device(sha256(b"device"), 0, 0, hardware)
        assert scene.chain.eligible(product, wanted, 1, state, device) is verdict


def test_a_header_is_rebuilt_with_its_seals(scene: Scene) -> None:
    head = scene.chain.head()
    parsed = parse_header(scene.chain.header(head.hash))
    assert block_hash(parsed) == head.hash
    assert len(parsed.extra.seals) == 4
    assert scene.chain.finalized() == head
    assert scene.chain.block(head.hash) == scene.chain.block(head.number) == head
    assert scene.chain.block(head.number + 1) is None


def test_a_header_of_a_later_fork_is_rebuilt_too_and_an_unknown_one_refused() -> None:
    """Block 17,034,870 was the first with withdrawals; here it stands with fields of our making."""
    from protocol.rlp import encode

    words = {name: "0x" + f"{n:02x}" * 32 for n, name in enumerate(("a", "b", "c", "d", "e"), 17)}
    shown = {
        "parentHash": words["a"],
        "sha3Uncles": words["b"],
        "miner": "0x" + "11" * 20,
        "stateRoot": words["c"],
        "transactionsRoot": words["d"],
        "receiptsRoot": words["e"],
        "logsBloom": "0x" + "00" * 256,
        "difficulty": "0x0",
        "number": "0x10",
        "gasLimit": "0x1c9c380",
        "gasUsed": "0x5208",
        "timestamp": "0x6b49d200",
        "extraData": "0x",
        "mixHash": words["a"],
        "nonce": "0x0000000000000000",
        "baseFeePerGas": "0x7",
        "withdrawalsRoot": words["b"],
        "blobGasUsed": "0x0",
        "excessBlobGas": "0x0",
        "parentBeaconBlockRoot": words["c"],
        "requestsHash": words["d"],
    }
    numbers = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas"}
    numbers |= {"blobGasUsed", "excessBlobGas"}
    for length in (15, 16, 17, 19, 20, 21):
        members = dict(list(shown.items())[:length])
        raw = encode(
            [
                bytes.fromhex(hex(int(v, 16))[2:].zfill(2 * ((int(v, 16).bit_length() + 7) // 8)))
                if k in numbers and int(v, 16)
                else (b"" if k in numbers else bytes.fromhex(v[2:]))
                for k, v in members.items()
            ]
        )
        named = {**members, "hash": str(keccak256(raw))}
        assert header_bytes(named) == raw
        for changed in ({"gasUsed": "0x5209"}, {"parentHash": words["e"]}):
            with pytest.raises(Unreachable) as refused:
                header_bytes({**named, **changed})
            assert refused.value.reason == "header-mismatch"
    with pytest.raises(Unreachable):
        header_bytes({k: v for k, v in named.items() if k != "stateRoot"})


# -- refusals ------------------------------------------------------------------------------------


def test_every_error_of_the_interface_has_its_sentence() -> None:
    declared = dict(re.findall(r"^    error (\w+)\((.*?)\);", INTERFACE, re.M))
    assert SENTENCES.keys() == declared.keys() == artifact().errors.keys()
    for name, (why, fix) in SENTENCES.items():
        used = {field for _, field, _, _ in string.Formatter().parse(why) if field}
        assert used <= set(artifact().errors[name]), name
        assert "{" not in fix


def test_every_error_becomes_a_refusal_with_its_data() -> None:
    from eth_abi.abi import encode
    from eth_utils.abi import abi_to_signature, get_abi_input_types

    samples = {"bytes32": b"\x07" * 32, "address": b"\x08" * 20, "string": "rollout"}
    for item in artifact().abi:
        if item["type"] != "error":
            continue
        kinds = get_abi_input_types(item)  # type: ignore[arg-type]
        values = [samples.get(kind, 2) for kind in kinds]
        data = keccak256(abi_to_signature(item).encode())[:4] + encode(kinds, values)  # type: ignore[arg-type]
        refused = refusal(data, "publish")
        assert refused.data["error"] == item["name"]
        assert refused.what == "publish refused by the ledger"
        assert "{" not in refused.why
        assert len(refused.data) == 1 + len(kinds)
        json.dumps(refused.as_dict())


def test_a_refusal_without_a_reason_is_said_as_such() -> None:
    for data in (b"", b"\x01\x02\x03\x04rest"):
        refused = refusal(data, "halt")
        assert (refused.reason, refused.data) == ("reverted", {"error": ""})


def test_the_ledgers_refusal_says_why_and_what_to_do(scene: Scene) -> None:
    scene.act(scene.fee, "createProduct", SALT, governance())
    wanted = terms(scene.product)
    with pytest.raises(LedgerRefused) as refused:
        short = scene.agreed(wanted, "alice")
        scene.act(scene.fee, "publish", Product(governance()), wanted, short)
    assert refused.value.reason == "too-few-approvals"
    assert refused.value.data == {"error": "TooFewApprovals", "given": 1, "threshold": 2}
    assert "1 approvals and needs 2" in refused.value.why
    with pytest.raises(LedgerRefused) as refused:
        scene.chain.read(Call("eligible", _unknown()))
    assert refused.value.reason == "unknown-product"


def _unknown() -> tuple[Any, ...]:
    wanted = terms(sha256(b"no product"))  # type: ignore[arg-type]
    device = Device(bytes(32), 0, 0, 1)
    from protocol.records import State

    return Product(governance()), wanted, 1, State(0, 1), device


# -- nodes ---------------------------------------------------------------------------------------


class Mood:
    """A node that answers truly, but for some methods."""

    def __init__(self, scene: Scene, **instead: Any) -> None:
        self._honest = node_inside(scene.embedded)
        self._instead = instead
        self.asked: list[tuple[str, list[Any]]] = []

    def __call__(self, method: str, params: list[Any]) -> Any:
        self.asked.append((method, params))
        answer = self._instead.get(method)
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(params)
        return answer if answer is not None else {"result": self._honest.ask(method, *params)}


def failing(message: str, code: int = -32000, data: Any = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message} | ({"data": data} if data else {})}


@pytest.mark.parametrize(
    "answer",
    [
        ConnectionError("refused"),
        TimeoutError("slow"),
        ValueError("no JSON"),
        "text",
        {"nothing": 1},
        failing("internal error"),
        {"result": "no number"},
        {"result": None},
    ],
)
def test_whatever_a_node_answers_is_unreachable_at_worst(scene: Scene, answer: Any) -> None:
    chain = Chain(Node(Mood(scene)), scene.contract)
    chain._node = Node(Mood(scene, eth_getTransactionCount=answer, eth_getBlockByNumber=answer))
    for ask in (lambda: chain.nonce(scene.fee.address), chain.head):
        if answer == {"result": "no number"} and ask == chain.head:
            continue
        with pytest.raises(Unreachable):
            ask()


@pytest.mark.parametrize("message", ["already known", "Known transaction", "AlreadyExists"])
def test_a_transaction_that_is_known_counts_as_sent(scene: Scene, message: str) -> None:
    chain = Chain(Node(Mood(scene, eth_sendRawTransaction=failing(message))), scene.contract)
    assert chain.send(b"raw") == keccak256(b"raw")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("nonce too low: next nonce 5", "nonce-too-low"),
        ("Nonce too low", "nonce-too-low"),
        ("replacement transaction underpriced", "underpriced"),
        ("Gas price below configured minimum gas price", "underpriced"),
        ("insufficient funds for gas * price + value", "rejected"),
    ],
)
def test_what_a_node_says_to_a_transaction_is_understood(
    scene: Scene, message: str, reason: str
) -> None:
    chain = Chain(Node(Mood(scene, eth_sendRawTransaction=failing(message))), scene.contract)
    with pytest.raises(Refused) as refused:
        chain.send(b"raw")
    assert refused.value.reason == reason
    assert message in refused.value.why


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"data": d}, lambda d: f"Reverted {d}"])
def test_revert_data_is_found_wherever_a_node_puts_it(scene: Scene, wrap: Any) -> None:
    selector = keccak256(b"UnknownProduct(bytes32)")[:4]
    data = wrap("0x" + (selector + b"\x01" * 32).hex())
    answer = failing("execution reverted", 3, data)
    chain = Chain(Node(Mood(scene, eth_estimateGas=answer)), scene.contract)
    with pytest.raises(LedgerRefused) as refused:
        chain.estimate(scene.fee.address, Call("pause", (scene.product, Product(governance()))))
    assert refused.value.reason == "unknown-product"


def test_events_are_asked_for_in_smaller_spans_where_a_node_limits_them(scene: Scene) -> None:
    for n in range(3):
        scene.act(scene.fee, "createProduct", Hash(sha256(bytes([n]))), governance())
    honest = node_inside(scene.embedded)

    def limited(params: list[Any]) -> Any:
        first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
        if last - first > 1:
            return failing("query returned more than 2 blocks", -32005)
        return {"result": honest.ask("eth_getLogs", *params)}

    chain = Chain(Node(Mood(scene, eth_getLogs=limited)), scene.contract)
    head = scene.chain.head().number
    assert list(chain.events_between(0, head)) == list(scene.chain.events_between(0, head))
    broken = Chain(Node(Mood(scene, eth_getLogs=failing("no"))), scene.contract)
    with pytest.raises(Unreachable):
        list(broken.events_between(0, head))


def test_a_node_that_knows_no_block_hashes_in_proofs_is_asked_by_height(scene: Scene) -> None:
    honest = node_inside(scene.embedded)

    def old(params: list[Any]) -> Any:
        if isinstance(params[2], dict):
            return failing("invalid params", -32602)
        return {"result": honest.ask("eth_getProof", *params)}

    chain, head = Chain(Node(Mood(scene, eth_getProof=old)), scene.contract), scene.chain.head()
    slots = [Hash(bytes(32))]
    assert chain.proof(slots, head.hash) == scene.chain.proof(slots, head.hash)


def test_a_node_that_alters_receipts_is_found_out(scene: Scene) -> None:
    receipt = scene.act(scene.fee, "createProduct", SALT, governance())
    chain = Chain(Node(Mood(scene, eth_getBlockReceipts={"result": []})), scene.contract)
    with pytest.raises(Untrusted) as refused:
        chain.proved_events(receipt.block_hash)
    assert refused.value.reason == "receipts-mismatch"


def test_fees_follow_the_chains_kind(scene: Scene) -> None:
    assert scene.chain.fees() == Fees(0)
    head = node_inside(scene.embedded).ask("eth_getBlockByNumber", "latest", False)
    moods = {
        "eth_getBlockByNumber": {"result": {**head, "baseFeePerGas": "0x64"}},
        "eth_maxPriorityFeePerGas": {"result": "0x5"},
    }
    chain = Chain(Node(Mood(scene, **moods)), scene.contract)
    assert chain.fees() == Fees(205, 5)


def test_an_address_without_a_contract_is_said(scene: Scene) -> None:
    assert scene.chain.code_hash() == artifact().code_hash
    empty = Chain(node_inside(scene.embedded), Address(b"\x77" * 20))
    with pytest.raises(Misuse) as refused:
        empty.code_hash()
    assert refused.value.reason == "no-contract"


@pytest.fixture
def served(scene: Scene) -> Iterator[str]:
    """The embedded ledger behind real HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(scene.embedded.handle(request)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_over_http_it_is_the_same_chain(scene: Scene, served: str) -> None:
    chain = Chain.connect(served, scene.contract)
    assert chain.ledger == scene.ledger
    assert chain.head() == scene.chain.head()


def test_nobody_at_the_address_is_unreachable() -> None:
    with pytest.raises(Unreachable) as unreachable:
        Chain(node_at("http://127.0.0.1:1", timeout=1), Address(b"\x11" * 20))
    assert unreachable.value.reason == "rpc-unreachable"


# -- accounts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "bob", "carol", "dave"])
def test_an_approval_names_its_signer_and_no_other(name: str) -> None:
    digest = Hash(sha256(b"message"))
    signature = sign(digest, secret(name))
    assert recover(digest, signature) == person(name).address
    for bit in range(512):
        raw = bytearray(signature.r + signature.vs)
        raw[bit // 8] ^= 1 << bit % 8
        try:
            found = recover(digest, Signature(bytes(raw[:32]), bytes(raw[32:])))
        except Untrusted:
            continue
        assert found != person(name).address


def test_a_signature_in_the_upper_half_is_refused() -> None:
    """The compact form has no room for the second form of a signature, but for a sliver."""
    half = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
    digest = Hash(sha256(b"message"))
    signature = sign(digest, secret("alice"))
    for s in (half + 1, (1 << 255) - 1):
        with pytest.raises(Untrusted) as refused:
            recover(digest, Signature(signature.r, s.to_bytes(32, "big")))
        assert refused.value.reason == "bad-signature"


def test_approvals_are_gathered_in_order_each_signer_once() -> None:
    digest = Hash(sha256(b"message"))
    signatures = [sign(digest, secret(name)) for name in ("carol", "alice", "bob", "alice")]
    approvals = gather(digest, 5, signatures)
    signers = [recover(digest, signature) for signature in approvals.signatures]
    assert signers == sorted(signers)
    assert len(signers) == 3


def write_key(path: Path, content: object, mode: int = 0o600) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_a_key_file_signs_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    alice = person("alice")
    good = {"address": str(alice.address), "private_key": "0x" + secret("alice").hex()}
    signer = file_signer(write_key(tmp_path / "good.json", good))
    ledger = type(_ledger())(1, Address(b"\x11" * 20))
    fields = transaction(ledger, ledger.contract, b"", nonce=0, gas=21_000, fees=Fees(7, 1))
    assert signer.sign(fields) == alice.sign(fields)
    assert "gasPrice" not in fields

    bad: list[tuple[object, int, str]] = [
        (good, 0o640, "key-exposed"),
        ({**good, "address": str(person("bob").address)}, 0o600, "key-damaged"),
        ({**good, "private_key": "0x00"}, 0o600, "key-damaged"),
        ({"address": good["address"]}, 0o600, "key-damaged"),
        ("[]", 0o600, "key-damaged"),
        ("garbage", 0o600, "key-damaged"),
    ]
    for number, (content, mode, reason) in enumerate(bad):
        with pytest.raises(LocalFault) as fault:
            file_signer(write_key(tmp_path / f"{number}.json", content, mode))
        assert fault.value.reason == reason
        assert secret("alice").hex() not in str(fault.value)
    with pytest.raises(Misuse) as refused:
        file_signer(tmp_path / "none.json")
    assert refused.value.reason == "no-key"


def _ledger() -> Any:
    from protocol.records import Ledger

    return Ledger(1, Address(bytes(20)))
