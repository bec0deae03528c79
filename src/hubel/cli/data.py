"""``hubel data``: what is in a labelled data set, and how to convert, split and check it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubel.cli.command import Command, Group
from hubel.cli.data_check import agree, check, log_lines
from hubel.cli.options import Data, FromFormat, Images, Json, NewFolder
from hubel.config import LARGEST_IMAGE_SIZE, SplitFractions, parse_fractions
from hubel.console import ProgressBar, check_output_dir, count_of, log, print_json, print_table, show
from hubel.data.annotations.registry import FORMAT_NAMES
from hubel.tables import Table

if TYPE_CHECKING:
    from hubel.data.checks.statistics import Statistics

data = typer.Typer(
    name="data",
    cls=Group,
    help="Labelled data sets: formats, checks, splits.\n\n\b\nhubel data convert labels/ --to coco --out coco/",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
data.command(cls=Command)(check)
data.command(cls=Command)(agree)


@data.command(cls=Command)
def convert(
    source: Annotated[Path, typer.Argument(help="The folder of a labelled data set, or one of its label files.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"{', '.join(FORMAT_NAMES[:-1])} or {FORMAT_NAMES[-1]}.")],
    out: NewFolder,
    from_format: FromFormat = None,
    images: Images = "copy",
    as_json: Json = False,
) -> None:
    """Convert labels to another annotation format, and report what that cannot represent.

    \b
    hubel data convert raccoon/ --to yolo --out raccoon-yolo
    hubel data convert via_project.json --to coco --out coco --images link
    """
    from hubel.data.annotations import write_annotations
    from hubel.data.instances import read_labels

    dataset = read_labels(source, from_format)
    log_lines("note", dataset.warnings)
    losses = write_annotations(dataset, to, out, images)
    log_lines(f"not in {to}", losses)
    written = dataset.images()
    unlabelled = sum(image.objects is None for image in written)
    objects = sum(len(image.objects or ()) for image in written)
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
    show(
        f"{out}: {count_of(len(written), 'image')}{without}, {count_of(objects, 'object')} of "
        f"{count_of(len(dataset.classes), 'class')}, from {dataset.format} to {to}"
    )


@data.command(cls=Command)
def split(
    source: Data,
    out: NewFolder,
    fractions: Annotated[
        str, typer.Option("--split", help="Fractions of train,validation,test for a data set that is not split.")
    ] = ",".join(map(str, SplitFractions())),
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    anew: Annotated[bool, typer.Option("--anew", help="Merge the existing splits first, then split again.")] = False,
    from_format: FromFormat = None,
    images: Images = "copy",
    as_json: Json = False,
) -> None:
    """Write a copy of a data set that is divided into train, val and test.

    The split is stratified by class as far as possible, and images that look alike stay together. Of a data set with
    train and no val, 15 % of train become val.

    \b
    hubel data split raccoon/ --out raccoon-split
    hubel data split bccd/ --anew --split 0.8,0.1,0.1 --out bccd-anew --images link
    """
    from hubel.data.checks.statistics import statistics
    from hubel.data.resplit import split_data, write_split

    try:
        wanted = parse_fractions(fractions)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--split'") from error
    check_output_dir("--out", out, [source])
    with ProgressBar("images") as bar:
        divided = split_data(source, from_format, wanted, seed, anew, bar.update)
    losses = write_split(divided, out, images)
    counts = statistics(divided.dataset)
    groups, alike = divided.together
    if as_json:
        facts = {"source": str(source), "out": str(out), "seed": seed, "splits": counts.as_json()["splits"]}
        together = {"groups": groups, "pictures": alike}
        print_json(facts | {"together": together, "losses": losses, "notes": divided.notes})
        return
    log_lines("note", divided.notes)
    log_lines("not in the copy", losses)
    sizes = ", ".join(f"{name} {each.images:,}" for name, each in counts.splits.items())
    many = f"{groups:,} groups" if groups > 1 else "one group"
    show(f"{out}: {sizes}" + (f"; {alike:,} similar images kept together in {many}" if groups else ""))


@data.command(cls=Command)
def stats(
    source: Data,
    from_format: FromFormat = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw them: a new folder with a page and PNG files.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count images, classes and objects; sizes, aspect ratios and positions of boxes.

    \b
    hubel data stats bccd/
    hubel data stats bccd/ --out bccd-statistics
    """
    from hubel.data.checks.run import read_any
    from hubel.data.checks.statistics import statistics

    dataset = read_any(source, from_format)
    log_lines("note", dataset.warnings)
    numbers = statistics(dataset)
    if as_json:
        print_json({"source": str(source)} | numbers.as_json())
    else:
        _print_statistics(numbers)
    if out is not None:
        from hubel.reports.data_pages import write_statistics

        folder = write_statistics(out, dataset.root.resolve().name, numbers)
        log(f"figures: {folder}, page: {folder / 'statistics.html'}")


