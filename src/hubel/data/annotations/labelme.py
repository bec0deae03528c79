"""LabelMe JSON: one file a picture, beside it.

Pixels of the upright picture (LabelMe applies the EXIF rotation), in fractions, from its corner. Rectangles are two
opposite corners in any order; a circle is its centre and a point on it. A mask is a PNG of the box from the first to
the second corner, the last row and column included. Polygons with the same ``group_id`` and label are one object.
Points and lines are left out and counted. ``flags`` that are ticked, ``attributes``, ``difficult`` and ``score`` (as
X-AnyLabeling writes them) are kept. The picture in ``imageData`` is not read; pictures without a file are unlabelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubel.data.annotations import png_masks
from hubel.data.annotations.attributes import merged_attributes, split_attributes
from hubel.data.annotations.polygons import ellipse, joined
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box
from hubel.data.annotations.safe_parsing import LARGEST_OF_ONE, read_json
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

_LEFT_OUT = ("point", "points", "line", "linestrip")


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read LabelMe files."""
    for split, file in files:
        with reading.at(file):
            _read_file(reading, split, file)


def _read_file(reading: AnnotationReader, split: str, file: Path) -> None:
    content = expect_object(read_json(file, LARGEST_OF_ONE), "the file")
    named = content.get("imagePath")
    path = reading.pictures.beside(file.parent, file.stem)
    if path is None:
        path = reading.pictures.find(text(named or file.stem, "imagePath"), file.parent, stem_only=True)
    width, height = (whole(content.get(name) or 0, name) for name in ("imageWidth", "imageHeight"))
    width, height = reading.pictures.size(path, width, height)
    shapes = expect_list(content["shapes"], "shapes")
    reading.limit(len(shapes))
    groups: dict[tuple[Any, int], int] = {}
    objects: list[Annotation] = []
    for place, row in enumerate(shapes):
        with reading.at(file, f"shape {place + 1}"):
            shape = expect_object(row, "it")
            if (kind := shape.get("shape_type") or "polygon") in _LEFT_OUT:
                reading.count(f"shapes are of type {kind}: left out")
                continue
            thing = _object(reading, shape, kind, width, height)
            group = shape.get("group_id")
            if group is not None and thing.polygons and (key := (str(group), thing.label)) in groups:
                first = objects[groups[key]]
                rings = first.polygons + thing.polygons
                objects[groups[key]] = replace(first, polygons=rings, box=around(rings))
                continue
            if group is not None and thing.polygons:
                groups[str(group), thing.label] = len(objects)
            objects.append(thing)
    reading.add(split, AnnotatedImage(path, width, height, tuple(objects), file))


def _object(reading: AnnotationReader, shape: dict[str, Any], kind: str, width: int, height: int) -> Annotation:
    said = {name: value for name, value in (shape.get("flags") or {}).items() if value is True}
    said |= expect_object(shape.get("attributes") or {}, "attributes")
    said |= {name: shape[name] for name in ("difficult", "score") if shape.get(name)}
    if shape.get("description"):
        said["description"] = shape["description"]
    points = expect_list(shape["points"], "points")
    box, known = _geometry(shape, kind, points, width, height)
    return Annotation(reading.label(text(shape["label"], "label")), box, **known, **split_attributes(said))


def _geometry(
    shape: dict[str, Any], kind: str, points: list[Any], width: int, height: int
) -> tuple[Box, dict[str, Any]]:
    if kind in ("polygon", "rotation", "oriented_rectangle"):
        outline = ring(points)
        return around([outline]), {"polygons": (outline,)}
    pairs = [(number(point[0]), number(point[1])) for point in points]
    (x1, y1), (x2, y2) = pairs[0], pairs[len(pairs) // 2]  # X-AnyLabeling gives a rectangle's four corners
    if kind == "rectangle":
        return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), {}
    if kind == "circle":
        radius = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        outline = ellipse(x1, y1, radius, radius)
        return around([outline]), {"polygons": (outline,)}
    if kind == "mask":
        left, top = int(min(x1, x2)), int(min(y1, y2))
        mask = png_masks.unpacked(text(shape["mask"], "mask"), left, top, width, height)
        return (float(left), float(top), max(x1, x2) + 1, max(y1, y2) + 1), {"mask": mask}
    raise InvalidAnnotation(f"is of shape_type {kind!r}, which LabelMe has not")


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/NAME.json`` beside each picture."""
    for split, images in dataset.splits.items():
        for image in images:
            place = target.place(image, split_dir(split))
            if image.objects is None:
                continue
            shapes = [
                shape
                for serial, thing in enumerate(image.objects)
                for shape in _shapes(thing, dataset.classes[thing.label], serial)
            ]
            content: dict[str, Any] = {
                "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": place.name, "imageData": None,
                "imageHeight": image.height, "imageWidth": image.width,
            }  # fmt: skip
            target.write_json(Path(split_dir(split)) / f"{place.stem}.json", content, indent=2)


def _shapes(thing: Annotation, name: str, serial: int) -> list[dict[str, Any]]:
    extra = merged_attributes(thing)
    flags = {key: True for key, value in extra.items() if value is True}
    others = {key: value for key, value in extra.items() if value is not True and key not in ("score", "description")}
    shape: dict[str, Any] = {"label": name, "group_id": None, "description": str(extra.get("description", ""))}
    shape |= {"flags": flags, "mask": None}
    shape |= {"attributes": others} if others else {}
    shape |= {"score": thing.score} if thing.score is not None else {}
    if thing.mask is not None:
        png, x, y, w, h = png_masks.packed(thing.mask)
        return [{**shape, "shape_type": "mask", "points": [[x, y], [x + w - 1, y + h - 1]], "mask": png}]
    if not thing.polygons:
        x1, y1, x2, y2 = map(round_coord, thing.box)
        return [{**shape, "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}]
    rings = (joined((*thing.polygons, *thing.holes)),) if thing.holes else thing.polygons
    group = serial + 1 if len(rings) > 1 else None
    points = [[[round_coord(x), round_coord(y)] for x, y in zip(r[::2], r[1::2], strict=True)] for r in rings]
    return [{**shape, "group_id": group, "shape_type": "polygon", "points": each} for each in points]
