"""A device put together in memory: real agent, slots, boot and journal over a simulated medium."""

from __future__ import annotations

from dataclasses import dataclass, field

from device_client import flash
from device_client.adapters.file_slots import FileSlots
from device_client.adapters.journal import FileJournal
from device_client.adapters.virtual_boot import VirtualBoot
from device_client.agent import Agent
from device_client.core.policy import Policy
from device_client.core.slots import Entry, factory
from device_client.profile import Parts, Profile
from protocol.digests import sha256
from tests.device_client import registry as world
from tests.world.clock import HandClock
from tests.world.flash import Flash

FACTORY = world.image_of("factory")


@dataclass
class BenchTop:
    """One device and its world. ``boot`` replaces the bootloader, for planted faults."""

    registry: world.Registry
    disk: Flash = field(default_factory=Flash)
    clock: HandClock = field(default_factory=lambda: HandClock(world.NOW))
    place: world.Place = field(default_factory=world.Place)
    doctor: world.Doctor = field(default_factory=world.Doctor)
    policy: Policy = field(default_factory=Policy)
    owner_confirms: bool = False
    stability: int = 0
    keep_former: bool = True
    bandwidth: int = 0
    max_age: int = 3600
    block: int = 512
    stride: int = 1024
    hardware: int = 2
    boot_class: type[VirtualBoot] = VirtualBoot
    journal_class: type[FileJournal] = FileJournal

    def provision(self) -> BenchTop:
        """A new device that runs the factory image."""
        slots = FileSlots(self.disk)
        for slot in ("a", "b"):
            slots.reserve(slot, 8192)
        slots.write("a", 0, FACTORY)
        slots.sync("a")
        entry = Entry(digest=sha256(FACTORY), size=len(FACTORY))
        VirtualBoot(self.disk, slots).provision(factory(entry))
        trusted = world.trust_file(self.registry.chain, max_age=self.max_age)
        FileJournal(self.disk).commit(world.first_book(trusted).encode())
        return self

    def power_on(self) -> VirtualBoot:
        """What the bootloader does, before any agent runs."""
        boot = self.boot_class(self.disk, FileSlots(self.disk))
        boot.reboot()
        return boot

    def agent(self) -> Agent:
        """The agent, as a new process opens it."""
        slots = FileSlots(self.disk)
        boot = self.boot_class(self.disk, slots)

        def digest(slot: str) -> bytes:
            return flash.digest_of(slots, slot, boot.record().entry(slot).size)

        self.doctor.read = digest
        parts = Parts(
            source=self.registry,
            slots=slots,
            boot=boot,
            journal=self.journal_class(self.disk),
            clock=self.clock,
            uptime=self.clock,
            identity=world.KeyIdentity(),
            health=self.doctor,
            site=self.place,
        )
        return Agent(self.profile(), parts)

    def profile(self) -> Profile:
        """The owner's settings."""
        return Profile(
            trust=world.trust_file(self.registry.chain, max_age=self.max_age),
            hardware=self.hardware,
            policy=self.policy,
            owner_confirms=self.owner_confirms,
            stability=self.stability,
            keep_former=self.keep_former,
            bandwidth=self.bandwidth,
            block=self.block,
            stride=self.stride,
        )

    def runs(self) -> bytes:
        """The bytes of the image that runs."""
        slots = FileSlots(self.disk)
        record = VirtualBoot(self.disk, slots).record()
        buffer = bytearray(record.entry(record.running).size)
        slots.read(record.running, 0, memoryview(buffer))
        return bytes(buffer)


def bench_top(**members: object) -> BenchTop:
    """A provisioned device with an empty chain."""
    return BenchTop(registry=world.Registry(world.Chain()), **members).provision()  # type: ignore[arg-type]
