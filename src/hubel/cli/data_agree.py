"""``hubel data agree``: how far annotators agree, their consensus, and the images worth a second look."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hubel.cli.options import FromFormat, Images, Json
from hubel.console import check_output_dir, log, make_table, print_json, print_table

if TYPE_CHECKING:
    from hubel.data.agreement import Agreement

_SHOWN = 10


def agree(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B …",
            help="For each annotator, labels of the same images: label files, class folders, or CSV tables with the "
            "columns image,label,annotator.",
        ),
    ],
    from_format: FromFormat = None,
    iou: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Minimum IoU of two boxes that may be the same object.")
    ] = 0.5,
    by: Annotated[
        Literal["majority", "dawid-skene"] | None,
        typer.Option(
            help="Method of the consensus.", show_default="dawid-skene for three annotators or more, else majority"
        ),
    ] = None,
    consensus: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write the consensus to a new folder; to a .csv file for image labels."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Annotation format of the consensus.", show_default="the first set's"),
    ] = None,
    images: Images = "copy",
    as_json: Json = False,
) -> None:
    """Compare the labels that several annotators gave to the same images.

    Boxes are matched by IoU, whatever their class. Reports each annotator's reliability, Cohen's kappa of each pair,
    Krippendorff's alpha of all, and the images worth a second look; --json lists all of these.

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
    dropped = f"; {(labels == nothing).sum():,} drawn by some were rejected" if drawn else ""
    unit = "objects" if drawn else "images"
    print(f"consensus ({found.consensus.method}): {(labels != nothing).sum():,} {unit}{dropped}")
    print(f"worth a second look: {len(found.disagreements):,} of {len(found.ratings.shared_images()):,} images")
    for each in found.disagreements[:_SHOWN]:
        print(f"  {each.path} (agreement {each.agreement:.2f}): {'; '.join(each.reasons)}")
    if len(found.disagreements) > _SHOWN:
        print(f"  and {len(found.disagreements) - _SHOWN:,} more")


def _print_annotators(found: Agreement) -> None:
    drawn = found.ratings.drawn
    titles = ["annotator", "images", "objects" if drawn else "labels", "reliability"]
    rows = []
    for each in found.annotators:
        cells = [each.name, f"{each.images:,}", f"{each.labels:,}", _number(each.reliability)]
        if each.missed is not None and each.added is not None and each.mean_iou is not None:
            cells += [f"{each.missed:,}", f"{each.added:,}", _number(each.mean_iou)]
        rows.append(cells)
    print_table(make_table([*titles, *(["missed", "added", "mean IoU"] if drawn else [])], rows, rule=False))


def _print_pairs(found: Agreement) -> None:
    titles = ["pair", "images", *(["found by both", "mean IoU"] if found.ratings.drawn else []), "same class", "kappa"]
    rows = []
    for pair in found.pairs:
        cells = [", ".join(pair.annotators), f"{pair.images:,}"]
        if pair.found is not None and pair.mean_iou is not None:
            cells += [_number(pair.found), _number(pair.mean_iou)]
        rows.append([*cells, _number(pair.same), _number(pair.kappa)])
    print_table(make_table(titles, rows, rule=False))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
