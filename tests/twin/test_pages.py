"""The twin against every golden vector: the pages are enough to write a verifier that agrees.

The product is held to the same files by tests/protocol and tests/contracts, so here they meet.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.twin import verifier

VECTORS = Path(__file__).resolve().parents[2] / "protocol" / "vectors"


def vector(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def raws(texts: list[str]) -> list[bytes]:
    return [raw(text) for text in texts]


# -- proofs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", vector("proof-headers")["headers"], ids=lambda row: row["name"])
def test_headers(row: dict[str, Any]) -> None:
    header = verifier.sealed_header(raw(row["header"]), raws(row["trusted"]))
    assert (header["number"], header["time"]) == (row["number"], row["timestamp"])
    assert header["round"] == row["round"]
    for name in ("state_root", "seal_digest", "block_hash"):
        assert header[name] == raw(row[name])
    assert header["sealers"] == raws(row["sealers"])
    assert verifier.quorum(len(header["validators"])) == row["quorum"]


@pytest.mark.parametrize("row", vector("proof-headers")["refused"], ids=lambda row: row["reason"])
def test_headers_that_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(verifier.Refusal) as caught:
        verifier.sealed_header(raw(row["header"]), raws(row["trusted"]))
    assert (caught.value.step, caught.value.why) == (3, row["reason"])


@pytest.mark.parametrize("row", vector("proof-headers")["links"], ids=lambda row: row["name"])
def test_links(row: dict[str, Any]) -> None:
    try:
        header = verifier.sealed_header(raw(row["header"]), None)
    except verifier.Refusal as refusal:
        assert refusal.why == row["reason"]
        return
    if verifier.believe(raws(row["trusted"]), header):
        assert row["reason"] is None and header["validators"] == raws(row["validators"])
    else:
        assert row["reason"] == "no-overlap"


def verified(row: dict[str, Any]) -> list[bytes]:
    trust = {
        "validators": raws(row["validators"]),
        "contract": raw(row["contract"]),
        "code_hash": raw(row["code_hash"]),
    }
    slots = raws(row["slots"])
    words = verifier.verify_state(trust, raw(row["header"]), raws(row["nodes"]), slots)[1]
    return [words[slot] for slot in slots]


@pytest.mark.parametrize("row", vector("proof-states")["proofs"], ids=lambda row: row["name"])
def test_states(row: dict[str, Any]) -> None:
    assert verified(row) == raws(row["values"])


@pytest.mark.parametrize("row", vector("proof-states")["refused"], ids=lambda row: row["name"])
def test_states_that_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(verifier.Refusal) as caught:
        verified(row)
    assert caught.value.step == row["step"]
    assert caught.value.why == row["reason"] or row["reason"].startswith("rlp-")


# -- commitments ------------------------------------------------------------------------------

COMMITMENTS = vector("commitments")
LEDGER = {
    "chain_id": int(COMMITMENTS["chainId"]),
    "contract": raw(COMMITMENTS["contract"]),
    "product": raw(COMMITMENTS["productId"]),
}


def record(kind: str, value: Any) -> Any:
    """A record of the vectors in the twin's form; both write 64-bit numbers as text."""
    if kind.endswith("[]"):
        return [record(kind.removesuffix("[]"), item) for item in value]
    if kind in verifier.TYPES:
        snake = {
            member: re.sub("([A-Z])", lambda found: "_" + found[1].lower(), member)
            for _, member in verifier.fields(kind)
        }
        return {member: record(of, value[snake[member]]) for of, member in verifier.fields(kind)}
    if kind == "bool":
        return value
    return int(value) if kind.startswith("uint") else raw(value)


def test_identities_and_places() -> None:
    creator, salt = raw(COMMITMENTS["creator"]), raw(COMMITMENTS["salt"])
    assert verifier.keccak(verifier.word(creator) + salt) == LEDGER["product"]
    places = COMMITMENTS["places"]
    assert verifier.product_place(LEDGER["product"]) == raw(places["product"])
    assert verifier.release_place(LEDGER["product"], 1) == raw(places["release 1"])
    row = COMMITMENTS["cohort"]
    turn = verifier.cohort(LEDGER["product"], row["releaseId"], raw(row["deviceId"]))
    assert turn == row["cohort"]
    terms = record("Terms", COMMITMENTS["terms"])
    assert verifier.hash_struct("Terms", terms) == raw(COMMITMENTS["termsHash"])


