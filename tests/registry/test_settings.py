"""Settings: one file, overridden by the environment, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol.errors import LocalFault, Misuse
from protocol.ids import Address, Hash
from registry.settings import FILE, MAX_FILE, Settings

CONTRACT = Address(b"\x11" * 20)
PRODUCTION = {
    "profile": "production",
    "chain_id": 1,
    "rpc": "http://127.0.0.1:8545",
    "database": "postgresql://registry@db/firmledger",
    "object_store": "s3://firmware",
}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = Settings.of(
        tmp_path, chain_id=7, contract=CONTRACT, code_hash=Hash(b"\x22" * 32), finality="depth:12"
    )
    saved.save()
    assert Settings.load(tmp_path) == saved
    assert saved.finality_depth == 12
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_environment_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settings.of(tmp_path, chain_id=7, port=8700).save()
    monkeypatch.setenv("FIRMLEDGER_PORT", "9000")
    monkeypatch.setenv("FIRMLEDGER_CONTRACT", str(CONTRACT))
    monkeypatch.setenv("FIRMLEDGER_VECTORS", "/elsewhere")  # no setting of ours
    loaded = Settings.load(tmp_path)
    assert (loaded.port, loaded.contract, loaded.chain_id) == (9000, CONTRACT, 7)


def test_finality_in_words(tmp_path: Path) -> None:
    assert Settings.of(tmp_path, chain_id=1).finality_depth == 0
    assert Settings.of(tmp_path, chain_id=1, finality="tag:finalized").finality_depth is None


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({}, "chain_id"),
        ({"chain_id": 0}, "chain_id"),
        ({"chain_id": 1, "contract": "0x12"}, "contract"),
        ({"chain_id": 1, "contract": "nonsense"}, "contract"),
        ({"chain_id": 1, "profile": "testing"}, "profile"),
        ({"chain_id": 1, "finality": "depth:0"}, "finality"),
        ({"chain_id": 1, "finality": "soon"}, "finality"),
        ({"chain_id": 1, "rpc": "ftp://node"}, "rpc"),
        ({"chain_id": 1, "port": 70_000}, "port"),
        ({"chain_id": 1, "colour": "blue"}, "colour"),
        ({"chain_id": 1, "heartbeat": 10, "max_age": 15}, "heartbeat"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    tmp_path: Path, members: dict[str, Any], word: str
) -> None:
    with pytest.raises(Misuse) as refused:
        Settings.of(tmp_path, **members)
    assert refused.value.reason == "bad-settings"
    assert word in refused.value.why


@pytest.mark.parametrize("embedded", ["rpc", "database", "object_store"])
def test_production_refuses_each_embedded_part(tmp_path: Path, embedded: str) -> None:
    assert Settings.of(tmp_path, **PRODUCTION).profile == "production"
    with pytest.raises(Misuse) as refused:
        Settings.of(tmp_path, **{k: v for k, v in PRODUCTION.items() if k != embedded})
    assert "refuses embedded parts" in refused.value.why
    assert embedded in refused.value.why


def test_a_directory_without_a_registry_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misuse) as refused:
        Settings.load(tmp_path)
    assert refused.value.reason == "no-registry"
    assert "firmledger init" in refused.value.fix


@pytest.mark.parametrize(
    "content",
    [b"chain_id = ", b"\xff\xfe", b"chain_id = 1\ndirectory = '/etc'\n", b"#" * (MAX_FILE + 1)],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(Misuse) as refused:
        Settings.load(tmp_path)
    assert refused.value.reason == "bad-settings"


def test_a_directory_that_takes_no_file_is_a_local_fault(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as fault:
        Settings.of(tmp_path / "missing", chain_id=1).save()
    assert fault.value.reason == "settings-unwritable"
