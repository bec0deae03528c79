"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), section II.B and figure 2).

====== =========================================== ======== ==========
layer  kind                                        output   parameters
====== =========================================== ======== ==========
c1     5×5 convolution, squashing                  6@28×28  156
s2     2×2 trainable subsampling, squashing        6@14×14  12
c3     5×5 convolution by table I, squashing       16@10×10 1,516
s4     2×2 trainable subsampling, squashing        16@5×5   32
c5     5×5 convolution, squashing                  120@1×1  48,120
f6     dense, squashing                            84       10,164
output squared distances to ten 7×12 bitmaps       10       none
====== =========================================== ======== ==========

60,000 trainable parameters. Squashing is 1.7159 tanh(2/3 a). Weights start uniformly in ±2.4 / fan-in
(appendix A); so do biases, which the paper counts as connections to a unit that is always on.

``lenet5_modern`` is what is called LeNet-5 today: plain tanh, average pooling without parameters, all
96 pairs in C3, a linear output, Glorot's initialization; 61,706 parameters.

Deviations: C5's kernels span S4's maps whatever the image size (5×5 at the paper's 32×32), so that C5
is 1×1 always; the paper keeps 5×5 and lets C5 grow. Scores are negated distances
(:mod:`hubel.layers.lenet`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.init import initialize
from hubel.layers.lenet import (
    CODE_LENGTH,
    LENET5_C3,
    ConnectionTableConv2d,
    RadialBasisOutput,
    ScaledTanh,
    TrainableSubsampling,
)
from hubel.models.base import Architecture, Classifier

_SMALLEST = 16  # pixels; below, nothing is left of S4


@dataclass(frozen=True)
class LeNetConfig:
    """Differences between the paper's network and later readings of it.

    Attributes:
        activation: ``"scaled_tanh"`` (paper), ``"tanh"`` or ``"relu"``.
        subsampling: ``"trainable"`` (paper; squashed), ``"average"`` or ``"max"``.
        connections: of C3, ``"table"`` (paper) or ``"full"``.
        output: ``"rbf"`` (paper) or ``"linear"``.
        initialization: ``"fan_in"`` (paper: ±2.4 / fan-in) or ``"glorot"``.
    """

    activation: Literal["scaled_tanh", "tanh", "relu"] = "scaled_tanh"
    subsampling: Literal["trainable", "average", "max"] = "trainable"
    connections: Literal["table", "full"] = "table"
    output: Literal["rbf", "linear"] = "rbf"
    initialization: Literal["fan_in", "glorot"] = "fan_in"


class LeNetHead(nn.Module):
    """F6 with its squashing, and the output layer."""

    def __init__(self, activation: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.f6 = _part(linear=nn.Linear(120, CODE_LENGTH), activation=activation)
        self.classifier = classifier

    def forward(self, maps: Tensor) -> Tensor:
        """Raw class scores (N, classes) of C5's maps (N, 120, 1, 1)."""
        scores: Tensor = self.classifier(self.f6(maps.flatten(1)))
        return scores


def _part(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _fan_in(model: nn.Module) -> None:
    """Appendix A; the paper's own layers initialize themselves in the same way."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias is not None
            bound = 2.4 / module.weight[0].numel()
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.uniform_(module.bias, -bound, bound)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"scaled_tanh": ScaledTanh, "tanh": nn.Tanh, "relu": nn.ReLU}
_SUBSAMPLINGS: dict[str, Callable[[int], nn.Module]] = {
    "trainable": lambda channels: _part(subsampling=TrainableSubsampling(channels), activation=ScaledTanh()),
    "average": lambda channels: nn.AvgPool2d(2),
    "max": lambda channels: nn.MaxPool2d(2),
}
_CONNECTIONS: dict[str, Callable[[], nn.Module]] = {
    "table": lambda: ConnectionTableConv2d(6, LENET5_C3, 5),
    "full": lambda: nn.Conv2d(6, 16, 5),
}
_OUTPUTS: dict[str, Callable[[int], nn.Module]] = {
    "rbf": RadialBasisOutput,
    "linear": lambda classes: nn.Linear(CODE_LENGTH, classes),
}
_INITIALIZATIONS: dict[str, Callable[[nn.Module], None]] = {
    "fan_in": _fan_in,
    "glorot": partial(initialize, convolution=nn.init.xavier_uniform_, dense=nn.init.xavier_uniform_),
}


def build(config: LeNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """LeNet-5 for square images of ``image_size`` pixels; raises ``ModelError`` for fewer than 16."""
    if image_size < _SMALLEST:
        raise ModelError(f"LeNet-5 requires images larger than {image_size} pixels", f"use at least {_SMALLEST}")
    activation, subsampling = _ACTIVATIONS[config.activation], _SUBSAMPLINGS[config.subsampling]
    left = ((image_size - 4) // 2 - 4) // 2
    backbone = _part(
        c1=_part(conv=nn.Conv2d(in_channels, 6, 5), activation=activation()),
        s2=subsampling(6),
        c3=_part(conv=_CONNECTIONS[config.connections](), activation=activation()),
        s4=subsampling(16),
        c5=_part(conv=nn.Conv2d(16, 120, left), activation=activation()),
    )
    head = LeNetHead(activation(), _OUTPUTS[config.output](num_classes))
    model = Classifier(backbone, head, {1: ("c1", 6), 2: ("c3", 16), 4: ("s4", 16)})
    _INITIALIZATIONS[config.initialization](model)
    return model


_MODERN = LeNetConfig("tanh", "average", "full", "linear", "glorot")
_PAPER = "LeCun et al. 1998, Proceedings of the IEEE 86(11), section II.B, figure 2"

# The paper counts the subsampling layers too, which have trainable parameters there.
ARCHITECTURES = (
    Architecture("lenet5", build, LeNetConfig(), 7, _PAPER, input=(1, 32, 32), num_classes=10),
    Architecture("lenet5_modern", build, _MODERN, 5, _PAPER, input=(1, 32, 32), num_classes=10),
)
