"""Ratings of several annotators as one table, read from labels of any kind: of whole images, or of objects in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel import boxes
from hubel.data.agreement.rater_statistics import UNRATED
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, parse
from hubel.data.annotations.parse import InvalidAnnotation
from hubel.data.checks.run import read_any
from hubel.data.file_listing import composed, listing
from hubel.data.samples import ImageDataset
from hubel.errors import DataError, UsageError

MISSING = "nothing"
"""Class of an object for annotators who have not drawn it, though others have."""

MIN_IOU = 0.5
"""Intersection over union from which two boxes may show one object."""

CLASS_BONUS = 0.1
"""Weight of an equal class in the choice between overlapping boxes: a rider's box and a horse's are similar."""

MAX_BOXES = 5_000
"""Boxes by one annotator in one image that are matched."""

_COLUMNS = ("image", "label", "annotator")

_SIZE_TOLERANCE = 2  # pixels by which two tools may state different sizes of an image

_Labels = dict[str, str]  # by image, the class that an annotator chose
_Images = dict[str, AnnotatedImage]  # by key, the images that an annotator labelled
_Key = Callable[[AnnotatedDataset, AnnotatedImage], str]  # the key of an image, the same in all sets


@dataclass(frozen=True)
class Item:
    """An image that is rated, by its key, or an object in one, with the annotation of each annotator who drew it."""

    image: str
    drawn: Mapping[int, Annotation] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratings:
    """Ratings of the same images by several annotators.

    Attributes:
        classes: names; of objects, :data:`MISSING` is the last.
        table: (items, annotators) of classes; :data:`~hubel.data.agreement.rater_statistics.UNRATED` where an
            annotator has not labelled the image.
        files: by annotator, the files of the images that they have labelled, by key.
        drawn: objects in the images are rated, not whole images.
        labelled: of objects, the images' records by key and annotator.
        splits: of objects, by key, the image's split in the first annotator's set.
        notes: about the sets, one line each.
        format: of the first annotator's label files; empty if there are none.
    """

    annotators: tuple[str, ...]
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    table: np.ndarray
    files: tuple[Mapping[str, Path], ...]
    drawn: bool
    labelled: Mapping[str, Mapping[int, AnnotatedImage]] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: str = ""

    @property
    def missing(self) -> int | None:
        """Index of :data:`MISSING` in ``classes``; ``None`` for whole images."""
        return len(self.classes) - 1 if self.drawn else None

    @property
    def classes_only(self) -> np.ndarray:
        """The table in which an object that an annotator has not drawn counts as unrated."""
        return np.where(self.table == self.missing, UNRATED, self.table) if self.drawn else self.table

    def shared_images(self) -> dict[str, Path]:
        """The images that more than one annotator has labelled, by key, with the first one's file."""
        counts = Counter(key for files in self.files for key in files)
        first = {key: path for files in reversed(self.files) for key, path in files.items()}
        return {key: first[key] for key, count in counts.items() if count > 1}


