"""COCO's average precision of the same boxes by ``hubel.metrics.coco`` and by pycocotools.

    python benchmarks/coco_metrics.py [--masks] [--images 2000] [--objects 7] [--rounds 3]

Random images with objects of 20 classes, a tenth of them crowds, and for each object some boxes of varying quality;
with --masks, ellipses in these boxes as run lengths of images of 640 × 640, with the sizes that COCO's objects have.
Both sides start from the same numbers in memory (dictionaries, as in COCO's files, for pycocotools; arrays for hubel)
and end with the twelve figures, which must be equal. The two take turns; seconds are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from hubel.masks import ellipse, mask_area, rasterized
from hubel.metrics.coco import CocoEvaluator, GroundTruth, PredictedObjects

CLASSES = 20
SIDE = 640
NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")
NAMES += ("AR_small", "AR_medium", "AR_large")
ImageSource = tuple[GroundTruth, PredictedObjects]


def main() -> None:
    """Run both in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", action="store_true", help="average precision of masks")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=7, help="objects per image, on average")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    samples = _images(arguments.images, arguments.objects)
    kind = "segm" if arguments.masks else "bbox"
    if arguments.masks:
        samples = [_with_masks(*sample) for sample in samples]
    theirs, ours = [], []
    for _ in range(arguments.rounds):
        data, rows = _dictionaries(samples)
        start = time.perf_counter()
        expected = _pycocotools(data, rows, kind)
        theirs.append(time.perf_counter() - start)
        start = time.perf_counter()
        figures = _hubel(samples, kind)
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


def _with_masks(labelled: GroundTruth, found: PredictedObjects) -> ImageSource:
    """The same objects with an ellipse in each box."""
    masks, areas = [], None
    for boxes in (labelled.boxes, found.boxes):
        outlines = [ellipse((x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2) for x1, y1, x2, y2 in boxes]
        drawn = [rasterized([outline], (), SIDE, SIDE) for outline in outlines]
        areas = np.array([mask_area(mask) for mask in drawn], float) if areas is None else areas
        masks.append([mask.to_coco() for mask in drawn])
    truth = GroundTruth(labelled.boxes, labelled.labels, labelled.crowd, areas, masks[0])
    return truth, PredictedObjects(found.boxes, found.scores, found.labels, masks[1])


def _dictionaries(samples: list[ImageSource]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The objects in the form that pycocotools reads."""
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1 + n} for n in range(CLASSES)]}
    rows = []
    for image, (labelled, found) in enumerate(samples):
        data["images"].append({"id": image, "height": SIDE, "width": SIDE})
        sides = labelled.boxes[:, 2:] - labelled.boxes[:, :2]
        areas = sides.prod(1) if labelled.areas is None else labelled.areas
        for index, shape in enumerate(_shapes(labelled)):
            row = {"id": len(data["annotations"]) + 1, "image_id": image, **shape, "area": float(areas[index])}
            data["annotations"].append(row | {"iscrowd": int(labelled.crowd[index])})
        scores = found.scores.tolist()
        rows += [{"image_id": image, **shape, "score": scores[index]} for index, shape in enumerate(_shapes(found))]
    return data, rows


def _shapes(objects: GroundTruth | PredictedObjects) -> Iterator[dict[str, Any]]:
    """The category and the box or mask of each object."""
    for index, (label, (x1, y1, x2, y2)) in enumerate(zip(objects.labels, objects.boxes.tolist(), strict=True)):
        row: dict[str, Any] = {"category_id": int(label) + 1}
        if objects.masks is None:
            yield row | {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        else:
            yield row | {"segmentation": dict(objects.masks[index])}


def _pycocotools(data: dict[str, Any], rows: list[dict[str, Any]], kind: str) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO()
        labelled.dataset = data
        labelled.createIndex()
        evaluation = COCOeval(labelled, labelled.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def _hubel(samples: list[ImageSource], kind: Literal["bbox", "segm"]) -> dict[str, float]:
    evaluator = CocoEvaluator([str(number) for number in range(CLASSES)], kind)
    for labelled, found in samples:
        evaluator.update(labelled, found)
    return evaluator.compute().metrics


if __name__ == "__main__":
    main()
