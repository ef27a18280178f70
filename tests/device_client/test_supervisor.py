"""What a service manager is told: systemd's datagrams, word for word, from a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_client.adapters.supervisor import Systemd
from device_client.daemon import Daemon, Rhythm
from device_client.report import Report
from protocol.errors import FirmledgerError, Misuse
from tests.device_client.bench_top import bench_top
from tests.device_client.registry import image_of, make


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """All datagrams so far, oldest first."""
        found = []
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def test_what_is_told_word_for_word(manager: Manager) -> None:
    told = Systemd(manager.address)
    told.ready()
    told.says("runs 1.0.0 from slot b")
    told.alive(12.5)
    told.stopping()
    assert manager.heard() == [
        "READY=1",
        "STATUS=runs 1.0.0 from slot b",
        "WATCHDOG_USEC=12500000\nWATCHDOG=1",
        "STOPPING=1\nSTATUS=stopped",
    ]


def test_names_in_the_abstract_namespace(tmp_path: Path) -> None:
    manager = Manager(f"@firmledger-test-{tmp_path}")
    Systemd(manager.address).ready()
    assert manager.heard() == ["READY=1"]
    manager.socket.close()


def test_no_text_from_outside_adds_a_line_of_its_own(manager: Manager) -> None:
    Systemd(manager.address).says("error: HTTP 500\nMAINPID=1\r\nX_FD=\0" + "x" * 9000)
    (status,) = manager.heard()
    assert status.count("\n") == 0 and "\0" not in status
    assert status.startswith("STATUS=error: HTTP 500 MAINPID=1") and len(status) < 300


def test_a_manager_that_is_gone_or_deaf_holds_nobody_up(manager: Manager) -> None:
    Systemd(manager.address + "-gone").ready()
    deaf = Systemd(manager.address)
    for _ in range(10_000):  # far more than its queue takes
        deaf.alive(1)
    assert manager.heard()


@pytest.mark.parametrize("address", ["", "notify", "vsock:2:1", "/", "@", "/" + "x" * 107, "/a\0b"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(Misuse):
        Systemd(address)


def test_an_address_and_a_line_of_odd_bytes_are_passed_on(tmp_path: Path) -> None:
    manager = Manager(os.fsdecode(bytes(tmp_path) + b"/n\xff"))
    Systemd(manager.address).says("caf\u00e9 \udcff")
    assert manager.heard() == ["STATUS=caf\u00e9  "]
    manager.socket.close()


# -- the daemon's story ----------------------------------------------------------------------------


class Enough(BaseException):
    """Ends a daemon that runs for ever."""


def seconds(told: str) -> float:
    return int(told.split("\n")[0].removeprefix("WATCHDOG_USEC=")) / 1_000_000


def test_a_daemon_says_how_long_it_will_be_silent(manager: Manager) -> None:
    top = bench_top()
    top.registry.chain.publish(make(image_of("1.0.0"), "1.0.0"))
    rests: list[float] = []

    def sleep(length: float) -> None:
        rests.append(length)
        raise Enough

    top.clock.sleep = sleep  # type: ignore[method-assign]
    said: list[Report | FirmledgerError] = []
    supervisor = Systemd(manager.address)
    rhythm = Rhythm(100, 1000, patience=50)
    daemon = Daemon(top.agent(), rhythm, tell=said.append, supervisor=supervisor)
    with pytest.raises(Enough):
        daemon.run()
    heard = manager.heard()
    assert heard[0] == "READY=1" and heard[-1].startswith("STOPPING=1")
    assert seconds(heard[1]) == 50  # while it works
    assert seconds(heard[-2]) == pytest.approx(rests[0] + 50)  # while it rests
    assert len(heard) == 5  # one for each receipt, and none for the rest: it sleeps in one piece
    assert seconds(heard[2]) == 50
