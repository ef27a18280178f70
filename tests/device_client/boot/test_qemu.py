"""Real firmware on a virtual board: Debian's OpenSBI and U-Boot, booted by QEMU from the slots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from device_client.adapters.qemu_boot import MAX_CONSOLE, QEMU, ConsoleHealth, Machine
from protocol.errors import LocalFault
from tests.device_client.registry import make
from tests.device_client.test_cli import Shop

OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin")
UBOOT = Path("/usr/lib/u-boot/qemu-riscv64/u-boot.bin")
ARM = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
pytestmark = [
    pytest.mark.debian("opensbi", str(OPENSBI)),
    pytest.mark.debian("u-boot-qemu", str(UBOOT)),
    pytest.mark.debian("qemu-system-misc", "/usr/bin/qemu-system-riscv64"),
]


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path, stack, capsys)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "console.log")
    yield machine
    machine.power_off()


def init(shop: Shop, deadline: int = 60, wanted: str = '["OpenSBI v", "U-Boot 20"]') -> None:
    board = shop.folder / "board.toml"
    board.write_text(f"[qemu]\ndeadline = {deadline}\nconsole = {wanted}\n")
    shop.init("--boot", "qemu", "--board", str(board), "--image", str(OPENSBI))


def impatient(shop: Shop) -> None:
    """An image that never speaks need not be listened to for long."""
    path = shop.folder / "dev/config.toml"
    text = path.read_text().replace("deadline = 60\n", "deadline = 5\n")
    path.write_text(text.replace("attempts = 3", "attempts = 1"))


def publish(shop: Shop, image: bytes, version: str) -> None:
    shop.chain.publish(make(image, version))


def console(shop: Shop) -> bytes:
    return (shop.folder / "dev/console.log").read_bytes()


def test_firmware_is_installed_booted_and_confirmed(shop: Shop) -> None:
    init(shop)
    assert b"OpenSBI v" in console(shop)
    publish(shop, UBOOT.read_bytes(), "1.0.0")
    answer = shop.run("update", "--yes")
    assert (answer["outcome"], answer["version"], answer["slot"]) == ("confirmed", "1.0.0", "b")
    assert b"U-Boot 20" in console(shop)
    publish(shop, OPENSBI.read_bytes(), "1.1.0")
    assert shop.run("update", "--yes")["slot"] == "a"
    assert b"OpenSBI v" in console(shop)
    assert shop.run("status")["version"] == "1.1.0"


@pytest.mark.parametrize("fault", ["erased", "another architecture", "cut short"])
def test_an_image_that_does_not_come_up_is_left_by_itself(shop: Shop, fault: str) -> None:
    """Signed, approved, intact, and dead: nobody but the machine itself can find that out."""
    firmware = UBOOT.read_bytes()
    image = {
        "erased": b"\xff" * len(firmware),
        "another architecture": ARM.read_bytes(),
        "cut short": firmware[:256],
    }[fault]
    init(shop)
    impatient(shop)
    publish(shop, image, "2.0.0")
    answer = shop.run("update", "--yes", code=1)
    assert (answer["outcome"], answer["reason"]) == ("rolled-back", "did-not-come-up")
    assert (answer["version"], answer["slot"], answer["state"]) == ("0.0.0", "a", "idle")
    assert b"OpenSBI v" in console(shop), "the former image runs again"
    assert shop.run("update", code=1)["reason"] == "failed-here"


def test_an_image_that_says_the_wrong_thing_is_given_up(shop: Shop) -> None:
    """It comes up, but its console is not a healthy one's."""
    init(shop, wanted='["U-Boot 20"]')
    path = shop.folder / "dev/config.toml"
    path.write_text(path.read_text().replace("deadline = 60\n", "deadline = 5\n"))
    publish(shop, OPENSBI.read_bytes() + b"\0" * 512, "1.0.0")
    answer = shop.run("update", "--yes", code=1)
    assert (answer["outcome"], answer["reason"]) == ("rolled-back", "console-silent")
    assert answer["slot"] == "a"


def test_a_device_is_not_set_up_with_an_image_that_does_not_boot(shop: Shop) -> None:
    board = shop.folder / "board.toml"
    board.write_text("[qemu]\ndeadline = 2\n")
    document = shop.init("--boot", "qemu", "--board", str(board), code=1)
    assert document["error"]["reason"] == "nothing-boots"
    assert shop.run("status", code=1)["error"]["reason"] == "not-set-up"


def test_a_console_that_never_ends_is_bounded(tmp_path: Path) -> None:
    """Whatever the machine prints, its file stays small, and the machine ends."""
    babbler = tmp_path / "babbler"
    script = 'while [ "$1" != -serial ]; do shift; done; exec yes >"${2#file:}"\n'
    babbler.write_text("#!/bin/sh\n" + script)
    babbler.chmod(0o755)
    machine = Machine(tmp_path / "console.log", [str(babbler)])
    machine.power_on(OPENSBI)
    try:
        assert not machine.await_console(lambda text: b"n" in text, 20)
        assert machine.off
        assert (tmp_path / "console.log").stat().st_size <= MAX_CONSOLE
    finally:
        machine.power_off()


def test_health_boots_a_machine_that_is_off(machine: Machine) -> None:
    """After a restart of the client the machine is off, and the trial goes on."""
    health = ConsoleHealth(machine, {"a": OPENSBI}, ["OpenSBI v"], 60)
    assert machine.off and health.examine("a").healthy
    machine.power_off()
    machine.power_off()
    assert machine.off


def test_no_machine_is_left_behind(machine: Machine) -> None:
    machine.power_on(OPENSBI)
    first = machine._process
    machine.power_on(UBOOT)
    assert first is not None and first.poll() is not None
    assert machine.await_console(lambda text: b"U-Boot 20" in text, 60)


def test_no_qemu_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        Machine(tmp_path / "c", ["/nonexistent/qemu", *QEMU[1:]]).power_on(OPENSBI)
    assert caught.value.reason == "no-qemu"
