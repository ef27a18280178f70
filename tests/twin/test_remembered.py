"""The product and its twin remember the same: states after proofs and statements, byte for byte.

Both are led through the same bundles and re-anchor statements, good, old, contradicting and forged,
under all kinds of clocks; after each they stand at the same state or refused at the same step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_client.core.belief import TrustState
from device_client.core.trust import Equivocation, advance
from protocol import cbor, cose
from protocol.bundle import Bundle
from protocol.errors import Malformed, Refused, Untrusted
from protocol.header import encode_header
from protocol.ids import Address, Hash, ProductId
from protocol.ledger import Status
from protocol.reanchor import Reanchor
from protocol.records import Head, Ledger
from tests.protocol import recovering, structures
from tests.protocol.published import NOW, flipped
from tests.protocol.recovering import KEYS, STATEMENT, STRANGER, signed, trust_file
from tests.protocol.sealed import addresses, make_header, seal, validators
from tests.twin import forgery
from tests.twin.test_twin import GOOD, ODD
from tests.twin.verdicts import Pinned, agreed, reanchored

GROUPS = [validators(1), validators(2), validators(4), recovering.NEW_GROUP[:1]]
TRUST = trust_file(validators=addresses(GROUPS[0]))
FIRST = TrustState.first(TRUST)


# -- statements -------------------------------------------------------------------------------


def alike(data: bytes, state: TrustState = FIRST, trust: Any = TRUST) -> Any:
    ours, theirs = reanchored(data, state, trust)
    assert ours == theirs, f"product {ours}, twin {theirs}, statement {data.hex()}"
    return ours


def test_a_statement_leads_both_to_the_same_state() -> None:
    evidence = (GOOD.fresh().proof.header,) * 2
    known = replace(FIRST, statuses=((1, 2),), newest=7, header=evidence[0], evidence=evidence)
    other = replace(STATEMENT, ledger=Ledger(77, Address(b"\x77" * 20)), sequence=2**64 - 1)
    for state in (FIRST, known, replace(known, height=99, time=NOW + 10**6)):
        for statement in (STATEMENT, other, replace(STATEMENT, code_hash=Hash(bytes(32)))):
            assert alike(signed(statement), state).accepted
            assert alike(signed(statement, KEYS), state).accepted
            after = replace(state, anchored=statement)
            assert alike(signed(statement), after).step == "R5"
    assert alike(signed(replace(STATEMENT, product_id=ProductId(bytes(32))))).step == "R2"
    assert alike(signed(keys=[*KEYS, STRANGER])).step == "R3"


def test_every_bit_of_a_statement_is_refused_at_the_same_step() -> None:
    data = signed()
    steps = {alike(flipped(data, bit)).step for bit in range(8 * len(data))}
    assert steps == {"R1", "R2", "R4"}


@settings(max_examples=400)
@given(st.data())
def test_signed_statements_of_any_content_are_judged_alike(data: st.DataObject) -> None:
    row = STATEMENT.to_list()
    place = data.draw(st.integers(0, structures.places(row) - 1))
    row = structures.replaced(row, place, data.draw(ODD))
    alike(by_holders(cbor.dumps(row)))


def by_holders(content: bytes, *more: bytes) -> bytes:
    """Any bytes, as two holders of recovery keys would sign them."""
    blocks = [
        cose.write_sign1(content, key, kid=key.public.id, detached=True)
        for key in sorted(KEYS[:2], key=lambda key: key.public.id)
    ]
    return cbor.dumps([1, content, [*blocks, *more]])


@settings(max_examples=400)
@given(st.data())
def test_files_of_any_form_are_judged_alike(data: st.DataObject) -> None:
    deep = structures.deep(cbor.loads(signed(), max_bytes=forgery.LIMIT))
    place = data.draw(st.integers(0, structures.places(deep) - 1))
    odd = ODD | st.sampled_from([-19, -9, -7, bytes(64), bytes(65)])
    alike(cbor.dumps(structures.shallow(structures.replaced(deep, place, data.draw(odd)))))


@pytest.mark.parametrize(
    "named",
    [{1: -19}, {4: bytes(32)}, {1: -7, 4: KEYS[0].public.id}, {1: -9, 4: KEYS[0].public.id},
     {1: -65535, 4: KEYS[0].public.id}, {1: -19, 4: bytes(31)}, {1: -19, 4: "x" * 32},
     {1: True, 4: KEYS[0].public.id}, {1: "EdDSA", 4: KEYS[0].public.id},
     {1: -19, 4: KEYS[0].public.id, 5: 1}, {1: -19, "4": KEYS[0].public.id}],
    ids=str,
)  # fmt: skip
def test_protected_headers_of_any_form_are_judged_alike(named: dict[Any, Any]) -> None:
    content = STATEMENT.encode()
    for signature in (bytes(64), bytes(63), bytes(65)):
        block = cbor.dumps(cbor.Tag(18, [cbor.dumps(named), {}, None, signature]))
        for trust in (TRUST, trust_file(1, validators=TRUST.validators)):
            assert not alike(cbor.dumps([1, content, [block]]), trust=trust).accepted


def test_an_es256_recovery_signature_is_read_alike() -> None:
    """-7 says the same of a P-256 key as -9."""
    key = KEYS[1]
    named = cbor.dumps({1: -7, 4: bytes(key.public.id)})
    content = STATEMENT.encode()
    message = cbor.dumps(["Signature1", named, b"", content])
    block = cbor.dumps(cbor.Tag(18, [named, {}, None, key.sign(message)]))
    one = trust_file(1, validators=TRUST.validators)
    assert alike(cbor.dumps([1, content, [block]]), trust=one).accepted


@settings(max_examples=100)
@given(st.lists(st.sampled_from([*KEYS, STRANGER]), max_size=5), st.booleans(), st.booleans())
def test_signatures_in_any_number_and_order_are_judged_alike(
    keys: list[cose.Signer], ordered: bool, once: bool
) -> None:
    content = STATEMENT.encode()
    chosen = list(dict.fromkeys(keys)) if once else keys
    chosen = sorted(chosen, key=lambda key: key.public.id) if ordered else chosen
    blocks = [cose.write_sign1(content, k, kid=k.public.id, detached=True) for k in chosen]
    for threshold in (1, 2, 3):
        trust = trust_file(threshold, validators=TRUST.validators)
        alike(cbor.dumps([1, content, blocks]), trust=trust)
    assert Reanchor(STATEMENT).encode() == cbor.dumps([1, content, []])


# -- memory -----------------------------------------------------------------------------------

TIMES = st.sampled_from([NOW - 700, NOW - 600, NOW, NOW + 1, NOW + 600, NOW + 601, NOW + 5000])
CLOCKS = st.none() | TIMES


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A block of some group, with some links, of some status; now and then broken."""
    group = draw(st.sampled_from([GROUPS[0]] * 8 + GROUPS))
    status = draw(st.sampled_from([Status.ACTIVE, Status.HALTED, Status.REVOKED]))
    head = Head(1, draw(st.sampled_from([GOOD.terms.version, 1 << 50])), 1)
    story = replace(GOOD.with_status(status), group=tuple(group))
    story = replace(story, product=replace(story.product, head=head))
    fresh = story.fresh(draw(st.integers(3, 6)), draw(TIMES), round_number=draw(st.integers(0, 1)))
    links = []
    for number in sorted(draw(st.sets(st.integers(1, 6), max_size=2))):
        listed = draw(st.sampled_from([GROUPS[0]] * 4 + GROUPS))
        both = sorted({*listed, *draw(st.sampled_from([listed, *GROUPS]))}, key=lambda v: v.address)
        sealers = both if set(both) == set(listed) else listed
        links.append(encode_header(seal(make_header(listed, number=number), sealers)))
    fresh = replace(fresh, links=tuple(links))
    if draw(st.integers(0, 5)) == 0:
        fresh = replace(fresh, release=GOOD.release)
    return Bundle(fresh, draw(st.sampled_from([GOOD.static, None]))).encode()


