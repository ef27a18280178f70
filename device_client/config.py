"""``config.toml``: what the owner settled, read strictly.

Guarantees: a file that was read is complete and in range; an unknown name is refused, for it is a
setting that somebody believes to be in force. The file is for people: it is written once, by
`init`, and edited by hand.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from device_client.adapters.boot_backends import Board
from device_client.adapters.directory import read_bounded
from device_client.core.pace import LEAST_RATE
from device_client.core.policy import Hold, Mode, Policy, Window
from protocol.errors import LocalFault, Malformed, Misuse
from protocol.ids import U32_MAX

MAX_CONFIG_BYTES = 64 * 1024
MAX_WAIT = 55
"""Seconds for which a registry holds an answer back, at most (docs/api.md)."""


@dataclass(frozen=True)
class Config:
    """The settings, with what a new device has by default. Times in seconds."""

    hardware: int = 0
    profile: str = "trial"
    registries: list[str] = field(default_factory=list)
    ca_file: str = ""
    mode: str = "auto"
    windows: list[str] = field(default_factory=list)
    timezone: str = "UTC"
    critical_may_pass: list[str] = field(default_factory=list)
    min_battery: int = 30
    allow_metered: bool = False
    retries: int = 3
    retry_after: int = 86400
    bandwidth: int = 0
    busy_file: str = ""
    busy_command: list[str] = field(default_factory=list)
    metered_file: str = ""
    battery_file: str = ""
    health_check: list[str] = field(default_factory=list)
    health_deadline: int = 60
    attempts: int = 3
    stability: int = 0
    confirm: str = "auto"
    keep_former: bool = True
    slot_bytes: int = 0
    poll_interval: int = 3600
    longest_interval: int = 86400
    wait: int = 0
    board: Board = field(default_factory=Board)

    @property
    def policy(self) -> Policy:
        """The owner's rules; `Misuse` for words that mean nothing."""
        try:
            mode = Mode(self.mode)
            critical = frozenset(Hold(word) for word in self.critical_may_pass)
        except ValueError as error:
            raise _wrong(str(error)) from None
        return Policy(
            mode=mode,
            windows=tuple(Window.parse(text) for text in self.windows),
            critical=critical,
            min_battery=self.min_battery,
            allow_metered=self.allow_metered,
            retries=self.retries,
            retry_after=self.retry_after,
        )

    @property
    def zone(self) -> tzinfo:
        """The time zone of the windows."""
        if self.timezone == "UTC":
            return UTC
        from zoneinfo import ZoneInfo

        try:
            return ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise _wrong(f"{self.timezone[:40]!r} is no time zone known here") from None

    def to_toml(self) -> str:
        """The file; JSON's texts, numbers and lists are TOML's as well."""
        notes = {
            "hardware": "what this device is",
            "registries": "asked in this order; none: those of trust.json",
            "ca_file": "PEM of who may vouch for an https registry; none: the system's authorities",
            "mode": "auto | ask | manual",
            "windows": 'such as "mon-fri 22:00-06:00"; none: at any time',
            "critical_may_pass": "some of: consent, busy, battery, metered, window",
            "retries": "of a release whose bytes come wrong; then one per retry_after",
            "bandwidth": "bytes per second of a download; 0: no limit",
            "busy_file": "nothing is installed while one of these says so",
            "health_check": "argv; exit 0 means healthy; it finds the image in FIRMLEDGER_SLOT",
            "attempts": "boots that a trial may take",
            "stability": "seconds for which a trial must stay healthy before it is confirmed",
            "confirm": "auto | owner",
            "keep_former": "false: erased once another image is confirmed; no way back then",
            "slot_bytes": "size of a slot; 0: as large as the disk allows",
            "poll_interval": "of the daemon, in seconds",
            "wait": "seconds for which a registry may hold back its answer; at most 55",
        }
        lines = []
        for f in fields(self):
            if f.name == "board":
                continue
            if f.name in notes:
                lines.append(f"\n# {notes[f.name]}")
            lines.append(f"{f.name} = {json.dumps(getattr(self, f.name))}")
        return (
            "# Settings of this device; docs/device.md explains them.\n"
            + "".join(line + "\n" for line in lines)
            + self.board.to_toml()
        )

    @classmethod
    def parse(cls, data: bytes) -> Config:
        """The settings in ``data``; `Malformed` or `Misuse` if they are not all in order."""
        document = _document(data)
        tables = {k: document.pop(k) for k, v in list(document.items()) if isinstance(v, dict)}
        _require_no_nul(document, tables)
        boot = document.pop("boot", "virtual")
        known = {f.name: f for f in fields(cls) if f.name != "board"}
        for name, value in document.items():
            if name not in known:
                raise _wrong(f"{name[:40]!r} is no setting")
            _require_type(name, value, str(known[name].type))
        config = cls(**document, board=Board.parse(boot, tables))
        config._check()
        return config

    def _check(self) -> None:
        for name, least, most in (
            ("hardware", 0, U32_MAX),
            ("min_battery", 0, 100),
            ("health_deadline", 1, 24 * 3600),
            ("retries", 1, 1000),
            ("retry_after", 60, 30 * 86400),
            ("bandwidth", 0, 2**40),
            ("attempts", 1, self.board.most_attempts),
            ("stability", 0, 7 * 86400),
            ("slot_bytes", 0, 2**40),
            ("poll_interval", 1, 30 * 86400),
            ("longest_interval", 1, 30 * 86400),
            ("wait", 0, MAX_WAIT),
        ):
            if not least <= getattr(self, name) <= most:
                raise _wrong(f"{name} is not between {least} and {most}")
        if 0 < self.bandwidth < LEAST_RATE:
            raise _wrong(f"bandwidth is under {LEAST_RATE} bytes per second; use a gateway")
        if self.profile not in ("trial", "production") or self.confirm not in ("auto", "owner"):
            raise _wrong("profile is trial or production, confirm is auto or owner")
        if self.board.boot == "qemu" and self.health_check:
            raise _wrong("with boot = 'qemu' the console is the health check; name no other")
        _ = self.policy, self.zone


