"""VGG Image Annotator: projects and exports of versions 1 and 2 (JSON, CSV) and 3 (JSON, CSV).

Pixels of the image as the browser shows it: upright in browsers since 2020, as stored before. Circles and ellipses
become polygons of 64 corners; points and polylines are left out and counted. The class is one of the free region
attributes (see :mod:`~hubel.data.annotations.attributes`). Files name their images without folders or sizes; an image
without regions counts as labelled as empty, since VIA does not record whether somebody has looked at it.

Version 3 writes a shape as its kind (1 point, 2 rectangle, 3 circle, 4 ellipse, 5 line, 6 polyline, 7 polygon, 8
rectangle and 9 circle drawn through points) and its coordinates. Attributes and their options are stored under ids,
which the project resolves. Time spans of videos are left out.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hubel.data.annotations import parse
from hubel.data.annotations.attributes import as_text, class_attribute, merge_attributes, split_attributes, take_label
from hubel.data.annotations.format import FREE_FORM_FIELDS, FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, LabelFiles, Shape, polygon_shape
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_coord, round_xywh, split_dir
from hubel.errors import DataError
from hubel.masks import ellipse

_CSV_HEADER = (
    "filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
    "region_attributes",
)  # fmt: skip
_VIA3_COLUMNS = ("file_list", "spatial_coordinates", "metadata")
_VIA3_LEFT_OUT = {1: "points", 5: "lines", 6: "polylines"}

_Region = tuple[Shape, dict[str, Any] | None]  # with the region's attributes, None if they cannot be read
_Regions = Iterator[tuple[str, str, Callable[[], _Region | None] | None]]
"""Names of images, each with the name of a region's row and what reads it; without a region it mentions the image."""


def _reader(regions_of: Callable[[AnnotationReader, Path], _Regions]) -> Callable[[AnnotationReader, LabelFiles], None]:
    def read(reader: AnnotationReader, files: LabelFiles) -> None:
        found: list[tuple[str, Path, str, Sequence[_Region] | None]] = []
        for split, file in files:
            with reader.error_context(file):
                by_name: dict[str, list[tuple[str, Callable[[], _Region | None]]]] = {}
                for name, where, region in regions_of(reader, file):
                    rows = by_name.setdefault(name, [])
                    if region is not None:
                        rows.append((where, region))
                for name, rows in by_name.items():
                    with reader.error_context(file, f"image {name}"):
                        regions = reader.parse_rows(file, rows, len(rows), lambda read_region: read_region())
                        found.append((split, file, name, regions))
        chosen = class_attribute(reader, [attributes or {} for *_, regions in found for _, attributes in regions or ()])

        def parse_region(region: _Region) -> Annotation:
            (box, fields), attributes = region
            if attributes is None:
                if chosen is not None:
                    raise parse.InvalidAnnotation(f"its attributes cannot be read, of which {chosen!r} is its class")
                reader.count_warning("attributes cannot be read: left out, the objects stay")
                attributes = {}
            label, others = take_label(reader, attributes, chosen)
            return Annotation(label, box, **fields, **split_attributes(others))

        for split, file, name, kept in found:
            with reader.error_context(file, f"image {name}"):
                path = reader.images.find(name, reader.images.folder_of(split, file))
                width, height = reader.images.size(path)
                objects = None
                if kept is not None:
                    objects = reader.parse_objects(file, f"image {name}, region", kept, parse_region)
                reader.add(split, AnnotatedImage(path, width, height, objects, file))

    return read


def _json_regions(reader: AnnotationReader, file: Path) -> _Regions:
    content = parse.fields(reader.read_json(file), "the file")
    entries = parse.fields(content.get("_via_img_metadata", content), "_via_img_metadata")
    for key, value in entries.items():
        with reader.error_context(file, f"image {key}"):
            entry = parse.fields(value, "it")
            name = parse.name(entry["filename"], "filename")
            regions = entry["regions"]
            yield name, "", None
            if isinstance(regions, dict):
                regions = list(regions.values())
            for index, row in enumerate(regions if isinstance(regions, list) else [regions], 1):
                yield name, f"image {name}, region {index}", partial(_parse_region, reader, row)


