"""Scores of images that label only some classes: pycocotools with LVIS's rule is the judge.

The rule (github.com/lvis-dataset/lvis-api, ``lvis/eval.py``): detections of classes that an image neither shows nor
lists as absent are removed; those of classes that are not exhaustively labelled are ignored unless they match.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coding
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import UNLABELLED, Sample, Target
from hubel.masks import encode
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.detection import score_detection, worst_images
from hubel.metrics.instances import score_instances
from hubel.models.metadata import ModelMetadata
from hubel.tasks.detection.task import DetectionEvaluator

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
CLASSES = ("a", "b", "c", "d")
SIDE = 160
Images = list[tuple[GroundTruth, PredictedObjects]]


def masks_of(boxes: np.ndarray) -> list[dict[str, Any]]:
    """Each box without its lower right quarter."""
    made = []
    for x1, y1, x2, y2 in boxes.round().astype(int).tolist():
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y1:y2, x1:x2] = True
        mask[(y1 + y2) // 2 : y2, (x1 + x2) // 2 : x2] = False
        made.append(encode(mask).to_coco())
    return made


def scattered(seed: int, images: int = 40) -> Images:
    """Objects with crowds among them, and boxes on and beside them; scores are all different."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        count = int(random.integers(0, 5))
        corner = random.uniform(0, 60, (count, 2))
        boxes = np.concatenate((corner, corner + random.uniform(12, 99, (count, 2))), 1)
        labels = random.integers(0, 4, count)
        near, near_labels = np.concatenate([boxes] * 2), np.concatenate([labels] * 2)
        near = (near + random.normal(0, 5, near.shape)).clip(0, SIDE)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 5)
        kept = random.random(len(near)) < 0.8
        found = np.concatenate((near[kept], [[5.0, 9, 60, 50], [80, 70, 150, 150]]))
        found_labels = np.concatenate((near_labels[kept], random.integers(0, 4, 2)))
        labelled = np.flatnonzero(random.random(4) < 0.6)
        truth = GroundTruth(boxes, labels, random.random(count) < 0.1, None, masks_of(boxes), labelled)
        made.append((truth, PredictedObjects(found, random.random(len(found)), found_labels, masks_of(found))))
    return made


class LvisRule(COCOeval):
    """Ignores what is not matched of classes that are not labelled in full: ``in_part``, pairs of image and class."""

    in_part: set[tuple[int, int]]

    def evaluateImg(self, imgId: int, catId: int, aRng: Any, maxDet: int) -> Any:
        found = super().evaluateImg(imgId, catId, aRng, maxDet)
        if found is not None and (imgId, catId) in self.in_part:
            found["dtIgnore"] = np.logical_or(found["dtIgnore"], found["dtMatches"] == 0)
        return found