def read_ratings(sources: Sequence[str | Path], format: str | None = None, min_iou: float = MIN_IOU) -> Ratings:
    """Read the labels of several annotators.

    Args:
        sources: a labelled data set per annotator, in any annotation format or as class folders; or CSV tables with
            the columns ``image``, ``label`` and, for a table of several people, ``annotator``; or one labelled data
            set whose objects name their annotators (Label Studio, Labelbox).
        format: of label files, if a folder has several.
        min_iou: intersection over union from which boxes may show one object.

    Raises:
        DataError: a set cannot be read, they are of several kinds, or no two have an image in common.
        UsageError: there is only one annotator, or ``format`` does not exist.
    """
    paths = [Path(source) for source in sources]
    if twice := [path for path, count in Counter(map(Path.resolve, paths)).items() if count > 1]:
        raise UsageError(f"{twice[0]} is given twice", "pass one set of labels per annotator")
    names = _names(paths)
    tables = [path for path in paths if _is_label_table(path)]
    sets = [] if tables else [read_any(path, format) for path in paths]
    folders = [each for each in sets if isinstance(each, ImageDataset)]
    drawn = [each for each in sets if isinstance(each, AnnotatedDataset)]
    if len(drawn) == len(paths):
        ratings = _object_ratings(names, drawn, min_iou)
    elif len(folders) == len(paths):
        ratings = _folder_ratings(names, folders)
    elif len(tables) == len(paths):
        ratings = _table_ratings(names, tables)
    else:
        hint = "compare boxes with boxes, class folders with class folders, tables with tables"
        raise DataError(f"{', '.join(map(str, paths))} have different kinds of labels", hint)
    if len(ratings.annotators) < 2:
        message = f"{paths[0]} has the labels of only one annotator"
        raise UsageError(message, "pass the labels of two or more annotators: hubel data agree ann/ bob/")
    if not ratings.shared_images():
        message = f"{', '.join(map(str, paths))} have no image in common that two annotators have labelled"
        raise DataError(message, "use the same file names in all sets: they identify the images")
    return ratings


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of annotators: of their sets, with as many parent folders as distinguish them."""
    parts = [path.resolve().with_suffix("").parts if path.is_file() else path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _is_label_table(path: Path) -> bool:
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        row = next(parse.csv_rows(file.readline(10_000)), (0, []))[1]
    return {"image", "label"} <= {name.strip().casefold() for name in row}


def _table_ratings(names: Sequence[str], paths: Sequence[Path]) -> Ratings:
    """Ratings from CSV tables; one without a column ``annotator`` is of one annotator, named like the table.

    Images are identified by their names in the tables, below the folder of the first table that has them.
    """
    labels: dict[str, _Labels] = {}
    files: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        for row, image, label, annotator in _table_rows(path):
            by = labels.setdefault(annotator or name, {})
            if by.setdefault(image, label) != label:
                both = f"{label!r}, but {by[image]!r} in an earlier row"
                message = f"{path}, row {row}: {annotator or name} labels {image} {both}"
                raise DataError(message, "keep one label by each annotator for each image")
            files.setdefault(image, path.parent / image)
    return _label_ratings(labels, [{image: files[image] for image in by} for by in labels.values()])


def _table_rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line, image, label, annotator."""
    try:
        rows = parse.csv_rows(parse.read_text(path).removeprefix("\ufeff"))
        header = [name.strip().casefold() for name in next(rows)[1]]
        indices = [header.index(name) if name in header else None for name in _COLUMNS]
        for line, row in rows:
            image, label, annotator = (
                row[index].strip() if index is not None and index < len(row) else "" for index in indices
            )
            if not image:
                raise InvalidAnnotation(f"row {line} names no image")
            if "\0" in image:
                raise InvalidAnnotation(f"row {line} names {image!r}, which no file can be called")
            if not (path.parent / image).resolve().is_relative_to(path.parent.resolve()):
                raise InvalidAnnotation(f"row {line} names {image!r}, which is outside {path.parent}")
            if label:  # an empty one: not rated
                yield line, image, label, annotator
    except InvalidAnnotation as error:
        hint = "use the columns image,annotator,label, with images in the table's folder"
        raise DataError(f"{path}: {error}", hint) from error


def _folder_ratings(names: Sequence[str], sets: Sequence[ImageDataset]) -> Ratings:
    """Ratings from class folders: the same images, sorted by several people, identified by their file names."""
    labels: dict[str, _Labels] = {}
    files: list[dict[str, Path]] = []
    for name, folders in zip(names, sets, strict=True):
        by = labels.setdefault(name, {})
        paths: dict[str, Path] = {}
        for sample in (sample for samples in folders.splits.values() for sample in samples):
            key = composed(sample.path.name)
            if key in paths:
                message = f"{sample.path} has the same file name as {paths[key]}"
                raise DataError(message, "give each image a unique name, the same for every annotator")
            paths[key] = sample.path
            by[key] = folders.classes[sample.label]
        files.append(paths)
    return _label_ratings(labels, files)


