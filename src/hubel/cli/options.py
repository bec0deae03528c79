"""Options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Write results to stdout as JSON and nothing else.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for the network.", show_default="all cores")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A registered name (resnet50), a name with weights (resnet50:torchvision/IMAGENET1K_V2) or a run folder.",
    ),
]
FromFormat = Annotated[
    str | None,
    typer.Option("--from", metavar="FORMAT", help="What it is written in.", show_default="by what it is"),
]
Pictures = Annotated[
    Literal["copy", "link", "none"], typer.Option(help="Copy the pictures, link to them, or write labels only.")
]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the architecture, e.g. se=true; may be repeated."),
]


def parsed_options(given: list[str] | None) -> dict[str, Any]:
    """``["se=true", "width=0.5"]`` → ``{"se": True, "width": 0.5}``; values as YAML reads them.

    Raises:
        typer.BadParameter: a word without an equals sign, or a value that is none.
    """
    import yaml

    options: dict[str, Any] = {}
    for word in given or ():
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{word!r} is not NAME=VALUE.", param_hint="'--set'")
        try:
            options[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{value!r} is no value.", param_hint="'--set'") from error
    return options
