"""Labelbox: NDJSON exports (a JSON object a line, or a list of them), and the JSON and CSV exports of before 2023.

Pixels from the picture's corner. ``media_attributes`` say the size; where they give an ``exif_rotation`` that turns
the picture over its side and the sizes are those as stored, labels are turned upright. Pictures are found by
``external_id`` or ``global_key``, else by the last part of their address. An object's class is its ``name``; answers
to questions about it are attributes. A picture labelled by several people has the objects of all, with their names.
Masks lie on Labelbox's servers and are not fetched: left out and counted, like points, lines and relations.
Skipped pictures, and those without labels, are unlabelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hubel.data.annotations.attributes import annotators, as_text, merged_attributes, split_attributes
from hubel.data.annotations.exif_rotation import apply_exif, stored_size
from hubel.data.annotations.polygons import joined
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box
from hubel.data.annotations.safe_parsing import csv_rows, parsed_json, read_text
from hubel.data.annotations.validators import (
    InvalidAnnotation,
    around,
    expect_list,
    expect_object,
    number,
    ring,
    text,
    whole,
)
from hubel.data.annotations.writer import DatasetWriter, round_coord, split_dir

_Row = dict[str, Any]


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read Labelbox exports of any age."""
    for split, file in files:
        with reading.at(file):
            near = reading.pictures.folder_of(split, file)
            for where, row in _rows(reading, file):
                with reading.at(file, where):
                    take = _take_row if "data_row" in row else _take_old_row
                    take(reading, split, file, near, where, row)


def _rows(reading: AnnotationReader, file: Path) -> Iterator[tuple[str, _Row]]:
    content = read_text(file)
    if file.suffix.lower() == ".csv":
        header: list[str] = []
        for line, cells in csv_rows(content):
            if header:
                yield f"line {line}", dict(zip(header, cells, strict=False))
            else:
                header = [cell.strip().lstrip("\ufeff") for cell in cells]
    elif content.lstrip().startswith("["):
        for place, row in enumerate(expect_list(parsed_json(content, str(file)), "the file")):
            yield f"row {place + 1}", expect_object(row, f"row {place + 1}")
    else:
        for place, one in enumerate(content.split("\n")):
            if one.strip():
                with reading.at(file):
                    where = f"line {place + 1}"
                    yield where, expect_object(parsed_json(one, f"{file}, {where}"), where)


def _take_row(reading: AnnotationReader, split: str, file: Path, near: Path, where: str, row: _Row) -> None:
    source = expect_object(row["data_row"], "data_row")
    names = [source[key] for key in ("external_id", "global_key", "row_data") if source.get(key)]
    path = _find(reading, names, near)
    media = expect_object(row.get("media_attributes") or {}, "media_attributes")
    width, height = whole(media.get("width") or 0, "width"), whole(media.get("height") or 0, "height")
    found: list[tuple[str | None, _Row]] = []
    looked = False
    for project in expect_object(row.get("projects") or {}, "projects").values():
        for label in expect_list(project.get("labels") or [], "labels"):
            looked = True
            by = (label.get("label_details") or {}).get("created_by")
            things = expect_object(label.get("annotations") or {}, "annotations")
            if things.get("relationships"):
                reading.count("relations between objects: left out", len(things["relationships"]))
            found += [
                (by, expect_object(thing, "an object")) for thing in expect_list(things.get("objects") or [], "objects")
            ]
    turn = whole(media.get("exif_rotation") or 1, "exif_rotation")
    _add(reading, split, file, where, path, (width, height), found if looked else None, turn)


def _take_old_row(reading: AnnotationReader, split: str, file: Path, near: Path, where: str, row: _Row) -> None:
    names = [row[key] for key in ("External ID", "Labeled Data") if row.get(key)]
    path = _find(reading, names, near)
    label = row.get("Label")
    if isinstance(label, str):
        label = None if label.strip() in ("", "Skip") else parsed_json(label, f"{file}, {where}")
    if not label:
        return _add(reading, split, file, where, path, (0, 0), None)
    content = expect_object(label, "Label")
    things = content.get("objects")
    if things is None:  # before 2019: shapes by class name
        things = [
            {"title": name, "polygon": shape.get("geometry", shape) if isinstance(shape, dict) else shape}
            for name, shapes in content.items()
            if isinstance(shapes, list)
            for shape in shapes
        ]
    found = [(row.get("Created By"), expect_object(thing, "an object")) for thing in expect_list(things, "objects")]
    return _add(reading, split, file, where, path, (0, 0), found)


def _find(reading: AnnotationReader, names: Sequence[Any], near: Path) -> Path:
    """The picture that the first of several names fits."""
    if not names:
        raise InvalidAnnotation("names no picture")
    paths = [reading.pictures.find(text(name, "the picture's name"), near) for name in names]
    return next((path for path in paths if reading.pictures.has(path)), paths[0])


