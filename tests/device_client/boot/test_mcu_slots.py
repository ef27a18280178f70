"""Slots of a microcontroller behind a link: the driver by itself, and whole updates through it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.adapters import mcu_slots
from device_client.adapters.mcu_slots import (
    INFO,
    TRIES,
    Geometry,
    McuSlots,
    sealed,
    unsealed,
)
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.agent import Agent
from device_client.core.machine import Stage
from device_client.core.slots import Entry, factory
from device_client.flash import digest_of
from protocol.digests import sha256
from protocol.errors import FirmledgerError, LocalFault, Unreachable
from tests.device_client import registry as world
from tests.device_client.bench_top import FACTORY, BenchTop
from tests.world.mcu import BLOCK, CAPACITY, MOST, PAGE, McuNode

IMAGE = hashlib.shake_256(b"test vector: node image").digest(3 * BLOCK + 77)


@pytest.fixture
def node() -> McuNode:
    return McuNode()


def write_all(slots: McuSlots, image: bytes, piece: int, start: int = 0) -> None:
    for at in range(start, len(image), piece):
        slots.write("b", at, image[at : at + piece])
    slots.sync("b")


# -- the driver ------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, PAGE - 1, PAGE, 100, MOST, BLOCK, 5000])
def test_an_image_is_written_in_pieces_of_any_length(node: McuNode, piece: int) -> None:
    node.flash[1][:] = hashlib.shake_256(b"what was there").digest(CAPACITY)
    slots = McuSlots(node)
    slots.reserve("b", len(IMAGE))
    write_all(slots, IMAGE, piece)
    assert node.flash[1][: len(IMAGE)] == IMAGE
    assert digest_of(slots, "b", len(IMAGE)) == sha256(IMAGE) == slots.digest("b", len(IMAGE))
    assert sum(what.startswith("erase") for what in node.operations) == 4, "each block once"
    assert node.largest <= mcu_slots.REQUEST.size + MOST + mcu_slots.CRC_BYTES
    assert node.flash[1][len(IMAGE) : 4 * BLOCK] == b"\xff" * (4 * BLOCK - len(IMAGE))


@given(st.lists(st.integers(0, len(IMAGE) - 1), max_size=5), st.integers(1, 700))
def test_writing_goes_on_from_anywhere(stops: list[int], piece: int) -> None:
    """Sync, go back or on within what is there: what was before the place stays, as for a file."""
    node = McuNode()
    slots = McuSlots(node)
    write_all(slots, IMAGE, 1000)
    for stop in stops:
        write_all(McuSlots(node), IMAGE, piece, start=stop)
        assert node.flash[1][: len(IMAGE)] == IMAGE


def test_an_image_that_does_not_fit_is_refused_before_its_first_byte(node: McuNode) -> None:
    slots = McuSlots(node)
    slots.reserve("b", CAPACITY)
    with pytest.raises(LocalFault) as caught:
        slots.reserve("b", CAPACITY + 1)
    assert caught.value.reason == "slot-too-small"
    with pytest.raises(LocalFault):
        slots.write("b", CAPACITY - 1, b"12")
    assert node.operations == []


def test_reading_ends_with_the_slot(node: McuNode) -> None:
    buffer = bytearray(100)
    slots = McuSlots(node)
    assert slots.read("a", CAPACITY - 10, memoryview(buffer)) == 10
    assert slots.read("a", CAPACITY + 10, memoryview(buffer)) == 0


def test_the_running_slot_is_refused_by_the_node(node: McuNode) -> None:
    slots = McuSlots(node)
    with pytest.raises(LocalFault, match="slot in use"):
        slots.write("a", 0, bytes(PAGE))


@pytest.mark.parametrize("fault", ["lost", "deaf", "damaged"])
def test_frames_that_are_lost_are_sent_again(node: McuNode, fault: str) -> None:
    """Every third answer, or request: nothing is written twice, for the node knows the bytes."""
    getattr(node, fault).update(range(1, 2000, 3))
    slots = McuSlots(node)
    write_all(slots, IMAGE, 500)
    assert node.flash[1][: len(IMAGE)] == IMAGE
    writes = [what for what in node.operations if what.startswith("write")]
    assert len(writes) == len(set(writes)), "no page is written twice"


def test_a_node_that_stays_silent_is_unreachable(node: McuNode) -> None:
    slots = McuSlots(node)
    slots.reserve("b", 1)
    node.on, before = False, node.exchanges
    with pytest.raises(Unreachable) as caught:
        slots.write("b", 0, bytes(PAGE))
    assert caught.value.reason == "node-silent" and node.exchanges == before + TRIES


def test_a_late_answer_is_not_taken_for_the_right_one(node: McuNode) -> None:
    @dataclass
    class Late:
        """Gives the answer of the exchange before, once."""

        kept: list[bytes] = field(default_factory=list)

        def exchange(self, frame: bytes, maximum: int) -> bytes:
            self.kept.append(node.exchange(frame, 4096))
            return self.kept[-2] if len(self.kept) == 3 else self.kept[-1]

    slots = McuSlots(Late())
    for at in (0, 1):
        node.flash[1][at] = at
    one = bytearray(1)
    for at in (0, 1, 0):
        slots.read("b", at, memoryview(one))
        assert one[0] == at


@pytest.mark.parametrize(
    "geometry",
    [
        (0, BLOCK, PAGE, MOST),
        (CAPACITY, 0, PAGE, MOST),
        (CAPACITY, BLOCK, 0, MOST),
        (CAPACITY, BLOCK, 60, MOST),
        (CAPACITY + 1, BLOCK, PAGE, MOST),
        (CAPACITY, BLOCK, PAGE, PAGE - 1),
        (CAPACITY, BLOCK, PAGE, 60_000),
        (1 << 31, BLOCK, PAGE, MOST),
    ],
)
def test_a_flash_that_cannot_be_is_refused(geometry: tuple[int, int, int, int]) -> None:
    assert Geometry.decode(INFO.pack(CAPACITY, BLOCK, PAGE, MOST)).piece == MOST - MOST % PAGE
    with pytest.raises(LocalFault) as caught:
        Geometry.decode(INFO.pack(*geometry))
    assert caught.value.reason == "node-refused"


@given(st.binary(max_size=80))
def test_garbage_for_an_answer_is_never_believed(garbage: bytes) -> None:
    class Babble:
        def exchange(self, frame: bytes, maximum: int) -> bytes:
            return garbage

    assert unsealed(garbage) is None or unsealed(sealed(garbage[:-4])) == garbage[:-4]
    with pytest.raises((Unreachable, LocalFault)):
        McuSlots(Babble()).reserve("b", 1)


@pytest.mark.parametrize(
    ("status", "value", "words"),
    [(1, b"", "bad frame"), (99, b"", "status 99"), (0, b"\0\0", "answered 2 bytes, not 12")],
)
def test_a_refusal_is_told_in_words(status: int, value: bytes, words: str) -> None:
    class Refusing:
        def exchange(self, frame: bytes, maximum: int) -> bytes:
            head = mcu_slots.ANSWER.pack(frame[0] | 0x80, frame[1], status, len(value))
            return sealed(head + value)

    with pytest.raises(LocalFault, match=words):
        McuSlots(Refusing()).reserve("b", 1)


# -- updates through it ----------------------------------------------------------------------------


@dataclass
class NodeTop(BenchTop):
    """A device whose slots are a node's; its own disk holds journal and boot record."""

    node: McuNode = field(default_factory=McuNode)

    def provision(self) -> NodeTop:
        super().provision()
        self.node.flash[0][: len(FACTORY)] = FACTORY
        entry = Entry(digest=sha256(FACTORY), size=len(FACTORY))
        VirtualBoot(self.disk, McuSlots(self.node)).provision(factory(entry))
        return self

    def agent(self) -> Agent:
        parts, slots = super().agent().parts, McuSlots(self.node)
        boot = VirtualBoot(self.disk, slots)
        self.doctor.read = lambda slot: digest_of(slots, slot, boot.record().entry(slot).size)
        return Agent(self.profile(), replace(parts, slots=slots, boot=boot))

    def runs(self) -> bytes:
        record = VirtualBoot(self.disk, McuSlots(self.node)).record()
        held = self.node.flash["ab".index(record.running)]
        return bytes(held[: record.entry(record.running).size])


