"""``hubel models``: the table of architectures to choose from."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from hubel.cli.options import Json
from hubel.console import ProgressBar, activity, count_of, log, print_json, print_table
from hubel.tables import Table

_TASKS = ["classify", "localize", "detect", "segment", "instances", "super-resolve"]
_BATCHES = (1, 32)
_FEW = 3  # so few architectures are listed with all of their weights
_ABOUT_WEIGHTS = ("Weights", "On this\nmachine", "Figures from")
_OPTIONAL = ("Figures from", "Depth", "Size\n(MB)", "On this\nmachine", "Input", "Top-5", "Task", "Weights")
_METRICS = (
    *(("classify", key, title) for key, title in (("top1", "Top-1"), ("top5", "Top-5"))),
    *((task, "mAP", "mAP") for task in ("detect", "instances")),
)


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these architectures; patterns such as 'res*' are names, too."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="|".join(_TASKS), help="Only architectures for this task.", autocompletion=lambda: _TASKS),
    ] = None,
    match: Annotated[str, typer.Option(metavar="PATTERN", help="Only names that match, e.g. 'res*'.")] = "*",
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure milliseconds per image on this machine's CPU.")
    ] = False,
    max_ms: Annotated[
        float | None, typer.Option(min=0, help="Largest time per image in milliseconds; implies measuring.")
    ] = None,
    max_mb: Annotated[float | None, typer.Option(min=0, help="Largest size of the weights in MB.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Plot accuracy against cost, with the Pareto front.")
    ] = None,
    all_weights: Annotated[
        bool, typer.Option("--all-weights", help="List all weights, not only the default of each architecture.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the available architectures: what they cost, and how accurate their published weights are.

    GMACs are billions of multiply-accumulates for one image of the native size; size is that of the weights in
    float32. Top-1 and top-5 are the publishers' figures on ImageNet, mAP those of detectors on COCO. With --max-ms or
    --max-mb the most accurate come first, and a sentence names the best. Times and the plot are for images of the
    size that the weights expect.

    \b
    hubel models resnet50
    hubel models --match 'res*' --measure
    hubel models --task detect
    hubel models --max-ms 20 --max-mb 30
    hubel models --task classify --plot choice.png
    """
    from hubel.models.registry import list_models, task_of

    tasks = sorted({task_of(name) for name in list_models()})
    if task == "track":
        trackers = ", ".join(list_models(task))
        raise typer.BadParameter(f"trackers ({trackers}) are not networks: see hubel track", param_hint="'--task'")
    if task is not None and task not in tasks:
        message = f"there are no architectures for {task!r}; choose from {', '.join(tasks)}"
        raise typer.BadParameter(message, param_hint="'--task'")
    chosen = _named(names, list_models(task, match)) if names else list_models(task, match)
    with activity("counting parameters and multiplications"):
        from hubel.models.selection import filter_by_limits, model_row

        rows = [model_row(name) for name in chosen]
    limited = max_ms is not None or max_mb is not None
    if max_mb is not None:  # before timing: the large ones take longest
        rows = filter_by_limits(rows, None, max_mb)
    if measure or max_ms is not None:
        _measure_latency(rows, _BATCHES if measure else _BATCHES[:1])
    if limited:
        rows = filter_by_limits(rows, max_ms, max_mb)
    if plot is not None:
        _write_plot(rows, plot)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(_table(rows, all_weights or len(rows) <= _FEW))
    elif not limited:
        log(f"no architecture matches {match!r}")
    if limited:
        log(_recommend(rows, max_ms, max_mb))


def _named(names: list[str], listed: list[str]) -> list[str]:
    """The architectures of these names and patterns, in the order of the table."""
    from hubel.errors import UsageError
    from hubel.models.registry import closest, list_models

    for name in names:
        if not fnmatch.filter(listed, name):
            everything = list_models()
            if name in everything:
                raise UsageError(f"{name} is left out by the other options", f"use hubel models {name}")
            if name in _TASKS:
                raise UsageError(f"{name} is a task, not an architecture", f"use hubel models --task {name}")
            raise UsageError(f"unknown architecture {name!r}", closest(name))
    return [each for each in listed if any(fnmatch.fnmatchcase(each, name) for name in names)]


