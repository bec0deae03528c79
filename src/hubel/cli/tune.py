"""``hubel tune``: a search for better settings of a training, each scored by cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hubel.cli.options import Json, check_training, options_of
from hubel.config import TrainingConfig
from hubel.console import check_output_dir, log, print_json, print_table, show
from hubel.tuning.space import NOT_TAKEN


@options_of(TrainingConfig, without=NOT_TAKEN)
def tune(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Labelled images, as for hubel train.")],
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from random weights.")] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of settings to try, the defaults included.",
            show_default="20; with --minutes no limit",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="Begin no training that would end later.", show_default="no limit"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, metavar="K", help="Folds of the cross-validation.")] = 5,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="R", help="Divide the images R times, each time into other folds.")
    ] = 1,
    parallel: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Train N folds at a time, each in a process with a share of the threads."
        ),
    ] = 1,
    groups: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV file, image,group: images of a group are never in two folds."),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of the settings to search.", show_default="the task's own"),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option("--nested", help="Also search without each fold and score on it: no choice flatters that."),
    ] = False,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Keep the folds' networks of the best settings as one model."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The search's folder.", show_default="runs/NAME-tune")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the latest search of this name, or of --out.")
    ] = False,
    json: Json = False,
    **config: Any,
) -> None:
    """Search for better settings of a training by cross-validation.

    Trains with the defaults, then with other settings, once for each fold of the training and validation images; a
    test set is not touched. Settings that are worse than others are stopped early. Options that are given
    hold for all trainings and are not searched.

    \b
    hubel tune flowers/ --trials 30
    hubel tune flowers/ --minutes 60 --model resnet18 --epochs 8
    hubel tune cells/ --task detect --space space.yaml
    hubel tune flowers/ --ensemble
    hubel tune flowers/ --resume --trials 60
    hubel train flowers/ --config runs/flowers-tune/config.yaml
    """
    check_output_dir("--out", out, [data])
    if from_scratch:
        config["weights"] = None
    if not resume:
        check_training(data, config)
    from hubel.system import set_passive_omp_wait

    set_passive_omp_wait()
    from hubel.tuning.tune import tune as run

    result = run(
        data,
        trials=trials,
        minutes=minutes,
        folds=folds,
        repeats=repeats,
        parallel=parallel,
        groups=groups,
        space=space,
        nested=nested,
        ensemble=ensemble,
        resume=resume,
        out=out,
        **config,
    )
    if json:
        print_json(result.to_json())
    else:
        show(result.headline())
        print_table(result.table())
        for sentence in result.sentences:
            show(sentence)
    log(f"report: {result.folder / 'report.html'}")
    log(f"next: hubel train {result.data} --config {result.folder / 'config.yaml'}")
    if result.ensemble is not None:
        scored = f"evaluate {result.ensemble} {result.data} --split test"
        predicts = f"predict PHOTO.jpg --model {result.ensemble}"
        log(f"or, with the ensemble: hubel {scored if result.test_images else predicts}")
