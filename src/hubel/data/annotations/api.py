"""Read annotations of any format into records, and write records in any format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hubel.data.annotations.detect_format import ambiguous_format, detect_formats, no_format_error
from hubel.data.annotations.image_lookup import ImageLookup
from hubel.data.annotations.reader import AnnotationReader, LabelFileError
from hubel.data.annotations.records import AnnotatedDataset
from hubel.data.annotations.registry import get_format
from hubel.data.annotations.writer import DatasetWriter, ImageMode, count_losses, new_dataset_folder

_LABEL_FOLDERS = frozenset({"annotations", "annotation", "labels", "label", "ann", "json", "xml", "csv"})


def read_annotations(
    path: str | Path, format: str | None = None, on_fault: Callable[[LabelFileError], None] | None = None
) -> AnnotatedDataset:
    """Read a labelled data set; its format is detected.

    Args:
        path: its folder, or one label file in it. Images are looked up below that folder, or below the file's folder
            (the one above it, where the file is in a folder named ``annotations`` or similar).
        format: a name in :data:`hubel.data.annotations.registry.FORMAT_NAMES`, if the folder has labels of several.
        on_fault: called with each error of a label file or of an object in it, which is then left out.

    Returns:
        The data set. No image is opened, except the header of one whose size no label file states.

    Raises:
        DataError: the format is unknown or ambiguous, or (without ``on_fault``) a label file has an error.
        UsageError: ``format`` does not exist.
    """
    path = Path(path)
    wanted = get_format(format).name if format is not None else None
    found = detect_formats(path)
    if wanted is not None:
        found = {name: files for name, files in found.items() if name == wanted}
    if not found:
        raise no_format_error(path)
    if len(found) > 1:
        raise ambiguous_format(path, found)
    ((name, files),) = found.items()
    entry = get_format(name)
    root = path if path.is_dir() else path.absolute().parent
    if path.is_file():
        root = path.parent
        if path.absolute().parent.name.casefold() in _LABEL_FOLDERS:
            root = path.parent.parent if path.parent.name else path.absolute().parent.parent
            files = [(split, root / path.absolute().relative_to(root.absolute())) for split, path in files]
    reader = AnnotationReader(root, entry.title, ImageLookup(root), on_fault)
    entry.read(reader, files)
    return reader.dataset(entry.sort_classes, entry.name)


def write_annotations(
    dataset: AnnotatedDataset, format: str, out: str | Path, images: ImageMode = "copy"
) -> tuple[str, ...]:
    """Write a data set as a new folder in a format.

    Args:
        dataset: the data set.
        format: a name in :data:`hubel.data.annotations.registry.FORMAT_NAMES`.
        out: the folder; it must not exist, or be empty. It is written completely or not at all.
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
    return writer.loss_lines()
