"""Which adapters the owner's settings ask for, one function for each port.

Nothing is opened, asked or written here; what is heavy is loaded only where it is asked for.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from device_client.adapters.system import CommandHealth, ConfiguredSite
from device_client.config import Config
from device_client.ports import HealthCheck, Site, Source
from protocol.trustfile import TrustFile


def registries(root: Path, config: Config, trusted: TrustFile) -> Source:
    """Who is asked: the registries of the settings, or those of the trust file; nobody is fine."""
    addresses = config.registries or list(trusted.registries)
    if not addresses:
        from device_client.adapters.no_source import NoSource

        return NoSource()
    from device_client.adapters.http_source import HttpSource
    from device_client.adapters.wire import authorities

    if not config.ca_file:
        return HttpSource(addresses)
    return HttpSource(addresses, trusted=cache(lambda: authorities(root / config.ca_file)))


def health_check(root: Path, config: Config) -> HealthCheck:
    """The owner's command, where the boot backend brings no check of its own."""
    paths = config.board.paths(root)
    return CommandHealth(config.health_check, config.health_deadline, paths, root)


def site(root: Path, config: Config) -> Site:
    """What may stand in the way, as the owner named it; paths are relative to ``root``."""

    def path(text: str) -> Path | None:
        return root / text if text else None

    return ConfiguredSite(
        root / "slots",
        busy_file=path(config.busy_file),
        busy_command=config.busy_command,
        metered_file=path(config.metered_file),
        battery_file=path(config.battery_file),
        reserved=bool(config.board.slots.a),
    )
