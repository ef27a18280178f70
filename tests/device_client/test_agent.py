"""The agent over a simulated medium and a whole small registry: what it installs, and what not."""

from __future__ import annotations

import pytest

from device_client.core.machine import Stage
from protocol.errors import Untrusted
from protocol.ids import Version
from protocol.receipt import Outcome
from tests.device_client.bench_top import FACTORY, bench_top
from tests.device_client.registry import image_of, make, receipts_of


def test_installs_and_confirms_what_is_offered() -> None:
    top = bench_top()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))
    agent = top.agent()
    report = agent.update()
    assert (report.outcome, report.version) == (Outcome.CONFIRMED, Version.parse("1.0.0"))
    assert top.runs() == image_of("1.0.0")
    assert agent.book.state.counter == 4 and agent.book.state.stage is Stage.IDLE
    agent.deliver()
    (receipt,) = receipts_of(top.registry)
    assert (receipt.outcome, receipt.release) == (Outcome.CONFIRMED, 1)
    assert (receipt.version_before, receipt.version_after) == (0, Version.parse("1.0.0"))
    assert (receipt.counter_before, receipt.counter_after) == (0, 4)
    top.registry.anchor_all()
    top.clock.advance(60)
    assert agent.deliver() == 0
    assert top.agent().update().outcome == "nothing"


def test_rolls_back_what_fails_its_health_check() -> None:
    top = bench_top()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0", 4))
    top.doctor.bad.add(__import__("hashlib").sha256(image_of("1.0.0")).digest())
    agent = top.agent()
    report = agent.update()
    assert (report.outcome, report.reason) == (Outcome.ROLLED_BACK, "self-test")
    assert top.runs() == FACTORY and agent.book.state.counter == 0
    agent.deliver()
    (receipt,) = receipts_of(top.registry)
    assert (receipt.outcome, receipt.reason) == (Outcome.ROLLED_BACK, "self-test")
    again = top.agent().update()
    assert (again.outcome, again.reason) == (Outcome.REFUSED, "failed-here")


def test_refuses_a_forged_payload() -> None:
    top = bench_top()
    made = make(image_of("1.0.0"), "1.0.0")
    top.registry.chain.publish(made)
    forged = bytearray(made.payload)
    forged[1234] ^= 1
    top.registry.payload = lambda digest, offset, size: iter([bytes(forged[offset:])])  # type: ignore[method-assign]
    with pytest.raises(Untrusted) as caught:
        top.agent().update()
    assert caught.value.reason == "payload-digest"
    assert top.runs() == FACTORY
