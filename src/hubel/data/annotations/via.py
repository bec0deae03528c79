"""VGG Image Annotator 1 and 2: projects, JSON and CSV exports.

Pixels of the picture as the browser shows it: upright in browsers since 2020, as stored before. ``rect`` has ``x``,
``y``, ``width``, ``height``; circles and ellipses become polygons of 64 corners; points and polylines are left out and
counted. The class is one of the free region attributes (see :mod:`~hubel.data.annotations.attributes`), the others
are kept. A file names its pictures without folders or sizes; pictures in it without regions count as labelled as
empty, since VIA does not say whether somebody has looked.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubel.data.annotations.attributes import as_text, class_attribute, merged_attributes, named, split_attributes
from hubel.data.annotations.polygons import ellipse, joined
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation, Box
from hubel.data.annotations.safe_parsing import csv_rows, parsed_json, read_json, read_text
from hubel.data.annotations.validators import InvalidAnnotation, around, expect_list, expect_object, number, ring, text
from hubel.data.annotations.writer import DatasetWriter, round_coord, split_dir

CSV_HEADER = (
    "filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
    "region_attributes",
)  # fmt: skip
_OUTLINE = dict[str, Any]


@dataclass
class Region:
    """A region as it stands in a file; ``row`` says where."""

    row: str
    box: Box
    outline: _OUTLINE
    attributes: dict[str, Any]


def read(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read VIA 1 and 2 JSON files, projects or exports."""
    _read(reading, files, _json_regions)


def read_csv(reading: AnnotationReader, files: Sequence[tuple[str, Path]]) -> None:
    """Read VIA 1 and 2 CSV files."""
    _read(reading, files, _csv_regions)


def _read(reading: AnnotationReader, files: Sequence[tuple[str, Path]], parse: Any) -> None:
    found: list[tuple[str, Path, str, list[Region]]] = []
    for split, file in files:
        with reading.at(file):
            by_name: dict[str, list[Region]] = {}
            for name, region in parse(reading, file):
                regions = by_name.setdefault(name, [])
                if region is not None:
                    regions.append(region)
            found += [(split, file, name, regions) for name, regions in by_name.items()]
    take_regions(reading, found)


def take_regions(reading: AnnotationReader, found: Sequence[tuple[str, Path, str, list[Region]]]) -> None:
    """Make pictures of ``(split, file, picture's name, regions)``: choose the class attribute, find the files."""
    chosen = class_attribute(reading, [region.attributes for *_, regions in found for region in regions])
    for split, file, name, regions in found:
        with reading.at(file, f"picture {name}"):
            reading.limit(len(regions))
            path = reading.pictures.find(name, reading.pictures.folder_of(split, file))
            width, height = reading.pictures.size(path)
            objects: list[Annotation] = []
            for region in regions:
                with reading.at(file, f"picture {name}, {region.row}"):
                    label, rest = named(reading, region.attributes, chosen)
                    objects.append(Annotation(label, region.box, **region.outline, **split_attributes(rest)))
            reading.add(split, AnnotatedImage(path, width, height, tuple(objects), file))


def _json_regions(reading: AnnotationReader, file: Path) -> Iterator[tuple[str, Region | None]]:
    content = expect_object(read_json(file), "the file")
    entries = expect_object(content.get("_via_img_metadata", content), "_via_img_metadata")
    for key, value in entries.items():
        with reading.at(file, f"picture {key}"):
            entry = expect_object(value, "it")
            name = text(entry["filename"], "filename")
            regions = entry.get("regions") or []
            yield name, None
            for place, region in enumerate(
                regions.values() if isinstance(regions, dict) else expect_list(regions, "regions")
            ):
                with reading.at(file, f"picture {name}, region {place + 1}"):
                    row = expect_object(region, "it")
                    shape = expect_object(row["shape_attributes"], "shape_attributes")
                    attributes = expect_object(row.get("region_attributes") or {}, "region_attributes")
                    if (found := _shape(reading, shape)) is not None:
                        yield name, Region(f"region {place + 1}", *found, attributes)


def _csv_regions(reading: AnnotationReader, file: Path) -> Iterator[tuple[str, Region | None]]:
    header: list[str] = []
    for line, row in csv_rows(read_text(file)):
        names = [cell.strip().lstrip("#").strip() for cell in row]
        if not header:
            if "region_shape_attributes" not in names or not {"filename", "#filename"} & set(names):
                raise InvalidAnnotation("has no header with filename and region_shape_attributes")
            header = names
            continue
        with reading.at(file, f"line {line}"):
            cells = dict(zip(header, row, strict=False))
            name = text(cells["filename"], "filename")
            yield name, None
            shape = _cell(cells["region_shape_attributes"], file, line)
            if shape:
                attributes = _cell(cells.get("region_attributes") or "{}", file, line)
                if (found := _shape(reading, shape)) is not None:
                    yield name, Region(f"line {line}", *found, attributes)


