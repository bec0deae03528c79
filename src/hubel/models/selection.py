"""The table of architectures with their costs and published accuracy, and which of them to choose."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hubel.analysis.summary import count_multiplications
from hubel.models.base import Classifier
from hubel.models.factory import build_on_meta
from hubel.models.registry import architecture
from hubel.weights import entries_for, is_here


@dataclass(frozen=True)
class Candidate:
    """An architecture with its cost and accuracy."""

    name: str
    accuracy: float  # published top-1 or mAP, 0..1
    megabytes: float  # of the weights in float32
    gmacs: float  # billions of multiply-accumulates per image
    milliseconds: float | None = None  # per image on this machine, if measured


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices of the Pareto-optimal points (low cost, high value), cheapest first; of equal points only the first."""
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda index: (costs[index], -values[index])):
        if not front or values[index] > values[front[-1]]:
            front.append(index)
    return front


def model_row(name: str) -> dict[str, Any]:
    """An architecture as a row of ``hubel models --json``."""
    arch = architecture(name)
    module = build_on_meta(arch)
    if isinstance(module, Classifier):
        module.auxiliary.clear()  # not used in prediction, and not counted in the published figures
    numbers = [*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())]
    return {
        "name": name,
        "task": arch.task,
        "parameters": sum(tensor.numel() for tensor in module.parameters()),
        "size_bytes": 4 * sum(tensor.numel() for tensor in numbers),
        "macs": count_multiplications(module, arch.input),
        "depth": arch.depth,
        "reference": arch.reference,
        "input": list(arch.input),
        "weights": [
            {
                "name": entry.name,
                "input": [entry.preprocessing.channels, entry.preprocessing.height, entry.preprocessing.width],
                **{metric: entry.metrics.get(metric) for metric in ("top1", "top5", "mAP", "mIoU")},
                "license": entry.license,
                "metrics_source": entry.metrics_source,
                "installed": is_here(entry),
            }
            for entry in entries_for(name)
        ],
    }


def published_setup(row: dict[str, Any]) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Input (C, H, W) and options that the default weights expect; without weights, the architecture's own."""
    channels, height, width = row["weights"][0]["input"] if row["weights"] else row["input"]
    default = next(iter(entries_for(row["name"])), None)
    return (channels, height, width), {} if default is None else dict(default.settings)


def _macs(row: dict[str, Any]) -> int:
    """Multiply-accumulates of the network and at the size for which the accuracy is published."""
    shape, options = published_setup(row)
    if list(shape) == row["input"] and not options:
        return int(row["macs"])
    return count_multiplications(build_on_meta(architecture(row["name"]), shape, options), shape)


def metric_of(rows: list[dict[str, Any]]) -> str:
    """Key of the published metric that the rows are ranked by: mAP, of boxes, if all find objects, else top-1."""
    return "mAP" if rows and {row["task"] for row in rows} <= {"detect", "instances"} else "top1"


def with_accuracy(rows: list[dict[str, Any]]) -> list[Candidate]:
    """The rows whose default weights have the published metric."""
    metric = metric_of(rows)
    return [
        Candidate(
            name=row["name"],
            accuracy=row["weights"][0][metric],
            megabytes=row["size_bytes"] / 1e6,
            gmacs=_macs(row) / 1e9,
            milliseconds=row["ms"]["batch1"] if "ms" in row else None,
        )
        for row in rows
        if row["weights"] and row["weights"][0][metric] is not None
    ]


def filter_by_limits(rows: list[dict[str, Any]], max_ms: float | None, max_mb: float | None) -> list[dict[str, Any]]:
    """The rows within the limits, most accurate first; of equally accurate ones the cheaper.

    Those without a published accuracy come last. With a limit in milliseconds the rows have to be measured.
    """
    ranks = {each.name: (-each.accuracy, each.gmacs) for each in with_accuracy(rows)}
    fitting = [
        row
        for row in rows
        if (max_mb is None or row["size_bytes"] / 1e6 <= max_mb) and (max_ms is None or row["ms"]["batch1"] <= max_ms)
    ]
    return sorted(fitting, key=lambda row: ranks.get(row["name"], (1.0, 0.0)))


def milliseconds_an_image(
    network: nn.Module, input_shape: tuple[int, int, int], batch: int, dtype: torch.dtype
) -> float:
    """Median time per image of batches of random images on the CPU, channels last.

    Args:
        network: in evaluation mode, its parameters of ``dtype``.
        input_shape: channels, height, width.
        batch: batch size.
        dtype: of the images.
    """
    runs, warm_up = 5, 2  # the first runs choose kernels and reorder weights
    images = torch.rand(batch, *input_shape).to(dtype).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(warm_up + runs):
            start = time.perf_counter()
            network(images)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[warm_up:]) / batch
