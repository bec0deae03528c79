"""The consensus as a data set of its own."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

from hubel.data.agreement.agreement import Agreement
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, write_annotations
from hubel.data.annotations.writer import ImageMode, write_class_folders
from hubel.errors import DataError, UsageError
from hubel.fileio import write_text


def write_consensus(
    agreement: Agreement, out: str | Path, format: str | None = None, pictures: ImageMode = "copy"
) -> tuple[str, ...]:
    """Write what annotators say together; pictures that one of them has labelled are there as they were labelled.

    Args:
        agreement: theirs.
        out: a new folder; or, of labels of whole pictures, a new ``.csv`` file with ``image,label,confidence``.
        format: of the label files, where objects were drawn; the first annotator's by default.
        pictures: copy or link them into the folder, or (where objects were drawn) leave them out.

    Returns:
        What the format cannot hold, one line each with a number.

    Raises:
        DataError: ``out`` is there already, or cannot be written; or pictures are to be sorted that are not there.
        UsageError: ``format`` is none, or there is nothing to be written in it.
    """
    out = Path(out)
    ratings = agreement.ratings
    if ratings.drawn:
        return write_annotations(_labelled(agreement), format or ratings.format, out, pictures)
    if format is not None:
        raise UsageError(f"Labels of whole pictures are not written as {format}.", "Leave --to out.")
    labels = [ratings.classes[label] for label in agreement.consensus.labels.tolist()]
    keys = [thing.picture for thing in ratings.things]
    if out.suffix.lower() == ".csv":
        if out.exists():
            raise DataError(f"{out} is there already.", "Choose another name; nothing is written over.")
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("image", "label", "confidence"))
        shares = (f"{value:.4f}" for value in agreement.consensus.confidence.tolist())
        rows.writerows(zip(keys, labels, shares, strict=True))
        write_text(out, text.getvalue())
        return ()
    files = {key: path for of_one in reversed(ratings.files) for key, path in of_one.items()}
    if missing := [key for key in keys if not files[key].is_file()]:
        message = f"{missing[0]} is not there, so it cannot be sorted into a class folder."
        raise DataError(message, f"Write a table: --consensus {out}.csv")
    samples = [(files[key], label) for key, label in zip(keys, labels, strict=True)]
    return write_class_folders({"all": samples}, out, pictures)


def _labelled(agreement: Agreement) -> AnnotatedDataset:
    ratings = agreement.ratings
    objects: dict[str, list[Annotation]] = defaultdict(list)
    for thing, agreed in zip(ratings.things, agreement.consensus.objects, strict=True):
        if agreed is not None:
            objects[thing.picture].append(agreed)
    splits: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for key, images in ratings.labelled.items():
        # Some tools export labels without pictures.
        first = next((image for image in images.values() if image.path.is_file()), next(iter(images.values())))
        sized = next((image for image in images.values() if image.width and image.height), first)
        record = AnnotatedImage(first.path, sized.width, sized.height, tuple(objects[key]))
        splits[ratings.splits[key]].append(record)
    return AnnotatedDataset(Path(), ratings.classes[:-1], {split: tuple(images) for split, images in splits.items()})
