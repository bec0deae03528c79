"""YOLO: one text file per image, one line per object, in fractions of the upright image.

``CLASS X Y WIDTH HEIGHT`` with the box's centre; ``CLASS X1 Y1 X2 Y2 X3 Y3 …`` is a polygon; a sixth number is a
score. Ultralytics' loaders apply the EXIF rotation, so fractions are of the upright image; Darknet's do not.
Classes are those of ``names`` in ``data.yaml`` (a list, or names by index), else of ``classes.txt`` or ``obj.names``,
else their indices. An empty file means that there is no object; without a file, the image is unlabelled.

Images: ``train``, ``val``, ``test`` of ``data.yaml`` are folders, lists of folders, or text files with one image per
line, relative to ``path`` or to the file; Roboflow's ``../train/images`` means ``train/images``. Where ``train`` and
``val`` are the same, the data set is unsplit. Labels of ``images/a/b.jpg`` are in ``labels/a/b.txt``, else beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from hubel.data.annotations import parse
from hubel.data.annotations.format import FileHead, Format
from hubel.data.annotations.image_lookup import resolve_parts
from hubel.data.annotations.reader import AnnotationReader, LabelFiles
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, split_dir
from hubel.data.image_folder import SPLIT_NAMES
from hubel.errors import DataError
from hubel.masks import bounding_box, box_to_polygon

NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "classes.names")
"""Files that list the classes, one per line, if no ``data.yaml`` does."""

_SNIFFED_FILES = 40


def _recognizes(head: FileHead) -> bool:
    has_keys = re.search(r"^(names|train)\s*:", head.text, re.MULTILINE)
    return head.suffix in (".yaml", ".yml") and bool(has_keys) and "masks:" not in head.text


def _find_folders(root: Path, image_folders: Sequence[Path], text_folders: Sequence[Path]) -> list[Path]:
    """Folders of images with text files beside them or in ``labels``."""
    return [
        folder
        for folder in image_folders
        if any(labels in text_folders and _has_rows(labels) for labels in (_labels_path(folder, root), folder))
    ]


def _has_rows(folder: Path) -> bool:
    """True if the first text files of a folder contain rows of numbers, or nothing."""
    files = sorted(file for file in folder.glob("*.txt") if file.name not in NAME_FILES)[:_SNIFFED_FILES]
    heads = [FileHead(file).text.strip() for file in files]
    rows = [head.splitlines()[0].split() for head in heads if head]
    return bool(rows) and all(len(row) >= 5 and row[0].replace(".0", "").isdecimal() for row in rows)


def _labels_path(path: Path, root: Path) -> Path:
    """The path with its last ``images`` below the root replaced by ``labels``; unchanged if there is none."""
    parts = list(path.relative_to(root).parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _read(reader: AnnotationReader, files: LabelFiles) -> None:
    """``files`` is the data set's ``data.yaml``, or the folders of images, each with its split."""
    names: dict[int, str] = {}
    images: list[tuple[str, Path]] = []
    for split, path in files:
        if path.suffix.lower() not in (".yaml", ".yml"):
            images += [(split, image) for image in reader.images.within(path)]
            continue
        with reader.error_context(path):
            content = _read_yaml(path)
            names |= _parse_names(content.get("names"))
            images += _declared_images(reader, path, content)
    if not names:
        names = _listed_names(reader)
    rows = [(split, image, _label_file(reader, image)) for split, image in images]
    if not names:
        indices = sorted({index for _, _, file in rows if file for index in _class_indices(reader, file)})
        names = {index: str(index) for index in range(indices[-1] + 1)} if indices else {}
        reader.warn("no file names the classes: their indices are used")
    order = sorted(names)
    if order != list(range(len(order))):
        raise DataError(f"{reader.root} numbers its classes {order[:5]}…, not from 0.", "Number the names from 0.")
    for index in order:
        if reader.label(names[index]) != index:
            hint = "Give each class a different name in data.yaml."
            raise DataError(f"{reader.root} has the class {names[index]!r} twice.", hint)
    for split, image, file in rows:
        _read_image(reader, split, image, file)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(parse.read_bytes(path, 1 << 20))
    except (yaml.YAMLError, RecursionError) as error:
        raise parse.InvalidAnnotation(f"is not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise parse.InvalidAnnotation("has no named entries")
    return content


def _parse_names(names: Any) -> dict[int, str]:
    names = {} if names is None else names
    if not isinstance(names, dict | list):
        raise parse.InvalidAnnotation("names is neither a list nor names by index")
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    return {parse.integer(index, "a class index"): parse.name(name, "a class name") for index, name in pairs}


def _listed_names(reader: AnnotationReader) -> dict[int, str]:
    for folder in (reader.root, reader.root / "labels", *sorted(reader.root.glob("*/labels"))):
        for name in NAME_FILES:
            if (folder / name).is_file():
                lines = parse.read_text(folder / name, 1 << 20).splitlines()
                return dict(enumerate(line.strip() for line in lines if line.strip()))
    return {}


def _declared_images(reader: AnnotationReader, file: Path, content: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The images that ``data.yaml`` declares, each with its split."""
    entries: dict[str, list[str]] = {}
    for key in ("train", "val", "valid", "validation", "test"):
        if (value := content.get(key)) and SPLIT_NAMES[key] not in entries:
            entries[SPLIT_NAMES[key]] = [
                parse.name(one, key) for one in (value if isinstance(value, list) else [value])
            ]
    if not entries:
        entries = {"all": ["images"]}
    elif entries.get("train") == entries.get("val"):
        entries = {"all": entries.pop("train"), **{k: v for k, v in entries.items() if k == "test"}}
    base = _resolve(reader.root, file.parent, str(content.get("path") or ".")) or file.parent
    for split, names in entries.items():
        paths = [_resolve(reader.root, base, name) or _resolve(reader.root, file.parent, name) for name in names]
        for path in filter(None, paths):
            yield from ((split, image) for image in _images_of(reader, path))
        if not any(paths):
            reader.warn(f"{file}: {split} is {', '.join(names)}, which does not exist: left out")


def _resolve(root: Path, base: Path, name: str) -> Path | None:
    """The path that ``name`` refers to, if it exists below the root; foreign absolute paths are tried by their ends."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    is_absolute = name.startswith(("/", "\\")) or name[1:2] == ":"
    candidates = [] if is_absolute else [[*base.relative_to(root).parts, *parts]]
    while parts and parts[0] == "..":
        parts = parts[1:]
    candidates += [parts[start:] for start in range(len(parts))] if is_absolute else [parts]
    paths = (root.joinpath(*parts) for parts in map(resolve_parts, candidates) if parts is not None)
    return next((path for path in paths if path.exists()), None)


def _images_of(reader: AnnotationReader, path: Path) -> Iterator[Path]:
    """The images in a folder and below, or those that a text file lists."""
    if path.is_dir():
        yield from reader.images.within(path)
        for folder in sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")):
            yield from _images_of(reader, folder)
        return
    for index, line in enumerate(parse.read_text(path).splitlines()):
        if line.strip():
            with reader.error_context(path, f"line {index + 1}"):
                yield reader.images.find(line.strip(), path.parent)


def _label_file(reader: AnnotationReader, image: Path) -> Path | None:
    candidates = (path.with_suffix(".txt") for path in (_labels_path(image, reader.root), image))
    return next((file for file in candidates if reader.images.has(file)), None)


def _class_indices(reader: AnnotationReader, file: Path) -> Iterator[int]:
    with reader.error_context(file):
        for line in parse.read_text(file, parse.MAX_IMAGE_FILE_BYTES).splitlines():
            if line.strip() and line.split()[0].isdecimal() and len(line.split()[0]) <= 5:
                yield int(line.split()[0])


def _read_image(reader: AnnotationReader, split: str, image: Path, file: Path | None) -> None:
    if file is None:
        reader.add(split, AnnotatedImage(image, 0, 0, None))
        return
    with reader.error_context(file):
        lines = parse.read_text(file, parse.MAX_IMAGE_FILE_BYTES).splitlines()
        width, height = reader.images.size(image)
        objects = reader.parse_objects(file, "line", lines, lambda line: _parse_object(reader, line, width, height))
        if objects and not width:
            reader.count_warning("images are missing or unreadable: their labels, in fractions of them, are left out")
        reader.add(split, AnnotatedImage(image, width, height, objects if width or not objects else None, file))


def _parse_object(reader: AnnotationReader, line: str, width: int, height: int) -> Annotation | None:
    if not (values := line.split()):
        return None
    label = parse.integer(values[0], "the class")
    if not 0 <= label < len(reader.classes):
        raise parse.UnknownClass(f"class {label} is not one of the {len(reader.classes)} classes")
    numbers = [parse.number(value) for value in values[1:]]
    if len(numbers) in (4, 5):
        x, y, w, h = numbers[0] * width, numbers[1] * height, numbers[2] * width, numbers[3] * height
        score = numbers[4] if len(numbers) == 5 else None
        return Annotation(label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), score=score)
    if len(numbers) < 6 or len(numbers) % 2:
        raise parse.InvalidAnnotation(
            f"has {len(numbers)} numbers after the class: neither a box (4) nor a polygon (6, 8, …)"
        )
    polygon = tuple(value * (height if index % 2 else width) for index, value in enumerate(numbers))
    return Annotation(label, bounding_box([polygon]), (polygon,))


def _write(dataset: AnnotatedDataset, writer: DatasetWriter) -> None:
    """``data.yaml``, ``images/SPLIT/`` and ``labels/SPLIT/``; if unsplit, ``train`` and ``val`` are the same."""
    with_polygons = any(obj.polygons for image in dataset.images() for obj in image.objects or ())
    for split, images in dataset.splits.items():
        for image, path in writer.add_images(images, f"images/{split_dir(split)}"):
            if not (image.width and image.height) and image.objects:
                writer.record_loss("images of unknown size: their labels cannot be written in fractions")
                continue
            lines = [_line(obj, image, with_polygons, writer) for obj in image.objects or ()]
            writer.write(Path("labels") / split_dir(split) / f"{path.stem}.txt", "".join(lines))
    folders = {split: f"images/{split}" for split in dataset.splits if split_dir(split)}
    if "all" in dataset.splits:
        folders = {"train": "images", "val": "images"}
    content = {"path": ".", **folders, "names": dict(enumerate(dataset.classes))}
    writer.write("data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _line(obj: Annotation, image: AnnotatedImage, with_polygons: bool, writer: DatasetWriter) -> str:
    polygon = obj.outline() if obj.polygons else None
    if with_polygons and obj.score is not None:
        writer.record_loss("scores")
    if with_polygons and polygon is None:  # readers take a file with one polygon for a file of polygons
        writer.record_loss("boxes among polygons: written as polygons of four corners")
        polygon = box_to_polygon(*obj.box)
    if polygon is not None:
        values = [value / (image.height if index % 2 else image.width) for index, value in enumerate(polygon)]
    else:
        x1, y1, x2, y2 = obj.box
        values = [(x1 + x2) / 2 / image.width, (y1 + y2) / 2 / image.height]
        values += [(x2 - x1) / image.width, (y2 - y1) / image.height]
        values += [obj.score] if obj.score is not None else []
    return " ".join([str(obj.label), *(f"{value:.10g}" for value in values)]) + "\n"


FORMAT = Format(
    "yolo", "YOLO", "data.yaml, or images/ and labels/, or text files beside the images",
    _recognizes, _read, _write, frozenset({"polygons", "score", "unused", "order"}), sort_classes=False,
    file_holds="dataset", find_folders=_find_folders, boxes="fractions",
)  # fmt: skip
