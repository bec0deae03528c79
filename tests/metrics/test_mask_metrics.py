"""Average precision of masks and of their boundaries; judges: pycocotools, and the paper's boundary by cv2."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coding
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hubel.errors import DataError
from hubel.masks import encode
from hubel.metrics.coco import CocoEvaluator, GroundTruth, PredictedObjects
from hubel.metrics.mask_overlap import Runs, overlaps, read_runs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
NAMES += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
CLASSES = ("ring", "disc", "dust", "nowhere")


def shape(rng: np.random.Generator, label: int, height: int, width: int, size: float) -> np.ndarray:
    """A ring, which has a hole; a disc that may be cut off; or dust, of many runs."""
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - y, columns - x)
    if label == 0:
        return (distance < size) & (distance > size / 2)
    return (distance < size) & (rng.random((height, width)) < (1 if label == 1 else 0.6))


def made_up(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[int, int]]]:
    """Objects and what was found; some images without either, crowds, empty masks, images of several sizes."""
    rng = np.random.default_rng(seed)
    truth, found, sizes = [], [], []
    for image in range(24):
        height, width = int(rng.integers(60, 240)), int(rng.integers(60, 240))
        sizes.append((height, width))
        for _ in range(0 if image % 6 == 0 else rng.integers(1, 5)):
            label = int(rng.integers(3))
            mask = shape(rng, label, height, width, rng.uniform(6, 110))
            truth.append({"image": image, "label": label, "mask": mask, "crowd": bool(rng.random() < 0.15)})
            for _ in range(rng.integers(0, 4)):
                moved = np.roll(mask, tuple(rng.integers(-2, 3, 2)), (0, 1))
                again = label if rng.random() < 0.85 else int(rng.integers(4))
                # Few different scores, so that there are ties.
                found.append({"image": image, "label": again, "mask": moved, "score": round(float(rng.random()), 1)})
        if image % 5 == 0:
            found.append({"image": image, "label": 1, "mask": np.zeros((height, width), bool), "score": 0.95})
    return truth, found, sizes


def figures(truth: list[dict[str, Any]], found: list[dict[str, Any]], images: int, kind: Any) -> list[float]:
    evaluator = CocoEvaluator(CLASSES, kind)
    for image in range(images):
        own, theirs = ([row for row in rows if row["image"] == image] for rows in (truth, found))
        masks, found_masks = ([encode(row["mask"]).to_coco() for row in rows] for rows in (own, theirs))
        evaluator.update(
            GroundTruth(
                np.zeros((len(own), 4)),
                np.array([row["label"] for row in own], int),
                np.array([row["crowd"] for row in own], bool),
                None,
                masks,
            ),
            PredictedObjects(
                np.zeros((len(theirs), 4)),
                np.array([row["score"] for row in theirs], float),
                np.array([row["label"] for row in theirs], int),
                found_masks,
            ),
        )
    metrics = evaluator.compute().metrics
    return [metrics[name] for name in NAMES]


class BoundaryEval(COCOeval):
    """The paper's evaluation: the smaller of mask IoU and Boundary IoU, which crowds have none of."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        iou = super().computeIoU(imgId, catId)
        if not len(iou):
            return iou
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        found = [found[index] for index in np.argsort([-row["score"] for row in found], kind="mergesort")][:100]
        inner, true_inner = ([boundary(coding.decode(row["segmentation"])) for row in rows] for rows in (found, truth))
        for column, row in enumerate(truth):
            for index, mask in enumerate(inner):
                union = (mask | true_inner[column]).sum()
                if not row["iscrowd"]:
                    both = (mask & true_inner[column]).sum() / union if union else 0.0
                    iou[index, column] = min(iou[index, column], both)
        return iou


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask within a distance of 2 % of the diagonal from its contour; beyond the image is background."""
    width = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    eroded = cv2.erode(np.pad(mask, 1), np.ones((3, 3), np.uint8), iterations=width)
    return mask.astype(bool) & ~eroded[1:-1, 1:-1].astype(bool)


def judged(
    truth: list[dict[str, Any]], found: list[dict[str, Any]], sizes: list[tuple[int, int]], judge: Any = COCOeval
) -> np.ndarray:
    images = [{"id": image, "height": height, "width": width} for image, (height, width) in enumerate(sizes)]
    data = {"images": images, "categories": [{"id": number} for number in range(4)]}
    annotations = []
    for number, row in enumerate(truth, 1):
        segmentation = coding.encode(np.asfortranarray(row["mask"].astype(np.uint8)))
        entry = {"id": number, "image_id": row["image"], "category_id": row["label"], "segmentation": segmentation}
        annotations.append(entry | {"area": int(row["mask"].sum()), "iscrowd": int(row["crowd"])})
    rows = [
        {
            "image_id": row["image"],
            "category_id": row["label"],
            "segmentation": coding.encode(np.asfortranarray(row["mask"].astype(np.uint8))),
            "score": row["score"],
        }
        for row in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = {**data, "annotations": annotations}
        labelled.createIndex()
        evaluation = judge(labelled, labelled.loadRes(rows), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats == -1, np.nan, evaluation.stats)


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_masks_are_pycocotools(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.metrics.coco._MASKS_AT_ONCE", 7)  # in several parts
    monkeypatch.setattr("hubel.metrics.mask_overlap._AT_ONCE", 2000)
    truth, found, sizes = made_up(seed)
    expected = judged(truth, found, sizes)
    assert 0.1 < expected[0] < 0.9
    np.testing.assert_allclose(figures(truth, found, len(sizes), "segm"), expected, atol=1e-6)


def test_figures_of_boundaries_are_those_of_the_papers_definition() -> None:
    truth, found, sizes = made_up(3)
    expected = judged(truth, found, sizes, BoundaryEval)
    assert 0.02 < expected[0] < judged(truth, found, sizes)[0] - 0.05
    np.testing.assert_allclose(figures(truth, found, len(sizes), "boundary"), expected, atol=1e-6)


def test_all_masks_empty_is_0_and_no_masks_are_refused() -> None:
    one = [{"image": 0, "label": 0, "mask": np.ones((8, 8), bool), "crowd": False}]
    nothing = [{"image": 0, "label": 0, "mask": np.zeros((8, 8), bool), "score": 0.5}]
    assert figures(one, nothing, 1, "segm")[:3] == [0, 0, 0]
    assert np.isnan(figures([], nothing, 1, "segm")[0])
    with pytest.raises(DataError, match="image 1: labelled objects have no masks"):
        CocoEvaluator(CLASSES, "segm").update(
            GroundTruth(np.zeros((1, 4)), np.zeros(1, int)),
            PredictedObjects(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), ()),
        )


def test_overlaps_are_exact_in_the_largest_images() -> None:
    """Three hundred masks as large as any image; each shares one pixel with the next."""
    pixels = 178_956_970.0
    starts = np.arange(300.0) * 500_000
    bounds = np.stack((starts, np.append(starts[1:] + 1, pixels)), 1)
    runs = Runs(bounds.ravel(), np.ones(300, int))
    rows = np.arange(299)
    iou = overlaps(runs, runs, rows, rows + 1, np.ones(299, bool))
    np.testing.assert_array_equal(iou * (bounds[:-1, 1] - bounds[:-1, 0]), np.ones(299))


def test_runs_are_those_of_the_masks() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((37, 23)) < share for share in (0.0, 0.5, 1.0, 0.02, 0.98)]
    runs = read_runs([encode(mask).to_coco() for mask in masks])
    np.testing.assert_array_equal(runs.areas, [mask.sum() for mask in masks])
    for mask, part in zip(masks, np.split(runs.bounds, 2 * runs.counts.cumsum()[:-1]), strict=True):
        drawn = np.zeros(37 * 23, bool)
        for start, end in part.astype(int).reshape(-1, 2):
            drawn[start:end] = True
        np.testing.assert_array_equal(drawn.reshape(23, 37).T, mask)
