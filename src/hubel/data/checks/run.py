"""All checks, one after another: of labelled data sets and of class folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hubel.data.annotations import AnnotatedDataset, read_annotations
from hubel.data.annotations.detect_format import detect_formats, no_format_error
from hubel.data.checks import box_conventions
from hubel.data.checks.boxes import box_findings
from hubel.data.checks.classes import class_findings
from hubel.data.checks.duplicates import near_pictures, same_pictures
from hubel.data.checks.files import fault_findings, folder_findings, unlabelled, without_picture
from hubel.data.checks.findings import KINDS, Finding
from hubel.data.checks.image_scan import ImageInfo, scan_images
from hubel.data.image_folder import read_class_folders
from hubel.data.samples import ImageDataset
from hubel.errors import DataError


def read_any(
    path: str | Path, format: str | None = None, on_fault: Callable[[DataError], None] | None = None
) -> AnnotatedDataset | ImageDataset:
    """Read labels if there are any, else class folders; arguments as of ``read_annotations``.

    Raises:
        DataError: there is neither, or what there is cannot be read.
        UsageError: ``format`` is none.
    """
    path = Path(path)
    if format is None and path.is_dir() and not detect_formats(path):
        try:
            return read_class_folders(path)
        except DataError as error:
            raise no_format_error(path) from error
    return read_annotations(path, format, on_fault)


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        dataset: the data set, or the class folders.
        findings: ordered by kind as in :data:`~hubel.data.checks.findings.KINDS`, then as the pictures come.
        looks: at the pictures, by path; of class folders those that are readable.
        notes: what the reader guessed or left out, one line each.
    """

    dataset: AnnotatedDataset | ImageDataset
    findings: tuple[Finding, ...]
    looks: dict[Path, ImageInfo]
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings of each kind that there is."""
        grouped: dict[str, list[Finding]] = {}
        for finding in self.findings:
            grouped.setdefault(finding.kind, []).append(finding)
        return grouped


def check_data(
    path: str | Path, format: str | None = None, progress: Progress | None = None, threads: int | None = None
) -> Check:
    """Check a data set: labelled boxes in any format, or a folder a class.

    Args:
        path: its folder, or one label file in it.
        format: as for :func:`~hubel.data.annotations.read_annotations`.
        progress: called now and then with the number of pictures looked at and of all.
        threads: that decode pictures.

    Raises:
        DataError: there is nothing to check, or it cannot be told what it is.
        UsageError: ``format`` is none.
    """
    faults: list[DataError] = []
    try:
        dataset = read_any(path, format, faults.append)
    except DataError:
        if not faults:
            raise
        # Nothing but faults: they say more than that there is no picture.
        empty = AnnotatedDataset(Path(path), (), {}, format or "")
        return Check(empty, tuple(_ordered(fault_findings(faults))), {})
    if isinstance(dataset, ImageDataset):
        return _checked_folders(dataset, progress, threads)
    return _checked_labels(dataset, faults, progress, threads)


def _checked_labels(
    dataset: AnnotatedDataset, faults: list[DataError], progress: Progress | None, threads: int | None
) -> Check:
    placed = [(split, image.path) for split, images in dataset.splits.items() for image in images]
    looks = scan_images([path for _, path in placed], progress, threads)
    found = list(fault_findings(faults))
    faulty = {finding.label_file for finding in found if finding.label_file}
    found += _unreadable(placed, looks)
    found += without_picture(dataset)
    found += unlabelled(dataset, faulty)
    found += _labels(dataset, looks)
    found += box_conventions.off_by_one(dataset)
    found += class_findings(dataset)
    readable = [(split, path) for split, path in placed if not looks[path].message]
    twice, copies = same_pictures(readable)
    found += twice
    found += near_pictures([(split, path) for split, path in readable if path not in copies], looks)
    return Check(dataset, tuple(_ordered(found)), looks, dataset.warnings)


def _unreadable(placed: list[tuple[str, Path]], looks: dict[Path, ImageInfo]) -> Iterator[Finding]:
    for split, path in placed:
        if message := looks[path].message:
            kind = "unreadable" if path.exists() else "missing"
            yield Finding(kind, message.removeprefix(f"{path} ").removeprefix(f"{path}: "), split, path)


def _labels(dataset: AnnotatedDataset, looks: dict[Path, ImageInfo]) -> Iterator[Finding]:
    """What is wrong with boxes; what has one cause in a picture is told once."""
    explained: set[Path] = set()
    sizes: dict[Path, tuple[int, int]] = {}
    for split, images in dataset.splits.items():
        for image in images:
            look = looks[image.path]
            sizes[image.path] = (image.width, image.height) if look.message else (look.width, look.height)
            if look.message or not image.objects:
                continue
            if turned := box_conventions.missing_exif_rotation(split, image, look):
                yield turned
                explained.add(image.path)
            elif resized := box_conventions.other_size(split, image, look):
                yield resized
                # Its boxes are measured in the picture that they were drawn in.
                sizes[image.path] = (image.width, image.height)
    for finding in box_conventions.wrong_box_format(dataset, looks, explained):
        yield finding
        if finding.picture:
            explained.add(finding.picture)
    for split, images in dataset.splits.items():
        for image in images:
            if image.objects and image.path not in explained:
                inside = list(box_conventions.fractions(split, image, dataset.classes, looks[image.path]))
                yield from inside
                numbers = {finding.object for finding in inside}
                found = box_findings(split, image, dataset.classes, sizes[image.path])
                yield from (finding for finding in found if finding.object not in numbers)


def _checked_folders(folders: ImageDataset, progress: Progress | None, threads: int | None) -> Check:
    found, readable = folder_findings(folders, threads)
    looks = scan_images([path for _, path in readable], progress, threads)
    copies = {finding.other for finding in found if finding.other}
    found += near_pictures([(split, path) for split, path in readable if path not in copies], looks)
    return Check(folders, tuple(_ordered(found)), looks, tuple(folders.warnings))


def _ordered(found: Iterator[Finding] | list[Finding]) -> list[Finding]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(found, key=lambda finding: order[finding.kind])
