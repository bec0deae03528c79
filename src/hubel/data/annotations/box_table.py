"""CSV tables of boxes in pixels, one row per box, as TensorFlow's object detection tutorials and Roboflow write them.

``filename,width,height,class,xmin,ymin,xmax,ymax``: corners of the box, which those tools divide by the image's size as
they are, so nothing is added or subtracted. The file may also be called ``image``, ``image_name`` or ``image_path``,
and the class ``label``, ``class_name``, ``category`` or ``name``; the size may be missing. A row of a file without
class and box means that there is no object in the image; without a row, it is unlabelled.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from hubel.data.annotations import parse
from hubel.data.annotations.format import FileHead, Format
from hubel.data.annotations.reader import AnnotationReader, each_file
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, round_coord, split_dir

_COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
_SIDES = _COLUMNS[4:]
_FILE = ("filename", "file_name", "image", "image_name", "image_path", "path")
_CLASS = ("class", "label", "class_name", "category", "name")

_Row = dict[str, str]


def _recognizes(head: FileHead) -> bool:
    columns = {name.strip(' "').casefold() for name in re.split("[,;]", head.text.partition("\n")[0])}
    has_names = not columns.isdisjoint(_FILE) and not columns.isdisjoint(_CLASS)
    return head.suffix == ".csv" and has_names and columns >= set(_SIDES)


def _read(reader: AnnotationReader, split: str, file: Path) -> None:
    near = reader.images.folder_of(split, file)
    text = reader.read_text(file)
    header = text.lstrip().splitlines()[0]
    has_decimal_commas = header.count(";") > header.count(",")  # as spreadsheets write where a comma is the point
    by_path: dict[Path, list[tuple[str, _Row]]] = defaultdict(list)
    for line, cells in parse.csv_table(text)[1]:
        with reader.error_context(file, f"line {line}"):
            row = {name.casefold(): cell.strip() for name, cell in cells.items()}
            if has_decimal_commas:
                row |= {side: row[side].replace(",", ".") for side in _SIDES if side in row}
            path = reader.images.find(parse.name(_first(row, _FILE), "filename"), near)
            by_path[path].append((f"line {line}", row))
            reader.check_count(len(by_path[path]))
    for path, rows in by_path.items():
        with reader.error_context(file, f"image {path.name}"):
            boxes = [(where, row) for where, row in rows if not _is_empty(row)]
            size = reader.images.size(path, *parse.size(rows[0][1]))
            objects = reader.parse_rows(file, boxes, len(boxes), lambda row: _parse_object(reader, row))
            reader.add(split, AnnotatedImage(path, *size, objects, file))


def _first(row: _Row, names: tuple[str, ...]) -> str | None:
    return next((row[name] for name in names if name in row), None)


def _is_empty(row: _Row) -> bool:
    """True for a row without class and box; where the row is cut off, they are missing."""
    return not _first(row, _CLASS) and not any(row.get(side, "cut off") for side in _SIDES)


def _parse_object(reader: AnnotationReader, row: _Row) -> Annotation:
    x1, y1, x2, y2 = parse.numbers(row, *_SIDES)
    if min(x1, y1) >= 0 and 0 < max(x2, y2) <= 1:
        raise parse.InvalidAnnotation("has corners from 0 to 1, which are not pixels")
    return Annotation(reader.label(parse.name(_first(row, _CLASS), "class")), (x1, y1, x2, y2))


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``SPLIT/_annotations.csv`` beside the images."""
    for split, images in dataset.splits.items():
        rows: list[list[str]] = []
        for image, path in writer.add_images(images, split_dir(split)):
            start = [path.name, str(image.width), str(image.height)]
            if not image.objects:
                rows.append([*start, *[""] * 5])
            for obj in image.objects or ():
                rows.append([*start, dataset.classes[obj.label], *(str(round_coord(value)) for value in obj.box)])
        writer.write_csv(Path(split_dir(split)) / "_annotations.csv", [_COLUMNS, *rows])


FORMAT = Format(
    "box-csv", "CSV table of boxes", "a CSV file with filename, class, xmin, ymin, xmax, ymax",
    _recognizes, each_file(_read), _write, frozenset(), boxes="xyxy",
)  # fmt: skip
