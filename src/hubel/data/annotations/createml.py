"""CreateML JSON: boxes by their centre, in pixels of the picture; also as Roboflow and LabelImg write it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.safe_parsing import read_json
from hubel.data.annotations.validators import expect_list, expect_object, number, text
from hubel.data.annotations.writer import DatasetWriter, round_coord, split_dir


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read CreateML files; ``imagefilename`` and ``annotation`` are older spellings."""
    for split, file in files:
        with reading.at(file):
            near = reading.pictures.folder_of(split, file)
            for place, row in enumerate(expect_list(read_json(file), "the file")):
                with reading.at(file, f"image {place + 1}"):
                    entry = expect_object(row, "it")
                    name = text(entry.get("image", entry.get("imagefilename")), "image")
                    path = reading.pictures.find(name, near)
                    found = expect_list(entry.get("annotations", entry.get("annotation")), "annotations")
                    reading.limit(len(found))
                    width, height = reading.pictures.size(path)
                    objects: list[Annotation] = []
                    for at, thing in enumerate(found):
                        with reading.at(file, f"image {place + 1}, annotation {at + 1}"):
                            objects.append(_object(reading, expect_object(thing, "it")))
                    reading.add(split, AnnotatedImage(path, width, height, tuple(objects), file))


def _object(reading: AnnotationReader, row: dict[str, Any]) -> Annotation:
    place = expect_object(row["coordinates"], "coordinates")
    x, y, w, h = (number(place[name], name) for name in ("x", "y", "width", "height"))
    box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return Annotation(reading.label(text(row["label"], "label")), box)


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/_annotations.createml.json`` beside the pictures."""
    for split, images in dataset.splits.items():
        rows: list[dict[str, Any]] = []
        for image in images:
            name = target.place(image, split_dir(split)).name
            if image.objects is not None:
                things = [_annotation(thing, dataset.classes) for thing in image.objects]
                rows.append({"image": name, "annotations": things})
        target.write_json(Path(split_dir(split)) / "_annotations.createml.json", rows)


def _annotation(thing: Annotation, classes: Sequence[str]) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    sides = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1}
    return {"label": classes[thing.label], "coordinates": {name: round_coord(value) for name, value in sides.items()}}
