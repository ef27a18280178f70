"""What is open on the machine around the device: consoles, accounts, memory, the clock's battery.

Reads what the kernel and the system say of themselves, below ``system`` (``/`` on a device). What
cannot be read is not judged. What nobody can see from here (JTAG, fuses, verified boot) is said to
be unseen, for promise 1 rests on it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from device_client.checks import OK, OPEN, WARNING, Check

_MAX_BYTES = 64 * 1024
_SERIAL = ("ttyS", "ttyAMA", "ttymxc", "ttyO", "ttyPS", "ttySC", "ttyUL", "ttyLP", "hvc", "ttySAC")
_LOCKED = ("[integrity]", "[confidentiality]")


def examine(system: Path) -> Iterator[Check]:
    """All checks of the machine."""
    yield from _consoles(system)
    yield from _accounts(system)
    yield from _logins(system)
    yield from _kernel(system)
    yield from _battery(system)
    yield Check(
        "ports",
        WARNING,
        "JTAG, a UART of the boot loader, and verified boot cannot be seen from here",
        "fuse or disable the ports, and switch on verified boot; docs/integration.md",
    )


def _read(path: Path) -> str | None:
    """The start of a file; None where there is none, or it may not be read."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_MAX_BYTES).decode(errors="replace")
    return None


def _consoles(system: Path) -> Iterator[Check]:
    active = (_read(system / "sys/class/tty/console/active") or "").split()
    serial = [name for name in active if name.startswith(_SERIAL)]
    for name in serial:
        yield Check(
            "console",
            WARNING,
            f"a console is on the serial port {name}: who reaches its pins can talk to the kernel",
            f"remove console={name} from the kernel's command line, and mask serial-getty@{name}",
        )
    if active and not serial:
        yield Check("console", OK, "no console listens on a serial port")


def _accounts(system: Path) -> Iterator[Check]:
    shadow = _read(system / "etc/shadow")
    if shadow is None:
        return
    rows = [line.split(":") for line in shadow.splitlines()]
    names = [row[0] for row in rows if len(row) > 1 and row[1] == ""]
    for name in names:
        yield Check(
            "accounts", OPEN, f"account {name} has no password", f"lock it: passwd --lock {name}"
        )
    if not names:
        yield Check("accounts", OK, "no account is without a password")


def _logins(system: Path) -> Iterator[Check]:
    settings = _read(system / "etc/ssh/sshd_config")
    if settings is None:
        return
    words = [line.split() for line in settings.lower().splitlines()]
    first = {row[0]: row[1] for row in reversed(words) if len(row) > 1 and row[0][0] != "#"}
    wrong = []
    if first.get("permitrootlogin") == "yes":
        wrong.append("lets root in by password")
    if first.get("passwordauthentication", "yes") == "yes":
        wrong.append("takes passwords")
    if wrong:
        yield Check(
            "logins",
            WARNING,
            f"the SSH server {' and '.join(wrong)}",
            "in sshd_config: PermitRootLogin no, PasswordAuthentication no; or leave it out",
        )
    else:
        yield Check("logins", OK, "the SSH server takes keys only")


def _kernel(system: Path) -> Iterator[Check]:
    lockdown = _read(system / "sys/kernel/security/lockdown")
    if lockdown is not None and not any(word in lockdown for word in _LOCKED):
        yield Check(
            "kernel",
            WARNING,
            "the kernel is not locked down: root can change it while it runs",
            "boot with lockdown=integrity, and signed modules",
        )
    for name in ("dev/mem", "dev/kmem"):
        path = system / name
        with suppress(OSError):
            if stat.S_IMODE(path.stat().st_mode) & 0o007:
                yield Check("memory", OPEN, f"/{name} is open to everybody", f"chmod o= /{name}")


def _battery(system: Path) -> Iterator[Check]:
    clocks = system / "sys/class/rtc"
    if clocks.is_dir() and not any(clocks.iterdir()):
        yield Check(
            "rtc",
            WARNING,
            "no clock runs while the power is off: until it is set, only the ledger tells the time",
            "add a battery-backed clock, or set the time from the network before `run` starts",
        )
