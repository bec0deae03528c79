"""CVAT XML, "CVAT for images 1.1": boxes, polygons, ellipses, masks, attributes.

Coordinates are continuous pixels of the upright image (CVAT applies the EXIF rotation). ``rotation`` rotates a box or
an ellipse clockwise around its centre; the result is a polygon. A mask's ``rle`` counts row by row within
``left top width height``, zeros first. An image's ``subset`` is its split where it is named like one. Points,
polylines, cuboids, skeletons and tags are left out and counted; tracks ("CVAT for video") must be exported for images.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from hubel import masks
from hubel.data.annotations import parse
from hubel.data.annotations.attributes import as_text, merge_attributes, split_attributes
from hubel.data.annotations.format import FREE_FORM_FIELDS, Format
from hubel.data.annotations.reader import AnnotationReader, Shape, each_file, polygon_shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_coord, round_points, split_dir
from hubel.data.split_names import split_of

_SHAPES = ("box", "polygon", "ellipse", "mask")
_LEFT_OUT = ("points", "polyline", "cuboid", "skeleton")


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    near = reader.images.folder_of(split, file)
    for element in parse.iterate_xml(file, "meta", "image", "track"):
        if element.tag == "track":
            raise parse.InvalidAnnotation('has tracks of a video; export it as "CVAT for images 1.1"')
        if element.tag == "meta":
            names = ((label.findtext("name") or "").strip() for label in element.iter("label"))
            for name in filter(None, names):
                reader.label(name)
            continue
        with reader.error_context(file, f"image {element.get('id', '')} {element.get('name', '')}"):
            path = reader.images.find(parse.name(element.get("name"), "name"), near)
            size = reader.images.size(path, *parse.size(element))
            where = f"image {element.get('name', '')}, shape"
            shapes = [child for child in element if child.tag != "tag"]
            objects = reader.parse_objects(file, where, shapes, partial(_parse_object, reader, size))
            if tags := len(element.findall("tag")):
                reader.count_warning("tags of images: left out", tags)
            subset = split_of(element.get("subset") or "") or split
            reader.add(subset, AnnotatedImage(path, *size, objects, file))


def _parse_object(reader: AnnotationReader, size: tuple[int, int], element: Element) -> Annotation | None:
    if element.tag not in (*_SHAPES, *_LEFT_OUT):
        raise parse.InvalidAnnotation(f"is <{element.tag[:100]}>, which CVAT's images do not have")
    if element.tag in _LEFT_OUT:
        reader.count_warning(f"{element.tag} labels: left out")
        return None
    box, shape = _parse_shape(reader, element, *size)
    fields: dict[str, Any] = {}
    with reader.optional("attributes"):
        found = element.findall("attribute")
        fields = split_attributes({parse.name(a.get("name"), "attribute"): (a.text or "").strip() for a in found})
    fields["occluded"] = parse.flag(element.get("occluded", "0"))
    return Annotation(reader.label(parse.name(element.get("label"), "label")), box, **shape, **fields)


def _parse_shape(reader: AnnotationReader, element: Element, width: int, height: int) -> Shape:
    degrees = parse.number(element.get("rotation") or 0, "rotation")
    if element.tag == "mask":
        mask = _parse_mask(reader, element, width, height)
        return masks.mask_box(mask), {"mask": mask}
    if element.tag == "polygon":
        points = parse.name(element.get("points"), "points").split(";")
        return polygon_shape(parse.polygon([pair.split(",") for pair in points]))
    if element.tag == "ellipse":
        x, y, rx, ry = parse.numbers(element, "cx", "cy", "rx", "ry")
        return polygon_shape(masks.ellipse(x, y, rx, ry, degrees))
    x1, y1, x2, y2 = parse.numbers(element, "xtl", "ytl", "xbr", "ybr")
    if not degrees:
        return (x1, y1, x2, y2), {}
    return polygon_shape(masks.rotate(masks.box_to_polygon(x1, y1, x2, y2), degrees, (x1 + x2) / 2, (y1 + y2) / 2))


def _parse_mask(reader: AnnotationReader, element: Element, width: int, height: int) -> masks.RunLengthMask:
    left, top, w, h = (parse.integer(element.get(name), name) for name in ("left", "top", "width", "height"))
    lengths = [parse.integer(part, "rle") for part in parse.name(element.get("rle"), "rle").split(",")]
    if min(lengths) < 0 or sum(lengths) != w * h or min(left, top, w, h) < 0:
        raise parse.InvalidAnnotation("a mask's rle does not add up to its width × height")
    if left + w > width or top + h > height or width * height > masks.MAX_PIXELS:
        raise parse.InvalidAnnotation("a mask extends beyond its image")
    reader.count_mask(h * w)
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return masks.encode_part(values.reshape(h, w), left, top, height, width)


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/annotations.xml`` beside the images."""
    for split, images in dataset.splits.items():
        root = Element("annotations")
        SubElement(root, "version").text = "1.1"
        labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
        for name in dataset.classes:
            SubElement(SubElement(labels, "label"), "name").text = name
        for image, path in writer.add_images(images, split_dir(split)):
            sides = {"width": str(image.width), "height": str(image.height)}
            element = SubElement(root, "image", {"id": str(len(root) - 2), "name": path.name, **sides})
            for obj in image.objects or ():
                _write_object(element, obj, dataset.classes[obj.label])
        writer.write_xml(Path(split_dir(split)) / "annotations.xml", root)


def _write_object(image: Element, obj: Annotation, name: str) -> None:
    fields = {"label": name, "source": "manual", "occluded": str(int(obj.occluded))}
    if obj.mask is not None:
        element = SubElement(image, "mask", {**fields, **_mask_fields(obj.mask)})
    elif obj.polygons:
        points = ";".join(f"{x},{y}" for x, y in round_points(obj.outline()))
        element = SubElement(image, "polygon", {**fields, "points": points})
    else:
        sides = zip(("xtl", "ytl", "xbr", "ybr"), obj.box, strict=True)
        element = SubElement(image, "box", {**fields, **{side: str(round_coord(value)) for side, value in sides}})
    for key, value in merge_attributes(obj, ("occluded",)).items():
        SubElement(element, "attribute", name=key).text = as_text(value)


def _mask_fields(mask: masks.RunLengthMask) -> dict[str, str]:
    x1, y1, x2, y2 = map(int, masks.mask_box(mask))
    sides = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}
    flat = masks.decode(mask)[y1:y2, x1:x2].ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(changes, prepend=0, append=flat.size).tolist()
    lengths = [0, *lengths] if flat.size and flat[0] else lengths  # zeros first
    return {"rle": ", ".join(map(str, lengths)), **{name: str(value) for name, value in sides.items()}}


FORMAT = Format(
    "cvat", "CVAT XML", "an XML file with <annotations> and <image>",
    lambda head: head.xml_root == "annotations", each_file(_read), _write,
    FREE_FORM_FIELDS | {"polygons", "masks", "unused"}, boxes="xyxy",
)  # fmt: skip
