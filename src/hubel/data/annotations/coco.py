"""COCO JSON: boxes, polygons, run-length masks, crowds.

``bbox`` is ``[x, y, width, height]`` in pixels from the picture's corner, in fractions of pixels, so no pixel is
added or taken. The classes' order is that of the category ids. ``segmentation`` is a list of polygons, or run
lengths (compressed text or a list), which are kept as they are. ``attributes`` (as CVAT writes it), ``score``,
``area`` and ``ignore`` are kept; keypoints and supercategories are not. Pictures that the file does not list are
unlabelled; listed ones without annotations are labelled as empty. COCO's own pictures carry no EXIF rotation; other
programs that write COCO mostly mean the upright picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubel.data.annotations import rle
from hubel.data.annotations.attributes import merged_attributes, split_attributes
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box, Polygon
from hubel.data.annotations.safe_parsing import read_json
from hubel.data.annotations.validators import InvalidAnnotation, around, expect_list, expect_object, number, text, whole
from hubel.data.annotations.writer import DatasetWriter, round_coord
from hubel.errors import DataError


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read COCO files, one or more a split."""
    contents = []
    for split, file in files:
        with reading.at(file):
            contents.append((split, file, expect_object(read_json(file), "the file")))
    labels = _categories(reading, contents)
    for split, file, content in contents:
        with reading.at(file):
            _read_file(reading, split, file, content, labels)


def _categories(reading: AnnotationReader, contents: Sequence[tuple[str, Path, dict[str, Any]]]) -> dict[int, int]:
    """Label by category id, over all files; the ids must mean the same in each."""
    names: dict[int, str] = {}
    for _, file, content in contents:
        for place, row in enumerate(content.get("categories") or ()):
            with reading.at(file, f"category {place + 1}"):
                category = expect_object(row, "it")
                number_of, name = whole(category["id"], "id"), text(category["name"], "name")
                if names.setdefault(number_of, name) != name:
                    raise InvalidAnnotation(f"category {number_of} is {name!r} here and {names[number_of]!r} elsewhere")
    ordered = sorted(names)
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    if twice:
        reading.warn(f"{len(twice)} class names have several category ids: {', '.join(sorted(twice)[:5])}")
    labels = {number_of: reading.label(names[number_of]) for number_of in ordered}
    if not twice:
        reading.category_ids = tuple(ordered)
    return labels


def _read_file(
    reading: AnnotationReader, split: str, file: Path, content: dict[str, Any], labels: dict[int, int]
) -> None:
    by_image: dict[int, list[tuple[int, Any]]] = defaultdict(list)
    for place, row in enumerate(expect_list(content.get("annotations", []), "annotations")):
        if type(row) is dict and type(row.get("image_id")) is int:  # millions of times
            rows = by_image[row["image_id"]]
            rows.append((place + 1, row))
            reading.limit(len(rows))
        else:
            with reading.at(file, f"annotation {place + 1}"):
                by_image[whole(expect_object(row, "it")["image_id"], "image_id")].append((place + 1, row))
    near = reading.pictures.folder_of(split, file)
    for place, row in enumerate(expect_list(content.get("images", []), "images")):
        with reading.at(file, f"image {place + 1}"):
            image = expect_object(row, "it")
            number_of = whole(image["id"], "id")
            path = reading.pictures.find(text(image["file_name"], "file_name"), near)
            width, height = whole(image.get("width") or 0, "width"), whole(image.get("height") or 0, "height")
            width, height = reading.pictures.size(path, width, height)
            annotations = by_image.pop(number_of, [])
            reading.limit(len(annotations))
            objects: list[Annotation] = []
            for at, annotation in annotations:
                with reading.at(file, f"annotation {at}"):
                    objects.append(_object(reading, annotation, labels, width, height))
            reading.add(split, AnnotatedImage(path, width, height, tuple(objects), file, number_of))
    if lost := sum(map(len, by_image.values())):
        reading.count("annotations belong to no picture of their file: left out", lost)


