"""Test-time augmentation: predictions of an image and its mirror image, merged by formulas written out here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

import hubel
from hubel.batch_predict.records import read_manifest
from hubel.cli.main import app
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import sample_photographs
from hubel.errors import DataError, ModelError, UsageError
from hubel.inference import FailedImage
from hubel.metrics.coco import PredictedObjects
from hubel.models import ModelMetadata, create_model, describe, save_model
from hubel.tasks.detection.decode import fuse_views
from hubel.training.evaluate import evaluate
from reference_detectors import saved_detector, torchvision_detector

SIDE = 32
CLASSES = ["a", "b", "c", "d"]
PIXELS = Preprocessing(SIDE, SIDE, crop_fraction=1.0, interpolation="nearest")  # images of that size stay as they are


def images_of_noise(number: int) -> list[np.ndarray]:
    return list(np.random.default_rng(5).integers(0, 256, (number, SIDE, SIDE, 3), dtype=np.uint8))


def both_views(images: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """The network's input (N, 3, H, W) for the images, and for their mirror images."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    ready = (pixels - torch.tensor(PIXELS.mean).view(3, 1, 1)) / torch.tensor(PIXELS.std).view(3, 1, 1)
    return ready, torch.flip(ready, [3])


def metadata_for(task: str, architecture: str, classes: list[str]) -> ModelMetadata:
    return ModelMetadata(task, architecture, len(classes), 3, SIDE, classes, PIXELS)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    network = create_model("resnet18", num_classes=4, image_size=SIDE).eval()
    nn.init.normal_(network.head.classifier.weight, std=0.05)  # so that the classes differ from image to image
    return network


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    save_model(folder, classifier(), metadata_for("classify", "resnet18", CLASSES))
    return folder


def mean_probabilities(images: list[np.ndarray]) -> np.ndarray:
    network, (ready, mirrored) = classifier(), both_views(images)
    with torch.inference_mode():
        return ((network(ready).softmax(1) + network(mirrored).softmax(1)) / 2).numpy()


def scores_of(result: Any) -> np.ndarray:
    return np.array([each.score for each in sorted(result.classes, key=lambda each: each.index)])


