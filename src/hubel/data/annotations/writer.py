"""Write a data set into a new folder, which appears when it is complete, and count what a format cannot hold."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, indent, tostring

from hubel.data.annotations.records import FLAGS, AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.file_listing import DATA_MARK
from hubel.errors import DataError
from hubel.fileio import staged_directory
from hubel.masks import Polygon, bounding_box

ImageMode = Literal["copy", "link", "none"]
"""Copy images into the new folder, link to them, or leave them out."""

# Pixels by which a box may differ from the bounding box of its polygons and still follow from them.
_BOX_TOLERANCE = 0.01

_SURROGATES = re.compile(r"[\ud800-\udfff]")  # halves of a character, which UTF-8 cannot hold
_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class DatasetWriter:
    """Writes images and label files into an empty folder and counts what is lost.

    Attributes:
        labelled: classes that are labelled, of images that say so, by their new paths below the folder.
    """

    def __init__(self, folder: Path, images: ImageMode) -> None:
        self.folder = folder
        self.images = images
        self.losses: Counter[str] = Counter()
        self.labelled: dict[Path, tuple[int, ...]] = {}
        self._stems: dict[Path, set[str]] = {}

    def add_image(self, image: AnnotatedImage, folder: str) -> Path:
        """Put an image into ``folder`` under a name that is unique there, whatever the suffix; return its path."""
        stems = self._stems.setdefault(self.folder / folder, set())
        names = itertools.chain([image.path.stem], (f"{image.path.stem}-{number}" for number in itertools.count(2)))
        unique = next(name for name in names if name.casefold() not in stems)
        if unique != image.path.stem:
            self.record_loss("images are renamed, because another has the same name")
        stems.add(unique.casefold())
        path = self.folder / folder / (unique + image.path.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        if image.labelled is not None:
            self.labelled[path.relative_to(self.folder)] = image.labelled
        if self.images == "none":
            return path
        if not image.path.is_file():
            self.record_loss("images do not exist: their labels are written without them")
        elif self.images == "link":
            path.symlink_to(image.path.resolve())
        else:
            shutil.copyfile(image.path, path)
        return path

    def add_images(self, images: Sequence[AnnotatedImage], folder: str) -> Iterator[tuple[AnnotatedImage, Path]]:
        """Put images into ``folder``; yields the labelled ones with their paths."""
        for image in images:
            path = self.add_image(image, folder)
            if image.objects is not None:
                yield image, path

    def write(self, name: str | Path, text: str) -> None:
        """Write a text file below the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_SURROGATES.sub("\ufffd", text).encode())

    def write_json(self, name: str | Path, value: Any, indent: int | None = None) -> None:
        """Write a JSON file below the folder."""
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
        if _SURROGATES.search(text):  # JSON can name files whose names are not text
            text = json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent)
        self.write(name, text + "\n")

    def write_xml(self, name: str | Path, root: Element) -> None:
        """Write an XML file below the folder; control characters, which XML cannot hold, become spaces."""
        indent(root)
        self.write(name, _NOT_IN_XML.sub(" ", tostring(root, encoding="unicode")) + "\n")

    def write_csv(self, name: str | Path, rows: Iterable[Sequence[Any]]) -> None:
        """Write a CSV file below the folder."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self.write(name, text.getvalue())

    def record_loss(self, text: str, count: int = 1) -> None:
        """Count something that the format cannot hold; ``text`` follows the total."""
        self.losses[text] += count

    def loss_lines(self) -> tuple[str, ...]:
        """One line for each kind of loss, beginning with its count."""
        return tuple(f"{count:,} {text}" for text, count in self.losses.items())


@contextlib.contextmanager
def new_dataset_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``out`` if the block succeeds and is removed if it fails.

    Raises DataError if ``out`` is not empty, or cannot be written.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise DataError(f"{out} exists and is not a folder", "choose another --out; nothing is overwritten")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty", "choose another --out; nothing is overwritten")
    with staged_directory(out.resolve()) as folder:
        yield folder
        (folder / DATA_MARK).touch()
        os.replace(folder, out)  # an empty folder may be replaced, another may not  # noqa: PTH105


def write_class_folders(
    splits: Mapping[str, Sequence[tuple[Path, str]]], out: Path, images: ImageMode = "copy"
) -> tuple[str, ...]:
    """Write image files with their classes as a data set of class folders, completely or not at all.

    Returns what happened to images that could not be written as they are, one line each with a count.

    Raises:
        DataError: ``out`` is not empty or cannot be written, or a class name cannot be a folder's name.
    """
    for name in {name for samples in splits.values() for _, name in samples}:
        if name.startswith(".") or any(letter in "/\\:" or ord(letter) < 32 for letter in name):
            raise DataError(f"{name!r} cannot be the name of a folder", "rename the class: letters, digits, spaces")
    with new_dataset_folder(out) as folder:
        writer = DatasetWriter(folder, images)
        for split, samples in splits.items():
            for path, name in samples:
                writer.add_image(AnnotatedImage(path, 0, 0, None), f"{split_dir(split)}/{name}".lstrip("/"))
    return writer.loss_lines()


def round_coord(value: float) -> float | int:
    """A coordinate for JSON and XML, to a ten-thousandth of a pixel; an integer where it is whole."""
    rounded = round(value, 4)
    return int(rounded) if rounded == int(rounded) else rounded


def round_xywh(annotation: Annotation) -> tuple[float | int, ...]:
    """The box as rounded ``x, y, width, height``."""
    x1, y1, x2, y2 = annotation.box
    return round_coord(x1), round_coord(y1), round_coord(x2 - x1), round_coord(y2 - y1)


def round_points(polygon: Polygon) -> list[list[float | int]]:
    """A polygon as a list of rounded ``[x, y]``."""
    return [[round_coord(x), round_coord(y)] for x, y in zip(polygon[::2], polygon[1::2], strict=True)]


def split_dir(split: str) -> str:
    """The folder of a split in written data sets; empty if the data set is not split."""
    return "" if split == "all" else split


def _has_own_box(annotation: Annotation) -> bool:
    bounds = bounding_box(annotation.polygons) if annotation.polygons else annotation.box
    return any(abs(a - b) > _BOX_TOLERANCE for a, b in zip(annotation.box, bounds, strict=True))


LOSSES: dict[str, tuple[str, Callable[[Annotation], bool]]] = {
    "polygons": ("polygons are reduced to bounding boxes", lambda o: bool(o.polygons)),
    "parts": ("objects of several polygons: merged into one by zero-width seams", lambda o: len(o.polygons) > 1),
    "holes": ("objects with holes: merged into one polygon by zero-width seams", lambda o: bool(o.holes)),
    "masks": ("masks are reduced to bounding boxes", lambda o: o.mask is not None),
    "boxes": ("boxes differ from the bounds of their polygons: only the polygons are written", _has_own_box),
    **{flag: (f"{flag} flags", attrgetter(flag)) for flag in FLAGS},
    "area": ("areas that differ from those of their polygons", lambda o: o.area is not None),
    "attributes": ("objects with attributes: not written", lambda o: bool(o.attributes)),
    "annotator": ("names of annotators", lambda o: o.annotator is not None),
    "score": ("scores", lambda o: o.score is not None),
}
"""By field of a format: the loss (after its count), and whether an object is affected."""


def count_losses(dataset: AnnotatedDataset, supports: Collection[str]) -> Counter[str]:
    """Number of objects (and classes) that lose something in a format, by loss."""
    counts: Counter[str] = Counter()
    moot = () if "polygons" in supports else ("parts", "holes", "boxes")
    tests = [loss for key, loss in LOSSES.items() if key not in supports and key not in moot]
    used: set[int] = set()
    for image in dataset.images():
        for obj in image.objects or ():
            used.add(obj.label)
            for text, is_lost in tests:
                if is_lost(obj):
                    counts[text] += 1
    if "unused" not in supports and (unused := len(dataset.classes) - len(used)):
        counts["classes without objects: not written"] = unused
    if "order" not in supports and dataset.classes != tuple(sorted(dataset.classes)):
        counts["classes lose their order: readers sort them by name"] = len(dataset.classes)
    return counts
