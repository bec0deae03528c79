"""A data set of either kind: labels in an annotation format, or a folder a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hubel.data.annotations import LabelledDataset, read_annotations
from hubel.data.annotations.detect_format import found_in, nothing_found
from hubel.data.image_folder import ClassFolders, read_class_folders
from hubel.errors import DataError


def read_any(
    path: str | Path, format: str | None = None, on_fault: Callable[[DataError], None] | None = None
) -> LabelledDataset | ClassFolders:
    """Read labels if there are any, else class folders; arguments as of ``read_annotations``.

    Raises:
        DataError: there is neither, or what there is cannot be read.
        UsageError: ``format`` is none.
    """
    path = Path(path)
    if format is None and path.is_dir() and not found_in(path):
        try:
            return read_class_folders(path)
        except DataError as error:
            raise nothing_found(path) from error
    return read_annotations(path, format, on_fault)
