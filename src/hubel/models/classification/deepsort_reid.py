"""DeepSORT's network to recognize people again (Wojke, Bewley, Paulus 2017, arXiv 1703.07402, table 1).

It maps a crop of 128 × 64 pixels to a vector of 128 numbers of length 1, near in angle for pictures of one person. It
is trained as a classifier of identities whose last layer compares angles: the cosine softmax (Wojke and Bewley 2018,
"Deep Cosine Metric Learning for Person Re-Identification", arXiv 1812.00442, equation 4). ``model(images)`` gives its
scores, ``model.embed(images)`` the vectors.

======== =============================== ==========
part     patch, stride                   output
======== =============================== ==========
conv1    3×3, 1                          32×128×64
conv2    3×3, 1                          32×128×64
pool     3×3 max, 2                      32×64×32
unit1    residual, 3×3, 1                32×64×32
unit2    residual, 3×3, 1                32×64×32
unit3    residual, 3×3, 2                64×32×16
unit4    residual, 3×3, 1                64×32×16
unit5    residual, 3×3, 2                128×16×8
unit6    residual, 3×3, 1                128×16×8
head     dense, batch and ℓ2 normalization  128
======== =============================== ==========

Of the second paper: exponential linear units, pre-activation units with dropout of 0.4 between their convolutions,
whose shortcuts are projected where the shape changes. The first table counts 2,800,864 parameters: these, without the
classifier of identities and without the 960 scales of the normalizations, which the authors' framework leaves out.
Neither paper's table has an activation behind the dense layer, so there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.models.base import Architecture, Classifier
from hubel.models.config_schema import Count, ShareBelowOne

_CHANNELS = (32, 32, 64, 64, 128, 128)
_INPUT = (3, 128, 64)
_STRIDE = 8


@dataclass(frozen=True)
class DeepSortReidConfig:
    """What may be chosen.

    Attributes:
        features: numbers in a vector.
        dropout: share of the maps dropped between a unit's convolutions, 0..1.
    """

    features: Count = 128
    dropout: ShareBelowOne = 0.4


class BasicBlock(nn.Module):
    """``shortcut + conv(dropout(unit(activation(norm(maps)))))``: the activation stands before the convolutions.

    Args:
        in_channels: of the maps.
        channels: of the output.
        stride: of the first convolution.
        dropout: between the two.
        activated: whether to normalize and activate first; what comes from ``pool`` is so already.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float, activated: bool) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ELU()) if activated else nn.Identity()
        self.unit = ConvNormActivation(in_channels, channels, 3, stride, activation=nn.ELU)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        changes = stride > 1 or in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) → (N, channels, H / stride, W / stride)."""
        inner = self.conv(self.dropout(self.unit(self.activate(maps))))
        sum_: Tensor = self.shortcut(maps) + inner
        return sum_


class CosineClassifier(nn.Module):
    """Scores of identities: κ times the cosine of a vector and each identity's weights (equation 4).

    Args:
        in_features: of the vectors.
        num_classes: identities.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.normal_(self.weight, std=0.01)
        # κ is learned freely; of its logarithm, so that it stays positive.
        self.log_scale = nn.Parameter(torch.full((1,), 2.3))

    def forward(self, vectors: Tensor) -> Tensor:
        """Scores (N, classes) of vectors (N, D) of length 1."""
        return self.log_scale.exp() * functional.linear(vectors, functional.normalize(self.weight, dim=1))


class ReidHead(nn.Module):
    """Dense layer, batch normalization, length 1; then the scores of identities."""

    def __init__(self, in_features: int, features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(in_features, features, bias=False)
        self.norm = nn.BatchNorm1d(features)
        self.classifier = CosineClassifier(features, num_classes)

    def embed(self, maps: Tensor) -> Tensor:
        """Vectors (N, features) of length 1, of maps (N, C, H, W)."""
        return functional.normalize(self.norm(self.dense(self.dropout(maps.flatten(1)))), dim=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Raw scores (N, identities)."""
        scores: Tensor = self.classifier(self.embed(maps))
        return scores


class ReidNetwork(Classifier):
    """A classifier of identities that can hand out what it compares."""

    embeds = True

    def embed(self, images: Tensor) -> Tensor:
        """Appearance vectors (N, features) of length 1, of images (N, C, H, W)."""
        vectors: Tensor = self.head.embed(self.backbone(images))  # type: ignore[operator]
        return vectors


def build(config: DeepSortReidConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """``image_size`` is the height of the crops; they are half as wide."""
    first = _CHANNELS[0]
    backbone = nn.Sequential()
    backbone.add_module("conv1", ConvNormActivation(in_channels, first, 3, activation=nn.ELU))
    backbone.add_module("conv2", ConvNormActivation(first, first, 3, activation=nn.ELU))
    backbone.add_module("pool", nn.MaxPool2d(3, 2, padding=1))
    before = first
    for number, channels in enumerate(_CHANNELS, 1):
        stride = 2 if channels != before else 1
        backbone.add_module(f"unit{number}", BasicBlock(before, channels, stride, config.dropout, number > 1))
        before = channels
    height, width = -(-image_size // _STRIDE), -(-(image_size // 2) // _STRIDE)
    head = ReidHead(before * height * width, config.features, num_classes, config.dropout)
    feature_info = {1: ("conv2", first), 2: ("unit2", first), 4: ("unit4", 64), 8: ("unit6", 128)}
    model = ReidNetwork(backbone, head, feature_info)
    _initialize(model)
    return model


def _initialize(model: nn.Module) -> None:
    """He's, as the units have rectifiers that are linear above 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


ARCHITECTURES = (
    Architecture(
        name="deepsort_reid",
        task="classify",
        build=build,
        config=DeepSortReidConfig(),
        input=_INPUT,
        num_classes=1261,
        depth=15,
        reference="Wojke et al. 2017, arXiv 1703.07402, table 1; Wojke and Bewley 2018, arXiv 1812.00442",
    ),
)
