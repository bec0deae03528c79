"""YOLOv2 (Redmon and Farhadi 2017, "YOLO9000: Better, Faster, Stronger", arXiv 1612.08242, sections 2 and 3).

``yolo_v2``: Darknet-19 (table 6) below its last convolution; the finer maps of stride 16 join those of stride 32
through a passthrough layer ("Fine-Grained Features"), as Darknet's ``yolov2.cfg`` has them.

==================================  ==========================================================================
layers                              output for an image of 416 × 416
==================================  ==========================================================================
3×3, pool; 3×3, pool                32, 64 channels
3×3, 1×1, 3×3, pool; twice          128, 256 channels
3×3, 1×1, 3×3, 1×1, 3×3, pool       512 channels; before the pool 26 × 26
3×3, 1×1, 3×3, 1×1, 3×3; 3×3, 3×3   1024 channels of 13 × 13
route, 1×1, reorg                   64 channels of 26 × 26, each 2 × 2 of which become one position of 256
route, 3×3, 1×1                     1280, 1024, 5 · (5 + classes) channels: boxes of stride 32
==================================  ==========================================================================

``yolo_v2_tiny`` (``yolov2-tiny.cfg``): six 3×3 convolutions from 16 channels up, each with a pool, the last one of
which has stride 1; 3×3 1024, 3×3 512, 1×1.

A cell has five boxes, whose anchors are those of the cfgs, of COCO; ``hubel data anchors --stride 32`` finds those of
other data. On a classifier, the last convolutions have a quarter of the channels.

Deviations: Darknet's reorg is not the paper's "stacking adjacent features into different channels", but what trained
weights know. The loss takes the mean over images, of sums over boxes.
"""

from __future__ import annotations

from hubel.models.base import Architecture
from hubel.models.darknet.cfg_text import POOL, conv, net, section, tiny_body
from hubel.models.darknet.families import YOLOConfig, architecture_row

_REFERENCE = "Redmon and Farhadi 2017, arXiv 1612.08242"
_ANCHORS = "0.57273,0.677385, 1.87446,2.06253, 3.33843,5.47434, 7.88282,3.52778, 9.77052,9.16828"


def darknet19_cfg() -> str:
    """The 18 convolutions of Darknet-19 below its last."""
    text = conv(32, 3) + POOL + conv(64, 3) + POOL
    for filters, narrow in ((128, 1), (256, 1), (512, 2), (1024, 2)):
        text += conv(filters, 3) + narrow * (conv(filters // 2, 1) + conv(filters, 3))
        text += POOL if filters < 1024 else ""
    return text


def _boxes(rescore: int) -> str:
    """The last convolution and its boxes, with COCO's 80 classes."""
    last = section("convolutional", size=1, stride=1, pad=1, filters=5 * 85, activation="linear")
    scales = {"object_scale": 5, "noobject_scale": 1, "class_scale": 1, "coord_scale": 1}
    options = {"bias_match": 1, "classes": 80, "coords": 4, "num": 5, "softmax": 1, "rescore": rescore, "thresh": 0.6}
    return last + section("region", anchors=_ANCHORS, **options, **scales)


def _neck_cfg(finer: int, width: int = 1024) -> str:
    """Two convolutions on the maps of stride 32, the passthrough from layer ``finer``, of stride 16, and boxes."""
    passthrough = section("route", layers=finer) + conv(64, 1) + section("reorg", stride=2)
    return 2 * conv(width, 3) + passthrough + section("route", layers="-1,-4") + conv(width, 3) + _boxes(rescore=1)


def _tiny_cfg() -> str:
    return net(416) + tiny_body() + conv(1024, 3) + conv(512, 3) + _boxes(rescore=0)


ARCHITECTURES: tuple[Architecture, ...] = (
    architecture_row(
        "yolo_v2",
        YOLOConfig(net(608) + darknet19_cfg() + _neck_cfg(-9), neck=_neck_cfg(1, 256)),
        23,
        f"{_REFERENCE}; Darknet's yolov2.cfg",
    ),
    architecture_row("yolo_v2_tiny", YOLOConfig(_tiny_cfg()), 9, f"{_REFERENCE}; Darknet's yolov2-tiny.cfg"),
)
