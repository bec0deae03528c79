"""Detect the format of annotations, read them into records, and write records in any format.

The format is detected from the contents of files, not from their names.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from hubel.data.annotations.format import FileHead, Format
from hubel.data.annotations.image_lookup import LABEL_FOLDERS, visible_files
from hubel.data.annotations.labelled_classes import with_labelled_classes, write_labelled_classes
from hubel.data.annotations.parse import InvalidAnnotation
from hubel.data.annotations.reader import AnnotationReader, LabelFileError
from hubel.data.annotations.records import AnnotatedDataset
from hubel.data.annotations.registry import all_formats, get_format
from hubel.data.annotations.unrecognized import no_format_error
from hubel.data.annotations.writer import DatasetWriter, ImageMode, count_losses, new_dataset_folder
from hubel.data.file_listing import IMAGE_SUFFIXES
from hubel.data.split_names import split_folders, split_of, split_of_file
from hubel.errors import DataError
from hubel.fileio import check_exists

_MAX_DEPTH = 16
_SNIFFED_FILES = 40  # files per folder and suffix that are examined
_SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml")
_OTHER_TASKS = re.compile(r"^(captions|person_keypoints|stuff|panoptic|image_info)_", re.IGNORECASE)

Found = dict[str, list[tuple[str, Path]]]
"""Files by format, each with its split."""


def read_annotations(
    path: str | Path, format: str | None = None, on_fault: Callable[[LabelFileError], None] | None = None
) -> AnnotatedDataset:
    """Read a labelled data set; no image is opened, except the header of one whose size no label file states.

    Args:
        path: its folder, or one label file in it. Images are looked up below that folder, or below the file's folder
            (the one above it, where the file is in a folder named ``annotations`` or similar).
        format: a name in :data:`hubel.data.annotations.registry.FORMAT_NAMES`, if the folder has labels of several.
        on_fault: called with each error of a label file or of an object in it, which is then left out.

    Raises:
        DataError: the format is unknown or ambiguous, or (without ``on_fault``) a label file has an error.
        UsageError: ``format`` does not exist.
    """
    path = Path(path)
    if format is not None:
        get_format(format)
    found = {name: files for name, files in detect_formats(path).items() if format in (None, name)}
    if not found:
        raise no_format_error(path)
    if len(found) > 1:
        kinds = [f"{get_format(name).title} ({len(files)}, first {files[0][1].name})" for name, files in found.items()]
        message = f"{path} has labels of several formats: {', '.join(kinds)}"
        raise DataError(message, f"choose one with --from {'|'.join(found)}, or pass the label file itself")
    ((name, files),) = found.items()
    root = path if path.is_dir() else path.parent
    if path.is_file() and path.absolute().parent.name.casefold() in LABEL_FOLDERS:
        root = path.parent.parent if path.parent.name else path.absolute().parent.parent
        files = [(split, root / path.absolute().relative_to(root.absolute())) for split, path in files]
    entry = get_format(name)
    reader = AnnotationReader(root, entry.title, on_fault)
    try:
        entry.read(reader, files)
    except InvalidAnnotation as error:  # what no context of a row or file has taken
        raise DataError(f"{reader.file}: {error}", "export it again, correct it, or leave it out") from error
    return with_labelled_classes(reader.dataset(entry.sort_classes, entry.name))


def write_annotations(
    dataset: AnnotatedDataset, format: str, out: str | Path, images: ImageMode = "copy"
) -> tuple[str, ...]:
    """Write a data set as a new folder in a format, completely or not at all.

    Args:
        format: a name in :data:`hubel.data.annotations.registry.FORMAT_NAMES`.
        out: the folder; it must not exist, or be empty.
        images: ``"copy"`` or ``"link"`` them into the folder, or leave them out (``"none"``).

    Returns:
        What the format cannot hold, one line each with a count; empty if nothing is lost.

    Raises:
        DataError: ``out`` is not empty, or cannot be written.
        UsageError: ``format`` does not exist.
    """
    entry = get_format(format)
    with new_dataset_folder(Path(out)) as folder:
        writer = DatasetWriter(folder, images)
        writer.losses.update(count_losses(dataset, entry.supports))
        entry.write(dataset, writer)
        if "labelled" not in entry.supports:
            write_labelled_classes(dataset, writer, "unused" in entry.supports)
    return writer.loss_lines()


def detect_formats(path: Path) -> Found:
    """The label files of a folder by format, or a single file by its own; raises DataError if there is no ``path``."""
    check_exists(path)
    if path.is_file():
        entry = _sniff(path)
        return {entry.name: [(_split_of(path, path.parent, {}), path)]} if entry else {}
    found: Found = defaultdict(list)
    text_folders: list[Path] = []
    image_folders: list[Path] = []
    folders = list(visible_files(path, _MAX_DEPTH))
    images = {name for _, names in folders for name in names if _suffix(name) in IMAGE_SUFFIXES}
    of_images = images | {os.path.splitext(name)[0] for name in images}  # noqa: PTH122 – names, many times
    named = split_folders(folder for folder, _ in folders if folder != path)
    for folder, names in folders:
        by_suffix: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_suffix[_suffix(name)].append(name)
        if any(suffix in IMAGE_SUFFIXES for suffix in by_suffix):
            image_folders.append(folder)
        if by_suffix[".txt"]:
            text_folders.append(folder)
        for suffix in _SUFFIXES:
            _add_files(path, folder, sorted(by_suffix[suffix]), of_images, named, found)
    for entry in all_formats().values():
        if entry.find_folders and not found[entry.name]:
            labelled = entry.find_folders(path, image_folders, text_folders)
            found[entry.name] = [(_split_of(folder / "-", path, named, by_name=False), folder) for folder in labelled]
    return {name: files for name, files in found.items() if files}


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 – a name, many times


def _add_files(
    root: Path, folder: Path, names: list[str], of_images: Collection[str], named: Mapping[Path, str], found: Found
) -> None:
    """Add the files of one folder with one suffix to their formats; ``of_images`` are names that images have."""
    names = [name for name in names if not _OTHER_TASKS.match(name)] or names
    unknown: list[str] = []
    for index, name in enumerate(names[:_SNIFFED_FILES]):
        file = folder / name
        entry = _sniff(file)
        if entry is None:
            unknown.append(name)
            continue
        if entry.file_holds == "image":  # the others are of the same kind
            # An empty or broken file before them is of an image, too, if there is one of that name.
            broken = [each for each in unknown if os.path.splitext(each)[0] in of_images]  # noqa: PTH122
            files = map(folder.joinpath, [*broken, *names[index:]])
            found[entry.name] += [(_split_of(other, root, named, by_name=False), other) for other in files]
            return
        if entry.file_holds == "images" or not found[entry.name]:  # of a data set: the one nearest to the root
            found[entry.name].append((_split_of(file, root, named), file))


def _split_of(file: Path, root: Path, named: Mapping[Path, str], by_name: bool = True) -> str:
    """The split of a file, from the folders that lead to it and (unless it is of one image) from its name.

    ``named`` are folders that are splits beside others: ``birds_train`` and ``birds_test``.
    """
    folder = root
    for part in file.relative_to(root).parts[:-1]:
        folder /= part
        if (split := named.get(folder) or split_of(part)) is not None:
            return split
    return (split_of_file(file.stem) if by_name else None) or "all"


def _sniff(file: Path) -> Format | None:
    if not file.is_file():
        return None
    head = FileHead(file)
    return next((entry for entry in all_formats().values() if entry.recognizes(head)), None)
