"""``hubel data check`` and ``hubel data agree``: faults of a data set, and how far annotators agree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hubel.cli.options import Data, FromFormat, Images, Json
from hubel.console import ProgressBar, check_output_dir, count_of, log, print_json, print_table, printable, show
from hubel.tables import Table

if TYPE_CHECKING:
    from hubel.data.agreement import Agreement
    from hubel.data.checks import Check

_FINDINGS = 5  # of a kind that are printed
_SECOND_LOOKS = 10


def log_lines(label: str, lines: Iterable[str]) -> None:
    """Write lines to stderr, each after the label."""
    for line in lines:
        log(f"{label}: {line}")


def check(
    source: Data,
    from_format: FromFormat = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a fixed copy to this new folder; the original is not changed."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page that shows the image of each finding.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings as well.")] = False,
    as_json: Json = False,
) -> None:
    """Find faults in labels and images before training.

    The exit status is 1 if there are errors. --json lists every finding, the terminal the first few of each kind.

    \b
    hubel data check raccoon/
    hubel data check labels/ --report check.html --fix labels-fixed
    """
    from hubel.data.checks import apply_fixes, check_data

    check_output_dir("--fix", fix, [source])
    with ProgressBar("images") as bar:
        checked = check_data(source, from_format, bar.update)
    repaired = None
    if fix is not None:
        from hubel.data.annotations import write_annotations

        repaired = apply_fixes(checked)
        lost = write_annotations(repaired.dataset, repaired.dataset.format, fix)
    if report is not None:
        from hubel.reports.data_pages import write_check_page

        write_check_page(report, checked)
    if as_json:
        facts: dict[str, Any] = {"source": str(source), **_as_json(checked)}
        if report is not None:
            facts["report"] = str(report)
        if repaired is not None:
            left = [finding.as_json() for finding in repaired.remaining]
            facts["fix"] = {"out": str(fix), "changes": repaired.changes, "losses": lost, "left": left}
        print_json(facts)
    else:
        _print_check(checked)
        if repaired is not None:
            show(f"fixed copy in {fix}: {count_of(len(repaired.changes), 'change')}")
            for line in repaired.changes:
                show(f"  {line}")
            log_lines("not in the copy", lost)
            for line in repaired.remaining_by_kind():
                show(f"not fixed: {line}")
        if report is not None:
            log(f"page: {report}")
    if checked.errors or (strict and checked.findings):
        raise typer.Exit(1)


def _counts(checked: Check) -> dict[str, Any]:
    """Numbers of images and objects."""
    from hubel.data.checks.statistics import statistics

    splits = statistics(checked.dataset).splits.values()
    return {
        "pictures": sum(split.images for split in splits),
        "unlabelled": sum(split.unlabelled for split in splits),
        "empty": sum(split.empty for split in splits),
        "objects": sum(split.objects for split in splits),
    }


def _print_check(checked: Check) -> None:
    from hubel.data.annotations import AnnotatedDataset
    from hubel.data.checks import KINDS

    log_lines("note", checked.notes)
    for kind, found in checked.by_kind().items():
        about = KINDS[kind]
        show(f"{about.severity}: {about.title}: {len(found):,}. {about.hint}")
        for finding in found[:_FINDINGS]:
            where = finding.place()
            show(printable(f"  {where}: {finding.message}" if where else f"  {finding.message}"))
        if len(found) > _FINDINGS:
            show(f"  and {len(found) - _FINDINGS:,} more")
    dataset, counts = checked.dataset, _counts(checked)
    what = count_of(counts["pictures"], "image")
    if isinstance(dataset, AnnotatedDataset):
        what += f" ({counts['unlabelled']:,} unlabelled, {counts['empty']:,} labelled as empty)"
        what += f", {count_of(counts['objects'], 'object')}"
    what += f", {count_of(len(dataset.classes), 'class')}"
    warnings = len(checked.findings) - checked.errors
    show(f"{dataset.root}: {what}: {count_of(checked.errors, 'error')}, {count_of(warnings, 'warning')}")


def _as_json(checked: Check) -> dict[str, Any]:
    from hubel.data.annotations import AnnotatedDataset

    dataset = checked.dataset
    return {
        "format": dataset.format if isinstance(dataset, AnnotatedDataset) else "class folders",
        "classes": list(dataset.classes),
        "images": {split: len(images) for split, images in dataset.splits.items()},
        **_counts(checked),
        "errors": checked.errors,
        "warnings": len(checked.findings) - checked.errors,
        "counts": {kind: len(found) for kind, found in checked.by_kind().items()},
        "findings": [finding.as_json() for finding in checked.findings],
        "notes": list(checked.notes),
    }


def agree(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="LABELS",
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
        out = {} if consensus is None else {"out": str(consensus), "losses": lost}
        print_json({"sources": list(map(str, sources)), "iou": iou} | found.as_json() | out)
        return
    log_lines("note", found.ratings.notes)
    _print_agreement(found)
    log_lines("not in the consensus", lost)
    if consensus is not None:
        log(f"consensus: {consensus}")


def _print_agreement(found: Agreement) -> None:
    ratings, drawn = found.ratings, found.ratings.drawn
    titles = ["annotator", "images", "objects" if drawn else "labels", "reliability"]
    rows = []
    for each in found.annotators:
        cells = [each.name, f"{each.images:,}", f"{each.labels:,}", _number(each.reliability)]
        if each.missed is not None and each.added is not None and each.mean_iou is not None:
            cells += [f"{each.missed:,}", f"{each.added:,}", _number(each.mean_iou)]
        rows.append(cells)
    print_table(Table([*titles, *(["missed", "added", "mean IoU"] if drawn else [])], rows, rule=False))
    show()
    titles = ["pair", "images", *(["found by both", "mean IoU"] if drawn else []), "same class", "kappa"]
    rows = []
    for pair in found.pairs:
        cells = [", ".join(pair.annotators), f"{pair.images:,}"]
        if pair.found is not None and pair.mean_iou is not None:
            cells += [_number(pair.found), _number(pair.mean_iou)]
        rows.append([*cells, _number(pair.same), _number(pair.kappa)])
    print_table(Table(titles, rows, rule=False))
    show()
    alpha = _number(found.alpha)
    if found.alpha_objects is not None:
        alpha = f"{alpha} of classes, {_number(found.alpha_objects)} of objects and classes"
    show(f"Krippendorff's alpha: {alpha}")
    missing = found.consensus.labels[found.shared] == ratings.missing
    rejected = f"; {missing.sum():,} drawn by some were rejected" if drawn else ""
    kept = f"{(~missing).sum():,} {'objects' if drawn else 'images'}"
    show(f"consensus ({found.consensus.method}): {kept}{rejected}")
    show(f"worth a second look: {len(found.disagreements):,} of {len(ratings.shared_images()):,} images")
    for doubt in found.disagreements[:_SECOND_LOOKS]:
        show(printable(f"  {doubt.path} (agreement {doubt.agreement:.2f}): {'; '.join(doubt.reasons)}"))
    if len(found.disagreements) > _SECOND_LOOKS:
        show(f"  and {len(found.disagreements) - _SECOND_LOOKS:,} more")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
