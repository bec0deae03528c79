"""Pascal VOC XML: one file per image, as the challenge, LabelImg and OpenLabeler write it.

Pixels count from 1 and ``xmax``, ``ymax`` name the last one (VOC development kit), so 1 is subtracted from ``xmin``,
``ymin`` and nothing from ``xmax``, ``ymax``: a box over the whole image, ``1 1 width height``, becomes
``0 0 width height``. LabelImg writes whole pixels from 0 but no value below 1; read the same way, its boxes begin up
to a pixel further left and above. Files do not tell the two apart, and supervision and detectron2 read them this way
too. LabelImg before 2019 counts in pixels of the image as stored, without the EXIF rotation; later versions and
OpenLabeler in those of the upright image.

Layouts: ``JPEGImages/``, ``Annotations/``, ``ImageSets/Main/SPLIT.txt`` as published; ``SPLIT/images`` and
``SPLIT/annotations``; ``annotations/a/b.xml`` for ``images/a/b.jpg``; XML files beside the images. The image is the one
that ``<filename>`` names, else the one with the XML file's stem: people rename images with their XML files, and some
tools write the same name into all of them. ``<attributes>`` (CVAT), ``<polygon>`` (Roboflow, supervision, LabelMe's
XML) and ``<robndbox>`` (roLabelImg) are read; an image without an XML file is unlabelled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from hubel.data.annotations import parse
from hubel.data.annotations.attributes import as_text, merge_attributes, split_attributes
from hubel.data.annotations.format import FREE_FORM_FIELDS, Format
from hubel.data.annotations.reader import AnnotationReader, LabelFiles, Shape, polygon_shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_coord, split_dir
from hubel.data.file_listing import composed
from hubel.masks import Box, box_to_polygon, rotate

_LISTS = {"train": ("train", "trainval"), "val": ("val",), "test": ("test",)}


@dataclass(frozen=True)
class _Labels:
    """What an XML file says: the name of its image, its size, the objects; and the folders where the image may be."""

    split: str
    file: Path
    name: str
    size: tuple[int, int]
    objects: tuple[Annotation, ...] | None
    folders: tuple[Path, ...]


def _read(reader: AnnotationReader, files: LabelFiles) -> None:
    """Lists in ``ImageSets/Main`` take precedence over folders."""
    bases = {folder: _published_folder(folder, reader.root) for folder in {file.parent for _, file in files}}
    splits = {base: _listed(reader, base) for base in dict.fromkeys(bases[file.parent] for _, file in files)}
    unlisted = 0
    labels: list[_Labels] = []
    for split, file in files:
        if listed := splits[bases[file.parent]]:
            if composed(file.stem) not in listed:
                unlisted += 1
                continue
            split = listed[composed(file.stem)]
        with reader.error_context(file):
            labels.append(_read_file(reader, split, file))
    _add_images(reader, labels)
    for base, listed in splits.items():
        labelled = {composed(file.stem) for _, file in files if bases[file.parent] == base}
        for stem, split in listed.items():
            with reader.error_context(base / "ImageSets", stem):
                if stem not in labelled and (path := reader.images.with_stem(base / "JPEGImages", stem)):
                    reader.add(split, AnnotatedImage(path, 0, 0, None))
        if listed:
            reader.exhaustive.add(base / "JPEGImages")
    if unlisted:
        reader.count_warning("XML files are in no list of ImageSets/Main: left out", unlisted)


def _published_folder(folder: Path, root: Path) -> Path:
    """The folder above one of XML files that has ``ImageSets/Main``; the one directly above if none has."""
    above = [parent for parent in folder.parents if parent.is_relative_to(root)]
    return next((parent for parent in above if (parent / "ImageSets" / "Main").is_dir()), folder.parent)


def _listed(reader: AnnotationReader, folder: Path) -> dict[str, str]:
    """Split by stem, from the lists of a published VOC folder."""
    listed: dict[str, str] = {}
    for split, names in _LISTS.items():
        for name in names:
            file = folder / "ImageSets" / "Main" / f"{name}.txt"
            if file.is_file():
                with reader.error_context(file):
                    # Lists of one class have 1, 0 or -1 after the name.
                    lines = map(_listed_stem, reader.read_text(file).splitlines())
                    stems = map(composed, lines)
                    listed.update((stem, split) for stem in stems if stem and stem not in listed)
                break
    return listed


def _listed_stem(line: str) -> str:
    words = line.strip().rsplit(maxsplit=1)
    return words[0] if len(words) == 2 and words[1] in ("-1", "0", "1") else line.strip()


def _read_file(reader: AnnotationReader, split: str, file: Path) -> _Labels:
    root = parse.read_xml(file)
    if root.tag != "annotation":
        raise parse.InvalidAnnotation(f"has <{root.tag}> where Pascal VOC has <annotation>")
    name = (root.findtext("filename") or root.findtext("path") or "").strip()
    folders = tuple(dict.fromkeys((*_near(reader, split, file), file.parent)))
    size = parse.size({side: (root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")})
    inside = [each for each in root.iter() if each.tag == "object" or each.find("bndbox") is not None]
    rows = [each for each in inside if each.tag != "part" and not parse.flag(each.findtext("deleted"))]  # LabelMe's XML
    objects = reader.parse_objects(file, "object", rows, lambda each: _parse_object(reader, each))
    return _Labels(split, file, name, size, objects, folders)


def _near(reader: AnnotationReader, split: str, file: Path) -> tuple[Path, ...]:
    return (reader.images.folder_of(split, file), *reader.images.mirrors(file.parent))


def _add_images(reader: AnnotationReader, labels: Sequence[_Labels]) -> None:
    """Find the image of each XML file: the one that it names, or the one with its stem, where nobody has renamed it.

    Where several files name one image, a tool has copied the name: they are of the images with their stems.
    """
    named = [reader.images.named_in(each.name, each.folders) for each in labels]
    claims = Counter(named)
    for each, path in zip(labels, named, strict=True):
        with reader.error_context(each.file):
            if path is None or claims[path] > 1:
                path = reader.images.with_stem_in(each.file.stem, each.folders) or path
            if path is None:
                path = reader.images.find(each.name or each.file.stem, each.folders[0], stem_only=True)
            size = reader.images.size(path, *each.size)
            reader.add(each.split, AnnotatedImage(path, *size, each.objects, each.file))


def _parse_object(reader: AnnotationReader, element: Element) -> Annotation:
    fields: dict[str, Any] = {}
    box, shape = _parse_shape(reader, element)
    label = reader.label(parse.name(element.findtext("name"), "name"))
    if (extra := element.find("attributes")) is not None:
        with reader.optional("attributes"):
            pairs = ((a.findtext("name"), a.findtext("value")) for a in extra)
            fields = split_attributes({parse.name(name, "name"): (value or "").strip() for name, value in pairs})
    for name in ("difficult", "truncated", "occluded"):
        if (value := element.findtext(name)) is not None:
            fields[name] = parse.flag(value)
    if (pose := (element.findtext("pose") or "").strip()) and pose.casefold() not in ("unspecified", "0"):
        fields["attributes"] = {**fields.get("attributes", {}), "pose": pose}
    if element.find("part") is not None:
        reader.count_warning("objects have parts (heads, hands): their boxes are left out")
    return Annotation(label, box, **fields, **shape)


def _parse_shape(reader: AnnotationReader, element: Element) -> Shape:
    def values(parent: Element, *names: str) -> list[float]:
        return [parse.number(parent.findtext(name), name) for name in names]

    shape: Shape | None = None
    if (polygon := element.find("polygon")) is not None and len(polygon):
        with reader.optional("outlines"):
            shape = polygon_shape(_parse_polygon(polygon))
    if (bounds := element.find("bndbox")) is not None:
        if shape is None:
            return _bounds(*values(bounds, "xmin", "ymin", "xmax", "ymax")), {}
        with reader.optional("boxes of outlines"):
            return _bounds(*values(bounds, "xmin", "ymin", "xmax", "ymax")), shape[1]
    elif (bounds := element.find("robndbox")) is not None:
        x, y, w, h, angle = values(bounds, "cx", "cy", "w", "h", "angle")
        corners = box_to_polygon(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        return polygon_shape(rotate(corners, math.degrees(angle), x, y))
    if shape is None:
        raise parse.InvalidAnnotation("has no <bndbox>")
    return shape


def _bounds(x1: float, y1: float, x2: float, y2: float) -> Box:
    return x1 - 1, y1 - 1, x2, y2


def _parse_polygon(element: Element) -> tuple[float, ...]:
    """``<x1>, <y1>, <x2>, …`` in pixels from 1; in LabelMe's XML, ``<pt>`` with ``<x>`` and ``<y>``, from 0."""
    if points := element.findall("pt"):
        return parse.polygon([(point.findtext("x"), point.findtext("y")) for point in points])
    texts = {child.tag: child.text for child in element}
    names = [f"{axis}{n}" for n in range(1, len(texts) // 2 + 1) for axis in "xy"]
    flat = [parse.number(texts[name], name) - 1 for name in names]
    return parse.polygon(zip(flat[::2], flat[1::2], strict=True))


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``Annotations/``, ``JPEGImages/`` and ``ImageSets/Main/SPLIT.txt``, as published."""
    for split, images in dataset.splits.items():
        stems: list[str] = []
        for image in images:
            path = writer.add_image(image, "JPEGImages")
            stems.append(path.stem)
            if image.objects is not None:
                writer.write_xml(f"Annotations/{path.stem}.xml", _annotation(image, path.name, dataset.classes))
        if split_dir(split):
            writer.write(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))


def _annotation(image: AnnotatedImage, name: str, classes: Sequence[str]) -> Element:
    root = Element("annotation")
    _add(root, folder="JPEGImages", filename=name)
    _add(SubElement(root, "size"), width=image.width, height=image.height, depth=3)
    _add(root, segmented=0)
    for obj in image.objects or ():
        element = SubElement(root, "object")
        _add(element, name=classes[obj.label], pose=obj.attributes.get("pose", "Unspecified"))
        _add(element, **{flag: int(getattr(obj, flag)) for flag in ("truncated", "difficult", "occluded")})
        x1, y1, x2, y2 = obj.box
        sides = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        _add(SubElement(element, "bndbox"), **{side: round_coord(value) for side, value in sides.items()})
        if obj.polygons:
            values = enumerate(obj.outline())
            points = {f"{'xy'[index % 2]}{index // 2 + 1}": round_coord(value + 1) for index, value in values}
            _add(SubElement(element, "polygon"), **points)
        extra = merge_attributes(obj, ("truncated", "difficult", "occluded"))
        extra.pop("pose", None)
        if extra:
            parent = SubElement(element, "attributes")
            for key, value in extra.items():
                _add(SubElement(parent, "attribute"), name=key, value=as_text(value))
    return root


def _add(parent: Element, **children: Any) -> None:
    """Add elements with text."""
    for tag, value in children.items():
        SubElement(parent, tag).text = str(value)


FORMAT = Format(
    "voc", "Pascal VOC XML", "XML files with <annotation>, one per image",
    lambda head: head.xml_root == "annotation", _read, _write, FREE_FORM_FIELDS | {"polygons", "boxes"},
    file_holds="image", boxes="xyxy",
)  # fmt: skip
