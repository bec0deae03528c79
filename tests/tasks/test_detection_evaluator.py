"""What a detector's evaluator keeps beside boxes: proposals, and regions to be ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import UNLABELLED, Sample, Target
from hubel.models.metadata import ModelMetadata
from hubel.tasks.detection.report import recall_of_proposals
from hubel.tasks.detection.task import DetectionEvaluator

BOXES = np.array([[20.0, 20, 60, 80], [100, 20, 140, 60], [120, 100, 200, 180]], np.float32)
LABELS = np.array([1, 0, 1])
CROWD = np.array([False, False, True])


@pytest.fixture
def evaluator() -> DetectionEvaluator:
    preprocessing = Preprocessing(100, 100, resize="stretch", crop_fraction=1.0)  # images are twice as large
    return DetectionEvaluator(ModelMetadata("detect", "one_stage", 2, 3, 100, ["a", "b"], preprocessing))


def predicted(boxes: np.ndarray, label: int) -> dict[str, np.ndarray]:
    scores = np.zeros((1, len(boxes), 2), np.float32)
    scores[0, :, label] = np.linspace(0.9, 0.8, len(boxes))
    return {"boxes": boxes[None] / 2, "scores": scores}


def test_proposals_are_ranked_in_the_original_image(evaluator: DetectionEvaluator) -> None:
    proposals = np.concatenate((BOXES[[2, 1]], np.array([[0.0, 0, 30, 30]] * 20), BOXES[:1])) / 2
    sample = Sample(Path("a"), UNLABELLED, 200, 200, BOXES, LABELS, CROWD, CROWD, np.ones(3, np.float32))
    evaluator.update(predicted(BOXES, 1) | {"proposals": proposals[None].astype(np.float32)}, [sample])
    recall = evaluator.compute().proposals
    assert recall is not None
    # The crowd is no object. Of the two others one is the second proposal, the other the last, the 23rd.
    assert [float(recall.average[recall.numbers == number][0]) for number in (10, 22, 23)] == [0.5, 0.5, 1.0]
    lines = recall_of_proposals(recall).axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), recall.recall[:, 0])
    np.testing.assert_array_equal(lines[1].get_ydata(), recall.average)


def test_without_proposals_there_is_no_recall(evaluator: DetectionEvaluator) -> None:
    sample = Sample(Path("a"), UNLABELLED, 200, 200, BOXES, LABELS, CROWD, CROWD, np.ones(3, np.float32))
    evaluator.update(predicted(BOXES, 1), [sample])
    assert evaluator.compute().proposals is None


def test_boxes_in_ignored_regions_of_a_target_are_not_wrong(evaluator: DetectionEvaluator) -> None:
    ignored = np.array([[50.0, 45, 100, 95]], np.float32)
    target = Target(UNLABELLED, BOXES[:1] / 2, LABELS[:1], ignored=ignored)
    evaluator.update(predicted(BOXES[[2, 0]], 1), [target])  # the better one in the region
    assert evaluator.compute().coco.metrics["AP50"] == 1.0
