"""Supervisely projects: ``meta.json``, and ``DATASET/img/NAME``, ``DATASET/ann/NAME.json``.

Pixels of the upright picture, by row and column as in NumPy: a rectangle's second corner is its last pixel, so one is
added here; outlines stay as they are. Polygons have an ``exterior`` and ``interior`` holes; bitmaps are PNGs packed by
zlib at an ``origin``. Tags of an object become attributes, ``labelerLogin`` its annotator. Points, lines and graphs
are left out and counted. A dataset called like a split is that split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubel.data.annotations import png_masks, rle
from hubel.data.annotations.attributes import merged_attributes, split_attributes
from hubel.data.annotations.polygons import joined
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box, Polygon
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
from hubel.data.annotations.writer import DatasetWriter, round_coord

_LEFT_OUT = ("point", "line", "polyline", "graph", "cuboid", "cuboid_2d", "any")


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read annotation files; the classes are those of ``meta.json``, used or not."""
    for meta in sorted({folder / "meta.json" for _, file in files for folder in file.parents[1:3]}):
        if meta.is_file():
            with reading.at(meta):
                for entry in expect_list(expect_object(read_json(meta), "the file").get("classes", []), "classes"):
                    reading.label(text(expect_object(entry, "a class")["title"], "title"))
    for split, file in files:
        with reading.at(file):
            _read_file(reading, split, file)


def _read_file(reading: AnnotationReader, split: str, file: Path) -> None:
    content = expect_object(read_json(file, LARGEST_OF_ONE), "the file")
    near = file.parent.parent / "img"
    path = near / file.stem
    if not reading.pictures.has(path):
        path = reading.pictures.find(file.stem, near, stem_only=True)
    size = expect_object(content.get("size") or {}, "size")
    sides = (whole(size.get(name) or 0, name) for name in ("width", "height"))
    width, height = reading.pictures.size(path, *sides)
    rows = expect_list(content["objects"], "objects")
    reading.limit(len(rows))
    objects: list[Annotation] = []
    for place, row in enumerate(rows):
        with reading.at(file, f"object {place + 1}"):
            figure = expect_object(row, "it")
            if (kind := figure.get("geometryType")) in _LEFT_OUT:
                reading.count(f"objects are of type {kind}: left out")
                continue
            objects.append(_object(reading, figure, width, height))
    reading.add(split, AnnotatedImage(path, width, height, tuple(objects), file))


def _object(reading: AnnotationReader, figure: dict[str, Any], width: int, height: int) -> Annotation:
    said = {
        text(tag["name"], "a tag"): True if (v := tag.get("value")) is None else v for tag in figure.get("tags") or ()
    }
    if login := figure.get("labelerLogin"):
        said["annotator"] = text(login, "labelerLogin")
    box, known = _geometry(figure, width, height)
    label = reading.label(text(figure["classTitle"], "classTitle"))
    return Annotation(label, box, **known, **split_attributes(said))


def _geometry(figure: dict[str, Any], width: int, height: int) -> tuple[Box, dict[str, Any]]:
    kind = figure.get("geometryType") or ("bitmap" if "bitmap" in figure else "polygon")
    if kind == "bitmap":
        bitmap = expect_object(figure["bitmap"], "bitmap")
        left, top = (whole(value, "origin") for value in bitmap["origin"])
        mask = png_masks.unpacked(text(bitmap["data"], "data"), left, top, width, height, compressed=True)
        return rle.box(mask), {"mask": mask}
    points = expect_object(figure["points"], "points")
    exterior = expect_list(points["exterior"], "exterior")
    if kind == "rectangle":
        (x1, y1), (x2, y2) = ((number(x), number(y)) for x, y in exterior)
        return (min(x1, x2), min(y1, y2), max(x1, x2) + 1, max(y1, y2) + 1), {}
    if kind != "polygon":
        raise InvalidAnnotation(f"is of geometryType {kind!r}, which Supervisely's pictures have not")
    outline = ring(exterior)
    return around([outline]), {
        "polygons": (outline,),
        "holes": tuple(ring(hole) for hole in points.get("interior") or () if hole),
    }


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``meta.json``, ``SPLIT/img``, ``SPLIT/ann``; an unsplit data set is called ``all``."""
    tags: set[str] = set()
    for split, images in dataset.splits.items():
        for image in images:
            name = target.place(image, f"{split}/img").name
            if image.objects is None:
                continue
            figures = [_figure(thing, dataset.classes[thing.label], tags) for thing in image.objects]
            size = {"height": image.height, "width": image.width}
            content = {"description": "", "tags": [], "size": size, "objects": figures}
            target.write_json(f"{split}/ann/{name}.json", content)
    colours = [f"#{(place * 2654435761) % 0xFFFFFF:06X}" for place in range(1, len(dataset.classes) + 1)]
    classes = [
        {"title": name, "shape": "any", "color": colour} for name, colour in zip(dataset.classes, colours, strict=True)
    ]
    kinds = [{"name": name, "value_type": "any_string", "color": "#808080"} for name in sorted(tags)]
    target.write_json("meta.json", {"classes": classes, "tags": kinds}, indent=2)


def _figure(thing: Annotation, name: str, tags: set[str]) -> dict[str, Any]:
    said = merged_attributes(thing, ("annotator",))
    tags |= set(said)
    figure: dict[str, Any] = {
        "classTitle": name,
        "description": "",
        "tags": [{"name": key, "value": None if value is True else str(value)} for key, value in said.items()],
    }
    if thing.annotator is not None:
        figure["labelerLogin"] = thing.annotator
    if thing.mask is not None:
        data, x, y, _, _ = png_masks.packed(thing.mask, compressed=True)
        return {**figure, "geometryType": "bitmap", "bitmap": {"data": data, "origin": [x, y]}}
    if not thing.polygons:
        x1, y1, x2, y2 = thing.box
        corners = [[round_coord(x1), round_coord(y1)], [round_coord(x2 - 1), round_coord(y2 - 1)]]
        return {**figure, "geometryType": "rectangle", "points": {"exterior": corners, "interior": []}}
    alone = len(thing.polygons) == 1
    outline = thing.polygons[0] if alone else joined((*thing.polygons, *thing.holes))
    points = {"exterior": _pairs(outline), "interior": [_pairs(hole) for hole in thing.holes] if alone else []}
    return {**figure, "geometryType": "polygon", "points": points}


def _pairs(outline: Polygon) -> list[list[float]]:
    return [[round_coord(x), round_coord(y)] for x, y in zip(outline[::2], outline[1::2], strict=True)]
