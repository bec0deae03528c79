"""A detector's scores: class by class pycocotools', the confusion matrix supervision's, and images worked by hand."""

from __future__ import annotations

import contextlib
import io
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hubel.errors import DataError
from hubel.metrics.box_matches import IGNORED, UNMATCHED, match_boxes
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.confidence import THRESHOLDS
from hubel.metrics.detection import score_detection, scores_table, worst_images

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'

CLASSES = ("red", "white", "platelet")
SIDES = (("small", 12.0), ("medium", 60.0), ("large", 110.0))


def images(count: int, seed: int, crowds: bool) -> tuple[list[GroundTruth], list[PredictedObjects]]:
    """Objects of three sizes; boxes that are moved, doubled, misnamed, missing or invented, of ties in no score."""
    rng = np.random.default_rng(seed)
    labelled, found = [], []
    for _ in range(count):
        boxes, labels, guesses, called = [], [], [], []
        for cell in rng.permutation(9)[: rng.integers(0, 8)]:  # apart from each other: one object is meant by a box
            side = SIDES[rng.integers(3)][1]
            corner = np.array([cell % 3, cell // 3]) * 150 + rng.uniform(0, 20, 2)
            boxes.append([*corner, *(corner + side * rng.uniform(0.8, 1.1, 2))])
            labels.append(rng.integers(2) if rng.random() < 0.8 else 0)
            wrong = (labels[-1] + 1) % 3
            for _ in range(rng.integers(0, 4)):
                guesses.append(np.array(boxes[-1]) + rng.normal(0, side / 10, 4))
                called.append(labels[-1] if rng.random() < 0.7 else wrong)
        crowd = rng.random(len(labels)) < (0.2 if crowds else 0)
        labelled.append(GroundTruth(np.reshape(boxes, (-1, 4)), np.array(labels, int), crowd))
        found.append(PredictedObjects(np.reshape(guesses, (-1, 4)), rng.random(len(called)), np.array(called, int)))
    return labelled, found


def pycocotools_evaluation(labelled: list[GroundTruth], found: list[PredictedObjects]) -> COCOeval:
    data: dict[str, Any] = {"images": [{"id": index} for index in range(len(labelled))], "annotations": []}
    data["categories"] = [{"id": index, "name": name} for index, name in enumerate(CLASSES)]
    rows = []
    for image, (true, given) in enumerate(zip(labelled, found, strict=True)):
        for box, label, crowd in zip(true.boxes.tolist(), true.labels.tolist(), true.crowd.tolist(), strict=True):
            x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
            row = {"id": len(data["annotations"]) + 1, "image_id": image, "category_id": label, "iscrowd": int(crowd)}
            data["annotations"].append(row | {"bbox": [x, y, width, height], "area": width * height})
        for box, label, score in zip(given.boxes.tolist(), given.labels.tolist(), given.scores.tolist(), strict=True):
            x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
            rows.append({"image_id": image, "category_id": label, "bbox": [x, y, width, height], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def mean(values: np.ndarray) -> float | None:
    there = values[values > -1]
    return float(there.mean()) if there.size else None


def test_each_class_is_scored_as_pycocotools_does():
    labelled, found = images(60, 0, crowds=True)
    given = score_detection(labelled, found, CLASSES).to_json()
    judged = pycocotools_evaluation(labelled, found).eval
    for number, row in enumerate(given["per_class"]):
        precision, recall = judged["precision"][:, :, number, :, 2], judged["recall"][:, number, 0, 2]
        expected = {"AP": mean(precision[..., 0]), "AP50": mean(precision[0, :, 0]), "AR100": mean(recall)}
        expected |= {f"AP_{size}": mean(precision[..., index]) for index, (size, _) in enumerate(SIDES, 1)}
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert given["metrics"]["AP"] == pytest.approx(mean(judged["precision"][..., 0, 2]))
    assert 0.1 < given["metrics"]["AP"] < 0.9
    assert given["per_class"][2]["AP"] is None, "there are no platelets"
    json.dumps(given, allow_nan=False)


def pycocotools_precision_and_recall(
    labelled: list[GroundTruth], found: list[PredictedObjects], threshold: float, label: int
) -> tuple[float, float]:
    sure = [PredictedObjects(f.boxes[k], f.scores[k], f.labels[k]) for f in found for k in [f.scores >= threshold]]
    evaluation = pycocotools_evaluation(labelled, sure)
    rows = [r for r in evaluation.evalImgs if r and r["category_id"] == label and r["aRng"] == [0, 1e10]]
    counted = np.concatenate([~r["dtIgnore"][0].astype(bool) for r in rows])
    right = np.concatenate([r["dtMatches"][0] > 0 for r in rows])[counted].sum()
    return right / counted.sum(), evaluation.eval["recall"][0, label, 0, 2]


def test_precision_and_recall_are_those_of_coco_s_matches_at_the_confidence():
    labelled, found = images(60, 1, crowds=True)
    scores = score_detection(labelled, found, CLASSES)
    for index in range(2):
        precision, recall = pycocotools_precision_and_recall(labelled, found, 0.25, index)
        assert scores.precision[index] == pytest.approx(precision)
        assert scores.recall[index] == pytest.approx(recall)
    assert math.isnan(scores.recall[2]) and scores.precision[2] == 0


def test_the_curves_over_confidence_are_those_of_coco_s_matches():
    labelled, found = images(60, 3, crowds=True)
    curves = score_detection(labelled, found, CLASSES).curves
    for step in (0, 10, 25, 50, 80, 95):
        judged = [pycocotools_precision_and_recall(labelled, found, THRESHOLDS[step], index) for index in range(2)]
        f1 = [2 * precision * recall / (precision + recall) for precision, recall in judged]
        assert curves.precision[step, :2] == pytest.approx([precision for precision, _ in judged])
        assert curves.recall[step, :2] == pytest.approx([recall for _, recall in judged])
        assert curves.f1[step, :2] == pytest.approx(f1)
        assert curves.mean_f1[step] == pytest.approx(np.mean(f1))
    assert np.isnan(curves.recall[:, 2]).all() and np.isnan(curves.f1[:, 2]).all(), "there are no platelets"


def test_the_suggested_confidence_separates_right_boxes_from_wrong_ones():
    labelled = [really((A, 0), (B, 0))]
    found = [given((A, 0.9, 0), (B, 0.6, 0), (C, 0.4, 0))]
    scores = score_detection(labelled, found, ["cat", "dog"])
    # From 0.41 to 0.60 the two right boxes count and nothing else; the middle of that range is suggested.
    assert scores.best_f1 == 1
    assert scores.best_confidence == pytest.approx(0.51)
    assert "Highest mean F1 1.000 at --conf 0.51" in scores_table(scores)
    assert scores.to_json()["metrics"]["best_confidence"] == pytest.approx(0.51)
    wrong = score_detection(labelled, [given((C, 0.4, 0))], ["cat", "dog"])
    assert wrong.best_confidence is None and wrong.best_f1 is None
    assert score_detection([really()], [given()], ["cat"]).best_confidence is None


def test_the_confusion_matrix_is_supervision_s_where_no_object_has_rivals():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from supervision.metrics.detection import ConfusionMatrix
    labelled, found = images(80, 2, crowds=False)
    true = [np.column_stack((each.boxes, each.labels)).astype(np.float32) for each in labelled]
    given = [np.column_stack((each.boxes, each.labels, each.scores)).astype(np.float32) for each in found]
    judged = ConfusionMatrix.from_tensors(given, true, list(CLASSES), conf_threshold=0.25, iou_threshold=0.5).matrix
    confusion = score_detection(labelled, found, CLASSES).confusion
    np.testing.assert_array_equal(confusion, judged)
    assert (confusion[[0, 0, 0, 3, 3], [0, 1, 3, 0, 1]] > 4).all(), "the images show every kind of mistake"


A, B, C = [0.0, 0, 10, 10], [20.0, 20, 30, 30], [50.0, 50, 90, 90]


def given(*rows: tuple[list[float], float, int]) -> PredictedObjects:
    boxes = np.array([row[0] for row in rows], float).reshape(-1, 4)
    return PredictedObjects(boxes, np.array([row[1] for row in rows]), np.array([row[2] for row in rows], int))


def really(*rows: tuple[list[float], int], crowd: tuple[int, ...] = ()) -> GroundTruth:
    boxes = np.array([row[0] for row in rows], float).reshape(-1, 4)
    is_crowd = np.isin(np.arange(len(rows)), crowd)
    return GroundTruth(boxes, np.array([row[1] for row in rows], int), is_crowd)


def test_an_image_worked_by_hand():
    labelled = really((A, 0), (B, 1), (C, 0))
    found = given(
        (A, 0.9, 1),  # surest, but another says its class: nothing is left for this one
        (A, 0.5, 0),
        (B, 0.3, 0),  # taken for another
        ([70.0, 70, 99, 99], 0.8, 0),  # too far off
        (C, 0.2, 0),  # right, but not sure enough
    )
    matches = match_boxes(labelled, found)
    assert matches.objects.tolist() == [UNMATCHED, 0, 1, UNMATCHED, IGNORED]
    assert (matches.right.tolist(), matches.wrong.tolist(), matches.missed.tolist()) == ([1], [0, 3, 2], [2])
    scores = score_detection([labelled], [found], ["cat", "dog"])
    # Rows cat, dog, nothing; columns cat, dog, missed.
    assert scores.confusion.tolist() == [[1, 0, 1], [1, 0, 0], [1, 1, 0]]
    assert scores.class_images.tolist() == [1, 1]
    row = scores.to_json()["per_class"][0]
    assert (row["images"], row["objects"], row["precision"], row["recall"]) == (1, 2, pytest.approx(1 / 3), 0.5)
    totals = scores.to_json()["metrics"]
    assert (totals["precision"], totals["recall"]) == (0.25, pytest.approx(1 / 3))


def test_within_a_crowd_of_its_class_a_box_is_neither_right_nor_wrong():
    labelled = really((C, 0), (A, 0), crowd=(0,))
    found = given(([55.0, 55, 65, 65], 0.9, 0), ([55.0, 55, 65, 65], 0.8, 1))
    matches = match_boxes(labelled, found)
    assert matches.objects.tolist() == [IGNORED, UNMATCHED]
    assert matches.missed.tolist() == [1]
    scores = score_detection([labelled], [found], ["cat", "dog"])
    assert scores.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_the_worst_images_come_first():
    nothing = given()
    labelled = [really((A, 0)), really((A, 0)), really((A, 0), (B, 0)), really((A, 0)), really()]
    found = [
        given((A, 0.9, 0)),  # no mistake
        nothing,  # one missed: 0.5
        given((A, 0.7, 1)),  # one of the wrong class, one missed: 1.2
        given((A, 0.9, 0), (C, 0.6, 0)),  # one where nothing is: 0.6
        given((C, 0.1, 0)),  # not sure enough to count
    ]
    worst = worst_images(labelled, found, 5)
    assert [image.index for image in worst] == [2, 3, 1]
    assert [image.error_score for image in worst] == pytest.approx([1.2, 0.6, 0.5])
    assert worst[1].matches.right.tolist() == [0] and worst[1].matches.wrong.tolist() == [1]
    assert [image.index for image in worst_images(labelled, found, 1)] == [2]


def test_the_table_says_what_there_is():
    scores = score_detection([really((A, 0))], [given((A, 0.9, 0), (C, 0.1, 1))], ["cat", "dog"])
    head, _, columns, *rows = scores_table(scores).splitlines()
    assert head == "AP 1.0000   AP50 1.0000   AP75 1.0000   AR100 1.0000"
    assert columns.split() == ["class", "images", "objects", "AP", "AP50", "precision", "recall"]
    assert rows[0].split() == ["cat", "1", "1", "1.000", "1.000", "1.000", "1.000"]
    assert rows[1:] == ["", "Highest mean F1 1.000 at --conf 0.45"]
    assert len(rows[0]) == len(columns)
    missed = score_detection([really((A, 0))], [given()], ["cat"])
    assert scores_table(missed).splitlines()[-1].split() == ["cat", "1", "1", "0.000", "0.000", "–", "0.000"]


def test_nothing_to_score_is_reported():
    with pytest.raises(DataError, match="0 predictions for 1 labelled images"):
        score_detection([really((A, 0))], [], ["cat"])
    with pytest.raises(DataError):
        score_detection([], [], ["cat"])
