"""``hubel data check``: faults of a data set, on the terminal and as a page, and automatic fixes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubel.cli.options import Data, FromFormat, Json
from hubel.console import ProgressBar, check_output_dir, log, print_json

if TYPE_CHECKING:
    from hubel.data.checks import Check, FixResult

_SHOWN = 5


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
    repaired = apply_fixes(checked) if fix is not None else None
    lost: tuple[str, ...] = ()
    if repaired is not None and fix is not None:
        from hubel.data.annotations import write_annotations

        lost = write_annotations(repaired.dataset, repaired.dataset.format, fix)
    if report is not None:
        from hubel.reports.data_pages import write_check_page

        write_check_page(report, checked)
    if as_json:
        print_json(_as_json(source, checked, repaired, lost, fix, report))
    else:
        _print(checked)
        if repaired is not None:
            _print_fixes(repaired, lost, fix)
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


def _print(checked: Check) -> None:
    from hubel.data.annotations import AnnotatedDataset
    from hubel.data.checks import KINDS

    for line in checked.notes:
        log(f"note: {line}")
    for kind, found in checked.by_kind().items():
        about = KINDS[kind]
        print(f"{about.severity}: {about.title}: {len(found):,}. {about.hint}")
        for finding in found[:_SHOWN]:
            where = finding.place()
            print(f"  {where}: {finding.message}" if where else f"  {finding.message}")
        if len(found) > _SHOWN:
            print(f"  and {len(found) - _SHOWN:,} more")
    counts = _counts(checked)
    warnings = len(checked.findings) - checked.errors
    labels = ""
    if isinstance(checked.dataset, AnnotatedDataset):
        labels = (
            f" ({counts['unlabelled']:,} unlabelled, {counts['empty']:,} labelled as empty), "
            f"{counts['objects']:,} objects"
        )
    print(
        f"{checked.dataset.root}: {counts['pictures']:,} images{labels}, {len(checked.dataset.classes):,} "
        f"{'classes' if len(checked.dataset.classes) != 1 else 'class'}: "
        f"{_many(checked.errors, 'error')}, {_many(warnings, 'warning')}"
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("s" if number != 1 else "")


def _print_fixes(repaired: FixResult, lost: tuple[str, ...], fix: Path | None) -> None:
    print(f"fixed copy in {fix}: {_many(len(repaired.changes), 'change')}")
    for line in repaired.changes:
        print(f"  {line}")
    for line in lost:
        log(f"not in the copy: {line}")
    for line in repaired.remaining_by_kind():
        print(f"not fixed: {line}")


def _as_json(
    source: Path,
    checked: Check,
    repaired: FixResult | None,
    lost: tuple[str, ...],
    fix: Path | None,
    report: Path | None,
) -> dict[str, Any]:
    from hubel.data.annotations import AnnotatedDataset

    dataset = checked.dataset
    result: dict[str, Any] = {
        "source": str(source),
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
    if report is not None:
        result["report"] = str(report)
    if repaired is not None:
        left = [finding.as_json() for finding in repaired.remaining]
        result["fix"] = {"out": str(fix), "changes": list(repaired.changes), "losses": list(lost), "left": left}
    return result