def _object(
    reading: AnnotationReader, row: dict[str, Any], labels: dict[int, int], width: int, height: int
) -> Annotation:
    category = whole(row["category_id"], "category_id")
    if category not in labels:
        raise InvalidAnnotation(f"category_id {category} is none of the categories")
    known = split_attributes(expect_object(row["attributes"], "attributes")) if row.get("attributes") else {}
    if "iscrowd" in row:
        known["crowd"] = bool(whole(row["iscrowd"] or 0, "iscrowd"))
    if row.get("ignore"):
        known["ignore"] = True
    for name in ("area", "score"):
        if row.get(name) is not None:
            known[name] = _number(row[name], name)
    if row.get("keypoints"):
        reading.count("objects have keypoints: left out")
    segmentation = row.get("segmentation")
    box: Box | None = None
    if isinstance(segmentation, dict):
        size = expect_list(segmentation["size"], "a mask's size")
        mask = rle.checked_mask(whole(size[0], "size"), whole(size[1], "size"), segmentation["counts"])
        if width and (mask.width, mask.height) != (width, height):
            raise InvalidAnnotation(f"a mask of {mask.width}×{mask.height} in a picture of {width}×{height} pixels")
        known["mask"] = mask
    elif segmentation:
        known["polygons"] = polygons = tuple(_ring(flat) for flat in expect_list(segmentation, "segmentation"))
        box = around(polygons)
    if row.get("bbox") is not None:
        x, y, w, h = (number(value, "bbox") for value in expect_list(row["bbox"], "bbox"))
        box = (x, y, x + w, y + h)
    elif "mask" in known:
        box = rle.box(known["mask"])
    if box is None:
        raise InvalidAnnotation("has neither bbox nor segmentation")
    thing = Annotation(labels[category], box, **known)
    # Most files give the area that their outlines have; what follows from them is not kept apart from them.
    if thing.area is not None and abs(thing.area - rle.covered(replace(thing, area=None))) <= 1e-3 * thing.area:
        thing = replace(thing, area=None)
    return thing


def _number(value: Any, what: str) -> float:
    result = float(value)
    if not -1e15 < result < 1e15:
        raise InvalidAnnotation(f"{what} is {value!r}")
    return result


def _ring(flat: Any) -> Polygon:
    if not isinstance(flat, list) or len(flat) < 6 or len(flat) % 2:
        raise InvalidAnnotation("a polygon of segmentation is no list of three or more x, y")
    return tuple(number(value, "segmentation") for value in flat)


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``annotations/instances_SPLIT.json``, pictures in ``SPLIT/`` (``images/`` if unsplit)."""
    ids = dataset.category_ids or tuple(range(1, len(dataset.classes) + 1))
    categories = [{"id": ids[place], "name": name} for place, name in enumerate(dataset.classes)]
    serial = 0
    for split, images in dataset.splits.items():
        given = [image.id for image in images if image.objects is not None]
        keep = None not in given and len(set(given)) == len(given)
        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image in images:
            name = target.place(image, "images" if split == "all" else split).name
            if image.objects is None:
                continue
            number_of = image.id if keep else len(listed) + 1
            listed.append({"id": number_of, "file_name": name, "width": image.width, "height": image.height})
            for thing in image.objects:
                serial += 1
                annotations.append({"id": serial, "image_id": number_of, **_annotation(thing, image, ids)})
                if thing.holes and thing.mask is None:
                    target.lost("outlines with holes become masks")
        content = {"images": listed, "annotations": annotations, "categories": categories}
        target.write_json(f"annotations/instances_{split}.json", content)


def _annotation(thing: Annotation, image: AnnotatedImage, ids: Sequence[int]) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    row: dict[str, Any] = {
        "category_id": ids[thing.label],
        "bbox": [round_coord(x1), round_coord(y1), round_coord(x2 - x1), round_coord(y2 - y1)],
    }
    mask = thing.mask
    if mask is None and thing.holes:
        try:
            pixels = rle.draw(thing.polygons, thing.holes, image.height, image.width)
        except ValueError as error:
            where = image.label_file or image.path
            message = f"{where}: an object with holes cannot be drawn: {error}."
            raise DataError(
                message, "Mend or leave out that object, or choose supervisely, which holds holes."
            ) from error
        mask = rle.encode(pixels)
    if mask is not None:
        row["segmentation"] = {"size": [mask.height, mask.width], "counts": mask.counts}
    else:
        row["segmentation"] = [[round_coord(value) for value in ring] for ring in thing.polygons]
    row |= {"area": round_coord(rle.covered(thing)), "iscrowd": int(thing.crowd)}
    if thing.ignore:
        row["ignore"] = 1
    if thing.score is not None:
        row["score"] = thing.score
    if attributes := merged_attributes(thing, ("crowd", "ignore", "score", "area")):
        row["attributes"] = attributes
    return row
