"""docs/train.md says how each network's weights start; here they are drawn and measured."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import hubel

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "train.md"
LARGE = 4000  # weights, for a deviation that is known to two percent


def rows() -> list[tuple[list[str], str, str]]:
    """Of the page's table: patterns of names, what it says of convolutions, and of dense layers."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Initialization")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [([n.replace("…", "*") for n in re.findall(r"`([^`]+)`", row[0])], row[1], row[2]) for row in cells]


def row_of(name: str) -> tuple[list[str], str, str]:
    """The row whose pattern fits best: the longest."""
    fitting = [(len(p), row) for row in rows() for p in row[0] if fnmatch.fnmatchcase(name, p)]
    assert fitting, f"{name} is missing from the table"
    return max(fitting, key=lambda pair: pair[0])[1]


def test_every_classifier_is_in_the_table() -> None:
    for name in hubel.list_models(task="classify"):
        row_of(name)


def fan_in(layer: nn.Module) -> int:
    return int(layer.weight[0].numel())


def fan_out(layer: nn.Module) -> int:
    return int(layer.weight.numel() / fan_in(layer) * layer.weight[0, 0].numel())


DEVIATIONS: dict[str, Callable[[nn.Module], float]] = {  # of the weights, by how the page's words begin
    "He, fan-in": lambda layer: math.sqrt(2 / fan_in(layer)),
    "He, fan-out": lambda layer: math.sqrt(2 / fan_out(layer)),
    "Glorot": lambda layer: math.sqrt(2 / (fan_in(layer) + fan_out(layer))),
    "torch's": lambda layer: math.sqrt(1 / 3 / fan_in(layer)),
    "normal, deviation 0.01": lambda layer: 0.01,
    "normal cut off at two deviations, 0.1": lambda layer: 0.088,  # of a deviation of 0.1 before the cut
    "0.01": lambda layer: 0.0088,
    "uniform in ±2.4 / fan-in": lambda layer: 2.4 / fan_in(layer) / math.sqrt(3),
    "uniform in ±1/√classes": lambda layer: math.sqrt(1 / 3 / len(layer.weight)),
}
ONE_OF_EACH_ROW = (
    *(
        "deepsort_reid",
        "lenet5",
        "lenet5_modern",
        "simple_cnn",
        "alexnet",
        "zfnet",
        "vgg11",
        "googlenet_bn",
        "se_inception",
    ),
    *("inception_v3", "inception_v4", "xception", "resnet18", "senet154", "densenet121", "cspresnet50"),
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_lite0"),
    "darknet_classifier",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH_ROW)
def test_weights_have_the_deviation_that_the_page_says(name: str) -> None:
    torch.manual_seed(0)
    model = hubel.create_model(name)
    _, of_convolutions, of_dense = row_of(name)
    convolutions = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > LARGE]
    # Of grouped and depthwise convolutions some count one group as the fan-out, some all.
    layers = [(layer, of_convolutions) for layer in convolutions if layer.groups == 1]
    last = getattr(model.head, "classifier", None)  # a Darknet classifier's is a convolution
    if isinstance(last, nn.Linear) and last.weight.numel() > LARGE:
        of_last = of_convolutions if "the same" in of_dense else re.split("classifiers |the last ", of_dense)[-1]
        layers.append((last, of_last))
    assert layers
    for layer, description in layers:
        words = max((words for words in DEVIATIONS if description.strip().startswith(words)), key=len)
        expected = DEVIATIONS[words](layer)
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.06), (layer, description)
