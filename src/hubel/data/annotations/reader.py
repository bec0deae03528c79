"""State that readers share while they read a data set: classes, images, warnings and errors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from hubel.console import count_of
from hubel.data.annotations import parse
from hubel.data.annotations.image_lookup import ImageLookup
from hubel.data.annotations.parse import InvalidAnnotation, UnknownClass
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.file_listing import composed
from hubel.errors import DataError, HubelError
from hubel.masks import Box, Polygon, bounding_box

T = TypeVar("T")

_SURROGATES = re.compile(r"[\ud800-\udfff]")  # halves of a character, which no file can hold

_UNREADABLE = (AttributeError, TypeError, ValueError, KeyError, IndexError, OverflowError, RecursionError)
"""What reading a value of the wrong kind raises; :class:`InvalidAnnotation` is a ValueError."""

MAX_OBJECTS = 100_000
"""Limit of objects in one image; files that claim more are forged or broken."""

_MAX_FAULTS = 10_000  # that are collected; a file with more is of another kind, or forged

# Pixels of masks that one file may have decoded: a quarter of a gigapixel, and more for each byte that describes them.
# A run length of a few bytes can claim any number; of real masks, each byte describes some dozens.
_MASK_PIXELS = 1 << 28
_MASK_PIXELS_PER_BYTE = 1 << 12

_SPLIT_ORDER = ("train", "val", "test", "all")

LabelFiles = Sequence[tuple[str, Path]]
"""Label files, each with its split."""

Shape = tuple[Box, dict[str, Any]]
"""A box, and the arguments of :class:`Annotation` for polygons or a mask."""


class LabelFileError(DataError):
    """An error in a label file, or in one annotation of it, such as a class that the data set does not define."""

    def __init__(self, message: str, hint: str, file: Path, unknown_class: bool) -> None:
        super().__init__(message, hint)
        self.file = file
        self.unknown_class = unknown_class


class ForgedFileError(DataError):
    """A file is not worth reading on; ends the reading of the data set."""


class AnnotationReader:
    """Collects the classes, images, warnings and errors of a data set in the folder ``root``.

    Errors name the title of the ``format``. Each error of a label file or of one object in it, which is then left out,
    is handed to ``on_fault``; without it, the first is raised.
    """

    def __init__(self, root: Path, format: str, on_fault: Callable[[LabelFileError], None] | None) -> None:
        self.root = root
        self.format = format
        self.images = ImageLookup(root)
        self.classes: dict[str, int] = {}
        self.category_ids: tuple[int, ...] | None = None
        self.on_fault = on_fault
        self._splits: dict[str, list[AnnotatedImage]] = {}
        self._index_of: dict[Path, tuple[str, int]] = {}
        self.exhaustive: set[Path] = set()  # folders whose images are listed: others in them are not of the data set
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._faults = 0
        self._mask_pixels: Counter[Path] = Counter()
        self.file = root  # that is being read
        self._warnings: list[str] = []
        self.first_fault: LabelFileError | None = None
        self._guessed: dict[str, list[Path]] = {}  # files whose encoding is a guess, by the encoding

    def label(self, name: str) -> int:
        """Index of a class; indices follow the order of appearance.

        Names are composed (NFC), so that ``é`` is the same letter in files of all systems.
        """
        if len(name) > parse.MAX_NAME:
            raise InvalidAnnotation(f"a class name has {len(name):,} characters, more than the limit")
        if name not in self.classes and not name.isascii():
            name = composed(_SURROGATES.sub("\ufffd", name))
        return self.classes.setdefault(name, len(self.classes))

    def read_text(self, file: Path, limit: int = parse.MAX_FILE_BYTES) -> str:
        """Read a text file; a guessed encoding is reported. Raises as :func:`parse.read_text`."""
        return parse.read_text(file, limit, self._guess)

    def _guess(self, file: Path, encoding: str) -> None:
        files = self._guessed.setdefault(encoding, [])
        if file not in files[-1:]:  # a list of names may be read again
            files.append(file)

    def read_json(self, file: Path, limit: int = parse.MAX_FILE_BYTES) -> Any:
        """Read a JSON file as :meth:`read_text`; raises as :func:`parse.json_text` too."""
        return parse.json_text(self.read_text(file, limit), str(file))

    def add(self, split: str, image: AnnotatedImage) -> None:
        """Add an image to a split; raises :class:`InvalidAnnotation` if another label file has it already."""
        if image.path not in self._index_of:
            images = self._splits.setdefault(split, [])
            self._index_of[image.path] = (split, len(images))
            images.append(image)
            return
        known, index = self._index_of[image.path]
        first = self._splits[known][index]
        if first.label_file == image.label_file and known != split:
            raise InvalidAnnotation(f"{image.path.name} is in {known} and in {split}: it stays in {known}")
        if first.label_file != image.label_file:
            other = first.label_file or known
            raise InvalidAnnotation(f"labels {image.path.name}, but {other} does so too: pass one of the files")
        self.count_warning("images are listed more than once in their file: their objects are merged")
        objects: tuple[Annotation, ...] | None = (*(first.objects or ()), *(image.objects or ()))
        if not objects and None in (first.objects, image.objects):
            objects = None
        self._splits[known][index] = replace(first, objects=objects)

    def _add_unlabelled(self) -> None:
        """Add images without labels that lie beside labelled ones."""
        splits: dict[Path, set[str]] = {}
        for path, (split, _) in self._index_of.items():
            splits.setdefault(path.parent, set()).add(split)
        for folder, names in splits.items():
            others = [path for path in self.images.within(folder) if path not in self._index_of]
            if (len(names) > 1 or folder in self.exhaustive) and others:
                self.warn(f"{folder}: {count_of(len(others), 'image', 'have')} no labels and no split: left out")
            elif others:
                (split,) = names
                for path in others:
                    self.add(split, AnnotatedImage(path, 0, 0, None))

    def _place_unsplit(self) -> None:
        """Where there are splits, but none for training, the images in no split are for that."""
        named = [split for split in _SPLIT_ORDER[:-1] if self._splits.get(split)]
        if named and "train" not in named and self._splits.get("all"):
            images = self._splits["train"] = self._splits.pop("all")
            are = count_of(len(images), "image", "are")
            self.warn(f"{are} in no split, beside {' and '.join(named)}: for training")

    def warn(self, line: str) -> None:
        """Add a warning, unless it is there already."""
        if line not in self._warnings:
            self._warnings.append(line)

    def count_warning(self, text: str, count: int = 1, why: str = "") -> None:
        """Count what was left out or changed; ``text`` follows the total in the warning, then the first ``why``."""
        self._counts[text] += count
        if why:
            self._reasons.setdefault(text, f" ({self.file.name}: {why})")

    def count_annotators(self, objects: Iterable[Annotation]) -> None:
        """Count an image with objects of more than one annotator."""
        if len({obj.annotator for obj in objects} - {None}) > 1:
            self.count_warning("images were labelled by several people: all their objects are kept, with names")

    def error_context(self, file: Path, row: str = "") -> _ErrorContext:
        """A context in which whatever is raised is reported as an error of this file (and row)."""
        return _ErrorContext(self, file, row)

    def check_count(self, objects: int) -> None:
        """Raise :class:`InvalidAnnotation` for more than :data:`MAX_OBJECTS` objects in one image."""
        if objects > MAX_OBJECTS:
            raise InvalidAnnotation(f"one image has {objects:,} objects, more than the limit of {MAX_OBJECTS:,}")

    def count_mask(self, pixels: int) -> None:
        """Count the pixels of a mask before it is decoded; raises DataError if those of its file are too many."""
        self._mask_pixels[self.file] += max(pixels, 0)
        found = self._mask_pixels[self.file]
        if found > _MASK_PIXELS and found > _MASK_PIXELS + _MASK_PIXELS_PER_BYTE * self.file.stat().st_size:
            message = f"{self.file}: its masks have {found / 1e6:,.0f} megapixels and more, too many for its size"
            raise ForgedFileError(message, "leave it out: it may be malicious")

    def report(self, fault: LabelFileError) -> None:
        """Hand a fault to ``on_fault``, or raise it; raises :class:`DataError` if there are too many of them."""
        if self.on_fault is None:
            raise fault
        self.first_fault = self.first_fault or fault
        self._faults += 1
        if self._faults > _MAX_FAULTS:
            message = f"{fault.file}: more than {_MAX_FAULTS:,} annotations cannot be read, the last: {fault.message}"
            raise ForgedFileError(message, "check that it is of this format, or leave it out")
        self.on_fault(fault)

    def parse_objects(
        self, file: Path, where: str, rows: Sequence[Any], read: Callable[[Any], T | None]
    ) -> tuple[T, ...] | None:
        """As :meth:`parse_rows`, with the number of the row after ``where``."""
        named = ((f"{where} {index}", row) for index, row in enumerate(rows, 1))
        return self.parse_rows(file, named, len(rows), read)

    def parse_rows(
        self, file: Path, rows: Iterable[tuple[str, Any]], count: int, read: Callable[[Any], T | None]
    ) -> tuple[T, ...] | None:
        """Parse the objects of one image from rows, each with its name; errors are reported with file and name.

        Rows for which ``read`` returns ``None`` are left out. Where there are rows, but nothing can be read from them,
        the result is ``None``: the image shows something, and is not labelled as empty. Raises as :meth:`check_count`.
        """
        self.check_count(count)
        objects: list[T] = []
        for where, row in rows:
            with self.error_context(file, where):
                if (obj := read(row)) is not None:
                    objects.append(obj)
        if count and not objects:
            self.count_warning("images have labels of which none can be read: they are left out, not taken as empty")
            return None
        return tuple(objects)

    def optional(self, what: str) -> _Optional:
        """A context for a detail of an object: if it cannot be read, the object stays, and ``what`` is counted."""
        return _Optional(self, what)

    def dataset(self, sort_classes: bool, format: str) -> AnnotatedDataset:
        """The data set that was read from a format of that name; raises DataError if there is no image in it."""
        self._add_unlabelled()
        if not any(self._splits.values()):
            if self.first_fault is not None:  # says more than that there is nothing
                raise self.first_fault
            message = f"{self.root} has {self.format} files, but no images"
            raise DataError(message, "put the images beside the labels, or export both (CVAT: Save images)")
        classes = tuple(self.classes)
        self._place_unsplit()
        splits = {split: tuple(self._splits[split]) for split in _SPLIT_ORDER if self._splits.get(split)}
        if sort_classes and (ordered := tuple(sorted(classes))) != classes:
            new = {self.classes[name]: index for index, name in enumerate(ordered)}
            splits = {split: tuple(image.relabel(new) for image in images) for split, images in splits.items()}
            classes = ordered
        missing = [image.path for images in splits.values() for image in images if not self.images.has(image.path)]
        if len(missing) == 1:
            self.warn(f"1 image does not exist: {missing[0]}")
        elif missing:
            self.warn(f"{len(missing):,} images do not exist, the first is {missing[0]}")
        for encoding, (first, *others) in self._guessed.items():
            files = f"{first} and {len(others):,} more files are" if others else f"{first} is"
            self.warn(f"{files} not in UTF-8, and read as {encoding}: where names look wrong, save as UTF-8")
        counted = [f"{count:,} {text}{self._reasons.get(text, '')}" for text, count in self._counts.items()]
        return AnnotatedDataset(self.root, classes, splits, format, (*self._warnings, *counted), self.category_ids)


class _ErrorContext:
    """See :meth:`AnnotationReader.error_context`; a class because it is entered once per annotation."""

    __slots__ = ("file", "reader", "row")

    def __init__(self, reader: AnnotationReader, file: Path, row: str) -> None:
        self.reader = reader
        self.file = file
        self.row = row

    def __enter__(self) -> None:
        self.reader.file = self.file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if error is None or isinstance(error, ForgedFileError):
            return False
        where = f"{self.file}, {self.row}" if self.row else str(self.file)
        if isinstance(error, InvalidAnnotation):
            message = f"{where}: {error}"
        elif isinstance(error, HubelError):
            message = error.message
        elif isinstance(error, KeyError):
            message = f"{where}: {error} is missing"
        elif isinstance(error, _UNREADABLE):
            message = f"{where}: does not have the structure of {self.reader.format} ({error})"
        elif isinstance(error, OSError):
            message = f"{where}: cannot be read: {error.strerror or error}"
        else:
            return False
        hint = error.hint if isinstance(error, HubelError) else "export it again, correct it, or leave it out"
        reported = LabelFileError(message, hint, self.file, isinstance(error, UnknownClass))
        reported.__cause__ = error if self.reader.on_fault is None else None
        self.reader.report(reported)
        return True


class _Optional:
    """See :meth:`AnnotationReader.optional`; a class because it is entered several times per annotation."""

    __slots__ = ("reader", "what")

    def __init__(self, reader: AnnotationReader, what: str) -> None:
        self.reader = reader
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, _UNREADABLE):
            return False
        self.reader.count_warning(f"{self.what} cannot be read: left out, the objects stay")
        return True


def each_file(read: Callable[[AnnotationReader, str, Path], None]) -> Callable[[AnnotationReader, LabelFiles], None]:
    """A reader of many files from one that reads a file and its split."""

    def read_all(reader: AnnotationReader, files: LabelFiles) -> None:
        for split, file in files:
            with reader.error_context(file):
                read(reader, split, file)

    return read_all


def polygon_shape(polygon: Polygon) -> Shape:
    """The shape of an object with one polygon."""
    return bounding_box([polygon]), {"polygons": (polygon,)}
