"""Faster R-CNN of its paper (Ren et al. 2015, arXiv 1506.01497): on one map of stride 16, with nine anchors a cell.

========================== ============== ================= ======================================= ==========
network                    map            squares           second stage                            parameters
========================== ============== ================= ======================================= ==========
``fasterrcnn_vgg16``       VGG-16, conv5  RoIPool, 7 × 7    VGG's two dense layers of 4096          137.1 M
``fasterrcnn_resnet50_c4`` ResNet, conv4  RoIAlign, 14 × 14 ResNet's last stage, means (He et al.   33.1 M
                                                            2015, arXiv 1512.03385, appendix A)
========================== ============== ================= ======================================= ==========

Parameters are for 20 classes. Anchors have areas of 128², 256² and 512² pixels and ratios of 1:2, 1:1 and 2:1; 300
proposals of the 6,000 best anchors are looked at, in training 2,000 of 12,000.

What differs from the paper: both stages are trained together, as in the authors' later code; anchors that reach over
the image's edge count in training; normalizations of ResNet are trained; the second stage has no dropout, its dense
layers do not start from VGG's, and its offsets are for each class apart. Losses are :mod:`~.faster_rcnn`'s.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from hubel.errors import ModelError
from hubel.models.base import Architecture, Classifier, ClassLayers
from hubel.models.detection.anchors import CornerAnchors
from hubel.models.detection.faster_rcnn import RATIOS, FasterRCNN, FasterRCNNConfig, Stages, classes_of
from hubel.models.detection.two_stage.box_head import BoxHead
from hubel.models.detection.two_stage.roi_align import PyramidRoIAlign
from hubel.models.detection.two_stage.roi_pool import RoIPool

_ANCHORS = CornerAnchors(((128, 256, 512),), RATIOS)
_STRIDE = 16


def build_plain(config: FasterRCNNConfig, num_classes: int, source: Classifier) -> FasterRCNN:
    """On the map of stride 16 of a classifier, and dense layers; raises ``ModelError`` if it lacks that."""
    source.require_detection_maps("fasterrcnn_vgg16")
    name, channels = source.feature_info[_STRIDE]
    head = BoxHead(channels, 7, config.second_convolutions, config.dense, config.features, num_classes)
    stages = Stages(nn.Identity(), channels, RoIPool(_STRIDE), head)
    info = {_STRIDE: (name, channels)}
    return FasterRCNN(config, source.backbone_up_to(_STRIDE), (name,), stages, _ANCHORS, num_classes, info)


def build_c4(config: FasterRCNNConfig, num_classes: int, source: Classifier) -> FasterRCNN:
    """On the map of stride 16 of a classifier, whose next part is the second stage.

    Raises ``ModelError`` if that is not all of the way to stride 32, as it is in ResNets.
    """
    source.require_detection_maps("fasterrcnn_resnet50_c4")
    (name, channels), (tail, features) = source.feature_info[_STRIDE], source.feature_info[2 * _STRIDE]
    if [part for part, _ in source.backbone_up_to(2 * _STRIDE).named_children()][-2:] != [name, tail]:
        message = f"fasterrcnn_resnet50_c4 needs one part from stride 16 to 32; the backbone has more, up to {tail}"
        raise ModelError(message, "choose a ResNet, as --backbone resnet18, or --model faster_rcnn")
    head = BoxHead(features, 1, 0, 0, features, num_classes)
    align = PyramidRoIAlign((_STRIDE,), 14, config.origin == "centre")
    stages = Stages(nn.Identity(), channels, align, head, tail)
    info = {_STRIDE: (name, channels)}
    return FasterRCNN(config, source.backbone_up_to(2 * _STRIDE), (name,), stages, _ANCHORS, num_classes, info)


_row = partial(
    Architecture,
    task="detect",
    num_classes=20,
    input=(3, 800, 800),
    class_layers=ClassLayers(r"head\.(classifier|regressor)\.", classes_of),
)
_REN = "Ren et al. 2015, arXiv 1506.01497"
_VGG = FasterRCNNConfig(features=4096, proposals=300, candidates=6000, regions=128)
_C4 = FasterRCNNConfig(dense=1, features=2048, proposals=300, candidates=6000, regions=128)

# Depth: of the backbone, the first stage, the second.
ARCHITECTURES = (
    _row("fasterrcnn_vgg16", build_plain, _VGG, 13 + 2 + 3, _REN, backbone="vgg16"),
    _row("fasterrcnn_resnet50_c4", build_c4, _C4, 40 + 2 + 10, f"{_REN}; He et al. 2015", backbone="resnet50"),
)
