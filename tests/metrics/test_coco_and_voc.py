"""COCO's figures are pycocotools', Pascal VOC's those of its rule."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coding
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hubel.errors import DataError
from hubel.metrics.coco import CocoEvaluator, GroundTruth, PredictedObjects
from hubel.metrics.voc import VocGroundTruth, precision_curves

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
NAMES += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


def noisy_detections(data: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Moved, missed, doubled, misnamed and invented boxes; several within each crowd."""
    rng = np.random.default_rng(seed)
    ids = [category["id"] for category in data["categories"]]
    rows = []
    for row in data["annotations"]:
        x, y, width, height = row["bbox"]
        for _ in range(4 if row["iscrowd"] else rng.integers(0, 3)):
            box = np.array(row["bbox"]) * (1 + rng.normal(0, 0.08, 4))
            if row["iscrowd"]:
                box = np.array([x + rng.random() * width / 2, y + rng.random() * height / 2, width / 3, height / 3])
            box[2:] = np.maximum(box[2:], 1)
            category = row["category_id"] if rng.random() < 0.85 else int(rng.choice(ids))
            # Few different scores, so that there are ties.
            score = round(float(rng.random()), 2)
            rows.append({"image_id": row["image_id"], "category_id": category, "bbox": box.tolist(), "score": score})
            if "segmentation" in row:
                rows[-1]["segmentation"] = shifted_mask(data, row, rng)
    return rows


def shifted_mask(data: dict[str, Any], row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    image = next(each for each in data["images"] if each["id"] == row["image_id"])
    mask = coding.decode(run_lengths(row["segmentation"], image))
    moved = np.roll(mask, tuple(rng.integers(-6, 7, 2)), (0, 1))
    encoded = coding.encode(np.asfortranarray(moved))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def run_lengths(segmentation: Any, image: dict[str, Any]) -> dict[str, Any]:
    if isinstance(segmentation, list):
        return coding.merge(coding.frPyObjects(segmentation, image["height"], image["width"]))
    if isinstance(segmentation["counts"], list):
        return coding.frPyObjects(segmentation, image["height"], image["width"])
    return segmentation


def pycocotools_figures(data: dict[str, Any], rows: list[dict[str, Any]], kind: str) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = copy.deepcopy(data)
        labelled.createIndex()
        if kind == "segm":
            rows = [{key: value for key, value in row.items() if key != "bbox"} for row in rows]
        evaluation = COCOeval(labelled, labelled.loadRes(copy.deepcopy(rows)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def corners(rows: list[dict[str, Any]]) -> np.ndarray:
    boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)


def our_figures(data: dict[str, Any], rows: list[dict[str, Any]], kind: str) -> dict[str, float]:
    index = {category["id"]: number for number, category in enumerate(data["categories"])}
    evaluator = CocoEvaluator([category["name"] for category in data["categories"]], kind)
    true, found = defaultdict(list), defaultdict(list)
    for row in data["annotations"]:
        true[row["image_id"]].append(row)
    for row in rows:
        found[row["image_id"]].append(row)
    # pycocotools takes images by id; of equal scores the earlier image's comes first.
    for image in sorted(data["images"], key=lambda image: image["id"]):
        own, theirs = true[image["id"]], found[image["id"]]
        masks = [run_lengths(row["segmentation"], image) for row in own] if kind == "segm" else None
        evaluator.update(
            GroundTruth(
                corners(own),
                np.array([index[row["category_id"]] for row in own], int),
                np.array([row["iscrowd"] for row in own], bool),
                np.array([row["area"] for row in own], float),
                masks,
            ),
            PredictedObjects(
                corners(theirs),
                np.array([row["score"] for row in theirs], float),
                np.array([index[row["category_id"]] for row in theirs], int),
                [row["segmentation"] for row in theirs] if kind == "segm" else None,
            ),
        )
    return evaluator.compute().metrics


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "kind", "crowds"),
    [("boxes128", "bbox", False), ("instances_panoptic100", "bbox", True), ("instances_panoptic100", "segm", True)],
)
def test_figures_are_pycocotools_on_real_labels(data_folder: Path, file: str, kind: str, crowds: bool):
    data = json.loads((data_folder / "coco128" / f"{file}.json").read_text())
    for row in data["annotations"]:
        row.setdefault("iscrowd", 0)
        row.setdefault("area", row["bbox"][2] * row["bbox"][3])
    assert any(row["iscrowd"] for row in data["annotations"]) == crowds
    rows = noisy_detections(data, seed=1)
    expected = pycocotools_figures(data, rows, kind)
    assert 0.05 < expected[0] < 0.9
    figures = our_figures(data, rows, kind)
    np.testing.assert_allclose([figures[name] for name in NAMES], expected, atol=1e-6)


