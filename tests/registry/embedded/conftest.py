"""A fresh ledger on a simulated clock, its fee account and a notebook contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.embedded import EmbeddedLedger
from tests.registry.embedded.scene import Sender, SimClock, deploy, fee_sender, open_ledger


@pytest.fixture
def clock() -> SimClock:
    return SimClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: SimClock) -> Iterator[EmbeddedLedger]:
    EmbeddedLedger.create(tmp_path, clock=clock)
    with open_ledger(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
def fee(ledger: EmbeddedLedger, tmp_path: Path) -> Sender:
    return fee_sender(ledger, tmp_path)


@pytest.fixture
def notebook(ledger: EmbeddedLedger, fee: Sender) -> bytes:
    return deploy(ledger, fee)
