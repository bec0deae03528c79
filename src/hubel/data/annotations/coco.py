"""COCO JSON: boxes, polygons, run-length masks, crowds.

``bbox`` is ``[x, y, width, height]`` in continuous pixels, so no pixel is added or subtracted. Classes are ordered by
category id. ``segmentation`` is a list of polygons, or run lengths (compressed text or a list), which are kept as they
are. ``attributes`` (as CVAT writes it), ``score``, ``area`` and ``ignore`` are read; keypoints and supercategories are
not. Images that the file does not list are unlabelled; listed ones without annotations are labelled as empty. COCO's
own images have no EXIF rotation; other programs that write COCO mostly mean the upright image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubel import masks
from hubel.data.annotations import parse
from hubel.data.annotations.attributes import merge_attributes, split_attributes
from hubel.data.annotations.format import FREE_FORM_FIELDS, FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, LabelFiles
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, annotation_area
from hubel.data.annotations.writer import DatasetWriter, round_coord, round_xywh
from hubel.errors import DataError


def _recognizes(head: FileHead) -> bool:
    first, third = head.keys[1], head.keys[3]
    if "images" in first and (first & {"annotations", "categories"} or "file_name" in third):
        return True
    return "annotations" in first and {"image_id", "category_id"} <= third


def _read(reader: AnnotationReader, files: LabelFiles) -> None:
    contents = []
    for split, file in files:
        with reader.error_context(file):
            contents.append((split, file, parse.fields(parse.read_json(file), "the file")))
    labels = _categories(reader, contents)
    for split, file, content in contents:
        with reader.error_context(file):
            _read_file(reader, split, file, content, labels)


def _categories(reader: AnnotationReader, contents: Sequence[tuple[str, Path, dict[str, Any]]]) -> dict[int, int]:
    """Label by category id, over all files; an id must mean the same in each."""
    names: dict[int, str] = {}
    for _, file, content in contents:
        for index, row in enumerate(content.get("categories") or ()):
            with reader.error_context(file, f"category {index + 1}"):
                category = parse.fields(row, "it")
                id_, name = parse.integer(category["id"], "id"), parse.name(category["name"], "name")
                if names.setdefault(id_, name) != name:
                    raise parse.InvalidAnnotation(f"category {id_} is {name!r} here and {names[id_]!r} elsewhere")
    ordered = sorted(names)
    duplicates = {name for name in names.values() if list(names.values()).count(name) > 1}
    if duplicates:
        reader.warn(f"{len(duplicates)} class names have several category ids: {', '.join(sorted(duplicates)[:5])}")
    labels = {id_: reader.label(names[id_]) for id_ in ordered}
    if not duplicates:
        reader.category_ids = tuple(ordered)
    return labels


def _read_file(
    reader: AnnotationReader, split: str, file: Path, content: dict[str, Any], labels: dict[int, int]
) -> None:
    by_image: dict[int, list[tuple[int, Any]]] = defaultdict(list)
    for index, row in enumerate(parse.items(content.get("annotations", []), "annotations")):
        if type(row) is dict and type(row.get("image_id")) is int:  # millions of times
            rows = by_image[row["image_id"]]
            rows.append((index + 1, row))
            reader.check_count(len(rows))
        else:
            with reader.error_context(file, f"annotation {index + 1}"):
                by_image[parse.integer(parse.fields(row, "it")["image_id"], "image_id")].append((index + 1, row))
    near = reader.images.folder_of(split, file)
    for index, row in enumerate(parse.items(content.get("images", []), "images")):
        with reader.error_context(file, f"image {index + 1}"):
            image = parse.fields(row, "it")
            id_ = parse.integer(image["id"], "id")
            path = reader.images.find(parse.name(image["file_name"], "file_name"), near)
            width, height = reader.images.size(path, *parse.size(image))
            annotations = by_image.pop(id_, [])
            reader.check_count(len(annotations))
            objects: list[Annotation] = []
            for number, annotation in annotations:
                with reader.error_context(file, f"annotation {number}"):
                    objects.append(_parse_object(reader, annotation, labels, width, height))
            reader.add(split, AnnotatedImage(path, width, height, tuple(objects), file, id_))
    if orphans := sum(map(len, by_image.values())):
        reader.count_warning("annotations refer to an image that is not in their file: left out", orphans)


def _parse_object(
    reader: AnnotationReader, row: dict[str, Any], labels: dict[int, int], width: int, height: int
) -> Annotation:
    category = parse.integer(row["category_id"], "category_id")
    if category not in labels:
        raise parse.UnknownClass(f"category_id {category} is not one of the categories")
    fields = split_attributes(parse.fields(row["attributes"], "attributes")) if row.get("attributes") else {}
    if "iscrowd" in row:
        fields["crowd"] = bool(parse.integer(row["iscrowd"] or 0, "iscrowd"))
    if row.get("ignore"):
        fields["ignore"] = True
    for name in ("area", "score"):
        if row.get(name) is not None:
            fields[name] = float(row[name])
            if not -1e15 < fields[name] < 1e15:
                raise parse.InvalidAnnotation(f"{name} is {row[name]!r}")
    if row.get("keypoints"):
        reader.count_warning("objects have keypoints: left out")
    segmentation = row.get("segmentation")
    box: masks.Box | None = None
    if isinstance(segmentation, dict):
        size = parse.items(segmentation["size"], "a mask's size")
        mask = masks.parse_mask(parse.integer(size[0], "size"), parse.integer(size[1], "size"), segmentation["counts"])
        if width and (mask.width, mask.height) != (width, height):
            raise parse.InvalidAnnotation(
                f"a mask of {mask.width}×{mask.height} in an image of {width}×{height} pixels"
            )
        fields["mask"] = mask
    elif segmentation:
        fields["polygons"] = tuple(map(_parse_polygon, parse.items(segmentation, "segmentation")))
    if row.get("bbox") is not None:
        x, y, w, h = (parse.number(value, "bbox") for value in parse.items(row["bbox"], "bbox"))
        box = (x, y, x + w, y + h)
    elif "mask" in fields:
        box = masks.mask_box(fields["mask"])
    elif "polygons" in fields:
        box = masks.bounding_box(fields["polygons"])
    if box is None:
        raise parse.InvalidAnnotation("has neither bbox nor segmentation")
    obj = Annotation(labels[category], box, **fields)
    # Most files state the area that their polygons have; only a different one is kept.
    if obj.area is not None and abs(obj.area - annotation_area(replace(obj, area=None))) <= 1e-3 * obj.area:
        obj = replace(obj, area=None)
    return obj


def _parse_polygon(flat: Any) -> masks.Polygon:
    if not isinstance(flat, list) or len(flat) < 6 or len(flat) % 2:
        raise parse.InvalidAnnotation("a polygon of segmentation is not a list of three or more x, y")
    return tuple(parse.number(value, "segmentation") for value in flat)


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``annotations/instances_SPLIT.json``, images in ``SPLIT/`` (``images/`` if unsplit)."""
    category_ids = dataset.category_ids or tuple(range(1, len(dataset.classes) + 1))
    categories = [{"id": id_, "name": name} for id_, name in zip(category_ids, dataset.classes, strict=True)]
    annotation_id = 0
    for split, images in dataset.splits.items():
        old_ids = [image.id for image in images if image.objects is not None]
        keep_ids = None not in old_ids and len(set(old_ids)) == len(old_ids)
        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, path in writer.add_images(images, "images" if split == "all" else split):
            id_ = image.id if keep_ids else len(listed) + 1
            listed.append({"id": id_, "file_name": path.name, "width": image.width, "height": image.height})
            for obj in image.objects or ():
                annotation_id += 1
                row = _annotation(obj, image, category_ids)
                annotations.append({"id": annotation_id, "image_id": id_, **row})
                if obj.holes and obj.mask is None:
                    writer.record_loss("polygons with holes become masks")
        content = {"images": listed, "annotations": annotations, "categories": categories}
        writer.write_json(f"annotations/instances_{split}.json", content)


