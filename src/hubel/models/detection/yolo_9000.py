"""YOLO9000 (Redmon and Farhadi 2017, "YOLO9000: Better, Faster, Stronger", arXiv 1612.08242, section 4).

Darknet-19 (table 6) below its last convolution, and right on its maps of stride 32 three boxes a cell, as Darknet's
``yolo9000.cfg`` has them:

==================================  ==========================================================================
layers                              output for an image of 544 × 544
==================================  ==========================================================================
Darknet-19's 18 convolutions        1024 channels of 17 × 17
1×1                                 3 · (5 + classes) channels: boxes of stride 32
==================================  ==========================================================================

Classes are those of a word tree, whose text is the option ``tree``: in a line ``NAME PARENT``, the parent being the
index of a line above, or -1. Each group of siblings has a softmax; the product of the probabilities on the way to the
root, and of objectness, is that of a class. A box is of the deepest class whose probability, but for objectness,
exceeds 0.5; with the option ``map``, indices of classes in lines, it has the probabilities of these. Without a tree all
classes exclude each other, as in YOLOv2. The tree of the paper, of 9,418 classes, comes with Darknet (``9k.tree``).

The loss is that of YOLOv2 with the cross-entropy of every group on the way from the label to the root; an image whose
class is known, and no box, teaches its class to the box that has the largest probability of it.

On a classifier a 3×3 convolution of 512 channels is between its maps of stride 32 and the boxes. Anchors are those of
the cfg; ``hubel data anchors --stride 32`` finds those of other data.

Deviations: the score of a box is the probability of its class as the paper has it; Darknet's is objectness alone. As in
Darknet, an image without boxes teaches its class alone, where the paper adds objectness, for an assumed IoU of 0.3.
Objectness begins with a probability of 0.01, as in other detectors here: with Darknet's 0.5 images without boxes teach
their classes to boxes of nothing, before these are known to be that. The loss takes the mean over images, of sums over
boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hubel.models.base import Architecture, Classifier
from hubel.models.darknet.cfg_text import conv, net, section
from hubel.models.darknet.detector import BoxDetector
from hubel.models.darknet.families import WithTree, YOLOConfig, architecture_row, build_detector, build_on
from hubel.models.detection.yolo_v2 import darknet19_cfg

_ANCHORS = "0.77871, 1.14074, 3.00525, 4.31277, 9.22725, 9.61974"
_CLASSES = 9418


@dataclass(frozen=True)
class YOLO9000Config(WithTree, YOLOConfig):
    """See :class:`~hubel.models.darknet.families.YOLOConfig`.

    Attributes:
        tree: text of the tree of the classes; empty: each is a root.
        map: text of the map of those that results name; empty: all.
    """

    tree: str = ""
    map: str = ""


def _boxes() -> str:
    """The last convolution and its boxes."""
    last = section("convolutional", size=1, stride=1, pad=1, filters=3 * (5 + _CLASSES), activation="linear")
    scales = {"object_scale": 5, "noobject_scale": 1, "class_scale": 1, "coord_scale": 1}
    options = {"bias_match": 1, "classes": _CLASSES, "coords": 4, "num": 3, "softmax": 1, "rescore": 1, "thresh": 0.6}
    return last + section("region", anchors=_ANCHORS, **options, **scales)


def _build(config: YOLO9000Config, num_classes: int, in_channels: int, image_size: int) -> BoxDetector:
    model = build_detector(config, num_classes, in_channels, image_size)
    model.begin_without_objects()
    return model


def _build_on(config: YOLO9000Config, num_classes: int, source: Classifier, image_size: int) -> BoxDetector:
    model = build_on(config, num_classes, source, image_size)
    model.begin_without_objects()
    return model


_CONFIG = YOLO9000Config(net(544) + darknet19_cfg() + _boxes(), neck=conv(512, 3) + _boxes())

_ROW = architecture_row("yolo_9000", _CONFIG, 19, "Redmon and Farhadi 2017, arXiv 1612.08242; Darknet's yolo9000.cfg")

ARCHITECTURES: tuple[Architecture, ...] = (replace(_ROW, build=_build, build_on=_build_on),)
