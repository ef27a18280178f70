"""A re-anchor statement holds by enough distinct recovery keys, and by nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from protocol import cbor, cose, reanchor
from protocol.errors import FirmledgerError, Malformed, Misuse, Untrusted
from protocol.ids import Address, ProductId
from protocol.reanchor import Reanchor, Statement, verify
from protocol.trustfile import TrustFile
from tests.protocol import golden_reanchor
from tests.protocol.published import PRODUCT_ID, flipped
from tests.protocol.recovering import KEYS, STATEMENT, STRANGER, signed, trust_file
from tests.protocol.sealed import addresses, validators

PUBLIC = tuple(key.public for key in KEYS)


def check(data: bytes, threshold: int = 2) -> Statement:
    return verify(data, product_id=PRODUCT_ID, keys=PUBLIC, threshold=threshold)


def refused(data: bytes, reason: str, step: str, threshold: int = 2) -> None:
    with pytest.raises((Malformed, Untrusted)) as caught:
        check(data, threshold)
    assert (caught.value.reason, caught.value.data["step"]) == (reason, step)


def test_two_of_three_keys_are_enough_whichever_and_in_whatever_order_they_sign() -> None:
    for one, two in ((0, 1), (1, 0), (0, 2), (2, 1)):
        assert check(signed(keys=[KEYS[one], KEYS[two]])) == STATEMENT
    assert signed(keys=[KEYS[0], KEYS[1]]) == signed(keys=[KEYS[1], KEYS[0]])
    assert check(signed(keys=KEYS)) == STATEMENT
    assert check(signed(keys=KEYS[:1]), threshold=1) == STATEMENT


def test_too_few_signatures_are_not_enough() -> None:
    refused(signed(keys=KEYS[:1]), "too-few-signatures", "R3")
    refused(signed(keys=[]), "too-few-signatures", "R3", threshold=1)
    refused(signed(keys=KEYS[:2]), "too-few-signatures", "R3", threshold=3)


def test_a_key_that_signs_twice_counts_once() -> None:
    one = reanchor.sign(STATEMENT, KEYS[0])
    assert Reanchor(STATEMENT).signed(KEYS[0]).signed(KEYS[0]).signatures == (one,)
    refused(Reanchor(STATEMENT, (one, one)).encode(), "signature-order", "R1")


def test_a_stranger_voids_the_statement_however_many_signed_it() -> None:
    refused(signed(keys=[KEYS[0], STRANGER]), "unknown-recovery-key", "R4")
    refused(signed(keys=[*KEYS, STRANGER]), "too-few-signatures", "R3")
    refused(signed(keys=[KEYS[0], KEYS[1], STRANGER]), "unknown-recovery-key", "R4")


def test_a_signature_over_another_statement_voids_it() -> None:
    other = reanchor.sign(replace(STATEMENT, height=0), KEYS[1])
    good = reanchor.sign(STATEMENT, KEYS[0])
    both = sorted([(KEYS[0].public.id, good), (KEYS[1].public.id, other)], key=lambda pair: pair[0])
    refused(Reanchor(STATEMENT, tuple(one for _, one in both)).encode(), "bad-signature", "R4")


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 2},
        {"height": 51},
        {"time": 1},
        {"validators": addresses(validators(4))},
        {"code_hash": type(STATEMENT.code_hash)(bytes(32))},
        {"ledger": replace(STATEMENT.ledger, chain_id=1)},
        {"ledger": replace(STATEMENT.ledger, contract=Address(bytes(20)))},
    ],
)
def test_nothing_of_a_statement_changes_after_it_was_signed(change: dict[str, object]) -> None:
    real = Reanchor.decode(signed())
    changed = replace(STATEMENT, **change)  # type: ignore[arg-type]
    assert check(signed(changed)) == changed
    refused(Reanchor(changed, real.signatures).encode(), "bad-signature", "R4")


def test_another_products_statement_is_refused() -> None:
    other = replace(STATEMENT, product_id=ProductId(bytes(32)))
    refused(signed(other), "wrong-product", "R2")


def test_an_attached_payload_or_a_nameless_key_is_refused() -> None:
    bytes_signed = STATEMENT.encode()
    attached = cose.write_sign1(bytes_signed, KEYS[0], kid=KEYS[0].public.id, detached=False)
    nameless = cose.write_sign1(bytes_signed, KEYS[0], kid=b"", detached=True)
    headless = cbor.dumps(cbor.Tag(18, [cbor.dumps({1: cose.ED25519}), {}, None, bytes(64)]))
    parts = cbor.loads(reanchor.sign(STATEMENT, KEYS[0]), max_bytes=192, tags=(18,)).value
    more = cbor.dumps(
        cbor.Tag(18, [*parts[:2], b"more", parts[3]])
    )  # a good signature, and a guest
    for bad in (attached, nameless, headless, more):
        data = cbor.dumps([1, bytes_signed, [bad]])
        with pytest.raises(Malformed) as caught:
            check(data, threshold=1)
        assert caught.value.data["step"] == "R1"


def test_no_bit_of_it_is_free() -> None:
    data = signed()
    for bit in range(8 * len(data)):
        with pytest.raises((Malformed, Untrusted)) as caught:
            check(flipped(data, bit))
        assert caught.value.data["step"] in reanchor.STEPS


@pytest.mark.parametrize(
    "members",
    [
        {0: "firmledger-receipt"},
        {1: 2},
        {1: True},
        {2: bytes(31)},
        {3: 0},
        {4: 2**53},
        {5: bytes(21)},
        {6: b""},
        {7: []},
        {7: [bytes(20), bytes(20)]},
        {7: [b"\x02" * 20, b"\x01" * 20]},
        {7: [bytes([n]) * 20 for n in range(65)]},
        {8: 2**63},
        {9: 2**40 + 1},
        {9: None},
    ],
)
def test_a_statement_out_of_range_is_malformed(members: dict[int, object]) -> None:
    row = STATEMENT.to_list()
    assert Statement.from_list(row) == STATEMENT
    for at, value in members.items():
        row[at] = value
    with pytest.raises(Malformed):
        Statement.from_list(row)


def test_truncated_longer_and_oversized_data_is_malformed() -> None:
    data = signed()
    assert Reanchor.decode(data).encode() == data
    for bad in (b"", data[:-1], data + b"\0", bytes(reanchor.MAX_REANCHOR_BYTES + 1)):
        with pytest.raises(Malformed):
            Reanchor.decode(bad)


def test_the_largest_statement_fits_its_bounds() -> None:
    signers = [cose.signer(cose.p256_private_key(bytes([n]) * 32)) for n in range(1, 17)]
    big = replace(
        STATEMENT,
        sequence=2**64 - 1,
        ledger=replace(STATEMENT.ledger, chain_id=reanchor.MAX_CHAIN_ID),
        validators=addresses(validators(64)),
        height=reanchor.MAX_HEIGHT,
        time=reanchor.MAX_TIME,
    )
    public = [key.public for key in signers]
    read = verify(signed(big, signers), product_id=PRODUCT_ID, keys=public, threshold=16)
    assert read == big
    with pytest.raises(Misuse):
        Reanchor.decode(signed(big, signers)).signed(STRANGER)


def test_without_recovery_keys_nothing_is_a_statement() -> None:
    for keys, threshold in (((), 0), ((), 1), (PUBLIC, 0), (PUBLIC, 4), ((PUBLIC[0],) * 2, 1)):
        with pytest.raises(Misuse) as caught:
            verify(signed(), product_id=PRODUCT_ID, keys=keys, threshold=threshold)
        assert caught.value.reason == "no-recovery-keys"


def test_a_trust_file_names_keys_that_are_keys_each_once() -> None:
    good = trust_file()
    assert TrustFile.parse(good.to_bytes()) == good
    assert good.recovery_public_keys == PUBLIC
    hexed = good.recovery_keys
    for keys in (
        (hexed[0], hexed[0].upper()),
        (hexed[0], hexed[0]),
        (hexed[0], "00"),
        (hexed[0], "zz"),
        (hexed[0], hexed[1] + " "),
    ):
        with pytest.raises(FirmledgerError) as caught:
            TrustFile.parse(replace(good, recovery_keys=keys).to_bytes())
        assert caught.value.reason == "bad-trust-file"


def test_the_golden_vectors_are_what_the_code_gives() -> None:
    assert json.loads(golden_reanchor.PATH.read_text()) == golden_reanchor.document()


@pytest.mark.parametrize(
    ("threshold", "count", "good"),
    [(0, 0, True), (1, 1, True), (3, 3, True), (1, 3, True), (0, 1, False), (1, 0, False),
     (4, 3, False)],
)  # fmt: skip
def test_a_threshold_is_one_to_the_number_of_keys(threshold: int, count: int, good: bool) -> None:
    keys = trust_file().recovery_keys[:count]
    data = replace(trust_file(), recovery_threshold=threshold, recovery_keys=keys).to_bytes()
    if good:
        assert TrustFile.parse(data).recovery_threshold == threshold
    else:
        with pytest.raises(Malformed):
            TrustFile.parse(data)


def test_a_trust_file_is_utf_8_and_names_a_key_once() -> None:
    good = trust_file(1)
    for bad in (
        good.to_bytes().decode().encode("utf-16"),
        b"\xef\xbb\xbf" + good.to_bytes(),
        replace(good, recovery_keys=good.recovery_keys[:1] * 2).to_bytes(),
    ):
        with pytest.raises(Malformed):
            TrustFile.parse(bad)


ODD_TEXTS = ("\x1b[31mred", "a\nb", "left\u202eright", "\ud800", "a\u00a0b", "\u2028", "\x7f")


@pytest.mark.parametrize("odd", [*ODD_TEXTS, "x" * 513])
def test_texts_of_a_trust_file_are_printable_and_bounded(odd: str) -> None:
    good = replace(
        trust_file(), product_name="Wärmepumpe 温 3", registries=("http://" + "x" * 505,)
    )
    assert TrustFile.parse(good.to_bytes()) == good
    for members in ({"product_name": odd}, {"registries": ("http://a.example", odd)}):
        with pytest.raises(Malformed) as caught:
            TrustFile.parse(replace(good, **members).to_bytes())
        assert caught.value.reason == "bad-trust-file"


def test_a_trust_file_that_says_a_thing_twice_is_refused() -> None:
    good = trust_file().to_bytes()
    twice = good.replace(b'"max_age": 3600', b'"max_age": 3600, "max_age": 99999999')
    assert twice != good
    with pytest.raises(Malformed):
        TrustFile.parse(twice)
