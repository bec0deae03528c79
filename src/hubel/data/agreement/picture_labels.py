"""One label a picture: class folders, one set an annotator, or CSV tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hubel.data.agreement.coefficients import UNRATED
from hubel.data.agreement.ratings import Ratings, Thing
from hubel.data.annotations.files import csv_rows, read_text
from hubel.data.annotations.values import WrongLabel
from hubel.data.image_folder import ClassFolders
from hubel.errors import DataError

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
                fault = f"{path}, row {row}: {annotator or name} calls {image} {label!r}, and {by[image]!r} before."
                raise DataError(fault, "Keep one label of each annotator for each picture.")
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
                raise WrongLabel(f"row {line} names no image")
            if not (path.parent / image).resolve().is_relative_to(path.parent.resolve()):
                raise WrongLabel(f"row {line} names {image!r}, which leads out of {path.parent}")
            if label:  # an empty one: not rated
                yield line, image, label, annotator
    except WrongLabel as error:
        raise DataError(f"{path}: {error}.", "Name pictures in the table's folder: image,annotator,label.") from error


def _plain(name: str) -> str:
    return name.strip().casefold()


def folder_ratings(names: Sequence[str], sets: Sequence[ClassFolders]) -> Ratings:
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
                fault = f"{sample.path} is called like {places[key]}: which of the others' is meant?"
                raise DataError(fault, "Give the pictures names of their own, the same for every annotator.")
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
