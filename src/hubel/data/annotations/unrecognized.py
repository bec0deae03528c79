"""What to say of a folder whose labels are not read: what it has instead, and what to export."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hubel.data.annotations.format import FileHead
from hubel.data.annotations.image_lookup import visible_files
from hubel.data.annotations.registry import all_formats
from hubel.data.annotations.yolo import has_rows
from hubel.data.file_listing import IMAGE_SUFFIXES
from hubel.errors import DataError

_MAX_DEPTH = 16
_EXAMINED = 200  # files whose beginning is read
_KINDS_SHOWN = 4
_AS_COCO = "export it as COCO JSON or Pascal VOC XML"


@dataclass(frozen=True)
class _Other:
    """A kind of file that people have and hubel does not read: its name, how it is recognized, what to do."""

    title: str
    recognizes: Callable[[FileHead], bool]
    hint: str = _AS_COCO


def _has(*names: str, depth: int = 1) -> Callable[[FileHead], bool]:
    return lambda head: set(names) <= head.keys[depth]


def _columns(*names: str) -> Callable[[FileHead], bool]:
    def has_columns(head: FileHead) -> bool:
        header = re.split(r"[,;\t]", head.text.partition("\n")[0].casefold())
        return head.suffix in (".csv", ".tsv") and set(names) <= {cell.strip(' "\r\ufeff') for cell in header}

    return has_columns


def _rows(pattern: str) -> Callable[[FileHead], bool]:
    """Recognizes text files most of whose first lines match."""

    def match(head: FileHead) -> bool:
        lines = [line.strip()[:1000] for line in head.text.splitlines()[:12] if line.strip()]
        return head.suffix == ".txt" and 2 * sum(bool(re.match(pattern, line)) for line in lines) > len(lines)

    return match


def _suffix(*suffixes: str) -> Callable[[FileHead], bool]:
    return lambda head: head.suffix in suffixes


_NUMBER = r"-?\d{1,9}(?:\.\d{0,9})?"
_OTHERS = (
    _Other("a Git LFS pointer", lambda head: head.text.startswith("version https://git-lfs"),
           "fetch the file: git lfs pull"),
    _Other("an archive", _suffix(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "unpack it first"),
    _Other("TFRecord files", _suffix(".tfrecord", ".tfrecords", ".record")),
    _Other("Parquet files", _suffix(".parquet")),
    _Other("Datumaro's JSON", _has("categories", "items")),
    _Other("COCO detection results, which are not labels", lambda head: (
        head.is_json_list and {"image_id", "category_id", "score"} <= head.keys[2]
    ), "pass the file of labels that they belong to"),
    _Other("VoTT JSON", _has("asset", "regions")),
    _Other("VoTT JSON", _has("assets", "tags")),
    _Other("BDD100K or Scalabel JSON", lambda head: head.is_json_list and {"name", "labels"} <= head.keys[2]),
    _Other("Cityscapes polygons", _has("imgHeight", "imgWidth", "objects")),
    _Other("V7 Darwin JSON", _has("item", "annotations")),
    _Other("SuperAnnotate JSON", _has("metadata", "instances")),
    _Other("a SageMaker Ground Truth manifest", lambda head: '"source-ref"' in head.text[:2000]),
    _Other("a CSV table of class names for whole images", _columns("image", "label"),
           "sort the images into one folder per class for hubel train"),
    _Other("KITTI labels", _rows(rf"[A-Za-z]\w*( {_NUMBER}){{14,15}}$")),
    _Other("DOTA labels", _rows(rf"({_NUMBER} ){{8}}\S+ \d$|imagesource:|gsd:"),
           "convert them to YOLO's rotated boxes"),
    _Other("rows of a class and a box, with commas", _rows(rf"\d+(,\s*{_NUMBER}){{4}}$"),
           "put YOLO's labels beside their images, in fractions"),
    _Other("rows for Keras YOLO", _rows(r"\S+\.(jpe?g|png|bmp)( \d+,\d+,\d+,\d+,\d+)+$")),
    _Other("MOTChallenge text", _rows(rf"\d+,\s*-?\d+(,\s*{_NUMBER}){{4,8}}$"),
           "pass it to hubel track --detections, or to hubel evaluate --task track"),
)  # fmt: skip


def no_format_error(path: Path) -> DataError:
    """The error for a folder, or a file, without labels that are read."""
    if path.is_file():
        other = _other(path)
        what = f"is {other.title}, which is not read" if other else "is not a label file of a known format"
        return DataError(f"{path} {what}", other.hint if other else _use_a_format())
    folders = list(visible_files(path, _MAX_DEPTH))
    files = [folder / name for folder, names in folders for name in sorted(names)]
    if not files:
        return DataError(f"{path} is empty", "put images and their labels into it")
    for file in itertools.islice(_candidates(files), _EXAMINED):
        if other := _other(file):
            return DataError(f"{path} has {other.title} ({file.relative_to(path)}), which is not read", other.hint)
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
    if not any(suffix in IMAGE_SUFFIXES for suffix in kinds):
        for folder, names in folders:
            if any(name.lower().endswith(".txt") for name in names) and has_rows(folder):
                message = f"{path} has YOLO's label files (in {folder.relative_to(path)}), but no images"
                return DataError(message, "export it with the images (CVAT: Save images), or put them into images/")
    most = [f"{count:,} {suffix}" for suffix, count in kinds.most_common(_KINDS_SHOWN)]
    found = f"{', '.join(most)}{' and others' if len(kinds) > _KINDS_SHOWN else ''}"
    return DataError(f"{path} has no labels of a known format, but {found}", _use_a_format())


def _use_a_format() -> str:
    return f"use {', '.join(entry.title for entry in all_formats().values())}"


def _candidates(files: list[Path]) -> Iterator[Path]:
    """Files that may be labels: the first of each suffix in turn, so that no kind hides behind many of another."""
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            by_suffix.setdefault(file.suffix.lower(), []).append(file)
    for row in itertools.zip_longest(*by_suffix.values()):
        yield from filter(None, row)


def _other(file: Path) -> _Other | None:
    head = FileHead(file)
    return next((other for other in _OTHERS if other.recognizes(head)), None)
