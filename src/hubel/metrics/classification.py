"""Classification metrics: accuracy and its confidence interval, F1, confusion, calibration.

Everything is computed in float64, whatever the precision of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from hubel.errors import DataError

SMALL_SET = 1000
"""With fewer images the 95 % interval of an accuracy near 0.9 is wider than ±0.019."""

METRICS = {
    "top1": ("top-1", ".1%"),
    "top5": ("top-5", ".1%"),
    "loss": ("loss", ".4f"),
    "macro_f1": ("macro F1", ".3f"),
    "balanced_accuracy": ("balanced accuracy", ".3f"),
    "ece": ("ECE", ".3f"),
}
"""Labels and number formats of the metrics in tables, by name."""

_NORMAL_975 = 1.959963984540054  # quantile of the normal distribution, for 95 % coverage


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, fractions 0..1.

    Attributes:
        images: number of images with this label (its support).
        predicted: number of images that it was predicted for.
        precision: 0 without predictions.
        recall: 0 without images.
        f1: harmonic mean of precision and recall; 0 if both are 0.
    """

    name: str
    images: int
    predicted: int
    precision: float
    recall: float
    f1: float

    def to_json(self) -> dict[str, Any]:
        """``{"name", "images", "predicted", "precision", "recall", "f1"}``, fractions."""
        return asdict(self)


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence is in ``(low, high]``.

    Attributes:
        confidence: mean top-1 probability; 0 without images.
        accuracy: fraction of the images that are right; 0 without images.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassificationScores:
    """Classification metrics; rates are fractions 0..1.

    Attributes:
        images: number of images.
        top1: fraction whose most probable class is the label.
        top1_low: lower end of the 95 % Wilson interval of ``top1``; ``top1_high`` is the upper one.
        top5: fraction whose label is among the ``top_n`` most probable classes.
        top_n: 5, or the number of classes if that is less.
        loss: mean negative natural log-likelihood of the labels.
        macro_f1: mean F1 over the classes that have images or were predicted.
        ece: expected calibration error.
        per_class: in the model's order.
        confusion: int64 (K, K), rows are the truth, columns the prediction.
        calibration: bins of the reliability diagram.
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
        """Fewer images than :data:`SMALL_SET`: the accuracy is uncertain."""
        return self.images < SMALL_SET

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images: accuracy if all classes had as many."""
        return float(np.mean([row.recall for row in self.per_class if row.images]))

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {...}, "per_class": [...]}`` as ``hubel evaluate --json`` prints them."""
        names = (*METRICS, "top1_low", "top1_high")
        return {
            "metrics": {name: getattr(self, name) for name in names},
            "per_class": [row.to_json() for row in self.per_class],
        }


def score_classification(
    probabilities: np.ndarray, labels: np.ndarray | Sequence[int], class_names: Sequence[str]
) -> ClassificationScores:
    """Score class probabilities against labels.

    Of equal probabilities the class with the lower index ranks first. A class that is neither a label nor a prediction
    is left out of the macro F1, as in scikit-learn without a list of labels. A class without images that was predicted
    counts with F1 = 0.

    Args:
        probabilities: (N, K), each row non-negative, with a sum of 1 (within 1e-2, for bfloat16).
        labels: (N,) integers in 0..K-1.
        class_names: K.

    Raises:
        DataError: there are no images, shapes or names do not match, labels are out of range, or rows are not
            probabilities (NaN, negative, another sum).
    """
    return combine_images(score_images(probabilities, labels, len(class_names)), class_names)


class ImageScore(NamedTuple):
    """Label and prediction of one image.

    Attributes:
        predicted: most probable class.
        confidence: its probability.
        probability: of the label.
        rank: number of classes that are more probable than the label, or as probable with a lower index.
    """

    label: int
    predicted: int
    confidence: float
    probability: float
    rank: int


def score_images(probabilities: np.ndarray, labels: np.ndarray | Sequence[int], num_classes: int) -> list[ImageScore]:
    """Score a batch for :func:`combine_images`; arguments and errors as of :func:`score_classification`."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    _check(probabilities, labels, num_classes)
    labels = labels.astype(np.int64)
    of_label = probabilities[np.arange(len(labels)), labels]
    earlier = np.arange(num_classes) < labels[:, None]
    rank = ((probabilities > of_label[:, None]) | (probabilities == of_label[:, None]) & earlier).sum(axis=1)
    columns = (labels, probabilities.argmax(axis=1), probabilities.max(axis=1), of_label, rank)
    return [ImageScore(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def combine_images(images: Sequence[ImageScore], class_names: Sequence[str]) -> ClassificationScores:
    """Metrics of images that :func:`score_images` scored batch by batch.

    Raises:
        DataError: there are no images.
    """
    if not images:
        raise DataError("there are no images to score", "choose a split that has images")
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
        # A single probability of 0 would make the mean infinite.
        loss=float(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean()),
        macro_f1=float(np.mean([row.f1 for row in per_class if row.images or row.predicted])),
        ece=expected_calibration_error(bins),
        per_class=per_class,
        confusion=confusion,
        calibration=bins,
    )


def wilson_interval(successes: int, trials: int, z: float = _NORMAL_975) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, JASA 22:209-212), accurate for few trials and near 0 and 1.

    Returns:
        Lower and upper end, fractions 0..1, with 95 % coverage for the default ``z``.
    """
    proportion = successes / trials
    centre = (proportion + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(proportion * (1 - proportion) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration_bins(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> tuple[CalibrationBin, ...]:
    """Sort predictions into equal-width bins of confidence (Guo et al. 2017, arXiv:1706.04599, section 2).

    Args:
        confidence: (N,) probability of the predicted class, 0..1.
        right: (N,) bool: the prediction is the label.
        bins: number of bins, 15 in the paper; bin m (from 1) is ``((m-1)/bins, m/bins]``.

    Returns:
        All bins from low to high confidence, including empty ones.
    """
    edges = np.arange(bins + 1) / bins
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    images = np.bincount(which, minlength=bins)
    filled = np.maximum(images, 1)
    means = (np.bincount(which, weights=each, minlength=bins) / filled for each in (confidence, right))
    columns = (edges[:-1], edges[1:], images, *means)
    return tuple(CalibrationBin(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean difference of confidence and accuracy, weighted by images (Guo et al. 2017, equation 5)."""
    images = sum(row.images for row in bins)
    return sum(row.images * abs(row.accuracy - row.confidence) for row in bins) / images


