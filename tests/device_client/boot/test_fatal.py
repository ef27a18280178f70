"""A boot record that cannot be read ends the daemon: it does not poll over what it cannot know."""

from __future__ import annotations

import pytest

from device_client.adapters.supervisor import Nobody
from device_client.daemon import FATAL, Daemon, Rhythm
from device_client.report import Report
from protocol.errors import FirmledgerError, LocalFault
from tests.device_client.bench_top import bench_top


@pytest.mark.parametrize("damaged", [True, False])
def test_damage_ends_the_first_round(damaged: bool) -> None:
    """One round, so that a daemon that goes on fails here and does not run for ever."""
    top, told = bench_top(), list[Report | FirmledgerError]()
    daemon = Daemon(top.agent(), Rhythm(10, 100), tell=told.append, supervisor=Nobody())
    if not damaged:
        assert daemon.round() > 0
        return
    top.disk.durable["boot.env"] = bytes(8192)
    with pytest.raises(LocalFault) as caught:
        daemon.round()
    assert caught.value.reason == "boot-record-damaged"
    assert caught.value.reason in FATAL
