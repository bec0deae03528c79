"""VGG Image Annotator 3: projects (JSON) and CSV exports.

``xy`` and ``spatial_coordinates`` begin with the shape's number: 1 point, 2 rectangle, 3 circle, 4 ellipse, 5 line,
6 polyline, 7 polygon, 8 rectangle and 9 circle drawn through points; then its coordinates in pixels of the picture
(see :mod:`~hubel.data.annotations.via` for which). Attributes stand under their number; options under theirs, and the
project says what both are called. What tells of a stretch of time of a video is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hubel.data.annotations.attributes import as_text, merged_attributes
from hubel.data.annotations.polygons import ellipse, joined
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, Box
from hubel.data.annotations.safe_parsing import csv_rows, parsed_json, read_json, read_text
from hubel.data.annotations.validators import InvalidAnnotation, around, expect_list, expect_object, number, ring, text
from hubel.data.annotations.via import Region, take_regions
from hubel.data.annotations.writer import DatasetWriter, round_coord, split_dir

_KINDS = {1: "points", 5: "lines", 6: "polylines"}
_PLACE = "FILE1_Z0_XY1"


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read VIA 3 projects and CSV files."""
    found: list[tuple[str, Path, str, list[Region]]] = []
    for split, file in files:
        with reading.at(file):
            parse = _csv_regions if file.suffix.lower() == ".csv" else _project_regions
            by_name: dict[str, list[Region]] = {}
            for name, region in parse(reading, file):
                regions = by_name.setdefault(name, [])
                if region is not None:
                    regions.append(region)
            found += [(split, file, name, regions) for name, regions in by_name.items()]
    take_regions(reading, found)


def _project_regions(reading: AnnotationReader, file: Path) -> Iterator[tuple[str, Region | None]]:
    content = expect_object(read_json(file), "the file")
    names = {key: text(entry.get("fname") or entry.get("src"), "fname") for key, entry in content["file"].items()}
    views = {key: [names[str(fid)] for fid in view["fid_list"]] for key, view in content["view"].items()}
    for view in views.values():
        yield from ((name, None) for name in view)
    for key, value in content.get("metadata", {}).items():
        with reading.at(file, f"metadata {key}"):
            row = expect_object(value, "it")
            shown = views.get(str(row["vid"]))
            if not shown:
                raise InvalidAnnotation(f"belongs to view {row['vid']!r}, which is none")
            attributes = _attributes(expect_object(row.get("av") or {}, "av"), content.get("attribute") or {})
            if (found := _shape(reading, row.get("xy") or [])) is not None:
                yield shown[0], Region(f"metadata {key}", *found, attributes)


def _attributes(said: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """``{"1": "0"}`` in words, by the project's list of attributes."""
    result: dict[str, Any] = {}
    for number_of, value in said.items():
        entry = known.get(number_of) or {}
        options = entry.get("options") or {}
        chosen = [part for part in str(value).split(",") if part] if entry.get("type") == 2 else [str(value)]
        result[str(entry.get("aname") or number_of)] = ", ".join(str(options.get(part, part)) for part in chosen)
    return result


def _csv_regions(reading: AnnotationReader, file: Path) -> Iterator[tuple[str, Region | None]]:
    content = read_text(file)
    header: list[str] = []
    body: list[str] = []
    for line in content.splitlines(keepends=True):
        if line.startswith("#") and not body:
            if "CSV_HEADER" in line:
                header = [name.strip() for name in line.partition("=")[2].split(",")]
        else:
            body.append(line)
    if not {"file_list", "spatial_coordinates", "metadata"} <= set(header):
        raise InvalidAnnotation("has no CSV_HEADER with file_list, spatial_coordinates and metadata")
    for line_number, row in csv_rows("".join(body)):
        where = f"line {line_number + content.count(chr(10)) - sum(part.count(chr(10)) for part in body)}"
        with reading.at(file, where):
            cells = dict(zip(header, row, strict=False))
            listed = expect_list(parsed_json(cells["file_list"], f"{file}, {where}"), "file_list")
            name = text(listed[0], "file_list")
            yield name, None
            shape = expect_list(
                parsed_json(cells["spatial_coordinates"] or "[]", f"{file}, {where}"), "spatial_coordinates"
            )
            attributes = expect_object(parsed_json(cells.get("metadata") or "{}", f"{file}, {where}"), "metadata")
            if (found := _shape(reading, shape)) is not None:
                yield name, Region(where, *found, attributes)


def _shape(reading: AnnotationReader, numbers: Any) -> tuple[Box, dict[str, Any]] | None:
    if not numbers:
        return None  # about the picture as a whole
    kind, *values = (number(value) for value in expect_list(numbers, "xy"))
    if kind in _KINDS:
        reading.count(f"regions are {_KINDS[int(kind)]}: left out")
        return None
    if kind in (2, 8):
        x, y, w, h = values
        return (x, y, x + w, y + h), {}
    if kind in (3, 9):
        x, y, radius = values
        outline = ellipse(x, y, radius, radius)
    elif kind == 4:
        outline = ellipse(*values[:4])
    elif kind == 7:
        outline = ring(list(zip(values[::2], values[1::2], strict=True)))
    else:
        raise InvalidAnnotation(f"is of shape {kind:g}, which VIA 3 has not")
    return around([outline]), {"polygons": (outline,)}


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/via3_project.json`` beside the pictures."""
    for split, images in dataset.splits.items():
        files: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        options = {str(place): name for place, name in enumerate(dataset.classes)}
        kinds = {"1": {"aname": "class", "type": 4, "options": options}}
        for image in images:
            name = target.place(image, split_dir(split)).name
            if image.objects is None:
                continue
            key = str(len(files) + 1)
            files[key] = {"fid": int(key), "fname": name, "type": 2, "loc": 1, "src": name}
            for thing in image.objects:
                said = {"1": str(thing.label)}
                for attribute, value in merged_attributes(thing).items():
                    said[_number_of(attribute, kinds)] = as_text(value)
                if thing.polygons:
                    shape = [7, *map(round_coord, joined((*thing.polygons, *thing.holes)))]
                else:
                    x1, y1, x2, y2 = thing.box
                    shape = [2, round_coord(x1), round_coord(y1), round_coord(x2 - x1), round_coord(y2 - y1)]
                metadata[f"{key}_{len(metadata) + 1}"] = {"vid": key, "flg": 0, "z": [], "xy": shape, "av": said}
        project = {"pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__", "pname": split_dir(split) or "all"}
        content = {
            "project": {**project, "data_format_version": "3.1.1", "vid_list": list(files)},
            "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}},
            "attribute": {
                key: {"anchor_id": _PLACE, "desc": "", "default_option_id": "", **k} for key, k in kinds.items()
            },
            "file": files,
            "metadata": metadata,
            "view": {key: {"fid_list": [int(key)]} for key in files},
        }
        target.write_json(Path(split_dir(split)) / "via3_project.json", content)


def _number_of(attribute: str, kinds: dict[str, dict[str, Any]]) -> str:
    for key, kind in kinds.items():
        if kind["aname"] == attribute and key != "1":
            return key
    key = str(len(kinds) + 1)
    kinds[key] = {"aname": attribute, "type": 1, "options": {}}
    return key
