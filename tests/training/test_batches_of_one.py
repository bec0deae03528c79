"""BatchNorm on a batch of one image."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from drawn_shapes import write_shapes
from hubel.models import create_model
from hubel.training.finetune import single_values_normalized
from hubel.training.train import train


def pooled() -> nn.Sequential:
    """A network whose second BatchNorm sees maps of one pixel, as after the pooling of ASPP."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
    )
    network[4].running_mean.uniform_()
    network[4].running_var.uniform_(0.5, 2)
    return network


def test_a_single_value_is_normalized_by_the_running_statistics() -> None:
    network, image = pooled(), torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="more than 1 value"):
        network(image)
    expected = copy.deepcopy(network)
    expected[4].eval()
    for each, context in (
        (network, single_values_normalized(network, 1)),
        (expected, single_values_normalized(expected, 2)),
    ):
        each.zero_grad()
        with context:
            each(image).square().sum().backward()
    assert all(module.training for module in network.modules())
    for (name, value), other in zip(network.state_dict().items(), expected.state_dict().values(), strict=True):
        # The first BatchNorm, which has 36 values, follows the batch.
        assert torch.equal(value, other), name
    for own, other in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_recomputed_activations_too() -> None:
    network, image = pooled(), torch.rand(1, 3, 8, 8)
    plain = copy.deepcopy(network)
    with single_values_normalized(network, 1), single_values_normalized(plain, 1):
        checkpoint(network, image, use_reentrant=False).square().sum().backward()
        plain(image).square().sum().backward()
    for own, other in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_larger_batches_are_left_alone() -> None:
    network = pooled()
    with single_values_normalized(network, 2):
        assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["densenet121", "inception_v3", "resnet18", "mobilenet_v3_small", "ssd", "one_stage"])
def test_networks_with_maps_of_one_pixel_take_one_image(name: str) -> None:
    size = {"inception_v3": 75, "ssd": 128}.get(name, 32)
    network = create_model(name, num_classes=2, image_size=size, weights=None).train()
    with single_values_normalized(network, 1):
        network(torch.rand(1, 3, size, size))
    assert all(module.training for module in network.modules())


def test_training_with_batches_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.training.results.write_report", lambda *_: None)
    data = write_shapes(tmp_path / "shapes", {"disc": 4, "cross": 4})
    settings = {"model": "mobilenet_v2", "image_size": 32, "batch": 1, "epochs": 1, "weights": None, "workers": 0}
    result = train(data, out=tmp_path / "run", precision="float32", **settings)
    assert result.scores["val"].images