def _label_ratings(labels: Mapping[str, _Labels], files: Sequence[Mapping[str, Path]]) -> Ratings:
    classes = tuple(sorted({label for by in labels.values() for label in by.values()}))
    keys = list(dict.fromkeys(key for by in labels.values() for key in by))
    index_of = {name: index for index, name in enumerate(classes)}
    table = np.array([[index_of[by[key]] if key in by else UNRATED for by in labels.values()] for key in keys])
    items = tuple(Item(key) for key in keys)
    return Ratings(tuple(labels), classes, items, table.reshape(len(keys), len(labels)), tuple(files), drawn=False)


def _object_ratings(names: Sequence[str], sets: Sequence[AnnotatedDataset], min_iou: float) -> Ratings:
    """Ratings of the objects that any annotator has drawn; of a single set, by the annotators that it names.

    An annotator who labelled an image, but did not draw an object that another has, rates it :data:`MISSING`.
    Crowds and objects to be ignored are left out.
    """
    notes = [f"{name}: {line}" for name, each in zip(names, sets, strict=True) for line in each.warnings]
    classes = tuple(dict.fromkeys(name for each in sets for name in each.classes))
    key_of = _key_function(sets)
    if len(sets) == 1:
        by_annotator = _by_annotator(sets[0], key_of)
        names, files = list(by_annotator), list(by_annotator.values())
        notes.append("an annotator counts as having labelled the images in which they drew an object")
    else:
        for name, each in zip(names, sets, strict=True):
            if absent := [one for one in classes if one not in each.classes]:
                notes.append(f"{name} has no class {listing(absent)}, but others do")
        files = [_labelled_images(each, classes, key_of) for each in sets]
    images = _images_of_same_size(files, notes)
    items, table = _match_items(images, len(names), len(classes), min_iou)
    if left_out := sum(len(image.objects or ()) - len(_counted(image)) for by in files for image in by.values()):
        notes.append(f"{left_out:,} crowds and objects to be ignored are left out")
    return Ratings(
        tuple(names),
        (*classes, MISSING),
        tuple(items),
        table,
        tuple({key: by[who].path for key, by in images.items() if who in by} for who in range(len(names))),
        drawn=True,
        labelled=images,
        splits={
            key_of(each, image): split
            for each in reversed(sets)
            for split, images_of in each.splits.items()
            for image in images_of
        },
        notes=tuple(notes),
        format=sets[0].format,
    )


def _match_items(
    images: Mapping[str, Mapping[int, AnnotatedImage]], annotators: int, missing: int, min_iou: float
) -> tuple[list[Item], np.ndarray]:
    """Objects and their ratings (objects, annotators)."""
    items: list[Item] = []
    rows: list[list[int]] = []
    for key, by in images.items():
        drawn = [_counted(by[who]) if who in by else () for who in range(annotators)]
        if (most := max(map(len, drawn))) > MAX_BOXES:
            message = f"{key} has {most:,} boxes by one annotator, more than the limit of {MAX_BOXES:,}"
            raise DataError(message, "cut the image into tiles, or leave it out")
        absent = [missing if who in by else UNRATED for who in range(annotators)]
        for group in match_groups(drawn, min_iou):
            found = {who: drawn[who][index] for who, index in group.items()}
            items.append(Item(key, found))
            rows.append([found[who].label if who in found else absent[who] for who in range(annotators)])
    return items, np.array(rows, int).reshape(len(rows), annotators)


def match_pairs(
    one: Sequence[Annotation], other: Sequence[Annotation], min_iou: float = MIN_IOU
) -> list[tuple[int, int, float]]:
    """Match the boxes of two annotators one to one.

    Among all matchings the one with the largest sum of IoU (plus :data:`CLASS_BONUS` for equal classes), an assignment
    problem. Classes need not be equal: disagreement about a class should be visible as such. Returns indices into
    ``one`` and ``other``, and the IoU, which is at least ``min_iou`` (above 0).
    """
    a, b = (np.array([obj.box for obj in objects], float).reshape(-1, 4) for objects in (one, other))
    labels, other_labels = (np.array([obj.label for obj in objects], int) for objects in (one, other))
    iou = boxes.iou(a, b)
    allowed = iou >= min_iou
    weights = allowed * (iou + CLASS_BONUS * (labels[:, None] == other_labels))
    chosen = zip(*linear_sum_assignment(weights, maximize=True), strict=True)
    return [(int(row), int(column), float(iou[row, column])) for row, column in chosen if allowed[row, column]]


