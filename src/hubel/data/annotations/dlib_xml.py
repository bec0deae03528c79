"""dlib's image data set metadata, as imglab writes it: boxes in whole pixels.

``top``, ``left`` and ``width``, ``height`` count pixels from 0, so a box spans ``left`` to ``left + width``. dlib
does nothing with EXIF data (davisking/dlib#1706): coordinates are of the picture as stored, and are turned here, back
again when written. ``ignore``, ``difficult``, ``truncated``, ``occluded`` and ``detection_score`` are kept, ``angle``,
``age``, ``gender`` and ``pose`` as attributes; parts (landmarks) are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hubel.data.annotations.attributes import UNNAMED
from hubel.data.annotations.exif_rotation import apply_exif, stored_size, undo_exif
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.safe_parsing import xml_elements
from hubel.data.annotations.validators import number, text, truth, whole
from hubel.data.annotations.writer import DatasetWriter, split_dir

_FLAGS = ("ignore", "difficult", "truncated", "occluded")
_EXTRAS = ("angle", "age", "gender", "pose")


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read dlib files, picture by picture."""
    for split, file in files:
        with reading.at(file):
            near = reading.pictures.folder_of(split, file)
            for place, element in enumerate(xml_elements(file, "image")):
                with reading.at(file, f"image {place + 1} {element.get('file', '')}"):
                    _read_image(reading, split, file, element, near)


def _read_image(reading: AnnotationReader, split: str, file: Path, element: Element, near: Path) -> None:
    path = reading.pictures.find(text(element.get("file"), "file"), near)
    width, height, orientation = stored_size(path)
    if not width:
        width, height = whole(element.get("width") or 0, "width"), whole(element.get("height") or 0, "height")
    boxes = element.findall("box")
    reading.limit(len(boxes))
    objects: list[Annotation] = []
    for place, box in enumerate(boxes):
        with reading.at(file, f"{element.get('file', '')}, box {place + 1}"):
            objects.append(_object(reading, box))
    image = AnnotatedImage(path, width, height, tuple(objects), file)
    reading.add(split, apply_exif(image, orientation))


def _object(reading: AnnotationReader, element: Element) -> Annotation:
    left, top, w, h = (number(element.get(name), name) for name in ("left", "top", "width", "height"))
    known: dict[str, Any] = {name: truth(element.get(name)) for name in _FLAGS if element.get(name)}
    if (score := element.get("detection_score")) is not None:
        known["score"] = number(score, "detection_score")
    if extras := {name: value for name in _EXTRAS if (value := element.get(name)) is not None}:
        known["attributes"] = extras
    if element.find("part") is not None:
        reading.count("boxes have parts (landmarks): left out")
    label = (element.findtext("label") or "").strip()
    if not label:
        reading.count(f"boxes have no label: they are called {UNNAMED!r}")
    return Annotation(reading.label(label or UNNAMED), (left, top, left + w, top + h), **known)


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/dlib.xml`` beside the pictures, in pixels as they are stored."""
    for split, images in dataset.splits.items():
        root = Element("dataset")
        SubElement(root, "name").text = split_dir(split) or "all"
        parent = SubElement(root, "images")
        for image in images:
            name = target.place(image, split_dir(split)).name
            if image.objects is None:
                continue
            image = undo_exif(image)
            element = SubElement(parent, "image", file=name, width=str(image.width), height=str(image.height))
            for thing in image.objects or ():
                _write_box(element, thing, dataset.classes[thing.label], target)
        indent(root)
        target.write(Path(split_dir(split)) / "dlib.xml", tostring(root, encoding="unicode") + "\n")


def _write_box(image: Element, thing: Annotation, name: str, target: DatasetWriter) -> None:
    x1, y1, x2, y2 = map(round, thing.box)
    if (x1, y1, x2, y2) != thing.box:
        target.lost("boxes are rounded to whole pixels")
    sides = {"top": y1, "left": x1, "width": x2 - x1, "height": y2 - y1}
    said = {side: str(value) for side, value in sides.items()}
    said |= {flag: "1" for flag in _FLAGS if getattr(thing, flag)}
    said |= {extra: str(thing.attributes[extra]) for extra in _EXTRAS if extra in thing.attributes}
    if thing.score is not None:
        said["detection_score"] = f"{thing.score:.6g}"
    SubElement(SubElement(image, "box", said), "label").text = name
    if others := set(thing.attributes) - set(_EXTRAS):
        target.lost("attributes of objects", len(others))
