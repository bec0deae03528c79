"""A training step executes no more than the other libraries' networks: no copy, conversion or tensor beyond theirs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
zoo_operations: Any = importlib.import_module("zoo_operations")

FAST = ("cspresnet50", "densenet121", "efficientnet_b0", "efficientnet_lite0", "mobilenet_v2", "resnet50", "xception")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in zoo_operations.COUNTERPARTS],
)
def test_a_training_step_executes_no_more_than_theirs(name: str) -> None:
    ours, theirs = zoo_operations.compared(name, image_size=80, batch=2)
    # Some of timm's drop nothing before the classifier: five operations on a few features.
    assert ours.operations <= theirs.operations + 5
    assert ours.written <= 1.001 * theirs.written
    assert ours.kept <= 1.001 * theirs.kept
    assert ours.elsewhere <= theirs.elsewhere


class Wasteful(nn.Sequential):
    """A copy in another order, and a sum that is not in place."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self[0](images)
        return self[1]((maps + maps.contiguous(memory_format=torch.contiguous_format)).mean((2, 3)))


def test_waste_is_counted() -> None:
    images, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    plain = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    lean = zoo_operations.executed(plain, images, labels)
    counted = zoo_operations.executed(Wasteful(nn.Conv2d(3, 4, 1, bias=False), nn.Linear(4, 2)), images, labels)
    maps = 2 * 4 * 8 * 8 * 4  # bytes
    assert counted.elsewhere > lean.elsewhere
    assert counted.written - lean.written >= 2 * maps
