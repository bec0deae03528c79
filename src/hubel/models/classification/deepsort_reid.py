"""Appearance vectors: DeepSORT's re-identification network, and embeddings from the backbone of any other network.

The network (Wojke, Bewley, Paulus 2017, arXiv 1703.07402, table 1) maps a crop of 128 × 64 pixels to a vector of 128
numbers of length 1; vectors of the same person enclose small angles. It is trained as a classifier of identities whose
last layer compares angles: the cosine softmax (Wojke and Bewley 2018, "Deep Cosine Metric Learning for Person
Re-Identification", arXiv 1812.00442, equation 4). ``model(images)`` gives its scores, ``model.embed(images)`` the
vectors.

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

From the second paper: exponential linear units, pre-activation blocks with dropout of 0.4 between their convolutions,
projected shortcuts where the shape changes. The first paper's table counts 2,800,864 parameters: these, without the
classifier of identities and the 960 scales of the normalizations, which the authors' framework leaves out. Neither
paper's table has an activation after the dense layer, so there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.errors import ModelError
from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import he_fan_in, initialize
from hubel.models.base import Architecture, Classifier, Model
from hubel.models.config_schema import Count, ShareBelowOne
from hubel.tracking.appearance import column_weights

CROP_SIZE = (128, 64)
"""Height and width of the crops."""

_EMBEDDING_STRIDE = 16
_CHANNELS = (32, 32, 64, 64, 128, 128)


@dataclass(frozen=True)
class DeepSortReidConfig:
    """Length of a vector, and the fraction of the maps dropped between a block's convolutions."""

    features: Count = 128
    dropout: ShareBelowOne = 0.4


class BasicBlock(nn.Module):
    """``shortcut(maps) + conv(dropout(unit(activation(norm(maps)))))``, the pre-activation block.

    Without ``activated`` there is no first normalization and activation, which the output of ``pool`` has already.
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
        """Maps (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        inner = self.conv(self.dropout(self.unit(self.activate(maps))))
        out: Tensor = self.shortcut(maps) + inner
        return out


class CosineClassifier(nn.Module):
    """Scores of identities: κ times the cosine between a vector and each identity's weights (equation 4)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.normal_(self.weight, std=0.01)
        # κ is learned by its logarithm, so that it stays positive.
        self.log_scale = nn.Parameter(torch.full((1,), 2.3))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (N, D) of length 1 to scores (N, classes)."""
        return self.log_scale.exp() * functional.linear(vectors, functional.normalize(self.weight, dim=1))


class ReidHead(nn.Module):
    """Dense layer, batch normalization and ℓ2 normalization; then the scores of identities."""

    def __init__(self, in_features: int, features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(in_features, features, bias=False)
        self.norm = nn.BatchNorm1d(features)
        self.classifier = CosineClassifier(features, num_classes)

    def embed(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) to vectors (N, features) of length 1."""
        return functional.normalize(self.norm(self.dense(self.dropout(maps.flatten(1)))), dim=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Raw scores (N, identities)."""
        scores: Tensor = self.classifier(self.embed(maps))
        return scores


class ReidNetwork(Classifier):
    """A classifier of identities that also returns the vectors it compares."""

    def embed(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to appearance vectors (N, features) of length 1."""
        vectors: Tensor = self.head.embed(self.backbone(images))  # type: ignore[operator]
        return vectors


def build(config: DeepSortReidConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """Build the network for crops of height ``image_size`` and half that width."""
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
    height, width = -(-image_size // 8), -(-(image_size // 2) // 8)  # the last maps have stride 8
    head = ReidHead(before * height * width, config.features, num_classes, config.dropout)
    feature_info = {1: ("conv2", first), 2: ("unit2", first), 4: ("unit4", 64), 8: ("unit6", 128)}
    model = ReidNetwork(backbone, head, feature_info)
    initialize(model, he_fan_in, he_fan_in)  # ELU is linear above 0, as ReLU
    return model


def embedding_of(model: nn.Module) -> nn.Module:
    """Module from preprocessed crops (N, C, H, W) to appearance vectors (N, D) of length 1.

    A :class:`ReidNetwork` has vectors of its own; those of other networks are a :class:`StripeEmbedding`.

    Raises:
        ModelError: it has no backbone, or no map as small as a sixteenth of the crop.
    """
    if not isinstance(model, Model):
        raise ModelError("appearance vectors require a network with a backbone", "use a registered network")
    if isinstance(model, ReidNetwork):
        return Vectors(model)
    channels = next(parameter for parameter in model.parameters() if parameter.ndim == 4).shape[1]
    parts, signal = nn.Sequential(), torch.zeros(1, channels, *CROP_SIZE)
    with torch.no_grad():
        for name, part in model.eval().backbone.named_children():
            parts.add_module(name, part)
            signal = part(signal)
            if signal.shape[2] <= CROP_SIZE[0] // _EMBEDDING_STRIDE:
                return StripeEmbedding(parts)
    raise ModelError(f"the model has no map of stride {_EMBEDDING_STRIDE}", "use another backbone for appearances")


class Vectors(nn.Module):
    """The vectors of a :class:`ReidNetwork`."""

    prediction_names = ("vectors",)

    def __init__(self, model: ReidNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Crops (N, C, H, W) to vectors (N, D) of length 1."""
        return self.model.embed(images)

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The vectors by name."""
        return {"vectors": outputs.float()}


class StripeEmbedding(nn.Module):
    """Appearance vectors from a middle feature map of a network trained to distinguish classes, not individuals.

    Deep maps represent that something is a person; earlier ones, what the person wears. On people in PETS09-S2L1 whose
    tracks are easy to follow, the first map of stride 16 of EfficientNet-Lite0 distinguished people better than its
    last maps and its pooled features. The upper and the lower half are pooled separately, as jackets and trousers
    differ; within each, columns near the sides, which show the background, have less weight.
    """

    prediction_names = ("stripes",)

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Crops (N, C, H, W) to vectors (N, 2 · C) of length 1."""
        maps = self.backbone(images)
        weights = torch.from_numpy(column_weights(maps.shape[3])).to(maps)
        columns = (maps * weights).sum(dim=3) / weights.sum()
        halves = functional.adaptive_avg_pool1d(columns, 2).flatten(1)
        return functional.normalize(halves, dim=1)

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The vectors, under a name that tells them from those of a network made to embed."""
        return {"stripes": outputs.float()}


ARCHITECTURES = (
    Architecture(
        "deepsort_reid",
        build,
        DeepSortReidConfig(),
        15,
        "Wojke et al. 2017, arXiv 1703.07402, table 1; Wojke and Bewley 2018, arXiv 1812.00442",
        input=(3, *CROP_SIZE),
        num_classes=1261,
    ),
)
