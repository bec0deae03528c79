"""SSDs as torchvision names them; Darknet's networks, whose files hold numbers without names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubel.weights.key_rules import KeyRules, Rules, conv_norm
from hubel.weights.key_rules.mbconv import torchvision_v3
from hubel.weights.key_rules.vgg import numbered_layers
from hubel.weights.state_dict import FLAT

if TYPE_CHECKING:
    from torch import Tensor

_LISTS = {"classification_head": "classifiers", "regression_head": "regressors"}


def _halved(features: re.Match[str]) -> str:
    """Path of MobileNet-v3's ``features.N`` in two sequences of layers, of which the second begins at 13."""
    number = int(features[1])
    return rf"backbone\.features\.{number // 13}\.{number % 13}"


# All convolutions up to conv4_3; then the poolings and ReLUs count as well.
_VGG: Rules = (
    *numbered_layers((2, 2, 3, 3), batch_norm=False, features=r"backbone\.features"),
    *((rf"backbone\.extra\.0\.{2 * index + 1}", f"backbone.stage5.{index}.conv") for index in range(3)),
    (r"backbone\.extra\.0\.7\.1", "backbone.fc6.conv"),
    (r"backbone\.extra\.0\.7\.3", "backbone.fc7.conv"),
    *(
        (rf"backbone\.extra\.{index + 1}\.{theirs}", f"extras.{index}.{ours}.conv")
        for index in range(4)
        for theirs, ours in ((0, 0), (2, 1))
    ),
    *((rf"head\.{theirs}\.module_list\.(\d)", rf"head.{ours}.\1") for theirs, ours in _LISTS.items()),
)

# Two sequences of layers: the first ends within unit 13, after the convolution that widens.
_MOBILENET: Rules = (
    *conv_norm(
        {
            "stage6_expand": (r"backbone\.features\.0\.13\.0", r"backbone\.features\.0\.13\.1"),
            "stage6.0.depthwise": (r"backbone\.features\.1\.0\.1\.0", r"backbone\.features\.1\.0\.1\.1"),
            "stage6.0.project": (r"backbone\.features\.1\.0\.3\.0", r"backbone\.features\.1\.0\.3\.1"),
        }
    ),
    (r"backbone\.features\.1\.0\.2\.fc1", "backbone.stage6.0.squeeze.reduce"),
    (r"backbone\.features\.1\.0\.2\.fc2", "backbone.stage6.0.squeeze.expand"),
    *(
        (re.sub(r"^features\\\.(\d+)", _halved, theirs), ours)
        for theirs, ours in torchvision_v3("large")
        if theirs.startswith("features")
    ),
    (r"backbone\.extra\.(\d)\.(\d)\.0", r"extras.\1.\2.conv"),
    (r"backbone\.extra\.(\d)\.(\d)\.1", r"extras.\1.\2.norm"),
    *(
        (rf"head\.{theirs}\.module_list\.(\d)\.{number}", rf"head.{ours}.\1.{part}")
        for theirs, ours in _LISTS.items()
        for number, part in ((r"0\.0", "depthwise.conv"), (r"0\.1", "depthwise.norm"), ("1", "pointwise"))
    ),
)


def _scale(state: dict[str, Tensor]) -> None:
    """The factors of conv4_3's channels are a parameter of the backbone itself."""
    state["scaled.weight"] = state.pop("backbone.scale_weight")


KEY_RULES = (
    KeyRules("torchvision's SSD300", "ssd300_vgg16", "backbone.scale_weight", _VGG, (_scale,)),
    KeyRules(
        "torchvision's SSDLite320",
        "ssdlite320_mobilenet_v3_large",
        "backbone.features.1.0.2.fc1.weight",
        _MOBILENET,
    ),
    KeyRules("Darknet's networks", r"yolo_.*", FLAT, ()),
)