def _cell(cell: str, file: Path, line: int) -> dict[str, Any]:
    return expect_object(parsed_json(cell.strip() or "{}", f"{file}, line {line}"), "a cell of attributes")


def _shape(reading: AnnotationReader, shape: dict[str, Any]) -> tuple[Box, _OUTLINE] | None:
    def value(name: str) -> float:
        return number(shape[name], name)

    name = shape.get("name")
    if name == "rect":
        x, y = value("x"), value("y")
        return (x, y, x + value("width"), y + value("height")), {}
    if name in ("polygon", "polyline") and (name == "polygon" or _is_closed(shape)):
        points = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
        outline = ring(points)
    elif name == "circle":
        outline = ellipse(value("cx"), value("cy"), value("r"), value("r"))
    elif name == "ellipse":
        turn = math.degrees(number(shape.get("theta") or 0, "theta"))
        outline = ellipse(value("cx"), value("cy"), value("rx"), value("ry"), turn)
    elif name in ("point", "polyline"):
        reading.count(f"regions are {name}s: left out")
        return None
    else:
        raise InvalidAnnotation(f"is of the shape {name!r}, which VIA has not")
    return around([outline]), {"polygons": (outline,)}


def _is_closed(shape: dict[str, Any]) -> bool:
    xs, ys = shape["all_points_x"], shape["all_points_y"]
    return len(xs) > 3 and xs[0] == xs[-1] and ys[0] == ys[-1]


def write(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/via_project.json`` beside the pictures: a project of VIA 2."""
    for split, images in dataset.splits.items():
        entries: dict[str, Any] = {}
        for image in images:
            place = target.place(image, split_dir(split))
            if image.objects is None:
                continue
            size = place.stat().st_size if place.exists() else -1
            regions = [_region(thing, dataset.classes) for thing in image.objects]
            entries[f"{place.name}{size}"] = {
                "filename": place.name, "size": size, "regions": regions, "file_attributes": {},
            }  # fmt: skip
        options = dict.fromkeys(dataset.classes, "")
        kind = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
        content = {
            "_via_settings": {"project": {"name": split_dir(split) or "all"}, "core": {"default_filepath": ""}},
            "_via_img_metadata": entries,
            "_via_attributes": {"region": {"class": kind}, "file": {}},
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": list(entries),
        }
        target.write_json(Path(split_dir(split)) / "via_project.json", content)


def _region(thing: Annotation, classes: Sequence[str]) -> dict[str, Any]:
    attributes = {"class": classes[thing.label]}
    attributes |= {name: as_text(value) for name, value in merged_attributes(thing).items() if name != "class"}
    return {"shape_attributes": _written_shape(thing), "region_attributes": attributes}


def _written_shape(thing: Annotation) -> dict[str, Any]:
    if thing.polygons:
        outline = [round_coord(value) for value in joined((*thing.polygons, *thing.holes))]
        return {"name": "polygon", "all_points_x": outline[::2], "all_points_y": outline[1::2]}
    x1, y1, x2, y2 = thing.box
    return {
        "name": "rect",
        "x": round_coord(x1),
        "y": round_coord(y1),
        "width": round_coord(x2 - x1),
        "height": round_coord(y2 - y1),
    }


def write_csv(dataset: AnnotatedDataset, target: DatasetWriter) -> None:
    """``SPLIT/via_export.csv`` beside the pictures: as VIA 2 exports it."""
    for split, images in dataset.splits.items():
        rows = io.StringIO()
        table = csv.writer(rows, lineterminator="\n")
        table.writerow(CSV_HEADER)
        for image in images:
            place = target.place(image, split_dir(split))
            if image.objects is None:
                continue
            size = place.stat().st_size if place.exists() else -1
            regions = [_region(thing, dataset.classes) for thing in image.objects]
            for number_of, region in enumerate(regions or [{"shape_attributes": {}, "region_attributes": {}}]):
                cells = [
                    json.dumps(region[name], ensure_ascii=False) for name in ("shape_attributes", "region_attributes")
                ]
                table.writerow([place.name, size, "{}", len(regions), number_of, *cells])
        target.write(Path(split_dir(split)) / "via_export.csv", rows.getvalue())
