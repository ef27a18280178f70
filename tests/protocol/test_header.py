"""Sealed headers: who may seal, how many must, and that nothing else passes."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import rlp
from coincurve import PublicKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.digests import keccak256
from protocol.errors import FirmledgerError, Malformed, Misuse, Untrusted
from protocol.header import (
    MAX_FIELDS,
    MAX_ITEMS,
    MAX_VALIDATORS,
    Extra,
    Field,
    Header,
    Vote,
    block_hash,
    build_header,
    check_seals,
    encode_extra,
    encode_header,
    link_ok,
    parse_extra,
    parse_header,
    quorum,
    seal_digest,
    sealers,
    sign_seal,
    trim_seals,
    with_seals,
)
from protocol.ids import Address
from tests.protocol.sealed import Validator, addresses, make_header, seal, validators

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def external_vectors() -> Path:
    """Where vectors that are not ours lie: FIRMLEDGER_VECTORS, or beside the checkout."""
    if given_path := os.environ.get("FIRMLEDGER_VECTORS"):
        return Path(given_path)
    root = Path(__file__).resolve().parents[2]
    places = [root.parent / "shared" / "vectors", root.parent.parent / "shared" / "vectors"]
    return next((place for place in places if place.is_dir()), places[0])


def refusal(header: Header, trusted: tuple[Address, ...]) -> str:
    with pytest.raises(Untrusted) as caught:
        check_seals(header, trusted)
    return caught.value.reason


# ---- the bytes


def test_extra_data_of_besu_reads_and_encodes_back() -> None:
    path = external_vectors() / "qbft-extra-data.json"
    if not path.is_file():
        pytest.skip(f"external vector {path.name} is not here; FIRMLEDGER_VECTORS says where")
    vector = json.loads(path.read_text())
    raw, decoded = bytes.fromhex(vector["extra_data_hex"]), vector["decoded"]
    extra = parse_extra(raw)
    assert extra.round == decoded["round"]
    assert [str(one) for one in extra.validators] == decoded["validators"]
    assert extra.vote == Vote(Address.parse(decoded["vote"]["recipient"]), add=True)
    assert extra.vanity == bytes(range(1, 33))
    assert len(extra.seals) == 2
    assert encode_extra(extra) == raw


ADDRESSES = st.binary(min_size=20, max_size=20).map(Address)
EXTRAS = st.builds(
    Extra,
    vanity=st.binary(min_size=32, max_size=32),
    validators=st.sets(ADDRESSES, max_size=9).map(lambda found: tuple(sorted(found))),
    vote=st.none() | st.builds(Vote, recipient=ADDRESSES, add=st.booleans()),
    round=st.integers(0, 2**31 - 1),
    seals=st.lists(st.binary(min_size=65, max_size=65), max_size=9).map(tuple),
)


@given(EXTRAS)
def test_extra_data_reads_back(extra: Extra) -> None:
    raw = encode_extra(extra)
    assert parse_extra(raw) == extra
    vote = [] if extra.vote is None else [extra.vote.recipient, b"\xff" if extra.vote.add else b""]
    number = rlp.sedes.big_endian_int.serialize(extra.round)
    assert raw == rlp.encode(
        [extra.vanity, list(extra.validators), vote, number, list(extra.seals)]
    )


@given(st.lists(st.one_of(st.binary(max_size=40), st.lists(st.binary(max_size=9))), max_size=9))
def test_headers_read_back_with_whatever_follows_the_known_fields(more: list[object]) -> None:
    header = make_header(validators(4), more=more)
    raw = encode_header(header)
    assert raw == rlp.encode(list(header.fields))
    assert parse_header(raw) == header
    assert list(header.fields[15:]) == more


@given(st.binary(max_size=700))
def test_garbage_is_malformed(raw: bytes) -> None:
    for parser in (parse_header, parse_extra):
        with pytest.raises(Malformed):
            parser(raw)


def remade(at: Field, value: object) -> bytes:
    fields: list[object] = list(make_header(validators(1)).fields)
    fields[at] = value
    return rlp.encode(fields)


@pytest.mark.parametrize(
    "raw",
    [
        *(remade(at, b"") for at in (Field.PARENT_HASH, Field.STATE_ROOT, Field.LOGS_BLOOM)),
        remade(Field.COINBASE, bytes(21)),
        remade(Field.NONCE, bytes(7)),
        remade(Field.NUMBER, b"\x01" * 9),
        remade(Field.NUMBER, b"\x00\x01"),
        remade(Field.TIMESTAMP, b"\x01" * 9),
        remade(Field.GAS_LIMIT, b"\x01" * 9),
        remade(Field.GAS_USED, b"\x01" * 9),
        remade(Field.TIMESTAMP, b"\x00"),
        remade(Field.TIMESTAMP, [b"\x01"]),
        remade(Field.DIFFICULTY, b"\x01" * 33),
        remade(Field.EXTRA_DATA, b""),
        remade(Field.EXTRA_DATA, []),
        remade(Field.EXTRA_DATA, bytes(32)),
        rlp.encode([b""] * 14),
        rlp.encode(list(make_header(validators(1)).fields[:14])),
        rlp.encode([*make_header(validators(1)).fields, *[b""] * (MAX_FIELDS - 14)]),
        rlp.encode([*make_header(validators(1)).fields, bytes(8192)]),
        rlp.encode([*make_header(validators(1)).fields, [b""] * 256]),
        encode_header(make_header(validators(1))) + b"\0",
        encode_header(make_header(validators(1)))[:-1],
    ],
)
def test_what_is_no_header_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_header(raw)


VANITY, ONE = bytes(32), bytes(20)


@pytest.mark.parametrize(
    "parts",
    [
        [VANITY, [ONE], [], b""],
        [VANITY, [ONE], [], b"", [], b""],
        [VANITY[1:], [ONE], [], b"", []],
        [VANITY, ONE, [], b"", []],
        [VANITY, [ONE[1:]], [], b"", []],
        [VANITY, [ONE, ONE], [], b"", []],  # one twice
        [VANITY, [b"\x02" * 20, b"\x01" * 20], [], b"", []],  # not ascending
        [VANITY, [ONE], b"", b"", []],
        [VANITY, [ONE], [ONE], b"", []],
        [VANITY, [ONE], [ONE, b"\x00"], b"", []],  # dropping is written as nothing
        [VANITY, [ONE], [ONE, b"\x01"], b"", []],
        [VANITY, [ONE], [ONE, []], b"", []],
        [VANITY, [ONE], [ONE[1:], b"\xff"], b"", []],
        [VANITY, [ONE], [], b"\x00", []],
        [VANITY, [ONE], [], b"\x00\x00\x00\x01", []],
        [VANITY, [ONE], [], b"\x80\x00\x00\x00", []],
        [VANITY, [ONE], [], [], []],
        [VANITY, [ONE], [], b"", b""],
        [VANITY, [ONE], [], b"", [bytes(64)]],
        [VANITY, [ONE], [], b"", [bytes(65)] * (MAX_VALIDATORS + 1)],
        [VANITY, [bytes([n]) * 20 for n in range(MAX_VALIDATORS + 1)], [], b"", []],
    ],
)
def test_what_is_no_extra_data_is_malformed(parts: list[object]) -> None:
    with pytest.raises(Malformed):
        parse_extra(rlp.encode(parts))


def test_the_largest_header_fits_its_limit() -> None:
    group, vote = validators(MAX_VALIDATORS), Vote(Address(ONE), add=True)
    made = make_header(group, number=2**64 - 1, timestamp=2**64 - 1, vote=vote)
    header = seal(made, group)
    read = parse_header(encode_header(header))
    assert check_seals(read, addresses(group)) == addresses(group)
    with pytest.raises(Misuse):
        check_seals(read, addresses(validators(MAX_VALIDATORS + 1)))


def test_opaque_fields_are_counted_and_their_depth_is_bounded() -> None:
    group = validators(1)
    deep: list[object] = []
    for _ in range(6):
        deep = [deep]
    known = make_header(group).fields
    room = MAX_ITEMS - 1 - len(known) - 1  # beside the header itself, its fields and one list
    for more in ([b""] * (MAX_FIELDS - 15), [deep], [[b""] * room]):
        assert list(parse_header(rlp.encode([*known, *more])).fields[15:]) == more
    for more in ([b""] * (MAX_FIELDS - 14), [[deep]], [[b""] * (room + 1)]):
        with pytest.raises(Malformed):
            parse_header(rlp.encode([*known, *more]))


# ---- digests


def test_digests_leave_out_what_besu_leaves_out() -> None:
    group = validators(4)
    for round_number in (0, 1, 2**31 - 1):
        header = seal(make_header(group, round_number=round_number), group)
        fields = list(header.fields)
        extra = rlp.decode(fields[Field.EXTRA_DATA])
        fields[Field.EXTRA_DATA] = rlp.encode([*extra[:4], []])
        assert seal_digest(header) == keccak256(rlp.encode(fields))
        fields[Field.EXTRA_DATA] = rlp.encode([*extra[:3], b"", []])
        assert block_hash(header) == keccak256(rlp.encode(fields))
        assert (seal_digest(header) == block_hash(header)) == (round_number == 0)


def test_the_block_hash_is_the_same_in_every_round_and_under_every_seal() -> None:
    group = validators(4)
    headers = [make_header(group, round_number=number) for number in range(3)]
    names = {block_hash(seal(header, group[:3])) for header in headers}
    assert names == {block_hash(seal(headers[0], group))}
    assert len({seal_digest(header) for header in headers}) == 3


# ---- quorum and seals


def test_quorum_is_two_thirds_rounded_up() -> None:
    expected = [1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 10, 11, 12, 12, 13, 14, 14, 15, 16, 16]
    expected += [17, 18, 18, 19, 20, 20, 21]
    assert [quorum(n) for n in range(1, 32)] == expected
    for n in range(1, 32):
        assert 3 * quorum(n) >= 2 * n > 3 * (quorum(n) - 1)
    with pytest.raises(Misuse):
        quorum(0)


@pytest.mark.parametrize("count", range(1, 32))
def test_a_quorum_is_enough_and_one_less_is_not(count: int) -> None:
    group = validators(count)
    header, needed = make_header(group, round_number=count % 2), quorum(count)
    assert check_seals(seal(header, group[:needed]), addresses(group)) == addresses(group[:needed])
    assert check_seals(seal(header, group), addresses(group)) == addresses(group)
    assert refusal(seal(header, group[: needed - 1]), addresses(group)) == "no-quorum"


def test_every_quorum_of_four_seals_and_no_pair_does() -> None:
    group = validators(4)
    header = make_header(group)
    for chosen in combinations(group, 3):
        assert check_seals(seal(header, chosen), addresses(group)) == addresses(chosen)
    for pair in combinations(group, 2):
        assert refusal(seal(header, pair), addresses(group)) == "no-quorum"


def test_one_foreign_seal_voids_the_header() -> None:
    group, stranger = validators(4), Validator(99)
    header = make_header(group)
    for chosen in ([*group[:3], stranger], [stranger, *group[1:]], [stranger, *group[:2]]):
        assert refusal(seal(header, chosen), addresses(group)) == "foreign-seal"


def test_one_duplicate_seal_voids_the_header() -> None:
    group = validators(4)
    header = make_header(group)
    twice = [*group[:3], group[0]]
    assert refusal(seal(header, twice), addresses(group)) == "duplicate-seal"
    assert refusal(seal(header, [group[0]] * 3), addresses(group)) == "duplicate-seal"


def test_more_seals_than_validators_are_not_even_looked_at() -> None:
    group = validators(4)
    header = with_seals(make_header(group), [bytes(65)] * 5)
    assert refusal(header, addresses(group)) == "no-quorum"


def test_a_header_sealed_by_strangers_is_refused_whatever_it_lists() -> None:
    group, strangers = validators(4), validators(4, start=50)
    assert (
        refusal(seal(make_header(strangers), strangers), addresses(group)) == "validators-changed"
    )
    assert refusal(seal(make_header(group), strangers), addresses(group)) == "foreign-seal"


def test_seals_of_another_round_or_block_do_not_count() -> None:
    group = validators(4)
    header = make_header(group)
    for other in (make_header(group, round_number=1), make_header(group, number=8)):
        moved = with_seals(header, seal(other, group).extra.seals)
        assert refusal(moved, addresses(group)) == "foreign-seal"


def test_genesis_and_contract_mode_are_refused_by_name() -> None:
    group = validators(4)
    assert refusal(seal(make_header(group, number=0), group), addresses(group)) == "genesis"
    unlisted = make_header([])
    assert refusal(unlisted, addresses(group)) == "validators-by-contract"
    for header, reason in (
        (seal(make_header(group, number=0), group), "genesis"),
        (unlisted, "validators-by-contract"),
    ):
        for act in (
            lambda header=header: link_ok(header, addresses(group)),
            lambda header=header: trim_seals(header),
        ):
            with pytest.raises(Untrusted) as caught:
                act()
            assert caught.value.reason == reason


@pytest.mark.parametrize("trusted", [(), (Address(ONE), Address(ONE))])
def test_a_trusted_set_that_cannot_be_is_the_callers_fault(trusted: tuple[Address, ...]) -> None:
    group = validators(1)
    with pytest.raises(Misuse):
        check_seals(seal(make_header(group), group), trusted)
    with pytest.raises(Misuse):
        link_ok(seal(make_header(group), group), trusted)


def mirrored(one: bytes) -> bytes:
    """The other signature of the same key over the same digest: n - s, the other parity."""
    s = ORDER - int.from_bytes(one[32:64], "big")
    return one[:32] + s.to_bytes(32, "big") + bytes([1 - one[64]])


def test_a_seal_has_one_form() -> None:
    group = validators(4)
    sealed = seal(make_header(group), group[:3])
    good = sealed.extra.seals
    zero, over = bytes(32), ORDER.to_bytes(32, "big")
    for bad in (
        mirrored(good[0]),
        *(good[0][:64] + bytes([v]) for v in (2, 3, 27, 28, 255)),
        zero + good[0][32:],
        good[0][:32] + zero + good[0][64:],
        over + good[0][32:],
        bytes(65),
    ):
        assert refusal(with_seals(sealed, [bad, *good[1:]]), addresses(group)) == "bad-seal"
    assert check_seals(sealed, addresses(group)) == addresses(group[:3])


def test_recovery_ids_above_one_are_refused_even_where_a_key_can_be_recovered() -> None:
    group = validators(4)
    sealed = seal(make_header(group), group[:3])
    digest, good = seal_digest(sealed), sealed.extra.seals
    recovered = 0
    for r in range(1, 12):  # below p - n, so that r + n is a point's x as well
        made = r.to_bytes(32, "big") + good[0][32:64] + b"\x02"
        with suppress(ValueError):
            PublicKey.from_signature_and_message(made, digest, hasher=None)
            recovered += 1
        assert refusal(with_seals(sealed, [made, *good[1:]]), addresses(group)) == "bad-seal"
    assert recovered


def test_the_upper_half_of_the_curve_starts_where_the_standard_says() -> None:
    group = validators(4)
    sealed = seal(make_header(group), group[:3])
    good = sealed.extra.seals
    for s, reason in ((ORDER // 2, "foreign-seal"), (ORDER // 2 + 1, "bad-seal")):
        made = good[0][:32] + s.to_bytes(32, "big") + good[0][64:]
        assert refusal(with_seals(sealed, [made, *good[1:]]), addresses(group)) == reason


def test_no_bit_of_a_sealed_header_can_change() -> None:
    group = validators(1)
    raw = encode_header(seal(make_header(group, round_number=1), group))
    assert check_seals(parse_header(raw), addresses(group)) == addresses(group)
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FirmledgerError) as caught:
            check_seals(parse_header(bytes(flipped)), addresses(group))
        assert isinstance(caught.value, (Malformed, Untrusted))


# ---- links


def test_a_link_needs_the_new_quorum_and_two_thirds_of_the_old() -> None:
    old = validators(4)
    grown = validators(5)
    joined = [one for one in grown if one not in old]
    header = make_header(grown)
    assert link_ok(seal(header, grown), addresses(old)) == addresses(grown)
    assert link_ok(seal(header, [*old[:3], *joined]), addresses(old)) == addresses(grown)
    with pytest.raises(Untrusted) as caught:
        link_ok(seal(header, old[:3]), addresses(old))  # 3 of 4, but 4 of 5 must
    assert caught.value.reason == "no-quorum"


@pytest.mark.parametrize(("kept", "enough"), [(0, False), (1, False), (2, False), (3, True)])
def test_an_overlap_below_two_thirds_is_refused(kept: int, enough: bool) -> None:
    old = validators(4)
    new = sorted([*old[:kept], *validators(6 - kept, start=40)], key=lambda one: one.address)
    header = seal(make_header(new), new)
    if enough:
        assert link_ok(header, addresses(old)) == addresses(new)
    else:
        with pytest.raises(Untrusted) as caught:
            link_ok(header, addresses(old))
        assert caught.value.reason == "no-overlap"


def test_the_trusted_who_left_do_not_seal_for_those_who_stay() -> None:
    old = validators(4)
    new = sorted([*old[:3], Validator(40)], key=lambda one: one.address)
    with pytest.raises(Untrusted) as caught:
        link_ok(seal(make_header(new), [*old[:3], old[3]]), addresses(old))
    assert caught.value.reason == "foreign-seal"


# ---- trimming


def test_trimming_keeps_a_quorum_in_order() -> None:
    group = validators(7)
    trimmed = trim_seals(seal(make_header(group), reversed(group)))
    assert sealers(trimmed) == addresses(group[:5])
    assert replace(trimmed.extra, seals=()) == make_header(group).extra
    assert trim_seals(trimmed) == trimmed


def test_trimming_for_a_link_keeps_those_whom_the_reader_knows() -> None:
    old = validators(7)
    new = sorted([*old[:5], *validators(2, start=40)], key=lambda one: one.address)
    header = seal(make_header(new), new)
    trimmed = trim_seals(header, addresses(old))
    assert len(trimmed.extra.seals) == 5
    assert link_ok(trimmed, addresses(old)) == addresses(new)
    assert list(sealers(trimmed)) == sorted(sealers(trimmed))


def test_trimming_never_makes_a_bad_header_good() -> None:
    group = validators(4)
    with pytest.raises(Untrusted):
        trim_seals(seal(make_header(group), [*group, Validator(99)][1:]))


def test_a_header_needs_its_fields_to_be_built() -> None:
    with pytest.raises(Misuse):
        build_header([b""] * 12, Extra(VANITY, (), None, 0, ()))


def test_signing_is_deterministic() -> None:
    group = validators(1)
    header = make_header(group)
    assert sign_seal(header, group[0].key) == sign_seal(header, group[0].key)
