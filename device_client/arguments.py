"""What can be typed after ``firmledger-device``: the commands, their options, the version.

Wrong usage is raised (`Misuse`), as all errors are; nothing is done here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from device_client.adapters.boot_backends import BACKENDS
from device_client.output import write
from protocol.errors import Misuse

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Wrong usage, in the form of all errors."""
        raise Misuse("usage", "wrong usage", message, f"see `{self.prog} --help`")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """The end of ``--help`` and ``--version``: written now, or said to be not."""
        write("")
        super().exit(status, message)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Tell the version that is installed; it is looked up only here."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("firmledger")
        except PackageNotFoundError:
            number = "(not installed, run from its sources)"
        write(f"{parser.prog} {number}\n")
        parser.exit()


def parser_of(acts: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser; what it reads has one of ``acts`` as its ``command``."""
    parser = _Parser(
        prog="firmledger-device",
        description="Install only what the ledger proves; boot it on trial; confirm or go back.",
    )
    parser.add_argument(
        "-C", dest="root", metavar="DIR", type=Path, default=Path(), help="the device's directory"
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="tell the version, and end")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout")
        sub.set_defaults(command=acts[name])
        return sub

    _add_init(add("init", "set a device up in DIR"))
    check = add("check", "ask the registry and prove the answer; installs nothing")
    check.add_argument("--explain", action="store_true", help="tell every step and its verdict")
    update = add("update", "install what the ledger offers, and report on it")
    update.add_argument("--yes", action="store_true", help="the owner agrees, and at once")
    install = add("install", "install from a file (firmledger bundle export)")
    install.add_argument("file", type=Path, metavar="FILE")
    install.add_argument("--yes", action="store_true", help="the owner agrees, and at once")
    run = add("run", "poll and update for ever, as a daemon")
    run.add_argument("--once", action="store_true", help="one round only")
    run.add_argument("--notify", default="", metavar="SOCKET", help="systemd: ${NOTIFY_SOCKET}")
    add("status", "what runs here, what was proved, what is queued")
    add("history", "what happened here, oldest first")
    add("confirm", "vouch for the image on trial")
    add("rollback", "go back to the former image")
    anew = add("reanchor", "believe the ledger that the maker's recovery keys name")
    anew.add_argument("file", type=Path, metavar="FILE", help="a statement signed by them")
    add("reset", "factory reset: settings of `init`; key, counters and receipts stay")
    doctor = add("doctor", "what is open on this device, and how to close it")
    doctor.add_argument(
        "--system", type=Path, default=Path("/"), metavar="DIR", help="root of the system around it"
    )
    return parser


def _add_init(init: argparse.ArgumentParser) -> None:
    init.add_argument("--trust", type=Path, required=True, metavar="FILE", help="trust.json")
    init.add_argument(
        "--class-key", type=Path, metavar="FILE", help="class keys; default: TRUST.key beside it"
    )
    init.add_argument("--registry", action="append", default=[], metavar="URL")
    init.add_argument("--hardware", type=int, required=True, metavar="N")
    init.add_argument("--image", type=Path, metavar="FILE", help="what the device runs now")
    init.add_argument("--mode", choices=("auto", "ask", "manual"), default="auto")
    init.add_argument("--window", action="append", default=[], metavar="'daily 02:00-04:00'")
    init.add_argument("--timezone", default="UTC", metavar="ZONE")
    init.add_argument("--health-check", default="", metavar="CMD", help="exit 0 means healthy")
    init.add_argument("--health-deadline", type=int, default=60, metavar="SECONDS")
    init.add_argument("--confirm", choices=("auto", "owner"), default="auto")
    init.add_argument(
        "--boot", choices=BACKENDS, default="virtual", help="what boots this device: docs/boot"
    )
    init.add_argument("--board", type=Path, metavar="FILE", help="tables of the boot backend")
    init.add_argument(
        "--production", action="store_true", help="refuse what is fit for trials only"
    )
    init.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting"
    )
    init.add_argument(
        "--force", action="store_true", help="set it up again; key and counters are kept"
    )
    init.add_argument("--forget", action="store_true", help="with --force: the journal is lost")


def existing(path: Path, noun: str) -> Path:
    """A file that the command line names; `Misuse` if there is none."""
    from device_client.adapters.directory import mapped

    with mapped(f"reading {path}"):
        why = "it is a directory" if path.is_dir() else "" if path.exists() else "it is not there"
    if why:
        raise Misuse("no-such-file", f"{noun} {path} refused", why, "check the path and its name")
    return path
