"""When blocks are made, and how they are stamped: pace, heartbeat, idle hours, a clock set back."""

from __future__ import annotations

from pathlib import Path

from registry.embedded import EmbeddedLedger, Head
from tests.registry.embedded.reader import check_account_proof, sealers
from tests.registry.embedded.scene import (
    START,
    Sender,
    SimClock,
    ask,
    entry,
    hexed,
    open_ledger,
)


def run(ledger: EmbeddedLedger, clock: SimClock, seconds: int) -> list[Head]:
    """Ticks once a second; the blocks that came of it."""
    made = []
    for _ in range(seconds):
        clock.advance(1)
        if (head := ledger.tick()) is not None:
            made.append(head)
    return made


def test_the_first_block_comes_at_once_because_genesis_has_no_seals(
    ledger: EmbeddedLedger,
) -> None:
    assert sealers(ledger.head.header) == []
    first = ledger.tick()
    assert first is not None
    assert sealers(first.header) == list(ledger.validators)
    assert ledger.tick() is None


def test_an_hour_idle(ledger: EmbeddedLedger, clock: SimClock, notebook: bytes) -> None:
    before = ledger.head
    made = run(ledger, clock, 3600)
    assert 355 <= len(made) <= 361
    for parent, head in zip([before, *made], made, strict=False):
        assert head.header.parent_hash == parent.hash
        assert head.header.timestamp - parent.header.timestamp == 10
        assert head.header.state_root == before.header.state_root
        assert sealers(head.header) == list(ledger.validators)
    proof = ask(ledger, "eth_getProof", hexed(notebook), ["0x0"], "latest")
    check_account_proof(proof, ledger.head.header.state_root)


def test_the_heartbeat_is_an_argument(tmp_path: Path, clock: SimClock) -> None:
    EmbeddedLedger.create(tmp_path, clock=clock)
    with open_ledger(tmp_path, clock, heartbeat=3) as ledger:
        ledger.tick()
        stamps = [head.header.timestamp for head in run(ledger, clock, 31)]
    assert stamps == list(range(START + 4, START + 32, 3))


def test_at_most_one_block_a_second(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> None:
    clock.advance(5)
    ledger.submit(fee.sign(notebook, entry(1, 1)))
    assert ledger.tick() is not None
    ledger.submit(fee.sign(notebook, entry(2, 2)))
    assert ledger.tick() is None
    clock.advance(1)
    head = ledger.tick()
    assert head is not None
    assert head.header.timestamp == clock.now()


def test_a_clock_that_stands_still_stops_nothing(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> None:
    before = ledger.head.header.timestamp
    ledger.submit(fee.sign(notebook, entry(1, 1)))
    assert ledger.tick() is None
    clock.elapsed += 1  # a second passes, and the world's clock does not show it
    head = ledger.tick()
    assert head is not None
    assert head.header.timestamp == before + 1


def test_the_clock_set_back(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> None:
    ledger.seal_now()
    last = ledger.head.header.timestamp
    clock.time = START - 600
    # Idle, it waits for the clock instead of running further ahead of it.
    assert run(ledger, clock, 60) == []
    # Busy, it goes on in steps of one second, one block a second.
    stamps = []
    for number in range(1, 6):
        ledger.submit(fee.sign(notebook, entry(number, number)))
        (head,) = run(ledger, clock, 1)
        stamps.append(head.header.timestamp)
        assert ledger.tick() is None
    assert stamps == [last + step for step in range(1, 6)]
    # Caught up, the heartbeat is back, and no stamp ever fell.
    clock.time = stamps[-1] + 9
    made = run(ledger, clock, 11)
    assert [head.header.timestamp for head in made] == [stamps[-1] + 10, stamps[-1] + 20]


def test_a_leap_ahead_makes_one_block(ledger: EmbeddedLedger, clock: SimClock) -> None:
    ledger.tick()
    clock.advance(72 * 3600)
    assert ledger.tick() is not None
    assert ledger.head.header.timestamp == clock.now()
    assert ledger.tick() is None


def test_the_stamp_is_what_the_transactions_see(
    ledger: EmbeddedLedger, clock: SimClock, fee: Sender, notebook: bytes
) -> None:
    clock.advance(1234)
    ledger.submit(fee.sign(notebook, entry(7, 7)))
    head = ledger.tick()
    assert head is not None
    seen = ask(ledger, "eth_getStorageAt", hexed(notebook), "0x0", "latest")
    assert int(seen, 16) == head.header.timestamp == clock.now()


def test_a_call_sees_the_time_of_now_and_an_old_one_that_of_its_block(
    ledger: EmbeddedLedger, clock: SimClock, notebook: bytes
) -> None:
    old = ledger.head.header
    ledger.seal_now()
    clock.advance(77)
    message = {"to": hexed(notebook), "data": hexed(entry(1, 1))}
    assert int(ask(ledger, "eth_call", message, "latest"), 16) == clock.now()
    assert int(ask(ledger, "eth_call", message, hex(old.number)), 16) == old.timestamp
    clock.time = START - 10**6
    latest = ledger.head.header.timestamp
    assert int(ask(ledger, "eth_call", message, "latest"), 16) == latest + 1
