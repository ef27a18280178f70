"""The golden vectors of bundles are what the generator makes, and say what a device says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from device_client.core.belief import TrustState
from device_client.core.trust import advance
from protocol import bundle, receipt
from protocol.bundle import Acknowledgement, Anchor, Bundle
from protocol.errors import Malformed, Untrusted
from protocol.ids import Address, Hash, ProductId
from protocol.records import Ledger
from tests.protocol import golden_bundles, samples


def vector(name: str) -> Any:
    return json.loads((samples.GOLDEN / name).read_text())


def pinned(name: str, row: dict[str, Any]) -> tuple[Anchor, TrustState]:
    """The trust file and the trusted state that a row of a file asks for."""
    said = vector(name)["pinned"] | row.get("pinned", {})
    validators = tuple(Address.parse(one) for one in said["validators"])
    ledger = Ledger(said["chain_id"], Address.parse(said["contract"]))
    product, code = ProductId.parse(said["product"]), Hash.parse(said["code_hash"])
    header = bytes.fromhex(said["header"])
    state = TrustState(said["height"], said["time"], header, validators)
    return Anchor(ledger, product, code, validators), state


def read(data: bytes, anchor: Anchor, state: TrustState) -> tuple[bundle.View, bundle.Offer | None]:
    """All that a device does with a bundle before it asks for policy."""
    whole = Bundle.decode(data)
    _, view = advance(state, whole.fresh, anchor, clock=None)
    return view, bundle.offer(whole.static, view) if whole.static else None


@pytest.mark.parametrize("name", sorted(golden_bundles.vectors()))
def test_the_committed_files_are_what_is_made(name: str) -> None:
    assert vector(name) == golden_bundles.vectors()[name]


ACCEPTED, TAMPERED = "bundle-accepted.json", "bundle-tampered.json"


@pytest.mark.parametrize("row", vector(ACCEPTED)["cases"], ids=lambda row: row["name"])
def test_golden_bundles(row: dict[str, Any]) -> None:
    view, offer = read(bytes.fromhex(row["bundle"]), *pinned(ACCEPTED, row))
    shown = row["shows"]
    assert (view.number, view.timestamp) == (shown["number"], shown["timestamp"])
    assert view.block_hash.hex() == shown["block_hash"]
    assert [one.hex() for one in view.sealers] == shown["sealers"]
    assert (offer is not None) == ("terms_hash" in shown)
    if offer is not None:
        assert offer.release_id == shown["release_id"]
        assert offer.terms_hash.hex() == shown["terms_hash"]
        assert offer.key_id.hex() == shown["key_id"]


@pytest.mark.parametrize("row", vector(TAMPERED)["cases"], ids=lambda row: row["name"])
def test_golden_bundles_that_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises((Malformed, Untrusted)) as caught:
        read(bytes.fromhex(row["bundle"]), *pinned(TAMPERED, row))
    said = caught.value.data.get("step", "T1")  # while reading, there is no step yet
    assert (said, caught.value.reason) == (row["step"], row["reason"])


def test_every_step_has_a_tampered_bundle() -> None:
    trust = {"T1", "T4", "T5", "T6", "T7"}
    assert {row["step"] for row in vector(TAMPERED)["cases"]} == {*trust, *bundle.STEPS}


def test_the_golden_stick() -> None:
    row = vector("bundle-stick.json")
    assert bundle.read_stick_prefix(bytes.fromhex(row["prefix"])) == row["bundle_bytes"]
    for bad in row["refused"].values():
        with pytest.raises(Malformed):
            bundle.read_stick_prefix(bytes.fromhex(bad))


@pytest.mark.parametrize(
    "row", vector("bundle-acknowledged.json")["cases"], ids=lambda row: row["name"]
)
def test_golden_acknowledgements(row: dict[str, Any]) -> None:
    name = "bundle-acknowledged.json"
    ack = Acknowledgement.decode(bytes.fromhex(row["ack"]))
    view = bundle.prove(ack.fresh, pinned(name, row)[0])
    leaf = receipt.receipt_leaf(bytes.fromhex(vector(name)["receipt"]))
    if row["reason"] is None:
        ack.check(leaf, row["release"], view)
    else:
        with pytest.raises(Untrusted) as caught:
            ack.check(leaf, row["release"], view)
        assert caught.value.reason == row["reason"]
