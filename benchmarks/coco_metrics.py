"""COCO's average precision of the same boxes by ``hubel.metrics.coco`` and by pycocotools.

    python benchmarks/coco_metrics.py [--images 2000] [--objects 7] [--rounds 3]

Random images with objects of 20 classes, a tenth of them crowds, and for each object some boxes of varying quality.
Both sides start from the same numbers in memory (dictionaries, as in COCO's files, for pycocotools; arrays for hubel)
and end with the twelve figures, which must be equal. The two take turns; seconds are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from typing import Any

import numpy as np

from hubel.metrics.coco import CocoEvaluator, GroundTruth, PredictedObjects

CLASSES = 20
NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")
NAMES += ("AR_small", "AR_medium", "AR_large")
ImageSource = tuple[GroundTruth, PredictedObjects]


def main() -> None:
    """Run both in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=7, help="objects per image, on average")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    samples = _images(arguments.images, arguments.objects)
    theirs, ours = [], []
    for _ in range(arguments.rounds):
        data, rows = _dictionaries(samples)
        start = time.perf_counter()
        expected = _pycocotools(data, rows)
        theirs.append(time.perf_counter() - start)
        start = time.perf_counter()
        figures = _hubel(samples)
        ours.append(time.perf_counter() - start)
    np.testing.assert_allclose([figures[name] for name in NAMES], expected, atol=1e-6)
    boxes = sum(len(found.labels) for _, found in samples)
    ratio = statistics.median(other / mine for mine, other in zip(ours, theirs, strict=True))
    print(f"{len(samples)} images, {boxes} boxes, AP {figures['AP']:.4f} on both sides")
    print(f"pycocotools {statistics.median(theirs):.2f} s, hubel {statistics.median(ours):.2f} s, ratio {ratio:.1f}")


def _images(images: int, objects: int) -> list[ImageSource]:
    random = np.random.default_rng(0)
    samples = []
    for _ in range(images):
        count = int(random.integers(0, 2 * objects + 1))
        corners = random.uniform(0, 400, (count, 2))
        boxes = np.concatenate((corners, corners + random.uniform(5, 200, (count, 2))), 1)
        labels = random.integers(CLASSES, size=count)
        again = np.repeat(np.arange(count), random.integers(0, 6, count))
        found = boxes[again] + random.normal(0, 8, (len(again), 4))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        guessed = np.where(random.random(len(again)) < 0.9, labels[again], random.integers(CLASSES, size=len(again)))
        samples.append(
            (
                GroundTruth(boxes, labels, random.random(count) < 0.1),
                PredictedObjects(found, random.random(len(again)), guessed),
            )
        )
    return samples


def _dictionaries(samples: list[ImageSource]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The boxes in the form that pycocotools reads."""
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1 + n} for n in range(CLASSES)]}
    rows = []
    for image, (labelled, found) in enumerate(samples):
        data["images"].append({"id": image})
        sides = labelled.boxes[:, 2:] - labelled.boxes[:, :2]
        for box, side, label, crowd in zip(labelled.boxes, sides, labelled.labels, labelled.crowd, strict=True):
            row = {"id": len(data["annotations"]) + 1, "image_id": image, "category_id": int(label) + 1}
            row |= {"bbox": [*box[:2], *side], "area": float(side.prod()), "iscrowd": int(crowd)}
            data["annotations"].append(row)
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        for box, side, label, score in zip(found.boxes, sides, found.labels, found.scores, strict=True):
            row = {"image_id": image, "category_id": int(label) + 1, "score": float(score)}
            rows.append(row | {"bbox": [*box[:2].tolist(), *side.tolist()]})
    return data, rows


def _pycocotools(data: dict[str, Any], rows: list[dict[str, Any]]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = data
        labelled.createIndex()
        evaluation = COCOeval(labelled, labelled.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def _hubel(samples: list[ImageSource]) -> dict[str, float]:
    evaluator = CocoEvaluator([str(number) for number in range(CLASSES)])
    for labelled, found in samples:
        evaluator.update(labelled, found)
    return evaluator.compute().metrics


if __name__ == "__main__":
    main()
