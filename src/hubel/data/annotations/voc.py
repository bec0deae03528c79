"""Pascal VOC XML: one file a picture, as the challenge, LabelImg and OpenLabeler write it.

Pixels count from 1 and ``xmax``, ``ymax`` name the last one (VOC development kit), so ``xmin``, ``ymin`` lose one
here and ``xmax``, ``ymax`` stay: a box over a whole picture, ``1 1 width height``, becomes ``0 0 width height``.
LabelImg writes whole pixels from 0 but no value under 1; read likewise, its boxes begin up to a pixel further left
and above. Files do not tell the two apart, and supervision and detectron2 read them this way too. LabelImg before
2019 counts in the pixels as stored, without the EXIF rotation; later versions and OpenLabeler in the upright ones.

Layouts: ``JPEGImages/``, ``Annotations/``, ``ImageSets/Main/SPLIT.txt`` as published; ``SPLIT/images`` and
``SPLIT/annotations``; XML files beside the pictures. The picture is the one of the XML file's name, else the one
that ``<filename>`` means. ``<attributes>`` (CVAT), ``<polygon>`` (Roboflow, supervision) and ``<robndbox>``
(roLabelImg) are read; a picture without an XML file is unlabelled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from hubel.data.annotations.attributes import as_text, merged_attributes, split_attributes
from hubel.data.annotations.polygons import corners, joined, turned
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box, Polygon
from hubel.data.annotations.safe_parsing import read_text, read_xml
from hubel.data.annotations.validators import InvalidAnnotation, around, number, text, truth
from hubel.data.annotations.writer import DatasetWriter, spelled, split_dir

_SETS = {"train": ("train", "trainval"), "val": ("val",), "test": ("test",)}


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read XML files, each with its split; lists in ``ImageSets/Main`` decide before folders do."""
    splits = {folder: _listed(reading, folder) for folder in {file.parent.parent for _, file in files}}
    unlisted = 0
    for split, file in files:
        if listed := splits[file.parent.parent]:
            if file.stem not in listed:
                unlisted += 1
                continue
            split = listed[file.stem]
        with reading.at(file):
            _read_file(reading, split, file)
    for folder, listed in splits.items():
        with_labels = {file.stem for _, file in files if file.parent.parent == folder}
        for stem, split in listed.items():
            if stem not in with_labels and (path := reading.pictures.beside(folder / "JPEGImages", stem)):
                reading.add(split, AnnotatedImage(path, 0, 0, None))
        if listed:
            reading.mark_exhaustive(folder / "JPEGImages")
    if unlisted:
        reading.count("XML files are in no list of ImageSets/Main: left out", unlisted)


def _listed(reading: AnnotationReader, folder: Path) -> dict[str, str]:
    """Split by stem, from the lists of a published VOC folder."""
    listed: dict[str, str] = {}
    for split, names in _SETS.items():
        for name in names:
            file = folder / "ImageSets" / "Main" / f"{name}.txt"
            if file.is_file():
                with reading.at(file):
                    # Lists of one class have 1, 0 or -1 after the name.
                    lines = (re.sub(r"\s+-?[01]$", "", line.strip()) for line in read_text(file).splitlines())
                    listed.update((stem, split) for stem in lines if stem and stem not in listed)
                break
    return listed


def _read_file(reading: AnnotationReader, split: str, file: Path) -> None:
    root = read_xml(file)
    if root.tag != "annotation":
        raise InvalidAnnotation(f"has <{root.tag}> where Pascal VOC has <annotation>")
    near = reading.pictures.folder_of(split, file)
    path = reading.pictures.beside(near, file.stem) or reading.pictures.beside(file.parent, file.stem)
    if path is None:
        name = (root.findtext("filename") or root.findtext("path") or file.stem).strip()
        path = reading.pictures.find(name, near, stem_only=True)
    width, height = (_length(root.findtext(f"size/{side}")) for side in ("width", "height"))
    width, height = reading.pictures.size(path, width, height)
    found = root.findall("object")
    reading.limit(len(found))
    objects: list[Annotation] = []
    for place, element in enumerate(found):
        with reading.at(file, f"object {place + 1}"):
            objects.append(_object(reading, element))
    reading.add(split, AnnotatedImage(path, width, height, tuple(objects), file))


def _length(value: str | None) -> int:
    """A side of the picture; 0 where it is not said, as some tools leave it."""
    return int(number(value, "a side of the picture")) if value and value.strip() else 0


