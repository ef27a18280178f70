"""The command line's voice: one answer on stdout, everything else on stderr.

What is written to stdout is through when a function returns, or its failure is an error like any
other: a program that asked is never left with half an answer and exit code 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from typing import Any

from protocol.errors import LocalFault


def give(options: argparse.Namespace, data: dict[str, Any], text: str) -> None:
    """The one answer of a command: ``data`` with ``--json``, otherwise ``text``."""
    if options.json:
        document(data)
    else:
        write(text + "\n")


def document(data: dict[str, Any]) -> None:
    """One JSON document."""
    write(json.dumps(data, indent=2) + "\n")


def write(text: str) -> None:
    """To stdout, and through; `LocalFault` if it takes no more."""
    if sys.stdout is None:  # closed by whoever started us: no answer is wanted
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        mute()
        raise LocalFault(
            "output",
            "answer not written",
            error.strerror or str(error),
            "what was done is done: see `firmledger-device status`",
        ) from error


def mute() -> None:
    """Nothing more goes to stdout, not even when Python flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """A line for people, on stderr; lost where that takes none."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text + "\n")


def progress(what: str, done: int, total: int) -> None:
    """How far long work is, where somebody looks on."""
    if sys.stderr is not None and sys.stderr.isatty():
        end = "\n" if done >= total else ""
        share = 100 * done // max(total, 1)
        sys.stderr.write(f"\r{what} {share:3} % of {total / 2**20:.1f} MiB{end}")
        sys.stderr.flush()
