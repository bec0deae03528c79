"""A one-stage detector without anchor boxes, on any classifier with maps of stride 8, 16 and 32.

Each cell of the three maps predicts class scores and the distances from its centre to the four sides of a box, as in
FCOS (Tian et al. 2019, arXiv 1904.01355, section 3.1). The rest is what later papers found to learn best:

======== ============================================================= =================================
part     what                                                          from
======== ============================================================= =================================
neck     1×1 to 96 channels; from coarse to fine and back,            PANet, Liu et al. 2018,
         at each step concatenation, 1×1, separable 5×5                arXiv 1803.01534, section 3.1
head     for class and box apart: separable 3×3 convolutions, 1×1      YOLOX, Ge et al. 2021,
                                                                       arXiv 2107.08430, section 2.1
box      each distance is the mean of a distribution over ``bins``     Li et al. 2020, arXiv 2006.04388,
         values, 0, 1, … cells                                         section 3
loss     :mod:`hubel.models.detection.task_alignment`                  TOOD, Feng et al. 2021,
                                                                       arXiv 2108.07755, section 3.2
======== ============================================================= =================================

Classes start at a probability of 0.01 (Lin et al. 2017, arXiv 1708.02002, section 3.3); distances at 2.3 cells, so that
objects are first assigned to the map whose cells have their scale: alignment of random boxes says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.separable_convolution import SeparableConv2d
from hubel.models.base import Architecture, Classifier, ClassLayers, DetectionTargets, Detector
from hubel.models.config_schema import Count
from hubel.models.detection.task_alignment import aligned_loss, distances_to_boxes

STRIDES = (8, 16, 32)
PRIOR = 0.01
_SLOPE = 0.35  # of the logarithm of the first distribution of distances, whose mean is 2.3 cells

_Separable = partial(SeparableConv2d, norm=nn.BatchNorm2d, activation=ReLU)


class Merge(nn.Module):
    """Two maps (N, channels, H, W), concatenated, to one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = ConvNormActivation(2 * channels, channels, 1)
        self.filter = _Separable(channels, channels, 5)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Maps (N, channels, H, W)."""
        maps: Tensor = self.filter(self.narrow(torch.cat((one, other), 1)))
        return maps


class PathAggregation(nn.Module):
    """Maps of one width, each with what the coarser and then the finer ones have seen."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        steps = len(channels) - 1
        self.laterals = nn.ModuleList(ConvNormActivation(each, width, 1) for each in channels)
        self.down = nn.ModuleList(Merge(width) for _ in range(steps))
        self.halvings = nn.ModuleList(_Separable(width, width, 5, stride=2) for _ in range(steps))
        self.up = nn.ModuleList(Merge(width) for _ in range(steps))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, width, H, W), fine to coarse, of maps (N, C, H, W)."""
        *finer, coarsest = (lateral(each) for lateral, each in zip(self.laterals, maps, strict=True))
        merged = [coarsest]
        for merge, each in zip(self.down, reversed(finer), strict=True):
            enlarged = functional.interpolate(merged[-1], size=each.shape[2:], mode="nearest")
            merged.append(merge(enlarged, each))
        finest, *coarser = reversed(merged)
        results = [finest]
        for halve, merge, each in zip(self.halvings, self.up, coarser, strict=True):
            results.append(merge(halve(results[-1]), each))
        return results


def _predictor(channels: int, biases: Sequence[float]) -> nn.Conv2d:
    """1×1 to as many channels as there are biases to start from."""
    predictor = nn.Conv2d(channels, len(biases), 1)
    nn.init.normal_(predictor.weight, std=0.01)
    predictor.bias = nn.Parameter(torch.tensor(biases))
    return predictor


class OneStageHead(nn.Module):
    """For each map, two towers of separable convolutions: one for the class scores, one for the distributions."""

    def __init__(self, maps: int, width: int, convolutions: int, num_classes: int, bins: int) -> None:
        super().__init__()
        self.num_classes, self.bins = num_classes, bins

        def towers() -> nn.ModuleList:
            layers = ([_Separable(width, width, 3) for _ in range(convolutions)] for _ in range(maps))
            return nn.ModuleList(nn.Sequential(*each) for each in layers)

        self.class_towers, self.box_towers = towers(), towers()
        unlikely = num_classes * [math.log(PRIOR / (1 - PRIOR))]
        near = 4 * [-_SLOPE * distance for distance in range(bins)]
        self.classifiers = nn.ModuleList(_predictor(width, unlikely) for _ in range(maps))
        self.regressors = nn.ModuleList(_predictor(width, near) for _ in range(maps))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """``"scores"`` (N, A, classes) and ``"distributions"`` (N, A, 4 · bins) of all cells of all maps, both raw."""

        def rows(towers: nn.ModuleList, predictors: nn.ModuleList) -> Tensor:
            each = [predict(tower(signal)) for predict, tower, signal in zip(predictors, towers, maps, strict=True)]
            return torch.cat([outputs.flatten(2) for outputs in each], 2).transpose(1, 2)

        return {
            "scores": rows(self.class_towers, self.classifiers),
            "distributions": rows(self.box_towers, self.regressors),
        }


class OneStage(Detector):
    """Maps of a backbone, the neck, the head. Cells come map by map, fine to coarse, row by row."""

    loss_weights: Mapping[str, float] = {"class": 1.0, "box": 2.0, "distribution": 0.5}

    def __init__(
        self,
        backbone: nn.Sequential,
        feature_info: Mapping[int, tuple[str, int]],
        width: int,
        convolutions: int,
        bins: int,
        num_classes: int,
    ) -> None:
        head = OneStageHead(len(feature_info), width, convolutions, num_classes, bins)
        super().__init__(backbone, head, num_classes, feature_info)
        self.neck = PathAggregation([channels for _, channels in feature_info.values()], width)
        self.bins = bins

    def maps(self, images: Tensor) -> list[Tensor]:
        """The maps that the heads read, fine to coarse."""
        maps: list[Tensor] = self.neck(list(self.features(images).values()))
        return maps

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw ``"scores"`` (N, A, classes) and ``"distributions"`` (N, A, 4 · bins)."""
        outputs: dict[str, Tensor] = self.head(self.maps(images))
        return outputs

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """``"class"``, ``"box"`` and ``"distribution"``: see :func:`~.task_alignment.aligned_loss`."""
        raw = {name: output.float() for name, output in outputs.items()}
        points = self.points(*targets.size).to(raw["scores"].device)
        boxes = self._boxes(raw["distributions"], points)
        distributions = raw["distributions"].unflatten(-1, (4, self.bins))
        return self.weighted(aligned_loss(raw["scores"], distributions, boxes, points, targets.objects))

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes of the mean distances; classes are independent of each other."""
        points = self.points(*size).to(outputs["distributions"].device)
        boxes = self._boxes(outputs["distributions"].float(), points)
        return {"boxes": boxes, "scores": outputs["scores"].float().sigmoid()}

    def _boxes(self, distributions: Tensor, points: Tensor) -> Tensor:
        probabilities = distributions.unflatten(-1, (4, self.bins)).softmax(-1)
        values = torch.arange(self.bins, dtype=probabilities.dtype, device=probabilities.device)
        return distances_to_boxes(probabilities @ values, points)

    def points(self, height: int, width: int) -> Tensor:
        """Centres of all cells, and the cells' sizes: float32 (A, 4), x, y, width and height in pixels."""
        tables = []
        for rows, columns in self.grids(height, width):
            unit = torch.tensor([width / columns, height / rows])
            y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            centres = torch.stack((x, y), -1).view(-1, 2) * unit
            tables.append(torch.cat((centres, unit.expand_as(centres)), 1))
        return torch.cat(tables)