@data.command(cls=Command)
def anchors(
    source: Data,
    count: Annotated[int, typer.Option(min=1, max=100, help="Number of anchors: 5 for YOLOv2, 9 for v3 and v4.")] = 9,
    image_size: Annotated[
        int, typer.Option(min=32, max=LARGEST_IMAGE_SIZE, help="Side of the network's input in pixels.")
    ] = 416,
    stride: Annotated[
        int, typer.Option(min=1, max=128, help="Unit of the anchors in pixels: 32 for YOLOv2, whose unit is a cell.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the clustering.")] = 0,
    from_format: FromFormat = None,
    as_json: Json = False,
) -> None:
    """Find the anchors that fit the training boxes best: k-means of their shapes with the distance 1 - IoU.

    \b
    hubel data anchors raccoon/ --count 5 --image-size 416 --stride 32
    hubel data anchors bccd/ --count 9 --image-size 608
    """
    from hubel.data.anchors import cluster_anchors
    from hubel.data.checks.run import read_any
    from hubel.data.checks.statistics import training_boxes

    dataset = read_any(source, from_format)
    log_lines("note", dataset.warnings)
    boxes = training_boxes(dataset)
    found = cluster_anchors((boxes[:, 2:] - boxes[:, :2]) * image_size / stride, count, seed)
    if as_json:
        print_json(
            {
                "source": str(source),
                "boxes": len(boxes),
                "image_size": image_size,
                "stride": stride,
                "anchors": found.sizes.round(4).tolist(),
                "mean_iou": found.mean_iou,
            }
        )
        return
    digits = 0 if stride == 1 else 2
    show("anchors = " + ",  ".join(f"{width:.{digits}f},{height:.{digits}f}" for width, height in found.sizes))
    show(f"mean IoU of {count_of(len(boxes), 'training box')} with the best of them: {found.mean_iou:.3f}")


def _print_statistics(numbers: Statistics) -> None:
    from hubel.data.checks.statistics import quartiles
    from hubel.data.file_listing import listing

    splits = list(numbers.splits.values())
    counts = [("images", [split.images for split in splits])]
    if numbers.has_boxes:
        counts += [
            ("  unlabelled", [split.unlabelled for split in splits]),
            ("  labelled as empty", [split.empty for split in splits]),
            ("objects", [split.objects for split in splits]),
        ]
    by_class = [(f"  {name}", [split.by_class[i] for split in splits]) for i, name in enumerate(numbers.classes)]
    counts += sorted(by_class, key=lambda row: -sum(row[1]))
    rows = [(name, *(f"{count:,}" for count in each)) for name, each in counts]
    print_table(Table(["", *numbers.splits], rows, rule=False))
    if not numbers.has_boxes:
        return
    per_image = sorted(numbers.per_image.items())
    if images := sum(count for _, count in per_image):
        mean = sum(objects * count for objects, count in per_image) / images
        show(f"objects per labelled image: {per_image[0][0]:,} to {per_image[-1][0]:,}, mean {mean:.1f}")
    if (labelled := numbers.labelled_by_class) is not None:
        counts_of_classes = sorted(labelled.items(), key=lambda row: -row[1])
        shown = listing([f"{name} {count:,}" for name, count in counts_of_classes], 20)
        show(f"images that label all objects of a class: {shown}")
    for what, counts_of in (("boxes", numbers.by_size), ("outlines and masks", numbers.shapes_by_size)):
        if counts_of is not None:
            show(f"{what} by COCO size: " + ", ".join(f"{count:,} {name}" for name, count in counts_of.items()))
    for name, values, digits in (
        ("width in pixels", numbers.sides[:, 0], ".0f"),
        ("height in pixels", numbers.sides[:, 1], ".0f"),
        ("aspect ratio", numbers.aspects, ".2f"),
    ):
        if (spread := quartiles(values)) is not None:
            least, quarter, median, most_of, greatest = (format(value, digits) for value in spread.values())
            show(f"{name}: median {median}, middle half {quarter} to {most_of}, range {least} to {greatest}")
