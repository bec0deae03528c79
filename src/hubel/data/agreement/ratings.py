"""Ratings of several annotators as one table: of whole images, or of objects drawn in images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hubel.data.agreement.kappa import UNRATED
from hubel.data.annotations import AnnotatedImage, Annotation

MISSING = "nothing"
"""Class of an object for annotators who have not drawn it, though others have."""


@dataclass(frozen=True)
class Item:
    """What is rated: an image, or an object in one.

    Attributes:
        image: its key, the same for all annotators.
        drawn: for an object, the annotation of each annotator who drew it.
    """

    image: str
    drawn: Mapping[int, Annotation] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratings:
    """Ratings of the same images by several annotators.

    Attributes:
        annotators: their names.
        classes: names; of objects, :data:`MISSING` is the last.
        items: what was rated.
        table: (items, annotators) of classes; :data:`~hubel.data.agreement.kappa.UNRATED` where an annotator
            has not labelled the image.
        files: by annotator, the files of the images that they have labelled, by key.
        drawn: whether objects were drawn in the images.
        labelled: of objects, the images' records by key and annotator.
        splits: of objects, by key, the image's split in the first annotator's set.
        notes: about the sets, one line each.
        format: of the first annotator's label files; empty if there are none.
    """

    annotators: tuple[str, ...]
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    table: np.ndarray
    files: tuple[Mapping[str, Path], ...]
    drawn: bool
    labelled: Mapping[str, Mapping[int, AnnotatedImage]] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: str = ""

    @property
    def missing(self) -> int | None:
        """Index of :data:`MISSING` in ``classes``; ``None`` for whole images."""
        return len(self.classes) - 1 if self.drawn else None

    @property
    def classes_only(self) -> np.ndarray:
        """The table in which an object that an annotator has not drawn counts as unrated."""
        if not self.drawn:
            return self.table
        return np.where(self.table == self.missing, UNRATED, self.table)

    def shared_images(self) -> dict[str, Path]:
        """The images that more than one annotator has labelled, by key, with the first one's file."""
        shared: dict[str, Path] = {}
        for key in dict.fromkeys(key for files in self.files for key in files):
            paths = [files[key] for files in self.files if key in files]
            if len(paths) > 1:
                shared[key] = paths[0]
        return shared
