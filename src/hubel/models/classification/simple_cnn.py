"""The textbook's first network, for 28 × 28 greyscale images such as Fashion-MNIST (Géron 2022, "Hands-On
Machine Learning", third edition, chapter 14, "CNN Architectures").

======= ================================ ========= ==========
part    kind                             output    parameters
======= ================================ ========= ==========
stage1  7×7 convolution, 64              64@28×28  3,200
pool1   2×2 max                          64@14×14
stage2  two 3×3 convolutions, 128        128@14×14 221,440
pool2   2×2 max                          128@7×7
stage3  two 3×3 convolutions, 256        256@7×7   885,248
pool3   2×2 max                          256@3×3
head    dense 128, dropout 0.5           128       295,040
        dense 64, dropout 0.5            64        8,256
        dense                            10        650
======= ================================ ========= ==========

1,413,834 parameters. Padding keeps the size; every layer but the last ends in ReLU and starts with He's
weights, the last with Glorot's; biases start at 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import he_fan_in, initialize
from hubel.models.base import Architecture, Classifier
from hubel.models.config_schema import ShareBelowOne

_Conv = partial(ConvNormActivation, norm=None)
_SMALLEST = 8  # pixels; below, the pooling leaves nothing


@dataclass(frozen=True)
class SimpleCNNConfig:
    """Options of the network: the fraction of the dense layers' units dropped."""

    dropout: ShareBelowOne = 0.5


class DenseHead(nn.Module):
    """Dense layers of 128 and 64 units with ReLU and dropout, and the output."""

    def __init__(self, in_features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dense1 = nn.Linear(in_features, 128)
        self.dense2 = nn.Linear(128, 64)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Raw class scores (N, classes) of feature maps (N, C, H, W)."""
        signal = maps.flatten(1)
        for dense in (self.dense1, self.dense2):
            signal = self.dropout(self.activation(dense(signal)))
        scores: Tensor = self.classifier(signal)
        return scores


def build(config: SimpleCNNConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """The network for square images of ``image_size`` pixels; raises ``ModelError`` for fewer than 8."""
    if image_size < _SMALLEST:
        raise ModelError(f"simple_cnn requires images larger than {image_size} pixels", f"use at least {_SMALLEST}")
    backbone = nn.Sequential()
    backbone.add_module("stage1", _Conv(in_channels, 64, 7))
    backbone.add_module("pool1", nn.MaxPool2d(2))
    backbone.add_module("stage2", nn.Sequential(_Conv(64, 128, 3), _Conv(128, 128, 3)))
    backbone.add_module("pool2", nn.MaxPool2d(2))
    backbone.add_module("stage3", nn.Sequential(_Conv(128, 256, 3), _Conv(256, 256, 3)))
    backbone.add_module("pool3", nn.MaxPool2d(2))
    head = DenseHead(256 * (image_size // 8) ** 2, num_classes, config.dropout)
    feature_info = {1: ("stage1", 64), 2: ("stage2", 128), 4: ("stage3", 256), 8: ("pool3", 256)}
    model = Classifier(backbone, head, feature_info)
    initialize(model, he_fan_in, he_fan_in)
    nn.init.xavier_uniform_(head.classifier.weight)
    return model


_GERON = "Géron 2022, Hands-On Machine Learning, third edition, chapter 14"

# What reached the best accuracy on Fashion-MNIST; docs/results.md has the figures. Things that fill a small image are
# harder to recognize in crops of it.
_RECIPE = {
    "batch": 128,
    "epochs": 34,
    "schedule": "one-cycle",
    "learning_rate": 1.5e-3,
    "augmentation": ("flip", "cutmix"),
    "label_smoothing": 0.03,
}

ARCHITECTURES = (
    Architecture(
        "simple_cnn", build, SimpleCNNConfig(), 8, _GERON, input=(1, 28, 28), num_classes=10, recipes=({}, _RECIPE)
    ),
)