def _parse_region(reader: AnnotationReader, row: Any) -> _Region | None:
    region = parse.fields(row, "it")
    shape = _parse_shape(reader, parse.fields(region["shape_attributes"], "shape_attributes"))
    return shape and (shape, _attributes(region.get("region_attributes")))


def _attributes(value: Any) -> dict[str, Any] | None:
    """The attributes of a region; ``None`` if they cannot be read."""
    return value if isinstance(value, dict) else None if value else {}


def _csv_regions(reader: AnnotationReader, file: Path) -> _Regions:
    header, rows = parse.csv_table(reader.read_text(file))
    if not {"region_shape_attributes", "filename"} <= set(header):
        raise parse.InvalidAnnotation("has no header with filename and region_shape_attributes")
    for line, cells in rows:
        where = f"line {line}"
        with reader.error_context(file, where):
            name = parse.name(cells["filename"], "filename")
            yield name, "", None
            is_empty = cells.get("region_shape_attributes", "cut off").strip() in ("", "{}")
            if not is_empty or (cells.get("region_count") or "0").strip() != "0":
                yield name, where, partial(_parse_cells, reader, cells, f"{file}, {where}")


def _parse_cells(reader: AnnotationReader, cells: dict[str, str], where: str) -> _Region | None:
    shape = parse.json_text(cells["region_shape_attributes"], where)
    attributes = _attributes_cell(cells.get("region_attributes"))
    return _parse_region(reader, {"shape_attributes": shape, "region_attributes": attributes})


def _attributes_cell(text: str | None) -> Any:
    """The value of a cell of attributes; text if it is not JSON, which :func:`_attributes` takes for unreadable."""
    with contextlib.suppress(DataError):
        return parse.json_text(text or "{}", "attributes")
    return text


def _parse_shape(reader: AnnotationReader, shape: dict[str, Any]) -> Shape | None:
    name = shape.get("name")
    if name == "rect":
        x, y, w, h = parse.numbers(shape, "x", "y", "width", "height")
        return (x, y, x + w, y + h), {}
    if name in ("polygon", "polyline"):
        xs, ys = shape["all_points_x"], shape["all_points_y"]
        if name == "polygon" or (len(xs) > 3 and xs[0] == xs[-1] and ys[0] == ys[-1]):
            return polygon_shape(parse.polygon(zip(xs, ys, strict=True)))
    if name == "circle":
        return polygon_shape(ellipse(*parse.numbers(shape, "cx", "cy", "r", "r")))
    if name == "ellipse":
        x, y, rx, ry = parse.numbers(shape, "cx", "cy", "rx", "ry")
        degrees = math.degrees(parse.number(shape.get("theta") or 0, "theta"))
        return polygon_shape(ellipse(x, y, rx, ry, degrees))
    if name in ("point", "polyline"):
        reader.count_warning(f"regions are {name}s: left out")
        return None
    raise parse.InvalidAnnotation(f"has the shape {name!r}, which VIA does not have")


