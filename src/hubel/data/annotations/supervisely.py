"""Supervisely projects: ``meta.json``, and ``DATASET/img/NAME``, ``DATASET/ann/NAME.json``.

Pixels of the upright image, by row and column as in NumPy: a rectangle's second corner is its last pixel, so 1 is added
here; polygons stay as they are. Polygons have an ``exterior`` and ``interior`` holes; bitmaps are PNGs compressed by
zlib at an ``origin``. Tags of an object become attributes, ``labelerLogin`` its annotator. Points, lines and graphs are
left out and counted. A dataset named like a split is that split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubel import masks
from hubel.data.annotations import parse
from hubel.data.annotations.attributes import merge_attributes, split_attributes
from hubel.data.annotations.format import FREE_FORM_FIELDS, Format
from hubel.data.annotations.png_masks import decode_png, encode_png
from hubel.data.annotations.reader import AnnotationReader, LabelFiles, Shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_coord, round_points

_LEFT_OUT = ("point", "line", "polyline", "graph", "cuboid", "cuboid_2d", "any")


def _read(reader: AnnotationReader, files: LabelFiles) -> None:
    """The classes are those of ``meta.json``, used or not."""
    for meta in sorted({folder / "meta.json" for _, file in files for folder in file.parents[1:3]}):
        if meta.is_file():
            with reader.error_context(meta):
                for entry in parse.items(
                    parse.fields(reader.read_json(meta), "the file").get("classes", []), "classes"
                ):
                    reader.label(parse.name(parse.fields(entry, "a class")["title"], "title"))
    for split, file in files:
        with reader.error_context(file):
            _read_file(reader, split, file)


def _read_file(reader: AnnotationReader, split: str, file: Path) -> None:
    content = parse.fields(reader.read_json(file, parse.MAX_IMAGE_FILE_BYTES), "the file")
    near = file.parent.parent / "img"
    path = reader.images.locate(near / file.stem) or reader.images.find(file.stem, near, stem_only=True)
    width, height = reader.images.size(path, *_stated_size(content.get("size")))
    rows = parse.items(content["objects"], "objects")
    objects = reader.parse_objects(file, "object", rows, lambda row: _parse_object(reader, row, width, height))
    reader.add(split, AnnotatedImage(path, width, height, objects, file))


def _stated_size(size: Any) -> tuple[int, int]:
    return parse.size(size) if isinstance(size, dict) else (0, 0)


def _parse_object(reader: AnnotationReader, row: Any, width: int, height: int) -> Annotation | None:
    figure = parse.fields(row, "it")
    if (kind := figure.get("geometryType")) in _LEFT_OUT:
        reader.count_warning(f"objects are of type {kind}: left out")
        return None
    box, shape = _parse_shape(reader, figure, width, height)
    label = reader.label(parse.name(figure["classTitle"], "classTitle"))
    attributes: dict[str, Any] = {}
    with reader.optional("tags"):
        tags = {parse.name(tag["name"], "a tag"): tag.get("value") for tag in figure.get("tags") or ()}
        attributes = {name: True if value is None else value for name, value in tags.items()}
    if login := figure.get("labelerLogin"):
        with reader.optional("names of annotators"):
            attributes["annotator"] = parse.name(login, "labelerLogin")
    return Annotation(label, box, **shape, **split_attributes(attributes))


def _parse_shape(reader: AnnotationReader, figure: dict[str, Any], width: int, height: int) -> Shape:
    kind = figure.get("geometryType") or ("bitmap" if "bitmap" in figure else "polygon")
    if kind == "bitmap":
        bitmap = parse.fields(figure["bitmap"], "bitmap")
        left, top = (parse.integer(value, "origin") for value in bitmap["origin"])
        data = parse.name(bitmap["data"], "data")
        mask = decode_png(data, left, top, width, height, reader.count_mask, compressed=True)
        return masks.mask_box(mask), {"mask": mask}
    points = parse.fields(figure["points"], "points")
    exterior = parse.items(points["exterior"], "exterior")
    if kind == "rectangle":
        (x1, y1), (x2, y2) = map(parse.point, exterior)
        return (min(x1, x2), min(y1, y2), max(x1, x2) + 1, max(y1, y2) + 1), {}
    if kind != "polygon":
        raise parse.InvalidAnnotation(f"is of geometryType {kind!r}, which Supervisely's images do not have")
    polygon = parse.polygon(exterior)
    holes: list[masks.Polygon] = []
    with reader.optional("holes of outlines"):
        holes.extend(parse.polygon(hole) for hole in points.get("interior") or () if hole)
    return masks.bounding_box([polygon]), {"polygons": (polygon,), "holes": tuple(holes)}


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``meta.json``, ``SPLIT/img``, ``SPLIT/ann``; an unsplit data set is called ``all``."""
    tags: set[str] = set()
    for split, images in dataset.splits.items():
        for image, path in writer.add_images(images, f"{split}/img"):
            figures = [_figure(obj, dataset.classes[obj.label], tags) for obj in image.objects or ()]
            size = {"height": image.height, "width": image.width}
            content = {"description": "", "tags": [], "size": size, "objects": figures}
            writer.write_json(f"{split}/ann/{path.name}.json", content)
    classes = [
        {"title": name, "shape": "any", "color": f"#{((label + 1) * 2654435761) % 0xFFFFFF:06X}"}
        for label, name in enumerate(dataset.classes)
    ]
    kinds = [{"name": name, "value_type": "any_string", "color": "#808080"} for name in sorted(tags)]
    writer.write_json("meta.json", {"classes": classes, "tags": kinds}, indent=2)


def _figure(obj: Annotation, name: str, tags: set[str]) -> dict[str, Any]:
    attributes = merge_attributes(obj, ("annotator",))
    tags |= set(attributes)
    figure: dict[str, Any] = {
        "classTitle": name,
        "description": "",
        "tags": [{"name": key, "value": None if value is True else str(value)} for key, value in attributes.items()],
    }
    if obj.annotator is not None:
        figure["labelerLogin"] = obj.annotator
    if obj.mask is not None:
        data, x, y, _, _ = encode_png(obj.mask, compressed=True)
        return {**figure, "geometryType": "bitmap", "bitmap": {"data": data, "origin": [x, y]}}
    if not obj.polygons:
        x1, y1, x2, y2 = obj.box
        corners = [[round_coord(x1), round_coord(y1)], [round_coord(x2 - 1), round_coord(y2 - 1)]]
        return {**figure, "geometryType": "rectangle", "points": {"exterior": corners, "interior": []}}
    single = len(obj.polygons) == 1
    exterior = obj.polygons[0] if single else obj.outline()
    interior = [round_points(hole) for hole in obj.holes] if single else []
    return {**figure, "geometryType": "polygon", "points": {"exterior": round_points(exterior), "interior": interior}}


FORMAT = Format(
    "supervisely", "Supervisely", "meta.json, and DATASET/img and DATASET/ann",
    lambda head: {"objects", "size"} <= head.keys[1], _read, _write,
    FREE_FORM_FIELDS | {"polygons", "holes", "masks", "unused"}, file_holds="image", boxes="xyxy",
)  # fmt: skip
