"""The `asit` command, put together from the entry points of group `asit.commands`.

Each entry point is a `typer.Typer` or a function. Packages above this one add commands
without being imported here, so the arrow between packages never turns round. Only the
command that was asked for is loaded: `asit report` does not wait for Ray.
"""

import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer

from asit_platform.errors import PlatformError
from asit_platform.log import configure_logging

COMMAND_GROUP = "asit.commands"
PASS_EVERYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}

_logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `asit` and return its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    configure_logging()
    try:
        build_app(arguments)(arguments, prog_name="asit")
    except PlatformError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except ValueError as error:
        if not _is_from_asit_core(error):
            raise
        typer.echo(f"error: {error}", err=True)
        return 2
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """Build the root app; where `arguments` name a command, with that command only."""
    app = typer.Typer(
        name="asit",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    commands = {point.name: point for point in entry_points(group=COMMAND_GROUP)}
    asked = next((word for word in arguments if not word.startswith("-")), None)
    if asked in commands:
        names = [asked]
    else:
        names = [] if "--version" in arguments else sorted(commands)
    for name in names:
        _add(app, commands[name])
    return app


def call_command(name: str, *arguments: str) -> bool:
    """Run another package's command from inside one of ours.

    Returns:
        False when no installed package brings a working command of that name.

    Raises:
        PlatformError: If the command ran and ended with an error.
    """
    point = next(iter(entry_points(group=COMMAND_GROUP, name=name)), None)
    if point is None:
        return False
    try:
        command = point.load()
    except Exception as error:
        _logger.warning("command '%s' cannot be loaded: %s", name, error)
        return False
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_nothing)
    _add_loaded(app, name, command)
    code = app([name, *arguments], standalone_mode=False)
    if isinstance(code, int) and code != 0:
        command_line = shlex.join(["asit", name, *arguments])
        raise PlatformError(f"`{command_line}` ended with exit code {code}")
    return True


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"asit {version('asit')}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show debug messages.")] = False,
) -> None:
    """Sweeps and ablations of self-supervised spectrogram transformers."""
    if verbose:
        configure_logging(logging.DEBUG)


def _nothing() -> None:
    """A callback keeps Typer from collapsing an app with one command into that command."""


def _add(app: typer.Typer, point: EntryPoint) -> None:
    try:
        command = point.load()
    except Exception as error:
        # Whatever a plugin raises while it is imported, the other commands must still work.
        _add_broken(app, point, error)
    else:
        _add_loaded(app, point.name, command)


def _add_loaded(app: typer.Typer, name: str, command: typer.Typer | Callable[..., Any]) -> None:
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


def _add_broken(app: typer.Typer, point: EntryPoint, error: Exception) -> None:
    package = point.dist.name if point.dist is not None else point.value

    def broken() -> None:
        raise PlatformError(
            f"command '{point.name}' of {package} cannot be loaded: "
            f"{type(error).__name__}: {error}; `asit doctor` says what is missing"
        ) from error

    help_text = f"(cannot be loaded: {type(error).__name__}: {error})"
    app.command(point.name, help=help_text, context_settings=PASS_EVERYTHING)(broken)


def _is_from_asit_core(error: ValueError) -> bool:
    """True if asit_core itself raised it: its ValueErrors are written for users."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    name = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return name.split(".")[0] == "asit_core"
