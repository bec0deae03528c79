"""Sliding windows: where they lie, that all at once is the same as one by one, and that planted discs are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as theirs

import hubel
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError, UsageError
from hubel.inference.sliding_window import slide
from hubel.models import ModelMetadata
from hubel.models.base import ClassificationHead, Classifier
from hubel.models.detection.sliding_window import ImagePyramid, SlidingWindow, SlidingWindowConfig

RED, BLUE = (220, 30, 30), (30, 30, 220)


def planted(width: int, height: int, discs: list[tuple[int, int, int, tuple[int, int, int]]]) -> Image.Image:
    """Grey noise with discs: x and y of the centre, radius, colour."""
    noise = np.random.default_rng(0).integers(90, 160, (height, width, 1)).repeat(3, 2)
    y, x = np.mgrid[:height, :width]
    for centre_x, centre_y, radius, colour in discs:
        noise[(x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2] = colour
    return Image.fromarray(noise.astype(np.uint8))


class _Colours(nn.Module):
    """Maps how much redder, and how much bluer, than grey each pixel is, without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4)
        with torch.no_grad():
            self.conv.bias.zero_()
            for row, weights in enumerate(((1.0, -0.5, -0.5), (-0.5, -0.5, 1.0))):
                self.conv.weight[row] = torch.tensor(weights).view(3, 1, 1) / 16

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).clamp(min=0)


def by_hand() -> tuple[Classifier, ModelMetadata]:
    """Tells red, blue and grey windows of 32 pixels apart by their mean: half of a window that a disc fills is red."""
    model = Classifier(nn.Sequential(_Colours()), ClassificationHead(2, 3), {4: ("0", 2)})
    with torch.no_grad():
        # A disc covers π/4 of its window: colour 190 × 0.785 = 149. Of a window twice as large, or half beside, less.
        model.head.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        model.head.classifier.bias.copy_(torch.tensor([0.0, 0.0, 135.0]))
    ready = Preprocessing(32, 32, mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=1.0)
    return model, ModelMetadata("classify", "by_hand", 3, 3, 32, ["red", "blue", "grey"], ready)


@pytest.mark.parametrize("crops", [False, True])
def test_planted_discs_are_found(crops: bool) -> None:
    model, metadata = by_hand()
    image = planted(240, 160, [(50, 45, 20, RED), (180, 100, 20, BLUE)])
    found = slide(model, image, sizes=[40, 80], nothing=["grey"], metadata=metadata, crops=crops)
    assert isinstance(found, hubel.Detections)
    assert (found.width, found.height, found.source) == (240, 160, None)
    truth = torch.tensor([[30.0, 25, 70, 65], [160, 80, 200, 120]])
    assert sorted(found.names) == ["blue", "red"]
    order = [found.names.index(name) for name in ("red", "blue")]
    overlap = box_iou(torch.from_numpy(found.boxes[order]), truth).diagonal()
    assert overlap.min() > 0.75, overlap
    assert found.scores.min() > 0.9


def test_only_what_fills_a_window_counts() -> None:
    model, metadata = by_hand()
    image = planted(240, 160, [(180, 100, 20, BLUE)])
    assert len(slide(model, image, sizes=[160], nothing=["grey"], metadata=metadata)) == 0
    assert slide(model, image, sizes=[160], conf=0.9, metadata=metadata).names == ("grey",)


def test_without_padding_all_windows_at_once_equal_the_classifier_on_crops() -> None:
    """The crops here are cut by PIL, and their scores are the classifier's own."""
    torch.manual_seed(0)
    model = hubel.create_model("lenet5", num_classes=4).eval()
    ready = Preprocessing(32, 32, 1, mean=(127.5,), std=(127.5,), crop_fraction=1.0)
    metadata = ModelMetadata("classify", "lenet5", 4, 1, 32, list("abcd"), ready)
    image = planted(64, 48, [(20, 20, 9, RED)]).convert("L")
    found = slide(model, image, sizes=[32], conf=0.0, iou=1.0, metadata=metadata)
    assert len(found) == 9 * 5 * 4
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        pixels = torch.from_numpy(np.array(image.crop(box.tolist())))[None, None]
        with torch.no_grad():
            expected = torch.softmax(model((pixels - 127.5) / 127.5), 1)[0, label]
        assert score == pytest.approx(float(expected), abs=1e-4)


def test_networks_that_mix_the_whole_image_look_at_crops() -> None:
    torch.manual_seed(0)
    model = hubel.create_model("se_resnet50", num_classes=2, image_size=64).eval()
    image = planted(96, 64, [])
    found = slide(model, image, sizes=[64], conf=0.0, iou=1.0, batch=2)
    boxes = {tuple(box) for box in found.boxes.tolist()}
    assert boxes == {(0, 0, 64, 64), (16, 0, 80, 64), (32, 0, 96, 64)}


