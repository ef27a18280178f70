"""Bootloaders, simulated over the real bytes of their environments.

Each does in Python what its page in docs/boot lets the real one do, on its own reading of the
format, and shares no code with the device. `power_on` boots once: it counts, chooses, writes what
it must, and puts the slot on the kernel's command line. ``cut``: the power goes before that write
(0 is the first), or in the middle of it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Intact = Callable[[str], bool]


class PowerCut(BaseException):
    """The power went."""


class NothingBoots(Exception):
    """The bootloader stops at its prompt."""


@dataclass
class Power:
    """Counts writes; cuts at one of them. ``torn``: bytes of the fatal write that land."""

    cut: int | None = None
    torn: int = 0
    writes: int = 0

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Write in place; a new `Power` never cuts."""
        fatal = self.writes == self.cut
        self.writes += 1
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data[: self.torn] if fatal else data)
        if fatal:
            raise PowerCut


# -- U-Boot ----------------------------------------------------------------------------------------


class UBoot:
    """U-Boot with a redundant environment: CRC-32 (little-endian), sequence byte, variables."""

    def __init__(self, copies: tuple[Path, Path], size: int, command_line: Path) -> None:
        """``copies``: the two places of ``size`` bytes each."""
        self.copies, self.size, self.command_line = copies, size, command_line

    def format(self, variables: dict[str, str]) -> None:
        """What `saveenv` twice leaves on a blank medium."""
        for flag, path in enumerate(self.copies, 1):
            path.write_bytes(self.encode(variables, flag))

    def encode(self, variables: dict[str, str], flag: int) -> bytes:
        text = b"".join(f"{k}={v}".encode() + b"\0" for k, v in sorted(variables.items())) + b"\0"
        assert len(text) <= self.size - 5
        body = text.ljust(self.size - 5, b"\0")
        return struct.pack("<IB", zlib.crc32(body), flag) + body

    def load(self) -> tuple[int, int, dict[str, str]]:
        """(place, flag, variables) of the copy in force."""
        whole = []
        for place, path in enumerate(self.copies):
            with path.open("rb") as file:
                data = file.read(self.size)
            crc, flag = struct.unpack_from("<IB", data)
            if crc == zlib.crc32(data[5:]):
                text = data[5 : data.index(b"\0\0", 4)].decode()
                pairs = (line.partition("=") for line in text.split("\0") if line)
                whole.append((place, flag, {k: v for k, _, v in pairs}))
        if not whole:
            raise NothingBoots("no environment")
        if len(whole) == 2:
            first, second = whole[0][1], whole[1][1]
            newer = 1 if (first, second) == (255, 0) or 0 < second - first < 255 else 0
            return whole[newer]
        return whole[0]

    def save(self, variables: dict[str, str], power: Power) -> None:
        """`saveenv`: the other copy is replaced."""
        place, flag, _ = self.load()
        path = self.copies[1 - place]
        power.write(path, 0, self.encode(variables, (flag + 1) & 0xFF))

    def power_on(self, intact: Intact, power: Power | None = None) -> str:
        """Boot once, as the script in docs/boot/uboot.md does."""
        power = power or Power()
        _, _, env = self.load()
        trial = next((s for s in "ab" if env[f"fl_{s}"] == "trial"), "")
        if trial:
            attempts = int(env["fl_attempts"], 16)
            if attempts == 0:
                env[f"fl_{trial}"] = "bad"
                trial = ""
            else:
                env["fl_attempts"] = f"{attempts - 1:x}"
            self.save(env, power)
        if trial and not intact(trial):
            env[f"fl_{trial}"], env["fl_attempts"] = "bad", "0"
            self.save(env, power)
            trial = ""
        return self._boot(trial or self._confirmed(env, intact, power))

    def _confirmed(self, env: dict[str, str], intact: Intact, power: Power) -> str:
        primary = env["fl_primary"]
        if intact(primary):
            return primary
        spare = "b" if primary == "a" else "a"
        if env[f"fl_{spare}"] == "good" and intact(spare):
            env["fl_primary"] = spare
            self.save(env, power)
            return spare
        raise NothingBoots

    def _boot(self, slot: str) -> str:
        self.command_line.write_text(f"console=ttyS0 firmledger.slot={slot} root=/dev/x\n")
        return slot


