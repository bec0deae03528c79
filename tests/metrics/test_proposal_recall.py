"""Recall of proposals: COCO's average recall without classes, by pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hubel.metrics.proposal_recall import proposal_recall, rank_proposals


def scattered(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Proposals around and beside the objects of images, and zeros where there are fewer."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(12):
        corner = random.uniform(0, 200, (int(random.integers(0, 7)), 2))
        boxes = np.concatenate((corner, corner + random.uniform(20, 120, corner.shape)), 1)
        near = np.repeat(boxes, 6, 0) + random.normal(0, 12, (6 * len(boxes), 4))
        corner = random.uniform(0, 200, (40, 2))
        others = np.concatenate((corner, corner + random.uniform(20, 120, (40, 2))), 1)
        proposals = np.concatenate((near, others))
        proposals[:, 2:] = np.maximum(proposals[:, 2:], proposals[:, :2] + 2)
        images.append((random.permutation(proposals), boxes))
    return images


def reference(images: list[tuple[np.ndarray, np.ndarray]], numbers: list[int]) -> np.ndarray:
    """(numbers, 10)."""
    truth, found = [], []
    for index, (proposals, boxes) in enumerate(images, 1):
        for box in boxes:
            row = {"bbox": [*box[:2], *(box[2:] - box[:2])], "area": 1.0, "iscrowd": 0}
            truth.append({"id": len(truth) + 1, "image_id": index, "category_id": 1, **row})
        for rank, box in enumerate(proposals):
            row = {"bbox": [*box[:2], *(box[2:] - box[:2])], "score": 1 - rank / 1000}
            found.append({"image_id": index, "category_id": 1, **row})
    data = COCO()
    shown = [{"id": index + 1, "width": 400, "height": 400} for index in range(len(images))]
    data.dataset = {"images": shown, "annotations": truth, "categories": [{"id": 1, "name": "x"}]}
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(found), "bbox")
        evaluation.params.maxDets, evaluation.params.useCats = numbers, 0
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["recall"][:, 0, 0, :].T


@pytest.mark.parametrize("seed", range(3))
def test_recall_is_cocos(seed: int) -> None:
    images = scattered(seed)
    padded = [(np.concatenate((proposals, np.zeros((5, 4)))), boxes) for proposals, boxes in images]
    recall = proposal_recall([rank_proposals(*each) for each in padded])
    assert recall is not None
    assert recall.numbers[0] == 10 and recall.numbers[-1] == max(len(proposals) for proposals, _ in images)
    np.testing.assert_allclose(recall.recall, reference(images, recall.numbers.tolist()), atol=1e-12)
    np.testing.assert_allclose(recall.average, recall.recall.mean(1))
    assert 0.1 < recall.average[0] < recall.average[-1] < 0.99


def test_no_objects_or_no_proposals() -> None:
    none, box = np.zeros((0, 4)), np.array([[10.0, 10, 20, 20]])
    assert proposal_recall([]) is None
    assert proposal_recall([rank_proposals(box, none)]) is None
    assert proposal_recall([rank_proposals(none, box)]) is None
    recall = proposal_recall([rank_proposals(none, box), rank_proposals(box, box)])
    assert recall is not None and recall.numbers.tolist() == [1] and (recall.recall == 0.5).all()