def test_what_cannot_be_slid_is_refused() -> None:
    model, metadata = by_hand()
    image = planted(100, 50, [])
    with pytest.raises(UsageError, match="the image's shorter side has 50 pixels"):
        slide(model, image, sizes=[60], metadata=metadata)
    with pytest.raises(UsageError, match="'green' is not a class"):
        slide(model, image, nothing=["green"], metadata=metadata)
    with pytest.raises(ModelError, match="sliding_window is not a classifier"):
        slide(hubel.create_model("sliding_window", 1), image)


def test_windows_lie_where_arithmetic_says() -> None:
    """A image of 192 × 256 and windows of 64 every 32 pixels, three sizes to an octave would be too many to count."""
    pyramid = ImagePyramid(64, 32, per_octave=1)
    # log2(192 / 64) = 1.58: two steps of √3. 192, 110.9, 64 → 4, 1.47 → 1, 0 strides; 256, 147.8, 85.3 → 6, 2.6 → 3, 1.
    assert pyramid.sizes(192, 256) == [(192, 256), (96, 160), (64, 96)]
    boxes = pyramid.boxes((96, 160), 192, 256)
    across, down = 256 / 160, 192 / 96
    expected = [[x * across, y * down, (x + 64) * across, (y + 64) * down] for y in (0, 32) for x in (0, 32, 64, 96)]
    np.testing.assert_allclose(boxes.numpy(), expected, rtol=1e-6)
    assert pyramid.sizes(40, 40) == [(64, 64)]


@pytest.fixture(scope="module")
def network() -> SlidingWindow:
    torch.manual_seed(0)
    model = hubel.create_model("sliding_window", 3, backbone="resnet18", per_octave=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(model.head.classifier.weight, std=0.2)
    return model.eval()


def test_network_looks_at_all_sizes(network: SlidingWindow) -> None:
    """448 pixels: windows of 128 at 448, 239.5 → 224 and 128 pixels, every 32: 11², 4² and 1."""
    image = torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(1))
    anchors = network.anchors(448, 448)
    with torch.inference_mode():
        scores, offsets = network(image).values()
        assert scores.shape == (1, 121 + 16 + 1, 4) and offsets.shape == (1, len(anchors), 4) == (1, 138, 4)
        # The last window is the whole image, as torchvision scales it.
        whole = theirs.resize(image, [128, 128], antialias=True)
        torch.testing.assert_close(network(whole)["scores"][0, 0], scores[0, -1], rtol=1e-4, atol=1e-4)
        maps = network.backbone(image)[..., 4:8, 2:6]  # one window's 4 × 4 cells, given to the head alone
        torch.testing.assert_close(network.head(maps)[0][0, 0], scores[0, 4 * 11 + 2], rtol=1e-4, atol=1e-4)
    assert anchors[-1].tolist() == [0, 0, 448, 448]
    assert anchors[4 * 11 + 2].tolist() == [64, 128, 192, 256]


def test_without_padding_windows_are_independent() -> None:
    torch.manual_seed(0)
    config = SlidingWindowConfig(window=32, per_octave=1, hidden=8)
    model = SlidingWindow(nn.Sequential(_Colours(), nn.Conv2d(2, 6, 2, stride=2)), 6, 8, 2, config).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        scores, offsets = model(image).values()
        for index, (x1, y1, x2, y2) in enumerate(model.anchors(64, 64)[:25].int().tolist()):
            alone = tuple(output[0, 0] for output in model(image[:, :, y1:y2, x1:x2]).values())
            torch.testing.assert_close(alone, (scores[0, index], offsets[0, index]))


def test_score_is_objectness_times_the_class(network: SlidingWindow) -> None:
    maps = torch.rand(1, 512, 4, 4)
    with torch.inference_mode():
        scores = network.log_probabilities(network.head(maps)[0][0, 0])
        raw = network.head.classifier(torch.relu(network.head.reader(maps))).flatten()
    objectness = torch.sigmoid(raw[0])
    expected = torch.cat((1 - objectness[None], objectness * torch.softmax(raw[1:], 0)))
    torch.testing.assert_close(torch.softmax(scores, 0), expected)


def test_networks_that_mix_the_whole_image_are_refused() -> None:
    with pytest.raises(ModelError, match="squeeze-and-excitation"):
        hubel.create_model("sliding_window", backbone="se_resnet50")
    with pytest.raises(ModelError, match="100 pixels is not a multiple of the stride 32"):
        hubel.create_model("sliding_window", window=100)
