"""Label Studio JSON exports: tasks with annotations, in percent of the picture.

``x``, ``y``, ``width``, ``height`` are percents of ``original_width`` and ``original_height``, those of the upright
picture (browsers apply the EXIF rotation). ``rotation`` turns a box clockwise around its upper left corner; what is
turned becomes a polygon. Polygons, ellipses and brush masks are read; key points and relations are left out and
counted, and so are predictions. Choices made for one region are attributes. A task without annotations is unlabelled;
several annotations of a task give all their objects, with the annotators' names. A picture that was turned in the
editor (``image_rotation``) is refused: what its percents mean is documented nowhere.
Uploaded pictures carry eight letters before their name, with and without which they are looked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hubel.data.annotations import rle
from hubel.data.annotations.attributes import annotators, merged_attributes, split_attributes
from hubel.data.annotations.polygons import corners, ellipse, joined, turned
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box, RunLengthMask
from hubel.data.annotations.safe_parsing import read_json
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
from hubel.data.annotations.writer import DatasetWriter, split_dir
from hubel.data.file_listing import PICTURE_SUFFIXES
from hubel.data.image_io import MAX_PIXELS

_Row = dict[str, Any]
_SHAPES = ("rectangle", "polygon", "ellipse", "brush")


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read exports in the JSON form."""
    for split, file in files:
        with reading.at(file):
            near = reading.pictures.folder_of(split, file)
            for place, row in enumerate(expect_list(read_json(file), "the file")):
                with reading.at(file, f"task {place + 1}"):
                    _read_task(reading, split, file, near, f"task {place + 1}", expect_object(row, "it"))


def _read_task(reading: AnnotationReader, split: str, file: Path, near: Path, where: str, task: _Row) -> None:
    path = _find(reading, expect_object(task["data"], "data"), task.get("file_upload"), near)
    done = [a for a in task.get("annotations", task.get("completions")) or () if not a.get("was_cancelled")]
    if task.get("predictions"):
        reading.count("predictions: left out", len(task["predictions"]))
    objects: list[Annotation] = []
    size = (0, 0)
    for annotation in done:
        regions: dict[str, list[_Row]] = defaultdict(list)
        for place, result in enumerate(expect_list(annotation.get("result") or [], "result")):
            regions[str(result.get("id") or place)].append(expect_object(result, "a result"))
        reading.limit(len(regions) + len(objects))
        for key, results in regions.items():
            with reading.at(file, f"{where}, region {key}"):
                for result in results:
                    w, h = (whole(result.get(f"original_{side}") or 0, side) for side in ("width", "height"))
                    size = max(size, (w, h))
                thing = _object(reading, results, reading.pictures.size(path, *size), _annotator(annotation))
                objects += [thing] if thing else []
    if len({thing.annotator for thing in objects} - {None}) > 1:
        reading.count("pictures are labelled by several people: all their objects are kept, with names")
    width, height = reading.pictures.size(path, *size)
    reading.add(split, AnnotatedImage(path, width, height, tuple(objects) if done else None, file if done else None))


def _find(reading: AnnotationReader, data: _Row, upload: Any, near: Path) -> Path:
    names = [value for value in data.values() if isinstance(value, str)]
    pictures = [name for name in names if Path(name.partition("?")[0]).suffix.lower() in PICTURE_SUFFIXES]
    pictures += [name for name in names if "?d=" in name]
    chosen = data.get("image") or data.get("img") or next(iter(pictures or names), None)
    name = text(chosen, "data.image")
    # What begins with / is an address on Label Studio's server, not a place on somebody's disk.
    candidates: list[str] = [f"http://server{name}" if name.startswith("/data/") else name]
    candidates += [upload] if isinstance(upload, str) and upload else []
    candidates += [re.sub(r"^.*[/\\]", "", one) for one in candidates]
    candidates += [re.sub(r"^[0-9a-f]{8}-", "", one) for one in candidates]
    for candidate in candidates:
        path = reading.pictures.find(candidate, near)
        if reading.pictures.has(path):
            return path
    return reading.pictures.find(candidates[0], near)


def _annotator(annotation: _Row) -> str | None:
    by = annotation.get("completed_by")
    by = (by.get("email") or by.get("id")) if isinstance(by, dict) else by
    return None if by is None else str(by)


def _object(reading: AnnotationReader, results: list[_Row], size: tuple[int, int], by: str | None) -> Annotation | None:
    """The object of all results of one region: its shape, its label, its choices."""
    shape: tuple[Box, dict[str, Any]] | None = None
    names: list[Any] = []
    said: dict[str, Any] = {}
    for result in results:
        kind = str(result.get("type") or "")
        value = expect_object(result.get("value") or {}, "value")
        names += value.get(kind) or [] if kind.endswith("labels") else []
        base = kind.removesuffix("labels")
        if base in _SHAPES:
            if result.get("image_rotation"):
                raise InvalidAnnotation("belongs to a picture that was turned in the editor")
            shape = _shape(base, value, *size)
        elif kind == "choices":
            said[str(result.get("from_name") or "choices")] = ", ".join(map(str, value.get("choices") or ()))
        elif base.startswith("keypoint"):
            reading.count("key points: left out")
        if result.get("score") is not None:
            said["score"] = result["score"]
    if shape is None:
        return None
    if not names:
        raise InvalidAnnotation("has no label")
    if len(names) > 1:
        reading.count("regions have several labels: the first is taken")
    known = split_attributes(said)
    return Annotation(reading.label(text(names[0], "label")), shape[0], **shape[1], **known, annotator=by)


