"""Run all checks on a labelled data set or on class folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubel.console import count_of
from hubel.data.annotations import AnnotatedDataset
from hubel.data.annotations.api import detect_formats
from hubel.data.annotations.encodings import decode_text
from hubel.data.annotations.reader import LabelFileError
from hubel.data.annotations.unrecognized import no_format_error
from hubel.data.annotations.yolo import NAME_FILES
from hubel.data.checks.boxes import box_findings
from hubel.data.checks.classes import class_findings, imbalance_findings, likeness_findings
from hubel.data.checks.findings import KINDS, Finding
from hubel.data.checks.images import ImageInfo, Progress, identical_findings, scan_images, similar_findings
from hubel.data.checks.shapes import shape_findings
from hubel.data.checks.training_checks import SKEWED, Findings, check_class_folders
from hubel.data.file_listing import listing
from hubel.data.image_folder import read_class_folders
from hubel.data.instances import is_unlabelled_instance_folder, read_labels
from hubel.data.mask_folder import MASK_TREES, VOC_TREES, is_mask_folder
from hubel.data.samples import ImageDataset
from hubel.errors import DataError
from hubel.tables import Table, terminal_width


def read_any(
    path: str | Path, format: str | None = None, on_fault: Callable[[LabelFileError], None] | None = None
) -> AnnotatedDataset | ImageDataset:
    """Read annotations if there are any, or masks of objects, else class folders; arguments as for `read_labels`.

    Raises:
        DataError: there is neither, or what there is cannot be read.
        UsageError: ``format`` does not exist.
    """
    path = Path(path)
    if format is None and path.is_dir() and not detect_formats(path) and not is_unlabelled_instance_folder(path):
        if is_mask_folder(path, MASK_TREES | VOC_TREES):
            message = f"{path} has images with masks, of which only hubel train and evaluate read the classes"
            raise DataError(message, "use hubel train --task segment, which names those that cannot be used")
        try:
            return read_class_folders(path)
        except DataError as error:
            raise no_format_error(path) from error
    return read_labels(path, format, on_fault)


@dataclass(frozen=True, repr=False)
class Check:
    """Result of a check.

    Attributes:
        findings: ordered by kind as in :data:`~hubel.data.checks.findings.KINDS`, then as the images come.
        infos: of the images, by path; for class folders, of the readable ones.
        notes: what the reader guessed or left out, one line each.
    """

    dataset: AnnotatedDataset | ImageDataset
    findings: tuple[Finding, ...]
    infos: dict[Path, ImageInfo]
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """Number of findings that are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings by kind."""
        grouped: dict[str, list[Finding]] = {}
        for finding in self.findings:
            grouped.setdefault(finding.kind, []).append(finding)
        return grouped

    def table(self) -> Table:
        """A row for each kind of finding: how many there are, the first of them, and what to do."""
        rows = []
        for kind, found in self.by_kind().items():
            about = KINDS[kind]
            first = f"{found[0].place()}: {found[0].message}".removeprefix(": ")
            rows.append([about.severity, about.title, f"{len(found):,}", first, about.hint])
        images = sum(len(split) for split in self.dataset.splits.values())
        warnings = len(self.findings) - self.errors
        summary = f"{self.dataset.root}: {count_of(images, 'image')}, {count_of(self.errors, 'error')}, "
        notes = (summary + count_of(warnings, "warning"), *self.notes)
        titles = ("severity", "finding", "number", "first", "what to do")
        return Table(titles, rows, left=("severity", "finding", "first", "what to do"), notes=notes)

    def __repr__(self) -> str:
        table = self.table()
        return table.text(terminal_width()) if table.rows else "\n".join(table.notes)

    def _repr_html_(self) -> str:
        return self.table().html()


def check_data(path: str | Path, format: str | None = None, progress: Progress | None = None) -> Check:
    """Check a data set: annotations in any format, or class folders; ``path`` and ``format`` as for `read_any`.

    Raises:
        DataError: there is nothing to check, or its format is unknown or ambiguous.
        UsageError: ``format`` does not exist.
    """
    errors: list[LabelFileError] = []
    try:
        dataset = read_any(path, format, errors.append)
    except DataError:
        if not errors:
            raise
        # The errors in label files explain more than that there is no image.
        empty = AnnotatedDataset(Path(path), (), {}, format or "")
        return Check(empty, _sorted(_label_file_findings(errors)), {})
    if isinstance(dataset, ImageDataset):
        return _check_class_folders(dataset, progress)
    return _check_annotations(dataset, errors, progress)


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = {kind: index for index, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda finding: order[finding.kind]))


def _check_annotations(dataset: AnnotatedDataset, errors: list[LabelFileError], progress: Progress | None) -> Check:
    images = [(split, image.path) for split, image in dataset.placed_images()]
    infos = scan_images([path for _, path in images], progress)
    readable = [(split, path) for split, path in images if not infos[path].message]
    copies = identical_findings(readable)
    findings = [
        *_label_file_findings(errors),
        *_unreadable(images, infos),
        *_label_files_without_image(dataset),
        *_unlabelled(dataset, {error.file.stem for error in errors}),
        *(boxes := list(box_findings(dataset, infos))),
        *shape_findings(dataset, {finding.image for finding in boxes if finding.object is None}),
        *class_findings(dataset),
        *copies,
        *_similar(readable, copies, infos),
    ]
    return Check(dataset, _sorted(findings), infos, dataset.warnings)


def _similar(
    images: Sequence[tuple[str, Path]], copies: Iterable[Finding], infos: dict[Path, ImageInfo]
) -> Iterator[Finding]:
    known = {finding.other for finding in copies}
    return similar_findings([(split, path, infos[path].fingerprint) for split, path in images if path not in known])


def _label_file_findings(errors: Iterable[LabelFileError]) -> Iterator[Finding]:
    for error in errors:
        kind = "unknown-class" if error.unknown_class else "label-fault"
        yield Finding(kind, _without_path(error.message, error.file), label_file=error.file)


def _without_path(message: str, path: Path) -> str:
    return message.removeprefix(str(path)).lstrip(",: ")


def _unreadable(images: Iterable[tuple[str, Path]], infos: dict[Path, ImageInfo]) -> Iterator[Finding]:
    for split, path in images:
        if message := infos[path].message:
            kind = "unreadable" if path.exists() else "missing"
            yield Finding(kind, _without_path(message, path), split, path)


def _unlabelled(dataset: AnnotatedDataset, faulty_stems: set[str]) -> Iterator[Finding]:
    """Images that nobody labelled, except those whose label file has errors."""
    for split, image in dataset.placed_images():
        if image.objects is None and image.label_file is None and image.path.stem not in faulty_stems:
            yield Finding("unlabelled", "has no labels, not even an empty file", split, image.path)


def _label_files_without_image(dataset: AnnotatedDataset) -> Iterator[Finding]:
    """YOLO's label files without an image; in other formats label files name theirs."""
    if dataset.format != "yolo":
        return
    stems = {image.path.stem for image in dataset.images()}
    folders = {image.label_file.parent for image in dataset.images() if image.label_file}
    for folder in sorted(folders):
        for file in sorted(folder.glob("*.txt")):
            if file.stem not in stems and file.name not in NAME_FILES and _has_rows(file):
                yield Finding("missing", "no image matches the name of this label file", label_file=file)


