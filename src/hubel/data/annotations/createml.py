"""CreateML JSON: boxes by their centre, in pixels; also as Roboflow and LabelImg write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel.data.annotations import parse
from hubel.data.annotations.format import FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, each_file
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_coord, split_dir

_SIDES = ("x", "y", "width", "height")


def _recognizes(head: FileHead) -> bool:
    fields = head.keys[2]
    return (
        head.is_json_list
        and bool(fields & {"image", "imagefilename"})
        and bool(fields & {"annotations", "annotation"})
        and "data" not in fields  # Label Studio
    )


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    """``imagefilename`` and ``annotation`` are older spellings."""
    near = reader.images.folder_of(split, file)
    for index, row in enumerate(parse.items(reader.read_json(file), "the file")):
        where = f"image {index + 1}"
        with reader.error_context(file, where):
            entry = parse.fields(row, "it")
            path = reader.images.find(parse.name(entry.get("image", entry.get("imagefilename")), "image"), near)
            rows = parse.items(entry.get("annotations", entry.get("annotation")), "annotations")
            width, height = reader.images.size(path)
            objects = reader.parse_objects(file, f"{where}, annotation", rows, lambda row: _parse_object(reader, row))
            reader.add(split, AnnotatedImage(path, width, height, objects, file))


def _parse_object(reader: AnnotationReader, row: Any) -> Annotation:
    x, y, w, h = parse.numbers(parse.fields(parse.fields(row, "it")["coordinates"], "coordinates"), *_SIDES)
    box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return Annotation(reader.label(parse.name(row["label"], "label")), box)


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/_annotations.createml.json`` beside the images."""
    for split, images in dataset.splits.items():
        rows = []
        for image, path in writer.add_images(images, split_dir(split)):
            objects = []
            for obj in image.objects or ():
                x1, y1, x2, y2 = obj.box
                values = map(round_coord, ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
                coordinates = dict(zip(_SIDES, values, strict=True))
                objects.append({"label": dataset.classes[obj.label], "coordinates": coordinates})
            rows.append({"image": path.name, "annotations": objects})
        writer.write_json(Path(split_dir(split)) / "_annotations.createml.json", rows)


FORMAT = Format(
    "createml", "CreateML JSON", "a JSON list with image, annotations and coordinates",
    _recognizes, each_file(_read), _write, frozenset(),
)  # fmt: skip
