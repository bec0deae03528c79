"""Detect the annotation format from the contents of files, not from their names."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from hubel.data.annotations.format import FileHead, Format
from hubel.data.annotations.registry import all_formats
from hubel.data.file_listing import PICTURE_SUFFIXES
from hubel.data.image_folder import SPLIT_NAMES
from hubel.errors import DataError

_MAX_DEPTH = 5
_SNIFFED_FILES = 40
"""Files per folder and suffix that are examined."""

_SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml")
_OTHER_TASKS = re.compile(r"^(captions|person_keypoints|stuff|panoptic|image_info)_", re.IGNORECASE)
_SPLIT_WORD = re.compile(rf"(?:^|[._\- ])({'|'.join(SPLIT_NAMES)})\d*(?:$|[._\- ])", re.IGNORECASE)

Found = dict[str, list[tuple[str, Path]]]
"""Files by format, each with its split."""


def detect_formats(path: Path) -> Found:
    """The label files of a folder by format, or the format of a single file.

    Raises:
        DataError: ``path`` does not exist.
    """
    if path.is_file():
        entry = _sniff(path)
        return {entry.name: [(split_of(path, path.parent), path)]} if entry else {}
    if not path.is_dir():
        raise DataError(f"{path} does not exist.", "Check the spelling and the folder.")
    found: Found = defaultdict(list)
    text_folders: list[Path] = []
    image_folders: list[Path] = []
    for folder, names in _folders(path):
        by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_suffix[os.path.splitext(name)[1].lower()].append(name)  # noqa: PTH122 – a name, many times
        if any(suffix in PICTURE_SUFFIXES for suffix in by_suffix):
            image_folders.append(folder)
        if by_suffix[".txt"]:
            text_folders.append(folder)
        for suffix in _SUFFIXES:
            _add_files(path, folder, sorted(by_suffix[suffix]), found)
    for entry in all_formats().values():
        if entry.find_folders and not found[entry.name]:
            folders = entry.find_folders(path, image_folders, text_folders)
            found[entry.name] = [(split_of(folder / "-", path, by_name=False), folder) for folder in folders]
    return {name: files for name, files in found.items() if files}


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, folders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        hidden = depth >= _MAX_DEPTH
        folders[:] = [] if hidden else sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        yield Path(folder), [name for name in names if not name.startswith(".")]


def _add_files(root: Path, folder: Path, names: list[str], found: Found) -> None:
    """Add the files of one folder with one suffix to their formats."""
    if any(not _OTHER_TASKS.match(name) for name in names):
        names = [name for name in names if not _OTHER_TASKS.match(name)]
    for index, name in enumerate(names[:_SNIFFED_FILES]):
        file = folder / name
        entry = _sniff(file)
        if entry is None:
            continue
        if entry.file_holds == "image":  # the others are of the same kind
            files = map(folder.joinpath, names[index:])
            found[entry.name] += [(split_of(other, root, by_name=False), other) for other in files]
            return
        if entry.file_holds == "images" or not found[entry.name]:  # of a data set: the one nearest to the root
            found[entry.name].append((split_of(file, root), file))


def split_of(file: Path, root: Path, by_name: bool = True) -> str:
    """The split of a file, from the folders that lead to it and (unless it is of one image) from its name."""
    for part in file.relative_to(root).parts[:-1]:
        if part.casefold() in SPLIT_NAMES:
            return SPLIT_NAMES[part.casefold()]
    if by_name and (word := _SPLIT_WORD.search(file.stem)):
        return SPLIT_NAMES[word[1].casefold()]
    return "all"


def _sniff(file: Path) -> Format | None:
    if not file.is_file():
        return None
    head = FileHead(file)
    return next((entry for entry in all_formats().values() if entry.recognizes(head)), None)


def no_format_error(path: Path) -> DataError:
    """The error for a folder without labels."""
    layouts = "; ".join(f"{entry.title}: {entry.layout}" for entry in all_formats().values())
    return DataError(f"{path} has no labels of a known format.", f"Looked for {layouts}.")


def ambiguous_format(path: Path, found: Found) -> DataError:
    """The error for a folder with labels of several formats."""
    titles = {name: entry.title for name, entry in all_formats().items()}
    kinds = [f"{titles[name]} ({len(files)}, first {files[0][1].name})" for name, files in found.items()]
    message = f"{path} has labels of several formats: {', '.join(kinds)}."
    return DataError(message, f"Choose one with --from {'|'.join(found)}, or name the label file itself.")