def new_top() -> NodeTop:
    top = NodeTop(registry=world.Registry(world.Chain(), piece=300)).provision()
    top.registry.chain.publish(world.make(IMAGE, "1.0.0", 1))
    return top


def test_an_update_is_installed_through_the_link() -> None:
    top = new_top()
    report = top.agent().update()
    assert str(report.outcome) == "confirmed" and top.runs() == IMAGE
    top.node.running = 1
    second = hashlib.shake_256(b"test vector: the next").digest(2 * BLOCK)
    top.registry.chain.publish(world.make(second, "1.1.0", 1))
    assert str(top.agent().update().outcome) == "confirmed" and top.runs() == second


def test_the_node_s_power_goes_at_every_operation_of_its_flash() -> None:
    """Before it, in the middle, at its end: the former image still runs, the next try gets on."""
    whole = new_top()
    whole.agent().update()
    count = len(whole.node.operations)
    assert count > 50
    for number in range(count):
        top = new_top()
        top.node.cut_at, top.node.landed = number, (0, 3, 8)[number % 3]
        with pytest.raises(Unreachable):
            top.agent().update()
        assert top.agent().book.state.stage is Stage.DOWNLOADING
        top.node.power_on()
        assert top.runs() == FACTORY
        assert str(top.agent().update().outcome) == "confirmed"
        assert top.runs() == IMAGE and top.agent().book.state.box == ()


def test_a_flash_that_does_not_keep_what_it_was_given_is_found_out() -> None:
    top = new_top()
    top.node.wears_out = True
    with pytest.raises(FirmledgerError) as caught:
        top.agent().update()
    assert caught.value.reason in ("read-back", "payload-digest")
    assert top.runs() == FACTORY


def test_what_was_fetched_is_not_fetched_again() -> None:
    """The link to the node breaks half-way: the download goes on from what is in its flash."""
    top = new_top()
    top.registry.cut_after = 2 * BLOCK
    with pytest.raises(Unreachable):
        top.agent().update()
    top.agent().update()
    assert top.runs() == IMAGE
    assert top.registry.asked[-1][0] >= BLOCK
