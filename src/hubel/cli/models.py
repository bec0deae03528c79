"""``hubel models``: the choice table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubel.cli.options import Json
from hubel.console import log, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table


BATCHES = (1, 32)


def time_each(rows: list[dict[str, Any]], batches: tuple[int, ...] = BATCHES) -> None:
    """Add ``"ms"`` to each row: milliseconds an image at each batch size, as ``hubel predict --engine torch`` runs it.

    A progress bar on stderr tells how far it is; Ctrl-C ends it.
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    from hubel.analysis.latency import milliseconds_an_image
    from hubel.inference.engines.torch import DTYPES
    from hubel.inference.fusion import fuse
    from hubel.inference.precision import choose_precision
    from hubel.inference.system import tune_allocator
    from hubel.models import create_model

    tune_allocator()
    cpu = torch.device("cpu")
    precision = choose_precision(cpu)
    dtype = DTYPES[precision.name]
    log(f"timing {len(rows)} networks in {precision.name}, {torch.get_num_threads()} threads: {precision.reason}")
    for row in track(rows, "timing", console=Console(stderr=True)):
        shape = input_of_weights(row)
        options = settings_of_weights(row)
        network = fuse(create_model(row["name"], in_channels=shape[0], image_size=shape[1], **options), cpu, dtype)
        figures = {batch: milliseconds_an_image(network, shape, batch, dtype) for batch in batches}
        row["ms"] = {f"batch{batch}": round(figure, 3) for batch, figure in figures.items()}


def input_of_weights(row: dict[str, Any]) -> tuple[int, int, int]:
    """Channels, height, width that the default weights want; without weights the architecture's own."""
    channels, height, width = row["weights"][0]["input"] if row["weights"] else row["input"]
    return channels, height, width


def settings_of_weights(row: dict[str, Any]) -> dict[str, Any]:
    """Options of the architecture with which the default weights were trained; none without weights."""
    from hubel.weights import entries_for

    default = next(iter(entries_for(row["name"])), None)
    return {} if default is None else dict(default.settings)


def _macs(row: dict[str, Any]) -> int:
    """Multiply-accumulates of the network and at the size for which the accuracy is published."""
    shape, options = input_of_weights(row), settings_of_weights(row)
    if list(shape) == row["input"] and not options:
        return int(row["macs"])
    import torch

    from hubel.analysis.summary import count_multiplications
    from hubel.models import architecture
    from hubel.models.factory import build

    known = architecture(row["name"])
    with torch.device("meta"):
        network = build(known, known.num_classes, shape[0], shape[1], options, for_loading=True)
        return count_multiplications(network, shape)