@pytest.mark.parametrize("row", COMMITMENTS["snapshots"], ids=lambda row: row["after"])
def test_commitments(row: dict[str, Any]) -> None:
    product = record("Product", row["product"])
    assert verifier.product_commitment(LEDGER, product, row["time"]) == raw(row["productSlot"])
    if "release" in row:
        release = {
            "id": row["release"]["release_id"],
            "termsHash": raw(row["release"]["terms_hash"]),
            "state": record("State", row["release"]["state"]),
        }
        assert verifier.release_commitment(LEDGER, release) == raw(row["releaseSlot"])


@pytest.mark.parametrize("kind", ["Approval", "Amendment", "Decision"])
def test_what_approvers_sign(kind: str) -> None:
    row = COMMITMENTS["digests"][kind.lower()]
    members = {
        **{name: int(row[name]) for name in row if name != "digest"},
        "terms": record("Terms", COMMITMENTS["terms"]),
        "next": record("Governance", COMMITMENTS["next"]),
        "productId": LEDGER["product"],
    }
    assert verifier.approved_digest(LEDGER, kind, members) == raw(row["digest"])


# -- manifests and receipts -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ed25519", "esp256", "notes", "severed"])
def test_manifests(name: str) -> None:
    row = vector(f"manifest-{name}")
    envelope = verifier.open_envelope(raw(row["envelope"]))
    said = verifier.check_envelope(envelope, raw(row["signing_key"]))
    assert envelope["digest"] == raw(row["manifest_digest"])
    assert verifier.sha256(raw(row["signing_key"])) == raw(row["key_id"])
    assert said == {
        "productId": raw(row["product"]),
        "version": int(row["sequence_number"]),
        "securityCounter": row["security_counter"],
        "imageDigest": raw(row["image_digest"]),
        "imageSize": row["image_size"],
        "payloadDigest": raw(row["payload_digest"]),
        "keyEpoch": row["key_epoch"],
        "notes": row["notes"],
    }


def test_payload() -> None:
    row = vector("payload-a128ctr")
    info, secret = raw(row["encryption_info"]), int(row["class_secret"], 16)
    private = ec.derive_private_key(secret, ec.SECP256R1())
    assert verifier.encryption_info(info) == row["key_epoch"]
    key, iv = verifier.content_key(info, private)
    assert (key, iv) == (raw(row["content_key"]), raw(row["iv"]))
    assert verifier.decrypted(key, iv, raw(row["payload"])) == raw(row["image"])
    with pytest.raises(verifier.Refusal):
        verifier.content_key(info, ec.derive_private_key(secret + 1, ec.SECP256R1()))


def test_every_vector_is_read_here() -> None:
    text = Path(__file__).read_text()
    for file in VECTORS.glob("*.json"):
        family = file.stem.partition("-")[0]
        assert f'"{file.stem}"' in text or f'vector(f"{family}-' in text, file.name


@pytest.mark.parametrize("row", vector("manifest-tampered")["cases"], ids=lambda row: row["name"])
def test_manifests_that_are_refused(row: dict[str, Any]) -> None:
    for key in vector("manifest-tampered")["keys"]:
        with pytest.raises(verifier.Refusal):
            verifier.check_envelope(verifier.open_envelope(raw(row["data"])), raw(key))


@pytest.mark.parametrize("name", ["confirmed", "refused", "rolled-back"])
def test_receipts(name: str) -> None:
    row = vector(f"receipt-{name}")
    said = verifier.verify_receipt(raw(row["receipt"]), raw(row["device_key"]))
    plain = ("release", "outcome", "reason", "height", "time", "sequence", "consent")
    assert {key: said[key] for key in plain} == {key: row[key] for key in plain}
    assert (said["product"], said["previous"]) == (raw(row["product"]), raw(row["previous"]))
    assert said["counters"] == (row["counter_before"], row["counter_after"])
    assert said["node"] == (None if row["node"] is None else raw(row["node"]))
    assert verifier.sha256(raw(row["device_key"])) == raw(row["device_id"])
    assert verifier.log_leaf(raw(row["receipt"])) == raw(row["leaf"])


