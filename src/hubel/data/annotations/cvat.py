"""CVAT XML, "CVAT for images 1.1": boxes, polygons, ellipses, masks, attributes.

Coordinates are pixels of the upright picture (CVAT applies the EXIF rotation) in fractions, from its corner.
``rotation`` turns a box or an ellipse clockwise around its centre; what is turned becomes a polygon. A mask's ``rle``
counts row by row within ``left top width height``, zeros first. An image's ``subset`` is its split where it is called
like one. Points, polylines, cuboids, skeletons and tags are left out and counted; tracks ("CVAT for video") have to
be exported for images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from hubel.data.annotations import rle
from hubel.data.annotations.attributes import as_text, merged_attributes, split_attributes
from hubel.data.annotations.polygons import corners, ellipse, joined, turned
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box, Polygon, RunLengthMask
from hubel.data.annotations.safe_parsing import xml_elements
from hubel.data.annotations.validators import InvalidAnnotation, around, number, ring, text, truth, whole
from hubel.data.annotations.writer import DatasetWriter, spelled, split_dir
from hubel.data.image_folder import SPLIT_NAMES
from hubel.data.image_io import MAX_PIXELS

_SHAPES = ("box", "polygon", "ellipse", "mask")
_LEFT_OUT = ("points", "polyline", "cuboid", "skeleton", "tag")


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read CVAT files, picture by picture."""
    for split, file in files:
        with reading.at(file):
            near = reading.pictures.folder_of(split, file)
            for element in xml_elements(file, "meta", "image", "track"):
                if element.tag == "meta":
                    for label in element.iter("label"):
                        if name := (label.findtext("name") or "").strip():
                            reading.label(name)
                elif element.tag == "track":
                    raise InvalidAnnotation('has tracks of a video; export it as "CVAT for images 1.1"')
                else:
                    with reading.at(file, f"image {element.get('id', '')} {element.get('name', '')}"):
                        _read_image(reading, split, file, element, near)


def _read_image(reading: AnnotationReader, split: str, file: Path, element: Element, near: Path) -> None:
    path = reading.pictures.find(text(element.get("name"), "name"), near)
    sides = (whole(element.get(name) or 0, name) for name in ("width", "height"))
    width, height = reading.pictures.size(path, *sides)
    reading.limit(len(element))
    objects: list[Annotation] = []
    for place, child in enumerate(element):
        if child.tag in _LEFT_OUT:
            reading.count(f"{child.tag} labels: left out")
        elif child.tag in _SHAPES:
            with reading.at(file, f"image {element.get('name', '')}, shape {place + 1}"):
                objects.append(_object(reading, child, width, height))
    split = SPLIT_NAMES.get((element.get("subset") or "").casefold(), split)
    reading.add(split, AnnotatedImage(path, width, height, tuple(objects), file))


def _object(reading: AnnotationReader, element: Element, width: int, height: int) -> Annotation:
    attributes = {text(a.get("name"), "attribute"): (a.text or "").strip() for a in element.findall("attribute")}
    known = {**split_attributes(attributes), "occluded": truth(element.get("occluded", "0"))}
    box, shape = _shape(element, width, height)
    label = reading.label(text(element.get("label"), "label"))
    return Annotation(label, box, **shape, **known)


def _shape(element: Element, width: int, height: int) -> tuple[Box, dict[str, Any]]:
    def value(name: str) -> float:
        return number(element.get(name), name)

    turn = number(element.get("rotation") or 0, "rotation")
    if element.tag == "mask":
        mask = _mask(element, width, height)
        return rle.box(mask), {"mask": mask}
    if element.tag == "polygon":
        outline = ring([pair.split(",") for pair in text(element.get("points"), "points").split(";")])
    elif element.tag == "ellipse":
        outline = ellipse(value("cx"), value("cy"), value("rx"), value("ry"), turn)
    else:
        box = (value("xtl"), value("ytl"), value("xbr"), value("ybr"))
        if not turn:
            return box, {}
        outline = turned(corners(*box), turn, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return around([outline]), {"polygons": (outline,)}


def _mask(element: Element, width: int, height: int) -> RunLengthMask:
    left, top, w, h = (whole(element.get(name), name) for name in ("left", "top", "width", "height"))
    lengths = [whole(part, "rle") for part in text(element.get("rle"), "rle").split(",")]
    if min(lengths) < 0 or sum(lengths) != w * h or min(left, top, w, h) < 0:
        raise InvalidAnnotation("a mask's rle does not add up to its width × height")
    if left + w > width or top + h > height or width * height > MAX_PIXELS:
        raise InvalidAnnotation("a mask lies outside of its picture")
    pixels = np.zeros((height, width), dtype=bool)
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    pixels[top : top + h, left : left + w] = values.reshape(h, w)
    return rle.encode(pixels)


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/annotations.xml`` beside the pictures."""
    for split, images in dataset.splits.items():
        root = Element("annotations")
        SubElement(root, "version").text = "1.1"
        labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
        for name in dataset.classes:
            SubElement(SubElement(labels, "label"), "name").text = name
        for image in images:
            name = target.place(image, split_dir(split)).name
            if image.objects is None:
                continue
            sides = {"width": str(image.width), "height": str(image.height)}
            element = SubElement(root, "image", {"id": str(len(root) - 2), "name": name, **sides})
            for thing in image.objects:
                _write_object(element, thing, dataset.classes[thing.label])
        indent(root)
        target.write(Path(split_dir(split)) / "annotations.xml", tostring(root, encoding="unicode") + "\n")


def _write_object(image: Element, thing: Annotation, name: str) -> None:
    said = {"label": name, "source": "manual", "occluded": str(int(thing.occluded))}
    if thing.mask is not None:
        element = SubElement(image, "mask", {**said, **_written_mask(thing.mask)})
    elif thing.polygons:
        element = SubElement(image, "polygon", {**said, "points": _points(joined((*thing.polygons, *thing.holes)))})
    else:
        sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(spelled, thing.box), strict=True))
        element = SubElement(image, "box", {**said, **sides})
    for key, value in merged_attributes(thing, ("occluded",)).items():
        SubElement(element, "attribute", name=key).text = as_text(value)


def _points(outline: Polygon) -> str:
    return ";".join(f"{spelled(x)},{spelled(y)}" for x, y in zip(outline[::2], outline[1::2], strict=True))


def _written_mask(mask: RunLengthMask) -> dict[str, str]:
    x1, y1, x2, y2 = map(int, rle.box(mask))
    lengths = rle.runs(rle.decode(mask)[y1:y2, x1:x2].ravel())
    sides = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}
    return {"rle": ", ".join(map(str, lengths)), **{name: str(value) for name, value in sides.items()}}
