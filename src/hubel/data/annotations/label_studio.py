"""Label Studio's exports JSON, JSON-MIN and CSV: tasks with annotations, in percent of the image.

``x``, ``y``, ``width``, ``height`` are percentages of ``original_width`` and ``original_height``, those of the upright
image (browsers apply the EXIF rotation). ``rotation`` rotates a box clockwise around its upper left corner; the result
is a polygon. Polygons, ellipses and brush masks are read; key points and relations are left out and counted, and so are
predictions. Choices made for one region are attributes. A task without annotations is unlabelled; several annotations
of a task give all their objects, with the annotators' names. An image that was rotated in the editor
(``image_rotation``) is refused: what its percentages mean is not documented. Uploaded images have eight letters before
their name, and are looked up with and without them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hubel import masks
from hubel.data.annotations import parse
from hubel.data.annotations.attributes import group_by_annotator, merge_attributes, split_attributes
from hubel.data.annotations.format import FREE_FORM_FIELDS, FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, Shape, each_file, polygon_shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, split_dir
from hubel.data.file_listing import IMAGE_SUFFIXES

_Row = dict[str, Any]
_SHAPES = ("rectangle", "polygon", "ellipse", "brush")
_SHAPE_OF = {"points": "polygon", "radiusX": "ellipse", "rle": "brush", "width": "rectangle"}  # by a field of it
_ANSWER_FIELDS = frozenset({"choices", "text", "rating", "number"})
_ANSWERS = ("choices", "textarea", "text", "rating", "number", "taxonomy", "datetime")


def _recognizes(head: FileHead) -> bool:
    if head.suffix == ".csv":
        return {"annotator", "annotation_id"} <= {name.strip(' "') for name in head.text.partition("\n")[0].split(",")}
    fields = head.keys[2]
    if "data" in fields:
        return head.is_json_list and bool(fields & {"annotations", "completions", "predictions"})
    is_min = "annotation_id" in fields or bool(head.keys[4] & {f"{shape}labels" for shape in _SHAPES})
    return head.is_json_list and is_min


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    near = reader.images.folder_of(split, file)
    for where, row in _rows(reader, file):
        with reader.error_context(file, where):
            task = parse.fields(row, "it")
            task = task if "data" in task else _task_of_min(task)
            _read_task(reader, split, file, near, where, task)


def _rows(reader: AnnotationReader, file: Path) -> Iterator[tuple[str, Any]]:
    if file.suffix.lower() != ".csv":
        for index, row in enumerate(parse.items(reader.read_json(file), "the file"), 1):
            yield f"task {index}", row
        return
    for line, cells in parse.csv_table(reader.read_text(file))[1]:
        where = f"line {line}"
        with reader.error_context(file, where):
            yield (
                where,
                {
                    name: parse.json_text(cell, f"{file}, {where}") if cell.startswith(("[", "{")) else cell
                    for name, cell in cells.items()
                },
            )


def _task_of_min(row: _Row) -> _Row:
    """A task with one annotation from a row of JSON-MIN or CSV, in which regions are lists among the task's data."""
    results: list[_Row] = []
    for name, regions in row.items():
        for region in regions if isinstance(regions, list) else ():
            if isinstance(region, dict):
                kind = next((key for key in region if key.endswith("labels")), None)
                shape = next((shape for key, shape in _SHAPE_OF.items() if key in region), None)
                if kind == "labels" and shape is not None:  # a label of any shape, which is in another list too
                    kind = f"{shape}labels"
                    region = {**region, kind: region["labels"]}
                if kind is not None or (shape is not None and _ANSWER_FIELDS.isdisjoint(region)):
                    results.append({"type": kind or shape, "from_name": name, "value": region, **region})
    if any("labels" in result for result in results):
        results = [result for result in results if str(result["type"]).endswith("labels")]
    for index, result in enumerate(results):
        result["id"] = index
    annotation = {"result": results, "completed_by": row.get("annotator")}
    return {"data": {key: value for key, value in row.items() if isinstance(value, str)}, "annotations": [annotation]}


