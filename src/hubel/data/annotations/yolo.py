"""YOLO: one text file per image, one line per object, in fractions of the upright image.

Rows are boxes, outlines or poses (see :mod:`~hubel.data.annotations.yolo_rows`). Ultralytics' loaders apply the EXIF
rotation, so fractions are of the upright image; Darknet's do not. Classes are those of ``names`` in ``data.yaml`` (a
list, or names by index), else of ``classes.txt`` or ``obj.names`` at the root or beside the labels, else their indices.
An empty file means that there is no object; without a file, the image is unlabelled.

Images: ``train``, ``val``, ``test`` of ``data.yaml`` are folders, lists of folders, or text files with one image per
line, relative to ``path`` or to the file; Roboflow's ``../train/images`` means ``train/images``. Where ``train`` and
``val`` are the same, the data set is unsplit. Labels of ``images/a/b.jpg`` are in ``labels/a/b.txt``, else beside it,
else at the same place of another tree (``JPEGImages/b.jpg`` and ``labels/b.txt``).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from hubel.data.annotations import parse, yaml_text
from hubel.data.annotations.format import FileHead, Format
from hubel.data.annotations.image_lookup import mirror_key, resolve_parts
from hubel.data.annotations.reader import AnnotationReader, LabelFiles
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.writer import DatasetWriter, split_dir
from hubel.data.annotations.yolo_rows import (
    RowLayout,
    detect_layout,
    parse_kpt_shape,
    parse_row,
    row_cells,
    row_numbers,
)
from hubel.data.file_listing import is_shown, listing
from hubel.data.split_names import SPLIT_NAMES
from hubel.errors import DataError
from hubel.masks import box_to_polygon

NAME_FILES = (
    "classes.txt", "obj.names", "labels.txt", "classes.names", "_darknet.labels", "_classes.txt",
    "predefined_classes.txt", "class_names.txt", "names.txt", "coco.names", "voc.names",
)  # fmt: skip
"""Files that list the classes, one per line, if no ``data.yaml`` does."""

_SNIFFED_FILES = 40
_SAMPLED_FILES = 200  # files of rows from which their layout is told
_MAX_PATHS = 1_000  # of a split in data.yaml
_MAX_PATH_LENGTH = 4096


def _recognizes(head: FileHead) -> bool:
    has_keys = re.search(r"^(names|train)\s*:", head.text, re.MULTILINE)
    return head.suffix in (".yaml", ".yml") and bool(has_keys) and "masks:" not in head.text


def _find_folders(root: Path, image_folders: Sequence[Path], text_folders: Sequence[Path]) -> list[Path]:
    """Folders of images with text files beside them, in ``labels``, or at the same place of another tree."""
    with_rows = [folder for folder in text_folders if has_rows(folder)]
    keys = {mirror_key(folder, root) for folder in with_rows}
    return [
        folder
        for folder in image_folders
        if folder in with_rows or _labels_path(folder, root) in with_rows or mirror_key(folder, root) in keys
    ]


def has_rows(folder: Path) -> bool:
    """True if most of the first text files of a folder that contain anything contain rows of numbers."""
    texts = (file for file in folder.iterdir() if file.suffix.lower() == ".txt" and is_shown(file.name))
    files = sorted(file for file in texts if file.name not in NAME_FILES)
    heads = [FileHead(file).text.strip() for file in files[:_SNIFFED_FILES]]
    rows = [head.splitlines()[0] for head in heads if head]
    return 2 * sum(map(_is_row, rows)) > len(rows)


def _is_row(line: str) -> bool:
    """True for a class and numbers, a few of which may be missing; also for the name of a class and a box.

    With commas, as many other tools write rows, the numbers are fractions.
    """
    numbers = row_numbers(line)
    if numbers is None:
        return False
    if "," in line or ";" in line:
        return len(numbers) >= 4 and all(0 <= number <= 1 for number in numbers)
    is_class = row_cells(line)[0].replace(".0", "").isdecimal()
    return len(numbers) >= 2 if is_class else len(numbers) == 4


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
    layout: RowLayout | None = None
    for split, path in files:
        if path.suffix.lower() not in (".yaml", ".yml"):
            images += [(split, image) for image in reader.images.within(path)]
            continue
        with reader.error_context(path):
            content = yaml_text.load(reader.read_text(path, yaml_text.MAX_BYTES))
            names |= _declared_names(reader, path, content)
            if (shape := yaml_text.entry(content, "kpt_shape")) is not None:
                layout = parse_kpt_shape(shape)
            images += _declared_images(reader, path, content)
    rows = [(split, image, _label_file(reader, image)) for split, image in images]
    label_files = [file for _, _, file in rows if file]
    if not names:
        names = _listed_names(reader, [path for _, image, file in rows for path in (image, file) if path])
    if not names:
        indices = sorted({index for file in label_files for index in _class_indices(reader, file)})
        names = {index: str(index) for index in range(indices[-1] + 1)} if indices else {}
        reader.warn("no file names the classes: their indices are used")
    order = sorted(names)
    if order != list(range(len(order))):
        raise DataError(f"{reader.root} numbers its classes {order[:5]}…, not from 0", "number the names from 0")
    reader.file = next((path for _, path in files if path.suffix.lower() in (".yaml", ".yml")), reader.root)
    for index in order:
        if reader.label(names[index]) != index:
            hint = "give each class a different name in data.yaml"
            raise DataError(f"{reader.root} has the class {names[index]!r} twice", hint)
    if layout is None:
        layout = _guessed_layout(reader, label_files)
    of_images = {image: file for _, image, file in rows if file}
    if shared := len(of_images) - len(set(of_images.values())):
        reader.count_warning("images share their label file with another one of that name, a.jpg with a.png", shared)
    for split, image, file in rows:
        _read_image(reader, split, image, file, layout)


def _declared_names(reader: AnnotationReader, file: Path, content: dict[str, Any]) -> dict[int, str]:
    """Names by index in ``data.yaml``: a list, a mapping, or the name of a file that lists them."""
    names = yaml_text.entry(content, "names")
    count = yaml_text.entry(content, "nc")
    if isinstance(names, str) and (listed := _resolve(reader, file.parent, names)) is not None and listed.is_file():
        return _names_in(reader, listed)
    if names is not None and not isinstance(names, dict | list):
        raise parse.InvalidAnnotation("names is neither a list nor names by index")
    pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
    parsed = {parse.integer(index, "a class index"): parse.name(name, "a class name") for index, name in pairs}
    if count is not None and parsed and parse.integer(count, "nc") != len(parsed):
        reader.warn(f"{file}: nc is {count}, but there are {len(parsed)} names, which are used")
    return parsed


def _names_in(reader: AnnotationReader, file: Path) -> dict[int, str]:
    """Names, one per line, also with their index before them; lines of comment (``# …``) are counted and left out."""
    lines = [line.strip() for line in reader.read_text(file, 1 << 20).strip().splitlines()]
    names = [line for line in lines if not line.startswith("# ")]
    if len(names) < len(lines):
        reader.warn(f"{file}: lines that begin with # are comments, not classes")
    if "" in names:
        message = f"{file}, line {lines.index('') + 1}: is empty: which numbers the classes after it have is not clear"
        raise DataError(message, "remove the line, or write a name")
    numbered = [re.fullmatch(rf"{index}\s*[\s:,]\s*(.+)", name) for index, name in enumerate(names)]
    return {index: match[1] if match and all(numbered) else names[index] for index, match in enumerate(numbered)}


def _listed_names(reader: AnnotationReader, files: Sequence[Path]) -> dict[int, str]:
    """Names from a list in the root, or in any folder between it and the images and their labels.

    LabelImg writes a list into each folder of labels, and adds to it: the longest contains the others.
    """
    folders = dict.fromkeys((reader.root, reader.root / "labels", *(file.parent for file in files)))
    folders |= dict.fromkeys(parent for folder in folders for parent in folder.parents)
    longest: dict[int, str] = {}
    source: Path | None = None
    for folder in (each for each in folders if each.is_relative_to(reader.root)):
        path = next(filter(None, (reader.images.locate(folder / name) for name in NAME_FILES)), None)
        if path is None or not path.is_file():
            continue
        names = _names_in(reader, path)
        short, long = sorted((names, longest), key=len)
        if any(long[index] != name for index, name in short.items()):
            message = f"{source} and {path} list different classes"
            raise DataError(message, "write data.yaml with the names in the order that the labels use")
        longest, source = long, path
    return longest


def _declared_images(reader: AnnotationReader, file: Path, content: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """The images that ``data.yaml`` declares, each with its split."""
    entries: dict[str, list[str]] = {}
    for key in ("train", "val", "valid", "validation", "test"):
        if (value := yaml_text.entry(content, key)) and SPLIT_NAMES[key] not in entries:
            names = [parse.name(one, key) for one in (value if isinstance(value, list) else [value])]
            longest = max(map(len, names), default=0)
            if len(names) > _MAX_PATHS or longest > _MAX_PATH_LENGTH:
                raise parse.InvalidAnnotation(f"{key} has {len(names):,} paths, of up to {longest:,} letters")
            entries[SPLIT_NAMES[key]] = names
    if not entries:
        entries = {"all": ["images"]}
    elif entries.get("train") == entries.get("val"):
        entries = {"all": entries.pop("train"), **{k: v for k, v in entries.items() if k == "test"}}
    base = _resolve(reader, file.parent, str(yaml_text.entry(content, "path") or ".")) or file.parent
    for split, names in entries.items():
        paths = [_resolve(reader, base, name) or _resolve(reader, file.parent, name) for name in names]
        seen: set[Path] = set()
        for path in filter(None, paths):
            yield from ((split, image) for image in _images_of(reader, path, seen))
        if not any(paths):
            reader.warn(f"{file}: {split} is {listing(names)}, which does not exist: left out")


def _resolve(reader: AnnotationReader, base: Path, name: str) -> Path | None:
    """The path that ``name`` refers to, if it exists below the root; foreign absolute paths are tried by their ends."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    is_absolute = name.startswith(("/", "\\")) or name[1:2] == ":"
    candidates = [] if is_absolute else [[*base.relative_to(reader.root).parts, *parts]]
    while parts and parts[0] == "..":
        parts = parts[1:]
    candidates += [parts[start:] for start in range(len(parts))] if is_absolute else [parts]
    paths = (reader.images.existing(parts) for parts in map(resolve_parts, candidates) if parts is not None)
    return next(filter(None, paths), None)


def _images_of(reader: AnnotationReader, path: Path, seen: set[Path]) -> Iterator[Path]:
    """The images in a folder and below, or those that a text file lists; what was ``seen`` is not read again."""
    if path in seen:
        return
    seen.add(path)
    if path.is_dir():
        yield from reader.images.within(path)
        for folder in sorted(child for child in path.iterdir() if child.is_dir() and is_shown(child.name)):
            yield from _images_of(reader, folder, seen)
        return
    for index, line in enumerate(reader.read_text(path).splitlines()):
        if line.strip():
            with reader.error_context(path, f"line {index + 1}"):
                yield reader.images.find(line.strip(), path.parent)


def _label_file(reader: AnnotationReader, image: Path) -> Path | None:
    folders = dict.fromkeys((_labels_path(image, reader.root).parent, image.parent))
    folders |= dict.fromkeys(reader.images.mirrors(image.parent, ".txt"))
    names = (f"{image.name}.txt", f"{image.stem}.txt", f"{image.stem}.TXT")
    files = (reader.images.locate(folder / name) for folder in folders for name in names)
    return next((file for file in files if file is not None and file.name not in NAME_FILES), None)


def _class_indices(reader: AnnotationReader, file: Path) -> Iterator[int]:
    with reader.error_context(file):
        for line in reader.read_text(file, parse.MAX_IMAGE_FILE_BYTES).splitlines():
            name = row_cells(line)[0] if line.strip() else ""
            if name.isascii() and name.isdecimal() and len(name) <= 5:
                yield int(name)


def _guessed_layout(reader: AnnotationReader, files: Sequence[Path]) -> RowLayout:
    rows: list[list[float]] = []
    for file in files[:_SAMPLED_FILES]:
        with contextlib.suppress(DataError):  # reading it reports the error
            lines = parse.read_text(file, parse.MAX_IMAGE_FILE_BYTES).splitlines()[:_SAMPLED_FILES]
            rows += [numbers for line in lines if line.strip() and (numbers := row_numbers(line)) is not None]
    layout = detect_layout(rows)
    if layout.keypoints is not None:
        count, each = layout.keypoints
        reader.warn(f"rows are read as poses, as kpt_shape: [{count}, {each}] in data.yaml would declare them")
    elif not layout.is_certain:
        extra = len(rows[0]) - 4
        reader.warn(
            f"rows are read as outlines; if they are poses, a box and key points, declare kpt_shape: [{extra // 2}, 2] "
            "in data.yaml"
        )
    return layout


def _read_image(reader: AnnotationReader, split: str, image: Path, file: Path | None, layout: RowLayout) -> None:
    if file is None:
        with reader.error_context(image):
            reader.add(split, AnnotatedImage(image, 0, 0, None))
        return
    with reader.error_context(file):
        lines = reader.read_text(file, parse.MAX_IMAGE_FILE_BYTES).splitlines()
        rows = [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
        width, height = reader.images.size(image)
        objects = reader.parse_rows(file, rows, len(rows), lambda line: parse_row(reader, line, layout, width, height))
        if objects and not width:
            reader.count_warning("images are missing or unreadable: their labels, in fractions of them, are left out")
        reader.add(split, AnnotatedImage(image, width, height, objects if width or not objects else None, file))


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
    comment = ""
    if "all" in dataset.splits:
        folders = {"train": "images", "val": "images"}
        comment = "# Not split: train and val are the same images, so scores on val are those of training.\n"
        unsplit = "images are not split: data.yaml names them as train and as val"
        writer.record_loss(unsplit, len(dataset.splits["all"]))
    # Without path, which Ultralytics would look up in its working directory, folders are beside data.yaml.
    content = {**folders, "names": dict(enumerate(dataset.classes))}
    writer.write("data.yaml", comment + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


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
