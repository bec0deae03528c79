"""YOLOv4 (Bochkovskiy, Wang, Liao 2020, arXiv 2004.10934) and Scaled-YOLOv4 (Wang, Bochkovskiy, Liao 2021, arXiv
2011.08036), as Darknet's cfgs have them.

``yolo_v4``: CSPDarknet-53 with Mish; spatial pyramid pooling; paths up and down between the scales (PAN), joined by
concatenation (section 3.4).

====================================  ================================================================================
layers                                output for an image of 608 × 608
====================================  ================================================================================
3×3                                   32 channels
five stages: 3×3/2, cross-stage       64, 128, 256, 512, 1024 channels, to 19 × 19; the stage in two halves, one of
partial stages of 1, 2, 8, 8, 4       which passes by the residual units
units
1×1, 3×3, 1×1, pyramid, 1×1, 3×3,     512 channels; maxima in windows of 5, 9 and 13 pixels beside them
1×1
up, twice: 1×1, ×2, beside a 1×1 of   256 channels at 38 × 38, then 128 at 76 × 76
the stage; 1×1, 3×3, 1×1, 3×3, 1×1
3×3, 1×1                              boxes of stride 8
down, twice: 3×3/2, beside the maps   256 channels at 38 × 38: boxes of stride 16; 512 at 19 × 19: boxes of stride 32
of the way up; three of 1×1, 3×3
====================================  ================================================================================

``yolo_v4_csp`` (2011.08036, section 3.2): the stages of the neck are cross-stage partial too, all activations are Mish,
and boxes are decoded from logistic outputs. ``yolo_v4_tiny`` (section 4): three stages of 3×3 convolutions of which the
second half of the channels goes through two more; two scales.

On a classifier (``backbone="resnet18"``), the neck of ``yolo_v4`` has half the channels.

The option ``drop_block`` is the probability of DropBlock (arXiv 1810.12890; 0 in the published cfgs, 0.1 in its paper),
which grows during training. YOLOv4's paper trains backbone and detector with it (section 3.4) and does not say where;
here it is on the maps of each scale of the neck alone, blocks of 7 × 7, as PP-YOLO (arXiv 2007.12099, section 3.2)
found it harmful in a backbone.

Deviations: none in the networks. Suppression is hubel's own, by IoU, not by distance IoU. The loss: see
:mod:`hubel.models.darknet.yolo_loss`; it takes the mean over images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from hubel.models.base import Architecture, Classifier
from hubel.models.config_schema import ShareBelowOne
from hubel.models.darknet.cfg_text import ANCHORS_TINY, ANCHORS_V4, conv, detect, net, section, spp
from hubel.models.darknet.detector import BoxDetector
from hubel.models.darknet.families import YOLOConfig, architecture_row, build_detector, build_on

_REFERENCE = "Bochkovskiy et al. 2020, arXiv 2004.10934"
_SCALED = "Wang et al. 2021, arXiv 2011.08036"
_mish = partial(conv, activation="mish")
_LOSS: Mapping[str, object] = {
    "ignore_thresh": 0.7, "iou_loss": "ciou", "iou_normalizer": 0.07, "nms_kind": "greedynms", "beta_nms": 0.6,
}  # fmt: skip
_CSP_LOSS: Mapping[str, object] = {
    **_LOSS, "iou_normalizer": 0.05, "iou_thresh": 0.2, "nms_kind": "diounms", "new_coords": 1, "scale_x_y": 2.0,
}  # fmt: skip


def _route(*layers: int, **groups: int) -> str:
    return section("route", layers=",".join(map(str, layers)), **groups)


def _units(count: int, inner: int, outer: int) -> str:
    shortcut = section("shortcut", **{"from": -3}, activation="linear")
    return count * (_mish(inner, 1) + _mish(outer, 3) + shortcut)


def cspdarknet53_cfg(first_is_plain: bool = False) -> str:
    """The layers of CSPDarknet-53 below its pooling; in Scaled-YOLOv4 the first stage has no second half."""
    text = _mish(32, 3)
    for number, units in enumerate((1, 2, 8, 8, 4)):
        filters = 64 << number
        text += _mish(filters, 3, 2)
        if number == 0 and first_is_plain:
            text += _units(1, 32, 64)
            continue
        half = max(filters // 2, 64)
        text += _mish(half, 1) + _route(-2) + _mish(half, 1) + _units(units, filters // 2, half)
        text += _mish(half, 1) + _route(-1, -4 - 3 * units) + _mish(filters, 1)
    return text


def _neck_cfg(stages: tuple[int, int], width: int = 512) -> str:
    """Spatial pyramid pooling, path aggregation and three scales of boxes on the maps of stride 32.

    ``stages`` are the layers of stride 16 and 8 that it reads, too.
    """
    three = conv(width, 1) + conv(2 * width, 3) + conv(width, 1)
    text = three + spp() + three
    for filters, stage in ((width // 2, stages[0]), (width // 4, stages[1])):
        pair = conv(filters, 1) + conv(2 * filters, 3)
        text += conv(filters, 1) + section("upsample", stride=2) + _route(stage) + conv(filters, 1) + _route(-1, -3)
        text += 2 * pair + conv(filters, 1)
    loss = {**_LOSS, "iou_thresh": 0.213, "max_delta": 5}
    text += conv(width // 2, 3) + detect("0,1,2", ANCHORS_V4, {**loss, "scale_x_y": 1.2})
    for filters, joined, mask, reach in ((width // 2, -16, "3,4,5", 1.1), (width, -37, "6,7,8", 1.05)):
        text += _route(-4) + conv(filters, 3, 2) + _route(-1, joined)
        text += 3 * (conv(filters, 1) + conv(2 * filters, 3)) + detect(mask, ANCHORS_V4, {**loss, "scale_x_y": reach})
    return text


def _partial_stage(filters: int) -> str:
    """Two 3×3 convolutions in one half of a stage of the neck of ``yolo_v4_csp``."""
    pair = _mish(filters, 1) + _mish(filters, 3)
    return _mish(filters, 1) + _route(-2) + 2 * pair + _route(-1, -6) + _mish(filters, 1)


def _csp_cfg() -> str:
    text = cspdarknet53_cfg(first_is_plain=True) + _mish(512, 1) + _route(-2) + _mish(512, 1) + _mish(512, 3)
    text += _mish(512, 1) + spp() + _mish(512, 1) + _mish(512, 3) + _route(-1, -13) + _mish(512, 1)
    for filters, stage in ((256, 79), (128, 48)):
        text += _mish(filters, 1) + section("upsample", stride=2) + _route(stage) + _mish(filters, 1) + _route(-1, -3)
        text += _mish(filters, 1) + _partial_stage(filters)
    text += _mish(256, 3) + detect("0,1,2", ANCHORS_V4, {**_CSP_LOSS, "obj_normalizer": 4.0}, "logistic")
    for filters, joined, mask, weight in ((256, -20, "3,4,5", 1.0), (512, -49, "6,7,8", 0.4)):
        text += _route(-4) + _mish(filters, 3, 2) + _route(-1, joined) + _mish(filters, 1) + _partial_stage(filters)
        loss = {**_CSP_LOSS, "obj_normalizer": weight, "objectness_smooth": 1}
        text += _mish(2 * filters, 3) + detect(mask, ANCHORS_V4, loss, "logistic")
    return net(512) + text


def _tiny_cfg() -> str:
    text = conv(32, 3, 2) + conv(64, 3, 2)
    for filters in (64, 128, 256):
        text += conv(filters, 3) + _route(-1, groups=2, group_id=1) + 2 * conv(filters // 2, 3) + _route(-1, -2)
        text += conv(filters, 1) + _route(-6, -1) + section("maxpool", size=2, stride=2)
    loss = {**_LOSS, "scale_x_y": 1.05}
    text += conv(512, 3) + conv(256, 1) + conv(512, 3) + detect("3,4,5", ANCHORS_TINY, loss)
    text += _route(-4) + conv(128, 1) + section("upsample", stride=2) + _route(-1, 23)
    return net(416) + text + conv(256, 3) + detect("1,2,3", ANCHORS_TINY, loss)


@dataclass(frozen=True)
class YOLOv4Config(YOLOConfig):
    """See :class:`~hubel.models.darknet.families.YOLOConfig`.

    Attributes:
        drop_block: probability of DropBlock.
    """

    drop_block: ShareBelowOne = 0.0


def _build(config: YOLOv4Config, num_classes: int, in_channels: int, image_size: int) -> BoxDetector:
    model = build_detector(config, num_classes, in_channels, image_size)
    model.drop_blocks_of_scales(config.drop_block)
    return model


def _build_on(config: YOLOv4Config, num_classes: int, source: Classifier, image_size: int) -> BoxDetector:
    model = build_on(config, num_classes, source, image_size)
    model.drop_blocks_of_scales(config.drop_block)
    return model


def _row(name: str, config: YOLOv4Config, depth: int, reference: str) -> Architecture:
    row = architecture_row(name, config, depth, reference)
    return replace(row, build=_build, build_on=_build_on if config.neck else None)


_CONFIG = YOLOv4Config(net(608) + cspdarknet53_cfg() + _neck_cfg((85, 54)), neck=_neck_cfg((1, 0), 256))

ARCHITECTURES: tuple[Architecture, ...] = (
    _row("yolo_v4", _CONFIG, 110, f"{_REFERENCE}; Darknet's yolov4.cfg"),
    _row("yolo_v4_csp", YOLOv4Config(_csp_cfg()), 115, f"{_SCALED}; Darknet's yolov4-csp.cfg"),
    _row("yolo_v4_tiny", YOLOv4Config(_tiny_cfg()), 21, f"{_SCALED}; Darknet's yolov4-tiny.cfg"),
)
