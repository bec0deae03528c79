"""Gradients of depthwise convolutions in bfloat16, against PyTorch's in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hubel.layers import depthwise_gradients
from hubel.layers.depthwise_gradients import FastDepthwiseGradients


def _gradients(layer: nn.Conv2d, maps: Tensor) -> list[Tensor]:
    maps = maps.clone().requires_grad_()
    made = layer(maps)
    (made * torch.linspace(-1, 1, made.numel()).reshape(made.shape).to(made.dtype)).sum().backward()
    assert maps.grad is not None
    found = [maps.grad, *(parameter.grad for parameter in layer.parameters())]
    layer.zero_grad()
    return [made.detach(), *found]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side", "dilation"),
    [
        (3, 2, 1, (17, 23), 1),
        (3, 2, 0, (16, 9), 1),
        (5, 1, 2, (12, 7), 1),
        (5, 2, 2, (31, 20), 1),
        (7, 1, 3, (9, 9), 1),
        ((5, 3), (2, 1), (0, 1), (14, 11), 1),
        (4, 3, 1, (13, 15), 1),
        (5, 1, 4, (20, 13), 2),
        (3, 1, 0, (11, 16), (3, 1)),
        (3, 1, 18, (20, 20), 18),
    ],
)
def test_gradients_of_bfloat16_are_those_of_float64(
    kernel: int, stride: int, padding: int, side: tuple[int, int], dilation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 24, kernel, stride, padding, dilation, groups=24, bias=False)
    # Values that bfloat16 holds exactly, so that what is left are errors of the sums.
    layer.weight.data = layer.weight.data.bfloat16().float()
    maps = torch.randn(3, 24, *side).bfloat16().float().contiguous(memory_format=torch.channels_last)
    calls = []
    original = depthwise_gradients._of_weight
    monkeypatch.setattr(depthwise_gradients, "_of_weight", lambda *a: calls.append(1) or original(*a))
    with torch.autocast("cpu", torch.bfloat16), FastDepthwiseGradients():
        found = _gradients(layer, maps)
    assert calls
    expected = _gradients(layer.double(), maps.double())
    for ours, exact in zip(found, expected, strict=True):
        assert (ours.double() - exact).abs().max() < 0.01 * exact.abs().max()


def test_other_convolutions_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise_gradients, "DepthwiseConvolution", None)
    maps = torch.randn(1, 8, 9, 9)
    with FastDepthwiseGradients():
        nn.Conv2d(8, 8, 5, groups=8, bias=False)(maps)  # in float32
        with torch.autocast("cpu", torch.bfloat16):
            nn.Conv2d(8, 8, 5, bias=False)(maps)
            nn.Conv2d(8, 16, 5, groups=8, bias=False)(maps)
            nn.Conv2d(8, 8, 5, groups=8)(maps)
            nn.Conv2d(8, 8, 5, groups=8, bias=False, dilation=2, stride=2)(maps)
            nn.Conv2d(8, 8, 5, groups=8, bias=False, padding="same")(maps)
            nn.Conv2d(8, 8, 3, groups=8, bias=False)(maps)
            with torch.no_grad():
                nn.Conv2d(8, 8, 5, groups=8, bias=False)(maps)


def test_activations_that_are_computed_again() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    maps = torch.randn(2, 8, 16, 16)
    gradients = []
    for again in (False, True):
        with torch.autocast("cpu", torch.bfloat16), FastDepthwiseGradients():
            made = checkpoint(layer, maps, use_reentrant=False) if again else layer(maps)
            made.float().square().sum().backward()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad)
        layer.weight.grad = None
    torch.testing.assert_close(gradients[0], gradients[1])
