"""What was lost where: the numbers of the paper's authors' tool on seeded sets, and single mistakes by arithmetic.

tidecv 1.0.1 (MIT) needs OpenCV with windows and seaborn, so its numbers are recorded. After ``pip install --target
FOLDER --no-deps tidecv``, ``PYTHONPATH=FOLDER python tests/metrics/test_detection_errors.py`` prints them anew.
"""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.detection import score_detection
from hubel.metrics.detection_errors import KINDS

CLASSES = ("a", "b", "c")
Images = list[tuple[GroundTruth, PredictedObjects]]

# Of each seed: AP50, costs and counts in the order of KINDS.
TIDE = {
    0: (0.29622638, [0.02167674, 0.23331390, 0.01277857, 0.02089252, 0.11622762, 0.00373148], [13, 81, 25, 49, 100, 2]),
    1: (0.29085767, [0.04595008, 0.17926249, 0.01561770, 0.01758846, 0.11064509, 0.01212408], [26, 74, 22, 42, 100, 6]),
    2: (0.32562477, [0.02520117, 0.19394274, 0.02481958, 0.01692490, 0.09558348, 0.01677511], [25, 79, 28, 40, 91, 8]),
}


def scattered(seed: int, images: int = 60) -> Images:
    """Objects, and boxes on, near and beside them, some of another class, some twice; scores are all different."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        count = int(random.integers(0, 6))
        corner = random.uniform(0, 300, (count, 2))
        boxes = np.concatenate((corner, corner + random.uniform(30, 120, (count, 2))), 1)
        labels = random.integers(0, 3, count)
        found = [boxes[random.random(count) < 0.85] for _ in range(2)]
        near = np.concatenate([each + random.normal(0, 12, each.shape) for each in found])
        of_found = np.concatenate([labels[(boxes[:, None] == each[None]).all(2).any(1)] for each in found])
        swapped = random.random(len(of_found)) < 0.2
        of_found[swapped] = random.integers(0, 3, int(swapped.sum()))
        corner = random.uniform(0, 300, (2, 2))
        anywhere = np.concatenate((corner, corner + random.uniform(30, 120, (2, 2))), 1)
        near = np.concatenate((near, anywhere))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 5)
        found_labels = np.concatenate((of_found, random.integers(0, 3, 2)))
        made.append((GroundTruth(boxes, labels), PredictedObjects(near, random.random(len(near)), found_labels)))
    return made


@pytest.mark.parametrize("seed", TIDE)
def test_costs_are_the_authors(seed: int) -> None:
    ap, costs, counts = TIDE[seed]
    scores = score_detection(*map(list, zip(*scattered(seed), strict=True)), CLASSES)
    assert pytest.approx(ap, abs=1e-6) == scores.errors.AP50
    assert pytest.approx(scores.coco.metrics["AP50"], abs=1e-9) == scores.errors.AP50
    assert [scores.errors.counts[kind] for kind in KINDS] == counts
    assert [scores.errors.costs[kind] for kind in KINDS] == pytest.approx(costs, abs=1e-6)
    assert scores.errors.most_costly == KINDS[int(np.argmax(costs))]


OBJECT = [100.0, 100, 200, 200]
HALF = [100.0, 100, 160, 200]  # IoU 0.6
THIRD = [100.0, 100, 130, 200]  # IoU 0.3
FAR = [300.0, 300, 400, 400]


@pytest.mark.parametrize(
    ("boxes", "labels", "kind", "cost"),
    [
        ([OBJECT], [1], "classification", 1.0),
        ([THIRD], [0], "localization", 1.0),
        ([THIRD], [1], "both", 0.0),
        ([OBJECT, HALF], [0, 0], "duplicate", 0.0),
        ([FAR, OBJECT], [0, 0], "background", 0.5),
        ([FAR], [0], "missed", 0.0),  # of a class whose objects are all missed nothing is left to score
    ],
)
def test_one_mistake(boxes: list[list[float]], labels: list[int], kind: str, cost: float) -> None:
    truth = GroundTruth(np.array([OBJECT]), np.array([0]))
    found = PredictedObjects(np.array(boxes), np.array([0.9, 0.8])[: len(boxes)], np.array(labels))
    errors = score_detection([truth], [found], CLASSES).errors
    assert errors.counts[kind] == 1
    assert errors.costs[kind] == pytest.approx(cost)


def test_half_of_the_objects_missed() -> None:
    truth = GroundTruth(np.array([OBJECT, FAR]), np.array([0, 0]))
    errors = score_detection(
        [truth], [PredictedObjects(np.array([OBJECT]), np.ones(1), np.zeros(1, int))], CLASSES
    ).errors
    assert pytest.approx(51 / 101) == errors.AP50  # recalls of 0 to 0.5, of 101
    assert errors.costs["missed"] == pytest.approx(50 / 101)
    assert errors.counts == dict.fromkeys(KINDS, 0) | {"missed": 1}


def test_only_the_better_box_is_put_right() -> None:
    truth = GroundTruth(np.array([OBJECT]), np.array([0]))
    found = PredictedObjects(np.array([OBJECT, THIRD]), np.array([0.8, 0.9]), np.array([1, 0]))
    errors = score_detection([truth], [found], CLASSES).errors
    assert (errors.costs["localization"], errors.costs["classification"]) == (1.0, 0.0)
    assert errors.counts["missed"] == 0


def test_boxes_in_crowds_are_no_mistakes() -> None:
    truth = GroundTruth(np.array([OBJECT, FAR]), np.array([0, 0]), np.array([False, True]))
    found = PredictedObjects(np.array([OBJECT, FAR]), np.array([0.8, 0.9]), np.array([0, 0]))
    errors = score_detection([truth], [found], CLASSES).errors
    assert (errors.AP50, errors.most_costly) == (1.0, None)
    assert set(errors.counts.values()) == {0}


def test_nothing_found_and_nothing_there() -> None:
    none = GroundTruth(np.zeros((0, 4)), np.zeros(0, int))
    nothing = PredictedObjects(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert set(score_detection([none], [nothing], CLASSES).errors.counts.values()) == {0}
    some = PredictedObjects(np.array([OBJECT]), np.ones(1), np.zeros(1, int))
    assert score_detection([none], [some], CLASSES).errors.counts["background"] == 1
    truth = GroundTruth(np.array([OBJECT]), np.array([0]))
    assert score_detection([truth], [nothing], CLASSES).errors.counts["missed"] == 1


def record() -> None:
    """Print tidecv's numbers."""
    for name, parts in (("tidecv.plotting", ["Plotter"]), ("appdirs", ["user_data_dir"])):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(dict.fromkeys(parts, lambda *_: ""))
    from tidecv import TIDE as Tide
    from tidecv import Data
    from tidecv.errors import main_errors as theirs

    kinds = [theirs.ClassError, theirs.BoxError, theirs.OtherError, theirs.DuplicateError, theirs.BackgroundError]
    kinds.append(theirs.MissedError)

    def as_xywh(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    for seed in range(3):
        truths, found = Data("truth"), Data("found")
        for index, (truth, predicted) in enumerate(scattered(seed)):
            truths.add_image(index, str(index))
            for box, label in zip(truth.boxes, truth.labels.tolist(), strict=True):
                truths.add_ground_truth(index, label, as_xywh(box))
            for box, score, label in zip(*predicted[:2], predicted.labels.tolist(), strict=True):
                found.add_detection(index, label, float(score), as_xywh(box))
        run = Tide().evaluate(truths, found, mode=Tide.BOX)
        costs, counts = run.fix_main_errors(), run.count_errors()
        print(f"{seed}: ({run.ap / 100!r}, {[costs[k] / 100 for k in kinds]}, {[counts[k] for k in kinds]}),")


if __name__ == "__main__":
    record()
