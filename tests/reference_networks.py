"""Other libraries' networks, made to differ visibly wherever ours might be wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hubel.models.base import Classifier


def with_live_statistics(model: nn.Module, in_channels: int = 3, seed: int = 0, size: int = 64) -> nn.Module:
    """Give every batch normalization statistics and parameters of its own, and the model evaluation mode.

    Fresh ones are the identity, under which wrong epsilons, orders and keys go unseen. The statistics come from
    a batch of noise, so that signals neither explode nor die, and are then shaken.
    """
    torch.manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, in_channels, size, size))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
            norm.weight.uniform_(0.3, 0.9)
            norm.bias.normal_(std=0.1)
    return model.eval()


def largest_difference(first: Tensor, second: Tensor) -> float:
    """Of tensors of the same shape."""
    assert first.shape == second.shape
    return (first - second).abs().max().item()


def assert_same_pyramid(ours: Classifier, theirs: nn.Module, images: Tensor) -> None:
    """Strides, channels and maps are those of timm's network made with ``features_only=True``."""
    with torch.no_grad():
        maps, expected = ours.features(images), theirs(images)
    assert list(maps) == theirs.feature_info.reduction()
    assert list(ours.feature_channels.values()) == theirs.feature_info.channels()
    for ours_map, theirs_map in zip(maps.values(), expected, strict=True):
        assert largest_difference(ours_map, theirs_map) < 1e-4
