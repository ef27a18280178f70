"""From a restored backup to devices at work again, by the command lines alone.

An embedded ledger is put back to an old backup and goes on: it contradicts what a device has seen,
and the device freezes. Two of three recovery keys then say which ledger is the one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_client import cli as device
from protocol.errors import Misuse
from protocol.reanchor import Reanchor
from registry import cli as registry
from registry.app import Server
from registry.assembly import Registry

STEP = 10  # seconds from one block to the next


class Stopped:
    """A clock that stands still but for what a test adds, so that blocks come when it says."""

    def __init__(self) -> None:
        self.time = int(time.time()) + 60

    def now(self) -> int:
        return self.time


class Shop:
    """A registry, a device, and what their command lines say."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.reg, self.dev, self.clock = folder / "reg", folder / "dev", Stopped()

    @contextmanager
    def serving(self) -> Iterator[Registry]:
        opened = Registry.open(self.reg, clock=self.clock)
        with Server(opened, host="127.0.0.1", port=self.port) as server:
            self.port = int(server.url.rpartition(":")[2])
            yield opened

    port = 0

    def firmledger(self, *words: str | Path, code: int = 0) -> Any:
        return self._run(registry.main, ["-C", self.reg, *words], code)

    def device(self, *words: str | Path, code: int = 0) -> Any:
        return self._run(device.main, ["-C", self.dev, *words], code)

    def _run(self, main: Any, words: list[str | Path], code: int) -> Any:
        self._capsys.readouterr()
        ended = main([*map(str, words), "--json"])
        out, err = self._capsys.readouterr()
        assert ended == code, f"{words}\n{out}\n{err}"
        return json.loads(out)

    def block(self, opened: Registry) -> int:
        """One more block; its height."""
        assert opened.ledger is not None
        self.clock.time += STEP
        opened.ledger.seal_now()
        opened.follow()
        head = opened.catalogue.head()
        assert head is not None
        return head.number

    def set_up(self) -> None:
        """A product, a device that was provisioned with its recovery keys, and a first block."""
        with self.serving():
            people = ("--approvers", "alice,bob,carol", "--threshold", "2")
            self.firmledger("product", "create", "lamp", "--hardware", "2", *people)
            trust = self.folder / "trust.json"
            self.firmledger("product", "trust", "lamp", "-o", trust)
            url = f"http://127.0.0.1:{self.port}"
            self.device("init", "--trust", trust, "--registry", url, "--hardware", "2")


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    made = Shop(tmp_path, capsys)
    assert registry.main(["init", str(made.reg), "--heartbeat", "45s", "--max-age", "100s"]) == 0
    made.clock.time += STEP
    made.set_up()
    return made


def freeze(shop: Shop) -> int:
    """Restores a backup and lets the ledger go on; the height it contradicts itself at."""
    shutil.copytree(shop.reg, shop.folder / "backup")
    with shop.serving() as opened:
        height = shop.block(opened)
        assert shop.device("check")["ledger"]["height"] == height
    shutil.rmtree(shop.reg)
    (shop.folder / "backup").rename(shop.reg)
    shop.clock.time += 7
    with shop.serving() as opened:
        assert shop.block(opened) == height
        assert shop.device("check", code=1)["error"]["reason"] == "equivocation"
    assert shop.device("status")["ledger"]["frozen"]
    return height


def test_recovery_keys_bring_a_device_back_from_a_restored_backup(shop: Shop) -> None:
    height = freeze(shop)
    file = shop.folder / "reanchor.bin"
    with shop.serving() as opened:
        shop.block(opened)
        assert shop.device("check", code=1)["error"]["reason"] == "frozen"
        said = shop.firmledger("product", "reanchor", "lamp", "-o", file, "--as", "1")
        assert (said["signatures"], said["threshold"]) == (1, 2)
        assert said["height"] == height + 1
        short = shop.device("reanchor", file, code=1)
        assert short["error"]["reason"] == "too-few-signatures"
    # The second key lies elsewhere; it is signed with where no registry runs.
    key = shop.folder / "third.key"
    (shop.reg / "publisher" / "recovery" / "lamp-3.json").rename(key)
    said = shop.firmledger("product", "reanchor", "lamp", "--statement", file, "--as", key)
    assert said["signatures"] == 2
    answer = shop.device("reanchor", file)
    assert answer["was_frozen"] and answer["height"] == height + 1
    with shop.serving() as opened:
        assert shop.device("check")["ledger"]["height"] == height + 1
        shop.block(opened)
        assert shop.device("check")["ledger"]["height"] == height + 2
    assert shop.device("reanchor", file, code=1)["error"]["reason"] == "old-statement"


def test_a_later_statement_is_above_an_earlier_one(shop: Shop) -> None:
    first, second = shop.folder / "first.bin", shop.folder / "second.bin"
    with shop.serving() as opened:
        shop.block(opened)
        keys = ("--as", "1", "--as", "2")
        one = shop.firmledger("product", "reanchor", "lamp", "-o", first, *keys)
        while int(time.time()) <= one["sequence"]:
            time.sleep(0.05)
        two = shop.firmledger("product", "reanchor", "lamp", "-o", second, *keys)
    assert two["sequence"] > one["sequence"]
    shop.device("reanchor", second)
    assert shop.device("reanchor", first, code=1)["error"]["reason"] == "old-statement"


