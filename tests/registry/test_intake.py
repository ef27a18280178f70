"""Intake: what `release build` and `release approve` write, and what they refuse."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from protocol import manifest, payload
from protocol.errors import FirmledgerError, LocalFault, Malformed, Misuse, Untrusted
from protocol.ids import Address, Digest, Version
from protocol.records import Approval, Ledger, Phase
from registry import intake
from registry.approvals import recover
from registry.intake import Conditions, build, open_draft
from registry.keys import Keyring, ProductKeys
from tests.registry.entropy import Stream

LEDGER = Ledger(4_295_000_001, Address(bytes(range(20))))
CREATOR = Address(bytes(range(1, 21)))
NOW = 1_800_000_000
ALL_AT_ONCE = (Phase(10_000),)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "publisher")


@pytest.fixture
def keys(keyring: Keyring) -> ProductKeys:
    return keyring.draw_product(
        "thermostat", creator=CREATOR, ledger=LEDGER, hardware=(1, 3), entropy=Stream(b"product")
    )


@pytest.fixture
def firmware(tmp_path: Path) -> Path:
    path = tmp_path / "fw.bin"
    path.write_bytes(Stream(b"image")(2 * intake.CHUNK + 17))
    return path


def conditions(version: str = "1.0.0") -> Conditions:
    return Conditions(Version.parse(version), 1, ALL_AT_ONCE, (1, 3))


@pytest.fixture
def draft(keys: ProductKeys, firmware: Path, tmp_path: Path) -> intake.Draft:
    return build(firmware, tmp_path / "r1", keys, conditions(), entropy=Stream(b"build"))


def test_a_build_decrypts_to_the_firmware_and_says_what_it_is(
    draft: intake.Draft, keys: ProductKeys, firmware: Path
) -> None:
    image = firmware.read_bytes()
    signed = manifest.verify(draft.path.read_bytes(), {keys.signer.public.id: keys.signer.public})
    key, iv = payload.unwrap(
        signed.manifest.encryption_info, keys.class_key.private_key, keys.class_key.kid
    )
    encrypted = draft.payload_path.read_bytes()
    assert payload.Decryptor(key, iv).update(encrypted) == image
    assert draft.terms.image_digest == hashlib.sha256(image).digest()
    assert draft.terms.image_size == len(image)
    assert signed.manifest.payload_digest == hashlib.sha256(encrypted).digest()
    assert draft.terms.manifest_digest == signed.digest
    assert draft.terms.key_epoch == 1
    assert image[:64] not in encrypted


def test_the_same_firmware_built_twice_shares_no_payload(
    keys: ProductKeys, firmware: Path, tmp_path: Path
) -> None:
    entropy = Stream(b"two builds")
    first = build(firmware, tmp_path / "a", keys, conditions(), entropy=entropy)
    second = build(firmware, tmp_path / "b", keys, conditions(), entropy=entropy)
    assert first.terms.image_digest == second.terms.image_digest
    assert first.payload_digest != second.payload_digest


def test_progress_ends_at_the_size_of_the_image(
    keys: ProductKeys, firmware: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    build(firmware, tmp_path / "r", keys, conditions(), entropy=Stream(b"p"), progress=seen.append)
    assert seen == [intake.CHUNK, 2 * intake.CHUNK, 2 * intake.CHUNK + 17]


def test_a_draft_is_read_back_as_it_was_built(draft: intake.Draft) -> None:
    assert open_draft(draft.path) == draft


def test_approvals_are_eip712_signatures_in_the_contracts_order(
    draft: intake.Draft, keyring: Keyring
) -> None:
    accounts = [keyring.ensure_account(name, Stream(name.encode())) for name in ("alice", "bob")]
    for account in accounts:
        draft = open_draft(draft.path).approved_by(account, 1, NOW)
        draft.save()
    agreed = open_draft(draft.path).agreed
    assert agreed is not None
    assert agreed.epoch == 1
    digest = LEDGER.digest(Approval(draft.terms, 1, agreed.approvals.valid_until))
    signers = [recover(digest, signature) for signature in agreed.approvals.signatures]
    assert signers == sorted(account.address for account in accounts)
    assert agreed.signers(LEDGER, draft.terms) == signers


def test_nobody_approves_twice(draft: intake.Draft, keyring: Keyring) -> None:
    alice = keyring.ensure_account("alice", Stream(b"alice"))
    with pytest.raises(Misuse, match="already"):
        draft.approved_by(alice, 1, NOW).approved_by(alice, 1, NOW)


@pytest.mark.parametrize(("epoch", "now"), [(2, NOW), (1, NOW + 31 * 86_400)])
def test_approvals_of_another_epoch_or_past_their_time_are_dropped(
    draft: intake.Draft, keyring: Keyring, epoch: int, now: int
) -> None:
    alice, bob = (keyring.ensure_account(n, Stream(n.encode())) for n in ("alice", "bob"))
    later = draft.approved_by(alice, 1, NOW).approved_by(bob, epoch, now)
    assert later.agreed is not None
    assert later.agreed.signers(LEDGER, draft.terms) == [bob.address]


@pytest.mark.parametrize("suffix", [".suit", ".json", ".bin"])
def test_a_draft_with_a_file_missing_is_refused(draft: intake.Draft, suffix: str) -> None:
    draft.path.with_suffix(suffix).unlink()
    with pytest.raises(Misuse):
        open_draft(draft.path)


@pytest.mark.parametrize("position", [0, 100, -1])
@pytest.mark.parametrize("suffix", [".suit", ".bin"])
def test_a_flipped_bit_in_envelope_or_payload_is_refused(
    draft: intake.Draft, suffix: str, position: int
) -> None:
    path = draft.path.with_suffix(suffix)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises((Malformed, Untrusted)):
        open_draft(draft.path)


@pytest.mark.parametrize("grow", [b"", b"x"])
def test_a_payload_cut_or_grown_is_refused(draft: intake.Draft, grow: bytes) -> None:
    data = draft.payload_path.read_bytes()
    draft.payload_path.write_bytes(data + grow if grow else data[:-1])
    with pytest.raises(Untrusted) as refusal:
        open_draft(draft.path)
    assert refusal.value.reason == "payload-digest"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", str(Version.parse("9.0.0"))),
        ("version", str(int(Version.parse("9.0.0")))),
        ("security_counter", 0),
        ("image_size", "1"),
        ("image_digest", "0x" + "00" * 32),
        ("manifest_digest", "0x" + "00" * 32),
        ("product_id", "0x" + "00" * 32),
        ("key_epoch", 2),
    ],
)
def test_terms_that_differ_from_the_envelope_are_refused(
    draft: intake.Draft, member: str, value: object
) -> None:
    path = draft.path.with_suffix(".json")
    text = json.loads(path.read_text())
    text["terms"][member] = value
    path.write_text(json.dumps(text))
    with pytest.raises((Malformed, Untrusted)):
        open_draft(draft.path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"format": "other"}', b"[" * 9999]
)
def test_a_foreign_file_in_place_of_the_terms_is_malformed(
    draft: intake.Draft, content: bytes
) -> None:
    draft.path.with_suffix(".json").write_bytes(content)
    with pytest.raises(Malformed):
        open_draft(draft.path)


def test_an_empty_image_leaves_nothing_behind(keys: ProductKeys, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(Misuse):
        build(tmp_path / "empty", tmp_path / "r", keys, conditions(), entropy=Stream(b"e"))
    assert not list(tmp_path.glob("r*"))


def test_a_missing_image_leaves_nothing_behind(keys: ProductKeys, tmp_path: Path) -> None:
    with pytest.raises(LocalFault):
        build(tmp_path / "none", tmp_path / "r", keys, conditions(), entropy=Stream(b"e"))
    assert not list(tmp_path.glob("r*"))


def test_an_impossible_manifest_leaves_nothing_behind(
    keys: ProductKeys, firmware: Path, tmp_path: Path
) -> None:
    impossible = dataclasses.replace(conditions(), security_counter=1 << 32)
    with pytest.raises(FirmledgerError):
        build(firmware, tmp_path / "r", keys, impossible, entropy=Stream(b"e"))
    assert not list(tmp_path.glob("r*"))


@pytest.mark.parametrize("suffix", [".suit", ".json", ".bin"])
def test_a_build_replaces_no_file(
    keys: ProductKeys, firmware: Path, tmp_path: Path, suffix: str
) -> None:
    there = (tmp_path / "r").with_suffix(suffix)
    there.write_bytes(b"mine")
    with pytest.raises(Misuse):
        build(firmware, tmp_path / "r", keys, conditions(), entropy=Stream(b"e"))
    assert there.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.glob("r*")) == [there.name]


def test_dots_in_the_output_name_stay(keys: ProductKeys, firmware: Path, tmp_path: Path) -> None:
    draft = build(firmware, tmp_path / "fw-1.0.0", keys, conditions(), entropy=Stream(b"e"))
    assert draft.path.name == "fw-1.0.0.suit"
    assert draft.payload_path.name == "fw-1.0.0.bin"
    assert open_draft(draft.path).payload_digest == Digest(
        hashlib.sha256(draft.payload_path.read_bytes()).digest()
    )
