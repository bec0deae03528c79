"""What readers share: the faults of files, the classes and pictures found, what is left out and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from hubel.data.annotations.image_lookup import Pictures
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.validators import InvalidAnnotation
from hubel.errors import DataError, HubelError

MOST_OBJECTS = 100_000
"""More objects in one picture than any annotator has drawn; files that claim so are forged or broken."""

_SPLIT_ORDER = ("train", "val", "test", "all")


class AnnotationReader:
    """One reading of a data set: its classes and pictures as they are found, its faults, what was left out.

    Args:
        root: the data set's folder.
        format: name of the format, for errors.
        pictures: where its pictures are.
        on_fault: takes each fault of a label file or of one object in it, which is then left out; without it the
            first fault ends the reading.
    """

    def __init__(
        self, root: Path, format: str, pictures: Pictures, on_fault: Callable[[DataError], None] | None = None
    ) -> None:
        self.root = root
        self.format = format
        self.pictures = pictures
        self.classes: dict[str, int] = {}
        self.category_ids: tuple[int, ...] | None = None
        self._on_fault = on_fault
        self._images: dict[str, list[AnnotatedImage]] = {}
        self._places: dict[Path, tuple[str, int]] = {}
        self._complete: set[Path] = set()
        self._counts: Counter[str] = Counter()
        self._said: list[str] = []

    def label(self, name: str) -> int:
        """The class's number; numbers are given in order of appearance."""
        return self.classes.setdefault(name, len(self.classes))

    def add(self, split: str, image: AnnotatedImage) -> None:
        """Take a picture into a split.

        Raises:
            InvalidAnnotation: another label file has it already.
        """
        place = self._places.get(image.path)
        if place is None:
            images = self._images.setdefault(split, [])
            self._places[image.path] = (split, len(images))
            images.append(image)
            return
        known, index = place
        first = self._images[known][index]
        if first.label_file != image.label_file or known != split:
            others = f"{first.label_file or known} has it too"
            raise InvalidAnnotation(f"labels {image.path.name}, but {others}: name one of the files")
        self.count("pictures stand in their file more than once: their objects are put together")
        objects = (*(first.objects or ()), *(image.objects or ()))
        self._images[known][index] = replace(first, objects=objects)

    def mark_exhaustive(self, folder: Path) -> None:
        """Lists say which pictures of a folder count: the others are no part of the data set, labelled or not."""
        self._complete.add(folder)

    def _add_unlabelled(self) -> None:
        """Take in the pictures that lie among labelled ones and have no labels."""
        splits: dict[Path, set[str]] = {}
        for path, (split, _) in self._places.items():
            splits.setdefault(path.parent, set()).add(split)
        for folder, names in splits.items():
            others = [path for path in self.pictures.within(folder) if path not in self._places]
            if (len(names) > 1 or folder in self._complete) and others:
                self.warn(f"{folder}: {len(others)} pictures have no labels and no split: left out")
            elif others:
                (split,) = names
                for path in others:
                    self.add(split, AnnotatedImage(path, 0, 0, None))

    def warn(self, line: str) -> None:
        """A warning, once."""
        if line not in self._said:
            self._said.append(line)

    def count(self, what: str, number: int = 1) -> None:
        """Something was left out or changed; ``what`` follows its number in the warning."""
        self._counts[what] += number

    def error(self, error: DataError) -> None:
        """A file or an object in it is wrong: hand it on, or raise it."""
        if self._on_fault is None:
            raise error
        self._on_fault(error)

    def at(self, file: Path, row: str = "") -> _Place:
        """Within it, whatever is wrong is a fault of this file (and row), and the block is left."""
        return _Place(self, file, row)

    def limit(self, objects: int) -> None:
        """Refuse what no picture has.

        Raises:
            InvalidAnnotation: there are more than :data:`MOST_OBJECTS`.
        """
        if objects > MOST_OBJECTS:
            raise InvalidAnnotation(
                f"one picture has {objects:,} objects, more than the {MOST_OBJECTS:,} that are read"
            )

    def dataset(self, by_name: bool, name: str) -> AnnotatedDataset:
        """What was read.

        Args:
            by_name: sort the classes by name; else they keep the order in which they were given.
            name: the format's, for the record.

        Raises:
            DataError: there is no picture in it.
        """
        self._add_unlabelled()
        if not any(self._images.values()):
            message = f"{self.root} names no picture in its {self.format} files."
            raise DataError(message, "Name a data set with labels in it.")
        classes = tuple(self.classes)
        splits = {split: tuple(self._images[split]) for split in _SPLIT_ORDER if self._images.get(split)}
        if by_name and (ordered := tuple(sorted(classes))) != classes:
            new = {self.classes[name]: place for place, name in enumerate(ordered)}
            splits = {split: tuple(_relabelled(image, new) for image in images) for split, images in splits.items()}
            classes = ordered
        missing = [image for images in splits.values() for image in images if not self.pictures.has(image.path)]
        if missing:
            are = "1 picture is" if len(missing) == 1 else f"{len(missing):,} pictures are"
            self.warn(f"{are} not there{', the first is' if len(missing) > 1 else ':'} {missing[0].path}")
        counted = [f"{number:,} {what}" for what, number in self._counts.items()]
        warnings = (*self._said, *counted)
        return AnnotatedDataset(self.root, classes, splits, name, warnings, self.category_ids)


class _Place:
    """See :meth:`Reading.at`."""

    __slots__ = ("file", "reading", "row")

    def __init__(self, reading: AnnotationReader, file: Path, row: str) -> None:
        self.reading = reading
        self.file = file
        self.row = row

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if error is None:
            return False
        where = f"{self.file}, {self.row}" if self.row else str(self.file)
        if isinstance(error, InvalidAnnotation):
            message = f"{where}: {error}."
        elif isinstance(error, HubelError):
            message = error.message
        elif isinstance(error, KeyError):
            message = f"{where}: {error} is missing."
        elif isinstance(error, AttributeError | TypeError | ValueError | IndexError | OverflowError | RecursionError):
            message = f"{where}: is not laid out as {self.reading.format} ({error})."
        elif isinstance(error, OSError):
            message = f"{where}: cannot be read: {error.strerror or error}."
        else:
            return False
        hint = error.hint if isinstance(error, HubelError) else "Export it again, mend it, or leave it out."
        try:
            self.reading.error(DataError(message, hint))
        except DataError as raised:
            raise raised from error
        return True


def _relabelled(image: AnnotatedImage, new: dict[int, int]) -> AnnotatedImage:
    if not image.objects:
        return image
    objects = tuple(
        Annotation(
            new[o.label], o.box, o.polygons, o.holes, o.mask, o.crowd, o.ignore, o.difficult, o.truncated, o.occluded,
            o.area, o.attributes, o.annotator, o.score,
        )
        for o in image.objects
    )  # fmt: skip
    return AnnotatedImage(image.path, image.width, image.height, objects, image.label_file, image.id)