def match_groups(objects: Sequence[Sequence[Annotation]], min_iou: float = MIN_IOU) -> list[dict[int, int]]:
    """Match the boxes of any number of annotators; every box is in one group, alone if need be.

    A group is one object: by annotator, the index of the box among ``objects`` of theirs.

    Annotators are matched in pairs; then pairs are merged, largest IoU first, unless the merged group would have an
    annotator twice. With two annotators all pairs are kept, and the result does not depend on their order.
    """
    group_of = {(who, index): {who: index} for who, drawn in enumerate(objects) for index in range(len(drawn))}
    links = [
        (iou, who, index, other, other_index)
        for who in range(len(objects))
        for other in range(who + 1, len(objects))
        for index, other_index, iou in match_pairs(objects[who], objects[other], min_iou)
    ]
    for _, who, index, other, other_index in sorted(links, key=lambda link: -link[0]):
        first, second = group_of[who, index], group_of[other, other_index]
        if first is not second and not first.keys() & second.keys():
            first.update(second)
            group_of.update({(each, first[each]): first for each in second})
    unique = {id(group): group for group in group_of.values()}
    return [dict(sorted(group.items())) for group in unique.values()]


def _counted(image: AnnotatedImage) -> tuple[Annotation, ...]:
    return tuple(obj for obj in image.objects or () if not obj.crowd and not obj.ignore)


def _key_function(sets: Sequence[AnnotatedDataset]) -> _Key:
    """Images are identified by their file names or, if a set has one twice, by their paths below its root."""
    for each in sets:
        if max(Counter(image.path.name for image in each.images()).values()) > 1:
            return lambda dataset, image: composed(image.path.relative_to(dataset.root).as_posix())
    return lambda _, image: composed(image.path.name)


def _labelled_images(dataset: AnnotatedDataset, classes: Sequence[str], key_of: _Key) -> _Images:
    """The labelled images, with labels that index the common classes."""
    new = [classes.index(name) for name in dataset.classes]
    labelled: _Images = {}
    for image in dataset.images():
        if image.objects is not None:
            objects = tuple(replace(obj, label=new[obj.label]) for obj in image.objects)
            labelled[key_of(dataset, image)] = replace(image, objects=objects)
    return labelled


def _by_annotator(dataset: AnnotatedDataset, key_of: _Key) -> dict[str, _Images]:
    """By annotator, the images with what they drew in a set that names them."""
    found: dict[str, _Images] = {}
    for image in dataset.images():
        for name in dict.fromkeys(obj.annotator for obj in image.objects or ()):
            if name is not None:
                objects = tuple(obj for obj in image.objects or () if obj.annotator == name)
                found.setdefault(name, {})[key_of(dataset, image)] = replace(image, objects=objects)
    return dict(sorted(found.items()))


def _images_of_same_size(files: Sequence[_Images], notes: list[str]) -> dict[str, Mapping[int, AnnotatedImage]]:
    """By key and annotator, the images' records; without images whose size differs between sets."""
    together: dict[str, Mapping[int, AnnotatedImage]] = {}
    differing: list[str] = []
    for key in dict.fromkeys(key for labelled in files for key in labelled):
        images = {who: labelled[key] for who, labelled in enumerate(files) if key in labelled}
        sizes = np.array([(image.width, image.height) for image in images.values() if image.width and image.height])
        if len(sizes) and np.ptp(sizes, 0).max() > _SIZE_TOLERANCE:
            differing.append(key)
        else:
            together[key] = images
    if differing:
        notes.append(f"images whose size differs between sets are left out: {listing(differing)}")
    return together
