"""``hubel models``: the choice table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubel.cli.manners import print_json, say
from hubel.cli.options import Json
from hubel.cli.tables import print_table

if TYPE_CHECKING:
    from rich.table import Table


def models(
    task: Annotated[str | None, typer.Option(help="Only those for a task, e.g. classify.")] = None,
    match: Annotated[str, typer.Option(metavar="PATTERN", help="Only names that match, e.g. 'res*'.")] = "*",
    measure: Annotated[
        bool, typer.Option("--measure", help="Time each on this machine: milliseconds an image, on the CPU.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The architectures there are: what they cost, how good their published weights are.

    GMACs are billions of multiply-accumulates for one image of the native size; size is that of the weights in
    float32. Top-1 and top-5 are the publishers' figures on ImageNet.

    Example:

        hubel models --match 'res*' --measure
    """
    from hubel.models import architecture, list_models

    tasks = sorted({architecture(name).task for name in list_models()})
    if task is not None and task not in tasks:
        raise typer.BadParameter(
            f"there are no architectures for {task!r}; there are for: {', '.join(tasks)}.", param_hint="'--task'"
        )
    names = list_models(task, match)
    rows = [_row(name) for name in names]
    if measure:
        _measure(rows)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(_table(rows))
    else:
        say(f"no architecture's name matches {match!r}")


def _row(name: str) -> dict[str, Any]:
    """One architecture as INTERFACE.md's JSON has it."""
    import torch

    from hubel.insight.summary import count_multiplications
    from hubel.models import architecture
    from hubel.models.creation import build
    from hubel.weights import entries_for

    row = architecture(name)
    with torch.device("meta"):
        module = build(row, row.num_classes, row.input[0], row.input[1], {}, for_loading=True)
    numbers = [*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())]
    return {
        "name": name,
        "task": row.task,
        "parameters": sum(tensor.numel() for tensor in module.parameters()),
        "size_bytes": 4 * sum(tensor.numel() for tensor in numbers),
        "macs": count_multiplications(module, row.input),
        "depth": row.depth,
        "input": list(row.input),
        "weights": [_weights(entry) for entry in entries_for(name)],
    }


def _weights(entry: Any) -> dict[str, Any]:
    from hubel.weights import cache_path

    return {
        "name": entry.name,
        "top1": entry.metrics.get("top1"),
        "top5": entry.metrics.get("top5"),
        "license": entry.license,
        "metrics_source": entry.metrics_source,
        "installed": not entry.needs_download or cache_path(entry).is_file(),
    }


def _measure(rows: list[dict[str, Any]]) -> None:
    """Add ``"ms"`` to each row, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    from hubel.insight.speed import milliseconds_an_image
    from hubel.models import create_model

    for row in track(rows, "timing", console=Console(stderr=True)):
        row["ms"] = {"float32": round(milliseconds_an_image(create_model(row["name"]), tuple(row["input"])), 3)}


def _table(rows: list[dict[str, Any]]) -> Table:
    """A line a set of weights; what belongs to the architecture stands on its first."""
    from rich import box
    from rich.table import Table

    measured = any("ms" in row for row in rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("Name", "Task"):
        table.add_column(title, no_wrap=True)
    for title in ("Parameters\n(M)", "Size\n(MB)", "GMACs", "Depth", "Input", *(["ms/image\nhere"] * measured)):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("Top-1", "Top-5"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("Weights", "On this\nmachine", "Figures from"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        own = _own_cells(row)
        for entry in row["weights"] or [None]:
            table.add_row(*own, *_weight_cells(entry))
            own = [""] * len(own)
    return table


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
    return cells + ([f"{row['ms']['float32']:.1f}"] if "ms" in row else [])


def _weight_cells(entry: dict[str, Any] | None) -> list[str]:
    if entry is None:
        return ["–", "–", "none", "", ""]
    figures = ["–" if entry[key] is None else f"{entry[key]:.3f}" for key in ("top1", "top5")]
    tag = entry["name"].partition(":")[2]
    return [*figures, tag, "yes" if entry["installed"] else "no", entry["metrics_source"]]
