"""``hubel train``: from labelled images to a trained network and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hubel.cli.options import Json, check_training, options_of
from hubel.config import TrainingConfig
from hubel.config_file import read_options
from hubel.console import log, print_json, show
from hubel.errors import UsageError


@options_of(TrainingConfig)
def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A folder with one folder of images per class, or with labels of an annotation tool.",
            show_default=False,
        ),
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from random weights.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder.", show_default="runs/NAME")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the latest run of this name, or of --out.")
    ] = False,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Options from a YAML file, such as a run's config.yaml."),
    ] = None,
    json: Json = False,
    **config: Any,
) -> None:
    """Train a network on labelled images.

    For classification, DATA has one folder per class, or train/, val/ and test/ with those inside. For detection and
    localization, it has labels of any annotation tool; localization takes the largest box of each image. For instances,
    these have outlines or masks.

    \b
    hubel train flowers/
    hubel train flowers/ --model resnet50 --epochs 20 --augment crop,flip,color,randaugment
    hubel train cells/                          labels of an annotation tool: trains a detector
    hubel train raccoons/ --task localize
    hubel train bottles/ --task instances       outlines or masks: finds objects with their pixels
    hubel train photos/ --task super-resolve    any images: trains a network that enlarges them
    hubel train --config runs/flowers/config.yaml --epochs 20
    hubel train flowers/ --resume
    """
    if config_file is not None:
        config = {**read_options(config_file), **config}
    if from_scratch:
        config["weights"] = None
    data = data or config.pop("data", None)
    if data is None:
        raise UsageError("DATA is missing: the folder of labelled images", "see hubel train --help")
    config.pop("data", None)
    if not resume:
        check_training(Path(data), config)
    from hubel.system import set_passive_omp_wait

    set_passive_omp_wait()
    from hubel.training.distributed import is_main
    from hubel.training.train import train as run

    result = run(data, resume=resume, out=out, **config)
    if not is_main():  # of several processes, one reports
        return
    if json:
        print_json(result.to_json())
    else:
        show(result.headline())
    log(f"report: {result.folder / 'report.html'}")
    log(f"next: hubel predict PHOTO.jpg --model {result.folder}")