def _add(
    reading: AnnotationReader, split: str, file: Path, where: str, path: Path, size: tuple[int, int],
    found: list[tuple[str | None, _Row]] | None, turn: int = 1,
) -> None:  # fmt: skip
    width, height = reading.pictures.size(path, *size)
    if found is None:
        reading.add(split, AnnotatedImage(path, width, height, None))
        return
    reading.limit(len(found))
    objects: list[Annotation] = []
    for place, (by, row) in enumerate(found):
        with reading.at(file, f"{where}, object {place + 1}"):
            shape = _shape(reading, row)
            if shape is not None:
                known = split_attributes(_answers(row))
                if isinstance(by, str) and by:
                    known["annotator"] = by
                name = row.get("name") or row.get("title") or row.get("value")
                label = reading.label(text(name, "name"))
                objects.append(Annotation(label, shape[0], **shape[1], **known))
    if len({thing.annotator for thing in objects} - {None}) > 1:
        reading.count("pictures are labelled by several people: all their objects are kept, with names")
    image = AnnotatedImage(path, width, height, tuple(objects), file)
    if turn >= 5 and (width, height) == stored_size(path)[:2]:
        image = apply_exif(image, turn)
    reading.add(split, image)


def _shape(reading: AnnotationReader, row: _Row) -> tuple[Box, dict[str, Any]] | None:
    if (bounds := row.get("bounding_box", row.get("bbox"))) is not None:
        left, top, w, h = (number(bounds[name], name) for name in ("left", "top", "width", "height"))
        return (left, top, left + w, top + h), {}
    if (points := row.get("polygon")) is not None:
        outline = ring([(point["x"], point["y"]) for point in expect_list(points, "polygon")])
        return around([outline]), {"polygons": (outline,)}
    kind = next((name for name in ("mask", "composite_mask", "instanceURI", "point", "line") if name in row), None)
    if kind is None:
        raise InvalidAnnotation("has neither bounding_box nor polygon")
    reading.count(f"objects are {'masks on a server' if kind not in ('point', 'line') else kind + 's'}: left out")
    return None


def _answers(row: _Row) -> dict[str, Any]:
    """The answers to an object's questions by question."""
    said: dict[str, Any] = {}
    for question in row.get("classifications") or ():
        answer = question.get("radio_answer") or question.get("text_answer") or question.get("answer")
        several = question.get("checklist_answers") or question.get("answers") or ()
        parts = [part for part in (answer, *several) if part]
        texts = [
            str(p.get("name") or p.get("title") or p.get("content")) if isinstance(p, dict) else str(p) for p in parts
        ]
        said[str(question.get("name") or question.get("title") or question.get("value"))] = ", ".join(texts)
    return said


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/labelbox.ndjson`` beside the pictures."""
    for split, images in dataset.splits.items():
        lines: list[str] = []
        for image in images:
            name = target.place(image, split_dir(split)).name
            if image.objects is None:
                continue
            labels = []
            for annotator in annotators(image.objects):
                things = [_object(t, dataset.classes) for t in image.objects if t.annotator == annotator]
                details = {"created_by": annotator} if annotator is not None else {}
                labels.append({"label_kind": "Default", "label_details": details, "annotations": {"objects": things}})
            row = {
                "data_row": {"external_id": name},
                "media_attributes": {"width": image.width, "height": image.height},
                "projects": {"hubel": {"name": "hubel", "labels": labels}},
            }
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        target.write(Path(split_dir(split)) / "labelbox.ndjson", "".join(lines))


def _object(thing: Annotation, classes: Sequence[str]) -> _Row:
    row: _Row = {"name": classes[thing.label], "value": classes[thing.label].lower().replace(" ", "_")}
    said = {name: as_text(value) for name, value in merged_attributes(thing, ("annotator",)).items()}
    row["classifications"] = [
        {"name": name, "value": name, "text_answer": {"content": value}} for name, value in said.items()
    ]
    if thing.polygons:
        outline = joined((*thing.polygons, *thing.holes))
        points = [{"x": round_coord(x), "y": round_coord(y)} for x, y in zip(outline[::2], outline[1::2], strict=True)]
        return {**row, "annotation_kind": "ImagePolygon", "polygon": points}
    x1, y1, x2, y2 = thing.box
    bounds = {
        "top": round_coord(y1),
        "left": round_coord(x1),
        "height": round_coord(y2 - y1),
        "width": round_coord(x2 - x1),
    }
    return {**row, "annotation_kind": "ImageBoundingBox", "bounding_box": bounds}
