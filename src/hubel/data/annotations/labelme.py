"""LabelMe JSON: one file per image, beside it.

Continuous pixels of the upright image (LabelMe applies the EXIF rotation). Rectangles are two opposite corners in any
order; a circle is its centre and a point on it. A mask is a PNG of the box from the first to the second corner, the
last row and column included. Polygons with the same ``group_id`` and label are one object. Points and lines are left
out and counted. Ticked ``flags``, ``attributes``, ``difficult`` and ``score`` (as X-AnyLabeling writes them) are read.
The image in ``imageData`` is not; images without a file are unlabelled. The image is the one that ``imagePath`` names,
else the one with the file's stem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hubel.data.annotations import parse
from hubel.data.annotations.attributes import merge_attributes, split_attributes
from hubel.data.annotations.format import FREE_FORM_FIELDS, Format
from hubel.data.annotations.png_masks import decode_png, encode_png
from hubel.data.annotations.reader import AnnotationReader, Shape, each_file, polygon_shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_coord, round_points, split_dir
from hubel.masks import bounding_box, ellipse

_LEFT_OUT = ("point", "points", "line", "linestrip")


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    content = parse.fields(reader.read_json(file, parse.MAX_IMAGE_FILE_BYTES), "the file")
    name = content.get("imagePath")
    name = name if isinstance(name, str) and name.strip() else file.stem
    folders = (file.parent, *reader.images.mirrors(file.parent))
    path = reader.images.named_in(name, folders) or reader.images.with_stem_in(file.stem, folders)
    if path is None:
        path = reader.images.find(name, file.parent, stem_only=True)
    width, height = reader.images.size(path, *parse.size(content, "imageWidth", "imageHeight"))
    shapes = parse.items(content["shapes"], "shapes")
    parse_shape = partial(_parse_object, reader, width=width, height=height)
    found = reader.parse_objects(file, "shape", shapes, parse_shape)
    reader.add(split, AnnotatedImage(path, width, height, None if found is None else _grouped(found), file))


def _grouped(found: Iterable[tuple[Annotation, str | None]]) -> tuple[Annotation, ...]:
    """Objects of several polygons from shapes and their groups."""
    groups: dict[tuple[str, int], int] = {}
    objects: list[Annotation] = []
    for obj, group in found:
        if group is not None and obj.polygons:
            first = groups.setdefault((group, obj.label), len(objects))
            if first < len(objects):
                polygons = objects[first].polygons + obj.polygons
                objects[first] = replace(objects[first], polygons=polygons, box=bounding_box(polygons))
                continue
        objects.append(obj)
    return tuple(objects)


def _parse_object(reader: AnnotationReader, row: Any, width: int, height: int) -> tuple[Annotation, str | None] | None:
    """The object of a shape, and its group."""
    shape = parse.fields(row, "it")
    if (kind := shape.get("shape_type") or "polygon") in _LEFT_OUT:
        reader.count_warning(f"shapes are of type {kind}: left out")
        return None
    box, fields = _parse_shape(reader, shape, kind, width, height)
    label = reader.label(parse.name(shape["label"], "label"))
    with reader.optional("flags and attributes"):
        attributes = {name: value for name, value in (shape.get("flags") or {}).items() if value is True}
        attributes |= parse.fields(shape.get("attributes") or {}, "attributes")
        attributes |= {name: shape[name] for name in ("difficult", "score", "description") if shape.get(name)}
        fields = {**fields, **split_attributes(attributes)}
    group = shape.get("group_id")
    return Annotation(label, box, **fields), None if group is None else str(group)


def _parse_shape(reader: AnnotationReader, shape: dict[str, Any], kind: str, width: int, height: int) -> Shape:
    points = parse.items(shape["points"], "points")
    if kind in ("polygon", "rotation", "oriented_rectangle"):
        return polygon_shape(parse.polygon(points))
    pairs = [parse.point(point) for point in points]
    if len(pairs) < 2:
        raise parse.InvalidAnnotation(f"a {kind} has {len(pairs)} points, not two")
    (x1, y1), (x2, y2) = pairs[0], pairs[len(pairs) // 2]  # X-AnyLabeling gives a rectangle's four corners
    if kind == "rectangle":
        return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), {}
    if kind == "circle":
        radius = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        return polygon_shape(ellipse(x1, y1, radius, radius))
    if kind == "mask":
        left, top = int(min(x1, x2)), int(min(y1, y2))
        mask = decode_png(parse.name(shape["mask"], "mask"), left, top, width, height, reader.count_mask)
        return (float(left), float(top), max(x1, x2) + 1, max(y1, y2) + 1), {"mask": mask}
    raise parse.InvalidAnnotation(f"is of shape_type {kind!r}, which LabelMe does not have")


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/NAME.json`` beside each image."""
    for split, images in dataset.splits.items():
        for image, path in writer.add_images(images, split_dir(split)):
            objects = enumerate(image.objects or ())
            shapes = [s for group, obj in objects for s in _shapes(obj, dataset.classes[obj.label], group + 1)]
            content: dict[str, Any] = {
                "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": path.name, "imageData": None,
                "imageHeight": image.height, "imageWidth": image.width,
            }  # fmt: skip
            writer.write_json(Path(split_dir(split)) / f"{path.stem}.json", content, indent=2)


def _shapes(obj: Annotation, name: str, group: int) -> Iterator[dict[str, Any]]:
    """One shape, or one per polygon with ``group`` as their id."""
    extra = merge_attributes(obj)
    flags = {key: True for key, value in extra.items() if value is True}
    others = {key: value for key, value in extra.items() if value is not True and key not in ("score", "description")}
    shape: dict[str, Any] = {"label": name, "group_id": None, "description": str(extra.get("description", ""))}
    shape |= {"flags": flags, "mask": None}
    shape |= {"attributes": others} if others else {}
    shape |= {"score": obj.score} if obj.score is not None else {}
    if obj.mask is not None:
        png, x, y, w, h = encode_png(obj.mask)
        yield {**shape, "shape_type": "mask", "points": [[x, y], [x + w - 1, y + h - 1]], "mask": png}
    elif not obj.polygons:
        x1, y1, x2, y2 = map(round_coord, obj.box)
        yield {**shape, "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}
    else:
        polygons = (obj.outline(),) if obj.holes else obj.polygons
        shape |= {"group_id": group if len(polygons) > 1 else None, "shape_type": "polygon"}
        yield from ({**shape, "points": round_points(polygon)} for polygon in polygons)


FORMAT = Format(
    "labelme", "LabelMe JSON", "JSON files with shapes and imagePath, one per image",
    lambda head: "shapes" in head.keys[1] and bool(head.keys[1] & {"imagePath", "version", "imageHeight"}),
    each_file(_read), _write, FREE_FORM_FIELDS | {"polygons", "parts", "masks"}, file_holds="image", boxes="xyxy",
)  # fmt: skip
