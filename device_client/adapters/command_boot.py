"""A board's own bootloader behind an external command, as RAUC's custom backend has it.

The command is called with one of these, and nothing else decides what boots:

=======================  =========================================================================
``get-primary``          prints the slot that boots next
``set-primary SLOT``     that slot boots next, at most FIRMLEDGER_ATTEMPTS times, then it is bad
``get-state SLOT``       prints ``good`` or ``bad``
``set-state SLOT good``  the slot may boot; if it is primary, it is confirmed and not counted
``set-state SLOT bad``   the slot never boots; if it is primary, the other one is from now on
``get-current``          prints the slot that runs
=======================  =========================================================================

Each ends within its deadline with exit code 0, durably; a set is one atomic step, and repeating it
does no harm. The variable FIRMLEDGER_ATTEMPTS is in the environment of ``set-primary``.

Rules:

1. What the images are (digest, version, …) no such command can keep: they lie beside it, in the
   region ``boot.entries``, two copies written in turn. They say what *would* be on trial.
2. Whether it is, the command says: the slot is primary (on trial), or good (not switched to yet),
   or bad (given up, or used up).
3. The order of the steps makes every cut readable as before or after: to vacate is entries, then
   ``set-state bad``; to switch is ``set-state good``, entries, then ``set-primary``, which decides;
   to settle is ``set-state``, which decides, then entries.

How many boots are left is the command's affair: while a trial is pending, `record` gives the number
that was allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from device_client.adapters.board import TOOL_SECONDS, Restart, call, reboot_command
from device_client.adapters.boot_backends import Opened
from device_client.core import copies
from device_client.core.slots import (
    BOOT_MAGIC,
    RECORD_BYTES,
    SLOTS,
    BootRecord,
    Entry,
    Standing,
    armed,
    given_up,
    kept,
    other,
    vacated,
)
from device_client.ports import Disk
from protocol.errors import LocalFault

REGION = "boot.entries"
_COPY_BYTES = 4096
_GOOD, _BAD = "good", "bad"


class CommandBoot:
    """Implements `ports.BootControl` by a board's own command."""

    def __init__(
        self,
        disk: Disk,
        command: Sequence[str],
        restart: Callable[[], None],
        deadline: float = TOOL_SECONDS,
    ) -> None:
        """``disk`` keeps the entries; ``command``: argv that a verb is added to."""
        self._disk, self._command = disk, list(command)
        self._restart, self._deadline = restart, deadline

    def provision(self, record: BootRecord) -> None:
        """Write the first entries; the command must run the same primary already."""
        self._disk.reserve(REGION, 2 * _COPY_BYTES)
        former = copies.newest(BOOT_MAGIC, self._copy(0), self._copy(1))
        self._store(former[0] if former else 0, record)
        self.record()

    def record(self) -> BootRecord:
        """What is in force; `LocalFault` if command and entries contradict each other."""
        primary, running = self._slot("get-primary"), self.current()
        record = replace(self._entries()[1], running=running)
        spare = other(record.primary)
        entry, state = record.entry(spare), self._state(spare)
        if entry.standing is Standing.TRIAL and primary != spare:
            entry = replace(entry, standing=Standing.BAD) if state == _BAD else Entry()
        elif entry.standing is Standing.GOOD and primary == spare:
            return replace(record, primary=spare)  # the bootloader found the primary damaged
        elif entry.standing is Standing.GOOD and state == _BAD:
            entry = replace(entry, standing=Standing.BAD)
        elif primary == spare and entry.standing is not Standing.TRIAL:
            raise LocalFault(
                "boot-record-contradicted",
                "the boot record refused",
                f"slot {spare} is to boot next, but holds no image that was checked here",
                f"let the command make slot {record.primary} primary again",
            )
        record = record.having(spare, entry)
        return record if record.trial else replace(record, attempts=0)

    def vacate(self, slot: str) -> None:
        """Withdraw the entry of the inactive slot."""
        self._keep(vacated(self.record(), slot))
        if self._state(slot) != _BAD:
            self._set("set-state", slot, _BAD)

    def arm(self, slot: str, entry: Entry, attempts: int) -> None:
        """The switch."""
        before = self.record()
        record = armed(before, slot, entry, attempts)
        if record == before:
            return
        self._keep(vacated(before, slot))  # no entry of it is in force while its state changes
        self._set("set-state", slot, _GOOD)
        self._keep(record)
        self._set("set-primary", slot, attempts=attempts)

    def settle(self, healthy: bool) -> None:
        """End the trial."""
        before = self.record()
        record = kept(before) if healthy else given_up(before)
        self._set("set-state", before.trial or "", _GOOD if healthy else _BAD)
        self._keep(record)

    def reboot(self) -> None:
        """Boot the machine again."""
        self._restart()

    def current(self) -> str:
        """The slot that runs."""
        return self._slot("get-current")

    # -- the command -------------------------------------------------------------------------------

    def _slot(self, verb: str) -> str:
        return self._answer(SLOTS, verb)

    def _state(self, slot: str) -> str:
        return self._answer((_GOOD, _BAD), "get-state", slot)

    def _answer(self, allowed: Sequence[str], *arguments: str) -> str:
        answer = call([*self._command, *arguments], deadline=self._deadline).strip()
        if answer not in allowed:
            raise self._fault(
                f"{' '.join(arguments)} answered {answer[:40]!r}, not one of {', '.join(allowed)}"
            )
        return answer

    def _set(self, verb: str, slot: str, *state: str, attempts: int = 0) -> None:
        environment = {"FIRMLEDGER_ATTEMPTS": str(attempts)} if attempts else {}
        call([*self._command, verb, slot, *state], deadline=self._deadline, environment=environment)
        if state and self._state(slot) != state[0]:
            raise self._fault(f"{verb} {slot} {state[0]} succeeded and changed nothing")
        if not state and self._slot("get-primary") != slot:
            raise self._fault(f"{verb} {slot} succeeded and changed nothing")

    def _fault(self, why: str) -> LocalFault:
        return LocalFault(
            "boot-command", f"{self._command[0]} refused", why, "see docs/boot/command.md"
        )

    # -- the entries -------------------------------------------------------------------------------

    def _entries(self) -> tuple[int, BootRecord]:
        if self._disk.size(REGION):
            self._disk.sync(REGION)
        found = copies.newest(BOOT_MAGIC, self._copy(0), self._copy(1))
        if found is None:
            raise LocalFault(
                "boot-record-damaged",
                "the boot record refused",
                "neither of the two copies of boot.entries is whole",
                "set the device up with `init`",
            )
        return found[0], BootRecord.decode(found[1])

    def _keep(self, record: BootRecord) -> None:
        sequence, former = self._entries()
        if record != former:
            self._store(sequence, record)

    def _store(self, sequence: int, record: BootRecord) -> None:
        sequence = copies.following(sequence)
        data = copies.seal(BOOT_MAGIC, sequence, record.encode())
        self._disk.write(REGION, copies.place(sequence) * _COPY_BYTES, data)
        self._disk.sync(REGION)

    def _copy(self, place: int) -> bytes:
        buffer = bytearray(copies.HEAD_BYTES + RECORD_BYTES)
        count = self._disk.read(REGION, place * _COPY_BYTES, memoryview(buffer))
        return bytes(buffer[:count])


@dataclass(frozen=True)
class CommandTable:
    """``[command]``: argv of the board's command, its deadline in seconds, how to reboot."""

    argv: list[str] = field(default_factory=list)
    deadline: int = 30
    reboot: list[str] = field(default_factory=reboot_command)

    def open(self, disk: Disk) -> Opened:
        """The backend; ``disk`` keeps what the command cannot."""
        boot = CommandBoot(disk, self.argv, Restart(self.reboot), self.deadline)
        return boot, boot.current
