"""What the worst answer costs a device, counted in work: signatures, hashes, calls and memory.

The attacker has no key that is trusted, and as many of his own as he likes: what he can make a
device compute is links that hold on their own, a header that reads, and parts that are as large,
as many and as deeply nested as the format lets them be. Nothing here is timed.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import pytest

from device_client.core.trust import TrustState, advance
from protocol import bundle, cbor
from protocol.bundle import MAX_LINKS, Bundle
from protocol.errors import FirmledgerError
from protocol.header import MAX_HEADER_BYTES, MAX_VALIDATORS, encode_header
from protocol.links import MAX_LINK_SEALS
from protocol.trie import MAX_NODE_BYTES, MAX_NODES
from tests.protocol.published import NOW, publish
from tests.protocol.sealed import Validator, make_header, seal, validators

GOOD = publish()
STATE = TrustState(100, NOW, b"", GOOD.anchor.validators)
MINE = validators(MAX_VALIDATORS, start=300)
OPAQUE = [[b""] * 12 for _ in range(16)]
"""As many items as a header has room for, beside its known fields."""

SIGNATURES = MAX_LINK_SEALS + MAX_VALIDATORS
HASHES = SIGNATURES + 2 * MAX_LINKS + 2 * MAX_NODES
CALLS = 150_000
"""Of functions, Python's and C's: some 30 ms on a small server, half of it the curve."""
MEMORY = 2 * bundle.MAX_BUNDLE_BYTES + 256 * 1024


@dataclass
class Work:
    """What one answer cost."""

    reason: str
    calls: Counter[str]
    memory: int


def work_of(answer: bytes) -> Work:
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1
        calls["all"] += event in ("call", "c_call")

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    sys.setprofile(count)
    reason = "read"
    try:
        advance(STATE, Bundle.decode(answer).fresh, GOOD.anchor, clock=None)
    except FirmledgerError as error:
        reason = error.reason
    finally:
        sys.setprofile(None)
        memory = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    return Work(reason, calls, memory)


def link(group: list[Validator], number: int) -> bytes:
    return encode_header(seal(make_header(group, number=number, more=OPAQUE), group))


def with_links(count: int, of: int, nodes: tuple[bytes, ...] | None = None) -> bytes:
    fresh = GOOD.fresh(200)
    proof = fresh.proof if nodes is None else replace(fresh.proof, nodes=nodes)
    links = tuple(link(MINE[:of], number) for number in range(1, count + 1))
    return Bundle(replace(fresh, proof=proof, links=links)).encode()


def stuffed(item: bytes) -> bytes:
    """The largest fresh part that begins well and goes on with nothing but ``item``."""
    head = b"\x86\x01\x80\x40\x80\x9a"
    count = (bundle.MAX_FRESH_BYTES - len(head) - 5) // len(item)
    return cbor.dumps([1, None, head + count.to_bytes(4, "big") + item * count + b"\xf6"])


def full_nodes() -> tuple[bytes, ...]:
    return tuple(bytes([n]) * MAX_NODE_BYTES for n in range(MAX_NODES))


WORST: dict[str, tuple[Callable[[], bytes], str]] = {
    "16 links of 31 seals": (lambda: with_links(16, 31), "read"),
    "16 links of 31 seals and 128 nodes": (
        lambda: with_links(16, 31, full_nodes()),
        "node-missing",
    ),
    "8 links of 64 seals": (lambda: with_links(8, 64), "read"),
    "16 links of 64 seals": (lambda: with_links(16, 64), "too-many-seals"),
    "numbers without end": (lambda: stuffed(b"\0"), "too-many-items"),
    "empty lists without end": (lambda: stuffed(b"\x80"), "too-many-items"),
    "empty strings without end": (lambda: stuffed(b"\x40"), "too-many-items"),
    "lists within lists without end": (lambda: stuffed(b"\x81"), "too-deep"),
    "headers of nothing": (
        lambda: Bundle(
            replace(GOOD.fresh(), links=(bytes(MAX_HEADER_BYTES),) * MAX_LINKS)
        ).encode(),
        "rlp-trailing",
    ),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_answers_cost_bounded_work(name: str) -> None:
    made, reason = WORST[name]
    answer = made()
    assert len(answer) <= bundle.MAX_BUNDLE_BYTES
    work_of(Bundle(GOOD.fresh(200)).encode())  # what is loaded once is loaded
    work = work_of(answer)
    assert work.reason == reason
    assert work.calls["_recover"] <= SIGNATURES, work.calls["_recover"]
    assert work.calls["keccak256"] <= HASHES, work.calls["keccak256"]
    assert work.calls["all"] <= CALLS, work.calls["all"]
    assert work.memory <= MEMORY, work.memory


def test_what_is_too_much_is_refused_before_it_is_computed() -> None:
    """The first link beyond the bound costs no signature, whatever it holds."""
    work = work_of(with_links(16, 64))
    assert work.calls["_recover"] == MAX_LINK_SEALS
    untrusted = replace(GOOD, group=tuple(MINE)).fresh(200)
    assert work_of(Bundle(untrusted).encode()).calls["_recover"] == 0
    nodes = replace(untrusted.proof, nodes=full_nodes())
    work = work_of(Bundle(replace(untrusted, proof=nodes)).encode())
    assert work.reason == "validators-changed"
    assert work.calls["keccak256"] < 20, "no node is hashed under a header that does not hold"
