"""Whichever of the three goes its own way, in whatever it shows: playing in step finds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from protocol import ledger as rules
from protocol.records import Device
from tests.contracts.evm import Chain, Executed
from tests.contracts.instep import node  # noqa: F401  a fixture
from tests.contracts.test_flows import Flow

Fault = Callable[[Executed], Executed]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def with_log(e: Executed, **members: Any) -> Executed:
    return dataclasses.replace(e, logs=(dataclasses.replace(e.logs[0], **members), *e.logs[1:]))


FAULTS: dict[str, Fault] = {
    "refuses what it took": lambda e: dataclasses.replace(e, failed=True, output=b""),
    "loses a log": lambda e: dataclasses.replace(e, logs=()),
    "says a log twice": lambda e: dataclasses.replace(e, logs=e.logs * 2),
    "flips a bit of a log's data": lambda e: with_log(e, data=flipped(e.logs[0].data)),
    "flips a bit of a topic": lambda e: with_log(
        e, topics=(*e.logs[0].topics[:-1], flipped(e.logs[0].topics[-1]))
    ),
    "returns another value": lambda e: dataclasses.replace(e, output=b"\1"),
    "takes more gas": lambda e: dataclasses.replace(e, gas=e.gas + 1),
}


class Deviant:
    """A `Chain` that does what another does, but for one fault."""

    def __init__(self, chain: Chain, sent: Fault = lambda e: e, late: int = 0) -> None:
        self._chain, self._sent, self._late = chain, sent, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    def send(self, raw: bytes, time: int) -> Executed:
        return self._sent(self._chain.send(raw, time + self._late))


@pytest.fixture
def flow() -> Flow:
    flow = Flow()
    flow.publish(flow.terms(), "alice", "bob")
    return flow


def halt(flow: Flow) -> None:
    flow.accepted("guard", "halt", flow.pid, flow.product, flow.release(), "smoke")


def test_without_a_fault_they_agree(flow: Flow) -> None:
    halt(flow)


@pytest.mark.parametrize("which", ["py-evm", "anvil"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_an_evm_that_shows_something_else_is_found(flow: Flow, which: str, fault: Fault) -> None:
    flow.boxes[which].evm = Deviant(flow.boxes[which].evm, fault)
    with pytest.raises(AssertionError):
        halt(flow)


@pytest.mark.parametrize("which", ["py-evm", "anvil"])
def test_an_evm_whose_clock_is_off_is_found(flow: Flow, which: str) -> None:
    flow.boxes[which].evm = Deviant(flow.boxes[which].evm, late=1)
    with pytest.raises(AssertionError, match=which):
        halt(flow)


def test_a_word_that_nobody_wrote_is_found(flow: Flow) -> None:
    box = flow.boxes["anvil"]
    place, value = "0x" + "07" * 32, "0x" + "01" * 32
    flow.anvil.ask("anvil_setStorageAt", "0x" + bytes(box.contract).hex(), place, value)
    with pytest.raises(AssertionError, match="anvil: a word that the model does not know"):
        flow.compare_words()


@pytest.mark.parametrize("which", ["py-evm", "anvil"])
def test_a_word_that_is_missing_is_found(flow: Flow, which: str) -> None:
    others = {name: box for name, box in flow.boxes.items() if name != which}
    flow.boxes, kept = others, flow.boxes
    halt(flow)
    flow.boxes = kept
    with pytest.raises(AssertionError, match=which):
        flow.compare_words()


def test_a_model_that_moves_otherwise_is_found(flow: Flow, monkeypatch: Any) -> None:
    moved = rules.halted
    monkeypatch.setattr(rules, "halted", lambda head, state, now: moved(head, state, now + 1))
    with pytest.raises(AssertionError):
        halt(flow)


def test_a_model_that_refuses_otherwise_is_found(flow: Flow) -> None:
    release = dataclasses.replace(flow.release(), release_id=2)
    flow.model.releases[flow.pid, 2] = flow.model.releases[flow.pid, 1]
    with pytest.raises(AssertionError, match="UnknownRelease"):
        flow.do("guard", "halt", flow.pid, flow.product, release, "smoke")


def test_a_model_that_answers_otherwise_is_found(flow: Flow) -> None:
    kept = flow.model.releases[flow.pid, 1]
    device = Device(bytes(32), 0, 0, kept.terms.hardware_min)
    args = (flow.product, kept.terms, 1, kept.state, device)
    flow.wait = 900
    reason = flow.model.eligible(None, flow.now, *args)  # type: ignore[arg-type]
    flow.compare_reads(reason, "eligible", *args)
    with pytest.raises(AssertionError, match="eligible on py-evm"):
        flow.compare_reads(reason + 1, "eligible", *args)
