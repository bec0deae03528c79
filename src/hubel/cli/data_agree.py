"""``hubel data agree``: how far annotators agree, what they say together, where to look again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hubel.cli.options import Json
from hubel.console import check_output_dir, log, print_json

if TYPE_CHECKING:
    from hubel.data.agreement import Agreement

_SHOWN = 10


def agree(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B …",
            help="A labelled set of the same pictures for each annotator: label files, class folders, or CSV tables "
            "with image,label,annotator.",
        ),
    ],
    from_format: Annotated[
        str | None,
        typer.Option("--from", metavar="FORMAT", help="What they are written in.", show_default="by what they are"),
    ] = None,
    iou: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Overlap from which on two boxes may mean one object.")
    ] = 0.5,
    by: Annotated[
        Literal["majority", "dawid-skene"] | None,
        typer.Option(help="How the consensus is found.", show_default="dawid-skene from three annotators on"),
    ] = None,
    consensus: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write it as this new folder (labels of whole pictures: or a .csv file)."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Annotation format of the consensus.", show_default="the first set's"),
    ] = None,
    images: Annotated[
        Literal["copy", "link", "none"], typer.Option(help="Copy the pictures there, link to them, or labels only.")
    ] = "copy",
    as_json: Json = False,
) -> None:
    """Compare the labels that several annotators gave the same pictures.

    Boxes are matched by overlap, whatever their class. Shown are each annotator's reliability, Cohen's kappa of each
    two, Krippendorff's alpha of all, and the pictures worth a second look; --json lists all of these.

    \b
    hubel data agree ann/ bob/
    hubel data agree ann/ bob/ eve/ --consensus agreed --to coco
    hubel data agree answers.csv --consensus agreed.csv
    """
    from hubel.data.agreement import agree, write_consensus

    check_output_dir("--consensus", consensus, [source for source in sources if source.is_dir()])
    found = agree(sources, from_format, iou, by)
    lost = write_consensus(found, consensus, to, images) if consensus is not None else ()
    if as_json:
        out = {} if consensus is None else {"out": str(consensus), "losses": list(lost)}
        print_json({"sources": list(map(str, sources)), "iou": iou} | found.as_json() | out)
        return
    for line in found.ratings.notes:
        log(f"note: {line}")
    _print(found)
    for line in lost:
        log(f"not in the consensus: {line}")
    if consensus is not None:
        log(f"consensus: {consensus}")


def _print(found: Agreement) -> None:
    drawn = found.ratings.drawn
    _print_annotators(found)
    print()
    _print_pairs(found)
    print()
    if found.alpha_objects is not None:
        alphas = f"{_number(found.alpha)} of classes, {_number(found.alpha_objects)} of objects and classes"
    else:
        alphas = _number(found.alpha)
    print(f"Krippendorff's alpha: {alphas}")
    nothing = len(found.ratings.classes) - 1 if drawn else -1
    labels = found.consensus.labels[found.shared]
    dropped = f", {(labels == nothing).sum():,} that some have drawn are none" if drawn else ""
    things = "objects" if drawn else "pictures"
    print(f"consensus ({found.consensus.method}): {(labels != nothing).sum():,} {things}{dropped}")
    print(f"worth a second look: {len(found.doubts):,} of {len(found.ratings.pictures()):,} pictures")
    for doubt in found.doubts[:_SHOWN]:
        print(f"  {doubt.path} (agreement {doubt.agreement:.2f}): {'; '.join(doubt.reasons)}")
    if len(found.doubts) > _SHOWN:
        print(f"  and {len(found.doubts) - _SHOWN:,} more")


def _print_annotators(found: Agreement) -> None:
    from rich.table import Table

    from hubel.console import print_table

    drawn = found.ratings.drawn
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("annotator", no_wrap=True)
    names = ["pictures", "objects" if drawn else "labels", "reliability"]
    for name in names + (["missed", "added", "mean IoU"] if drawn else []):
        table.add_column(name, justify="right")
    for each in found.annotators:
        cells = [f"{each.pictures:,}", f"{each.labels:,}", _number(each.reliability)]
        if each.missed is not None and each.added is not None and each.mean_iou is not None:
            cells += [f"{each.missed:,}", f"{each.added:,}", _number(each.mean_iou)]
        table.add_row(each.name, *cells)
    print_table(table)


def _print_pairs(found: Agreement) -> None:
    from rich.table import Table

    from hubel.console import print_table

    drawn = found.ratings.drawn
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pair", no_wrap=True)
    for name in ["pictures", *(["found by both", "mean IoU"] if drawn else []), "same class", "kappa"]:
        table.add_column(name, justify="right")
    for pair in found.pairs:
        cells = [f"{pair.pictures:,}"]
        if pair.found is not None and pair.mean_iou is not None:
            cells += [_number(pair.found), _number(pair.mean_iou)]
        table.add_row(", ".join(pair.annotators), *cells, _number(pair.same), _number(pair.kappa))
    print_table(table)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