@pytest.mark.parametrize("engine", ["torch", "openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_probabilities_are_means_of_both(engine: str, saved: Path) -> None:
    images = images_of_noise(7)
    expected = mean_probabilities(images)
    with torch.inference_mode():
        alone = classifier()(both_views(images)[0]).softmax(1).numpy()
    assert np.abs(alone - expected).max() > 0.05
    predict = hubel.Predictor(saved, engine=engine, precision="fp32", batch=3, tta=True)
    np.testing.assert_allclose([scores_of(result) for result in predict(images)], expected, atol=1e-5)
    np.testing.assert_allclose(scores_of(predict(images[4])[0]), expected[4], atol=1e-5)
    assert predict.describe().endswith(", with mirror images")
    plain = hubel.Predictor(saved, engine=engine, precision="fp32")
    np.testing.assert_allclose([scores_of(result) for result in plain(images)], alone, atol=1e-5)


def test_order_failures_and_endless_streams_stay(saved: Path, tmp_path: Path) -> None:
    images = images_of_noise(5)
    expected = mean_probabilities(images)
    predict = hubel.Predictor(saved, engine="torch", precision="fp32", batch=2, tta=True)
    outcomes = list(predict.stream([images[0], tmp_path / "missing.png", tmp_path / "gone.png", *images[1:]]))
    assert [isinstance(outcome, FailedImage) for outcome in outcomes] == [False, True, True, *[False] * 4]
    found = [scores_of(outcome) for outcome in outcomes if not isinstance(outcome, FailedImage)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    taken = []

    def endless() -> Iterator[np.ndarray]:
        for number in count():
            taken.append(number)
            yield images[number % 5]

    first = list(islice(predict(endless()), 7))
    np.testing.assert_allclose([scores_of(each) for each in first], expected[[0, 1, 2, 3, 4, 0, 1]], atol=1e-5)
    assert len(taken) < 50


def test_the_box_is_mirrored_back_and_averaged() -> None:
    torch.manual_seed(3)
    network = create_model("localizer", num_classes=3, backbone="resnet18", image_size=SIDE).eval()
    nn.init.normal_(network.head.box.weight, std=0.3)
    images = images_of_noise(4)
    ready, mirrored = both_views(images)
    with torch.inference_mode():
        one, other = (network.predictions(network(view), (SIDE, SIDE)) for view in (ready, mirrored))
    x1, y1, x2, y2 = other["boxes"][:, 0].numpy().T
    boxes = (one["boxes"][:, 0].numpy() + np.stack([SIDE - x2, y1, SIDE - x1, y2], 1)) / 2
    scores = ((one["scores"] + other["scores"]) / 2)[:, 0].numpy()
    predict = hubel.Predictor(
        network, metadata=metadata_for("localize", "localizer", CLASSES[:3]), tta=True, precision="fp32"
    )
    # Twice as wide: what lies in the original is in its pixels.
    wide = [np.repeat(image, 2, 1) for image in images]
    stretched = hubel.Predictor(
        network,
        metadata=ModelMetadata(
            "localize", "localizer", 3, 3, SIDE, CLASSES[:3], Preprocessing(SIDE, SIDE, resize="stretch")
        ),
        tta=True,
        precision="fp32",
    )
    for result, box, row in zip(predict(images), boxes, scores, strict=True):
        np.testing.assert_allclose(result.boxes[0], box.clip(0, SIDE), atol=0.01)
        assert result.labels.tolist() == [row.argmax()] and result.scores[0] == pytest.approx(row.max(), abs=1e-4)
    for result, box in zip(stretched(wide), boxes, strict=True):
        np.testing.assert_allclose(result.boxes[0], box.clip(0, SIDE) * [2, 1, 2, 1], atol=0.5)


def plain_overlap(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def plain_fusion(views: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[tuple[float, int, list[float]]]:
    """Weighted boxes fusion as the paper lists its steps; a cluster takes one box of a view at most."""
    rows = [
        (float(score), int(label), view, box)
        for view, (boxes, scores, labels) in enumerate(views)
        for box, score, label in zip(boxes.tolist(), scores, labels, strict=True)
    ]
    clusters: list[list[Any]] = []
    fused: list[list[float]] = []
    for row in sorted(rows, key=lambda row: -row[0]):
        best, chosen = 0.55, -1
        for number, members in enumerate(clusters):
            if members[0][1] == row[1] and row[2] not in [member[2] for member in members]:
                overlap = plain_overlap(fused[number], row[3])
                if overlap > best:
                    best, chosen = overlap, number
        if chosen < 0:
            clusters.append([row])
            fused.append(row[3])
        else:
            members = [*clusters[chosen], row]
            total = sum(member[0] for member in members)
            clusters[chosen] = members
            fused[chosen] = [sum(member[0] * member[3][side] for member in members) / total for side in range(4)]
    return sorted(
        (
            # The mean, times min(T, N) / N for T boxes in N views.
            (sum(m[0] for m in members) / len(members) * len(members) / len(views), members[0][1], box)
            for members, box in zip(clusters, fused, strict=True)
        ),
        reverse=True,
    )


def test_fusion_by_hand() -> None:
    # IoU of the first two: 9 × 10 shared of 110. A class of its own, and a box that overlaps by half, stay alone.
    a = PredictedObjects(np.array([[0, 0, 10, 10], [50, 50, 60, 60.0]]), np.array([0.6, 0.9]), np.array([1, 0]))
    b = PredictedObjects(
        np.array([[1, 0, 11, 10], [50, 50, 60, 60], [50, 50, 60, 55.0]]), np.array([0.2, 0.8, 0.3]), np.array([1, 2, 0])
    )
    found = fuse_views(a, b)
    rows = {
        (label, round(score, 4)): box
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    }
    assert set(rows) == {(1, 0.4), (0, 0.45), (2, 0.4), (0, 0.15)}
    # (0.6 × 0 + 0.2 × 1) / 0.8
    np.testing.assert_allclose(rows[1, 0.4], [0.25, 0, 10.25, 10], atol=1e-5)


@pytest.mark.parametrize("sizes", [(40, 30), (0, 3), (3, 0), (0, 0)])
def test_fusion_is_the_paper_s(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    views = []
    for size in sizes:
        corner = rng.integers(0, 30, (size, 2)).astype(np.float32)
        boxes = np.concatenate((corner, corner + rng.uniform(15, 25, (size, 2)).astype(np.float32)), 1)
        scores = -np.sort(-rng.uniform(0.01, 1, size)).astype(np.float32)
        views.append((boxes, scores, rng.integers(0, 2, size)))
    expected = plain_fusion(views)
    found = fuse_views(*(PredictedObjects(*view) for view in views))
    order = np.argsort(-found.scores, kind="stable")
    assert len(order) == len(expected)
    assert min(sizes) == 0 or len(order) < sum(sizes) - 10
    for index, (score, label, box) in zip(order, expected, strict=True):
        assert found.scores[index] == pytest.approx(score, abs=1e-6) and found.labels[index] == label
        np.testing.assert_allclose(found.boxes[index], box, atol=1e-3)


def test_objects_are_fused_from_torchvision_s_of_both(tmp_path: Path) -> None:
    theirs = torchvision_detector()
    theirs.score_thresh, theirs.nms_thresh = 0.001, 0.45
    theirs.topk_candidates, theirs.detections_per_img = 10_000, 300
    photograph = sample_photographs()[1]
    pixels = np.array(Image.open(photograph).convert("RGB").resize((320, 320), Image.Resampling.BILINEAR))
    ready = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    with torch.inference_mode():
        here, there = (theirs([view])[0] for view in (ready, torch.flip(ready, [2])))
    x1, y1, x2, y2 = there["boxes"].numpy().T
    views = [
        (here["boxes"].numpy(), here["scores"].numpy(), here["labels"].numpy()),
        (np.stack([320 - x2, y1, 320 - x1, y2], 1), there["scores"].numpy(), there["labels"].numpy()),
    ]
    fused = [row for row in plain_fusion(views) if row[0] >= 0.3]
    scores, labels, boxes = (torch.tensor(column) for column in zip(*fused, strict=True))
    kept = torchvision.ops.batched_nms(boxes, scores, labels, 0.45)
    model = saved_detector(theirs, tmp_path)
    predict = hubel.Predictor(model, engine="torch", precision="fp32", conf=0.3, iou=0.45, tta=True)
    (found,) = predict([photograph])
    assert len(found) == len(kept) > 20
    np.testing.assert_allclose(found.scores, scores[kept], atol=1e-3)
    scale = np.array([found.width / 320, found.height / 320] * 2)
    for box, label in zip(boxes[kept].numpy() * scale, labels[kept].numpy() - 1, strict=True):
        near = np.abs(found.boxes - box).max(1)
        assert near.min() < 0.5 and found.labels[near.argmin()] == label
    everything = hubel.Predictor(model, engine="torch", precision="fp32", conf=0, iou=0.45, tta=True)
    (all_found,) = everything([photograph])
    assert len(all_found) == 300 and all_found.scores.min() > 0


class _NotANumberMirrored(nn.Module):
    """A detector whose scores are NaN where the left half of an image is brighter than its right."""

    prediction_names = ("boxes", "scores")

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[3] // 2
        difference: Tensor = images[..., half:].mean((1, 2, 3)) - images[..., :half].mean((1, 2, 3))
        return difference

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        boxes = torch.tensor([[4.0, 4.0, 20.0, 20.0]]).expand(len(outputs), 1, 4)
        return {"boxes": boxes, "scores": outputs.sqrt().clamp(0, 1)[:, None, None]}


def test_a_view_without_numbers_is_an_error_of_its_image() -> None:
    network = _NotANumberMirrored().eval()
    predict = hubel.Predictor(network, metadata=metadata_for("detect", "ssd", ["a"]), engine="torch", tta=True)
    even = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert len(predict(even)[0]) == 0
    uneven = even.copy()
    uneven[:, SIDE // 2 :] = 200
    assert len(hubel.Predictor(network, metadata=predict.metadata, engine="torch")(uneven)[0]) == 1
    with pytest.raises(ModelError, match="not numbers"):
        list(predict([uneven]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number, pixels in enumerate(images_of_noise(12)):
        folder = root / CLASSES[number % 4]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_evaluation_scores_the_means(saved: Path, folders: Path) -> None:
    expected = mean_probabilities(images_of_noise(12))
    labels = np.arange(12) % 4
    found = evaluate(saved, folders, split="all", device="cpu", batch=5, tta=True)
    assert found.metrics["top1"] == pytest.approx((expected.argmax(1) == labels).mean())
    assert found.metrics["loss"] == pytest.approx(log_loss(labels, expected, labels=range(4)), abs=1e-4)
    plain = evaluate(saved, folders, split="all", device="cpu", batch=5)
    assert abs(plain.metrics["loss"] - found.metrics["loss"]) > 0.01
    assert "with mirror images" in repr(found) and "mirror" not in repr(plain)
    assert set(found.to_json()) == set(plain.to_json())
    exported = hubel.export(saved, "openvino", out=folders.parent / "exported").path
    again = evaluate(exported, folders, split="all", device="cpu", tta=True)
    assert again.metrics["loss"] == pytest.approx(found.metrics["loss"], abs=1e-4)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """A saved model, images, the classes of their pixels by all views, and by the images alone."""
    torch.manual_seed(0)
    network = create_model("fcn32s", num_classes=4, backbone="resnet18", image_size=96).eval()
    nn.init.normal_(network.head.classifier.weight, std=0.3)
    folder = tmp_path_factory.mktemp("segmenter")
    save_model(folder, network, describe(network))
    rough = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(each).resize((96, 96), Image.Resampling.BICUBIC)) for each in rough])
    ready, mirrored = both_views(list(images))
    resized = partial(functional.interpolate, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        alone = resized(network(ready), (96, 96)).argmax(1)
        every = torch.zeros(3, 4, 96, 96)
        for side in (72, 96, 120):  # three quarters, the whole, five quarters
            here, there = (resized(network(resized(view, (side, side))), (96, 96)) for view in (ready, mirrored))
            every += here.softmax(1) + torch.flip(there.softmax(1), [3])
    return folder, images, every.argmax(1).numpy(), alone.numpy()


@pytest.mark.parametrize("engine", ["torch", "openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_probabilities_of_pixels_are_averaged(engine: str, segmenter: Any) -> None:
    folder, images, every, alone = segmenter
    assert (every != alone).mean() > 0.05
    for tta, expected in ((True, every), (False, alone)):
        predict = hubel.Predictor(folder, engine=engine, precision="fp32", tta=tta)
        for result, class_map in zip(predict(list(images)), expected, strict=True):
            assert (result.classes == class_map).mean() > 0.999  # equal probabilities aside
        assert ("mirror" in predict.describe()) is tta
    if engine == "openvino":  # converted: torch is not needed again
        Image.fromarray(images[0]).save(folder / "first.png")
        program = """
import sys, hubel
(found,) = hubel.Predictor(sys.argv[1], engine="openvino", precision="fp32", tta=True)([sys.argv[2]])
print("torch" in sys.modules, *(found.classes.ravel()))
"""
        words = [sys.executable, "-c", program, str(folder), str(folder / "first.png")]
        imported, *pixels = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        assert imported == "False"
        assert (np.array(pixels, int) == every[0].ravel()).mean() > 0.999


def test_a_file_or_module_that_gives_decisions_alone_is_refused(segmenter: Any, tmp_path: Path) -> None:
    folder, images, *_ = segmenter
    exported = hubel.export(folder, "openvino", out=tmp_path / "exported").path
    for call in (lambda: hubel.Predictor(exported, tta=True), lambda: evaluate(exported, tmp_path, tta=True)):
        with pytest.raises(UsageError, match=r"without the probabilities that --tta averages"):
            call()
    with pytest.raises(ModelError, match="cannot average what _Decisions predicts"):
        hubel.Predictor(_Decisions(), metadata=metadata_for("segment", "fcn32s", CLASSES), tta=True)(images[0])[0]


class _Decisions(nn.Module):
    prediction_names = ("class_map",)

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"class_map": outputs}


def test_segmentation_is_scored_with_both(segmenter: Any, tmp_path: Path) -> None:
    folder, images, both, alone = segmenter
    truth = np.random.default_rng(2).integers(0, 4, (3, 96, 96)).astype(np.uint8)
    truth[both != alone] = both[both != alone]  # what only the mean has right
    for kind, pixels in (("images", images), ("masks", truth)):
        (tmp_path / "test" / kind).mkdir(parents=True)
        for number, each in enumerate(pixels):
            Image.fromarray(each).save(tmp_path / "test" / kind / f"{number}.png")
    (tmp_path / "classes.txt").write_text("0 0\n1 1\n2 2\n3 3\n")
    scored = evaluate(folder, tmp_path, device="cpu", tta=True)
    assert scored.metrics["pixel_accuracy"] == pytest.approx(accuracy_score(truth.ravel(), both.ravel()), abs=1e-3)
    plain = evaluate(folder, tmp_path, device="cpu").metrics["pixel_accuracy"]
    assert plain == pytest.approx(accuracy_score(truth.ravel(), alone.ravel()), abs=1e-3)
    assert scored.metrics["pixel_accuracy"] > plain + 0.03


def test_commands_take_it(saved: Path, folders: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    common = ["--model", str(saved), "--engine", "torch", "--precision", "fp32", "--top", "4", "--json"]
    file = folders / "b" / "1.png"
    plain, both = (json.loads(run(app, ["predict", str(file), *common, *more]).stdout) for more in ([], ["--tta"]))
    assert list(plain) == list(both) and plain["classes"] != both["classes"]
    scores = {row["index"]: row["score"] for row in both["classes"]}
    expected = mean_probabilities(images_of_noise(12))[1]
    np.testing.assert_allclose([scores[index] for index in range(4)], expected, atol=1e-5)
    scored = run(app, ["evaluate", str(saved), str(folders), "--split", "all", "--tta", "--json"])
    loss = log_loss(np.arange(12) % 4, mean_probabilities(images_of_noise(12)), labels=range(4))
    assert json.loads(scored.stdout)["metrics"]["loss"] == pytest.approx(loss, abs=1e-4)
    refused = run(app, ["evaluate", "--task", "track", "gt.txt", "result.txt", "--tta"])
    assert isinstance(refused.exception, UsageError) and "--tta" in refused.exception.message


def test_a_collection_is_continued_only_as_it_began(tmp_path: Path) -> None:
    chosen = {"engine": "torch", "precision": "fp32"}
    (tmp_path / "job.json").write_text(json.dumps({"top": 5, "chosen": chosen}))
    assert read_manifest(tmp_path, {"top": 5, "tta": False}) == chosen  # of a version that had no such option
    with pytest.raises(DataError, match="--tta was False, is True"):
        read_manifest(tmp_path, {"top": 5, "tta": True})
