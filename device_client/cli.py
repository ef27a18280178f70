"""``firmledger-device``: the device's command line.

Rules: with ``--json`` exactly one JSON document goes to stdout; prose and progress go to stderr.
Exit 0: done, ready, waiting or nothing to do; 1: refused or failed; 2: wrong usage. An error is one
line, ``error: what / why / what to do``. Heavy modules are loaded by the commands that need them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from device_client import rounds, upkeep
from device_client.arguments import Command, parser_of
from device_client.output import document, mute, say
from protocol.errors import FirmledgerError, LocalFault


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parser_of(COMMANDS).parse_args(given)
        command: Command = options.command
        return command(options)
    except FirmledgerError as error:
        return _fail(error, given)
    except BrokenPipeError:
        mute()  # the reader went away, and wants to hear nothing more
        return 1
    except OSError as error:
        why = error.strerror or str(error)
        return _fail(LocalFault("local-io", "not finished", why, "check files and rights"), given)
    except KeyboardInterrupt:
        what, fix = "by a signal", "run the command again, it goes on where it was"
        return _fail(LocalFault("stopped", "stopped", what, fix), given)


def _fail(error: FirmledgerError, given: Sequence[str]) -> int:
    """Tell an error; what was typed says how, for it may not have been understood."""
    say(f"error: {error}")
    if "--json" in given:
        with contextlib.suppress(LocalFault, BrokenPipeError):
            document({"error": error.as_dict()})
    return error.exit_code


COMMANDS: dict[str, Command] = {
    "init": upkeep.init,
    "check": rounds.check,
    "update": rounds.update,
    "install": rounds.install,
    "run": rounds.run,
    "status": upkeep.status,
    "history": upkeep.history,
    "confirm": rounds.confirm,
    "rollback": rounds.rollback,
    "reanchor": upkeep.reanchor,
    "reset": upkeep.reset,
    "doctor": upkeep.doctor,
}


if __name__ == "__main__":
    raise SystemExit(main())
