"""Entry point of the command line: finds the command and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections import UserDict
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import hubel
from hubel.console import log, report_error
from hubel.errors import HubelError, UsageError

COMMANDS = (
    "demo", "predict", "track", "train", "evaluate", "export", "models", "summary", "scale", "bench", "cache", "data",
)  # fmt: skip
"""A command ``NAME`` is the function, or the group, ``NAME`` in ``hubel.cli.NAME``."""


@cache
def _command(name: str) -> Any:
    """The click command, from its module."""
    found = getattr(import_module(f"hubel.cli.{name}"), name)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
        found.command()(function)
    return typer.main.get_command(found)


class _Commands(UserDict[str, Any]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return _command(super().__getitem__(name))


class _LazyGroup(TyperGroup):
    """A group that imports only the command that is run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Commands({name: name for name in COMMANDS})


app = typer.Typer(
    name="hubel",
    cls=_LazyGroup,
    help="Deep computer vision with convolutional networks: predict, train, evaluate, look inside.",
    no_args_is_help=True,
    add_completion=False,
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
    """Run one command and exit: 0 success, 1 a fault in data, file or model, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        app(arguments, prog_name="hubel")
    except HubelError as error:
        if debug:
            raise
        report_error(error.message, error.hint)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        log("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, less) has gone, which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        report_error(f"{type(error).__name__}: {error}", "this is a bug in hubel: please report it with --debug")
        sys.exit(1)
