"""How well class probabilities fit the labels: accuracy, F1, confusion, calibration, and how sure that is.

Everything is computed from finished arrays in float64, so that the figures of a run do not depend on the
precision in which the network ran.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hubel.errors import DataError

CALIBRATION_BINS = 15
"""Equal-width bins of the confidence, as Guo et al. (2017) use."""

SMALL_SET = 1000
"""Below this many images the 95 % interval of an accuracy near 0.9 is wider than ±0.019."""

_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class ClassMetrics:
    """How one class fares.

    Attributes:
        name: the class.
        images: how many images have it as their label (its support).
        predicted: how many images it was the best guess for.
        precision: share of those guesses that are right; 0 where it was never guessed.
        recall: share of its images that were recognized; 0 where it has none.
        f1: harmonic mean of precision and recall; 0 where both are 0.
    """

    name: str
    images: int
    predicted: int
    precision: float
    recall: float
    f1: float

    def to_json(self) -> dict[str, Any]:
        """``{"name", "images", "predicted", "precision", "recall", "f1"}``, fractions."""
        return {
            "name": self.name,
            "images": self.images,
            "predicted": self.predicted,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence lies in ``(low, high]``.

    Attributes:
        low: lower edge of the confidence.
        high: upper edge of the confidence.
        images: how many images fall in.
        confidence: their mean top-1 probability; 0 where there are none.
        accuracy: share of them that is right; 0 where there are none.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassificationScores:
    """A classifier's scores on labelled images; all rates are fractions 0..1.

    Attributes:
        images: number of images scored (N).
        top1: share whose most probable class is the label.
        top1_low: lower end of the 95 % Wilson interval of ``top1``.
        top1_high: upper end of the 95 % Wilson interval of ``top1``.
        top5: share whose label is among the ``top_n`` most probable classes.
        top_n: 5, or the number of classes where there are fewer.
        loss: mean negative natural log-likelihood of the labels.
        macro_f1: mean F1 over the classes that have images or were predicted.
        ece: expected calibration error, 15 equal-width bins.
        per_class: one row a class, in the model's order.
        confusion: int64 (K, K), rows are the truth, columns the prediction.
        calibration: the bins of the reliability diagram, from low to high confidence.
    """

    images: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    top_n: int
    loss: float
    macro_f1: float
    ece: float
    per_class: tuple[ClassMetrics, ...]
    confusion: np.ndarray
    calibration: tuple[CalibrationBin, ...]

    @property
    def small(self) -> bool:
        """Whether so few images were scored that the interval has to be read along with the accuracy."""
        return self.images < SMALL_SET

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {...}, "per_class": [...]}`` as ``hubel evaluate --json`` prints them."""
        names = ("top1", "top5", "loss", "macro_f1", "ece", "top1_low", "top1_high")
        return {
            "metrics": {name: getattr(self, name) for name in names},
            "per_class": [row.to_json() for row in self.per_class],
        }


def score_classification(
    probabilities: np.ndarray, labels: np.ndarray | Sequence[int], class_names: Sequence[str]
) -> ClassificationScores:
    """Score class probabilities against labels.

    Of equal probabilities the class with the lower index counts as the better one. A class that is neither a
    label nor a prediction is left out of the macro F1, as scikit-learn leaves it out when it is not told the
    list of classes: it has not been tested. A class without images that was predicted counts with F1 = 0.

    Args:
        probabilities: (N, K), each row non-negative and summing to 1 (within 1e-2, as bfloat16 leaves it).
        labels: (N,) integers in 0..K-1.
        class_names: the K names.

    Returns:
        The scores.

    Raises:
        DataError: nothing to score, shapes or names that do not match, labels out of range, or rows that are
            no probabilities (NaN, negative, another sum).
    """
    return combine_images(score_images(probabilities, labels, len(class_names)), class_names)


class ImageScore(NamedTuple):
    """What the metrics need of one image.

    Attributes:
        label: true class.
        predicted: most probable class.
        confidence: its probability.
        probability: of the true class.
        rank: how many classes are more probable than the true one, or as probable and of lower index.
    """

    label: int
    predicted: int
    confidence: float
    probability: float
    rank: int


