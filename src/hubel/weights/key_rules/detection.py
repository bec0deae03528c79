"""SSDs as torchvision and TensorFlow name them; Darknet's networks, whose files hold numbers without names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubel.weights.key_rules import KeyRules, Rules, conv_norm, x_before_y
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


# TensorFlow's Object Detection API, whose graphs hubel.weights.tensorflow_graph gives torch's names of parameters.
_GRAPH = "FeatureExtractor/MobilenetV2/"
_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))  # channels within an extra part, and of its map
_UNITS = [f"stage{stage}.{unit}" for stage, units in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for unit in range(units)]


def _in_graph(scope: str, ours: str) -> Rules:
    """A convolution, and its normalization in a scope within its own."""
    return ((_GRAPH + scope, f"{ours}.conv"), (f"{_GRAPH}{scope}/BatchNorm", f"{ours}.norm"))


def _tensorflow() -> Rules:
    rules = [*_in_graph("Conv", "backbone.stem"), *_in_graph("Conv_1", "backbone.top")]
    for number, unit in enumerate(_UNITS):
        scope = f"expanded_conv_{number}" if number else "expanded_conv"
        for part in ("expand", "depthwise", "project"):
            own_part = (unit, part) == ("stage6.0", "expand")
            rules += _in_graph(f"{scope}/{part}", "backbone.stage6_expand" if own_part else f"backbone.{unit}.{part}")
    for number, (narrow, wide) in enumerate(_EXTRAS):
        filtering = f"layer_19_2_Conv2d_{number + 2}_3x3_s2_{wide}"
        rules += _in_graph(f"layer_19_1_Conv2d_{number + 2}_1x1_{narrow}", f"extras.{number}.0")
        rules += _in_graph(f"{filtering}_depthwise", f"extras.{number}.1")
        rules += _in_graph(filtering, f"extras.{number}.2")
    for theirs, ours in (("ClassPredictor", "classifiers"), ("BoxEncodingPredictor", "regressors")):
        rules.append((rf"BoxPredictor_(\d)/{theirs}", rf"head.{ours}.\1"))
    return tuple(rules)


_COCO_IDS = 90
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # ids without a class


def _offsets_x_first(state: dict[str, Tensor]) -> None:
    for key in [key for key in state if key.startswith("head.regressors.")]:
        state[key] = x_before_y(state[key])


def _classes_without_gaps(state: dict[str, Tensor]) -> None:
    """Outputs for COCO's ids from 1 to 90 become those of its 80 classes; background stays the first."""
    kept = [index for index in range(_COCO_IDS + 1) if index not in _COCO_GAPS]
    for key in [key for key in state if key.startswith("head.classifiers.")]:
        boxes = len(state[key.replace("classifiers", "regressors")]) // 4
        if len(state[key]) == boxes * (_COCO_IDS + 1):
            state[key] = state[key].unflatten(0, (boxes, -1))[:, kept].flatten(0, 1)


KEY_RULES = (
    KeyRules("torchvision's SSD300", "ssd300_vgg16", "backbone.scale_weight", _VGG, (_scale,)),
    KeyRules(
        "torchvision's SSDLite320",
        "ssdlite320_mobilenet_v3_large",
        "backbone.features.1.0.2.fc1.weight",
        _MOBILENET,
    ),
    KeyRules(
        "TensorFlow's SSD with MobileNet-v2",
        "ssd300_mobilenet_v2",
        f"{_GRAPH}Conv.weight",
        _tensorflow(),
        (_offsets_x_first, _classes_without_gaps),
    ),
    KeyRules("Darknet's networks", r"yolo_.*|darknet_.*", FLAT, ()),
)
