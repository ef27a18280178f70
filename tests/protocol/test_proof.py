"""Proven state: what a quorum sealed, and nothing that anyone else would like it to be."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.digests import keccak256
from protocol.errors import FirmledgerError, Malformed, Misuse, Untrusted
from protocol.header import (
    MAX_FIELDS,
    MAX_HEADER_BYTES,
    MAX_ITEMS,
    MAX_VALIDATORS,
    encode_header,
    parse_header,
)
from protocol.ids import Address, Hash
from protocol.proof import (
    MAX_SLOTS,
    Proof,
    ProvenState,
    Step,
    assemble,
    mapping_slot,
    nested_slot,
    verify_link,
    verify_state,
)
from protocol.trie import EMPTY_ROOT, MAX_NODE_BYTES, MAX_NODES, MAX_VALUE_BYTES
from tests.protocol.sealed import (
    CODE_HASH,
    CONTRACT,
    World,
    account_leaf,
    addresses,
    build_trie,
    make_header,
    proof_nodes,
    seal,
    validators,
)

PRODUCT, RELEASE, ABSENT = (mapping_slot(bytes([n]) * 32, n) for n in (1, 2, 3))
WORDS = {PRODUCT: 2**255 + 7, RELEASE: 5, **{mapping_slot(bytes(32), n): n for n in range(9, 99)}}
SLOTS = (PRODUCT, RELEASE, ABSENT)


def check(proof: Proof, world: World, slots: Sequence[Hash] = SLOTS) -> ProvenState:
    return verify_state(
        proof,
        validators=addresses(world.group),
        contract=CONTRACT,
        code_hash=CODE_HASH,
        slots=slots,
    )


def refused(act: Callable[[], object]) -> tuple[str, Step]:
    with pytest.raises((Malformed, Untrusted)) as caught:
        act()
    return caught.value.reason, Step(caught.value.data["step"])


@pytest.fixture(scope="module")
def world() -> World:
    return World(WORDS)


@pytest.fixture(scope="module")
def proof(world: World) -> Proof:
    return assemble(world.raw_header(), world.get_proof(SLOTS))


# ---- what is proved


def test_words_present_and_absent_are_proved(world: World, proof: Proof) -> None:
    state = check(proof, world)
    assert state.values == {
        PRODUCT: (2**255 + 7).to_bytes(32, "big"),
        RELEASE: (5).to_bytes(32, "big"),
        ABSENT: bytes(32),
    }
    header = world.header()
    assert (state.number, state.timestamp) == (header.number, header.timestamp)
    assert state.validators == addresses(world.group)
    assert state.sealers == addresses(world.group)[:3]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_slots_of_any_storage_are_proved(data: st.DataObject) -> None:
    keys = st.integers(0, 60).map(lambda n: mapping_slot(bytes(32), n))
    words = data.draw(st.dictionaries(keys, st.integers(0, 2**256 - 1), max_size=60))
    slots = data.draw(st.lists(keys, unique=True, max_size=MAX_SLOTS))
    world = World(words, accounts=data.draw(st.integers(0, 40)))
    proof = assemble(world.raw_header(round_number=2), world.get_proof(slots))
    state = check(proof, world, slots)
    assert state.values == {slot: words.get(slot, 0).to_bytes(32, "big") for slot in slots}


def test_the_order_of_the_question_does_not_matter(world: World, proof: Proof) -> None:
    for slots in (SLOTS, SLOTS[::-1], (RELEASE, ABSENT, PRODUCT)):
        assert assemble(world.raw_header(), world.get_proof(slots)) == proof
        assert check(proof, world, slots) == check(proof, world)


def test_an_empty_storage_proves_absence(world: World) -> None:
    empty = World({})
    answer = empty.get_proof(SLOTS)
    for entry in answer["storageProof"]:  # type: ignore[attr-defined]
        entry["proof"] = ["0x80"]  # how some nodes tell of an empty trie
    for told in (answer, empty.get_proof(SLOTS)):
        proof = assemble(empty.raw_header(), told)
        assert set(check(proof, empty).values.values()) == {bytes(32)}


def test_no_slots_prove_the_head_alone(world: World) -> None:
    proof = assemble(world.raw_header(), world.get_proof(()))
    assert check(proof, world, ()).values == {}


def test_bytes_and_short_quantities_of_a_node_are_understood(world: World, proof: Proof) -> None:
    answer = world.get_proof(SLOTS)
    answer["accountProof"] = [bytes.fromhex(one[2:]) for one in answer["accountProof"]]  # type: ignore[attr-defined]
    assert assemble(world.raw_header(), answer) == proof
    few = World({Hash((5).to_bytes(32, "big")): 9})
    answer = few.get_proof([Hash((5).to_bytes(32, "big"))])
    answer["storageProof"][0]["key"] = "0x5"  # type: ignore[index]
    slot = Hash((5).to_bytes(32, "big"))
    assert check(assemble(few.raw_header(), answer), few, [slot]).values[slot][-1] == 9


def test_slots_are_those_of_solidity() -> None:
    key, other = bytes(range(32)), bytes(range(1, 33))
    assert mapping_slot(key, 3) == keccak256(key + (3).to_bytes(32, "big"))
    assert nested_slot(3, key) == mapping_slot(key, 3)
    assert nested_slot(3, key, other) == keccak256(other + keccak256(key + (3).to_bytes(32, "big")))
    # key 0 of the mapping at slot 0: keccak-256 of 64 zero bytes
    assert str(mapping_slot(bytes(32), 0)) == (
        "0xad3228b676f7d3cd4284a5443f17f1962b36e491b30a40b2405849e597ba5fb5"
    )
    for act in (
        lambda: mapping_slot(key[1:], 0),
        lambda: mapping_slot(key, b""),
        lambda: nested_slot(0),
    ):
        with pytest.raises(Misuse):
            act()


# ---- what is refused, and by which step


def test_no_bit_of_a_small_proof_can_change() -> None:
    small = World({PRODUCT: 7, RELEASE: 5}, accounts=3, group=validators(1))
    proof = assemble(small.raw_header(round_number=1), small.get_proof(SLOTS))
    before = check(proof, small)
    for part in range(1 + len(proof.nodes)):
        raw = (proof.header, *proof.nodes)[part]
        for bit in range(8 * len(raw)):
            step = refused(lambda part=part, bit=bit: check(flipped(proof, part, bit), small))[1]
            assert step in (
                {Step.HEADER, Step.SEALS} if part == 0 else {Step.ACCOUNT, Step.STORAGE}
            )
    assert check(proof, small) == before


def flipped(proof: Proof, part: int, bit: int) -> Proof:
    """``proof`` with one bit changed: in the header (part 0) or in node ``part`` - 1."""
    parts = [bytearray(proof.header), *map(bytearray, proof.nodes)]
    parts[part][bit // 8] ^= 1 << bit % 8
    return Proof(bytes(parts[0]), tuple(map(bytes, parts[1:])))


def test_random_bits_of_a_large_proof_cannot_change(world: World, proof: Proof) -> None:
    drawn = random.Random(20260101)
    sizes = [len(proof.header), *map(len, proof.nodes)]
    for _ in range(1500):
        part = drawn.choices(range(len(sizes)), weights=sizes)[0]
        changed = flipped(proof, part, drawn.randrange(8 * sizes[part]))
        refused(lambda changed=changed: check(changed, world))


def test_no_byte_can_be_lost_or_added(world: World, proof: Proof) -> None:
    for cut in range(len(proof.header)):
        reason = refused(lambda cut=cut: check(replace(proof, header=proof.header[:cut]), world))
        assert reason[1] is Step.HEADER
    grown = replace(proof, header=proof.header + b"\0")
    assert refused(lambda: check(grown, world)) == ("rlp-trailing", Step.HEADER)
    for index, node in enumerate(proof.nodes):
        for other in (node[:-1], node + b"\0"):
            nodes = (*proof.nodes[:index], other, *proof.nodes[index + 1 :])
            assert refused(lambda nodes=nodes: check(replace(proof, nodes=nodes), world))


def test_nodes_missing_doubled_moved_or_added_are_refused(world: World, proof: Proof) -> None:
    nodes, stranger = proof.nodes, bytes(40)
    for index in range(len(nodes)):
        gone = nodes[:index] + nodes[index + 1 :]
        assert (
            refused(lambda gone=gone: check(replace(proof, nodes=gone), world))[0] == "node-missing"
        )
    for surplus in (
        (*nodes, stranger),
        (stranger, *nodes),
        (*nodes, nodes[0]),
        nodes[::-1],
        (nodes[1], nodes[0], *nodes[2:]),
    ):
        changed = replace(proof, nodes=surplus)
        assert refused(lambda changed=changed: check(changed, world)) == (
            "surplus-nodes",
            Step.NOTHING_ELSE,
        )


def test_a_proof_answers_only_the_question_asked(world: World, proof: Proof) -> None:
    assert refused(lambda: check(proof, world, SLOTS[:2]))[1] is Step.NOTHING_ELSE
    more = (*SLOTS, mapping_slot(bytes(32), 10))
    assert refused(lambda: check(proof, world, more)) == ("node-missing", Step.STORAGE)


def test_a_shown_absence_is_no_presence_and_the_other_way_round(world: World) -> None:
    """The node answers for one slot; the device asks for the other."""
    present = assemble(world.raw_header(), world.get_proof([PRODUCT]))
    absent = assemble(world.raw_header(), world.get_proof([ABSENT]))
    refused(lambda: check(absent, world, [PRODUCT]))
    refused(lambda: check(present, world, [ABSENT]))


def test_parts_of_two_heights_do_not_mix(world: World, proof: Proof) -> None:
    """An active release proved under an old root, shown under a newer header that halted it."""
    halted = World({**WORDS, RELEASE: 6})
    newer = assemble(halted.raw_header(number=8), halted.get_proof(SLOTS))
    assert check(newer, halted).values[RELEASE][-1] == 6
    assert refused(lambda: check(Proof(newer.header, proof.nodes), halted))[1] is Step.ACCOUNT
    assert refused(lambda: check(Proof(proof.header, newer.nodes), world))[1] is Step.ACCOUNT


def test_another_chain_contract_or_code_is_refused(world: World, proof: Proof) -> None:
    strangers = World(WORDS, group=validators(4, start=50))
    foreign = assemble(strangers.raw_header(), strangers.get_proof(SLOTS))
    assert refused(lambda: check(foreign, world)) == ("validators-changed", Step.SEALS)

    def ask(contract: Address = CONTRACT, code_hash: Hash = CODE_HASH) -> object:
        return verify_state(
            proof,
            validators=addresses(world.group),
            contract=contract,
            code_hash=code_hash,
            slots=SLOTS,
        )

    assert refused(lambda: ask(code_hash=keccak256(b"proxy"))) == ("wrong-code", Step.CODE)
    assert refused(lambda: ask(contract=Address(bytes(20))))[1] is Step.ACCOUNT


def test_replaced_code_is_refused_before_storage(world: World) -> None:
    proxy = World(WORDS, code_hash=keccak256(b"proxy"))
    proof = assemble(proxy.raw_header(), proxy.get_proof(SLOTS))
    assert refused(lambda: check(proof, proxy)) == ("wrong-code", Step.CODE)


def state_of(leaf: bytes | None, storage_leaf: bytes | None = None) -> Proof:
    """A proof whose sealed state holds these leaves, whatever they are."""
    group, nodes = validators(4), {}
    if storage_leaf is not None:
        storage_root, nodes = build_trie({keccak256(PRODUCT): storage_leaf})
        leaf = account_leaf(storage_root)
    items = {keccak256(b"someone"): account_leaf(bytes(32))}
    if leaf is not None:
        items[keccak256(CONTRACT)] = leaf
    state_root, accounts = build_trie(items)
    header = seal(make_header(group, state_root=state_root), group[:3])
    walk = proof_nodes(state_root, keccak256(CONTRACT), accounts)
    return Proof(encode_header(header), (*walk, *nodes.values()))


def test_an_absent_contract_is_refused(world: World) -> None:
    assert refused(lambda: check(state_of(None), world)) == ("no-contract", Step.ACCOUNT)


@pytest.mark.parametrize(
    "leaf",
    [
        b"\x01",
        rlp.encode([b"\x01", b"", bytes(32)]),
        rlp.encode([b"\x01", b"", bytes(32), bytes(32), b""]),
        rlp.encode([b"\x01", b"", bytes(31), bytes(32)]),
        rlp.encode([b"\x01", b"", bytes(32), bytes(33)]),
        rlp.encode([b"\x00", b"", bytes(32), bytes(32)]),
        rlp.encode([b"\x01" * 9, b"", bytes(32), bytes(32)]),
        rlp.encode([b"\x01", [], bytes(32), bytes(32)]),
        rlp.encode([b"\x01", b"\x00", b"\x11" * 32, b"\x11" * 32]),
        rlp.encode([b"", b"\x01" * 33, b"\x11" * 32, b"\x11" * 32]),
        rlp.encode([b"\x01", b"", bytes(32), bytes(32)]) + b"\x00",
    ],
)
def test_what_is_no_account_is_malformed(world: World, leaf: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        check(state_of(leaf), world)
    assert caught.value.data["step"] == Step.ACCOUNT


@pytest.mark.parametrize(
    "leaf", [b"\x80", b"\0", b"\x81\x05", b"\x82\0\x05", b"\xc0", b"\5\5", b"\xa1" + b"\1" * 33]
)
def test_what_is_no_word_is_malformed(world: World, leaf: bytes) -> None:
    assert check(state_of(None, b"\x05"), world, [PRODUCT]).values[PRODUCT][-1] == 5
    with pytest.raises(Malformed) as caught:
        check(state_of(None, leaf), world, [PRODUCT])
    assert caught.value.data["step"] == Step.STORAGE


def test_seals_stand_in_one_order_and_suffice(world: World) -> None:
    nodes = assemble(world.raw_header(), world.get_proof(SLOTS)).nodes
    for group, expected in (
        (world.group[1::-1], ("no-quorum", Step.SEALS)),
        (world.group[::-1], ("seal-order", Step.SEAL_ORDER)),
        ([*world.group[:3], world.group[2]], ("duplicate-seal", Step.SEALS)),
        ([*world.group[:3], *validators(1, start=9)], ("foreign-seal", Step.SEALS)),
        ([], ("no-quorum", Step.SEALS)),
    ):
        shown = Proof(encode_header(world.header(sealed_by=group)), nodes)
        assert refused(lambda shown=shown: check(shown, world)) == expected
    assert check(Proof(world.raw_header(), nodes), world).sealers == addresses(world.group)


def test_sizes_are_bounded_before_anything_is_read(world: World, proof: Proof) -> None:
    for big in (
        replace(proof, header=bytes(MAX_HEADER_BYTES + 1)),
        replace(proof, nodes=(bytes(32),) * (MAX_NODES + 1)),
        replace(proof, nodes=(*proof.nodes, bytes(533))),
        replace(proof, nodes=(*proof.nodes, b"")),
    ):
        assert refused(lambda big=big: check(big, world))[1] is Step.BOUND


def test_the_largest_header_and_the_most_slots_are_read() -> None:
    group, slots = validators(1), [keccak256(bytes([n])) for n in range(MAX_SLOTS)]
    spare = MAX_HEADER_BYTES - len(World(WORDS, group=group, more=[bytes(1000)]).raw_header())
    filled = World(WORDS, group=group, more=[bytes(1000 + spare)])
    proof = assemble(filled.raw_header(), filled.get_proof(slots))
    assert len(proof.header) == MAX_HEADER_BYTES
    assert len(check(proof, filled, slots).values) == MAX_SLOTS


def test_slots_that_cannot_be_asked_for_are_the_callers_fault(world: World, proof: Proof) -> None:
    for slots in ([PRODUCT, PRODUCT], [keccak256(bytes([n])) for n in range(MAX_SLOTS + 1)]):
        with pytest.raises(Misuse):
            check(proof, world, slots)


@settings(max_examples=200)
@given(st.binary(max_size=900), st.lists(st.binary(max_size=600), max_size=5))
def test_garbage_is_only_our_error(raw: bytes, nodes: list[bytes]) -> None:
    group = validators(1)
    for shown in (Proof(raw, tuple(nodes)), Proof(seal_one(group), tuple(nodes))):
        with pytest.raises((Malformed, Untrusted)):
            verify_state(
                shown,
                validators=addresses(group),
                contract=CONTRACT,
                code_hash=CODE_HASH,
                slots=SLOTS,
            )


def seal_one(group: list) -> bytes:  # type: ignore[type-arg]
    return encode_header(seal(make_header(group), group))


# ---- assembling


def test_assembling_drops_surplus_seals_and_shares_nodes(world: World, proof: Proof) -> None:
    answer = world.get_proof(SLOTS)
    told = [*answer["accountProof"], *(n for e in answer["storageProof"] for n in e["proof"])]  # type: ignore[attr-defined]
    assert len(parse_header(world.raw_header()).extra.seals) == 4
    assert len(parse_header(proof.header).extra.seals) == 3
    assert len(proof.nodes) == len(set(told)) < len(told)


def test_assembling_refuses_a_lying_node(world: World) -> None:
    header, answer = world.raw_header(), world.get_proof(SLOTS)
    other = World({**WORDS, RELEASE: 6}).get_proof(SLOTS)
    assert assemble(header, answer)
    for lie in (
        {},
        {**answer, "address": None},
        {**answer, "address": "0x12"},
        {**answer, "accountProof": []},
        {**answer, "accountProof": ["0xzz"]},
        {**answer, "accountProof": 7},
        {**answer, "storageProof": other["storageProof"]},
        {**answer, "storageProof": [{"key": "0x" + "11" * 33, "proof": []}]},
        {**answer, "storageProof": [{"key": "0x1"}]},
        other,
    ):
        with pytest.raises((Malformed, Untrusted)):
            assemble(header, lie)
    with pytest.raises((Malformed, Untrusted)):
        assemble(encode_header(world.header(sealed_by=world.group[:2])), answer)


# ---- links


def test_a_link_is_followed_or_refused_by_its_step() -> None:
    old, new = validators(4), validators(5)
    header = make_header(new, number=90)
    link = verify_link(encode_header(seal(header, new)), addresses(old))
    assert (link.number, link.validators) == (90, addresses(new))
    refusals = {
        "no-quorum": encode_header(seal(header, old[:3])),
        "seal-order": encode_header(seal(header, new[::-1])),
        "rlp-truncated": encode_header(header)[:-1],
        "rlp-oversized": bytes(MAX_HEADER_BYTES + 1),
        "no-overlap": encode_header(seal(header, new)),
    }
    steps = {
        "no-quorum": 3,
        "seal-order": 4,
        "rlp-truncated": 2,
        "rlp-oversized": 1,
        "no-overlap": 3,
    }
    for reason, raw in refusals.items():
        trusted = validators(4, start=70) if reason == "no-overlap" else old
        found = refused(lambda raw=raw, trusted=trusted: verify_link(raw, addresses(trusted)))
        assert found[1] == steps[reason], reason
        assert found[0] == reason or reason == "rlp-oversized"


def test_no_bit_of_a_link_can_change() -> None:
    group = validators(1)
    raw = seal_one(group)
    assert verify_link(raw, addresses(group)).validators == addresses(group)
    for bit in range(0, 8 * len(raw), 3):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FirmledgerError):
            verify_link(bytes(changed), addresses(group))


# ---- the page


def test_the_spec_page_states_the_limits_that_hold() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "spec" / "proof.md").read_text()
    for phrase in (
        f"one sealed block header, RLP (section 3) | {MAX_HEADER_BYTES:,} bytes |",
        f"{MAX_NODES} nodes, each of 32 to {MAX_NODE_BYTES} bytes",
        f"1 to {MAX_VALIDATORS} distinct addresses",
        f"0 to {MAX_SLOTS} distinct storage slots",
        f"| header | {MAX_HEADER_BYTES:,} | 8 | {MAX_ITEMS:,} |",
        f"A list of 15 to {MAX_FIELDS} items",
        f"a value of 1 to {MAX_VALUE_BYTES} bytes",
        EMPTY_ROOT.hex(),
    ):
        assert phrase in page, phrase
    assert (MAX_HEADER_BYTES, MAX_NODES, MAX_VALIDATORS, MAX_SLOTS) == (8192, 128, 64, 16)
    assert (MAX_ITEMS, MAX_FIELDS, MAX_NODE_BYTES, MAX_VALUE_BYTES) == (256, 32, 532, 110)
    steps = re.findall(r"^(\d)\. \*\*([A-Z][a-z ]+)\.\*\*", page, re.MULTILINE)
    assert [int(number) for number, _ in steps] == [int(step) for step in Step]


def test_reading_proofs_loads_no_curve_until_seals_are_checked() -> None:
    script = (
        "import sys, protocol.proof, protocol.header;"
        "print(sorted({'coincurve', 'rlp', 'trie', 'eth_utils', 'web3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
