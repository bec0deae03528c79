"""One set of labels an annotator, of whichever kind, read into one table of ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hubel.data.agreement.kappa import UNRATED
from hubel.data.agreement.match_objects import SAME_OBJECT, object_ratings
from hubel.data.agreement.ratings import Ratings, Thing
from hubel.data.annotations import AnnotatedDataset
from hubel.data.annotations.parsing import InvalidAnnotation, csv_rows, read_text
from hubel.data.checks.run import read_any
from hubel.data.samples import ImageDataset
from hubel.errors import DataError, UsageError

_COLUMNS = ("image", "label", "annotator")

Said = dict[str, str]
"""By picture, the class that an annotator gave it."""


def is_label_table(path: Path) -> bool:
    """Whether a file is a CSV table whose first row names the columns ``image`` and ``label``."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        row = next(csv_rows(file.readline(10_000)), (0, []))[1]
    return {"image", "label"} <= {_plain(name) for name in row}


def table_ratings(names: Sequence[str], paths: Sequence[Path]) -> Ratings:
    """Ratings from CSV tables; one without a column ``annotator`` is of one, who is called as it is.

    Pictures are known by what the tables call them, and lie below the folder of the first that names them.

    Raises:
        DataError: a table cannot be read, or gives two labels to a picture by one annotator.
    """
    said: dict[str, Said] = {}
    files: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        for row, image, label, annotator in _rows(path):
            by = said.setdefault(annotator or name, {})
            if by.setdefault(image, label) != label:
                message = f"{path}, row {row}: {annotator or name} calls {image} {label!r}, and {by[image]!r} before."
                raise DataError(message, "Keep one label of each annotator for each picture.")
            files.setdefault(image, path.parent / image)
    return _ratings(said, [{image: files[image] for image in by} for by in said.values()])


def _rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line, picture, label, annotator."""
    try:
        rows = csv_rows(read_text(path).removeprefix("\ufeff"))
        header = [_plain(name) for name in next(rows)[1]]
        places = [header.index(name) if name in header else None for name in _COLUMNS]
        for line, row in rows:
            image, label, annotator = (
                row[place].strip() if place is not None and place < len(row) else "" for place in places
            )
            if not image:
                raise InvalidAnnotation(f"row {line} names no image")
            if not (path.parent / image).resolve().is_relative_to(path.parent.resolve()):
                raise InvalidAnnotation(f"row {line} names {image!r}, which leads out of {path.parent}")
            if label:  # an empty one: not rated
                yield line, image, label, annotator
    except InvalidAnnotation as error:
        raise DataError(f"{path}: {error}.", "Name pictures in the table's folder: image,annotator,label.") from error


def _plain(name: str) -> str:
    return name.strip().casefold()


def folder_ratings(names: Sequence[str], sets: Sequence[ImageDataset]) -> Ratings:
    """Ratings from class folders: the same pictures, sorted by several people. They are known by their file names.

    Raises:
        DataError: a set has two pictures of one name.
    """
    said: dict[str, Said] = {}
    files: list[dict[str, Path]] = []
    for name, folders in zip(names, sets, strict=True):
        by: Said = {}
        places: dict[str, Path] = {}
        for sample in (sample for samples in folders.splits.values() for sample in samples):
            key = sample.path.name
            if key in places:
                message = f"{sample.path} is called like {places[key]}: which of the others' is meant?"
                raise DataError(message, "Give the pictures names of their own, the same for every annotator.")
            places[key] = sample.path
            by[key] = folders.classes[sample.label]
        said[name] = by
        files.append(places)
    return _ratings(said, files)


def _ratings(said: Mapping[str, Said], files: Sequence[Mapping[str, Path]]) -> Ratings:
    classes = tuple(sorted({label for by in said.values() for label in by.values()}))
    place = {name: at for at, name in enumerate(classes)}
    pictures = list(dict.fromkeys(key for by in said.values() for key in by))
    table = np.array([[place[by[key]] if key in by else UNRATED for by in said.values()] for key in pictures])
    things = tuple(Thing(key) for key in pictures)
    return Ratings(tuple(said), classes, things, table.reshape(len(pictures), len(said)), tuple(files), drawn=False)


def read_ratings(sources: Sequence[str | Path], format: str | None = None, least: float = SAME_OBJECT) -> Ratings:
    """What several annotators said.

    Args:
        sources: a labelled data set an annotator, in any annotation format or as class folders; or CSV tables with
            the columns ``image``, ``label`` and, if a table is of several people, ``annotator``; or one labelled data
            set whose objects name their annotators (Label Studio, Labelbox).
        format: as for :func:`~hubel.data.annotations.read_annotations`.
        least: intersection over union from which on boxes may mean one object.

    Raises:
        DataError: a set cannot be read, they are of several kinds, or no two have a picture in common.
        UsageError: there is one annotator only; or ``format`` is none.
    """
    paths = [Path(source) for source in sources]
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise UsageError(f"{twice[0]} is given twice.", "Name one set of labels an annotator.")
    names = _names(paths)
    tables = [path for path in paths if is_label_table(path)]
    if tables:
        ratings = table_ratings(names, tables) if len(tables) == len(paths) else None
    else:
        ratings = _from_sets(names, [read_any(path, format) for path in paths], least)
    if ratings is None:
        kinds = "Compare boxes with boxes, class folders with class folders, tables with tables."
        raise DataError(f"{', '.join(map(str, paths))} are labels of several kinds.", kinds)
    if len(ratings.annotators) < 2:
        message = f"{paths[0]} has the labels of one annotator only."
        raise UsageError(message, "Name a set of labels for each of two or more: hubel data agree ann/ bob/")
    if not ratings.pictures():
        message = f"{', '.join(map(str, paths))} have no picture in common that two annotators have labelled."
        raise DataError(message, "Pictures are known by their file names: give them the same.")
    return ratings


def _from_sets(names: Sequence[str], sets: Sequence[AnnotatedDataset | ImageDataset], least: float) -> Ratings | None:
    """The ratings of sets of one kind; ``None`` if they are not."""
    folders = [each for each in sets if isinstance(each, ImageDataset)]
    if folders:
        return folder_ratings(names, folders) if len(folders) == len(sets) else None
    labelled = [each for each in sets if isinstance(each, AnnotatedDataset)]
    return object_ratings(names, labelled, least)


def _names(paths: Sequence[Path]) -> list[str]:
    """What annotators are called: by their set, with as many of the folders above it as tell them apart."""
    parts = [path.resolve().with_suffix("").parts if path.is_file() else path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