def _figure_of(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Key and name of the published figure that the rows are ranked by: mAP if all are detectors, else top-1."""
    detectors = {row["task"] for row in rows} == {"detect"}
    return ("mAP", "mAP") if detectors else ("top1", "top-1")


def with_accuracy(rows: list[dict[str, Any]]) -> list[Any]:
    """The candidates among the rows: those whose default weights have the published figure that counts."""
    from hubel.analysis.model_selection import Candidate

    figure, _ = _figure_of(rows)
    return [
        Candidate(
            name=row["name"],
            accuracy=row["weights"][0][figure],
            megabytes=row["size_bytes"] / 1e6,
            gmacs=_macs(row) / 1e9,
            milliseconds=row["ms"]["batch1"] if "ms" in row else None,
        )
        for row in rows
        if row["weights"] and row["weights"][0][figure] is not None
    ]


def within(rows: list[dict[str, Any]], max_ms: float | None, max_mb: float | None) -> list[dict[str, Any]]:
    """The rows within the limits, most accurate first; those without a published accuracy come last."""
    from hubel.analysis.model_selection import best_within

    candidates = with_accuracy(rows)
    ranked = [each.name for each in best_within(candidates, max_ms, max_mb)]
    known = {each.name for each in candidates}
    unknown = [row for row in rows if row["name"] not in known and _fits(row, max_ms, max_mb)]
    by_name = {row["name"]: row for row in rows}
    return [*(by_name[name] for name in ranked), *unknown]


def _fits(row: dict[str, Any], max_ms: float | None, max_mb: float | None) -> bool:
    small = max_mb is None or row["size_bytes"] / 1e6 <= max_mb
    return small and (max_ms is None or row["ms"]["batch1"] <= max_ms)


def answer(rows: list[dict[str, Any]], max_ms: float | None, max_mb: float | None) -> str:
    """One sentence: the best network within the limits."""
    limits = [f"{max_ms:g} ms an image"] if max_ms is not None else []
    limits += [f"{max_mb:g} MB"] if max_mb is not None else []
    said = " and ".join(limits)
    candidates = with_accuracy(rows)
    if not candidates:
        return f"No network with published weights stays within {said}: raise the limit."
    best = candidates[0]
    time = "" if best.milliseconds is None else f", {best.milliseconds:.1f} ms"
    return (
        f"Best within {said}: {best.name} ({_figure_of(rows)[1]} {best.accuracy:.3f}, {best.megabytes:.1f} MB{time})."
    )


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the plot of accuracy against cost: milliseconds here if measured, else multiply-accumulates."""
    from hubel.analysis.model_selection import pareto_front
    from hubel.errors import UsageError
    from hubel.fileio import atomic_write
    from hubel.reports.figures import choice_plot, to_png

    candidates = with_accuracy(rows)
    if not candidates:
        raise UsageError("none of these networks has a published accuracy to draw", "choose others with --match")
    measured = candidates[0].milliseconds is not None
    costs = [each.milliseconds or 0.0 if measured else each.gmacs for each in candidates]
    label = (
        "milliseconds an image on this machine, batch 1" if measured else "billions of multiply-accumulates an image"
    )
    accuracies = [each.accuracy for each in candidates]
    front = pareto_front(costs, accuracies)
    quality = {"mAP": "mAP on COCO, as published", "top1": "top-1 on ImageNet, as published"}[_figure_of(rows)[0]]
    figure = choice_plot([each.name for each in candidates], costs, accuracies, front, label, quality)
    with atomic_write(path) as beside:
        beside.write_bytes(to_png(figure))
    log(f"plot: {path}")


_FEW = 3  # architectures of which all weights are listed without being asked for


def models(
    task: Annotated[str | None, typer.Option(help="Only those for a task, e.g. classify.")] = None,
    match: Annotated[str, typer.Option(metavar="PATTERN", help="Only names that match, e.g. 'res*'.")] = "*",
    measure: Annotated[
        bool, typer.Option("--measure", help="Time each on this machine's CPU: milliseconds an image.")
    ] = False,
    max_ms: Annotated[
        float | None, typer.Option(min=0, help="Only those that need no longer for an image here; measures.")
    ] = None,
    max_mb: Annotated[float | None, typer.Option(min=0, help="Only those whose weights are no larger.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw accuracy against cost, with the Pareto front.")
    ] = None,
    all_weights: Annotated[
        bool, typer.Option("--all-weights", help="List every set of weights, not each network's default alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The architectures there are: what they cost, how good their published weights are.

    GMACs are billions of multiply-accumulates for one image of the native size; size is that of the weights in
    float32. Top-1 and top-5 are the publishers' figures on ImageNet, mAP those of detectors on COCO. With --max-ms or
    --max-mb the most accurate come first, and one sentence names the best. Times and the plot are for images of the
    size that the weights want.

    Example:

        hubel models --match 'res*' --measure

        hubel models --max-ms 20 --max-mb 30

        hubel models --task classify --plot choice.png
    """
    from hubel.models.registry import list_models, task_of

    tasks = sorted({task_of(name) for name in list_models()})
    if task == "track":
        trackers = ", ".join(list_models(task))
        raise typer.BadParameter(f"trackers ({trackers}) are no networks: see hubel track.", param_hint="'--task'")
    if task is not None and task not in tasks:
        raise typer.BadParameter(
            f"there are no architectures for {task!r}; there are for: {', '.join(tasks)}.", param_hint="'--task'"
        )
    names = list_models(task, match)
    rows = [_row(name) for name in names]
    limited = max_ms is not None or max_mb is not None
    if max_mb is not None:  # before anything is timed: the large take longest
        rows = within(rows, None, max_mb)
    if measure or max_ms is not None:
        time_each(rows, BATCHES if measure else BATCHES[:1])
    if limited:
        rows = within(rows, max_ms, max_mb)
    if plot is not None:
        draw(rows, plot)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(_table(rows, all_weights or len(rows) <= _FEW))
    elif not limited:
        log(f"no architecture's name matches {match!r}")
    if limited:
        log(answer(rows, max_ms, max_mb))


def _row(name: str) -> dict[str, Any]:
    """One architecture as INTERFACE.md's JSON has it."""
    import torch

    from hubel.analysis.summary import count_multiplications
    from hubel.models import Classifier, architecture
    from hubel.models.factory import build
    from hubel.weights import entries_for

    row = architecture(name)
    with torch.device("meta"):
        module = build(row, row.num_classes, row.input[0], row.input[1], {}, for_loading=True)
    if isinstance(module, Classifier):
        module.auxiliary.clear()  # prediction does not need them, and the published figures leave them out
    numbers = [*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())]
    return {
        "name": name,
        "task": row.task,
        "parameters": sum(tensor.numel() for tensor in module.parameters()),
        "size_bytes": 4 * sum(tensor.numel() for tensor in numbers),
        "macs": count_multiplications(module, row.input),
        "depth": row.depth,
        "reference": row.reference,
        "input": list(row.input),
        "weights": [_weights(entry) for entry in entries_for(name)],
    }


def _weights(entry: Any) -> dict[str, Any]:
    from hubel.weights import cache_path

    return {
        "name": entry.name,
        "input": [entry.preprocessing.channels, entry.preprocessing.height, entry.preprocessing.width],
        "top1": entry.metrics.get("top1"),
        "top5": entry.metrics.get("top5"),
        "mAP": entry.metrics.get("mAP"),
        "license": entry.license,
        "metrics_source": entry.metrics_source,
        "installed": not entry.needs_download or cache_path(entry).is_file(),
    }


def _table(rows: list[dict[str, Any]], all_weights: bool) -> Table:
    """A line a set of weights, or the default alone; what belongs to the architecture stands on its first."""
    from rich import box
    from rich.table import Table

    batches = rows[0].get("ms", {})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("Name", "Task"):
        table.add_column(title, no_wrap=True)
    for title in (
        "Parameters\n(M)",
        "Size\n(MB)",
        "GMACs",
        "Depth",
        "Input",
        *(f"ms/image\n{batch.replace('batch', 'batch ')}" for batch in batches),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    shown = _metrics(rows)
    for title in shown.values():
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("Weights", "On this\nmachine", "Figures from"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        own = _own_cells(row)
        weights = row["weights"] or [None]
        for entry in weights if all_weights else weights[:1]:
            table.add_row(*own, *_weight_cells(entry, 0 if all_weights else len(weights) - 1, shown))
            own = [""] * len(own)
    return table


def _metrics(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Key and title of the published figures that there are for the tasks of these rows."""
    tasks = {row["task"] for row in rows}
    found: dict[str, str] = {}
    for task, titles in (("classify", {"top1": "Top-1", "top5": "Top-5"}), ("detect", {"mAP": "mAP"})):
        found |= titles if task in tasks else {}
    return found


def _own_cells(row: dict[str, Any]) -> list[str]:
    cells = [
        row["name"],
        row["task"],
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['size_bytes'] / 1e6:.1f}",
        f"{row['macs'] / 1e9:.3f}" if row["macs"] >= 1e6 else f"{row['macs'] / 1e9:.5f}",
        str(row["depth"]),
        "×".join(map(str, row["input"])),
    ]
    return cells + ([f"{figure:.1f}" for figure in row["ms"].values()] if "ms" in row else [])


def _weight_cells(entry: dict[str, Any] | None, more: int, shown: Iterable[str]) -> list[str]:
    if entry is None:
        return [*("–" for _ in shown), "none", "", ""]
    figures = ["–" if entry[key] is None else f"{entry[key]:.3f}" for key in shown]
    tag = entry["name"].partition(":")[2] + (f" (+{more} more)" if more else "")
    return [*figures, tag, "yes" if entry["installed"] else "no", entry["metrics_source"]]
