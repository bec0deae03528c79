"""Faster and Mask R-CNNs as torchvision names them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubel.weights.key_rules import KeyRules, Rules
from hubel.weights.key_rules.mbconv import torchvision_v3
from hubel.weights.key_rules.resnet import STEM_AND_STAGES

if TYPE_CHECKING:
    from torch import Tensor

# torchvision's older files, all that it has published of the first edition among them, lack numbers of layers.
_BOTH_STAGES: Rules = (
    *(
        (rf"backbone\.fpn\.{theirs}_blocks\.(\d){number}", rf"pyramid.{ours}.\1.{part}")
        for theirs, ours in (("inner", "lateral"), ("layer", "output"))
        for number, part in ((r"(?:\.0)?", "conv"), (r"\.1", "norm"))
    ),
    (r"rpn\.head\.conv", "first_stage.convs.0"),
    (r"rpn\.head\.conv\.(\d)\.0", r"first_stage.convs.\1"),
    (r"rpn\.head\.cls_logits", "first_stage.objectness"),
    (r"rpn\.head\.bbox_pred", "first_stage.offsets"),
    (r"roi_heads\.box_head\.fc6", "head.dense.0"),
    (r"roi_heads\.box_head\.fc7", "head.dense.1"),
    (r"roi_heads\.box_head\.([0-3])\.0", r"head.convs.\1.conv"),
    (r"roi_heads\.box_head\.([0-3])\.1", r"head.convs.\1.norm"),
    (r"roi_heads\.box_head\.5", "head.dense.0"),
    (r"roi_heads\.box_predictor\.cls_score", "head.classifier"),
    (r"roi_heads\.box_predictor\.bbox_pred", "head.regressor"),
    *((rf"roi_heads\.mask_head\.mask_fcn{number}", f"mask_head.convs.{number - 1}.conv") for number in range(1, 5)),
    (r"roi_heads\.mask_head\.([0-3])\.0", r"mask_head.convs.\1.conv"),
    (r"roi_heads\.mask_head\.([0-3])\.1", r"mask_head.convs.\1.norm"),
    (r"roi_heads\.mask_predictor\.conv5_mask", "mask_head.upsampling"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits", "mask_head.classifier"),
)
_RESNET: Rules = (*((rf"backbone\.body\.{theirs}", ours) for theirs, ours in STEM_AND_STAGES), *_BOTH_STAGES)


def _after_first(ours: str) -> str:
    """The first unit of stage 6 is a part of its own, whose map is read."""
    unit = re.match(r"backbone\.stage6\.(\d)\.(.+)", ours)
    return ours if unit is None or unit[1] == "0" else f"backbone.stage6_rest.{int(unit[1]) - 1}.{unit[2]}"


_MOBILENET: Rules = (
    *(
        (rf"backbone\.body\.{theirs.removeprefix('features')[2:]}", _after_first(ours))
        for theirs, ours in torchvision_v3("large")
        if theirs.startswith("features")
    ),
    *_BOTH_STAGES,
)


def _without_offsets_of_background(state: dict[str, Tensor]) -> None:
    for part in ("weight", "bias"):
        state[f"head.regressor.{part}"] = state[f"head.regressor.{part}"][4:]


def _without_masks_of_background(state: dict[str, Tensor]) -> None:
    for part in ("weight", "bias"):
        state[f"mask_head.classifier.{part}"] = state[f"mask_head.classifier.{part}"][1:]


def _rules(name: str, architectures: str, signature: str, rules: Rules) -> KeyRules:
    return KeyRules(f"torchvision's {name}", architectures, signature, rules, (_without_offsets_of_background,))


def _mask_rules(name: str, architectures: str, signature: str) -> KeyRules:
    adaptations = (_without_offsets_of_background, _without_masks_of_background)
    return KeyRules(f"torchvision's {name}", architectures, signature, _RESNET, adaptations)


# The first whose signature a file has says what it is of: Mask R-CNNs also have all keys of a Faster R-CNN.
KEY_RULES = (
    _mask_rules("Mask R-CNN v2 on ResNet-50", "maskrcnn_resnet50_fpn_v2", "roi_heads.mask_head.0.1.weight"),
    _mask_rules("Mask R-CNN on ResNet-50", "maskrcnn_resnet50_fpn", "roi_heads.mask_predictor.conv5_mask.weight"),
    _rules("Faster R-CNN v2 on ResNet-50", "fasterrcnn_resnet50_fpn_v2", "rpn.head.conv.1.0.weight", _RESNET),
    _rules("Faster R-CNN on ResNet-50", "fasterrcnn_resnet50_fpn", "backbone.body.layer1.0.conv1.weight", _RESNET),
    _rules("Faster R-CNN on MobileNet-v3", "fasterrcnn_mobilenet_v3_large_.*", "backbone.body.0.0.weight", _MOBILENET),
)
