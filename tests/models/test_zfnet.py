"""ZFNet against the paper's figure 3, and against its layers written out."""

from __future__ import annotations

import pytest
import torch
from test_alexnet import normalized_by_hand, sides_of
from torch import nn
from torch.nn import functional as F

from hubel.errors import ModelError
from hubel.models import architecture, create_model
from published_figures import PUBLISHED
from reference_networks import largest_difference


def test_sizes_are_those_of_figure_3() -> None:
    assert sides_of("zfnet") == {
        "stage1": (96, 110), "pool1": (96, 55), "norm1": (96, 55),
        "stage2": (256, 26), "pool2": (256, 13), "norm2": (256, 13),
        "stage3": (256, 13), "pool3": (256, 6),
    }  # fmt: skip


def test_parameters_are_what_the_figures_layers_imply() -> None:
    convolutions = 96 * (7 * 7 * 3 + 1) + 256 * (5 * 5 * 96 + 1)
    convolutions += 384 * (3 * 3 * 256 + 1) + 384 * (3 * 3 * 384 + 1) + 256 * (3 * 3 * 384 + 1)
    dense = 4096 * (6 * 6 * 256 + 1) + 4096 * (4096 + 1) + 1000 * (4096 + 1)
    assert convolutions + dense == PUBLISHED["zfnet"].parameters


def test_scores_equal_the_figure_written_out() -> None:
    torch.manual_seed(0)
    model = create_model("zfnet", num_classes=10, image_size=96).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(0.01 * torch.randn_like(parameter))
        state = list(model.state_dict().values())
        (w1, b1, w2, b2, w3, b3, w4, b4, w5, b5), dense = state[:10], state[10:]
        images = 50 * torch.randn(2, 3, 96, 96)  # pixels' scale: strong enough for the normalization to matter
        maps = F.conv2d(F.pad(images, (1, 1, 1, 1)), w1, b1, stride=2).relu()
        # A window that reaches over the border sees what lies inside: here, nothing below the lowest value.
        maps = normalized_by_hand(F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 3, 2))
        maps = F.conv2d(maps, w2, b2, stride=2).relu()
        maps = normalized_by_hand(F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 3, 2))
        for weight, bias in ((w3, b3), (w4, b4), (w5, b5)):
            maps = F.conv2d(maps, weight, bias, padding=1).relu()
        signal = F.max_pool2d(maps, 3, 2).flatten(1)
        for number in (0, 2):
            signal = F.linear(signal, dense[number], dense[number + 1]).relu()
        expected = F.linear(signal, dense[4], dense[5])
        assert largest_difference(model(images), expected) < 1e-4 * expected.abs().max()
        assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()


def test_layers_and_their_first_weights() -> None:
    model = create_model("zfnet", image_size=47)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == architecture("zfnet").depth == 8
    assert all(layer.weight.std().item() == pytest.approx(0.01, rel=0.03) for layer in layers)
    assert not any(bool(layer.bias.any()) for layer in layers)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ModelError, match="images larger than 46 pixels") as refused:
        create_model("zfnet", image_size=46)
    assert "47" in refused.value.hint
    for size in range(47, 260, 15):
        with torch.device("meta"):
            model = create_model("zfnet", image_size=size)
            maps = model.backbone(torch.empty(1, 3, size, size))
        assert 256 * maps.shape[2] ** 2 == model.head.fc1.in_features
