"""The command line's entry: collects the commands and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import hubel
from hubel.cli.bench import bench
from hubel.cli.cache import cache
from hubel.cli.data import data
from hubel.cli.demo import demo
from hubel.cli.evaluate import evaluate
from hubel.cli.export import export
from hubel.cli.models import models
from hubel.cli.predict import predict
from hubel.cli.scale import scale
from hubel.cli.summary import summary
from hubel.cli.track import track
from hubel.cli.train import train
from hubel.console import log, report_error
from hubel.errors import HubelError, UsageError

app = typer.Typer(
    name="hubel",
    help="Deep computer vision with convolutional networks: predict, train, evaluate, look inside.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


for command in (demo, predict, track, train, evaluate, export, models, summary, scale, bench, cache):
    app.command()(command)
app.add_typer(data)


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
    """Run one command and exit: 0 done, 1 something is wrong with data, file or model, 2 wrong usage."""
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
    except BrokenPipeError:  # the reader (head, less) has gone: nothing is wrong here
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        report_error(
            f"{type(error).__name__}: {error}", "this is a fault of hubel's: run again with --debug and report it"
        )
        sys.exit(1)