def _measure_latency(rows: list[dict[str, Any]], batches: tuple[int, ...]) -> None:
    """Add ``"ms"`` to each row: milliseconds per image by batch size, as ``hubel predict --engine torch`` runs it."""
    import torch

    from hubel.inference.engines.torch import dtype_of
    from hubel.inference.fusion import fuse
    from hubel.inference.precision import choose_precision
    from hubel.models import architecture
    from hubel.models.factory import build_random
    from hubel.models.selection import milliseconds_an_image, published_setup
    from hubel.system import tune_allocator

    tune_allocator()
    cpu = torch.device("cpu")
    precision = choose_precision(cpu)
    dtype = dtype_of(precision.name)
    log(
        f"timing {count_of(len(rows), 'network')} in {precision.name}, "
        f"{count_of(torch.get_num_threads(), 'thread')}: {precision.reason}"
    )
    with ProgressBar("timing", len(rows)) as bar:
        for row in rows:
            shape, options = published_setup(row)
            network = fuse(build_random(architecture(row["name"]), shape, options), cpu, dtype)
            milliseconds = {batch: milliseconds_an_image(network, shape, batch, dtype) for batch in batches}
            row["ms"] = {f"batch{batch}": round(each, 3) for batch, each in milliseconds.items()}
            bar.advance()


def _recommend(rows: list[dict[str, Any]], max_ms: float | None, max_mb: float | None) -> str:
    """A sentence that names the best network within the limits."""
    from hubel.models.selection import metric_of, with_accuracy

    given = ((max_ms, "ms per image"), (max_mb, "MB"))
    limits = " and ".join(f"{limit:g} {unit}" for limit, unit in given if limit is not None)
    candidates = with_accuracy(rows)
    if not candidates:
        return f"No network with published weights stays within {limits}: raise the limit."
    best = candidates[0]
    time = "" if best.milliseconds is None else f", {best.milliseconds:.1f} ms"
    metric = {"mAP": "mAP", "top1": "top-1"}[metric_of(rows)]
    return f"Best within {limits}: {best.name} ({metric} {best.accuracy:.3f}, {best.megabytes:.1f} MB{time})."


def _write_plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot accuracy against cost: milliseconds on this machine if measured, else multiply-accumulates."""
    from hubel.errors import UsageError
    from hubel.fileio import atomic_write
    from hubel.models.selection import metric_of, pareto_front, with_accuracy
    from hubel.reports.figures import choice_plot, to_png

    candidates = with_accuracy(rows)
    if not candidates:
        raise UsageError("none of these networks has a published accuracy to plot", "choose others with --match")
    if candidates[0].milliseconds is not None:
        costs = [each.milliseconds or 0.0 for each in candidates]
        label = "milliseconds per image on this machine, batch size 1"
    else:
        costs = [each.gmacs for each in candidates]
        label = "billions of multiply-accumulates per image"
    accuracies = [each.accuracy for each in candidates]
    front = pareto_front(costs, accuracies)
    quality = {"mAP": "mAP on COCO, as published", "top1": "top-1 on ImageNet, as published"}[metric_of(rows)]
    figure = choice_plot([each.name for each in candidates], costs, accuracies, front, label, quality)
    with atomic_write(path) as beside:
        beside.write_bytes(to_png(figure))
    log(f"plot: {path}")


def _table(rows: list[dict[str, Any]], all_weights: bool) -> Table:
    """A row for each set of weights, or for the default only; the architecture's own cells are in its first row."""
    times = [f"ms/image\n{batch.replace('batch', 'batch ')}" for batch in rows[0].get("ms", {})]
    tasks = {row["task"] for row in rows}
    shown = {key: title for task, key, title in _METRICS if task in tasks}
    titles = ["Name", "Task", "Parameters\n(M)", "Size\n(MB)", "GMACs", "Depth", "Input", *times, *shown.values()]
    cells = []
    for row in rows:
        own = _own_cells(row)
        weights = row["weights"] or [None]
        for entry in weights if all_weights else weights[:1]:
            cells.append([*own, *_weight_cells(entry, 0 if all_weights else len(weights) - 1, shown)])
            own = [""] * len(own)
    words = ("Name", "Task", *_ABOUT_WEIGHTS)
    return Table([*titles, *_ABOUT_WEIGHTS], cells, left=words, optional=_OPTIONAL)


def _own_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row["task"],
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['size_bytes'] / 1e6:.1f}",
        f"{row['macs'] / 1e9:.3f}" if row["macs"] >= 1e6 else f"{row['macs'] / 1e9:.5f}",
        str(row["depth"]),
        "×".join(map(str, row["input"])),
        *(f"{milliseconds:.1f}" for milliseconds in row.get("ms", {}).values()),
    ]


def _weight_cells(entry: dict[str, Any] | None, more: int, shown: Iterable[str]) -> list[str]:
    if entry is None:
        return [*("–" for _ in shown), "none", "", ""]
    figures = ["–" if entry[key] is None else f"{entry[key]:.3f}" for key in shown]
    tag = entry["name"].partition(":")[2] + (f" (+{more} more)" if more else "")
    return [*figures, tag, "yes" if entry["installed"] else "no", entry["metrics_source"]]