def _annotation(obj: Annotation, image: AnnotatedImage, category_ids: Sequence[int]) -> dict[str, Any]:
    row: dict[str, Any] = {"category_id": category_ids[obj.label], "bbox": list(round_xywh(obj))}
    mask = obj.mask
    if mask is None and obj.holes:
        try:
            mask = masks.encode(masks.rasterize(obj.polygons, obj.holes, image.height, image.width))
        except ValueError as error:
            message = f"{image.label_file or image.path}: an object with holes cannot be rasterized: {error}."
            hint = "Correct or remove that object, or choose supervisely, which supports holes."
            raise DataError(message, hint) from error
    if mask is not None:
        row["segmentation"] = mask.to_coco()
    else:
        row["segmentation"] = [[round_coord(value) for value in polygon] for polygon in obj.polygons]
    row |= {"area": round_coord(annotation_area(obj)), "iscrowd": int(obj.crowd)}
    if obj.ignore:
        row["ignore"] = 1
    if obj.score is not None:
        row["score"] = obj.score
    if attributes := merge_attributes(obj, ("crowd", "ignore", "score", "area")):
        row["attributes"] = attributes
    return row


FORMAT = Format(
    "coco", "COCO JSON", "a JSON file with images, annotations and categories",
    _recognizes, _read, _write,
    FREE_FORM_FIELDS | {"polygons", "parts", "holes", "masks", "boxes", "unused", "order"}, sort_classes=False,
    boxes="xywh",
)  # fmt: skip
