"""The fleet: real devices, each with its own directory, key, slots and journal, in threads.

Guarantees: a device is opened for one act and closed after it, as a process would; at most
`WORKERS` act at a time. What was refused or failed in an act is in its `Result`; our own bugs are
raised.

Not here: what is told about it (`demo.view`), and what ought to have happened (`demo.promises`).
"""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from demo.boot import SIMULATED, Boot
from demo.clock import StoryClock
from device_client.adapters.http_source import HttpSource
from device_client.adapters.system import CommandHealth
from device_client.agent import Agent
from device_client.core.machine import Stage
from device_client.core.types import Verdict
from device_client.home import Device, create, open_device, paths_of_slots
from protocol.errors import FirmledgerError, Malformed, Refused, Untrusted
from protocol.ids import DeviceId

WORKERS = 4
SELF_TEST = ("/bin/sh", "-c", f'exec {shlex.quote(sys.executable)} -I "$FIRMLEDGER_SLOT"')
"""The health check where booting is simulated: the image in the slot that boots is executed."""
SELF_TEST_SECONDS = 60


@dataclass
class Unit:
    """One device as it is shown; all members but the first four are brought up to date by acts."""

    name: str
    id: DeviceId
    public_key: bytes
    root: Path
    enrolled: bool = False
    version: str = "factory"
    slot: str = "a"
    state: str = "idle"
    doing: str = "new"
    outcome: str = ""
    queued: int = 0
    history: list[str] = field(default_factory=list)
    """``version outcome`` of every installation that ended here."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one act of one device; ``reason`` of a refusal, waiting or failure."""

    unit: Unit
    outcome: str
    reason: str = ""
    version: str = ""
    error: FirmledgerError | None = None


Show = Callable[[Unit], None]


class Fleet:
    """Makes devices under ``root``, lets them act, and tells ``show`` of it, from threads."""

    def __init__(self, root: Path, clock: StoryClock, show: Show, boot: Boot = SIMULATED) -> None:
        self.units: list[Unit] = []
        self._numbers = itertools.count(1)
        self._root, self._clock, self._show, self._boot = root, clock, show, boot
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="device")

    def close(self) -> None:
        """Starts nothing more, and waits for what is under way."""
        self._pool.shutdown(cancel_futures=True)

    def provision(self, count: int, trust: bytes, class_keys: bytes) -> None:
        """``count`` devices from the factory, as `units`."""
        self.units = list(self._pool.map(lambda _: self.make(trust, class_keys), range(count)))
        for unit in self.units:
            unit.enrolled = True
            self._show(unit)

    def make(self, trust: bytes, class_keys: bytes) -> Unit:
        """A device from the factory, which is not among `units`."""
        root = self._root / f"device-{next(self._numbers):03d}"
        create(root, trust, class_keys, self._boot.config, self._boot.factory, force=False)
        public = json.loads((root / "device.json").read_bytes())
        device_id = DeviceId.parse(public["device_id"])
        return Unit(device_id.hex()[:8], device_id, bytes.fromhex(public["public_key"]), root)

    def update(self, units: Sequence[Unit], registry: str | None = None) -> list[Result]:
        """Each asks once and installs what it may; ``registry`` answers in place of its own."""
        return self._each(units, lambda unit: self._update(unit, registry))

    def deliver(self, units: Iterable[Unit]) -> int:
        """One round of handing over receipts and asking for their proofs; how many are left."""
        waiting = [unit for unit in units if unit.queued]
        self._each(waiting, self._deliver)
        return sum(unit.queued for unit in waiting)

    # -- one device, in a thread -------------------------------------------------------------------

    def _each(self, units: Sequence[Unit], act: Callable[[Unit], Result]) -> list[Result]:
        return list(self._pool.map(act, units))

    def _update(self, unit: Unit, registry: str | None) -> Result:
        with self._open(unit, registry) as device:
            self._tell(unit, "asks")
            try:
                report = device.agent.update()
            except FirmledgerError as error:
                judged = isinstance(error, Malformed | Untrusted | Refused)
                result = Result(unit, "refused" if judged else "stopped", error.reason, error=error)
            else:
                version = str(report.version) if report.version is not None else ""
                result = Result(unit, str(report.outcome), report.reason, version)
            self._note(unit, device.agent, result)
        return result

    def _deliver(self, unit: Unit) -> Result:
        with self._open(unit, None) as device:
            try:
                unit.queued = device.agent.deliver()
            except FirmledgerError as error:  # nothing is lost by it: there is another round
                return Result(unit, "stopped", error.reason, error=error)
        return Result(unit, "delivered")

    def _open(self, unit: Unit, registry: str | None) -> Device:
        def progress(what: str, done: int, total: int) -> None:
            stage = Stage.DOWNLOADING if what == "download" else Stage.VERIFYING
            self._tell(unit, f"{what} {100 * done // max(total, 1)} %", stage)

        def trial() -> None:
            self._tell(unit, "trial boot, self-test", Stage.TRIAL)

        command = CommandHealth(SELF_TEST, SELF_TEST_SECONDS, paths_of_slots(unit.root), unit.root)
        return open_device(
            unit.root,
            source=HttpSource([registry]) if registry else None,
            clock=self._clock,
            health=_Shown(command, trial) if self._boot.self_test else None,
            progress=progress,
        )

    def _note(self, unit: Unit, agent: Agent, result: Result) -> None:
        """What can be seen of the device after an act."""
        record = agent.parts.boot.record()
        running = record.entry(record.running)
        unit.slot = record.running
        unit.version = str(running.version) if running.version else "factory"
        unit.state, unit.queued = str(agent.book.state.stage), len(agent.book.queue)
        if result.outcome in ("confirmed", "failed", "rolled-back"):
            unit.outcome = result.outcome
            unit.history.append(f"{result.version} {result.outcome}")
        said = {"nothing": "up to date"}.get(result.outcome, result.outcome)
        self._tell(unit, f"{said}: {result.reason}" if result.reason else said)

    def _tell(self, unit: Unit, doing: str, stage: Stage | None = None) -> None:
        unit.doing = doing
        if stage is not None:
            unit.state = str(stage)
        if unit.enrolled:
            self._show(unit)


class _Shown:
    """A health check that says when it starts."""

    def __init__(self, check: CommandHealth, say: Callable[[], None]) -> None:
        self._check, self._say = check, say

    def examine(self, slot: str) -> Verdict:
        """As the check it stands for."""
        self._say()
        return self._check.examine(slot)
