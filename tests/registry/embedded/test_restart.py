"""What survives: restarts, kill -9 at every step, a second process, a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import LocalFault, Misuse
from protocol.header import block_hash, check_seals, encode_header
from registry.embedded import EmbeddedLedger
from tests.registry.embedded.scene import (
    Sender,
    SimClock,
    ask,
    deploy,
    entry,
    fee_sender,
    hexed,
    open_ledger,
)

ROOT = Path(__file__).resolve().parents[3]


POINTS = (
    "before-commit",
    "sql:BEGIN",
    "sql:INSERT OR IGNORE INTO node",
    "sql:INSERT INTO block",
    "sql:INSERT INTO mined",
    "sql:INSERT INTO log",
    "sql:COMMIT",
    "before-serve",
)
CREATION_STEPS = 24


@dataclass(frozen=True)
class Line:
    """What a process said in `killed`."""

    place: int
    word: str
    number: int
    hash: str

    @classmethod
    def read(cls, text: str) -> Line:
        place, word, number, *rest = text.split()
        return cls(int(place), word, int(number), "".join(rest))


def start(directory: Path, *points: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.registry.embedded.killed", str(directory), *points],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def run_all(directory: Path, points: Sequence[str]) -> list[list[Line]]:
    """What the process of each point said; its last line tells how it ended."""
    output, _ = start(directory, *points).communicate(timeout=120)
    lines = [Line.read(line) for line in output.splitlines()]
    return [[line for line in lines if line.place == place] for place in range(len(points))]


def everything(ledger: EmbeddedLedger, notebook: bytes, fee: Sender) -> list[Any]:
    """All that the ledger says about its history, as JSON-RPC answers."""
    answers = []
    for number in range(ledger.head.number + 1):
        block = ask(ledger, "eth_getBlockByNumber", hex(number), True)
        answers.append(block)
        answers += [
            ask(ledger, method, transaction["hash"])
            for transaction in block["transactions"]
            for method in ("eth_getTransactionByHash", "eth_getTransactionReceipt")
        ]
        answers.append(ask(ledger, "eth_getProof", hexed(notebook), ["0x1"], hex(number)))
    message = {"to": hexed(notebook), "data": hexed(entry(1, 1))}
    answers.append(ask(ledger, "eth_getLogs", {"fromBlock": "0x0"}))
    answers.append(ask(ledger, "eth_getTransactionCount", fee.address, "latest"))
    answers.append(ask(ledger, "eth_call", message, "latest"))
    answers.append(ask(ledger, "eth_getCode", hexed(notebook), "latest"))
    return answers


def test_a_restart_changes_no_answer(tmp_path: Path, clock: SimClock) -> None:
    EmbeddedLedger.create(tmp_path, clock=clock)
    with open_ledger(tmp_path, clock) as ledger:
        fee = fee_sender(ledger, tmp_path)
        notebook = deploy(ledger, fee)
        for number in range(1, 6):
            ledger.submit(fee.sign(notebook, entry(number, number * number)))
            clock.advance(3)
            ledger.tick()
        before, head = everything(ledger, notebook, fee), ledger.head
    with open_ledger(tmp_path, clock) as again:
        assert everything(again, notebook, fee) == before
        assert again.head == head
        again.submit(fee.sign(notebook, entry(9, 9)))
        assert again.seal_now().header.parent_hash == head.hash


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Line]]]:
    """A directory with one killed ledger for each of `POINTS`, and what their processes said."""
    base = tmp_path_factory.mktemp("killed")
    return base, run_all(base, POINTS)


@pytest.mark.parametrize("place", range(len(POINTS)), ids=POINTS)
def test_killed_between_seal_and_serve(killed: tuple[Path, list[list[Line]]], place: int) -> None:
    base, all_said = killed
    *said, end = all_said[place]
    assert end.number == -signal.SIGKILL
    assert len(said) >= 3
    with open_ledger(base / str(place), SimClock()) as ledger:
        # Only what was committed is there, and that is what was served or was about to be.
        assert (ledger.head.number, ledger.head.hash.hex()) == (said[-1].number, said[-1].hash)
        assert (said[-1].word == "committed") == (POINTS[place] == "before-serve")
        _check_chain(ledger, {line.number: line.hash for line in said})
        raw = encode_header(ledger.head.header)
        assert ledger.seal_now().number == said[-1].number + 1
        served = ledger.store.header(said[-1].number)
        assert served is not None
        assert encode_header(served) == raw


def test_killed_at_any_moment(tmp_path: Path) -> None:
    directory = tmp_path / "0"
    EmbeddedLedger.create(directory, clock=SimClock())
    served: dict[int, str] = {}
    for rounds in range(1, 4):
        child = start(directory, "never")
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline() for _ in range(3 * rounds)]
        finally:
            child.kill()
            rest, _ = child.communicate(timeout=60)
        # What was printed when the signal came counts as served, too; the last line may be cut.
        for line in map(Line.read, [*lines, *rest.split("\n")[:-1]]):
            assert served.setdefault(line.number, line.hash) == line.hash
        with open_ledger(directory, SimClock()) as ledger:
            _check_chain(ledger, served)


def _check_chain(ledger: EmbeddedLedger, served: dict[int, str]) -> None:
    """Unbroken, sealed by the four, ever later; and every block that was served is in it."""
    parent = ledger.store.header(0)
    assert parent is not None
    for number in range(1, ledger.head.number + 1):
        header = ledger.store.header(number)
        assert header is not None
        assert header.parent_hash == block_hash(parent)
        assert header.timestamp > parent.timestamp
        check_seals(header, ledger.validators)
        parent = header
    found = {number: ledger.store.header(number) for number in served}
    assert {n: block_hash(header).hex() for n, header in found.items() if header} == served


def test_creation_killed_at_every_step(tmp_path: Path) -> None:
    steps = [f"create:{step}" for step in range(1, CREATION_STEPS + 1)]
    ends = [said[-1].number for said in run_all(tmp_path, steps)]
    # Killed at each step until there was none left to be killed at.
    kills = ends.index(0)
    assert kills > 10
    assert ends == [-signal.SIGKILL] * kills + [0] * (CREATION_STEPS - kills)
    for place in range(kills + 1):
        where = tmp_path / str(place)
        if not (where / "ledger").exists():
            EmbeddedLedger.create(where, clock=SimClock())
        with open_ledger(where, SimClock()) as ledger:
            assert ledger.tick() is not None
            assert int(ask(ledger, "eth_getBalance", fee_sender(ledger, where).address), 16) > 0


def test_interrupted_after_the_commit_it_serves_that_block_and_no_other(
    ledger: EmbeddedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ledger.head

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddedLedger, "_serve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.seal_now()
    monkeypatch.undo()
    assert ledger.head == before
    durable = ledger.store.head()
    assert durable.number == before.number + 1
    assert ledger.seal_now().header == durable


def test_a_commit_waits_for_the_disk(ledger: EmbeddedLedger) -> None:
    # Killing a process does not show this, only a power cut would.
    writer = ledger.store._writer
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_disk_loses_nothing(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> None:
    sent = ledger.submit(fee.sign(notebook, entry(1, 1)))
    before = ledger.head
    (pages,) = ledger.store._writer.execute("PRAGMA page_count").fetchone()
    ledger.store._writer.execute(f"PRAGMA max_page_count={pages}")
    clock.advance(10)
    fault = None
    for _ in range(200):  # until the free pages of the file are used up
        try:
            before = ledger.seal_now()
        except LocalFault as full:
            fault = full
            break
        ledger.submit(fee.sign(notebook, entry(2**200 + fee.nonce, 2**255)))
    assert fault is not None
    assert fault.reason == "ledger-storage"
    assert ledger.head == before
    assert ledger.store.head() == before.header
    waiting = len(ledger.pool)
    assert waiting > 0
    ledger.store._writer.execute("PRAGMA max_page_count=1000000")
    assert ledger.seal_now().number == before.number + 1
    assert len(ledger.pool) == 0
    assert ask(ledger, "eth_getTransactionReceipt", hexed(sent)) is not None


def test_a_second_process_is_refused(tmp_path: Path, clock: SimClock) -> None:
    EmbeddedLedger.create(tmp_path, clock=clock)
    with open_ledger(tmp_path, clock), pytest.raises(LocalFault) as second:
        open_ledger(tmp_path, clock)
    assert second.value.reason == "ledger-locked"
    open_ledger(tmp_path, clock).close()


def test_the_lock_of_a_killed_process_is_no_lock(tmp_path: Path, clock: SimClock) -> None:
    EmbeddedLedger.create(tmp_path, clock=clock)
    child = start(tmp_path, "never")
    try:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(LocalFault, match="another process"):
            open_ledger(tmp_path, clock)
    finally:
        child.kill()
        child.communicate(timeout=60)
    open_ledger(tmp_path, clock).close()


def test_keys_are_apart_and_closed_to_others(tmp_path: Path, clock: SimClock) -> None:
    EmbeddedLedger.create(tmp_path, clock=clock)
    secrets = [tmp_path / "keys" / "fee.json", *(tmp_path / "ledger" / "validators").iterdir()]
    assert len(secrets) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert len({path.read_text() for path in secrets}) == 5
    # The façade opens the validators' keys and no other: without the fee key it still runs.
    shutil.rmtree(tmp_path / "keys")
    with open_ledger(tmp_path, clock) as ledger:
        assert ledger.tick() is not None


def test_no_account_but_the_fee_account_has_funds(ledger: EmbeddedLedger, fee: Sender) -> None:
    assert int(ask(ledger, "eth_getBalance", fee.address, "earliest"), 16) == 10**24
    (first_of_eth_tester,) = ("0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",)
    assert ask(ledger, "eth_getBalance", first_of_eth_tester, "latest") == "0x0"
    assert ask(ledger, "eth_accounts") == []


def test_two_ledgers_share_nothing(tmp_path: Path, clock: SimClock) -> None:
    seen = set()
    for name in ("one", "two"):
        EmbeddedLedger.create(tmp_path / name, clock=clock)
        with open_ledger(tmp_path / name, clock) as ledger:
            assert 2**32 <= ledger.chain_id < 2**33
            seen |= {ledger.chain_id, *ledger.validators, bytes(ledger.head.hash)}
    assert len(seen) == 2 * (1 + 4 + 1)


def test_the_same_entropy_draws_the_same_ledger(tmp_path: Path, clock: SimClock) -> None:
    heads = []
    for name in ("one", "two"):
        supply = iter(range(1, 100))
        EmbeddedLedger.create(
            tmp_path / name,
            clock=clock,
            entropy=lambda size, supply=supply: next(supply).to_bytes(size, "big"),
        )
        with open_ledger(tmp_path / name, clock) as ledger:
            heads.append(ledger.seal_now())
    assert heads[0] == heads[1]


def test_bad_directories_are_refused_by_name(tmp_path: Path, clock: SimClock) -> None:
    with pytest.raises(Misuse, match="firmledger init"):
        open_ledger(tmp_path, clock)
    EmbeddedLedger.create(tmp_path, clock=clock)
    with pytest.raises(Misuse, match="there is one already"):
        EmbeddedLedger.create(tmp_path, clock=clock)
    key = tmp_path / "ledger" / "validators" / "1.key"
    whole = key.read_text()
    for damage in ("", whole[:-3], "zz" * 32, "00" * 32):
        key.write_text(damage)
        with pytest.raises(LocalFault) as refused:
            open_ledger(tmp_path, clock)
        assert refused.value.reason == "key-damaged"
    key.write_text("07" * 32)
    with pytest.raises(LocalFault) as refused:
        open_ledger(tmp_path, clock)
    assert refused.value.reason == "ledger-keys"
    key.unlink()
    with pytest.raises(LocalFault) as refused:
        open_ledger(tmp_path, clock)
    assert refused.value.reason == "key-unreadable"
    key.write_text(whole)
    open_ledger(tmp_path, clock).close()


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, clock: SimClock) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LocalFault) as refused:
        EmbeddedLedger.create(tmp_path / "file", clock=clock)
    assert refused.value.reason == "ledger-directory"
    (tmp_path / "keys").write_text("in the way")
    with pytest.raises(LocalFault) as refused:
        EmbeddedLedger.create(tmp_path, clock=clock)
    assert refused.value.reason == "ledger-directory"
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing", "newer", "foreign"])
def test_a_damaged_chain_file_is_refused(tmp_path: Path, clock: SimClock, damage: str) -> None:
    EmbeddedLedger.create(tmp_path, clock=clock)
    file = tmp_path / "ledger" / "chain.sqlite"
    if damage == "truncated":
        os.truncate(file, 5000)
    elif damage == "garbage":
        file.write_bytes(b"\xa5" * 8192)
    elif damage == "missing":
        file.unlink()
    elif damage == "newer":
        with sqlite3.connect(file) as sql:
            sql.execute("PRAGMA user_version=99")
    else:
        file.unlink()
        with sqlite3.connect(file) as sql:
            sql.execute("CREATE TABLE something (else_entirely)")
    with pytest.raises(LocalFault) as refused:
        open_ledger(tmp_path, clock)
    assert refused.value.reason.startswith("ledger-")
    assert json.dumps(refused.value.as_dict())