@dataclass(frozen=True)
class OneStageConfig:
    """Channels of neck and head; convolutions of each tower; values of a distance, in cells from 0."""

    pyramid_channels: Count = 96
    convolutions: Count = 2
    bins: Count = 17


def build(config: OneStageConfig, num_classes: int, source: Classifier) -> OneStage:
    """The detector on the maps of stride 8, 16 and 32 of a classifier; raises ``ModelError`` if it lacks them."""
    source.require_detection_maps("one_stage")
    if config.bins < 2:
        raise ValueError("bins is less than 2")
    info = {stride: source.feature_info[stride] for stride in STRIDES}
    backbone = source.backbone_up_to(max(STRIDES))
    return OneStage(backbone, info, config.pyramid_channels, config.convolutions, config.bins, num_classes)


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    biases = state.get("head.classifiers.0.bias")
    return None if biases is None else len(biases)


# An epoch takes twice as long as one of ssd, on smaller images; so many take as long as the epochs of the task.
_RECIPES = (
    {
        "epochs": 28,
        "batch": 8,
        "learning_rate": 1.5e-3,
        "augmentation": ("mosaic", "crop", "flip", "color"),
        "close_mosaic": 8,
    },
    {"epochs": 100},
)

ARCHITECTURES = (
    Architecture(
        "one_stage",
        build,
        OneStageConfig(),
        depth=70,
        reference="Feng et al. 2021, arXiv 2108.07755; Li et al. 2020, arXiv 2006.04388",
        task="detect",
        input=(3, 416, 416),
        num_classes=80,
        backbone="efficientnet_lite0",
        class_layers=ClassLayers(r"head\.classifiers\.\d+\.(weight|bias)$", _classes_of),
        recipes=_RECIPES,
    ),
)
