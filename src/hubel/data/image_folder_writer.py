"""Class folders as a new folder: pictures copied or linked to where their class and split say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hubel.data.annotations.records import AnnotatedImage
from hubel.data.annotations.writer import DatasetWriter, Pictures, new_folder, split_dir
from hubel.errors import DataError


def write_class_folders(
    splits: Mapping[str, Sequence[tuple[Path, str]]], out: Path, pictures: Pictures = "copy"
) -> tuple[str, ...]:
    """Write a data set of class folders.

    Args:
        splits: by name (``"all"`` for an unsplit one), each picture's file with its class.
        out: the folder; it must not exist, or be empty. All of it is there in the end, or none.
        pictures: copy or link them.

    Returns:
        What became of pictures that could not be brought as they are, one line each with a number.

    Raises:
        DataError: ``out`` holds something, or cannot be written; or a class has a name that no folder can have.
    """
    for name in {name for samples in splits.values() for _, name in samples}:
        if name.startswith(".") or any(letter in "/\\:" or ord(letter) < 32 for letter in name):
            raise DataError(f"{name!r} cannot be the name of a folder.", "Rename the class: letters, digits, blanks.")
    with new_folder(out) as folder:
        target = DatasetWriter(folder, pictures)
        for split, samples in splits.items():
            for path, name in samples:
                target.place(AnnotatedImage(path, 0, 0, None), f"{split_dir(split)}/{name}".lstrip("/"))
    return tuple(f"{number:,} {what}" for what, number in target.losses.items())
