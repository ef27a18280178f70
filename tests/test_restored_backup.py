"""An embedded ledger restored from a backup seals other blocks at heights it has sealed before.

Its validators then contradict themselves. A device that saw the first history freezes, with both
headers as evidence; that is meant (docs/spec/trust.md, section 2).
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from device_client.core.trust import Equivocation, TrustState, advance
from protocol.errors import Refused, Untrusted
from protocol.header import parse_header
from registry.embedded import EmbeddedLedger
from registry.headers import header_bytes
from tests.protocol.published import publish
from tests.registry.embedded.scene import (
    SimClock,
    ask,
    deploy,
    entry,
    fee_sender,
    open_ledger,
)


def write_and_seal(directory: Path, clock: SimClock, contract: bytes, value: int) -> bytes:
    """One more block with one more entry; its sealed header as a registry would serve it."""
    with open_ledger(directory, clock) as ledger:
        sender = fee_sender(ledger, directory)
        sender.nonce = int(ask(ledger, "eth_getTransactionCount", sender.address, "latest"), 16)
        ledger.submit(sender.sign(contract, entry(7, value)))
        ledger.seal_now()
        return header_bytes(ask(ledger, "eth_getBlockByNumber", "latest", False))


def test_the_restored_backup_of_an_embedded_ledger_freezes_devices(tmp_path: Path) -> None:
    clock, live, backup = SimClock(), tmp_path / "live", tmp_path / "backup"
    EmbeddedLedger.create(live, clock=clock)
    with open_ledger(live, clock) as ledger:
        contract = deploy(ledger, fee_sender(ledger, live))
    shutil.copytree(live, backup)
    clock.advance(5)
    first = write_and_seal(live, clock, contract, 1)
    shutil.rmtree(live)
    backup.rename(live)
    clock.advance(5)
    second = write_and_seal(live, clock, contract, 2)

    seen, rival = parse_header(first), parse_header(second)
    assert seen.number == rival.number and seen.state_root != rival.state_root
    state = TrustState(seen.number, seen.timestamp, first, seen.extra.validators)
    story = publish()
    fresh = story.fresh()

    def show(header: bytes) -> None:
        # The proof beside the header is of another ledger: evidence is looked for all the same.
        proof = replace(fresh.proof, header=header)
        advance(state, replace(fresh, proof=proof), story.anchor, clock=None)

    with pytest.raises(Untrusted) as refused:
        show(first)
    assert refused.value.reason == "node-missing"
    with pytest.raises(Equivocation) as caught:
        show(second)
    state = caught.value.state
    assert state.evidence == (first, second)
    with pytest.raises(Refused) as frozen:
        advance(state, fresh, story.anchor, clock=None)
    assert frozen.value.reason == "frozen"
