"""What a folder or file is: found by what stands in it, not by how it is called."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from hubel.data.annotations.registry import FORMATS
from hubel.data.annotations.safe_parsing import decoded
from hubel.data.annotations.yolo import NAME_FILES
from hubel.data.file_listing import PICTURE_SUFFIXES
from hubel.data.image_folder import SPLIT_NAMES
from hubel.errors import DataError

_DEEPEST = 5
_HEAD = 1 << 16
_SNIFFED = 40
"""Files of a folder that are looked into; of one file a picture, the first ones tell."""
_ONE_A_PICTURE = frozenset({"voc", "labelme", "supervisely"})
_SUFFIXES = frozenset({".json", ".xml", ".csv", ".ndjson", ".jsonl", ".yaml", ".yml", ".txt"})
_BY_THE_WAY = re.compile(r"^(captions|person_keypoints|stuff|panoptic|image_info)_", re.IGNORECASE)
_SPLIT_WORD = re.compile(rf"(?:^|[._\- ])({'|'.join(SPLIT_NAMES)})\d*(?:$|[._\- ])", re.IGNORECASE)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')

Found = dict[str, list[tuple[str, Path]]]
"""By format, its files with their splits."""


def detect_formats(path: Path) -> Found:
    """The label files of a folder, or what a single file is.

    Raises:
        DataError: there is no such file or folder.
    """
    if path.is_file():
        name = _sniff(path)
        return {name: [(split_of(path, path.parent), path)]} if name else {}
    if not path.is_dir():
        raise DataError(f"{path} does not exist.", "Check the spelling and the folder.")
    found: Found = defaultdict(list)
    text_folders: list[Path] = []
    picture_folders: list[Path] = []
    for folder, names in _folders(path):
        by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_suffix[os.path.splitext(name)[1].lower()].append(name)  # noqa: PTH122 – a name, many times
        if any(suffix in PICTURE_SUFFIXES for suffix in by_suffix):
            picture_folders.append(folder)
        if by_suffix[".txt"] and any(name not in NAME_FILES for name in by_suffix[".txt"]):
            text_folders.append(folder)
        for suffix in sorted(_SUFFIXES - {".txt"}):
            _take(path, folder, sorted(by_suffix[suffix]), found)
    _take_yolo(path, picture_folders, text_folders, found)
    return {name: files for name, files in found.items() if files}


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, folders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX") if depth < _DEEPEST else []
        yield Path(folder), [name for name in names if not name.startswith(".")]


def _take(root: Path, folder: Path, names: list[str], found: Found) -> None:
    """Sort files of one suffix in one folder by format."""
    if any(not _BY_THE_WAY.match(name) for name in names):
        names = [name for name in names if not _BY_THE_WAY.match(name)]
    for place, name in enumerate(names[:_SNIFFED]):
        file = folder / name
        kind = _sniff(file)
        if kind in _ONE_A_PICTURE:
            found[kind] += [
                (split_of(other, root, by_name=False), other) for other in map(folder.joinpath, names[place:])
            ]
            return
        if kind == "yolo" and found["yolo"]:
            continue  # the first data.yaml is the one nearest to the root
        if kind is not None:
            found[kind].append((split_of(file, root), file))


def _take_yolo(root: Path, picture_folders: list[Path], text_folders: list[Path], found: Found) -> None:
    """Folders of pictures with text files beside them or in ``labels``, unless a ``data.yaml`` declares them."""
    if found["yolo"]:
        return
    for folder in picture_folders:
        parts = list(folder.relative_to(root).parts)
        beside = folder
        if "images" in parts:
            place = len(parts) - 1 - parts[::-1].index("images")
            beside = root.joinpath(*parts[:place], "labels", *parts[place + 1 :])
        if (beside in text_folders and _has_rows(beside)) or (folder in text_folders and _has_rows(folder)):
            found["yolo"].append((split_of(folder / "-", root, by_name=False), folder))


def _has_rows(folder: Path) -> bool:
    """Whether the first text files of a folder have lines of numbers, or nothing, in them."""
    files = sorted(file for file in folder.glob("*.txt") if file.name not in NAME_FILES)[:_SNIFFED]
    heads = [_head(file).strip() for file in files]
    rows = [head.splitlines()[0].split() for head in heads if head]
    return bool(rows) and all(len(row) >= 5 and row[0].replace(".0", "").isdecimal() for row in rows)


def split_of(file: Path, root: Path, by_name: bool = True) -> str:
    """The split that a file belongs to, by the folders on its way and (for files of many pictures) by its name."""
    for part in file.relative_to(root).parts[:-1]:
        if part.casefold() in SPLIT_NAMES:
            return SPLIT_NAMES[part.casefold()]
    if by_name and (word := _SPLIT_WORD.search(file.stem)):
        return SPLIT_NAMES[word[1].casefold()]
    return "all"


def _head(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return decoded(stream.read(_HEAD)).lstrip("\ufeff")
    except OSError:
        return ""


def _sniff(file: Path) -> str | None:
    """The format of a file, by its first 64 KB; ``None`` if it is none."""
    if not file.is_file():
        return None
    head = _head(file)
    suffix = file.suffix.lower()
    if suffix == ".xml" or head.startswith("<"):
        return _xml_kind(head)
    if suffix == ".csv":
        return _csv_kind(head)
    if suffix in (".yaml", ".yml"):
        return "yolo" if re.search(r"^(names|train)\s*:", head, re.MULTILINE) and "masks:" not in head else None
    if suffix in (".json", ".ndjson", ".jsonl"):
        return _json_kind(head)
    return None


def _xml_kind(head: str) -> str | None:
    tag = re.search(
        r"<([A-Za-z_][\w.-]*)", re.sub(r"<!--.*?-->|<\?.*?\?>|<!DOCTYPE[^>\[]*(\[.*?\])?\s*>", "", head, flags=re.S)
    )
    return {"annotation": "voc", "annotations": "cvat", "dataset": "dlib"}.get(tag[1] if tag else "")


def _csv_kind(head: str) -> str | None:
    if "region_shape_attributes" in head:
        return "via-csv"
    if "CSV_HEADER" in head and "spatial_coordinates" in head:
        return "via3"
    return "labelbox" if "Labeled Data" in head.partition("\n")[0] else None


def _json_kind(head: str) -> str | None:
    keys = _keys(head)
    first, second, third = keys[1], keys[2], keys[3]
    if "data_row" in first | second or "Labeled Data" in first | second:
        return "labelbox"
    if head.startswith("["):
        if "data" in second and second & {"annotations", "completions", "predictions"}:
            return "label-studio"
        return "createml" if second & {"image", "imagefilename"} and second & {"annotations", "annotation"} else None
    if first & {"_via_settings", "_via_img_metadata"} or {"filename", "regions"} <= second:
        return "via"
    if {"project", "file"} <= first and first & {"metadata", "view", "attribute"}:
        return "via3"
    if "shapes" in first and first & {"imagePath", "version", "imageHeight"}:
        return "labelme"
    if "objects" in first and "size" in first:
        return "supervisely"
    if "images" in first and (first & {"annotations", "categories"} or "file_name" in third):
        return "coco"
    if "annotations" in first and {"image_id", "category_id"} <= third:
        return "coco"
    return None


def _keys(head: str) -> dict[int, set[str]]:
    """The names of fields by depth, as far as the beginning of a JSON text shows them."""
    keys: dict[int, set[str]] = defaultdict(set)
    depth = 0
    last = ""
    for match in _TOKEN.finditer(head):
        token = match[0]
        if token in "{[":
            depth += 1
        elif token in "}]":
            depth -= 1
        elif token == ":" and last:
            keys[depth].add(last[1:-1])
        last = token if token[0] == '"' else ""
    return keys


def nothing_found(path: Path) -> DataError:
    """The error that says what was looked for."""
    looked = "; ".join(f"{entry.title}: {entry.layout}" for entry in FORMATS.values())
    return DataError(f"{path} has no labels of a known format.", f"Looked for {looked}.")


def ambiguous_format(path: Path, found: Found) -> DataError:
    """The error that says what is ambiguous."""
    kinds = [f"{FORMATS[name].title} ({len(files)}, first {files[0][1].name})" for name, files in found.items()]
    message = f"{path} has labels of several formats: {', '.join(kinds)}."
    return DataError(message, f"Say which with --from {'|'.join(found)}, or name the label file itself.")
