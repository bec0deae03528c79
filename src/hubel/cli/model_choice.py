"""What ``hubel models`` does beyond listing: times the networks, draws the choice, answers with the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel.console import say

BATCHES = (1, 32)


def measure(rows: list[dict[str, Any]], batches: tuple[int, ...] = BATCHES) -> None:
    """Add ``"ms"`` to each row: milliseconds an image at each batch size, as ``hubel predict --engine torch`` runs it.

    A progress bar on stderr tells how far it is; Ctrl-C ends it.
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    from hubel.insight.speed import milliseconds_an_image
    from hubel.models import create_model
    from hubel.runtime.allocator import tune_allocator
    from hubel.runtime.fusion import fuse
    from hubel.runtime.precision import choose_precision
    from hubel.runtime.torch_engine import DTYPES

    tune_allocator()
    cpu = torch.device("cpu")
    precision = choose_precision(cpu)
    dtype = DTYPES[precision.name]
    say(f"timing {len(rows)} networks in {precision.name}, {torch.get_num_threads()} threads: {precision.reason}")
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

    from hubel.insight.summary import count_multiplications
    from hubel.models import architecture
    from hubel.models.creation import build

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
    from hubel.insight.choice import Candidate

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
    from hubel.insight.choice import best_within

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
    from hubel.errors import UsageError
    from hubel.fileio import replacing
    from hubel.insight.choice import pareto_front
    from hubel.reports.choice_plot import choice_plot
    from hubel.reports.figures import to_png

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
    with replacing(path) as beside:
        beside.write_bytes(to_png(figure))
    say(f"plot: {path}")