def score_images(probabilities: np.ndarray, labels: np.ndarray | Sequence[int], num_classes: int) -> list[ImageScore]:
    """The images of a batch, for :func:`combine_images`; arguments and errors of :func:`score_classification`."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    _check(probabilities, labels, num_classes)
    labels = labels.astype(np.int64)
    of_label = probabilities[np.arange(len(labels)), labels]
    columns = (
        labels,
        probabilities.argmax(axis=1),
        probabilities.max(axis=1),
        of_label,
        _rank(probabilities, labels, of_label),
    )
    return [ImageScore(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def combine_images(images: Sequence[ImageScore], class_names: Sequence[str]) -> ClassificationScores:
    """The scores of images that :func:`score_images` took batch by batch.

    Raises:
        DataError: there are none.
    """
    if not images:
        raise DataError("There are no images to score.", "Name a split that has images.")
    count, classes = len(images), len(class_names)
    labels, predicted, confidence, of_label, rank = (np.array(column) for column in zip(*images, strict=True))
    right = predicted == labels
    top_n = min(5, classes)
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    per_class = _per_class(confusion, class_names)
    bins = calibration_bins(confidence, right)
    low, high = wilson_interval(int(right.sum()), count)
    return ClassificationScores(
        images=count,
        top1=float(right.mean()),
        top1_low=low,
        top1_high=high,
        top5=float((rank < top_n).mean()),
        top_n=top_n,
        # A label given probability 0 would make the mean infinite, which says nothing of the other images.
        loss=float(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean()),
        macro_f1=float(np.mean([row.f1 for row in per_class if row.images or row.predicted])),
        ece=expected_calibration_error(bins),
        per_class=per_class,
        confusion=confusion,
        calibration=bins,
    )


def wilson_interval(successes: int, trials: int, z: float = _NORMAL_975) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, JASA 22:209-212), sound for few trials and near 0 and 1.

    Args:
        successes: 0..trials.
        trials: at least 1.
        z: quantile of the normal distribution; the default gives 95 % coverage.

    Returns:
        Lower and upper end, fractions within 0..1.
    """
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration_bins(
    confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS
) -> tuple[CalibrationBin, ...]:
    """Sort predictions into equal-width bins of confidence (Guo et al. 2017, arXiv:1706.04599, section 2).

    Args:
        confidence: (N,) probability of the predicted class, 0..1.
        right: (N,) booleans, whether the prediction is the label.
        bins: how many bins; bin m (from 1) holds the confidences in ``((m-1)/bins, m/bins]``.

    Returns:
        All bins from low to high confidence, the empty ones too.
    """
    edges = np.arange(bins + 1) / bins
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    images = np.bincount(which, minlength=bins)
    filled = np.maximum(images, 1)
    mean_confidence = np.bincount(which, weights=confidence, minlength=bins) / filled
    accuracy = np.bincount(which, weights=right, minlength=bins) / filled
    return tuple(
        CalibrationBin(float(low), float(high), int(inside), float(sure), float(share))
        for low, high, inside, sure, share in zip(edges[:-1], edges[1:], images, mean_confidence, accuracy, strict=True)
    )


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean distance of confidence and accuracy, weighted by images (Guo et al. 2017, equation 5)."""
    images = sum(row.images for row in bins)
    return sum(row.images * abs(row.accuracy - row.confidence) for row in bins) / images


def _rank(probabilities: np.ndarray, labels: np.ndarray, of_label: np.ndarray) -> np.ndarray:
    """How many classes stand before the label: those more probable, and the equal ones of lower index."""
    better = (probabilities > of_label[:, None]).sum(axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    return better + ((probabilities == of_label[:, None]) & earlier).sum(axis=1)


def _per_class(confusion: np.ndarray, class_names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    rows = []
    for index, name in enumerate(class_names):
        hits = int(confusion[index, index])
        images = int(confusion[index].sum())
        predicted = int(confusion[:, index].sum())
        rows.append(
            ClassMetrics(
                name=str(name),
                images=images,
                predicted=predicted,
                precision=hits / predicted if predicted else 0.0,
                recall=hits / images if images else 0.0,
                f1=2 * hits / (images + predicted) if images + predicted else 0.0,
            )
        )
    return tuple(rows)


def _check(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if probabilities.size == 0 or labels.size == 0:
        raise DataError("There are no images to score.", "Name a split that has images.")
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise DataError(
            f"Probabilities of shape {probabilities.shape} do not fit labels of shape {labels.shape}.",
            "Give probabilities (N, K) and labels (N,).",
        )
    if probabilities.shape[1] != classes:
        raise DataError(
            f"The model has {probabilities.shape[1]} classes, the list of names {classes}.",
            "Score the model on a data set with the classes it was trained on.",
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"Labels are {labels.dtype}, not integers.", "Give the index of each image's class.")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"Label {labels[outside[0]]} of image {outside[0]} is outside 0..{classes - 1}.",
            "Number the classes from 0 in the order of their names.",
        )
    bad = ~np.isfinite(probabilities).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"Probabilities of {bad.sum()} of {len(bad)} images are not finite, those of image {first} first.",
            "The network computed NaN or infinity: train with a lower learning rate or in float32.",
        )
    off = (probabilities < 0).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > 1e-2)
    if off.any():
        first = int(off.argmax())
        raise DataError(
            f"Row {first} is no probability distribution, its sum is {probabilities[first].sum():.4g}.",
            "Apply a softmax to the network's outputs first.",
        )