def _read_task(reader: AnnotationReader, split: str, file: Path, near: Path, where: str, task: _Row) -> None:
    path = _find_image(reader, parse.fields(task["data"], "data"), task.get("file_upload"), near)
    annotations = parse.items(task.get("annotations", task.get("completions")) or [], "annotations")
    submitted = [a for each in annotations if not (a := parse.fields(each, "an annotation")).get("was_cancelled")]
    if isinstance(task.get("predictions"), list) and task["predictions"]:
        reader.count_warning("predictions: left out", len(task["predictions"]))
    size = (0, 0)
    regions: dict[tuple[int, str], list[_Row]] = defaultdict(list)
    for number, annotation in enumerate(submitted):
        for index, result in enumerate(parse.items(annotation["result"], "result")):
            fields = parse.fields(result, "a result")
            regions[number, str(fields.get("id") or index)].append(fields)
            size = max(size, parse.size(fields, "original_width", "original_height"))
    regions = {key: results for key, results in regions.items() if not all(map(_is_answer, results))}
    width, height = reader.images.size(path, *size)

    def parse_region(row: tuple[int, list[_Row]]) -> Annotation | None:
        number, results = row
        return _parse_object(reader, results, (width, height), _annotator(submitted[number]))

    rows = ((f"{where}, region {id_}", (number, results)) for (number, id_), results in regions.items())
    objects = reader.parse_rows(file, rows, len(regions), parse_region)
    reader.count_annotators(objects or ())
    labels = objects if submitted else None
    reader.add(split, AnnotatedImage(path, width, height, labels, file if submitted else None))


def _is_answer(result: _Row) -> bool:
    """True for a choice, a text or a rating, and for relations of regions: alone, they are not objects."""
    return result.get("type") == "relation" or result.get("type") in _ANSWERS


def _annotator(annotation: _Row) -> str | None:
    by = annotation.get("completed_by")
    by = (by.get("email") or by.get("id")) if isinstance(by, dict) else by
    return None if by is None else str(by)


