"""Networks for segmentation as torchvision and torchfcn name them."""

from __future__ import annotations

import re

from hubel.weights.key_rules import KeyRules, Rules
from hubel.weights.key_rules.mbconv import torchvision_v3
from hubel.weights.key_rules.resnet import STEM_AND_STAGES
from hubel.weights.key_rules.vgg import DEPTHS

_RESNET: Rules = tuple((rf"backbone\.{theirs}", ours) for theirs, ours in STEM_AND_STAGES)


def _refined(theirs: str, ours: str, first: int, last: int) -> Rules:
    """A 3×3 convolution, its normalization, and the scores."""
    return (
        (rf"{theirs}\.{first}", f"{ours}.refine.conv"),
        (rf"{theirs}\.{first + 1}", f"{ours}.refine.norm"),
        (rf"{theirs}\.{last}", f"{ours}.classifier"),
    )


_AUXILIARY = _refined("aux_classifier", "auxiliary.stage3", 0, 4)
_POOLING = 4  # number of the branch that takes the image's mean, whose first layer has no weights
_PYRAMID: Rules = (
    (rf"classifier\.0\.convs\.{_POOLING}\.1", f"head.pyramid.branches.{_POOLING}.project.conv"),
    (rf"classifier\.0\.convs\.{_POOLING}\.2", f"head.pyramid.branches.{_POOLING}.project.norm"),
    (r"classifier\.0\.convs\.(\d)\.0", r"head.pyramid.branches.\1.conv"),
    (r"classifier\.0\.convs\.(\d)\.1", r"head.pyramid.branches.\1.norm"),
    (r"classifier\.0\.project\.0", "head.pyramid.project.conv"),
    (r"classifier\.0\.project\.1", "head.pyramid.project.norm"),
    *_refined("classifier", "head", 1, 4),
)


def _after_first(ours: str) -> str:
    """The first unit of stage 3 is a part of its own, which the head reads."""
    unit = re.match(r"backbone\.stage3\.(\d)\.(.+)", ours)
    return ours if unit is None or unit[1] == "0" else f"backbone.stage3_rest.{int(unit[1]) - 1}.{unit[2]}"


_LRASPP: Rules = (
    *((theirs.replace("features", "backbone", 1), _after_first(ours)) for theirs, ours in torchvision_v3("large")),
    (r"classifier\.cbr\.0", "head.branch.conv"),
    (r"classifier\.cbr\.1", "head.branch.norm"),
    (r"classifier\.scale\.1", "head.gate"),
    (r"classifier\.low_classifier", "head.skip_classifiers.0"),
    (r"classifier\.high_classifier", "head.classifier"),
)

# Upsampling layers are named by what they enlarge to, in the order of the streams.
_UPSCORES = {8: ("upscore2", "upscore_pool4", "upscore8"), 16: ("upscore2", "upscore16"), 32: ("upscore",)}


def _torchfcn(stride: int) -> Rules:
    return (
        *(
            (rf"conv{stage}_{unit + 1}", f"backbone.stage{stage}.{unit}.conv")
            for stage, depth in enumerate(DEPTHS["vgg16"], start=1)
            for unit in range(depth)
        ),
        (r"fc([67])", r"head.layers.fc\1"),
        ("score_fr", "head.classifier"),
        ("score_pool4", "head.skip_classifiers.0"),
        ("score_pool3", "head.skip_classifiers.1"),
        *((theirs, f"head.upsamplings.{index}") for index, theirs in enumerate(_UPSCORES[stride])),
    )


KEY_RULES = (
    KeyRules(
        "torchvision's FCN",
        "fcn_resnet50",
        "classifier.4.weight",
        (*_RESNET, *_refined("classifier", "head", 0, 4), *_AUXILIARY),
    ),
    KeyRules(
        "torchvision's DeepLabv3",
        "deeplabv3_resnet50",
        "classifier.0.convs.0.0.weight",
        (*_RESNET, *_PYRAMID, *_AUXILIARY),
    ),
    KeyRules("torchvision's LR-ASPP", "lraspp_mobilenet_v3_large", "classifier.cbr.0.weight", _LRASPP),
    *(
        KeyRules(f"torchfcn's FCN-{stride}s", f"fcn{stride}s", f"{names[-1]}.weight", _torchfcn(stride))
        for stride, names in _UPSCORES.items()
    ),
)