def _document(data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed(
            "config-syntax",
            "config.toml refused",
            str(error)[:200],
            "correct the line, or give the settings of `init` back with `reset`",
        ) from None


def _require_no_nul(*values: Any) -> None:
    """No path and no argument of a command can have a NUL in it."""
    for value in values:
        if isinstance(value, dict | list):
            _require_no_nul(*(value.values() if isinstance(value, dict) else value))
        elif isinstance(value, str) and "\0" in value:
            raise _wrong(f"{value[:40]!r} has a NUL in it")


def _require_type(name: str, value: Any, wanted: str) -> None:
    kinds = {"int": int, "str": str, "bool": bool, "list[str]": list}
    right = type(value) is kinds[wanted]
    if right and wanted == "list[str]":
        right = len(value) <= 64 and all(isinstance(v, str) for v in value)
    if not right:
        raise _wrong(f"{name} is not of type {wanted}")


def _wrong(why: str) -> Misuse:
    return Misuse("config", "config.toml refused", why, "see docs/device.md for the settings")


def read_config(root: Path) -> Config:
    """The settings of the device in ``root``; `LocalFault` if there is none."""
    if not (root / "config.toml").exists():
        raise no_device(root)
    return Config.parse(read_bounded(root / "config.toml", MAX_CONFIG_BYTES))


def no_device(root: Path) -> LocalFault:
    """The error for a directory without a device, or whose settings are lost."""
    return LocalFault(
        "not-set-up",
        f"{root} refused",
        "there is no config.toml, no device was set up there",
        "run `firmledger-device -C DIR init`; `reset` where only config.toml was lost",
    )


def with_settings(config: Config, words: Sequence[str]) -> Config:
    """``config`` with settings given as ``NAME=VALUE``: a number, true, false, a text, or texts in
    brackets, as in the file; quotes around a single text may be left out."""
    given: dict[str, Any] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or name not in Config.__dataclass_fields__ or name == "board":
            raise _wrong(f"{word[:40]!r} sets nothing that there is")
        if Config.__dataclass_fields__[name].type == "str" and value[:1] not in ("'", '"'):
            given[name] = value
        else:
            given[name] = _value(word, value)
        _require_type(name, given[name], str(Config.__dataclass_fields__[name].type))
    return replace(config, **given)


def _value(word: str, text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        document = {}
    if list(document) != ["value"]:
        raise _wrong(f"{word[:40]!r} gives no value")
    return document["value"]


def read_board(boot: str, tables: Path | None) -> Board:
    """The backend ``boot`` with the tables in a file, or with its own defaults."""
    document = _document(read_bounded(tables, MAX_CONFIG_BYTES)) if tables else {}
    for name, value in document.items():
        if not isinstance(value, dict):
            raise _wrong(f"{name[:40]!r} is no table of a boot backend")
    return Board.parse(boot, document)
