"""``hubel evaluate``: scores of a model on labelled data, and of a tracker on sequences."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hubel.cli.options import Batch, Device, Json, Nms, Strict, Threads, Tile, Tta
from hubel.console import activity, log, print_json, report_error, show
from hubel.errors import UsageError
from hubel.fileio import check_exists


def evaluate(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL DATA",
            help="A run folder, an exported folder, or a registered name with the data's classes, and data labelled as "
            "for hubel train. "
            "With --task track: pairs of GT.txt RESULT.txt, or a folder of each.",
        ),
    ],
    task: Annotated[str | None, typer.Option(help="track: score tracks.", show_default="the model's")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all.", show_default="test, else val")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write an HTML report to this folder.")
    ] = None,
    nms: Nms = "standard",
    tta: Tta = False,
    tile: Tile = None,
    batch: Batch = 32,
    device: Device = "auto",
    threads: Threads = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Score a model on labelled images, or tracks.

    Classification: accuracy with its confidence interval, F1, calibration, every class. Localization: mean IoU, and the
    fraction of boxes with an IoU of at least 0.5. Detection: COCO's AP. Tracks: HOTA, MOTA, IDF1, id switches.

    \b
    hubel evaluate runs/flowers flowers/
    hubel evaluate runs/flowers more-flowers/ --split all --report out/
    hubel evaluate runs/cars aerial/ --tile 640
    hubel evaluate --task track gt.txt result.txt
    hubel evaluate --task track MOT17/train/ results/ --json
    """
    if task == "track":
        if split is not None or report is not None or tta or tile or nms != "standard":
            message = "--split, --report, --nms, --tta and --tile apply to models only"
            raise UsageError(message, "omit them with --task track")
        _evaluate_tracks([Path(name) for name in what], json)
        return
    if task is not None:
        raise UsageError(f"--task {task}: the model determines the task", "omit it, or use --task track")
    if len(what) != 2:
        raise UsageError(f"expected two arguments, MODEL DATA, not {len(what)}", "see hubel evaluate --help")
    from hubel.models.metadata import check_reference

    model, data = what
    check_reference(model)
    check_exists(Path(data))
    from hubel.training.evaluate import evaluate as run

    with activity(f"scoring {model} on {data}"):
        result = run(
            model,
            Path(data),
            split=split,
            batch=batch,
            device=device,
            threads=threads,
            strict=strict,
            report=report,
            nms=nms,
            tta=tta,
            tile=tile,
        )
    for failure in result.failures:
        report_error(failure.message, failure.hint)
    if json:
        print_json(result.to_json())
    else:
        show(result.table())
    if result.failures:
        raise typer.Exit(1)


def _evaluate_tracks(paths: list[Path], json: bool) -> None:
    from hubel.tracking.evaluate import score_files

    start = time.perf_counter()
    scores = score_files(paths, lambda text: log(f"note:  {text}"))
    if json:
        facts: dict[str, Any] = {"task": "track", "model": None, "data": [str(path) for path in paths], "split": None}
        facts |= {"images": scores.together.frames, "seconds": time.perf_counter() - start}
        print_json({**facts, **scores.to_json()})
    else:
        show(scores.table())