def _has_rows(file: Path) -> bool:
    """True for a text file that begins like a label file, not like a README or a list of images."""
    try:
        with file.open("rb") as stream:
            words = decode_text(stream.read(400)).split()
    except OSError:
        return False
    return len(words) >= 5 and all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", word) for word in words[:5])


def _check_class_folders(folders: ImageDataset, progress: Progress | None) -> Check:
    checked = check_class_folders(folders.splits, folders.classes)
    images = [(split, sample.path) for split, samples in folders.splits.items() for sample in samples]
    readable = [(split, path) for split, path in images if path not in checked.unusable]
    infos = scan_images([path for _, path in readable], progress)
    copies = (*checked.contradictions, *checked.leaks)
    unreadable = [
        Finding("unreadable", _without_path(checked.unusable[path], path), split, path)
        for split, path in images
        if path in checked.unusable
    ]
    findings = [
        *unreadable,
        *copies,
        *_class_folder_classes(checked, folders.classes),
        *_similar(readable, copies, infos),
    ]
    return Check(folders, _sorted(findings), infos, tuple(folders.warnings))


def _class_folder_classes(checked: Findings, classes: Sequence[str]) -> Iterator[Finding]:
    if len(classes) < 2:
        yield Finding("classes", f"there is only one class ({listing(classes)}): at least two are required")
    for split, counts in checked.counts.items():
        if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
            kind = "classes" if split in ("train", "all") else "class-absent"
            yield Finding(kind, f"no readable image in {split} of {listing(empty)}", split)
    totals = [sum(column) for column in zip(*checked.counts.values(), strict=True)]
    named = {name: count for name, count in zip(classes, totals, strict=True) if count}
    yield from likeness_findings(named, "images")
    yield from imbalance_findings(named, "images", SKEWED)
