"""From any format into records, and from records into any format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hubel.data.annotations.detect_format import ambiguous_format, detect_formats, nothing_found
from hubel.data.annotations.image_lookup import Pictures
from hubel.data.annotations.reader import AnnotationReader
from hubel.data.annotations.records import AnnotatedDataset
from hubel.data.annotations.registry import named_format
from hubel.data.annotations.writer import DatasetWriter, count_losses, new_folder
from hubel.data.annotations.writer import Pictures as Placed
from hubel.errors import DataError

_LABEL_FOLDERS = frozenset({"annotations", "annotation", "labels", "label", "ann", "json", "xml", "csv"})


def read_annotations(
    path: str | Path, format: str | None = None, on_fault: Callable[[DataError], None] | None = None
) -> AnnotatedDataset:
    """Read a labelled data set, recognized by what it is.

    Args:
        path: its folder, or one label file in it; pictures are looked for below that folder, or below the one that
            the file lies in (above it, where the file lies in a folder called ``annotations`` or alike).
        format: a name in :data:`hubel.data.annotations.registry.FORMATS`, where the folder has labels of several.
        on_fault: takes each fault of a label file or of an object in it; that file or object is then left out.

    Returns:
        The data set. No picture is opened, except the header of one whose size no label file says.

    Raises:
        DataError: the format is unknown or ambiguous; or, without ``on_fault``, the first fault found.
        UsageError: ``format`` is none.
    """
    path = Path(path)
    wanted = named_format(format).name if format is not None else None
    found = detect_formats(path)
    if wanted is not None:
        found = {name: files for name, files in found.items() if name == wanted}
    if not found:
        raise nothing_found(path)
    if len(found) > 1:
        raise ambiguous_format(path, found)
    ((name, files),) = found.items()
    entry = named_format(name)
    root = path if path.is_dir() else path.absolute().parent
    if path.is_file():
        root = path.parent
        if path.absolute().parent.name.casefold() in _LABEL_FOLDERS:
            root = path.parent.parent if path.parent.name else path.absolute().parent.parent
            files = [(split, root / path.absolute().relative_to(root.absolute())) for split, path in files]
    reading = AnnotationReader(root, entry.title, Pictures(root), on_fault)
    entry.read(reading, files)
    return reading.dataset(entry.by_name, entry.name)


def write_annotations(
    dataset: AnnotatedDataset, format: str, out: str | Path, pictures: Placed = "copy"
) -> tuple[str, ...]:
    """Write a data set as a new folder in a format.

    Args:
        dataset: what to write.
        format: a name in :data:`hubel.data.annotations.registry.FORMATS`.
        out: the folder; it must not exist, or be empty. All of it is there in the end, or none.
        pictures: ``"copy"`` or ``"link"`` them into the folder, or leave them out (``"none"``).

    Returns:
        What the format cannot hold, one line each with a number; nothing if all is there.

    Raises:
        DataError: ``out`` holds something, or cannot be written.
        UsageError: ``format`` is none.
    """
    entry = named_format(format)
    with new_folder(Path(out)) as folder:
        target = DatasetWriter(folder, pictures)
        target.losses.update(count_losses(dataset, entry.holds))
        entry.write(dataset, target)
    return tuple(f"{number:,} {what}" for what, number in target.losses.items())
