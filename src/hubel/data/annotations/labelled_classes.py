"""Which classes an image labels: ``labelled_classes.csv`` in the folder of a data set, beside labels of any format.

A row for each folder or image of which only some classes are labelled, such as a source of its own: its path below the
data set's folder, then the classes all of whose objects are labelled there::

    train/images/road,car,bus
    train/images/park,person
    train/images/park/7.jpg,person,car

``.`` is the whole data set. The longest path that leads to an image counts, and replaces what its label file says;
where none does, all classes are labelled. It is a file of its own because most formats have no place for it, and a row
is enough for a whole source: no label file has to be changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from hubel.console import count_of
from hubel.data.annotations import parse
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage
from hubel.data.annotations.writer import DatasetWriter
from hubel.data.file_listing import composed, listing
from hubel.errors import DataError

FILE = "labelled_classes.csv"


def with_labelled_classes(dataset: AnnotatedDataset) -> AnnotatedDataset:
    """The data set with what its file says, if there is one; a note tells how many images label only some classes.

    Raises :class:`DataError` as :func:`labelled_by_path`.
    """
    stated = labelled_by_path(dataset.root, dataset.classes, [image.path for image in dataset.images()])

    def told(image: AnnotatedImage) -> AnnotatedImage:
        labelled = stated.get(image.path, image.labelled)
        complete = labelled is not None and len(labelled) == len(dataset.classes)
        return replace(image, labelled=None if complete else labelled)

    splits = {split: tuple(map(told, images)) for split, images in dataset.splits.items()}
    every = [image.labelled for images in splits.values() for image in images if image.objects is not None]
    notes = partly_labelled_note(every)
    return replace(dataset, splits=splits, warnings=(*dataset.warnings, *notes))


def partly_labelled_note(labelled: Sequence[object]) -> tuple[str, ...]:
    """How many of the labelled images label only some classes: one line, or none; ``None`` stands for all classes."""
    some = sum(each is not None for each in labelled)
    return (f"{some:,} of {count_of(len(labelled), 'labelled image')} label only some classes",) if some else ()


def labelled_by_path(root: Path, classes: tuple[str, ...], paths: Sequence[Path]) -> dict[Path, tuple[int, ...]]:
    """The classes, ascending, that those of the images label of which the file in the folder ``root`` says it.

    Raises :class:`DataError` for an unknown class, a path that does not exist, or one that is there twice.
    """
    file = root / FILE
    if not file.is_file():
        return {}
    rows, lines = _rows(file, classes)
    found: dict[Path, tuple[int, ...]] = {}
    used: set[str] = set()
    for image in paths:
        if image.is_relative_to(root):
            path = PurePosixPath(composed(image.relative_to(root).as_posix()))
            names = (name for name in map(str, (path, *path.parents)) if name in rows)  # the longest first
            if (name := next(names, None)) is not None:
                found[image] = rows[name]
                used.add(name)
    if unknown := [name for name in rows if name not in used and not _is_below(root, name)]:
        message = f"{file}, line {lines[unknown[0]]}: {unknown[0]!r} is neither a folder nor an image"
        raise DataError(message, f"write paths below {root}")
    return found


def _is_below(root: Path, name: str) -> bool:
    """True for a path that exists: of an image that another label file lists, say."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and os.path.exists(root / name)  # noqa: PTH110 – never raises


def _rows(file: Path, classes: tuple[str, ...]) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The classes of each path, ascending, and the number of its line."""
    labels = {name: label for label, name in enumerate(classes)}
    labelled: dict[str, tuple[int, ...]] = {}
    lines: dict[str, int] = {}
    try:
        for line, cells in parse.csv_rows(parse.read_text(file)):
            path, *names = (composed(cell.strip()) for cell in cells)
            names = [name for name in names if name]
            if unknown := [name for name in names if name not in labels]:
                message = f"{file}, line {line}: {unknown[0]!r} is not one of the classes: {listing(classes)}"
                raise DataError(message, "correct its spelling, or remove it")
            if not path:
                raise DataError(f"{file}, line {line}: begins with no path", "write . for the whole data set")
            path = str(PurePosixPath(path))
            if path in labelled:
                raise DataError(f"{file}, line {line}: {path!r} is in line {lines[path]} too", "keep one of them")
            labelled[path], lines[path] = tuple(sorted({labels[name] for name in names})), line
    except parse.InvalidAnnotation as error:
        raise DataError(f"{file}: {error}", "separate a path and names of classes by commas") from error
    return labelled, lines


def write_labelled_classes(dataset: AnnotatedDataset, writer: DatasetWriter, unused_classes: bool) -> None:
    """Write the file, if an image labels only some classes.

    Without ``unused_classes``, those without any object are left out: the format's labels have no place for them.
    """
    if not writer.labelled:
        return
    named = set(range(len(dataset.classes)))
    if not unused_classes:
        named = {obj.label for image in dataset.images() for obj in image.objects or ()}
    rows = [
        [path.as_posix(), *(dataset.classes[label] for label in labels if label in named)]
        for path, labels in writer.labelled.items()
    ]
    writer.write_csv(FILE, rows)
