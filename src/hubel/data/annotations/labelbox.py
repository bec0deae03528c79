"""Labelbox: NDJSON exports (one JSON object per line, or a list), and the JSON and CSV exports from before 2023.

Pixels from the image's corner. ``media_attributes`` state the size; where their ``exif_rotation`` turns the image on
its side and the size is that of the image as stored, labels are rotated upright. Images are found by ``external_id`` or
``global_key``, else by the last part of their URL. An object's class is its ``name``; answers to questions about it are
attributes. An image labelled by several people has the objects of all, with their names. Masks are on Labelbox's
servers and are not downloaded: left out and counted, like points, lines and relations. Skipped images, and those
without labels, are unlabelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hubel.data.annotations import parse
from hubel.data.annotations.attributes import as_text, group_by_annotator, merge_attributes, split_attributes
from hubel.data.annotations.exif_rotation import apply_exif, stored_size
from hubel.data.annotations.format import FREE_FORM_FIELDS, FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, Shape, each_file, polygon_shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_points, round_xywh, split_dir

_Row = dict[str, Any]
_Objects = list[tuple[str | None, _Row]]
"""Objects, each with its annotator."""


def _recognizes(head: FileHead) -> bool:
    if head.suffix == ".csv":
        return "Labeled Data" in head.text.partition("\n")[0]
    return bool((head.keys[1] | head.keys[2]) & {"data_row", "Labeled Data"})


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    near = reader.images.folder_of(split, file)
    for where, row in _rows(reader, file):
        with reader.error_context(file, where):
            names, rows = _parse_row(reader, row) if "data_row" in row else _parse_old_row(row, f"{file}, {where}")
            path = reader.images.find_any((parse.name(name, "the image's name") for name in names), near)
            media = row.get("media_attributes")
            media = media if isinstance(media, dict) else {}
            width, height = reader.images.size(path, *parse.size(media))
            if rows is None:
                reader.add(split, AnnotatedImage(path, width, height, None))
                continue
            objects = reader.parse_objects(file, f"{where}, object", rows, lambda pair: _parse_object(reader, *pair))
            reader.count_annotators(objects or ())
            image = AnnotatedImage(path, width, height, objects, file)
            orientation = 1
            with reader.optional("values of exif_rotation"):
                orientation = parse.integer(media.get("exif_rotation") or 1, "exif_rotation")
            if orientation >= 5 and (width, height) == stored_size(path)[:2]:
                image = apply_exif(image, orientation)
            reader.add(split, image)


def _rows(reader: AnnotationReader, file: Path) -> Iterator[tuple[str, _Row]]:
    content = reader.read_text(file)
    if file.suffix.lower() == ".csv":
        yield from ((f"line {line}", row) for line, row in parse.csv_table(content)[1])
    elif content.lstrip().startswith("["):
        for index, row in enumerate(parse.items(parse.json_text(content, str(file)), "the file")):
            yield f"row {index + 1}", parse.fields(row, f"row {index + 1}")
    else:
        for index, text in enumerate(content.split("\n")):
            if text.strip():
                with reader.error_context(file):
                    where = f"line {index + 1}"
                    yield where, parse.fields(parse.json_text(text, f"{file}, {where}"), where)


def _parse_row(reader: AnnotationReader, row: _Row) -> tuple[list[Any], _Objects | None]:
    """Names of the image, and its objects; ``None`` if nobody labelled it."""
    source = parse.fields(row["data_row"], "data_row")
    names = [source[key] for key in ("external_id", "global_key", "row_data") if source.get(key)]
    objects: _Objects | None = None
    for project in parse.fields(row.get("projects") or {}, "projects").values():
        for label in parse.items(project.get("labels") or [], "labels"):
            annotator = (label.get("label_details") or {}).get("created_by")
            content = parse.fields(label.get("annotations") or {}, "annotations")
            if content.get("relationships"):
                reader.count_warning("relations between objects: left out", len(content["relationships"]))
            rows = parse.items(content.get("objects") or [], "objects")
            objects = [*(objects or ()), *((annotator, parse.fields(obj, "an object")) for obj in rows)]
    return names, objects


def _parse_old_row(row: _Row, where: str) -> tuple[list[Any], _Objects | None]:
    names = [row[key] for key in ("External ID", "Labeled Data") if row.get(key)]
    label = row.get("Label")
    if isinstance(label, str):
        label = None if label.strip() in ("", "Skip") else parse.json_text(label, where)
    if not label:
        return names, None
    content = parse.fields(label, "Label")
    objects = content.get("objects")
    if objects is None:  # before 2019: shapes by class name
        objects = [
            {"title": name, "polygon": shape.get("geometry", shape) if isinstance(shape, dict) else shape}
            for name, shapes in content.items()
            if isinstance(shapes, list)
            for shape in shapes
        ]
    return names, [(row.get("Created By"), parse.fields(obj, "an object")) for obj in parse.items(objects, "objects")]


def _parse_object(reader: AnnotationReader, annotator: Any, row: _Row) -> Annotation | None:
    if (shape := _parse_shape(reader, row)) is None:
        return None
    fields: dict[str, Any] = {}
    with reader.optional("answers to questions"):
        fields = split_attributes(_answers(row))
    if isinstance(annotator, str) and annotator:
        fields["annotator"] = annotator
    label = reader.label(parse.name(row.get("name") or row.get("title") or row.get("value"), "name"))
    return Annotation(label, shape[0], **shape[1], **fields)


def _parse_shape(reader: AnnotationReader, row: _Row) -> Shape | None:
    if (bounds := row.get("bounding_box", row.get("bbox"))) is not None:
        left, top, w, h = parse.numbers(bounds, "left", "top", "width", "height")
        return (left, top, left + w, top + h), {}
    if (points := row.get("polygon")) is not None:
        return polygon_shape(parse.polygon([(point["x"], point["y"]) for point in parse.items(points, "polygon")]))
    kind = next((name for name in ("mask", "composite_mask", "instanceURI", "point", "line") if name in row), None)
    if kind is None:
        raise parse.InvalidAnnotation("has neither bounding_box nor polygon")
    kinds = f"{kind}s" if kind in ("point", "line") else "masks on a server"
    reader.count_warning(f"objects are {kinds}: left out")
    return None


def _answers(row: _Row) -> dict[str, Any]:
    """Answers to the questions about an object, by question."""
    answers: dict[str, Any] = {}
    for question in row.get("classifications") or ():
        answer = question.get("radio_answer") or question.get("text_answer") or question.get("answer")
        several = question.get("checklist_answers") or question.get("answers") or ()
        texts = [
            str(part.get("name") or part.get("title") or part.get("content")) if isinstance(part, dict) else str(part)
            for part in (answer, *several)
            if part
        ]
        answers[str(question.get("name") or question.get("title") or question.get("value"))] = ", ".join(texts)
    return answers


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/labelbox.ndjson`` beside the images."""
    for split, images in dataset.splits.items():
        lines: list[str] = []
        for image, path in writer.add_images(images, split_dir(split)):
            labels = []
            for annotator, group in group_by_annotator(image.objects or ()).items():
                objects = [_object(obj, dataset.classes) for obj in group]
                details = {"created_by": annotator} if annotator is not None else {}
                labels.append({"label_kind": "Default", "label_details": details, "annotations": {"objects": objects}})
            row = {
                "data_row": {"external_id": path.name},
                "media_attributes": {"width": image.width, "height": image.height},
                "projects": {"hubel": {"name": "hubel", "labels": labels}},
            }
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        writer.write(Path(split_dir(split)) / "labelbox.ndjson", "".join(lines))


def _object(obj: Annotation, classes: Sequence[str]) -> _Row:
    name = classes[obj.label]
    answers = {key: as_text(value) for key, value in merge_attributes(obj, ("annotator",)).items()}
    row: _Row = {
        "name": name,
        "value": name.lower().replace(" ", "_"),
        "classifications": [
            {"name": key, "value": key, "text_answer": {"content": value}} for key, value in answers.items()
        ],
    }
    if obj.polygons:
        points = [{"x": x, "y": y} for x, y in round_points(obj.outline())]
        return {**row, "annotation_kind": "ImagePolygon", "polygon": points}
    left, top, width, height = round_xywh(obj)
    bounds = {"top": top, "left": left, "height": height, "width": width}
    return {**row, "annotation_kind": "ImageBoundingBox", "bounding_box": bounds}


FORMAT = Format(
    "labelbox", "Labelbox", "NDJSON with data_row, or JSON or CSV with Labeled Data",
    _recognizes, each_file(_read), _write, FREE_FORM_FIELDS | {"polygons"}, boxes="xywh",
)  # fmt: skip
