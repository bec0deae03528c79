"""Data of a report: finished numbers, names and images; and the parts that each task brings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hubel.drawing import BoxLabel
from hubel.masks import RunLengthMask

_FEW = 100  # validation images: a top-1 has a standard error of up to 5 points


@dataclass(frozen=True)
class Mistake:
    """One image with a wrong prediction, and the probability, 0..1, of the predicted class.

    Attributes:
        overlap: IoU of the predicted box with the true one; ``None`` where there are no boxes.
        boxes: drawn on the image.
    """

    path: Path
    truth: str
    predicted: str
    probability: float
    overlap: float | None = None
    boxes: Sequence[BoxLabel] = ()


@dataclass(frozen=True)
class DetectionMistake:
    """One image with false positives or missed objects.

    Attributes:
        boxes: drawn on the image.
        wrong: the boxes that are wrong, in words, the most confident first.
        missed: the classes of the objects that were missed, each with how many.
    """

    path: Path
    boxes: Sequence[BoxLabel]
    wrong: Sequence[str]
    missed: Sequence[str]


@dataclass(frozen=True)
class InstanceMistake:
    """One image with false positives or missed objects, which have masks.

    Attributes:
        truth: the labelled objects, drawn on one copy of the image.
        found: drawn on another beside it.
        wrong, missed: as in :class:`DetectionMistake`.
    """

    path: Path
    truth: Sequence[tuple[BoxLabel, RunLengthMask]]
    found: Sequence[tuple[BoxLabel, RunLengthMask]]
    wrong: Sequence[str]
    missed: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """One image that was predicted, beside others.

    Attributes:
        panels: what each shows, and its pixels, uint8 (H, W, 3), all of one size.
        note: what is said of it, such as its scores.
    """

    path: Path
    panels: Sequence[tuple[str, np.ndarray]]
    note: str


Mistakes = Sequence[Mistake] | Sequence[DetectionMistake] | Sequence[InstanceMistake] | Sequence[Comparison]
"""The worst mistakes of a model, worst first, all of one kind."""


@dataclass(frozen=True)
class AugmentationSample:
    """One training image and random augmentations of it, each uint8 (H, W, C) with C of 3 or 1, 0..255."""

    original: np.ndarray
    augmented: Sequence[np.ndarray]


@dataclass(frozen=True)
class TrainingReport:
    """Everything a report shows; a section without material is left out, so an evaluation fits as well.

    Attributes:
        title: the heading, such as the name of the run folder.
        scores: the final scores of each scored split (``train``, ``val``, ``test``, ``all``).
        split_sizes: number of images of each split.
        history: one mapping per epoch with the columns of ``metrics.csv``; any may be missing, values be ``None`` or
            text as the file has them.
        best_epoch: the epoch whose weights were kept.
        mistakes: the worst first; all of one kind.
        transforms: the augmentations in words, in the order they are applied.
        configuration: the run's settings; nested mappings are shown as ``outer.inner``.
        timing: seconds by what they were spent on.
        decisions: what the run decided by measuring, a sentence each.
        warnings: what the check of the data found, a sentence each.
    """

    title: str
    task: str
    model: str
    data: str
    scores: Mapping[str, Any]
    split_sizes: Mapping[str, int] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    best_epoch: int | None = None
    mistakes: Mistakes = ()
    mistakes_split: str = "val"
    augmentation: Sequence[AugmentationSample] = ()
    transforms: Sequence[str] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)
    decisions: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def headline_split(self) -> str | None:
        """The split whose scores come first: the test set, else the first one; ``None`` without scores."""
        return "test" if "test" in self.scores else next(iter(self.scores), None)

    @property
    def few_to_choose_by(self) -> str:
        """See :func:`few_to_choose_by`; empty where no best epoch was chosen."""
        return few_to_choose_by(self.split_sizes.get("val", 0)) if self.best_epoch is not None else ""


def few_to_choose_by(validation: int) -> str:
    """A clause about the choice of the best epoch if there are few validation images, else empty."""
    if not 0 < validation < _FEW:
        return ""
    images = "image is" if validation == 1 else "images are"
    return f"{validation} validation {images} few to choose the best epoch by: others may be as good"


WRONG_LABELS = "Look for wrong labels first: they often turn up here."


@dataclass(frozen=True)
class TaskReport:
    """One task's part of a report.

    Attributes:
        package: whose folder has the templates ``headline.html.jinja``, shown where there are scores,
            ``scores.html.jinja``, the section of a split, and, if the general one will not do, ``mistakes.html.jinja``.
        curves: columns of ``metrics.csv`` without ``train_`` and ``val_`` that are drawn over the epochs, each with its
            title and caption.
        charts: of a split's scores, by name.
        sentences: the headline in plain words, from the scores of its split and what the split is called.
        of_split: what the templates need of a split's scores beyond the scores themselves.
        mistakes: heading of the images with mistakes.
        mistakes_key: how to read them.
        mistakes_side: longest side of each in pixels, about twice that on a phone's page, so that it is sharp.
    """

    package: str
    curves: Mapping[str, tuple[str, str]]
    charts: Callable[[Any], Iterable[tuple[str, Figure]]]
    sentences: Callable[[Any, str], Iterable[str]]
    of_split: Callable[[Any], dict[str, Any]]
    mistakes: str
    mistakes_key: str = WRONG_LABELS
    mistakes_side: int = 320
