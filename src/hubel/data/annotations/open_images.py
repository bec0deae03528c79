"""Open Images CSV: boxes in fractions of the image, one row per box.

``ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside``, as
Google publishes it (https://storage.googleapis.com/openimages/web/download_v7.html), CVAT, Datumaro and Roboflow export
it, and ``train-annotations-bbox.csv`` is named for its split. ``ImageID`` is the image's name without suffix. A
flag is 1, 0, or -1 for unknown, which is read as 0. ``IsGroupOf`` is a crowd; ``IsDepiction`` (a drawing of an object)
and ``IsInside`` become attributes. ``LabelName`` is a Freebase id such as ``/m/01yrx``: the class is its name in a
``*class-descriptions*.csv`` of the same folder or the root, else in a column ``ClassName``, else the id itself.
``Confidence`` is 1 in boxes drawn by people; other values are scores. An image without boxes is labelled as empty if
``*-annotations-human-imagelabels*.csv`` lists it, with ``Confidence`` 0 for every class, else it is unlabelled. Of an
image that this file lists, only the classes with a box and those with ``Confidence`` 0 are labelled, as far as any
image has a box of them: nobody has been asked about the others. A class with ``Confidence`` 1 and no box may have boxes
of a narrower one, as women are persons.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hubel.data.annotations import parse
from hubel.data.annotations.format import FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, each_file
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, split_dir

_REQUIRED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_FLAGS = {"IsOccluded": "occluded", "IsTruncated": "truncated", "IsGroupOf": "crowd"}
_ATTRIBUTES = {"IsDepiction": "depiction", "IsInside": "inside"}
_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", *_FLAGS, *_ATTRIBUTES)


def _recognizes(head: FileHead) -> bool:
    columns = {name.strip() for name in head.text.partition("\n")[0].split(",")}
    return head.suffix == ".csv" and columns >= set(_REQUIRED)


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    names = _class_names(reader, file)
    header, rows = parse.csv_table(reader.read_text(file))
    if missing := [name for name in _REQUIRED if name not in header]:
        raise parse.InvalidAnnotation(f"has no column {missing[0]}")
    near = reader.images.folder_of(split, file)
    paths: dict[str, Path] = {}
    by_path: dict[Path, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    shown: dict[Path, AnnotatedImage] = {}
    for line, row in rows:
        with reader.error_context(file, f"line {line}"):
            id_ = parse.name(row["ImageID"], "ImageID")
            if id_ not in paths:
                paths[id_] = reader.images.find(id_, near, stem_only=True)
            if not reader.images.has(paths[id_]):  # most people download a part of Open Images
                reader.count_warning("rows refer to images that do not exist: left out")
                continue
            by_path[paths[id_]].append((line, row))
            reader.check_count(len(by_path[paths[id_]]))
    verified = _verified(reader, file)
    absent = {paths[id_]: answers.absent for id_, answers in verified.items() if id_ in paths}
    for path, image_rows in by_path.items():
        with reader.error_context(file, f"image {path.stem}"):
            width, height = reader.images.size(path)
            named = ((f"line {line}", row) for line, row in image_rows)
            parse_row = partial(_parse_object, reader, names=names, width=width, height=height)
            objects = reader.parse_rows(file, named, len(image_rows), parse_row)
            if not width:
                reader.count_warning("images are unreadable: their labels, in fractions of them, are left out")
            shown[path] = AnnotatedImage(path, width, height, objects if width else None, file)
    for id_, answers in verified.items():
        path = reader.images.find(id_, near, stem_only=True)
        if not answers.present and path not in by_path and reader.images.has(path):
            shown[path] = AnnotatedImage(path, *reader.images.size(path), (), file)
            absent[path] = answers.absent
    known = {names.get(id_, id_) for answers in absent.values() for id_ in answers} & reader.classes.keys()
    for path, image in shown.items():
        with reader.error_context(file, f"image {path.stem}"):
            if path in absent:
                labelled = {reader.classes[name] for id_ in absent[path] if (name := names.get(id_, id_)) in known}
                labelled |= {obj.label for obj in image.objects or ()}
                image = replace(image, labelled=tuple(sorted(labelled)))
            reader.add(split, image)


@dataclass
class _Answers:
    """What people said of an image: ids of classes that are absent, and whether any is present."""

    absent: set[str] = field(default_factory=set)
    present: bool = False


def _verified(reader: AnnotationReader, file: Path) -> dict[str, _Answers]:
    """By the id of the image."""
    found: dict[str, _Answers] = defaultdict(_Answers)
    for labels in file.parent.glob(file.name.replace("bbox.csv", "human-imagelabels*.csv")):
        if labels == file:
            continue
        with reader.error_context(labels):
            for line, (id_, _, label, confidence, *_) in parse.csv_rows(reader.read_text(labels)):
                if line == 1 and id_ == _COLUMNS[0]:
                    continue
                if confidence == "0":
                    found[id_].absent.add(sys.intern(label))  # millions of rows, hundreds of classes
                else:
                    found[id_].present = True
    return found


def _class_names(reader: AnnotationReader, file: Path) -> dict[str, str]:
    """Class name by Freebase id; the files had no header before version 7."""
    names: dict[str, str] = {}
    for folder in dict.fromkeys((file.parent, reader.root)):
        for descriptions in sorted(folder.glob("*class-descriptions*.csv")):
            with reader.error_context(descriptions):
                rows = parse.csv_rows(reader.read_text(descriptions))
                names |= {row[0].strip(): row[1].strip() for _, row in rows if len(row) > 1}
    return names


def _parse_object(
    reader: AnnotationReader, row: dict[str, str], names: dict[str, str], width: int, height: int
) -> Annotation:
    x1, x2, y1, y2 = (parse.number(row[name], name) for name in ("XMin", "XMax", "YMin", "YMax"))
    fields: dict[str, Any] = {field: parse.flag(row.get(name)) for name, field in _FLAGS.items()}
    fields["attributes"] = {key: True for name, key in _ATTRIBUTES.items() if parse.flag(row.get(name))}
    if row.get("Confidence", "1") not in ("1", ""):
        with reader.optional("values of Confidence"):
            fields["score"] = parse.number(row["Confidence"], "Confidence")
    id_ = parse.name(row["LabelName"], "LabelName")
    if id_ not in names and not row.get("ClassName") and id_.startswith("/m/"):
        reader.warn("no *class-descriptions*.csv names the classes: their ids are used")
    label = reader.label(names.get(id_) or row.get("ClassName") or id_)
    return Annotation(label, (x1 * width, y1 * height, x2 * width, y2 * height), **fields)


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT-annotations-bbox.csv``, and ``SPLIT-annotations-human-imagelabels-boxable.csv`` for empty images;
    ``class-descriptions-boxable.csv``; images in ``SPLIT/`` (``images/`` if unsplit).

    Classes have no Freebase ids here, so their names stand for them.
    """
    for split, images in dataset.splits.items():
        name = "validation" if split == "val" else split_dir(split)
        rows: list[list[str]] = []
        empty: list[tuple[str, str, str, str]] = []
        for image, path in writer.add_images(images, name or "images"):
            if not image.objects:
                empty += ((path.stem, "hubel", label, "0") for label in dataset.classes)
            elif not (image.width and image.height):
                writer.record_loss("images of unknown size: their labels cannot be written in fractions")
            else:
                rows += (_row(obj, image, path.stem, dataset.classes[obj.label], writer) for obj in image.objects)
        prefix = f"{name}-annotations".lstrip("-")
        writer.write_csv(f"{prefix}-bbox.csv", [_COLUMNS, *rows])
        if empty:
            writer.write_csv(f"{prefix}-human-imagelabels-boxable.csv", [_COLUMNS[:4], *empty])
    names = [(name, name) for name in dataset.classes]
    writer.write_csv("class-descriptions-boxable.csv", [("LabelName", "DisplayName"), *names])


def _row(obj: Annotation, image: AnnotatedImage, stem: str, name: str, writer: DatasetWriter) -> list[str]:
    if others := set(obj.attributes) - set(_ATTRIBUTES.values()):
        writer.record_loss("attributes of objects", len(others))
    x1, y1, x2, y2 = obj.box
    corners = (x1 / image.width, x2 / image.width, y1 / image.height, y2 / image.height)
    flags = [getattr(obj, field) for field in _FLAGS.values()]
    flags += [parse.flag(obj.attributes.get(key)) for key in _ATTRIBUTES.values()]
    score = "1" if obj.score is None else f"{obj.score:.6g}"
    return [stem, "hubel", name, score, *(f"{value:.10g}" for value in corners), *(str(int(flag)) for flag in flags)]


FORMAT = Format(
    "open-images", "Open Images CSV", "a CSV file with ImageID, LabelName, XMin, XMax, YMin, YMax",
    _recognizes, each_file(_read), _write, frozenset({*_FLAGS.values(), "score", "attributes"}),
)  # fmt: skip
