"""The new folder that a writer fills: beside its place first, renamed into it when all is there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.validators import around
from hubel.errors import DataError

Pictures = Literal["copy", "link", "none"]
"""Whether pictures are copied into the new folder, linked from it, or left where they are."""


class DatasetWriter:
    """The folder that is being filled, and what was lost on the way.

    Args:
        folder: exists and is empty.
        pictures: what becomes of the pictures.
    """

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        self.folder = folder
        self.pictures = pictures
        self.losses: Counter[str] = Counter()
        self._stems: dict[Path, set[str]] = {}

    def place(self, image: AnnotatedImage, folder: str) -> Path:
        """Give a picture its place, ``folder/NAME``, where no other picture has the name with any suffix."""
        names = self._stems.setdefault(self.folder / folder, set())
        stem, suffix = image.path.stem, image.path.suffix
        number = 1
        name = stem
        while name.casefold() in names:
            number += 1
            name = f"{stem}-{number}"
        if number > 1:
            self.losses["pictures got a new name, as another has theirs"] += 1
        names.add(name.casefold())
        place = self.folder / folder / (name + suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.pictures != "none":
            self._bring(image.path, place)
        return place

    def _bring(self, source: Path, place: Path) -> None:
        if not source.is_file():
            self.losses["pictures are not there: their labels are written without them"] += 1
        elif self.pictures == "link":
            place.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, place)

    def write(self, name: str | Path, text: str) -> None:
        """Write a text file below the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")

    def write_json(self, name: str | Path, value: Any, indent: int | None = None) -> None:
        """Write a JSON file below the folder."""
        self.write(name, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent) + "\n")

    def lost(self, what: str, number: int = 1) -> None:
        """Count what the format cannot hold; ``what`` follows its number."""
        self.losses[what] += number


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends well and is gone when it does not.

    Raises:
        DataError: ``out`` holds something already, or its place cannot be written.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise DataError(f"{out} exists and is no folder.", "Choose another --out; nothing is written over.")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} holds files already.", "Choose another --out; nothing is written over.")
    staged: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.resolve().parent))
        yield staged
        staged.chmod(0o755)
        os.replace(staged, out)  # an empty folder may be replaced, a filled one may not  # noqa: PTH105
        staged = None
    except OSError as error:
        message = f"{out} cannot be written: {error.strerror or error}."
        raise DataError(message, "Free some space or choose another --out.") from error
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


def spelled(value: float) -> str:
    """A coordinate in as few digits as keep it to a ten-thousandth of a pixel."""
    return str(round_coord(value))


def round_coord(value: float) -> float | int:
    """A coordinate as a JSON number, whole where it is whole, to a ten-thousandth of a pixel."""
    rounded = round(value, 4)
    return int(rounded) if rounded == int(rounded) else rounded


def split_dir(split: str) -> str:
    """The folder of a split in written data sets; unsplit ones have none of their own."""
    return "" if split == "all" else split


_CLOSE = 0.01
"""Pixels by which a box may miss the box around its outlines and still be it."""


def _has_own_box(thing: Annotation) -> bool:
    if not thing.polygons:
        return False
    return any(abs(a - b) > _CLOSE for a, b in zip(thing.box, around(thing.polygons), strict=True))


LOSSES: dict[str, tuple[str, Callable[[Annotation], bool]]] = {
    "polygons": ("outlines become the boxes of their objects", lambda o: bool(o.polygons)),
    "parts": ("objects of several outlines: joined into one by seams without width", lambda o: len(o.polygons) > 1),
    "holes": ("objects with holes: joined to the outline by seams without width", lambda o: bool(o.holes)),
    "masks": ("masks become the boxes of their objects", lambda o: o.mask is not None),
    "boxes": ("boxes differ from those around their outlines: only the outlines are kept", _has_own_box),
    "crowd": ("marks that an object is a crowd", lambda o: o.crowd),
    "ignore": ("marks that an object is to be ignored", lambda o: o.ignore),
    "difficult": ("marks that an object is difficult", lambda o: o.difficult),
    "truncated": ("marks that an object is truncated", lambda o: o.truncated),
    "occluded": ("marks that an object is occluded", lambda o: o.occluded),
    "area": ("areas that differ from those of their outlines", lambda o: o.area is not None),
    "attributes": ("objects have attributes", lambda o: bool(o.attributes)),
    "annotator": ("names of annotators", lambda o: o.annotator is not None),
    "score": ("scores", lambda o: o.score is not None),
}
"""By key: what is lost (after its number), and whether an object has it."""


def count_losses(dataset: AnnotatedDataset, holds: Collection[str]) -> Counter[str]:
    """The objects (and classes) that lose something in a format, by what they lose."""
    counts: Counter[str] = Counter()
    tests = [(text, test) for key, (text, test) in LOSSES.items() if key not in holds and not _is_moot(key, holds)]
    used: set[int] = set()
    for image in dataset.images():
        for thing in image.objects or ():
            used.add(thing.label)
            for text, test in tests:
                if test(thing):
                    counts[text] += 1
    if "unused" not in holds and (unused := len(dataset.classes) - len(used)):
        counts["classes have no object: they are not written"] = unused
    if "order" not in holds and dataset.classes != tuple(sorted(dataset.classes)):
        counts["classes lose their order: readers sort them by name"] = len(dataset.classes)
    return counts


def _is_moot(key: str, holds: Collection[str]) -> bool:
    """Of outlines that are not written at all, only that is said."""
    return key in ("parts", "holes", "boxes") and "polygons" not in holds
