"""Localization: the class of an image, and one box.

``localizer`` stands on any classifier. Its class head is the usual one, a dense layer on the means of the feature maps.
Means do not keep positions: the box head reads from each of some maps where in the image it is strong, as its expected
position under a softmax over all positions (the "spatial soft arg-max" of Levine et al. 2016, "End-to-End Training of
Deep Visuomotor Policies", arXiv 1504.00702, section 5.2) and how far it spreads, and a dense layer makes four numbers
of these. So a hundred labelled images are enough, and any image size will do.

The four numbers are the box's centre, height and width in fractions of the input. The centre is the sigmoid of the raw
numbers, so it lies in the image; height and width are not bounded: the raw numbers are the sizes, or their square
roots, which make an error count more for a small box than for a large one (Redmon et al. 2016, arXiv 1506.02640,
section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import convert, paired_iou
from hubel.metrics.localization import IOU_THRESHOLD
from hubel.models.base import Architecture, Classifier, Model
from hubel.models.config_schema import Count, ShareBelowOne

NO_OBJECT = -1
"""The label of an image whose object was lost in augmentation; it does not count."""

_SMOOTH_L1_BETA = 1 / 9
_SMALLEST_VARIANCE = 1e-4


@dataclass(frozen=True)
class LocalizerConfig:
    """Options of the family.

    Attributes:
        sizes: what the raw height and width are: the sizes themselves, or their square roots.
        places: number of maps whose positions the box head reads.
    """

    sizes: Literal["plain", "root"] = "root"
    places: Count = 64
    dropout: ShareBelowOne = 0.2


@dataclass(frozen=True)
class LocalizationTargets:
    """Classes and boxes of a batch."""

    labels: Tensor  # int64 (N,), classes from 0, or NO_OBJECT
    boxes: Tensor  # float32 (N, 4), x1, y1, x2, y2 in fractions of the input

    @property
    def weight(self) -> float:
        """The images."""
        return float(len(self.labels))


class SpatialSoftArgmax(nn.Module):
    """Expected position in each map, and the spread, along x and y, in halves of the side.

    Maps (N, C, H, W) → (N, 4 C); positions are -1..1 from edge to edge.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """x of each map, then y of each, then the spreads."""
        height, width = maps.shape[2:]
        probability = torch.softmax(maps.float().flatten(2), 2).view(-1, maps.shape[1], height, width)
        columns, rows = probability.sum(2), probability.sum(3)
        x = (torch.arange(width, device=maps.device) + 0.5) * (2 / width) - 1
        y = (torch.arange(height, device=maps.device) + 0.5) * (2 / height) - 1
        mean_x, mean_y = columns @ x, rows @ y
        wide, high = columns @ x.square() - mean_x.square(), rows @ y.square() - mean_y.square()
        spreads = [(variance.clamp(min=0) + _SMALLEST_VARIANCE).sqrt() for variance in (wide, high)]
        return torch.cat((mean_x, mean_y, *spreads), 1)