def test_every_step_of_a_device_is_taken_alike() -> None:
    story = replace(GOOD, group=tuple(GROUPS[0]))
    answer = Bundle(story.fresh(5, NOW), GOOD.static).encode()
    kept = story.fresh(4, NOW - 5).proof.header
    state = replace(FIRST, height=4, time=NOW - 5, header=kept)
    frozen = replace(state, evidence=(kept, story.fresh(4, NOW - 4).proof.header))
    at = Pinned(TRUST.anchor, state=state)
    for pinned, step in (
        (at, None),
        (replace(at, state=frozen), "T2"),
        (replace(at, clock=NOW + 95, trusting_period=100), None),
        (replace(at, clock=NOW + 96, trusting_period=100), "T3"),
        (replace(at, build_time=NOW + 96, trusting_period=100), "T3"),
        (replace(at, state=replace(state, time=0), clock=NOW + 96, trusting_period=100), None),
        (replace(at, state=replace(state, height=6)), "T5"),
        (replace(at, state=replace(state, height=5)), None),
        (replace(at, state=replace(state, header=story.fresh(5, NOW - 1).proof.header)), "T6"),
        (replace(at, state=replace(state, time=NOW + 1)), "T7"),
        (replace(at, clock=NOW - 600), None),
        (replace(at, clock=NOW - 601), "T8"),
        (replace(at, clock=NOW + 60, max_age=60), None),
        (replace(at, clock=NOW + 61, max_age=60), "T9"),
        (replace(at, build_time=NOW + 61, max_age=60), "T9"),
    ):
        assert agreed(answer, pinned).step == step


@settings(max_examples=150)
@given(st.lists(st.tuples(answers(), CLOCKS), min_size=1, max_size=5), st.data())
def test_both_remember_the_same(shown: list[tuple[bytes, int | None]], data: st.DataObject) -> None:
    state, sequence = FIRST, 0
    for answer, clock in shown:
        known = {
            "clock": clock,
            "build_time": data.draw(st.sampled_from([0, NOW - 700, NOW + 601])),
            "trusting_period": data.draw(st.sampled_from([0, 600, 5000])),
        }
        age = data.draw(st.sampled_from([0, 60, 10**6]))
        agreed(answer, Pinned(TRUST.anchor, state=state, max_age=age, **known))
        try:
            state, _ = advance(state, Bundle.decode(answer).fresh, TRUST.anchor, **known)
        except Equivocation as error:
            state = error.state
        except (Malformed, Untrusted, Refused):
            pass
        if data.draw(st.integers(0, 3)) == 0:
            sequence += data.draw(st.integers(0, 1))
            said = replace(
                STATEMENT,
                sequence=max(sequence, 1),
                height=data.draw(st.integers(1, 8)),
                time=data.draw(TIMES),
                validators=addresses(data.draw(st.sampled_from([GROUPS[0]] * 4 + GROUPS))),
            )
            verdict = alike(signed(said), state)
            state = TrustState.decode(verdict.values) if verdict.accepted else state
