"""``hubel data stats``: what is in a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubel.cli.options import FromFormat, Json
from hubel.console import log, print_json

if TYPE_CHECKING:
    from hubel.data.checks.statistics import Statistics


def stats(
    source: Annotated[Path, typer.Argument(metavar="DATA", help="A folder of labelled pictures, or one label file.")],
    from_format: FromFormat = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw them: a new folder with a page and PNG files.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count pictures, classes and objects; sizes, shapes and places of boxes.

    \b
    hubel data stats bccd/
    hubel data stats bccd/ --out bccd-statistics
    """
    from hubel.data.checks.run import read_any
    from hubel.data.checks.statistics import statistics

    dataset = read_any(source, from_format)
    for line in dataset.warnings:
        log(f"note: {line}")
    numbers = statistics(dataset)
    if as_json:
        print_json({"source": str(source)} | numbers.as_json())
    else:
        _print(numbers)
    if out is not None:
        from hubel.reports.stats_page import write_statistics

        folder = write_statistics(out, dataset.root.resolve().name, numbers)
        log(f"figures: {folder}, page: {folder / 'statistics.html'}")


def _print(numbers: Statistics) -> None:
    from rich.table import Table

    from hubel.console import print_table
    from hubel.data.checks.statistics import quartiles

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for split in numbers.splits:
        table.add_column(split, justify="right")
    splits = list(numbers.splits.values())
    table.add_row("pictures", *(f"{split.pictures:,}" for split in splits))
    if numbers.has_boxes:
        table.add_row("  unlabelled", *(f"{split.unlabelled:,}" for split in splits))
        table.add_row("  labelled as empty", *(f"{split.empty:,}" for split in splits))
        table.add_row("objects", *(f"{split.objects:,}" for split in splits))
    totals = [sum(split.by_class[label] for split in splits) for label in range(len(numbers.classes))]
    for label in sorted(range(len(totals)), key=lambda label: -totals[label]):
        table.add_row(f"  {numbers.classes[label]}", *(f"{split.by_class[label]:,}" for split in splits))
    print_table(table)
    if not numbers.has_boxes:
        return
    counts = sorted((number, pictures) for number, pictures in numbers.per_picture.items())
    pictures = sum(pictures for _, pictures in counts)
    if pictures:
        mean = sum(number * pictures for number, pictures in counts) / pictures
        print(f"objects in a labelled picture: {counts[0][0]:,} to {counts[-1][0]:,}, mean {mean:.1f}")
    print("boxes by COCO's sizes: " + ", ".join(f"{count:,} {name}" for name, count in numbers.by_size.items()))
    for name, values in (("width", numbers.sides[:, 0]), ("height", numbers.sides[:, 1]), ("shape", numbers.aspects)):
        if (spread := quartiles(values)) is not None:
            digits = ".2f" if name == "shape" else ".0f"
            least, quarter, median, most_of, greatest = (format(value, digits) for value in spread.values())
            what = "width over height" if name == "shape" else f"{name} in pixels"
            print(f"{what}: median {median}, half within {quarter} to {most_of}, all within {least} to {greatest}")
