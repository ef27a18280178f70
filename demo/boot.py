"""How the devices of the story boot: simulated, or as real machines in QEMU.

Simulated, a device runs its image's self-test. With ``--boot qemu`` every device *is* a RISC-V
machine: QEMU starts the bytes of the active slot as its firmware, and the health check reads its
console. The devices leave the factory with OpenSBI; releases are U-Boot; and the bad one is U-Boot
for another architecture, signed and approved, which no machine of theirs can run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo.firmware import defective_image, image, read_firmware, standard_firmware
from device_client.adapters.boot_backends import Board, QemuTable
from device_client.config import Config
from device_client.home import FACTORY_IMAGE
from protocol.errors import LocalFault, Misuse

HARDWARE = 2
MACHINE = "qemu-system-riscv64"
OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin")
UBOOT = Path("/usr/lib/u-boot/qemu-riscv64/u-boot.bin")
FOREIGN = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
DEADLINE = 20
"""Seconds until a machine that says nothing is given up; a sound one speaks within one."""


@dataclass(frozen=True)
class Boot:
    """A way to boot. ``self_test``: whether images are executed to see if they are any good."""

    name: str
    config: Config
    factory: bytes
    firmware: Callable[[], bytes]
    defective: Callable[[bytes, str], bytes]
    self_test: bool
    fails: str
    """What the bad release's canaries are found to do."""


SIMULATED = Boot(
    name="virtual",
    config=Config(hardware=HARDWARE),
    factory=FACTORY_IMAGE,
    firmware=standard_firmware,
    defective=defective_image,
    self_test=True,
    fails="its self-test failed on the canaries",
)


def boot_named(name: str) -> Boot:
    """``virtual`` or ``qemu``; `Misuse` for another, `LocalFault` where QEMU or firmware is not."""
    if name == SIMULATED.name:
        return SIMULATED
    if name != "qemu":
        raise Misuse(
            "no-such-boot",
            f"--boot {name[:40]} refused",
            "the demo's devices boot simulated or in QEMU",
            "say --boot virtual or --boot qemu",
        )
    _require_machines()
    foreign = FOREIGN.read_bytes()

    def elsewhere(firmware: bytes, version: str) -> bytes:
        """The image of another architecture, as long as those of this one."""
        size = len(firmware)
        return image(foreign[:size].ljust(size, b"\xff"), version)

    machine = QemuTable(console=["U-Boot 20"], deadline=DEADLINE)
    return Boot(
        name="qemu",
        config=Config(hardware=HARDWARE, attempts=1, board=Board("qemu", machine)),
        factory=OPENSBI.read_bytes(),
        firmware=lambda: read_firmware(UBOOT),
        defective=elsewhere,
        self_test=False,
        fails="the canaries' consoles stayed silent: it is for another architecture",
    )


def _require_machines() -> None:
    """`LocalFault` naming all that is missing, and the packages that bring it."""
    wanted = {OPENSBI: "opensbi", UBOOT: "u-boot-qemu", FOREIGN: "u-boot-qemu"}
    missing = {package: str(path) for path, package in wanted.items() if not path.exists()}
    if shutil.which(MACHINE) is None:
        missing["qemu-system-misc"] = MACHINE
    if missing:
        raise LocalFault(
            "no-qemu",
            "--boot qemu refused",
            f"there is no {', no '.join(missing.values())} here",
            f"install it (Debian: apt-get install {' '.join(sorted(missing))}), "
            "or leave --boot away: booting is then simulated",
        )