def made_up(images: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    data["categories"] = [{"id": 10 + number, "name": f"class {number}"} for number in range(4)]
    for image in range(images):
        data["images"].append({"id": image, "width": 300, "height": 300})
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 200, 2), *rng.uniform(4, 130, 2)]
            row = {"id": len(data["annotations"]) + 1, "image_id": image, "bbox": box, "area": box[2] * box[3]}
            row |= {"category_id": int(rng.integers(10, 13)), "iscrowd": int(rng.random() < 0.1)}
            data["annotations"].append(row)
    return data


def test_figures_are_pycocotools_with_crowds_empty_images_and_a_class_that_is_nowhere():
    data = made_up(40, 0)
    rows = noisy_detections(data, seed=2)
    rows.append({"image_id": 0, "category_id": 13, "bbox": [1, 1, 9, 9], "score": 0.9})
    figures = our_figures(data, rows, "bbox")
    np.testing.assert_allclose([figures[name] for name in NAMES], pycocotools_figures(data, rows, "bbox"), atol=1e-9)


def test_nothing_found_is_0_and_nothing_to_find_is_not_a_number():
    evaluator = CocoEvaluator(["cat"])
    evaluator.update(
        GroundTruth(np.array([[0.0, 0, 9, 9]]), np.array([0])),
        PredictedObjects(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)),
    )
    scores = evaluator.compute()
    assert (scores.metrics["AP"], scores.metrics["AR100"]) == (0, 0)
    assert math.isnan(scores.metrics["AP_large"])
    (cat,) = scores.per_class
    assert (cat["name"], cat["objects"], cat["AP"], cat["AP50"], cat["AR100"]) == ("cat", 1, 0, 0, 0)
    assert cat["AP_small"] == 0 and math.isnan(cat["AP_medium"])
    evaluator.reset()
    assert math.isnan(evaluator.compute().metrics["AP"])


def test_numbers_that_are_none_are_named():
    wrong = PredictedObjects(np.array([[0, 0, np.nan, 3]]), np.array([0.5]), np.array([0]))
    with pytest.raises(DataError, match="image 1: the predicted boxes"):
        CocoEvaluator(["cat"]).update(GroundTruth(np.zeros((0, 4)), np.zeros(0, int)), wrong)


def one_class(boxes: list[list[float]], scores: list[float]) -> PredictedObjects:
    return PredictedObjects(np.array(boxes, float).reshape(-1, 4), np.array(scores), np.zeros(len(scores), int))


def test_voc_s_two_averages_worked_by_hand():
    # Three objects, one of them difficult; detections by score: right, wrong, again the first (wrong), the difficult
    # one (left out), right. Precision 1, 1/2, 1/3, 2/4 at recall 1/2, 1/2, 1/2, 1.
    true = VocGroundTruth(
        np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]), np.zeros(3, int), np.array([0, 0, 1])
    )
    found = one_class(
        [[0, 0, 10, 9], [70, 70, 80, 80], [0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]], [0.9, 0.8, 0.7, 0.6, 0.5]
    )
    (curve,) = precision_curves([true], [found], 1)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 1 / 3, 2 / 4])
    np.testing.assert_allclose(curve.recall, [1 / 2, 1 / 2, 1 / 2, 1])
    assert curve.area == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert curve.eleven_points == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    assert curve.scores.tolist() == [0.9, 0.8, 0.7, 0.5]


def test_voc_s_area_is_coco_s_average_where_both_mean_the_same():
    """COCO reads the same envelope at 101 recalls: at one IoU, without crowds, the two differ by less than a step."""
    data = made_up(60, 3)
    for row in data["annotations"]:
        row |= {"iscrowd": 0, "category_id": 10}
    rows = [{**row, "category_id": 10} for row in noisy_detections(data, seed=4)]
    expected = pycocotools_figures(data, rows, "bbox")[1]
    true, found = [], []
    for image in data["images"]:
        own = [row for row in data["annotations"] if row["image_id"] == image["id"]]
        theirs = [row for row in rows if row["image_id"] == image["id"]]
        true.append(VocGroundTruth(corners(own), np.zeros(len(own), int), np.zeros(len(own), bool)))
        found.append(one_class(corners(theirs).tolist(), [row["score"] for row in theirs]))
    assert precision_curves(true, found, 1)[0].area == pytest.approx(expected, abs=0.011)


def test_voc_without_objects_is_not_a_number():
    nothing = VocGroundTruth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    (curve,) = precision_curves([nothing], [one_class([[0, 0, 1, 1]], [0.5])], 1)
    assert math.isnan(curve.area) and math.isnan(curve.eleven_points)
    assert curve.precision.tolist() == [0]
