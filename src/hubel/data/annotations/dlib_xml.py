"""dlib's image data set metadata, as imglab writes it: boxes in whole pixels.

``top``, ``left`` and ``width``, ``height`` count pixels from 0, so a box spans ``left`` to ``left + width``. dlib
ignores EXIF data (davisking/dlib#1706): coordinates are of the image as stored, and are rotated here, and back again
when written. ``ignore``, ``difficult``, ``truncated``, ``occluded`` and ``detection_score`` are read, ``angle``,
``age``, ``gender`` and ``pose`` as attributes; parts (landmarks) are left out and counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from hubel.data.annotations import parse
from hubel.data.annotations.attributes import UNNAMED
from hubel.data.annotations.exif_rotation import apply_exif, stored_size, undo_exif
from hubel.data.annotations.format import Format
from hubel.data.annotations.reader import AnnotationReader, each_file
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, split_dir

_FLAGS = ("ignore", "difficult", "truncated", "occluded")
_ATTRIBUTES = ("angle", "age", "gender", "pose")


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    near = reader.images.folder_of(split, file)
    for index, element in enumerate(parse.iterate_xml(file, "image")):
        with reader.error_context(file, f"image {index + 1} {element.get('file', '')}"):
            path = reader.images.find(name := parse.name(element.get("file"), "file"), near)
            width, height, orientation = stored_size(path)
            if not width:
                width, height = parse.size(element)
            objects = reader.parse_objects(file, f"{name}, box", list(element), lambda box: _parse_object(reader, box))
            reader.add(split, apply_exif(AnnotatedImage(path, width, height, objects, file), orientation))


def _parse_object(reader: AnnotationReader, element: Element) -> Annotation:
    if element.tag != "box":
        raise parse.InvalidAnnotation(f"is <{element.tag[:100]}> where dlib has <box>")
    left, top, w, h = parse.numbers(element, "left", "top", "width", "height")
    fields: dict[str, Any] = {name: parse.flag(element.get(name)) for name in _FLAGS if element.get(name)}
    if (score := element.get("detection_score")) is not None:
        with reader.optional("values of detection_score"):
            fields["score"] = parse.number(score, "detection_score")
    if attributes := {name: value for name in _ATTRIBUTES if (value := element.get(name)) is not None}:
        fields["attributes"] = attributes
    if element.find("part") is not None:
        reader.count_warning("boxes have parts (landmarks): left out")
    label = (element.findtext("label") or "").strip()
    if not label:
        reader.count_warning(f"boxes have no label: they are called {UNNAMED!r}")
    return Annotation(reader.label(label or UNNAMED), (left, top, left + w, top + h), **fields)


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/dlib.xml`` beside the images, in pixels of the images as stored."""
    for split, images in dataset.splits.items():
        root = Element("dataset")
        SubElement(root, "name").text = split_dir(split) or "all"
        parent = SubElement(root, "images")
        for image, path in writer.add_images(images, split_dir(split)):
            stored = undo_exif(image)
            element = SubElement(parent, "image", file=path.name, width=str(stored.width), height=str(stored.height))
            for obj in stored.objects or ():
                _write_box(element, obj, dataset.classes[obj.label], writer)
        writer.write_xml(Path(split_dir(split)) / "dlib.xml", root)


def _write_box(image: Element, obj: Annotation, name: str, writer: DatasetWriter) -> None:
    x1, y1, x2, y2 = map(round, obj.box)
    if (x1, y1, x2, y2) != obj.box:
        writer.record_loss("boxes are rounded to whole pixels")
    sides = {"top": y1, "left": x1, "width": x2 - x1, "height": y2 - y1}
    fields = {side: str(value) for side, value in sides.items()}
    fields |= {flag: "1" for flag in _FLAGS if getattr(obj, flag)}
    fields |= {key: str(obj.attributes[key]) for key in _ATTRIBUTES if key in obj.attributes}
    if obj.score is not None:
        fields["detection_score"] = f"{obj.score:.6g}"
    SubElement(SubElement(image, "box", fields), "label").text = name
    if others := set(obj.attributes) - set(_ATTRIBUTES):
        writer.record_loss("attributes of objects", len(others))


FORMAT = Format(
    "dlib", "dlib / imglab XML", "an XML file with <dataset> and <images>",
    lambda head: head.xml_root == "dataset", each_file(_read), _write, frozenset({*_FLAGS, "score", "attributes"}),
    boxes="xywh",
)  # fmt: skip
