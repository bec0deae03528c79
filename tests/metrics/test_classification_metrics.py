"""Classification scores against scikit-learn, scipy and hand computations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import (
    balanced_accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
    log_loss,
    top_k_accuracy_score,
)

from hubel.errors import DataError
from hubel.metrics.classification import (
    calibration_bins,
    expected_calibration_error,
    score_classification,
    wilson_interval,
)


def random_case(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities that favour the label, uneven classes, class 1 never the label's nor predicted."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(classes) * 2)
    shares[1] = 0
    labels = random.choice(classes, images, p=shares / shares.sum())
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5
    logits[:, 1] -= 20
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True), labels, [f"class {k}" for k in range(classes)]


@pytest.mark.parametrize(("images", "classes"), [(400, 7), (37, 12), (3000, 40)])
def test_scores_equal_scikit_learn(images, classes):
    probabilities, labels, names = random_case(images, classes)
    scores = score_classification(probabilities, labels, names)
    predicted = probabilities.argmax(axis=1)
    every = list(range(classes))

    assert np.array_equal(scores.confusion, confusion_matrix(labels, predicted, labels=every))
    assert scores.loss == pytest.approx(log_loss(labels, probabilities, labels=every), rel=1e-12)
    assert scores.top1 == pytest.approx(np.mean(labels == predicted))
    assert scores.top5 == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5, labels=every))
    assert scores.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    report = classification_report(
        labels, predicted, labels=every, target_names=names, output_dict=True, zero_division=0
    )
    for row in scores.per_class:
        expected = report[row.name]
        assert row.precision == pytest.approx(expected["precision"])
        assert row.recall == pytest.approx(expected["recall"])
        assert row.f1 == pytest.approx(expected["f1-score"])
        assert row.images == expected["support"]
    interval = binomtest(int((labels == predicted).sum()), images).proportion_ci(method="wilson")
    assert (scores.top1_low, scores.top1_high) == pytest.approx(tuple(interval), abs=1e-9)


def test_ece_equals_a_plain_loop_over_the_paper_s_definition():
    probabilities, labels, names = random_case(700, 9, seed=3)
    total = 0.0
    for m in range(1, 16):
        inside = [
            (max(row), int(row.argmax() == label))
            for row, label in zip(probabilities, labels, strict=True)
            if (m - 1) / 15 < max(row) <= m / 15
        ]
        if inside:
            confidence = sum(pair[0] for pair in inside) / len(inside)
            accuracy = sum(pair[1] for pair in inside) / len(inside)
            total += len(inside) / 700 * abs(accuracy - confidence)
    assert score_classification(probabilities, labels, names).ece == pytest.approx(total, abs=1e-12)


def test_ece_of_a_small_table_by_hand():
    # Bin (0.9333, 1]: 0.95 and 1.0, one of two right, gap |0.5 - 0.975| = 0.475.
    # Bin (0.6, 0.6667]: 0.62 and 0.66, both right, gap |1 - 0.64| = 0.36.   ECE = (2·0.475 + 2·0.36) / 4.
    probabilities = np.array([[0.95, 0.05], [0.0, 1.0], [0.62, 0.38], [0.34, 0.66]])
    scores = score_classification(probabilities, [1, 1, 0, 1], ["a", "b"])
    assert scores.ece == pytest.approx(0.4175)
    assert [row.images for row in scores.calibration] == [0] * 9 + [2] + [0] * 4 + [2]
    assert scores.calibration[14].confidence == pytest.approx(0.975)
    assert scores.calibration[14].accuracy == 0.5


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    bins = calibration_bins(np.array([0.2, 0.2000001, 0.4, 1.0]), np.array([True, True, False, True]), bins=5)
    assert [row.images for row in bins] == [1, 2, 0, 0, 1]
    assert expected_calibration_error(bins) == pytest.approx((0.8 + abs(1 - 0.6000001) + 0.0) / 4)


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (0, 20), (20, 20), (81, 263), (238, 250), (9999, 10000)])
def test_wilson_interval_equals_scipy(right, images):
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, images) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_interval_of_newcombe_s_table():
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3 (score).
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_top5_with_fewer_classes_and_ties():
    scores = score_classification(np.full((4, 3), 1 / 3), [0, 1, 2, 0], ["a", "b", "c"])
    assert (scores.top_n, scores.top5, scores.top1) == (3, 1.0, 0.5)
    flat = score_classification(np.full((6, 6), 1 / 6), np.arange(6), list("abcdef"))
    assert flat.top5 == pytest.approx(5 / 6), "equal probabilities must not all count as among the best five"


def test_a_certain_mistake_leaves_the_loss_finite():
    scores = score_classification(np.array([[1.0, 0.0], [1.0, 0.0]]), [0, 1], ["a", "b"])
    assert math.isfinite(scores.loss)
    assert scores.loss > 20


def test_json_has_the_names_of_the_interface():
    probabilities, labels, names = random_case(50, 4)
    row = json.loads(json.dumps(score_classification(probabilities, labels, names).to_json(), allow_nan=False))
    assert set(row["metrics"]) == {
        *("top1", "top5", "loss", "macro_f1", "balanced_accuracy", "ece", "top1_low", "top1_high")
    }
    assert [item["name"] for item in row["per_class"]] == names
    assert sum(item["images"] for item in row["per_class"]) == 50


def test_small_sets_are_marked():
    assert score_classification(np.eye(2), [0, 1], ["a", "b"]).small
    assert not score_classification(np.tile(np.eye(2), (500, 1)), [0, 1] * 500, ["a", "b"]).small


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 2)), [], "no images"),
        (np.full((3, 2), 0.5), [0, 1], "do not match"),
        (np.full((2, 3), 1 / 3), [0, 1], "3 classes"),
        (np.full((2, 2), 0.5), [0, 2], "label 2 of image 1"),
        (np.full((2, 2), 0.5), [-1, 0], "label -1 of image 0"),
        (np.full((2, 2), 0.5), [0.0, 1.0], "not integers"),
        (np.array([[0.5, 0.5], [np.nan, 0.5]]), [0, 1], "1 of 2 images are not finite"),
        (np.array([[3.0, -1.0], [0.5, 0.5]]), [0, 1], "not a probability"),
        (np.array([[-0.5, 1.5], [0.5, 0.5]]), [0, 1], "not a probability"),
    ],
)
def test_what_cannot_be_scored_is_named(probabilities, labels, message):
    with pytest.raises(DataError, match=message) as caught:
        score_classification(probabilities, labels, ["a", "b"])
    assert caught.value.hint
