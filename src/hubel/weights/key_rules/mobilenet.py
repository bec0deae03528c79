"""MobileNets as torchvision, timm and Keras name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hubel.weights.key_rules.base import KeyRules, Rules, convolution_as_dense
from hubel.weights.key_rules.efficientnet import GOOGLES, TIMM, timm_units

# Units of each stage: torchvision and Keras number them through.
_V1 = (1, 2, 2, 6, 2)
_V2 = (1, 2, 3, 4, 3, 3, 1)
_V3 = {"large": (1, 2, 3, 4, 2, 3), "small": (1, 2, 3, 2, 3)}


def _numbered(depths: Iterable[int], first: Mapping[str, str], others: Mapping[str, str]) -> Rules:
    """The parts of the first unit and of the others; in keys ``{0}`` is a unit's number from 0, ``{1}`` from 1."""
    units = [f"backbone.stage{stage}.{index}" for stage, depth in enumerate(depths, start=1) for index in range(depth)]
    return tuple(
        (theirs.format(number, number + 1), f"{unit}.{ours}")
        for number, unit in enumerate(units)
        for theirs, ours in (others if number else first).items()
    )


def _named(depths: Iterable[int], first: str, others: str, parts: Mapping[str, str]) -> Rules:
    """Units whose parts are called the same in all of them, after the unit's own name."""
    return _numbered(
        depths,
        {first + theirs: ours for theirs, ours in parts.items()},
        {others + theirs: ours for theirs, ours in parts.items()},
    )


def _ends(parts: Mapping[str, tuple[str, str]]) -> Rules:
    """Convolutions with their normalizations before and after the units."""
    return tuple(
        (theirs, f"backbone.{ours}.{kind}")
        for ours, both in parts.items()
        for theirs, kind in zip(both, ("conv", "norm"), strict=True)
    )


_KERAS_UNIT = {
    "expand": "expand.conv",
    "expand_(BN|bn)": "expand.norm",
    "depthwise": "depthwise.conv",
    "depthwise_(BN|bn)": "depthwise.norm",
    "squeeze_excite_conv": "squeeze.reduce",
    "squeeze_excite_conv_1": "squeeze.expand",
    "project": "project.conv",
    "project_(BN|bn)": "project.norm",
}

_TIMM_V1: Rules = (
    *_ends({"stem": ("conv_stem", "bn1")}),
    *(
        (theirs, ours.replace("project", "pointwise"))
        for stage in range(1, 6)
        for theirs, ours in timm_units(stage, widening=False)
    ),
    ("classifier", "head.classifier"),
)
_KERAS_V1_UNIT = {
    "conv_dw_{1}": "depthwise.conv",
    "conv_dw_{1}_bn": "depthwise.norm",
    "conv_pw_{1}": "pointwise.conv",
    "conv_pw_{1}_bn": "pointwise.norm",
}
_KERAS_V1: Rules = (
    *_ends({"stem": ("conv1", "conv1_bn")}),
    *_numbered(_V1, _KERAS_V1_UNIT, _KERAS_V1_UNIT),
    ("conv_preds", "head.classifier"),
)

_TORCHVISION_V2: Rules = (
    *_ends({"stem": (r"features\.0\.0", r"features\.0\.1"), "top": (r"features\.18\.0", r"features\.18\.1")}),
    *_numbered(
        _V2,
        {
            r"features\.{1}\.conv\.0\.0": "depthwise.conv",
            r"features\.{1}\.conv\.0\.1": "depthwise.norm",
            r"features\.{1}\.conv\.1": "project.conv",
            r"features\.{1}\.conv\.2": "project.norm",
        },
        {
            r"features\.{1}\.conv\.0\.0": "expand.conv",
            r"features\.{1}\.conv\.0\.1": "expand.norm",
            r"features\.{1}\.conv\.1\.0": "depthwise.conv",
            r"features\.{1}\.conv\.1\.1": "depthwise.norm",
            r"features\.{1}\.conv\.2": "project.conv",
            r"features\.{1}\.conv\.3": "project.norm",
        },
    ),
    (r"classifier\.1", "head.classifier"),
)
_KERAS_V2: Rules = (
    *_ends({"stem": ("Conv1", "bn_Conv1"), "top": ("Conv_1", "Conv_1_bn")}),
    *_named(_V2, "expanded_conv_", "block_{0}_", _KERAS_UNIT),
    ("predictions", "head.classifier"),
)