# -- GRUB ------------------------------------------------------------------------------------------

SECTOR = 512


class Grub:
    """GRUB, which rewrites the block with `save_env`: two sectors, each whole or not at all."""

    def __init__(self, block: Path, command_line: Path) -> None:
        """``block``: the file ``grubenv``."""
        self.block, self.command_line = block, command_line

    def load(self) -> dict[str, str]:
        """`load_env`: every line before the filling."""
        lines = self.block.read_bytes().split(b"\n")
        pairs = (line.decode().partition("=") for line in lines if not line.startswith(b"#"))
        return {k: v for k, _, v in pairs}

    def save(self, variables: dict[str, str], power: Power) -> None:
        """`save_env` of variables whose values keep their lengths: changed where they stand."""
        data = self.block.read_bytes()
        for name, value in variables.items():
            at = data.index(f"\n{name}=".encode()) + len(name) + 2
            assert data[at + len(value)] == ord("\n")
            data = data[:at] + value.encode() + data[at + len(value) :]
        for at in range(0, len(data), SECTOR):
            power.write(self.block, at, data[at : at + SECTOR])

    def power_on(self, intact: Intact, power: Power | None = None) -> str:
        """Boot once, as the snippet in docs/boot/grub.md does."""
        power = power or Power()
        env = self.load()
        primary = env["fl_primary"]
        spare = "b" if primary == "a" else "a"
        trial = spare if env[f"fl_{spare}"] == "t" else ""
        if trial:
            attempts = int(env["fl_attempts"])
            if attempts == 0:
                self.save({f"fl_{trial}": "x"}, power)
                trial = ""
            else:
                self.save({"fl_attempts": str(attempts - 1)}, power)
        if trial and not intact(trial):
            self.save({f"fl_{trial}": "x"}, power)
            env[f"fl_{trial}"] = "x"
            trial = ""
        if trial:
            return self._boot(trial)
        if intact(primary):
            return self._boot(primary)
        if env[f"fl_{spare}"] == "g" and intact(spare):
            self.save({f"fl_{primary}": "g"}, power)
            self.save({"fl_primary": spare}, power)
            return self._boot(spare)
        raise NothingBoots

    def _boot(self, slot: str) -> str:
        self.command_line.write_text(f"BOOT_IMAGE=/vmlinuz firmledger.slot={slot} quiet\n")
        return slot


# -- a board of its own ----------------------------------------------------------------------------


class Custom:
    """The bootloader that docs/boot/board-command.sh speaks for: one small file, replaced whole."""

    def __init__(self, state: Path) -> None:
        """``state``: lines ``name=value``: primary, current, a, b, tries (``-``: not counted)."""
        self.state = state

    def load(self) -> dict[str, str]:
        return dict(line.split("=") for line in self.state.read_text().split())

    def save(self, values: dict[str, str], power: Power) -> None:
        """Replace the file: a torn draft is never looked at."""
        draft = self.state.with_suffix(".boot")
        draft.write_bytes(b"")
        power.write(draft, 0, "".join(f"{k}={v}\n" for k, v in values.items()).encode())
        draft.replace(self.state)

    def power_on(self, intact: Intact, power: Power | None = None) -> str:
        """Boot once."""
        power = power or Power()
        values = self.load()
        primary = values["primary"]
        spare = "b" if primary == "a" else "a"
        if values["tries"] != "-":
            if values["tries"] == "0":
                values |= {primary: "bad", "primary": spare, "tries": "-"}
            else:
                values["tries"] = str(int(values["tries"]) - 1)
            self.save(values, power)
        primary = values["primary"]
        spare = "b" if primary == "a" else "a"
        if values["tries"] != "-" and not intact(primary):
            values |= {primary: "bad", "primary": spare, "tries": "-"}
            primary, spare = spare, primary
        if not intact(primary):
            if values[spare] != "good" or not intact(spare):
                raise NothingBoots
            values["primary"] = primary = spare
        values["current"] = primary
        self.save(values, power)
        return primary
