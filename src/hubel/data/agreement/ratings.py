"""What annotators said, as one table: of pictures with one label each, or of objects drawn in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hubel.data.agreement.kappa import UNRATED
from hubel.data.annotations import AnnotatedImage, Annotation

NOTHING = "nothing"
"""What annotators say of an object that others have drawn and they have not."""


@dataclass(frozen=True)
class Thing:
    """What is rated: a picture, or an object in one.

    Attributes:
        picture: its key, the same for all annotators.
        drawn: of an object, what each annotator drew who did.
    """

    picture: str
    drawn: Mapping[int, Annotation] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratings:
    """What several annotators said of the same pictures.

    Attributes:
        annotators: their names.
        classes: names; of objects, :data:`NOTHING` is the last.
        things: what was rated.
        table: (things, annotators) of classes; :data:`~hubel.data.agreement.kappa.UNRATED` where an annotator
            has not labelled the picture.
        files: by annotator, the files of the pictures that they have labelled, by key.
        drawn: whether objects were drawn in the pictures.
        labelled: of objects, by key, the pictures' records by annotator.
        splits: of objects, by key, the split that the first annotator's set has the picture in.
        notes: what a person should know, one line each.
        format: of the first annotator's label files; empty where there are none.
    """

    annotators: tuple[str, ...]
    classes: tuple[str, ...]
    things: tuple[Thing, ...]
    table: np.ndarray
    files: tuple[Mapping[str, Path], ...]
    drawn: bool
    labelled: Mapping[str, Mapping[int, AnnotatedImage]] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: str = ""

    @property
    def classes_only(self) -> np.ndarray:
        """The table in which an object that an annotator has not drawn counts as not rated."""
        if not self.drawn:
            return self.table
        return np.where(self.table == len(self.classes) - 1, UNRATED, self.table)

    def pictures(self) -> dict[str, Path]:
        """The pictures that more than one annotator has labelled, by key, with the first one's file."""
        shared: dict[str, Path] = {}
        for key in dict.fromkeys(key for files in self.files for key in files):
            places = [files[key] for files in self.files if key in files]
            if len(places) > 1:
                shared[key] = places[0]
        return shared
