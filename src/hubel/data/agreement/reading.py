"""One set of labels an annotator, of whichever kind, read into one table of ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hubel.data.agreement.drawn_objects import object_ratings
from hubel.data.agreement.matching import SAME_OBJECT
from hubel.data.agreement.picture_labels import folder_ratings, is_label_table, table_ratings
from hubel.data.agreement.ratings import Ratings
from hubel.data.annotations import LabelledDataset
from hubel.data.checking.reading import read_any
from hubel.data.image_folder import ClassFolders
from hubel.errors import DataError, UsageError


def read_ratings(sources: Sequence[str | Path], format: str | None = None, least: float = SAME_OBJECT) -> Ratings:
    """What several annotators said.

    Args:
        sources: a labelled data set an annotator, in any annotation format or as class folders; or CSV tables with
            the columns ``image``, ``label`` and, if a table is of several people, ``annotator``; or one labelled data
            set whose objects name their annotators (Label Studio, Labelbox).
        format: as for :func:`~hubel.data.annotations.read_annotations`.
        least: intersection over union from which on boxes may mean one object.

    Raises:
        DataError: a set cannot be read, they are of several kinds, or no two have a picture in common.
        UsageError: there is one annotator only; or ``format`` is none.
    """
    paths = [Path(source) for source in sources]
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise UsageError(f"{twice[0]} is given twice.", "Name one set of labels an annotator.")
    names = _names(paths)
    tables = [path for path in paths if is_label_table(path)]
    if tables:
        ratings = table_ratings(names, tables) if len(tables) == len(paths) else None
    else:
        ratings = _from_sets(names, [read_any(path, format) for path in paths], least)
    if ratings is None:
        kinds = "Compare boxes with boxes, class folders with class folders, tables with tables."
        raise DataError(f"{', '.join(map(str, paths))} are labels of several kinds.", kinds)
    if len(ratings.annotators) < 2:
        fault = f"{paths[0]} has the labels of one annotator only."
        raise UsageError(fault, "Name a set of labels for each of two or more: hubel data agree ann/ bob/")
    if not ratings.pictures():
        fault = f"{', '.join(map(str, paths))} have no picture in common that two annotators have labelled."
        raise DataError(fault, "Pictures are known by their file names: give them the same.")
    return ratings


def _from_sets(names: Sequence[str], sets: Sequence[LabelledDataset | ClassFolders], least: float) -> Ratings | None:
    """The ratings of sets of one kind; ``None`` if they are not."""
    folders = [each for each in sets if isinstance(each, ClassFolders)]
    if folders:
        return folder_ratings(names, folders) if len(folders) == len(sets) else None
    labelled = [each for each in sets if isinstance(each, LabelledDataset)]
    return object_ratings(names, labelled, least)


def _names(paths: Sequence[Path]) -> list[str]:
    """What annotators are called: by their set, with as many of the folders above it as tell them apart."""
    parts = [path.resolve().with_suffix("").parts if path.is_file() else path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