def torchvision_v3(size: str) -> Rules:
    """Those of torchvision's MobileNet-v3, ``"small"`` or ``"large"``."""
    top = sum(_V3[size]) + 1
    return (
        *_ends(
            {
                "stem": (r"features\.0\.0", r"features\.0\.1"),
                "top": (rf"features\.{top}\.0", rf"features\.{top}\.1"),
            }
        ),
        # Units without squeeze-and-excitation, or without a part that widens, number the parts after it lower.
        *_numbered(
            _V3[size],
            {
                r"features\.{1}\.block\.0\.0": "depthwise.conv",
                r"features\.{1}\.block\.0\.1": "depthwise.norm",
                r"features\.{1}\.block\.1\.fc1": "squeeze.reduce",
                r"features\.{1}\.block\.1\.fc2": "squeeze.expand",
                r"features\.{1}\.block\.[12]\.0": "project.conv",
                r"features\.{1}\.block\.[12]\.1": "project.norm",
            },
            {
                r"features\.{1}\.block\.0\.0": "expand.conv",
                r"features\.{1}\.block\.0\.1": "expand.norm",
                r"features\.{1}\.block\.1\.0": "depthwise.conv",
                r"features\.{1}\.block\.1\.1": "depthwise.norm",
                r"features\.{1}\.block\.2\.fc1": "squeeze.reduce",
                r"features\.{1}\.block\.2\.fc2": "squeeze.expand",
                r"features\.{1}\.block\.[23]\.0": "project.conv",
                r"features\.{1}\.block\.[23]\.1": "project.norm",
            },
        ),
        (r"classifier\.0", "head.hidden"),
        (r"classifier\.3", "head.classifier"),
    )


def _timm_v3(size: str) -> Rules:
    stages = len(_V3[size])
    return (
        *_ends({"stem": ("conv_stem", "bn1"), "top": (rf"blocks\.{stages}\.0\.conv", rf"blocks\.{stages}\.0\.bn1")}),
        *timm_units(1, widening=False),
        *(rule for stage in range(2, stages + 1) for rule in timm_units(stage)),
        ("conv_head", "head.hidden"),
        ("classifier", "head.classifier"),
    )


def _keras_v3(size: str) -> Rules:
    return (
        *_ends({"stem": ("conv", "conv_bn"), "top": ("conv_1", "conv_1_bn")}),
        *_named(_V3[size], "expanded_conv_", "expanded_conv_{0}_", _KERAS_UNIT),
        ("conv_2", "head.hidden"),
        ("logits", "head.classifier"),
    )


_HIDDEN, _CLASSIFIER = (convolution_as_dense(f"head.{layer}.weight") for layer in ("hidden", "classifier"))
_OWN = {"norm_eps": 1e-5, "same": False}

# timm's "tf_" weights have the same keys as its others but need GOOGLES: the catalog says so.
KEY_RULES = (
    KeyRules("timm's MobileNets", "mobilenet_v1", "blocks.0.0.conv_dw.weight", _TIMM_V1, settings=_OWN),
    KeyRules("Keras's MobileNets", "mobilenet_v1", "conv_dw_1.weight", _KERAS_V1, "", (_CLASSIFIER,), GOOGLES),
    KeyRules(
        "torchvision's MobileNet-v2", "mobilenet_v2", "features.1.conv.0.0.weight", _TORCHVISION_V2, settings=_OWN
    ),
    KeyRules("timm's MobileNet-v2", "mobilenet_v2", "blocks.0.0.conv_dw.weight", TIMM, settings=_OWN),
    KeyRules("Keras's MobileNet-v2", "mobilenet_v2", "expanded_conv_depthwise.weight", _KERAS_V2, settings=GOOGLES),
    *(
        known
        for size in _V3
        for known in (
            KeyRules(
                "torchvision's MobileNet-v3",
                f"mobilenet_v3_{size}",
                "features.1.block.0.0.weight",
                torchvision_v3(size),
                settings={"norm_eps": 1e-3, "same": False},
            ),
            KeyRules(
                "timm's MobileNet-v3",
                f"mobilenet_v3_{size}",
                "blocks.0.0.conv_dw.weight",
                _timm_v3(size),
                adaptations=(_HIDDEN,),
                settings=_OWN,
            ),
            KeyRules(
                "Keras's MobileNet-v3",
                f"mobilenet_v3_{size}",
                "expanded_conv_depthwise.weight",
                _keras_v3(size),
                adaptations=(_HIDDEN, _CLASSIFIER),
                settings=GOOGLES,
            ),
        )
    ),
)
