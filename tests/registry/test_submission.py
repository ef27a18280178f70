"""Submission: what the service takes in to publish, and what no device could use."""

from __future__ import annotations

import dataclasses

import pytest

from protocol import cose, manifest
from protocol.bundle import Static
from protocol.errors import (
    FirmledgerError,
    LedgerRefused,
    LocalFault,
    Malformed,
    Misuse,
    Refused,
    Untrusted,
)
from protocol.ids import ProductId
from registry.draft import Agreed, Draft
from registry.queue import Status
from tests.registry.place import Place


def take(place: Place, draft: Draft, static: Static | None = None) -> int:
    assert draft.agreed is not None
    return place.registry.submission.take(
        static or draft.static, draft.agreed.epoch, draft.agreed.approvals
    )


@pytest.fixture
def draft(place: Place) -> Draft:
    """Release 1.0.0, approved, its payload uploaded."""
    made = place.approved(place.build("1.0.0"))
    data = made.payload_path.read_bytes()
    place.registry.blobs.put_bytes(data, max_size=len(data))
    return made


def test_what_is_taken_is_published_with_its_parts_in_the_store(place: Place, draft: Draft) -> None:
    place.settle(take(place, draft))
    entry = place.registry.catalogue.release(place.product, 1)
    parts = place.registry.artifacts.of(entry.terms_hash)
    assert entry.terms == draft.terms
    assert parts is not None
    assert parts.payload == draft.payload_digest
    assert place.registry.artifacts.static(entry.terms_hash) == draft.static.encode()


def test_taking_it_twice_publishes_it_once(place: Place, draft: Draft) -> None:
    row = take(place, draft)
    assert take(place, draft) == row
    place.settle(row)
    assert take(place, draft) == row
    assert place.settle(row).status is Status.MINED
    assert len(place.registry.catalogue.releases(place.product)) == 1


def test_too_few_approvals_end_as_the_ledgers_refusal_and_can_be_mended(
    place: Place, draft: Draft
) -> None:
    short = place.approved(dataclasses.replace(draft, agreed=None), "alice")
    with pytest.raises(LedgerRefused) as refusal:
        place.settle(take(place, short))
    assert refusal.value.data["error"] == "TooFewApprovals"
    assert place.registry.catalogue.releases(place.product) == []
    place.settle(take(place, draft))
    assert len(place.registry.catalogue.releases(place.product)) == 1


def test_without_its_payload_it_is_refused(place: Place) -> None:
    draft = place.approved(place.build("1.0.0"))
    with pytest.raises(Misuse) as refusal:
        take(place, draft)
    assert refusal.value.reason == "payload-missing"


def test_a_payload_damaged_on_disk_is_noticed(place: Place, draft: Draft) -> None:
    path = place.registry.blobs.path(draft.payload_digest)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LocalFault):
        take(place, draft)


def test_approvals_of_another_epoch_are_refused_before_the_ledger(
    place: Place, draft: Draft
) -> None:
    assert draft.agreed is not None
    stale = dataclasses.replace(draft, agreed=Agreed(2, draft.agreed.approvals))
    with pytest.raises(Refused) as refusal:
        take(place, stale)
    assert refusal.value.reason == "stale-approvals"


def test_an_unknown_product_is_said_to_be_so(place: Place, draft: Draft) -> None:
    elsewhere = dataclasses.replace(draft.terms, product_id=bytes(ProductId(bytes(32))))
    with pytest.raises(Misuse) as refusal:
        take(place, draft, dataclasses.replace(draft.static, terms=elsewhere))
    assert refusal.value.reason == "unknown-product"


def stranger() -> cose.Signer:
    return cose.signer(cose.ed25519_private_key(b"\7" * 32))


def test_a_manifest_signed_by_a_stranger_is_refused(place: Place, draft: Draft) -> None:
    signer = stranger()
    signed = manifest.verify(
        draft.envelope, {place.keys.signer.public.id: place.keys.signer.public}
    )
    envelope = manifest.sign(manifest.build(signed.manifest), signer)
    forged = Static(envelope, cose.public_key_to_bytes(signer.public), draft.terms)
    with pytest.raises(Untrusted) as refusal:
        take(place, draft, forged)
    assert refusal.value.reason == "unknown-key"
    borrowed = dataclasses.replace(forged, signer=draft.signer)
    with pytest.raises(Untrusted):
        take(place, draft, borrowed)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", 1),
        ("security_counter", 9),
        ("image_digest", bytes(32)),
        ("manifest_digest", bytes(32)),
        ("image_size", 1),
        ("key_epoch", 2),
    ],
)
def test_terms_that_the_manifest_does_not_bear_out_are_refused(
    place: Place, draft: Draft, member: str, value: object
) -> None:
    changes: dict[str, object] = {member: value}
    terms = dataclasses.replace(draft.terms, **changes)  # type: ignore[arg-type]
    with pytest.raises(FirmledgerError) as refusal:
        take(place, draft, dataclasses.replace(draft.static, terms=terms))
    assert refusal.value.family in ("untrusted", "malformed")
    assert place.registry.outbox.rows(limit=10, status=Status.QUEUED) == []


@pytest.mark.parametrize("position", [0, 10, 200, -1])
def test_a_flipped_bit_in_the_envelope_is_refused(
    place: Place, draft: Draft, position: int
) -> None:
    envelope = bytearray(draft.envelope)
    envelope[position] ^= 1
    with pytest.raises((Malformed, Untrusted)):
        take(place, draft, dataclasses.replace(draft.static, envelope=bytes(envelope)))
