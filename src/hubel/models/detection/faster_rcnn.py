"""Faster R-CNN (Ren, He, Girshick and Sun 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", arXiv 1506.01497) on a feature pyramid (Lin et al. 2017, arXiv 1612.03144).

Two looks. The first, the region proposal network, says of every anchor on all levels of the pyramid whether there is an
object, and how far off its box is. The best of them, without those that overlap better ones, are the proposals. The
second takes a square of 7 × 7 values for each proposal from the level of its size (RoIAlign), and gives its class, or
background, and for each class the offsets of the object's box.

=========================================== ================== ===== ======== ===================== ==========
network                                     maps               width anchors  proposals, per level  regions in
                                                                              and of an image       the loss
=========================================== ================== ===== ======== ===================== ==========
``faster_rcnn``, on any classifier          stride 8, 16, 32   128   3 a cell 300, 300              128
``fasterrcnn_resnet50_fpn``                 4, 8, 16, 32       256   3 a cell 1000, 1000            512
``fasterrcnn_resnet50_fpn_v2``              4, 8, 16, 32       256   3 a cell 1000, 1000            512
``fasterrcnn_mobilenet_v3_large_fpn``       32, 32             256   15       1000, 1000            512
``fasterrcnn_mobilenet_v3_large_320_fpn``   32, 32             256   15       150, 150              512
=========================================== ================== ===== ======== ===================== ==========

Each pyramid has one more, coarser level, which regions are not taken from. ``faster_rcnn`` is made for images of 320 to
512 pixels and a CPU: no level of stride 4, whose convolutions would take more time than all else, half the channels,
anchors from 32 pixels on. The others are torchvision's, for its weights: v2 (Li et al. 2021, "Benchmarking Detection
Transfer Learning with Vision Transformers", arXiv 2111.11429) has normalizations in the pyramid, two convolutions in
the first stage, and four in the second before one dense layer. MobileNet's first map is that of the unit that halves
the maps for the last time, its second that of the top; regions are taken from the first, as both have the same stride.

Losses: :mod:`~.two_stage.region_proposals` and :mod:`~.two_stage.box_head`, which also tell what differs from the
papers. In training the second stage sees a sample of the proposals and the objects' own boxes, a quarter of them with
an object; the loss in evaluation is of the proposals for prediction, each weighted by how likely it would be drawn.

Predictions are the thousand pairs of a proposal and a class with the highest scores. Suppression takes pairs in the
order of their scores, so that those left out could only add objects after those that these give.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.fpn import FeaturePyramid
from hubel.layers.padding import plain_size
from hubel.models.base import Architecture, Classifier, ClassLayers, DetectionTargets, Detector, ObjectTargets
from hubel.models.classification import mobilenet_v3
from hubel.models.config_schema import Count, Natural, ShareBelowOne
from hubel.models.detection.anchors import CornerAnchors, PyramidAnchors
from hubel.models.detection.two_stage.box_head import POSITIVE, BoxHead, box_loss
from hubel.models.detection.two_stage.detections import best_pairs, dense
from hubel.models.detection.two_stage.matching import Sampler, match
from hubel.models.detection.two_stage.padded_images import image_areas
from hubel.models.detection.two_stage.proposals import Selection, valid
from hubel.models.detection.two_stage.region_proposals import RegionProposalNetwork, proposal_loss
from hubel.models.detection.two_stage.roi_align import PyramidRoIAlign
from hubel.models.detection.two_stage.roi_pool import RoIPool
from hubel.models.detection.two_stage.rows import as_rows, from_rows

SHARE = 0.25
"""Of sampled regions with an object: Fast R-CNN, section 2.3."""
RATIOS = (0.5, 1.0, 2.0)
"""Height to width of the anchors."""


@dataclass(frozen=True)
class FasterRCNNConfig:
    """A row of the table.

    Attributes:
        pyramid_channels: of all levels.
        pyramid_norm: normalize them.
        first_convolutions: 3×3 of the first stage.
        second_convolutions: 3×3 of the second stage.
        dense: dense layers of the second stage before its last two.
        features: outputs of each.
        proposals: of a level that suppression looks at, and of an image, in prediction.
        training_proposals: likewise in training.
        candidates: of a level that suppression looks at, twice as many in training, if these are not as many as
            proposals.
        least_objectness: lowest probability of a proposal.
        regions: of an image in the second stage's loss.
        origin: where the value of a map lies in its cell: at the ``"centre"``, or, for torchvision's weights, at the
            ``"corner"``; boxes do not reach into the padding of images then (:mod:`~.two_stage.padded_images`).
    """

    pyramid_channels: Count = 256
    pyramid_norm: bool = False
    first_convolutions: Count = 1
    second_convolutions: Natural = 0
    dense: Count = 2
    features: Count = 1024
    proposals: Count = 1000
    training_proposals: Count = 2000
    candidates: Count | None = None
    least_objectness: ShareBelowOne = 0.0
    regions: Count = 512
    origin: Literal["centre", "corner"] = "corner"


class Stages(NamedTuple):
    """What follows the backbone.

    Attributes:
        pyramid: from maps (N, …, H, W), large to small, to levels.
        channels: of all levels.
        align: takes squares from levels.
        head: scores and offsets of squares.
        tail: name of the part of the backbone that squares go through first, and are averaged after.
    """

    pyramid: nn.Module
    channels: int
    align: PyramidRoIAlign | RoIPool
    head: BoxHead
    tail: str | None = None


class FasterRCNN(Detector):
    """A backbone, the pyramid, both stages.

    Args:
        read: names of the backbone's parts whose maps the pyramid reads.
        stages: what follows.
        anchors: of all levels.

    Attributes:
        name: of the networks, for messages.
    """

    name = "faster_rcnn"
    selects_regions = True
    loss_weights: Mapping[str, float] = {"objectness": 1.0, "proposal_box": 1.0, "class": 1.0, "box": 1.0}

    def __init__(
        self,
        config: FasterRCNNConfig,
        backbone: nn.Sequential,
        read: Iterable[str],
        stages: Stages,
        anchors: PyramidAnchors | CornerAnchors,
        num_classes: int,
        feature_info: Mapping[int, tuple[str, int]] | None = None,
    ) -> None:
        super().__init__(backbone, stages.head, num_classes, feature_info)
        self.pyramid = stages.pyramid
        self.first_stage = RegionProposalNetwork(stages.channels, anchors.per_cell, config.first_convolutions)
        self._read = frozenset(read)
        self._align, self._anchors, self._tail = stages.align, anchors, stages.tail
        self._within_images = config.origin == "corner"
        least, candidates = config.least_objectness, config.candidates
        self._selection = Selection(candidates or config.proposals, config.proposals, least)
        before = 2 * candidates if candidates else config.training_proposals
        self._training_selection = Selection(before, config.training_proposals, least)
        self._sampler = Sampler(config.regions, SHARE)

    def maps(self, images: Tensor) -> list[Tensor]:
        """All levels of the pyramid, large to small."""
        read: list[Tensor] = []
        signal = images
        for name, part in self.backbone.named_children():
            signal = part(signal)
            if name in self._read:
                read.append(signal)
            if len(read) == len(self._read):
                break
        levels: list[Tensor] = self.pyramid(read)
        return levels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of both stages.

        ``"objectness"`` (N, A) and ``"proposal_offsets"`` (N, A, 4) of all anchors; ``"proposals"`` (N, P, 4), x1, y1,
        x2, y2 in pixels, zeros where an image has fewer; their ``"scores"`` (N, P, 1 + classes), background first, and
        ``"offsets"`` (N, P, classes, 4). ``"areas"`` (N, 4), where inputs are padded: what of each shows the image.
        """
        levels = self.maps(images)
        first, proposals = self._first_look(levels, images, self._selection)
        return {**first, **self._second_look(levels, proposals)}

    def training_outputs(self, images: Tensor, targets: DetectionTargets | None = None) -> dict[str, Tensor]:
        """As :meth:`forward`, the second stage of a random sample of proposals and objects."""
        return self._training_looks(self.maps(images), images, targets)

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """``"objectness"`` and ``"proposal_box"`` of the first stage, ``"class"`` and ``"box"`` of the second."""
        return self.weighted(self._terms(outputs, targets))

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes and scores of the best pairs of a proposal and a class, each with a score for that class alone."""
        found = best_pairs(outputs["proposals"], outputs["scores"], outputs["offsets"], size, outputs.get("areas"))
        return dense(found, self.num_classes)

    def diagnostics(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``"proposals"`` (N, P, 4), best first, in pixels of the input."""
        return {"proposals": outputs["proposals"]}

    def mean_predictions(self, outputs: Sequence[dict[str, Tensor]], size: tuple[int, int]) -> dict[str, Tensor]:
        """Refused with ``ModelError``: proposals of several networks are not of the same places."""
        message = "the boxes of several two-stage detectors cannot be averaged: each has proposals of its own"
        raise ModelError(message, "use one of the networks, or train one_stage")

    def anchors(self, height: int, width: int) -> Tensor:
        """The anchors of images of that size: float32 (A, 4), x1, y1, x2, y2 in pixels."""
        return self._anchors.boxes(self.grids(height, width), height, width)

    def _terms(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """All terms of the loss, without weights."""
        raw = {name: output.float() for name, output in outputs.items()}
        anchors = self.anchors(*targets.size).to(raw["objectness"].device)
        objects = targets.objects
        first = proposal_loss(raw["objectness"], raw["proposal_offsets"], anchors, objects, random=self.training)
        sampler = None if self.training else self._sampler
        return {**first, **box_loss(raw["proposals"], raw["scores"], raw["offsets"], objects, sampler)}

    def _training_looks(
        self, levels: Sequence[Tensor], images: Tensor, targets: DetectionTargets | None
    ) -> dict[str, Tensor]:
        first, proposals = self._first_look(levels, images, self._training_selection)
        if targets is None:
            sampled = proposals[:, : self._sampler.count]
        else:
            pairs = zip(proposals, targets.objects, strict=True)
            sampled = torch.stack([self._sampled(regions, objects) for regions, objects in pairs])
        return {**first, **self._second_look(levels, sampled)}

    def _first_look(
        self, levels: Sequence[Tensor], images: Tensor, selection: Selection
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The first stage's outputs, and proposals (N, P, 4)."""
        size, areas = plain_size(images), image_areas(images) if self._within_images else None
        objectness, offsets = self.first_stage(levels)
        grids = [plain_size(level) for level in levels]
        anchors = self._anchors.boxes(grids, *size).to(levels[0].device)
        counts = [rows * columns * self._anchors.per_cell for rows, columns in grids]
        proposals = selection(objectness, offsets, anchors, counts, size, areas)
        found = {"objectness": torch.cat(objectness, 1), "proposal_offsets": torch.cat(offsets, 1)}
        return (found if areas is None else {**found, "areas": areas}), proposals

    def _sampled(self, regions: Tensor, objects: ObjectTargets) -> Tensor:
        """A sample of an image's proposals (P, 4) and objects, (regions, 4), with zeros where there are fewer."""
        regions = torch.cat((regions, objects.boxes.to(regions.dtype)))
        positive = match(regions, objects.boxes, POSITIVE, POSITIVE) >= 0
        drawn = self._sampler.draw(positive, valid(regions) & ~positive & ~objects.ignores(regions))
        filled = regions.new_zeros(self._sampler.count, 4)
        filled[: len(drawn)] = regions[drawn]
        return filled

    def _second_look(self, levels: Sequence[Tensor], proposals: Tensor) -> dict[str, Tensor]:
        """Scores and offsets of proposals (N, P, 4); nothing is computed for those without an area."""
        regions, rows = as_rows(proposals)
        squares = self._align(levels, regions)
        if self._tail:
            squares = self.backbone.get_submodule(self._tail)(squares).mean((2, 3), keepdim=True)
        scores, offsets = self.head(squares)
        images, count = proposals.shape[:2]
        scores, offsets = (from_rows(each, rows, images, count) for each in (scores, offsets))
        return {"proposals": proposals, "scores": scores, "offsets": offsets}


def build_on(
    config: FasterRCNNConfig, num_classes: int, source: Classifier, network: type[FasterRCNN] = FasterRCNN
) -> FasterRCNN:
    """On the maps of stride 8, 16 and 32 of a classifier; raises ``ModelError`` if it lacks them."""
    source.require_detection_maps(network.name)
    return _on_strides(config, num_classes, source, (8, 16, 32), 4.0, network)


def build_resnet(
    config: FasterRCNNConfig, num_classes: int, source: Classifier, network: type[FasterRCNN] = FasterRCNN
) -> FasterRCNN:
    """On the maps of stride 4 to 32 of a classifier, with anchors of 32 pixels on the finest."""
    source.require_detection_maps(network.name)
    return _on_strides(config, num_classes, source, (4, 8, 16, 32), 8.0, network)


def _on_strides(
    config: FasterRCNNConfig,
    num_classes: int,
    source: Classifier,
    strides: tuple[int, ...],
    scale: float,
    network: type[FasterRCNN],
) -> FasterRCNN:
    info = {stride: source.feature_info[stride] for stride in strides}
    shapes = tuple((ratio**-0.5, ratio**0.5) for ratio in RATIOS)
    anchors: PyramidAnchors | CornerAnchors = PyramidAnchors(scale, 1, shapes)
    if config.origin == "corner":
        sides = (int(scale * stride) for stride in (*strides, 2 * strides[-1]))
        anchors = CornerAnchors(tuple((side,) for side in sides), RATIOS)
    backbone = source.backbone_up_to(strides[-1])
    return network(
        config,
        backbone,
        dict(info.values()),
        pyramid_stages(config, info.values(), strides, num_classes),
        anchors,
        num_classes,
        info,
    )


def pyramid_stages(
    config: FasterRCNNConfig, read: Iterable[tuple[str, int]], pooled: tuple[int, ...], num_classes: int
) -> Stages:
    """A pyramid on the parts of a backbone that it ``read``s, with their channels, and squares of 7 × 7 values.

    ``pooled`` are strides of the levels that regions are taken from, the first of the pyramid.
    """
    width = config.pyramid_channels
    align = PyramidRoIAlign(pooled, aligned=config.origin == "centre")
    head = BoxHead(width, align.side, config.second_convolutions, config.dense, config.features, num_classes)
    norm = nn.BatchNorm2d if config.pyramid_norm else None
    return Stages(FeaturePyramid([channels for _, channels in read], width, norm), width, align, head)


def build_mobilenet(config: FasterRCNNConfig, num_classes: int, in_channels: int, image_size: int) -> FasterRCNN:
    """On MobileNet-v3 (large), for any image size: on two maps of stride 32."""
    row = next(row for row in mobilenet_v3.ARCHITECTURES if row.name == "mobilenet_v3_large")
    source = row.build(replace(row.config, norm_eps=1e-5), 1, in_channels, image_size)  # as torchvision's detectors
    assert isinstance(source, Classifier)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in source.backbone.named_children():
        if name == "stage6":
            halving, *others = part.children()
            parts[name], part = nn.Sequential(halving), nn.Sequential(*others)
            name = "stage6_rest"
        parts[name] = part
    last = row.config.units[-1].channels
    _, top = source.feature_info[32]
    anchors = CornerAnchors(3 * ((32, 64, 128, 256, 512),), RATIOS)
    read = {"stage6": last, "top": top}
    stages = pyramid_stages(config, read.items(), (32,), num_classes)
    return FasterRCNN(config, nn.Sequential(parts), read, stages, anchors, num_classes)


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """Classes, without background, of a state dictionary; ``None`` if it has no layers for them."""
    biases = state.get("head.classifier.bias")
    return None if biases is None else len(biases) - 1


_row = partial(
    Architecture,
    task="detect",
    num_classes=80,
    class_layers=ClassLayers(r"head\.(classifier|regressor)\.", classes_of),
)
_REN = "Ren et al. 2015, arXiv 1506.01497; Lin et al. 2017, arXiv 1612.03144"
_LI = "Li et al. 2021, arXiv 2111.11429"
_SMALL = FasterRCNNConfig(128, features=512, proposals=300, training_proposals=600, regions=128, origin="centre")
_RESNET, _MOBILENET = FasterRCNNConfig(), FasterRCNNConfig()
_RESNET_V2 = FasterRCNNConfig(pyramid_norm=True, first_convolutions=2, second_convolutions=4, dense=1)
_MOBILENET_320 = replace(_MOBILENET, proposals=150, least_objectness=0.05)
_LARGE_INPUT, _SMALL_INPUT = (3, 1088, 1088), (3, 448, 448)

_RECIPES = ({"epochs": 28, "batch": 8, "learning_rate": 1e-3}, {"epochs": 100, "batch": 8})

# torchvision scales an image until its shorter side has 800 (320) pixels, and keeps its shape.
_theirs = partial(_row, resize="fit")

# Convolutions of the backbone, two of the pyramid, those of the first stage, which say where the second looks, its own.
ARCHITECTURES = (
    _row(
        "faster_rcnn",
        build_on,
        _SMALL,
        48 + 2 + 2 + 3,
        _REN,
        input=(3, 416, 416),
        backbone="efficientnet_lite0",
        recipes=_RECIPES,
    ),
    _theirs(
        "fasterrcnn_resnet50_fpn", build_resnet, _RESNET, 49 + 2 + 2 + 3, _REN, input=_LARGE_INPUT, backbone="resnet50"
    ),
    _theirs(
        "fasterrcnn_resnet50_fpn_v2",
        build_resnet,
        _RESNET_V2,
        49 + 2 + 3 + 6,
        _LI,
        input=_LARGE_INPUT,
        backbone="resnet50",
    ),
    _theirs("fasterrcnn_mobilenet_v3_large_fpn", build_mobilenet, _MOBILENET, 46 + 2 + 2 + 3, _REN, input=_LARGE_INPUT),
    _theirs(
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        build_mobilenet,
        _MOBILENET_320,
        46 + 2 + 2 + 3,
        _REN,
        input=_SMALL_INPUT,
    ),
)
