"""The parts of instance segmentation: scores, targets, what is refused, cutouts."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks

from hubel.config import make_config
from hubel.data.instances import read_instances
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Target
from hubel.errors import ModelError, UsageError
from hubel.inference.cutout import cut_out
from hubel.inference.test_time_augmentation import merge_of
from hubel.masks import decode, encode
from hubel.models import create_model, describe
from hubel.models.metadata import ModelMetadata
from hubel.results import Instances
from hubel.tasks.decoding import Thresholds, require_tiles
from hubel.tasks.instances.decode import results
from hubel.tasks.instances.evaluator import InstanceEvaluator
from hubel.tasks.instances.report import REPORT
from hubel.tasks.instances.task import InstanceData
from hubel.tasks.registry import get_task

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'

PAINTED = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "painted_shapes.py"))
SIDE = 64
METADATA = ModelMetadata(
    "instances", "mask_rcnn", 3, 3, SIDE, ["disc", "square", "triangle"], Preprocessing(SIDE, SIDE, resize="stretch")
)
OBJECTS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("painted")
    return PAINTED["paint"](root / "shapes", {"train": 8, "val": 4, "test": 4}, SIDE, most=2)


def perfect(samples: Any, score: float = 0.9) -> dict[str, np.ndarray]:
    """What a network would predict that finds everything: masks are shrunk to the 28 × 28 pixels of their boxes."""
    count, rows = len(samples), max(len(sample.labels) for sample in samples)
    boxes, scores = np.zeros((count, rows, 4), np.float32), np.zeros((count, rows, 3), np.float32)
    masks = np.zeros((count, rows, 28, 28), np.float32)
    for image, sample in enumerate(samples):
        for row, (box, label, mask) in enumerate(zip(sample.boxes, sample.labels, sample.masks(), strict=True)):
            boxes[image, row], scores[image, row, label] = box, score
            whole = Image.fromarray(decode(mask).astype(np.uint8) * 255)
            small = whole.resize((28, 28), Image.Resampling.BILINEAR, tuple(box.tolist()))
            masks[image, row] = np.asarray(small) / 255
    return {"boxes": boxes, "scores": scores, "masks": masks}


def test_objects_that_are_all_found_score_1_and_their_masks_almost(shapes: Path) -> None:
    samples = read_instances(shapes).splits["test"]
    evaluator = InstanceEvaluator(METADATA)
    evaluator.update(perfect(samples), samples)
    document = evaluator.compute().to_json()
    metrics = document["metrics"]
    assert {*OBJECTS, *(f"mask_{name}" for name in OBJECTS), "boundary_AP"} <= metrics.keys()
    assert (metrics["AP50"], metrics["mask_AP50"], metrics["precision"], metrics["recall"]) == pytest.approx((1,) * 4)
    assert metrics["mask_AP"] > 0.9 and metrics["boundary_AP"] > 0.9, "28 pixels are enough for small shapes"
    assert evaluator.worst_predictions() == []
    record = evaluator.prediction_records()[0]
    truth, found = record["truth"][0], record["objects"][0]
    assert (truth["name"], truth["box"]) == (found["name"], found["box"])
    assert coco_masks.iou([found["mask"]], [truth["mask"]], [0]) > 0.9


def test_the_recall_of_the_proposals_is_known_where_they_are(shapes: Path) -> None:
    """The first proposals are the left halves of the objects; after twenty that are elsewhere, the objects."""
    samples = read_instances(shapes).splits["test"]
    predictions, evaluator = perfect(samples), InstanceEvaluator(METADATA)
    boxes = predictions["boxes"]
    halves = np.concatenate((boxes[..., :2], (boxes[..., :1] + boxes[..., 2:3]) / 2 - 1, boxes[..., 3:]), -1)
    elsewhere = np.tile(np.array([0, 0, 1, 1], np.float32), (len(boxes), 20, 1))
    evaluator.update(predictions | {"proposals": np.concatenate((halves, elsewhere, boxes), 1)}, samples)
    recall = evaluator.compute().objects.proposals
    assert recall is not None
    assert recall.recall[recall.numbers <= 20].max() == 0 and (recall.recall[-1] == 1).all()
    assert {name for name, _ in REPORT.charts(evaluator.compute())} >= {"proposals", "precision_recall"}


def test_right_boxes_with_wrong_masks_are_mistakes(shapes: Path) -> None:
    samples = read_instances(shapes).splits["test"]
    predictions = perfect(samples)
    predictions["masks"][:, :, :, 7:] = 0  # a quarter of each is found
    evaluator = InstanceEvaluator(METADATA)
    evaluator.update(predictions, samples)
    metrics = evaluator.compute().to_json()["metrics"]
    assert metrics["AP50"] == pytest.approx(1) and metrics["mask_AP50"] == 0
    assert metrics["recall"] == 0, "users see masks"
    (mistake, *_) = evaluator.worst_predictions()
    assert mistake.missed and mistake.wrong[0].endswith("90\u202f%")
    assert len(mistake.truth) == len(mistake.found) == len(mistake.wrong)


def test_a_mistake_of_the_wrong_class_names_the_true_one(shapes: Path) -> None:
    samples = read_instances(shapes).splits["test"]
    predictions = perfect(samples)
    predictions["scores"] = np.roll(predictions["scores"], 1, -1)
    evaluator = InstanceEvaluator(METADATA)
    evaluator.update(predictions, samples)
    (mistake, *_) = evaluator.worst_predictions()
    truth_of = {"square": "disc", "triangle": "square", "disc": "triangle"}
    assert mistake.wrong and not mistake.missed
    for words in mistake.wrong:
        found, _, truth = words.partition(" 90\u202f% (truth: ")
        assert truth == f"{truth_of[found]})", words


def test_results_are_scored_as_predictions(shapes: Path) -> None:
    """Labels may have been drawn in a copy of half the size."""
    samples = read_instances(shapes).splits["test"]
    evaluator, again = InstanceEvaluator(METADATA), InstanceEvaluator(METADATA)
    predictions = perfect(samples)
    evaluator.update(predictions, samples)

    class Photograph:
        source, width, height, frame, time = None, SIDE, SIDE, None, None

    found = results(predictions, [Photograph()] * len(samples), METADATA, again.thresholds)
    again.update_results(found, [sample.rescale(SIDE // 2, SIDE // 2) for sample in samples])
    assert again.compute().to_json()["metrics"]["mask_AP50"] == evaluator.compute().to_json()["metrics"]["mask_AP50"]


def test_targets_have_masks_and_multiscale_scales_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = replace(make_config(data=tmp_path, task="instances", model="faster_rcnn"), augmentation=("multiscale",))
    data = InstanceData(config, METADATA, SIDE, ())
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[0, 8:24, 16:48] = 1
    target = Target(boxes=np.array([[16, 8, 48, 24]], np.float32), labels=np.array([2]), masks=mask)

    class Batch:
        pixels, targets = torch.zeros(2, 3, SIDE, SIDE), [target, Target()]

    plain = data.targets(Batch(), torch.device("cpu"))  # type: ignore[arg-type]
    assert [tuple(each.masks.shape) for each in plain.objects if each.masks is not None] == [(1, 64, 64), (0, 64, 64)]
    monkeypatch.setattr("hubel.tasks.detection.task.draw_size", lambda _: (96, 128))
    images, scaled = data.blend(torch.zeros(2, 3, SIDE, SIDE), plain, 0)
    assert images.shape[2:] == (96, 128) and scaled.objects[1].masks.shape == (0, 96, 128)
    rows, columns = np.nonzero(scaled.objects[0].masks[0].numpy())
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_array_equal(drawn, scaled.objects[0].boxes[0])
    assert scaled.objects[0].masks.sum() == 64 * 24


def test_what_masks_do_not_allow_is_refused() -> None:
    with pytest.raises(UsageError, match="mask_rcnn sees whole images"):
        require_tiles("instances", "mask_rcnn")
    with pytest.raises(UsageError, match="which --tta cannot join"):
        merge_of(METADATA, "mask_rcnn", Thresholds(), is_file=False)
    task = get_task("instances")
    config = make_config(data=Path(), task="instances", model="ssd", backbone="resnet18")
    with torch.device("meta"):
        boxes_only = create_model("ssd", 3, image_size=SIDE, weights=None, backbone="resnet18")
    with pytest.raises(ModelError, match="ssd does not find the masks"):
        task.prepare_model(config, boxes_only, describe(boxes_only), ())
    with torch.device("meta"):
        with_masks = create_model("mask_rcnn", 3, backbone="resnet18")
    config = make_config(data=Path(), task="detect", model="mask_rcnn")
    with pytest.raises(ModelError, match="mask_rcnn finds the masks of objects, which --task detect has not"):
        get_task("detect").prepare_model(config, with_masks, describe(with_masks), ())


def test_a_cutout_has_all_objects_of_a_class() -> None:
    first, second, other = np.zeros((3, SIDE, SIDE), bool)
    first[:10, :10], second[30:, 40:], other[5:20, 5:20] = True, True, True
    masks = tuple(encode(each) for each in (first, second, other))
    found = Instances(
        "a.png", SIDE, SIDE, np.zeros((3, 4)), np.ones(3), np.array([1, 1, 0]), ("square", "square", "disc"), masks
    )
    (cutout,) = cut_out([found], 1, METADATA)
    np.testing.assert_array_equal(cutout.alpha, 255 * (first | second))
    assert cutout.describe() == f"background {1 - (first | second).mean():.0%}, square {(first | second).mean():.0%}"