def expected(images: Images, kind: str) -> list[float]:
    data: dict[str, Any] = {"images": [], "annotations": []}
    data["categories"] = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    rows, in_part = [], set()
    for image, (truth, found) in enumerate(images):
        data["images"].append({"id": image, "width": SIDE, "height": SIDE})
        assert truth.masks is not None and truth.crowd is not None and truth.labelled is not None
        for box, label, crowd, mask in zip(truth.boxes, truth.labels, truth.crowd, truth.masks, strict=True):
            x1, y1, x2, y2 = box.tolist()
            own = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation": mask}
            own |= {"id": len(data["annotations"]) + 1, "image_id": image, "category_id": int(label) + 1}
            data["annotations"].append(own | {"iscrowd": int(crowd)})
        present, labelled = set(truth.labels.tolist()), set(truth.labelled.tolist())
        in_part |= {(image, label + 1) for label in present - labelled}
        assert found.masks is not None
        for box, label, score, mask in zip(found.boxes, found.labels, found.scores, found.masks, strict=True):
            if label in present | labelled:
                x1, y1, x2, y2 = box.tolist()
                own = {"bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "bbox" else {"segmentation": mask}
                rows.append(own | {"image_id": image, "category_id": int(label) + 1, "score": float(score)})
    if kind == "segm":  # areas of masks
        for row in data["annotations"]:
            row["area"] = float(coding.area(row["segmentation"]))
    with contextlib.redirect_stdout(io.StringIO()):
        labelled_data = COCO()
        labelled_data.dataset = data
        labelled_data.createIndex()
        evaluation = LvisRule(labelled_data, labelled_data.loadRes(rows), kind)
        evaluation.in_part = in_part
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_those_of_lvis(seed: int) -> None:
    images = scattered(seed)
    truths, found = map(list, zip(*images, strict=True))
    scores = score_instances(truths, found, CLASSES, with_boundaries=False)
    plain = score_instances([replace(each, labelled=None) for each in truths], found, CLASSES, with_boundaries=False)
    boxes, masks = (scores.objects.coco.metrics, scores.masks.metrics)
    for kind, figures in (("bbox", boxes), ("segm", masks)):
        judged = expected(images, kind)
        ours = np.nan_to_num([figures[name] for name in NAMES], nan=-1)  # pycocotools' number where there is nothing
        assert ours == pytest.approx(judged, abs=1e-9)
    assert scores.masks.metrics["AP"] > plain.masks.metrics["AP"] + 0.02
    assert [row["objects"] for row in scores.masks.per_class] == [row["objects"] for row in plain.masks.per_class]


def test_what_is_found_of_an_unknown_class_is_as_if_it_were_not() -> None:
    """Confusion, curves, kinds of mistakes, worst images."""
    images = [
        (replace(truth, labelled=np.union1d(truth.labelled, truth.labels), masks=None), found._replace(masks=None))
        for truth, found in scattered(2)
    ]
    truths, found = map(list, zip(*images, strict=True))
    left = []
    for truth, each in images:
        known = np.isin(each.labels, truth.labelled)
        left.append(PredictedObjects(each.boxes[known], each.scores[known], each.labels[known]))
    assert sum(len(each.labels) for each in left) < sum(len(each.labels) for each in found) - 10
    scores = score_detection(truths, found, CLASSES)
    wanted = score_detection([replace(each, labelled=None) for each in truths], left, CLASSES)
    assert scores.to_json() == wanted.to_json()
    np.testing.assert_array_equal(scores.confusion, wanted.confusion)
    assert (scores.errors.counts, scores.errors.costs) == (wanted.errors.counts, wanted.errors.costs)
    np.testing.assert_array_equal(scores.curves.f1, wanted.curves.f1)
    worst = [(image.index, image.error_score) for image in worst_images(truths, found, 40)]
    assert worst == [(image.index, image.error_score) for image in worst_images(truths, left, 40)]


@pytest.mark.parametrize("kind", ["sample", "target"])
def test_evaluator_takes_what_is_labelled(kind: str) -> None:
    preprocessing = Preprocessing(100, 100, resize="stretch", crop_fraction=1.0)
    boxes = np.array([[20.0, 20, 60, 80], [10, 5, 90, 40]], np.float32)
    scores = np.zeros((1, 2, 2), np.float32)
    scores[0, 0, 1], scores[0, 1, 0] = 0.8, 0.9

    def table(labelled: np.ndarray | None) -> list[list[int]]:
        evaluator = DetectionEvaluator(ModelMetadata("detect", "one_stage", 2, 3, 100, ["a", "b"], preprocessing))
        one = np.ones(1, np.int64)
        truth: Sample | Target = Target(UNLABELLED, boxes[:1], one, labelled=labelled)
        if kind == "sample":
            flags = np.zeros(1, bool)
            truth = Sample(Path("a"), UNLABELLED, 100, 100, boxes[:1], one, flags, flags, one * 2400.0, None, None)
            truth = replace(truth, labelled=labelled)
        evaluator.update({"boxes": boxes[None], "scores": scores}, [truth])
        confusion: list[list[int]] = evaluator.compute().confusion.tolist()
        assert len(evaluator.images[0].truth.labels) == 1  # what is kept for reports
        return confusion

    assert table(None) == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert table(np.array([1])) == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert table(np.array([0])) == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
