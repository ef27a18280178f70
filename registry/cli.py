"""``firmledger``: the registry's command line (design section 7; scripts depend on it).

Rules: exit 0 on success, 1 on a refusal or a failed check, 2 on wrong usage. An error is printed
as ``error: what / why / what to do`` on stderr and, with ``--json``, as a document on stdout.
Commands of other rooms (``demo``) come through the entry point group ``firmledger.commands``,
loaded when asked for.

Every command imports what it needs inside: start-up stays quick, and `bundle verify` needs no
registry.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from protocol.errors import FirmledgerError, LocalFault
from registry import VERSION
from registry.commands import audit, bundle, ledger, product, release, serve
from registry.commands.desk import Desk

PLUGINS = "firmledger.commands"
PATIENCE = 30.0
_INTERRUPTED = 130


class _WithPlugins(TyperGroup):
    """Finds further commands by their entry points, and loads one only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Ours, then the plugins' by name."""
        return [*super().list_commands(ctx), *sorted(_plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Ours, or the plugin's: a `typer.Typer`, or a function that becomes one."""
        own = super().get_command(ctx, cmd_name)
        plugin = None if own is not None else _plugins().get(cmd_name)
        if plugin is None:
            return own
        loaded = plugin.load()
        if not isinstance(loaded, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command(name=cmd_name)(loaded)
            loaded = alone
        return typer.main.get_command(loaded)


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGINS)}


app = typer.Typer(
    cls=_WithPlugins,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Firmware releases, agreed on a ledger and proved to devices.",
)
app.command()(serve.init)
app.command()(serve.serve)
app.add_typer(ledger.app, name="ledger")
app.add_typer(product.app, name="product")
app.add_typer(release.app, name="release")
app.add_typer(bundle.app, name="bundle")
app.command(name="audit")(audit.audit)


def _tell_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"firmledger {VERSION}\n")
        raise typer.Exit


@app.callback()
def _setup(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Option("-C", metavar="DIR", help="The registry's directory.")
    ] = Path(),
    patience: Annotated[
        float,
        typer.Option("--patience", metavar="SECONDS", help="How long to wait for a server."),
    ] = PATIENCE,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version."),
    ] = False,
) -> None:
    context.obj = Desk(directory, patience)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code, as does ``python -m registry.cli``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given, prog_name="firmledger", standalone_mode=False)
    except FirmledgerError as error:
        return _fail(error, given)
    except typer.TyperException as error:
        return _misused(error, given)
    except (typer.Abort, KeyboardInterrupt):
        return _stopped(given)
    except BrokenPipeError:
        # The reader went away: nothing more can be said, not even while Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as fault:
        return _fail(
            LocalFault("local", "not finished", str(fault), "check files, space and rights"), given
        )
    if code == _INTERRUPTED:  # what Typer makes of Ctrl-C
        return _stopped(given)
    return code if isinstance(code, int) else 0


def _stopped(given: Sequence[str]) -> int:
    why, fix = "by a signal", "run it again: nothing is published twice"
    return _fail(LocalFault("stopped", "stopped", why, fix), given)


def _fail(error: FirmledgerError, given: Sequence[str]) -> int:
    sys.stderr.write(f"error: {error}\n")
    if "--json" in given:
        shown = json.dumps({"error": error.as_dict()}, indent=2, default=_plain)
        sys.stdout.write(shown + "\n")
    return error.exit_code


def _misused(error: Any, given: Sequence[str]) -> int:
    """Wrong usage, as the parser found it; the help that no arguments ask for is no error."""
    text = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    if not given or type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(text + "\n")
        return 2
    why = text.rstrip(".").replace("\n", " ")
    sys.stderr.write(f"error: command not understood / {why} / see --help\n")
    if "--json" in given:
        members = {"family": "misuse", "reason": "usage", "what": "command not understood"}
        document = {"error": {**members, "why": why, "fix": "see --help"}}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 2


def _plain(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    sys.exit(main())