class LocalizationHead(nn.Module):
    """Class scores from the means of the last feature map, a box from the positions in it."""

    def __init__(self, in_channels: int, num_classes: int, config: LocalizerConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(in_channels, num_classes)
        self.reader = nn.Conv2d(in_channels, config.places, 1)
        self.places = SpatialSoftArgmax()
        self.box = nn.Linear(4 * config.places, 4)
        nn.init.normal_(self.box.weight, std=0.01)
        half = 0.5**0.5 if config.sizes == "root" else 0.5  # begin with half of the width and height, in the middle
        with torch.no_grad():
            self.box.bias.copy_(torch.tensor([0.0, 0.0, half, half]))

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        """Raw ``"scores"`` (N, classes) and ``"box"`` (N, 4), x, y, height, width, of feature maps (N, C, H, W)."""
        scores = self.classifier(self.dropout(torch.mean(maps, dim=(2, 3))))
        return {"scores": scores, "box": self.box(self.places(self.reader(maps)).to(maps.dtype))}


class Localizer(Model):
    """A backbone and a :class:`LocalizationHead`. Targets are :class:`LocalizationTargets`.

    Its loss has up to four terms: ``"class"``, cross-entropy; ``"giou"``, 1 - GIoU of the box (Rezatofighi et al. 2019,
    arXiv 1902.09630); ``"smooth_l1"`` (Girshick 2015, arXiv 1504.08083, equation 3, turning at 1/9 as in Faster R-CNN's
    code) and ``"mse"`` of centre, height and width, or its square roots. The weights are DETR's (Carion et al. 2020,
    arXiv 2005.12872, appendix A.4, which has L1). With ``root`` raw heights and widths are square roots.
    """

    prediction_names = ("boxes", "scores")
    loss_weights: Mapping[str, float] = {"class": 1.0, "giou": 2.0, "smooth_l1": 5.0, "mse": 0.0}

    def __init__(
        self, backbone: nn.Sequential, head: LocalizationHead, feature_info: Mapping[int, tuple[str, int]], root: bool
    ) -> None:
        super().__init__(backbone, head, feature_info)
        self.root = root

    def decode(self, raw: Tensor) -> Tensor:
        """Boxes (N, 4), x1, y1, x2, y2 in fractions of the input, which they may leave, of raw boxes (N, 4)."""
        centre, sizes = raw[:, :2].sigmoid(), raw[:, 2:]
        sizes = sizes.square() if self.root else sizes.clamp(min=0)
        return convert(torch.cat((centre, sizes.flip(1)), 1), "cxcywh", "xyxy")

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """One box, and the softmax of the classes as its scores."""
        height, width = size
        boxes = self.decode(outputs["box"].float())
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        return {"boxes": boxes[:, None], "scores": torch.softmax(outputs["scores"].float(), 1)[:, None]}

    def losses(self, outputs: dict[str, Tensor], targets: LocalizationTargets) -> dict[str, Tensor]:
        """Means over the images that show an object."""
        from torchvision.ops import generalized_box_iou_loss  # takes a second to import

        counted = targets.labels != NO_OBJECT
        count = counted.sum().clamp(min=1)
        labels, boxes = targets.labels[counted], targets.boxes[counted]
        scores, raw = outputs["scores"][counted].float(), outputs["box"][counted].float()
        centre, sizes = convert(boxes, "xyxy", "cxcywh").split(2, 1)
        sizes = sizes.flip(1)
        expected = torch.cat((centre, sizes.sqrt() if self.root else sizes), 1)
        predicted = torch.cat((raw[:, :2].sigmoid(), raw[:, 2:]), 1)
        sums: dict[str, Callable[[], Tensor]] = {
            "class": lambda: functional.cross_entropy(scores, labels, reduction="sum"),
            "giou": lambda: generalized_box_iou_loss(self.decode(raw), boxes, reduction="sum"),
            "smooth_l1": lambda: (
                functional.smooth_l1_loss(predicted, expected, reduction="sum", beta=_SMOOTH_L1_BETA) / 4
            ),
            "mse": lambda: functional.mse_loss(predicted, expected, reduction="sum") / 4,
        }
        weights = self.loss_weights
        return {name: weights[name] * term() / count for name, term in sums.items() if weights.get(name)}

    def training_metrics(self, outputs: dict[str, Tensor], targets: LocalizationTargets) -> dict[str, float]:
        """IoU of the boxes; correct classes; boxes of IoU 0.5 and more; those of the correct class."""
        boxes = self.decode(outputs["box"].detach().float())
        overlap = paired_iou(boxes.cpu().double(), targets.boxes.cpu().double()).numpy()
        correct = (outputs["scores"].detach().float().argmax(1) == targets.labels).cpu().numpy()
        enough = overlap >= IOU_THRESHOLD
        counts = {"top1": correct, "iou50": enough, "both": enough & correct}
        return {"mean_iou": float(overlap.sum()), **{name: int(each.sum()) for name, each in counts.items()}}


def build_on(config: LocalizerConfig, num_classes: int, source: Classifier) -> Localizer:
    """A localizer on the trunk of a classifier, for any image size."""
    backbone, channels = source.trunk()
    head = LocalizationHead(channels, num_classes, config)
    return Localizer(backbone, head, source.feature_info, config.sizes == "root")


_LEVINE = "box head: Levine et al. 2016, arXiv 1504.00702, section 5.2"

ARCHITECTURES = (
    Architecture("localizer", build_on, LocalizerConfig(), 51, _LEVINE, "localize", backbone="efficientnet_lite0"),
)