@pytest.mark.parametrize("row", vector("receipt-tampered")["cases"], ids=lambda row: row["name"])
def test_receipts_that_are_refused(row: dict[str, Any]) -> None:
    (key,) = raws(vector("receipt-tampered")["keys"])
    with pytest.raises(verifier.Refusal):
        verifier.verify_receipt(raw(row["data"]), key[-32:])


# -- re-anchoring ------------------------------------------------------------------------------


REANCHOR = vector("reanchor")
RECOVERY = {
    "product": raw(REANCHOR["product"]),
    "threshold": REANCHOR["threshold"],
    "recovery_keys": raws(REANCHOR["keys"]),
}


@pytest.mark.parametrize("row", REANCHOR["accepted"], ids=lambda row: row["name"])
def test_statements(row: dict[str, Any]) -> None:
    said, told = verifier.verify_reanchor(raw(row["file"]), RECOVERY), row["statement"]
    for name in ("product", "contract", "code_hash"):
        assert said[name] == raw(told[name])
    assert said["validators"] == raws(told["validators"])
    for name in ("sequence", "chain_id", "height", "time"):
        assert said[name] == int(told[name])


@pytest.mark.parametrize("row", REANCHOR["refused"], ids=lambda row: row["name"])
def test_statements_that_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(verifier.Refusal) as caught:
        verifier.verify_reanchor(raw(row["file"]), RECOVERY)
    assert caught.value.step == row["step"]


# -- bundles ----------------------------------------------------------------------------------


def pinned(name: str, row: dict[str, Any]) -> dict[str, Any]:
    said = vector(name)["pinned"] | row.get("pinned", {})
    texts = {key: raw(said[key]) for key in ("contract", "product", "code_hash")}
    header = verifier.read_header(raw(said["header"])) if said["header"] else None
    return {**said, **texts, "validators": raws(said["validators"]), "header": header}


@pytest.mark.parametrize("row", vector("bundle-accepted")["cases"], ids=lambda row: row["name"])
def test_bundles(row: dict[str, Any]) -> None:
    data = raw(row["bundle"])
    said = verifier.verify_bundle(data, pinned("bundle-accepted", row))
    header, release, shown = said["header"], said["release"], row["shows"]
    assert (header["number"], header["time"]) == (shown["number"], shown["timestamp"])
    assert header["block_hash"] == raw(shown["block_hash"])
    assert header["sealers"] == raws(shown["sealers"])
    assert said["product"]["head"]["latestRelease"] == shown["latest_release"]
    assert (release["id"] if release else None) == shown["release_id"]
    if release:
        assert verifier.state_members(release["state"]["word"])["status"] == shown["status"]
    assert ("terms" in said) == ("terms_hash" in shown)
    if "terms" in said:
        static = verifier.uncbor(data)[1]
        assert verifier.sha256(static) == raw(shown["static_digest"])
        assert release["termsHash"] == raw(shown["terms_hash"])
        assert said["key_id"] == raw(shown["key_id"])
        assert said["terms"]["version"] == int(shown["version"])
        assert said["manifest"]["imageDigest"] == raw(shown["image_digest"])
        assert said["manifest"]["payloadDigest"] == raw(shown["payload_digest"])


@pytest.mark.parametrize("row", vector("bundle-tampered")["cases"], ids=lambda row: row["name"])
def test_bundles_that_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(verifier.Refusal) as caught:
        verifier.verify_bundle(raw(row["bundle"]), pinned("bundle-tampered", row))
    assert caught.value.step == row["step"]


def test_sticks() -> None:
    row = vector("bundle-stick")
    data = raw(row["prefix"]) + bytes(row["bundle_bytes"]) + b"payload"
    assert verifier.split_stick(data) == (bytes(row["bundle_bytes"]), b"payload")
    for bad in row["refused"].values():
        with pytest.raises(verifier.Refusal):
            verifier.split_stick(raw(bad) + bytes(1 << 18))


@pytest.mark.parametrize("row", vector("bundle-acknowledged")["cases"], ids=lambda row: row["name"])
def test_acknowledgements(row: dict[str, Any]) -> None:
    name = "bundle-acknowledged"
    sent, trust = raw(vector(name)["receipt"]), pinned(name, row)
    try:
        verifier.verify_acknowledgement(raw(row["ack"]), sent, row["release"], trust)
    except verifier.Refusal:
        assert row["reason"] is not None
    else:
        assert row["reason"] is None
