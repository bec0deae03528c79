"""YOLO: Redmon, Divvala, Girshick and Farhadi 2016, "You Only Look Once: Unified, Real-Time Object Detection", arXiv
1506.02640.

The image is divided into 7 × 7 cells. The cell that has the centre of an object is to find it: each cell predicts two
boxes, a confidence for each of them, and one distribution over the classes, which its boxes share.

``yolo_v1``, figure 3; every convolution has a leaky ReLU of slope 0.1:

==================================================  ==============================================
layers                                              output for an image of 448 × 448
==================================================  ==============================================
7×7/2, pool                                         64@112×112
3×3, pool                                           192@56×56
1×1 128, 3×3 256, 1×1 256, 3×3 512, pool            512@28×28
4 × (1×1 256, 3×3 512), 1×1 512, 3×3 1024, pool     1024@14×14
2 × (1×1 512, 3×3 1024)                             1024@14×14
3×3, 3×3/2, 3×3, 3×3                                1024@7×7
dense, dropout 0.5                                  4096
dense                                               7 · 7 · (2 · 5 + classes): 1470 for VOC's 20 classes
==================================================  ==============================================

The paper trains the first 20 convolutions on ImageNet at half the resolution; any classifier can take their place,
below layers with a quarter of the units and with batch normalization.

``yolo_v1_tiny`` is ``yolov1-tiny.cfg``: six times a 3×3 convolution with batch normalization and a pool, from 16 to 512
channels; 3×3 1024, 3×3 256; one dense layer. Darknet's own edition of the larger network, ``yolov1.cfg``, has batch
normalization everywhere, a locally connected layer in place of the first dense one, and three boxes in a cell: hubel
reads that cfg, too.

Deviations: scores below 0 or above 1 are clipped, since both of their factors are linear outputs. Of several objects
with their centres in the same cell, the first counts: the paper says nothing of it. The loss is a sum over the cells of
an image, and its mean over images.
"""

from __future__ import annotations

from hubel.models.base import Architecture
from hubel.models.darknet.cfg_text import POOL, conv, net, section
from hubel.models.darknet.families import YOLOConfig, architecture_row

_REFERENCE = "Redmon et al. 2016, arXiv 1506.02640"
_LOSS = {"rescore": 1, "object_scale": 1, "noobject_scale": 0.5, "class_scale": 1, "coord_scale": 5}


def _plain(filters: int, size: int, stride: int = 1) -> str:
    """A convolution as in the paper, without normalization."""
    return section("convolutional", filters=filters, size=size, stride=stride, pad=1, activation="leaky")


def _cells() -> str:
    """The dense layer with the numbers of all cells, and what they mean: two boxes and VOC's 20 classes each."""
    dense = section("connected", output=7 * 7 * (2 * 5 + 20), activation="linear")
    return dense + section("detection", classes=20, coords=4, side=7, num=2, softmax=0, sqrt=1, **_LOSS)


def _dense(units: int) -> str:
    return section("connected", output=units, activation="leaky") + section("dropout", probability=0.5) + _cells()


def _cfg() -> str:
    text = _plain(64, 7, 2) + POOL + _plain(192, 3) + POOL
    text += _plain(128, 1) + _plain(256, 3) + _plain(256, 1) + _plain(512, 3) + POOL
    text += 4 * (_plain(256, 1) + _plain(512, 3)) + _plain(512, 1) + _plain(1024, 3) + POOL
    text += 2 * (_plain(512, 1) + _plain(1024, 3)) + _plain(1024, 3) + _plain(1024, 3, 2) + 2 * _plain(1024, 3)
    return net(448) + text + _dense(4096)


def _neck_cfg() -> str:
    return conv(256, 3) + conv(256, 3, 2) + 2 * conv(256, 3) + _dense(1024)


def _tiny_cfg() -> str:
    text = "".join(conv(16 << number, 3) + POOL for number in range(6))
    return net(448) + text + conv(1024, 3) + conv(256, 3) + _cells()


ARCHITECTURES: tuple[Architecture, ...] = (
    architecture_row("yolo_v1", YOLOConfig(_cfg(), _neck_cfg()), 26, f"{_REFERENCE}, figure 3"),
    architecture_row("yolo_v1_tiny", YOLOConfig(_tiny_cfg()), 9, f"{_REFERENCE}; Darknet's yolov1-tiny.cfg"),
)
