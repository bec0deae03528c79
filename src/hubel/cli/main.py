"""Entry point of the command line: finds the command and turns errors into exit codes."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections import UserDict
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

import hubel
from hubel import interrupts
from hubel.cli.command import HELP, Command, Group
from hubel.console import log, report_error
from hubel.errors import HubelError, UsageError
from hubel.fileio import NO_SPACE, remedy
from hubel.standard_streams import make_streams_safe

COMMANDS = (
    "demo", "predict", "track", "train", "tune", "evaluate", "export", "models", "summary", "scale", "bench", "cache",
    "data",
)  # fmt: skip
"""A command ``NAME`` is the function, or the group, ``NAME`` in ``hubel.cli.NAME``."""


@cache
def _command(name: str) -> Any:
    """The click command, from its module."""
    found = getattr(import_module(f"hubel.cli.{name}"), name)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
        found.command(cls=Command)(function)
    return typer.main.get_command(found)


class _Commands(UserDict[str, Any]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return _command(super().__getitem__(name))


class _Stopped(BaseException):
    """An interrupt, or a reader of stdout (head, less) that has gone: Typer would end with statuses of its own."""


class _LazyGroup(Group):
    """A group that imports only the command that is run."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise _Stopped from error

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Commands({name: name for name in COMMANDS})


app = typer.Typer(
    name="hubel",
    cls=_LazyGroup,
    help="Deep computer vision with convolutional networks: predict, train, evaluate, look inside.",
    no_args_is_help=True,
    context_settings=HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(hubel.__version__)
        raise typer.Exit()


@app.callback()
def common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before or after the command's name."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit.

    0 success, 1 a fault in data, file or model, 2 wrong usage, 128 and the signal's number interrupted (Ctrl-C: 130).
    """
    interrupts.forget()
    try:
        with interrupts.interruptions():
            _run(arguments)
    except SystemExit:
        if interrupts.received():  # whatever has become of it on the way
            sys.exit(interrupts.exit_status())
        raise
    finally:
        interrupts.silence_closed_output()


def _run(arguments: list[str] | None) -> None:
    make_streams_safe()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        app(arguments, prog_name="hubel")
    except HubelError as error:
        if debug:
            raise
        if interrupts.received():
            _end_interrupted()
        report_error(error.message, error.hint)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except (_Stopped, KeyboardInterrupt) as stopped:
        if isinstance(stopped.__cause__, BrokenPipeError) and not interrupts.received():
            sys.exit(0)
        _end_interrupted()
    except Exception as error:
        if debug:
            raise
        if interrupts.received():  # a library fails because a worker or the terminal has gone
            _end_interrupted()
        if isinstance(error, OSError) and error.filename is None and error.errno in NO_SPACE:
            report_error(f"the output cannot be written: {error.strerror}", remedy(error))
            sys.exit(1)
        if isinstance(error, OSError) and error.filename and error.errno == errno.ENAMETOOLONG:
            report_error(f"{error.filename} does not exist: {error.strerror}", "check the spelling and the folder")
            sys.exit(1)
        report_error(f"{type(error).__name__}: {error}", "report this bug in hubel, with what --debug shows")
        sys.exit(1)


def _end_interrupted() -> NoReturn:
    with contextlib.suppress(OSError):  # of a terminal that was closed
        log("interrupted")
    sys.exit(interrupts.exit_status())