def _regions(image: AnnotatedImage, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    for obj in image.objects or ():
        attributes = {"class": classes[obj.label]}
        attributes |= {name: as_text(value) for name, value in merge_attributes(obj).items() if name != "class"}
        if obj.polygons:
            outline = [round_coord(value) for value in obj.outline()]
            shape: dict[str, Any] = {"name": "polygon", "all_points_x": outline[::2], "all_points_y": outline[1::2]}
        else:
            shape = {"name": "rect", **dict(zip(("x", "y", "width", "height"), round_xywh(obj), strict=True))}
        yield {"shape_attributes": shape, "region_attributes": attributes}


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/via_project.json`` beside the images: a project of VIA 2."""
    for split, images in dataset.splits.items():
        entries: dict[str, Any] = {}
        for image, path in writer.add_images(images, split_dir(split)):
            size = _file_size(path)
            regions = list(_regions(image, dataset.classes))
            entry = {"filename": path.name, "size": size, "regions": regions, "file_attributes": {}}
            entries[f"{path.name}{size}"] = entry
        options = dict.fromkeys(dataset.classes, "")
        kind = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
        content = {
            "_via_settings": {"project": {"name": split_dir(split) or "all"}, "core": {"default_filepath": ""}},
            "_via_img_metadata": entries,
            "_via_attributes": {"region": {"class": kind}, "file": {}},
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": list(entries),
        }
        writer.write_json(Path(split_dir(split)) / "via_project.json", content)


def _write_csv(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/via_export.csv`` beside the images, as VIA 2 exports it."""
    for split, images in dataset.splits.items():
        rows: list[Sequence[Any]] = [_CSV_HEADER]
        for image, path in writer.add_images(images, split_dir(split)):
            regions = list(_regions(image, dataset.classes))
            for index, region in enumerate(regions or [{"shape_attributes": {}, "region_attributes": {}}]):
                cells = [json.dumps(cell, ensure_ascii=False) for cell in region.values()]
                rows.append([path.name, _file_size(path), "{}", len(regions), index, *cells])
        writer.write_csv(Path(split_dir(split)) / "via_export.csv", rows)


def _via3_regions(reader: AnnotationReader, file: Path) -> _Regions:
    if file.suffix.lower() == ".csv":
        yield from _via3_csv_regions(reader, file)
        return
    content = parse.fields(reader.read_json(file), "the file")
    names: dict[str, str] = {}
    for key, entry in content["file"].items():
        with reader.error_context(file, f"file {key}"):
            entry = parse.fields(entry, "it")
            names[key] = parse.name(entry.get("fname") or entry.get("src"), "fname")
    views: dict[str, list[str]] = {}
    for key, view in content["view"].items():
        with reader.error_context(file, f"view {key}"):
            ids = [parse.key(id_, "fid_list") for id_ in parse.fields(view, "it")["fid_list"]]
            views[key] = [names[id_] for id_ in ids if id_ in names]
    for view in views.values():
        yield from ((name, "", None) for name in view)
    without = {view[0] for view in views.values() if view}
    lost = False  # regions of which the image is not known
    known = parse.fields(content.get("attribute") or {}, "attribute")
    for key, value in content.get("metadata", {}).items():
        shown: list[str] = []
        with reader.error_context(file, f"metadata {key}"):
            row = parse.fields(value, "it")
            shown = views.get(str(row["vid"])) or []
            if not shown:
                raise parse.InvalidAnnotation(f"belongs to view {row['vid']!r}, which does not exist")
            if row.get("xy"):  # without: an attribute of the whole image
                without.discard(shown[0])
                yield shown[0], f"metadata {key}", partial(_parse_via3_region, reader, row, known)
        lost = lost or not shown
    if lost:  # they may be of any image that has no others
        yield from ((name, "regions", lambda: None) for name in sorted(without))


def _parse_via3_region(reader: AnnotationReader, row: dict[str, Any], known: dict[str, Any]) -> _Region | None:
    shape = _parse_via3_shape(reader, row["xy"])
    values = _attributes(row.get("av"))
    return shape and (shape, None if values is None else _via3_attributes(values, known))


def _via3_attributes(values: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    """``{"1": "0"}`` as names of attributes and options, from the project's list."""
    result: dict[str, Any] = {}
    for id_, value in values.items():
        entry = attributes.get(id_) or {}
        options = entry.get("options") or {}
        chosen = [part for part in str(value).split(",") if part] if entry.get("type") == 2 else [str(value)]
        result[str(entry.get("aname") or id_)] = ", ".join(str(options.get(part, part)) for part in chosen)
    return result


def _via3_csv_regions(reader: AnnotationReader, file: Path) -> _Regions:
    lines = reader.read_text(file).splitlines(keepends=True)
    header: list[str] = []
    start = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    for line in lines[:start]:
        if "CSV_HEADER" in line:
            header = [name.strip() for name in line.partition("=")[2].split(",")]
    if not set(_VIA3_COLUMNS) <= set(header):
        raise parse.InvalidAnnotation("has no CSV_HEADER with file_list, spatial_coordinates and metadata")
    for number, row in parse.csv_rows("".join(lines[start:])):
        where = f"line {start + number}"
        with reader.error_context(file, where):
            cells = dict(zip(header, row, strict=False))
            names = parse.json_text(cells["file_list"], f"{file}, {where}")
            name = parse.name(parse.items(names, "file_list")[0], "file_list")
            yield name, "", None
            if (cells["spatial_coordinates"] or "[]").strip() != "[]":
                yield name, where, partial(_parse_via3_cells, reader, cells, f"{file}, {where}")


def _parse_via3_cells(reader: AnnotationReader, cells: dict[str, str], where: str) -> _Region | None:
    numbers = parse.json_text(cells["spatial_coordinates"], where)
    shape = _parse_via3_shape(reader, parse.items(numbers, "spatial_coordinates"))
    return shape and (shape, _attributes(_attributes_cell(cells.get("metadata"))))


def _parse_via3_shape(reader: AnnotationReader, numbers: Any) -> Shape | None:
    kind, *values = (parse.number(number) for number in parse.items(numbers, "xy"))
    if kind in _VIA3_LEFT_OUT:
        reader.count_warning(f"regions are {_VIA3_LEFT_OUT[int(kind)]}: left out")
        return None
    if kind in (2, 8):
        x, y, w, h = values
        return (x, y, x + w, y + h), {}
    if kind in (3, 9):
        x, y, radius = values
        return polygon_shape(ellipse(x, y, radius, radius))
    if kind == 4:
        return polygon_shape(ellipse(*values[:4]))
    if kind == 7:
        return polygon_shape(parse.polygon(zip(values[::2], values[1::2], strict=True)))
    raise parse.InvalidAnnotation(f"has the shape {kind:g}, which VIA 3 does not have")


def _write_via3(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/via3_project.json`` beside the images."""
    for split, images in dataset.splits.items():
        files: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        options = {str(label): name for label, name in enumerate(dataset.classes)}
        attribute_ids: dict[str, str] = {}
        for image, path in writer.add_images(images, split_dir(split)):
            key = str(len(files) + 1)
            files[key] = {"fid": int(key), "fname": path.name, "type": 2, "loc": 1, "src": path.name}
            for obj in image.objects or ():
                values = {"1": str(obj.label)}
                for name, value in merge_attributes(obj).items():
                    values[attribute_ids.setdefault(name, str(len(attribute_ids) + 2))] = as_text(value)
                shape = [7, *map(round_coord, obj.outline())] if obj.polygons else [2, *round_xywh(obj)]
                metadata[f"{key}_{len(metadata) + 1}"] = {"vid": key, "flg": 0, "z": [], "xy": shape, "av": values}
        kinds = {"1": {"aname": "class", "type": 4, "options": options}}
        kinds |= {id_: {"aname": name, "type": 1, "options": {}} for name, id_ in attribute_ids.items()}
        attribute = {"anchor_id": "FILE1_Z0_XY1", "desc": "", "default_option_id": ""}
        project = {"pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__", "pname": split_dir(split) or "all"}
        content = {
            "project": {**project, "data_format_version": "3.1.1", "vid_list": list(files)},
            "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}},
            "attribute": {id_: {**attribute, **kind} for id_, kind in kinds.items()},
            "file": files,
            "metadata": metadata,
            "view": {key: {"fid_list": [int(key)]} for key in files},
        }
        writer.write_json(Path(split_dir(split)) / "via3_project.json", content)


def _is_via(head: FileHead) -> bool:
    return bool(head.keys[1] & {"_via_settings", "_via_img_metadata"}) or (
        {"filename", "regions"} <= head.keys[2] and not head.is_json_list
    )


def _is_via3(head: FileHead) -> bool:
    if head.suffix == ".csv":
        return "CSV_HEADER" in head.text and "spatial_coordinates" in head.text
    first = head.keys[1]
    return {"project", "file"} <= first and bool(first & {"metadata", "view", "attribute"})


_SUPPORTS = FREE_FORM_FIELDS | {"polygons"}

JSON = Format(
    "via", "VIA 2 JSON", "a JSON file with _via_img_metadata, or with filename and regions",
    _is_via, _reader(_json_regions), _write, _SUPPORTS, boxes="xywh",
)  # fmt: skip
CSV = Format(
    "via-csv", "VIA 2 CSV", "a CSV file with region_shape_attributes",
    lambda head: head.suffix == ".csv" and "region_shape_attributes" in head.text,
    _reader(_csv_regions), _write_csv, _SUPPORTS, boxes="xywh",
)  # fmt: skip
VERSION_3 = Format(
    "via3", "VIA 3", "a JSON file with project, file, metadata and view, or a CSV file with CSV_HEADER",
    _is_via3, _reader(_via3_regions), _write_via3, _SUPPORTS, boxes="xywh",
)  # fmt: skip