def _object(reading: AnnotationReader, element: Element) -> Annotation:
    known: dict[str, Any] = {}
    if (extra := element.find("attributes")) is not None:
        said = {text(a.findtext("name"), "name"): (a.findtext("value") or "").strip() for a in extra}
        known = split_attributes(said)
    for name in ("difficult", "truncated", "occluded"):
        if (value := element.findtext(name)) is not None:
            known[name] = truth(value)
    if (pose := (element.findtext("pose") or "").strip()) and pose.casefold() not in ("unspecified", "0"):
        known["attributes"] = {**known.get("attributes", {}), "pose": pose}
    if element.find("part") is not None:
        reading.count("objects have parts (heads, hands): their boxes are left out")
    box: Box | None = None
    if (polygon := element.find("polygon")) is not None and len(polygon) >= 6:
        known["polygons"] = (outline,) = (_polygon(polygon),)
        box = around([outline])
    if (bounds := element.find("bndbox")) is not None:
        x1, y1, x2, y2 = (number(bounds.findtext(name), name) for name in ("xmin", "ymin", "xmax", "ymax"))
        box = (x1 - 1, y1 - 1, x2, y2)
    elif (bounds := element.find("robndbox")) is not None:
        x, y, w, h = (number(bounds.findtext(name), name) for name in ("cx", "cy", "w", "h"))
        angle = math.degrees(number(bounds.findtext("angle"), "angle"))
        outline = turned(corners(x - w / 2, y - h / 2, x + w / 2, y + h / 2), angle, x, y)
        known["polygons"] = (outline,)
        box = around([outline])
    if box is None:
        raise InvalidAnnotation("has no <bndbox>")
    return Annotation(reading.label(text(element.findtext("name"), "name")), box, **known)


def _polygon(element: Element) -> Polygon:
    """``<x1>``, ``<y1>``, ``<x2>`` …, in pixels from 1."""
    values = {child.tag: child.text for child in element}
    count = len(values) // 2
    return tuple(number(values[f"{axis}{n}"], f"{axis}{n}") - 1 for n in range(1, count + 1) for axis in "xy")


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``Annotations/``, ``JPEGImages/`` and ``ImageSets/Main/SPLIT.txt``, as published."""
    for split, images in dataset.splits.items():
        stems: list[str] = []
        for image in images:
            place = target.place(image, "JPEGImages")
            stems.append(place.stem)
            if image.objects is None:
                continue
            root = _annotation(image, place.name, dataset.classes)
            indent(root)
            target.write(f"Annotations/{place.stem}.xml", tostring(root, encoding="unicode") + "\n")
        if split_dir(split):
            target.write(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))


def _annotation(image: AnnotatedImage, name: str, classes: Sequence[str]) -> Element:
    root = Element("annotation")
    _child(root, "folder", "JPEGImages")
    _child(root, "filename", name)
    size = SubElement(root, "size")
    for tag, length in (("width", image.width), ("height", image.height), ("depth", 3)):
        _child(size, tag, str(length))
    _child(root, "segmented", "0")
    for thing in image.objects or ():
        element = SubElement(root, "object")
        _child(element, "name", classes[thing.label])
        _child(element, "pose", str(thing.attributes.get("pose", "Unspecified")))
        for flag in ("truncated", "difficult", "occluded"):
            _child(element, flag, str(int(getattr(thing, flag))))
        bounds = SubElement(element, "bndbox")
        x1, y1, x2, y2 = thing.box
        for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _child(bounds, tag, spelled(value))
        if thing.polygons:
            polygon = SubElement(element, "polygon")
            ring = joined((*thing.polygons, *thing.holes))
            for place, value in enumerate(ring):
                _child(polygon, f"{'xy'[place % 2]}{place // 2 + 1}", spelled(value + 1))
        if extra := merged_attributes(thing, ("truncated", "difficult", "occluded")):
            extra.pop("pose", None)
            _attributes(element, extra)
    return root


def _attributes(element: Element, extra: dict[str, Any]) -> None:
    if not extra:
        return
    parent = SubElement(element, "attributes")
    for name, value in extra.items():
        attribute = SubElement(parent, "attribute")
        _child(attribute, "name", name)
        _child(attribute, "value", as_text(value))


def _child(parent: Element, tag: str, value: str) -> None:
    """An element with text; control characters, which no XML may hold, become blanks."""
    SubElement(parent, tag).text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]", " ", value)
