"""One pass over a large image gives what the classifier gives window by window."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import hubel
from hubel.errors import ModelError


def with_statistics(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = hubel.create_model(name, num_classes=5, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def noise(channels: int, side: int) -> torch.Tensor:
    return torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "side", "kernel"),
    [("resnet18", 224, 7), ("vgg11", 224, 7), ("alexnet", 227, 6), ("mobilenet_v2", 96, 3), ("simple_cnn", 28, 3)],
)
def test_outputs_are_the_head_s_slid_over_the_backbone_s_maps(name: str, side: int, kernel: int):
    model = with_statistics(name, image_size=side)
    network = hubel.to_fully_convolutional(model)
    channels = 1 if name == "simple_cnn" else 3
    small, large = noise(channels, side), noise(channels, 2 * side)
    with torch.inference_mode():
        torch.testing.assert_close(network(small)[:, :, 0, 0], model(small), atol=1e-4, rtol=1e-4)
        maps = model.backbone(large)
        patches = functional.unfold(maps, kernel).unflatten(1, (maps.shape[1], kernel, kernel))
        expected = torch.stack([model.head(patches[..., index]) for index in range(patches.shape[-1])], -1)
        scores = network(large)
    rows = maps.shape[2] - kernel + 1
    assert scores.shape == (1, 5, rows, rows) and rows > 1
    torch.testing.assert_close(scores.flatten(2), expected, atol=1e-4, rtol=1e-4)


def test_448_pixels_give_8_by_8_windows_of_224():
    network = hubel.to_fully_convolutional(with_statistics("resnet18"))
    assert (network.window, network.stride) == (224, 32)
    with torch.inference_mode():
        assert network(noise(3, 448)).shape[2:] == (8, 8)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_modern"])
def test_without_padding_it_is_the_classifier_slid_over_the_image(name: str):
    model = with_statistics(name)
    network = hubel.to_fully_convolutional(model)
    assert (network.window, network.stride) == (32, 4)
    image = noise(1, 52)
    with torch.inference_mode():
        scores = network(image)
        assert scores.shape == (1, 5, 6, 6)
        for row in range(6):
            for column in range(6):
                crop = image[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
                torch.testing.assert_close(scores[:, :, row, column], model(crop), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [("se_resnet50", {}, "squeeze-and-excitation"), ("vgg11", {"grid": 3}, "3×3 averages of maps 7×7")],
)
def test_what_mixes_the_whole_image_is_refused_with_the_reason(name: str, options: dict[str, int], reason: str):
    with torch.device("meta"):
        model = hubel.create_model(name, **options)
    with pytest.raises(ModelError, match=reason):
        hubel.to_fully_convolutional(model)


def test_a_module_of_somebody_else_is_refused():
    with pytest.raises(ModelError, match="not a classifier with a backbone"):
        hubel.to_fully_convolutional(torchvision.models.resnet18())