def _find_image(reader: AnnotationReader, data: _Row, upload: Any, near: Path) -> Path:
    texts = [value for value in data.values() if isinstance(value, str)]
    names = [text for text in texts if Path(text.partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES]
    names += [text for text in texts if "?d=" in text]
    name = parse.name(data.get("image") or data.get("img") or next(iter(names or texts), None), "data.image")
    # A name that begins with / is a URL on Label Studio's server, not a path on somebody's disk.
    candidates: list[str] = [f"http://server{name}" if name.startswith("/data/") else name]
    candidates += [upload] if isinstance(upload, str) and upload else []
    candidates += [re.sub(r"^.*[/\\]", "", candidate) for candidate in candidates]
    candidates += [re.sub(r"^[0-9a-f]{8}-", "", candidate) for candidate in candidates]
    return reader.images.find_any(candidates, near)


def _parse_object(
    reader: AnnotationReader, results: list[_Row], size: tuple[int, int], annotator: str | None
) -> Annotation | None:
    """The object from all results of a region: its shape, its label, its choices; ``None`` for a key point."""
    shape: Shape | None = None
    names: list[Any] = []
    attributes: dict[str, Any] = {}
    left_out, unknown = False, ""
    for result in results:
        kind = str(result.get("type") or "")
        value = parse.fields(result.get("value") or {}, "value")
        names += value.get(kind) or [] if kind.endswith("labels") else []
        base = kind.removesuffix("labels")
        if base in _SHAPES:
            if result.get("image_rotation"):
                raise parse.InvalidAnnotation("belongs to an image that was rotated in the editor")
            shape = _parse_shape(reader, base, value, *size)
        elif kind == "choices":
            with reader.optional("choices"):
                choices = ", ".join(map(str, value.get("choices") or ()))
                attributes[str(result.get("from_name") or "choices")] = choices
        elif base.startswith("keypoint"):
            reader.count_warning("key points: left out")
            left_out = True
        elif not _is_answer(result) and kind != "labels":
            unknown = kind
        if result.get("score") is not None:
            attributes["score"] = result["score"]
    if shape is None:
        if left_out:
            return None
        raise parse.InvalidAnnotation(f"is of type {unknown[:100]!r}, which is not read" if unknown else "has no shape")
    if not names:
        raise parse.InvalidAnnotation("has no label")
    if len(names) > 1:
        reader.count_warning("regions have several labels: the first is used")
    fields = split_attributes(attributes)
    return Annotation(reader.label(parse.name(names[0], "label")), shape[0], **shape[1], **fields, annotator=annotator)


def _parse_shape(reader: AnnotationReader, kind: str, value: _Row, width: int, height: int) -> Shape:
    if not (width and height):
        raise parse.InvalidAnnotation("is in percent of an image of unknown size, which is missing or unreadable")
    sx, sy = width / 100, height / 100
    if kind == "brush":
        reader.count_mask(4 * height * width)
        mask = _decode_brush(parse.items(value["rle"], "rle"), width, height)
        return masks.mask_box(mask), {"mask": mask}
    if kind == "polygon":
        points = parse.items(value["points"], "points")
        return polygon_shape(parse.polygon([(x * sx, y * sy) for x, y in map(parse.point, points)]))
    x, y = parse.number(value["x"], "x") * sx, parse.number(value["y"], "y") * sy
    degrees = parse.number(value.get("rotation") or 0, "rotation")
    if kind == "ellipse":
        rx, ry = parse.number(value["radiusX"], "radiusX") * sx, parse.number(value["radiusY"], "radiusY") * sy
        return polygon_shape(masks.ellipse(x, y, rx, ry, degrees))
    box = (x, y, x + parse.number(value["width"], "width") * sx, y + parse.number(value["height"], "height") * sy)
    return polygon_shape(masks.rotate(masks.box_to_polygon(*box), degrees, x, y)) if degrees else (box, {})


def _decode_brush(packed: list[Any], width: int, height: int) -> masks.RunLengthMask:
    """Brush strokes: RGBA bytes packed by the rle-pack of @thi.ng/umbrella; pixels with alpha > 0 are painted.

    32 bits hold the number of values, 5 bits the bits per value less one, 4 times 4 bits the bits per run length less
    one. Runs follow: a bit that is set if one value repeats, 2 bits that choose the size of the length, the length less
    one, and the value or the values.
    """
    masks.check_size(height, width)
    count = 4 * width * height
    bits = np.unpackbits(np.array(packed, dtype=np.uint8))
    position = 0

    def take(number: int) -> int:
        nonlocal position
        position += number
        if position > bits.size:
            raise parse.InvalidAnnotation("has a truncated mask")
        return int("".join(map(str, bits[position - number : position].tolist())), 2)

    if take(32) != count:
        raise parse.InvalidAnnotation("has a mask that is not of its image's size")
    word = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint8)
    filled = 0
    while filled < count:
        repeats = take(1)
        length = take(sizes[take(2)]) + 1
        if filled + length > count or word != 8:
            raise parse.InvalidAnnotation("has a mask that is longer than its image")
        if repeats:
            values[filled : filled + length] = take(word)
        else:
            if position + word * length > bits.size:
                raise parse.InvalidAnnotation("has a truncated mask")
            values[filled : filled + length] = np.packbits(bits[position : position + word * length])
            position += word * length
        filled += length
    return masks.encode(values.reshape(height, width, 4)[:, :, 3] > 0)


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/label_studio.json`` beside the images."""
    for split, images in dataset.splits.items():
        tasks: list[_Row] = []
        for image in images:
            name = writer.add_image(image, split_dir(split)).name
            task: _Row = {"id": len(tasks) + 1, "data": {"image": name}, "annotations": [], "predictions": []}
            if image.objects and not (image.width and image.height):
                writer.record_loss("images of unknown size: their labels cannot be written in percent")
            elif image.objects is not None:
                for annotator, objects in group_by_annotator(image.objects).items():
                    results = [r for i, obj in enumerate(objects) for r in _results(obj, image, dataset.classes, i)]
                    by = {"completed_by": annotator} if annotator else {}
                    task["annotations"].append({"result": results, **by})
            tasks.append(task)
        writer.write_json(Path(split_dir(split)) / "label_studio.json", tasks)


def _results(obj: Annotation, image: AnnotatedImage, classes: Sequence[str], index: int) -> Iterator[_Row]:
    sx, sy = image.width / 100, image.height / 100
    common = {
        "id": f"r{index + 1}", "to_name": "image", "original_width": image.width, "original_height": image.height,
        "image_rotation": 0,
    }  # fmt: skip
    value: _Row
    if obj.polygons:
        outline = obj.outline()
        points = [[x / sx, y / sy] for x, y in zip(outline[::2], outline[1::2], strict=True)]
        kind, value = "polygonlabels", {"points": points, "closed": True}
    else:
        x1, y1, x2, y2 = obj.box
        kind = "rectanglelabels"
        value = {"x": x1 / sx, "y": y1 / sy, "width": (x2 - x1) / sx, "height": (y2 - y1) / sy, "rotation": 0}
    score = {"score": obj.score} if obj.score is not None else {}
    yield {**common, "from_name": "label", "type": kind, "value": {**value, kind: [classes[obj.label]]}, **score}
    for name, choice in merge_attributes(obj, ("annotator", "score")).items():
        yield {**common, "from_name": name, "type": "choices", "value": {"choices": [str(choice)]}}


FORMAT = Format(
    "label-studio", "Label Studio JSON", "a JSON list of tasks with data and annotations, or JSON-MIN or CSV",
    _recognizes, each_file(_read), _write, FREE_FORM_FIELDS | {"polygons"}, boxes="xywh",
)  # fmt: skip