def _per_class(confusion: np.ndarray, class_names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    columns = (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    return tuple(
        ClassMetrics(
            name=str(name),
            images=images,
            predicted=predicted,
            precision=hits / predicted if predicted else 0.0,
            recall=hits / images if images else 0.0,
            f1=2 * hits / (images + predicted) if images + predicted else 0.0,
        )
        for name, hits, images, predicted in zip(class_names, *(each.tolist() for each in columns), strict=True)
    )


def _check(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if probabilities.size == 0 or labels.size == 0:
        raise DataError("there are no images to score", "choose a split that has images")
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise DataError(
            f"probabilities of shape {probabilities.shape} do not match labels of shape {labels.shape}",
            "pass probabilities (N, K) and labels (N,)",
        )
    if probabilities.shape[1] != classes:
        raise DataError(
            f"the model has {probabilities.shape[1]} classes, but there are {classes} names",
            "score the model on a data set with the classes it was trained on",
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels are {labels.dtype}, not integers", "pass the index of each image's class")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        raise DataError(
            f"label {labels[outside[0]]} of image {outside[0]} is outside 0..{classes - 1}",
            "number the classes from 0 in the order of their names",
        )
    bad = ~np.isfinite(probabilities).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"probabilities of {bad.sum()} of {len(bad)} images are not finite, first those of image {first}",
            "train with a lower learning rate or in float32: the network output NaN or infinity",
        )
    off = (probabilities < 0).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > 1e-2)
    if off.any():
        first = int(off.argmax())
        raise DataError(
            f"row {first} is not a probability distribution: its sum is {probabilities[first].sum():.4g}",
            "apply a softmax to the network's outputs first",
        )
