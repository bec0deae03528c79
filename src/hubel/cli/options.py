"""Options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from typing import Annotated

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
