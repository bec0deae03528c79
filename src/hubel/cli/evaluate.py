"""``hubel evaluate``: a model's score on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubel.cli.manners import print_json, report_error
from hubel.cli.options import Device, Json, Threads


def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, or a registered name with the data's classes.")],
    data: Annotated[Path, typer.Argument(help="Labelled as for hubel train.")],
    split: Annotated[str | None, typer.Option(help="train, val, test or all.", show_default="test, else val")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report into this folder.")] = None,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    device: Device = "auto",
    threads: Threads = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")] = False,
    json: Json = False,
) -> None:
    """Score a model on labelled images: accuracy with its confidence interval, F1, calibration, every class; for boxes
    mean IoU, and how many overlap the true one by half.

    \b
    hubel evaluate runs/flowers flowers/
    hubel evaluate runs/flowers more-flowers/ --split all --report out/
    """
    from hubel.training import evaluate as run

    result = run(model, data, split=split, batch=batch, device=device, threads=threads, strict=strict, report=report)
    for failure in result.failures:
        report_error(failure.fault, failure.remedy)
    if json:
        print_json(result.to_json())
    else:
        print(result.table())
    if result.failures:
        raise typer.Exit(1)
