"""Mask R-CNN (He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870) on a feature pyramid.

Faster R-CNN (:mod:`~.faster_rcnn`) with a third head: of the objects that are left after suppression, 100 at most, it
takes a square of 14 × 14 values by RoIAlign, and says of each of 28 × 28 pixels of the box, for each class apart,
whether it belongs to the object. That of the object's class is its mask.

============================== ================ ===== ========== ============= ======================================
network                        maps             width mask width least score   as
============================== ================ ===== ========== ============= ======================================
``mask_rcnn``                  stride 8, 16, 32 128   128        0.01          ``faster_rcnn``, on any classifier
``maskrcnn_resnet50_fpn``      4, 8, 16, 32     256   256        0.05          torchvision's, the paper's head
``maskrcnn_resnet50_fpn_v2``   4, 8, 16, 32     256   256        0.05          torchvision's, with normalizations
============================== ================ ===== ========== ============= ======================================

Losses are those of Faster R-CNN, and :func:`~.two_stage.mask_head.mask_loss`: in training of the sampled regions that
stand for an object, in evaluation of detected boxes of the right class. Images whose targets have no masks add nothing.

What differs from the paper: boxes are suppressed above an IoU of 0.5, as in the authors' code, among the thousand best
pairs of a proposal and a class; masks' targets are not rounded to 0 and 1, as in torchvision, and 0.5 stays between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from hubel.layers.padding import plain_size
from hubel.models.base import Architecture, ClassLayers, DetectionTargets
from hubel.models.config_schema import Count, ShareBelowOne
from hubel.models.detection.anchors import CornerAnchors, PyramidAnchors
from hubel.models.detection.faster_rcnn import (
    SHARE,
    FasterRCNN,
    FasterRCNNConfig,
    Stages,
    build_on,
    build_resnet,
    classes_of,
)
from hubel.models.detection.two_stage.box_head import POSITIVE
from hubel.models.detection.two_stage.detections import Detected, best_pairs, dense, suppress
from hubel.models.detection.two_stage.mask_head import SIDE, MaskHead, mask_loss
from hubel.models.detection.two_stage.matching import match
from hubel.models.detection.two_stage.proposals import valid
from hubel.models.detection.two_stage.rows import as_rows, from_rows

OBJECTS = 100
"""With masks, of an image, at most (section 3.1, "Inference")."""

IOU = 0.5
"""Above it, the worse of two boxes of a class is dropped."""


@dataclass(frozen=True)
class MaskRCNNConfig(FasterRCNNConfig):
    """A row of the table.

    Attributes:
        mask_features: channels of the mask head.
        mask_norm: normalize them.
        least_score: objects have more than that.
    """

    mask_features: Count = 256
    mask_norm: bool = False
    least_score: ShareBelowOne = 0.05


class MaskRCNN(FasterRCNN):
    """Faster R-CNN and the mask head. Targets have masks (:class:`~hubel.models.base.ObjectTargets`)."""

    name = "mask_rcnn"
    prediction_names = ("boxes", "scores", "masks")
    loss_weights: Mapping[str, float] = {**FasterRCNN.loss_weights, "mask": 1.0}

    def __init__(
        self,
        config: MaskRCNNConfig,
        backbone: nn.Sequential,
        read: Iterable[str],
        stages: Stages,
        anchors: PyramidAnchors | CornerAnchors,
        num_classes: int,
        feature_info: Mapping[int, tuple[str, int]] | None = None,
    ) -> None:
        super().__init__(config, backbone, read, stages, anchors, num_classes, feature_info)
        norm = nn.BatchNorm2d if config.mask_norm else None
        self.mask_head = MaskHead(config.pyramid_channels, config.mask_features, num_classes, norm)
        self._mask_align = replace(stages.align, side=SIDE)
        self._aligned = config.origin == "centre"
        self._least_score = config.least_score
        self._positives = int(config.regions * SHARE)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of both stages as :meth:`FasterRCNN.forward`, and the objects that are left after suppression.

        ``"mask_boxes"`` (N, K, 4), best first, zeros where an image has fewer; their ``"mask_scores"`` (N, K),
        ``"mask_labels"`` (N, K), and raw ``"masks"`` (N, K, 28, 28).
        """
        levels, size = self.maps(images), plain_size(images)
        first, proposals = self._first_look(levels, images, self._selection)
        second = self._second_look(levels, proposals)
        pairs = best_pairs(second["proposals"], second["scores"], second["offsets"], size, first.get("areas"))
        found = suppress(pairs, size, self._least_score, IOU, OBJECTS, self.num_classes)
        masks = self._third_look(levels, found.boxes.detach(), found.labels)
        return {**first, **second, **masks, "mask_scores": found.scores}

    def training_outputs(self, images: Tensor, targets: DetectionTargets | None = None) -> dict[str, Tensor]:
        """As :meth:`forward`, of a random sample of proposals and objects, and masks of those that stand for one."""
        levels = self.maps(images)
        outputs = self._training_looks(levels, images, targets)
        return {**outputs, **self._third_look(levels, *self._with_object(outputs["proposals"], targets))}

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes and scores, each for one class alone, and ``"masks"`` (N, K, 28, 28), 0..1.

        A mask divides its box: the probability that a pixel belongs to the object, zeros where there is none.
        """
        scores = outputs["mask_scores"].float()
        found = Detected(outputs["mask_boxes"].float(), scores, outputs["mask_labels"])
        masks = torch.sigmoid(outputs["masks"].float()) * (scores > 0)[..., None, None]
        return {**dense(found, self.num_classes), "masks": masks}

    def _terms(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        regions, labels, masks = outputs["mask_boxes"], outputs["mask_labels"], outputs["masks"].float()
        loss = mask_loss(regions, labels, masks, targets.objects, self._aligned)
        return {**super()._terms(outputs, targets), "mask": loss}

    def _with_object(self, sampled: Tensor, targets: DetectionTargets | None) -> tuple[Tensor, Tensor]:
        """Of sampled regions (N, P, 4) those that stand for an object (N, K, 4), zeros where fewer; labels (N, K)."""
        regions = sampled.new_zeros(len(sampled), self._positives, 4)
        labels = torch.zeros(regions.shape[:2], dtype=torch.int64, device=regions.device)
        for index, objects in enumerate(targets.objects if targets else ()):
            matched = match(sampled[index], objects.boxes, POSITIVE, POSITIVE)
            rows = ((matched >= 0) & valid(sampled[index])).nonzero()[: self._positives, 0]
            regions[index, : len(rows)] = sampled[index, rows]
            labels[index, : len(rows)] = objects.labels[matched[rows]]
        return regions, labels

    def _third_look(self, levels: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw masks of boxes (N, K, 4) and their labels (N, K); nothing is computed for those without an area."""
        regions, rows = as_rows(boxes)
        of_rows = labels.flatten() if labels.is_meta else labels.flatten()[rows]
        squares = self._mask_align(levels, regions)
        if self.training and not boxes.is_meta and not valid(boxes).any():
            found = self._unseen_masks(squares, of_rows)
        else:
            found = self.mask_head(squares, of_rows)
        images, count = boxes.shape[:2]
        masks = from_rows(found, rows, images, count)
        return {"mask_boxes": boxes, "mask_labels": labels, "masks": masks}

    def _unseen_masks(self, squares: Tensor, labels: Tensor) -> Tensor:
        """Masks that no normalization takes into its averages: those of a batch without any object."""
        modes = {module: module.training for module in self.mask_head.modules()}
        self.mask_head.eval()
        masks: Tensor = self.mask_head(squares, labels)
        for module, training in modes.items():  # some may have been frozen
            module.training = training
        return masks


