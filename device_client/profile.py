"""What an agent is put together from: the owner's settings, and one implementation of each port."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from device_client import flash
from device_client.core.policy import Policy
from device_client.ports import (
    BootControl,
    Clock,
    HealthCheck,
    Identity,
    Journal,
    Site,
    SlotStore,
    Source,
    Uptime,
)
from protocol.trustfile import TrustFile


@dataclass(frozen=True)
class Profile:
    """What an owner settled when the device was set up.

    ``attempts``: boots that a trial may take. ``owner_confirms``: a healthy trial waits for the
    owner's `confirm`. ``stability``: seconds for which a trial must be found healthy.
    ``keep_former``: whether the former image stays after a confirmation. ``bandwidth``: bytes per
    second of a download, 0 for no limit. ``block``, ``stride``: bytes per read, and between two
    points to resume from.
    """

    trust: TrustFile
    hardware: int
    policy: Policy = field(default_factory=Policy)
    zone: tzinfo = UTC
    attempts: int = 3
    owner_confirms: bool = False
    stability: int = 0
    keep_former: bool = True
    bandwidth: int = 0
    block: int = flash.BLOCK
    stride: int = flash.STRIDE


@dataclass(frozen=True)
class Parts:
    """The ports that one agent works with."""

    source: Source
    slots: SlotStore
    boot: BootControl
    journal: Journal
    clock: Clock
    uptime: Uptime
    identity: Identity
    health: HealthCheck
    site: Site