def _shape(kind: str, value: _Row, width: int, height: int) -> tuple[Box, dict[str, Any]]:
    if not (width and height):
        raise InvalidAnnotation("is in percent of a picture of unknown size, which is missing or unreadable")
    sx, sy = width / 100, height / 100
    if kind == "brush":
        mask = _brush_mask(expect_list(value["rle"], "rle"), width, height)
        return rle.box(mask), {"mask": mask}
    if kind == "polygon":
        points = expect_list(value["points"], "points")
        outline = ring([(number(x) * sx, number(y) * sy) for x, y in points])
        return around([outline]), {"polygons": (outline,)}
    x, y = number(value["x"], "x") * sx, number(value["y"], "y") * sy
    turn = number(value.get("rotation") or 0, "rotation")
    if kind == "ellipse":
        rx, ry = number(value["radiusX"], "radiusX") * sx, number(value["radiusY"], "radiusY") * sy
        outline = ellipse(x, y, rx, ry, turn)
        return around([outline]), {"polygons": (outline,)}
    box = (x, y, x + number(value["width"], "width") * sx, y + number(value["height"], "height") * sy)
    if not turn:
        return box, {}
    outline = turned(corners(*box), turn, x, y)
    return around([outline]), {"polygons": (outline,)}


def _brush_mask(packed: list[Any], width: int, height: int) -> RunLengthMask:
    """Brush strokes: RGBA bytes packed by the rle-pack of @thi.ng/umbrella; where alpha is not 0 there is paint.

    32 bits tell the number of values, 5 bits the bits of a value less one, 4 times 4 bits the bits of run lengths less
    one. Then runs: a bit that says whether one value repeats, 2 bits that choose the size of the length, the length
    less one, and the value or the values.
    """
    count = 4 * width * height
    if not 0 < width * height <= MAX_PIXELS:
        raise InvalidAnnotation(f"is a mask of {width}×{height} pixels")
    bits = np.unpackbits(np.array(packed, dtype=np.uint8))
    place = 0

    def take(number_of: int) -> int:
        nonlocal place
        place += number_of
        if place > bits.size:
            raise InvalidAnnotation("has a mask that ends too early")
        return int("".join(map(str, bits[place - number_of : place].tolist())), 2)

    if take(32) != count:
        raise InvalidAnnotation("has a mask that is not of its picture's size")
    word = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint8)
    at = 0
    while at < count:
        repeats = take(1)
        length = take(sizes[take(2)]) + 1
        if at + length > count or word != 8:
            raise InvalidAnnotation("has a mask that is longer than its picture")
        if repeats:
            values[at : at + length] = take(word)
        else:
            if place + word * length > bits.size:
                raise InvalidAnnotation("has a mask that ends too early")
            values[at : at + length] = np.packbits(bits[place : place + word * length])
            place += word * length
        at += length
    return rle.encode(values.reshape(height, width, 4)[:, :, 3] > 0)


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/label_studio.json`` beside the pictures."""
    for split, images in dataset.splits.items():
        tasks: list[_Row] = []
        for image in images:
            name = target.place(image, split_dir(split)).name
            task: _Row = {"id": len(tasks) + 1, "data": {"image": name}, "annotations": [], "predictions": []}
            if image.objects and not (image.width and image.height):
                target.lost("pictures of unknown size: their labels cannot be written in percent")
            elif image.objects is not None:
                for by in annotators(image.objects):
                    things = [thing for thing in image.objects if thing.annotator == by]
                    results = [r for place, t in enumerate(things) for r in _results(t, image, dataset.classes, place)]
                    task["annotations"].append({"result": results, **({"completed_by": by} if by else {})})
            tasks.append(task)
        target.write_json(Path(split_dir(split)) / "label_studio.json", tasks)


def _results(thing: Annotation, image: AnnotatedImage, classes: Sequence[str], place: int) -> list[_Row]:
    sx, sy = image.width / 100, image.height / 100
    common = {
        "id": f"r{place + 1}", "to_name": "image", "original_width": image.width, "original_height": image.height,
        "image_rotation": 0,
    }  # fmt: skip
    if thing.polygons:
        outline = joined((*thing.polygons, *thing.holes))
        kind, value = "polygonlabels", {"points": _percents(outline, sx, sy), "closed": True}
    else:
        x1, y1, x2, y2 = thing.box
        kind = "rectanglelabels"
        value = {"x": x1 / sx, "y": y1 / sy, "width": (x2 - x1) / sx, "height": (y2 - y1) / sy, "rotation": 0}
    score = {"score": thing.score} if thing.score is not None else {}
    first = {**common, "from_name": "label", "type": kind, "value": {**value, kind: [classes[thing.label]]}, **score}
    said = merged_attributes(thing, ("annotator", "score"))
    choices = [
        {**common, "from_name": name, "type": "choices", "value": {"choices": [str(value)]}}
        for name, value in said.items()
    ]
    return [first, *choices]


def _percents(outline: Sequence[float], sx: float, sy: float) -> list[list[float]]:
    return [[x / sx, y / sy] for x, y in zip(outline[::2], outline[1::2], strict=True)]
