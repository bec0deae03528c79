"""Metrics of class maps against torchmetrics, scikit-learn, and eroded masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from sklearn.metrics import jaccard_score

from hubel.data.samples import IGNORE_INDEX
from hubel.metrics.segmentation import SegmentationScores, boundary_overlap, combine, pixel_confusion

CLASSES = 5
NEVER_LABELLED, ABSENT = 3, 4


def maps(*, labelled: int, predicted: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted maps (6, 20, 30) of the first classes; half of the pixels are right, some are ignored."""
    generator = np.random.default_rng(seed)
    truth, guess = (generator.integers(0, count, (6, 20, 30)) for count in (labelled, predicted))
    found = np.where(generator.random(truth.shape) < 0.5, truth, guess)
    truth[generator.random(truth.shape) < 0.2] = IGNORE_INDEX
    truth[2] = IGNORE_INDEX  # an image without any label
    return truth.astype(np.uint8), found.astype(np.uint8)


def scored(truth: np.ndarray, predicted: np.ndarray) -> SegmentationScores:
    return combine([pixel_confusion(*each, CLASSES) for each in zip(truth, predicted, strict=True)], list("abcde"))


@pytest.mark.parametrize(
    ("labelled", "predicted"),
    [(CLASSES, CLASSES), (CLASSES, NEVER_LABELLED), (ABSENT, ABSENT), (NEVER_LABELLED, NEVER_LABELLED + 1)],
    ids=["all", "never predicted", "absent", "never labelled"],
)
def test_metrics_are_torchmetrics(labelled: int, predicted: int) -> None:
    judge = pytest.importorskip("torchmetrics.functional.classification")
    truth, found = maps(labelled=labelled, predicted=predicted)
    scores = scored(truth, found)
    target, guess = torch.from_numpy(truth).long(), torch.from_numpy(found).long()

    def judged(name: str, **options: str | None) -> np.ndarray:
        result = getattr(judge, f"multiclass_{name}")(guess, target, CLASSES, ignore_index=IGNORE_INDEX, **options)
        return result.double().numpy()

    confusion = judged("confusion_matrix")
    np.testing.assert_array_equal(scores.confusion, confusion)
    occurs = confusion.sum(0) + confusion.sum(1) > 0
    assert np.isnan(scores.iou).tolist() == (~occurs).tolist()
    np.testing.assert_allclose(scores.iou[occurs], judged("jaccard_index", average=None)[occurs], atol=1e-6)
    metrics = scores.to_json()["metrics"]
    assert metrics["mean_iou"] == pytest.approx(judged("jaccard_index", average="macro"), abs=1e-6)
    weighted = judged("jaccard_index", average="weighted")
    assert metrics["frequency_weighted_iou"] == pytest.approx(weighted, abs=1e-6)
    assert metrics["pixel_accuracy"] == pytest.approx(judged("accuracy", average="micro"), abs=1e-6)
    accuracy = judged("accuracy", average=None)
    true_pixels = confusion.sum(1) > 0
    np.testing.assert_allclose(scores.accuracy[true_pixels], accuracy[true_pixels], atol=1e-6)
    # torchmetrics' mean has an accuracy of 0 for a class that is predicted only; Long et al. divide by its pixels.
    mean = judged("accuracy", average="macro") * occurs.sum() / true_pixels.sum()
    assert metrics["mean_accuracy"] == pytest.approx(mean, abs=1e-6)
    rows = {row["name"]: row for row in scores.to_json()["per_class"]}
    assert [rows[name]["iou"] is None for name in "abcde"] == (~occurs).tolist()
    assert [rows[name]["accuracy"] is None for name in "abcde"] == (~true_pixels).tolist()


def test_metrics_are_those_of_the_papers_sums() -> None:
    """Long et al. 2015, section 5: n_ij pixels of class i are predicted as j, of which t_i belong to class i."""
    n = np.array([[6, 1, 1], [2, 3, 0], [0, 1, 10]])
    t = n.sum(1)
    scores = combine([n], list("abc"))
    assert scores.pixel_accuracy == pytest.approx((6 + 3 + 10) / 24)
    assert scores.mean_accuracy == pytest.approx((6 / 8 + 3 / 5 + 10 / 11) / 3)
    iou = [6 / (8 + 8 - 6), 3 / (5 + 5 - 3), 10 / (11 + 11 - 10)]
    assert scores.mean_iou == pytest.approx(sum(iou) / 3)
    assert scores.frequency_weighted_iou == pytest.approx(float(t @ iou) / 24)


def test_iou_is_scikit_learns() -> None:
    truth, found = maps(labelled=CLASSES, predicted=CLASSES, seed=2)
    counted = truth != IGNORE_INDEX
    np.testing.assert_allclose(scored(truth, found).iou, jaccard_score(truth[counted], found[counted], average=None))


def test_an_image_without_labels_counts_nowhere() -> None:
    nothing = np.full((4, 5), IGNORE_INDEX, np.uint8)
    scores = combine([pixel_confusion(nothing, np.zeros_like(nothing), CLASSES)], list("abcde"))
    assert not scores.confusion.any() and np.isnan(scores.iou).all()
    assert set(scores.to_json()["metrics"].values()) == {0.0}


def test_boundary_iou_is_that_of_eroded_masks() -> None:
    rng = np.random.default_rng(2)
    truth, predicted = (np.kron(rng.integers(0, 3, (5, 7)), np.ones((20, 20), int)) for _ in range(2))
    truth[:, :9] = 255
    overlap = boundary_overlap(truth.astype(np.uint8), predicted.astype(np.int32), 3)
    counted, reach = truth != 255, round(0.02 * np.hypot(100, 140))
    for label in range(3):
        near = []
        for class_map in (truth, predicted):
            mask = class_map == label
            inner = binary_erosion(mask, np.ones((3, 3)), iterations=reach)
            near.append(mask & ~inner & counted)
        assert overlap[:, label].tolist() == [(near[0] & near[1]).sum(), (near[0] | near[1]).sum()]
