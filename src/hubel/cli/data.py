"""``hubel data``: what is in a labelled data set, and how to get it into another form.

Each subcommand is a function with a line at the end that adds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubel.cli.data_agree import agree
from hubel.cli.data_check import check
from hubel.cli.data_split import split
from hubel.cli.data_stats import stats
from hubel.cli.options import FromFormat, Json, Pictures
from hubel.console import log, print_json

data = typer.Typer(
    name="data",
    help="Labelled data sets: formats, checks, splits.\n\n\b\nhubel data convert labels/ --to coco --out coco/",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def convert(
    source: Annotated[Path, typer.Argument(help="A labelled data set's folder, or one label file in it.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="coco, voc, yolo, via, via-csv, via3, dlib, labelbox, supervisely, labelme, cvat, label-studio "
            "or createml.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The new folder; nothing is ever written over.")],
    from_format: FromFormat = None,
    images: Pictures = "copy",
    as_json: Json = False,
) -> None:
    """Write a data set's labels in another annotation format, and say what that cannot hold.

    \b
    hubel data convert raccoon/ --to yolo --out raccoon-yolo
    hubel data convert via_project.json --to coco --out coco --images link
    """
    from hubel.data.annotations import read_annotations, write_annotations

    dataset = read_annotations(source, from_format)
    for line in dataset.warnings:
        log(f"note: {line}")
    losses = write_annotations(dataset, to, out, images)
    for line in losses:
        log(f"not in {to}: {line}")
    pictures = dataset.images()
    unlabelled = sum(image.objects is None for image in pictures)
    objects = sum(len(image.objects or ()) for image in pictures)
    if as_json:
        print_json(
            {
                "source": str(source),
                "from": dataset.format,
                "to": to,
                "out": str(out),
                "classes": list(dataset.classes),
                "images": {split: len(images_of) for split, images_of in dataset.splits.items()},
                "unlabelled": unlabelled,
                "objects": objects,
                "warnings": list(dataset.warnings),
                "losses": list(losses),
            }
        )
        return
    without = f", {unlabelled:,} of them unlabelled" if unlabelled else ""
    print(
        f"{out}: {len(pictures):,} pictures{without}, {objects:,} objects of {len(dataset.classes):,} classes, "
        f"from {dataset.format} to {to}"
    )


data.command()(convert)
data.command()(check)
data.command()(stats)
data.command()(split)
data.command()(agree)