_row = partial(
    Architecture,
    task="instances",
    num_classes=80,
    class_layers=ClassLayers(r"(head\.(classifier|regressor)|mask_head\.classifier)\.", classes_of),
    reference="He et al. 2017, arXiv 1703.06870",
)
_RESNET = MaskRCNNConfig()
_RESNET_V2 = MaskRCNNConfig(pyramid_norm=True, first_convolutions=2, second_convolutions=4, dense=1, mask_norm=True)
_SMALL = MaskRCNNConfig(
    128,
    features=512,
    proposals=300,
    training_proposals=600,
    regions=128,
    origin="centre",
    mask_features=128,
    least_score=0.01,
)
_RECIPES = ({"epochs": 28, "batch": 8, "learning_rate": 1e-3}, {"epochs": 100, "batch": 8})

# Depth: to the masks, which need the boxes of both stages: as of Faster R-CNN, and the six layers of the mask head.
ARCHITECTURES = (
    _row(
        "mask_rcnn",
        partial(build_on, network=MaskRCNN),
        _SMALL,
        48 + 2 + 2 + 3 + 6,
        input=(3, 416, 416),
        backbone="efficientnet_lite0",
        recipes=_RECIPES,
    ),
    _row(
        "maskrcnn_resnet50_fpn",
        partial(build_resnet, network=MaskRCNN),
        _RESNET,
        49 + 2 + 2 + 3 + 6,
        input=(3, 1088, 1088),
        resize="fit",
        backbone="resnet50",
    ),
    _row(
        "maskrcnn_resnet50_fpn_v2",
        partial(build_resnet, network=MaskRCNN),
        _RESNET_V2,
        49 + 2 + 3 + 6 + 6,
        input=(3, 1088, 1088),
        resize="fit",
        backbone="resnet50",
    ),
)
