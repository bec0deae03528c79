"""Localization: what is in the picture, and one box round it.

``localizer`` stands on any classifier. Its class head is the usual one, a dense layer on the means of the maps. Means
do not tell places: the box head reads from each of some maps where in the picture it is strong, as its expected place
under a softmax over all places (the "spatial soft arg-max" of Levine et al. 2016, "End-to-End Training of Deep
Visuomotor Policies", arXiv 1504.00702, section 5.2) and how far it spreads, and a dense layer makes four numbers of
these. So a hundred labelled photographs are enough, and any image size will do.

The four numbers are the box's centre, its height and its width: see :mod:`hubel.tasks.localization.loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hubel.models.base import Architecture, ClassificationHead, Classifier, Model
from hubel.models.config_schema import Count, ShareBelowOne

BOX = 4
"""Numbers of a box in the raw output, after the class scores: x and y of the centre, height, width."""


@dataclass(frozen=True)
class LocalizerConfig:
    """What may be chosen.

    Attributes:
        sizes: what the raw height and width are: the sizes themselves, or their square roots.
        places: maps whose places the box head reads.
        dropout: share of the means dropped before the class scores, 0..1.
    """

    sizes: Literal["plain", "root"] = "root"
    places: Count = 64
    dropout: ShareBelowOne = 0.2


class SpatialSoftArgmax(nn.Module):
    """Where maps are strong: for each, x and y of its expected place and the spread along both, in halves of a side.

    Maps (N, C, H, W) → (N, 4 C); places are -1..1 from edge to edge.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Of each map x, then of each y, then the spreads."""
        height, width = maps.shape[2:]
        share = torch.softmax(maps.float().flatten(2), 2).view(-1, maps.shape[1], height, width)
        columns, rows = share.sum(2), share.sum(3)
        x = (torch.arange(width, device=maps.device) + 0.5) * (2 / width) - 1
        y = (torch.arange(height, device=maps.device) + 0.5) * (2 / height) - 1
        mean_x, mean_y = columns @ x, rows @ y
        wide, high = columns @ x.square() - mean_x.square(), rows @ y.square() - mean_y.square()
        spreads = [(variance.clamp(min=0) + 1e-4).sqrt() for variance in (wide, high)]
        return torch.cat((mean_x, mean_y, *spreads), 1)


class LocalizationHead(nn.Module):
    """Class scores from the means of the maps, a box from their places.

    Args:
        in_channels: of the last feature map.
        num_classes: what is told apart.
        config: see there.
    """

    def __init__(self, in_channels: int, num_classes: int, config: LocalizerConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(in_channels, num_classes)
        self.reader = nn.Conv2d(in_channels, config.places, 1)
        self.places = SpatialSoftArgmax()
        self.box = nn.Linear(4 * config.places, BOX)
        nn.init.normal_(self.box.weight, std=0.01)
        half = 0.5**0.5 if config.sizes == "root" else 0.5  # begin with half of the width and height, in the middle
        with torch.no_grad():
            self.box.bias.copy_(torch.tensor([0.0, 0.0, half, half]))

    def forward(self, maps: Tensor) -> Tensor:
        """Raw scores and box (N, classes + 4) of feature maps (N, C, H, W)."""
        scores = self.classifier(self.dropout(torch.mean(maps, dim=(2, 3))))
        box = self.box(self.places(self.reader(maps)).to(maps.dtype))
        return torch.cat((scores, box), 1)


class Localizer(Model):
    """A backbone and a :class:`LocalizationHead`: class scores and one box.

    Args:
        backbone: named parts applied one after the other.
        head: gives raw scores and box (N, classes + 4).
        feature_info: as in :class:`Model`.
        root: height and width are given as their square roots.
    """

    prediction_names = ("boxes", "scores")

    def __init__(
        self, backbone: nn.Sequential, head: LocalizationHead, feature_info: Mapping[int, tuple[str, int]], root: bool
    ) -> None:
        super().__init__(backbone, head, feature_info)
        self.root = root

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """One box, and the softmax of the classes as its scores."""
        height, width = size
        scores, raw = outputs[:, :-BOX].float(), outputs[:, -BOX:].float()
        centre, sizes = raw[:, :2].sigmoid(), raw[:, 2:].flip(1)
        halves = (sizes.square() if self.root else sizes.clamp(min=0)) / 2
        boxes = torch.cat((centre - halves, centre + halves), 1) * raw.new_tensor([width, height, width, height])
        return {"boxes": boxes[:, None], "scores": torch.softmax(scores, 1)[:, None]}


def build_on(config: LocalizerConfig, num_classes: int, source: Classifier) -> Localizer:
    """A localizer on the backbone of a classifier, for any image size.

    Where the classifier ends with dense layers instead of means, what it does after its smallest map of the pyramid is
    left out.
    """
    feature_info: Mapping[int, tuple[str, int]] = {
        stride: (source.stage_of_stride(stride), channels) for stride, channels in source.feature_channels.items()
    }
    if isinstance(source.head, ClassificationHead):
        backbone, channels = source.backbone, source.head.classifier.in_features
    else:
        last, channels = feature_info[max(feature_info)]
        names = [name for name, _ in source.backbone.named_children()]
        backbone = source.backbone[: names.index(last) + 1]
    return Localizer(backbone, LocalizationHead(channels, num_classes, config), feature_info, config.sizes == "root")


ARCHITECTURES = (
    Architecture(
        name="localizer",
        task="localize",
        build=build_on,
        config=LocalizerConfig(),
        input=(3, 224, 224),
        num_classes=1000,
        depth=51,
        reference="box head: Levine et al. 2016, arXiv 1504.00702, section 5.2",
        backbone="efficientnet_lite0",
    ),
)
