"""COCO JSON: boxes, polygons, run-length masks, crowds.

``bbox`` is ``[x, y, width, height]`` in continuous pixels, so no pixel is added or subtracted. Classes are ordered by
category id. ``segmentation`` is a list of polygons, or run lengths (compressed text or a list), which are kept as they
are. ``attributes`` (as CVAT writes it), ``score``, ``area`` and ``ignore`` are read; keypoints and supercategories are
not. Images that the file does not list are unlabelled; listed ones without annotations are labelled as empty, unless
the file has no ``annotations`` at all, or some of an image that it does not list. COCO's own images have
no EXIF rotation; other programs that write COCO mostly mean the upright image.

Of an image with ``neg_category_ids`` or ``not_exhaustive_category_ids``, LVIS's keys (Gupta, Dollár and Girshick 2019,
arXiv 1908.03195), only some classes are labelled: those of its annotations and of the first list, without
those of the second.

Ids are keys of any kind: they have to equal each other, and ``"1"`` equals ``1``. Whatever of an object cannot be read
beside a good ``bbox`` (or beside a good outline) is left out and counted, and the object stays.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hubel import masks
from hubel.data.annotations import parse
from hubel.data.annotations.attributes import merge_attributes, split_attributes
from hubel.data.annotations.format import FREE_FORM_FIELDS, FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, LabelFiles, Shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, annotation_area
from hubel.data.annotations.writer import DatasetWriter, round_coord, round_xywh
from hubel.errors import DataError

_QUANTITIES = {"area": (0.0, 1e15), "score": (0.0, 1.0)}  # with their ranges
_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")
_RUNS = 16  # pixels of run lengths, which are kept as they are, count for one that is decoded


def _recognizes(head: FileHead) -> bool:
    first, third = head.keys[1], head.keys[3]
    if "images" in first and (first & {"annotations", "categories"} or "file_name" in third):
        return True
    return "annotations" in first and {"image_id", "category_id"} <= third


def _read(reader: AnnotationReader, files: LabelFiles) -> None:
    contents = []
    for split, file in files:
        with reader.error_context(file):
            contents.append((split, file, parse.fields(reader.read_json(file), "the file")))
    labels = _categories(reader, contents)
    for split, file, content in contents:
        with reader.error_context(file):
            _read_file(reader, split, file, content, labels)


def _categories(reader: AnnotationReader, contents: Sequence[tuple[str, Path, dict[str, Any]]]) -> dict[str, int]:
    """Label by category id, over all files; an id must mean the same in each, or its objects cannot be read."""
    names: dict[str, str] = {}
    ambiguous: set[str] = set()
    for _, file, content in contents:
        rows: list[Any] = []
        with reader.error_context(file):
            rows = parse.items(content.get("categories") or [], "categories")
        for index, row in enumerate(rows):
            with reader.error_context(file, f"category {index + 1}"):
                category = parse.fields(row, "it")
                id_, name = parse.key(category["id"], "id"), parse.name(category["name"], "name")
                if names.setdefault(id_, name) != name:
                    ambiguous.add(id_)
                    raise parse.InvalidAnnotation(f"category {id_} is {name!r} here and {names[id_]!r} elsewhere")
    ordered = sorted(names, key=parse.key_order)
    duplicates = {name for name, count in Counter(names.values()).items() if count > 1}
    if duplicates:
        reader.warn(f"{len(duplicates)} class names have several category ids: {', '.join(sorted(duplicates)[:5])}")
    labels = {id_: reader.label(names[id_]) for id_ in ordered}
    numbers = [number for id_ in ordered if (number := parse.key_number(id_)) is not None]
    if len(numbers) == len(reader.classes):
        reader.category_ids = tuple(numbers)
    return {id_: label for id_, label in labels.items() if id_ not in ambiguous}


def _read_file(
    reader: AnnotationReader, split: str, file: Path, content: dict[str, Any], labels: dict[str, int]
) -> None:
    stated = content.get("annotations")  # none in a list of images, as for a benchmark's test set
    by_image, unknown = _by_image(reader, file, [] if stated is None else parse.items(stated, "annotations"))
    near = reader.images.folder_of(split, file)
    rows = parse.items(content.get("images", []), "images")
    names = _names_by_id(rows)
    listed: list[AnnotatedImage] = []
    done: set[str] = set()
    for index, row in enumerate(rows):
        with reader.error_context(file, f"image {index + 1}"):
            image = parse.fields(row, "it")
            id_ = parse.key(image["id"], "id")
            path = reader.images.find(parse.name(image["file_name"], "file_name"), near)
            if len(names[id_]) > 1:
                by_image.pop(id_, None)
                raise parse.InvalidAnnotation(f"has the id {id_} of another image: whose labels are whose is not clear")
            if id_ in done:
                reader.count_warning("images are listed again with the same id: read once")
                continue
            done.add(id_)
            width, height = reader.images.size(path, *parse.size(image))
            found = by_image.pop(id_, [])
            named = ((f"annotation {number}", row) for number, row in found)
            objects = reader.parse_rows(
                file, named, len(found), partial(_parse_object, reader, labels=labels, width=width, height=height)
            )
            number = parse.key_number(id_)
            own = id_ if number is None else number
            labelled = _labelled_classes(image, objects or (), labels)
            listed.append(AnnotatedImage(path, width, height, objects, file, own, labelled))
    if orphans := sum(map(len, by_image.values())):
        reader.count_warning("annotations refer to an image that is not in their file: left out", orphans)
    # Where an annotation's image is not known, it may be one of those without objects.
    trusted = not unknown and not orphans and stated is not None
    empty = [image for image in listed if image.objects == ()]
    if stated is None:
        reader.warn(f"{file} lists images, but has no annotations: its images are unlabelled")
    elif empty and not trusted:
        doubtful = "images may have the objects whose image is not known: left out, not taken as empty"
        reader.count_warning(doubtful, len(empty))
    for each in listed:
        with reader.error_context(file, f"image {each.id}"):
            reader.add(split, each if trusted or each.objects else replace(each, objects=None))


def _labelled_classes(
    image: dict[str, Any], objects: Sequence[Annotation], labels: dict[str, int]
) -> tuple[int, ...] | None:
    """Labels of the classes that are labelled in full; ``None`` where the image does not say."""
    absent, in_part = (_listed_classes(image, name, labels) for name in _FEDERATED)
    if absent is None and in_part is None:
        return None
    return tuple(sorted(({obj.label for obj in objects} | (absent or set())) - (in_part or set())))


def _listed_classes(image: dict[str, Any], name: str, labels: dict[str, int]) -> set[int] | None:
    if image.get(name) is None:
        return None
    ids = [parse.key(id_, name) for id_ in parse.items(image[name], name)]
    if unknown := [id_ for id_ in ids if id_ not in labels]:
        raise parse.UnknownClass(f"{name} has {unknown[0]}, which is not one of the categories")
    return {labels[id_] for id_ in ids}


def _names_by_id(rows: list[Any]) -> dict[str, set[str]]:
    """Names of the images with an id; more than one where it is ambiguous."""
    names: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        with contextlib.suppress(parse.InvalidAnnotation, TypeError, AttributeError):
            names[parse.key(row.get("id"), "id")].add(str(row.get("file_name")))
    return names


def _by_image(reader: AnnotationReader, file: Path, rows: list[Any]) -> tuple[dict[str, list[tuple[int, Any]]], int]:
    """Annotations by the id of their image, with their numbers, from 1; and how many have none that can be read."""
    by_image: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    ids: set[Any] = set()
    repeated = unknown = 0
    for number, row in enumerate(rows, 1):
        if type(row) is dict and type(row.get("image_id")) is int:  # millions of times
            of_image = by_image[str(row["image_id"])]
        else:
            id_ = None
            with reader.error_context(file, f"annotation {number}"):
                id_ = parse.key(parse.fields(row, "it")["image_id"], "image_id")
            if id_ is None:
                unknown += 1
                continue
            of_image = by_image[id_]
        of_image.append((number, row))
        reader.check_count(len(of_image))
        if type(own := row.get("id")) in (int, str):
            repeated += own in ids
            ids.add(own)
    if repeated:
        reader.count_warning("annotations have the id of an earlier one: all are kept", repeated)
    return by_image, unknown


def _parse_object(reader: AnnotationReader, row: Any, labels: dict[str, int], width: int, height: int) -> Annotation:
    row = parse.fields(row, "it")
    category = parse.key(row["category_id"], "category_id")
    if category not in labels:
        raise parse.UnknownClass(f"category_id {category} is not one of the categories")
    box, fields = _parse_shape(reader, row, width, height)
    if row.get("attributes"):
        with reader.optional("attributes"):
            fields |= split_attributes(parse.fields(row["attributes"], "attributes"))
    if row.get("iscrowd"):
        with reader.optional("values of iscrowd"):
            fields["crowd"] = _parse_crowd(row["iscrowd"])
    if row.get("ignore"):
        fields["ignore"] = parse.flag(row["ignore"])
    for name, limits in _QUANTITIES.items():
        if row.get(name) is not None:
            with reader.optional(f"values of {name}"):
                fields[name] = _parse_quantity(row[name], *limits)
    if row.get("keypoints"):
        reader.count_warning("objects have keypoints: left out")
    obj = Annotation(labels[category], box, **fields)
    # Most files state the area that their polygons have; only a different one is kept.
    if obj.area is not None and abs(obj.area - annotation_area(replace(obj, area=None))) <= 1e-3 * obj.area:
        obj = replace(obj, area=None)
    return obj


def _parse_crowd(value: Any) -> bool:
    return value if isinstance(value, bool) else bool(parse.integer(value, "iscrowd"))


def _parse_quantity(value: Any, least: float, most: float) -> float:
    quantity = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else parse.number(value)
    if not least <= quantity <= most:
        raise parse.InvalidAnnotation(f"{quantity} is not between {least} and {most}")
    return quantity


def _parse_shape(reader: AnnotationReader, row: dict[str, Any], width: int, height: int) -> Shape:
    """The box, and the outline or mask; whichever of them cannot be read is left out, if the other can."""
    fields: dict[str, Any] = {}
    box: masks.Box | None = None
    reasons: list[Exception] = []
    if bbox := row.get("bbox"):
        try:
            box = _parse_box(bbox)
        except parse.InvalidAnnotation as error:
            reasons.append(error)
    segmentation = row.get("segmentation")
    try:
        if isinstance(segmentation, dict):
            fields["mask"] = _parse_mask(reader, segmentation, width, height)
        elif segmentation:
            fields["polygons"] = _parse_polygons(reader, segmentation)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        is_ours = isinstance(error, parse.InvalidAnnotation)
        reasons.append(
            error if is_ours else parse.InvalidAnnotation(f"segmentation is not an outline or a mask ({error})")
        )
        if box is not None:
            what = f"that of annotation {row['id']}" if type(row.get("id")) is int else "the first"
            left_out = "outlines or masks cannot be read: left out, their boxes stay"
            reader.count_warning(left_out, why=f"{what}: {reasons[-1]}")
    outlined = masks.mask_box(fields["mask"]) if "mask" in fields else None
    if fields.get("polygons"):
        outlined = masks.bounding_box(fields["polygons"])
    is_empty = box is not None and not (box[0] < box[2] and box[1] < box[3])
    if outlined is not None and (box is None or is_empty):
        if bbox:
            reader.count_warning("boxes cannot be read: those of their outlines are used")
        box = outlined
    if box is None:
        raise reasons[0] if reasons else parse.InvalidAnnotation("has neither bbox nor segmentation")
    return box, fields


def _parse_box(bbox: Any) -> masks.Box:
    numbers = [parse.number(value, "bbox") for value in parse.items(bbox, "bbox")]
    if len(numbers) != 4:
        raise parse.InvalidAnnotation(f"bbox has {len(numbers)} numbers, not 4")
    x, y, w, h = numbers
    return x, y, x + w, y + h


def _parse_mask(reader: AnnotationReader, segmentation: dict[str, Any], width: int, height: int) -> masks.RunLengthMask:
    size = parse.items(segmentation["size"], "a mask's size")
    mask = masks.parse_mask(parse.integer(size[0], "size"), parse.integer(size[1], "size"), segmentation["counts"])
    reader.count_mask(mask.height * mask.width // _RUNS)
    if width and (mask.width, mask.height) != (width, height):
        raise parse.InvalidAnnotation(f"a mask of {mask.width}×{mask.height} in an image of {width}×{height} pixels")
    return mask


def _parse_polygons(reader: AnnotationReader, segmentation: Any) -> tuple[masks.Polygon, ...]:
    """The outlines of three or more points; VIA writes a single one without a list around it."""
    rings = parse.items(segmentation, "segmentation")
    if not isinstance(rings[0], list | dict):
        rings = [rings]
    polygons: list[masks.Polygon] = []
    reason: Exception | None = None
    for flat in rings:
        try:
            polygons.append(_parse_polygon(flat))
        except parse.InvalidAnnotation as error:
            reason = error
    if not polygons and reason is not None:
        raise reason
    if len(polygons) < len(rings):
        reader.count_warning(
            "outlines of less than three points: left out, the objects stay", len(rings) - len(polygons)
        )
    return tuple(polygons)


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
        # Readers sort ids, so all are numbers or all are text.
        one_kind = None not in old_ids and len(set(map(type, old_ids))) == 1
        keep_ids = one_kind and len(set(old_ids)) == len(old_ids)
        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, path in writer.add_images(images, "images" if split == "all" else split):
            id_ = image.id if keep_ids else len(listed) + 1
            row = {"id": id_, "file_name": path.name, "width": image.width, "height": image.height}
            listed.append(row | _federated(image, category_ids))
            for obj in image.objects or ():
                annotation_id += 1
                row = _annotation(obj, image, category_ids)
                annotations.append({"id": annotation_id, "image_id": id_, **row})
                if obj.holes and obj.mask is None:
                    writer.record_loss("polygons with holes become masks")
        content = {"images": listed, "annotations": annotations, "categories": categories}
        writer.write_json(f"annotations/instances_{split}.json", content)


def _federated(image: AnnotatedImage, category_ids: Sequence[int]) -> dict[str, list[int]]:
    if image.labelled is None:
        return {}
    labelled, present = set(image.labelled), {obj.label for obj in image.objects or ()}
    lists = zip(_FEDERATED, (labelled - present, present - labelled), strict=True)
    return {name: [category_ids[label] for label in sorted(classes)] for name, classes in lists}


def _annotation(obj: Annotation, image: AnnotatedImage, category_ids: Sequence[int]) -> dict[str, Any]:
    row: dict[str, Any] = {"category_id": category_ids[obj.label], "bbox": list(round_xywh(obj))}
    mask = obj.mask
    if mask is None and obj.holes:
        try:
            mask = masks.encode(masks.rasterize(obj.polygons, obj.holes, image.height, image.width))
        except ValueError as error:
            message = f"{image.label_file or image.path}: an object with holes cannot be rasterized: {error}"
            hint = "correct or remove that object, or choose supervisely, which supports holes"
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
    FREE_FORM_FIELDS | {"polygons", "parts", "holes", "masks", "boxes", "unused", "order", "labelled"},
    sort_classes=False, boxes="xywh",
)  # fmt: skip