def test_a_changed_statement_leaves_the_device_frozen(shop: Shop) -> None:
    freeze(shop)
    file = shop.folder / "reanchor.bin"
    with shop.serving() as opened:
        shop.block(opened)
        keys = ("--as", "1", "--as", "2")
        shop.firmledger("product", "reanchor", "lamp", "-o", file, *keys)
    good = file.read_bytes()
    for place in range(0, len(good), 41):
        file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        shop.device("reanchor", file, code=1)
    assert shop.device("status")["ledger"]["frozen"]
    file.write_bytes(good)
    assert shop.device("reanchor", file)["was_frozen"]


# -- keys and statements at the publisher's side ---------------------------------------------------


def test_recovery_keys_are_drawn_once(shop: Shop) -> None:
    folder, trust = shop.reg / "publisher" / "recovery", shop.folder / "again.json"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["lamp-1.json", "lamp-2.json", "lamp-3.json", "lamp.public.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in [folder, *folder.iterdir()])
    (folder / "lamp-2.json").unlink()  # taken away, as they shall be
    with shop.serving():
        shop.firmledger("product", "trust", "lamp", "-o", trust)
        many = ("product", "trust", "lamp", "-o", trust, "--recovery")
        assert shop.firmledger(*many, "3-of-5", code=2)["error"]["reason"] == "recovery-keys-exist"
        assert shop.firmledger(*many, "some", code=2)["error"]["reason"] == "bad-recovery"
        bare = shop.folder / "bare.json"
        said = shop.firmledger("product", "trust", "lamp", "-o", bare, "--recovery", "none")
        assert said["recovery"] == {"threshold": 0, "keys": []}
    first = json.loads((shop.folder / "trust.json").read_text())["recovery"]
    assert first["threshold"] == 2 and len(first["keys"]) == 3
    assert json.loads(trust.read_text())["recovery"] == first
    assert not (folder / "lamp-2.json").exists()


def test_an_interrupted_drawing_goes_on_with_the_keys_there_are(shop: Shop) -> None:
    folder, trust = shop.reg / "publisher" / "recovery", shop.folder / "again.json"
    first = json.loads((shop.folder / "trust.json").read_text())["recovery"]
    (folder / "lamp.public.json").unlink()
    (folder / "lamp-3.json").unlink()
    with shop.serving():
        shop.firmledger("product", "trust", "lamp", "-o", trust)
    second = json.loads(trust.read_text())["recovery"]
    assert second["keys"][:2] == first["keys"][:2]
    assert second["keys"][2] != first["keys"][2]


def test_keys_of_another_product_sign_nothing(shop: Shop) -> None:
    file = shop.folder / "reanchor.bin"
    with shop.serving():
        people = ("--approvers", "alice", "--threshold", "1")
        shop.firmledger("product", "create", "fridge", "--hardware", "2", *people)
        shop.firmledger("product", "trust", "fridge", "-o", shop.folder / "fridge.json")
        other = shop.reg / "publisher" / "recovery" / "fridge-1.json"
        wanted = ("product", "reanchor", "lamp", "-o", file, "--as", other)
        assert shop.firmledger(*wanted, code=2)["error"]["reason"] == "unknown-recovery-key"
        assert not file.exists()
        shop.firmledger("product", "reanchor", "lamp", "-o", file)
    assert Reanchor.decode(file.read_bytes()).signatures == ()
    sign = ("product", "reanchor", "lamp", "--statement", file)
    assert shop.firmledger(*sign, "--as", "7", code=2)["error"]["reason"] == "no-such-key"
    assert (
        shop.firmledger(*sign, "--as", other, code=2)["error"]["reason"] == "unknown-recovery-key"
    )
    assert shop.firmledger(*sign, "-o", file, code=2)["error"]["reason"] == "usage"
    unsigned = file.read_bytes()
    assert shop.firmledger(*sign)["signatures"] == 0
    assert file.read_bytes() == unsigned
    file.write_bytes(unsigned[:-1])
    assert shop.firmledger(*sign, "--as", "1", code=1)["error"]["family"] == "malformed"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 9_000, b'{"format": "firmledger-recovery-key-1"}']
)
def test_a_damaged_recovery_key_says_so(shop: Shop, content: bytes) -> None:
    file, key = shop.folder / "reanchor.bin", shop.folder / "bad.key"
    key.write_bytes(content)
    key.chmod(0o600)
    words = ("product", "reanchor", "lamp", "--statement", file, "--as", key)
    assert shop.firmledger(*words, code=1)["error"]["reason"] == "key-damaged"
    key.chmod(0o644)
    assert shop.firmledger(*words, code=1)["error"]["reason"] == "key-exposed"


def test_a_threshold_that_cannot_be_is_refused(shop: Shop) -> None:
    from protocol.digests import sha256
    from registry import recovery
    from registry.keys import Keyring

    keyring = Keyring(shop.reg / "publisher")
    for threshold, count in ((0, 3), (4, 3), (2, 17)):
        with pytest.raises(Misuse) as refused:
            recovery.draw(
                keyring.folder, keyring.product("lamp"), threshold, count, lambda n: sha256(b"")[:n]
            )
        assert refused.value.reason == "bad-threshold"
