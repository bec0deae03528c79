"""DenseNets as torchvision, timm and Keras name them."""

from __future__ import annotations

from hubel.weights.key_rules.key_rules import KeyRules, Rules

# torchvision's published files are from when parts were named "norm.1"; it now says "norm1".
_LAYER = r"features\.denseblock(\d)\.denselayer(\d+)\."
_TORCHVISION: Rules = (
    (r"features\.conv0", "backbone.stem.conv"),
    (r"features\.norm0", "backbone.stem.norm"),
    (_LAYER + r"norm\.?1", r"backbone.stage\1.layer\2.before.norm"),
    (_LAYER + r"conv\.?1", r"backbone.stage\1.layer\2.reduce.conv"),
    (_LAYER + r"norm\.?2", r"backbone.stage\1.layer\2.reduce.norm"),
    (_LAYER + r"conv\.?2", r"backbone.stage\1.layer\2.conv"),
    (r"features\.transition(\d)\.(norm|conv)", r"backbone.transition\1.\2"),
    (r"features\.norm5", "backbone.top.norm"),
    (r"classifier", "head.classifier"),
)

# Keras counts the stem as stage 1. Its older files say "conv1/conv" and "fc1000".
_STAGES = {f"conv{number + 1}": f"backbone.stage{number}" for number in range(1, 5)}
_KERAS: Rules = (
    (r"conv1[_/]conv", "backbone.stem.conv"),
    (r"conv1[_/]bn", "backbone.stem.norm"),
    *(
        (rf"{theirs}_block(\d+)_{part}", rf"{ours}.layer\1.{our_part}")
        for theirs, ours in _STAGES.items()
        for part, our_part in (
            ("0_bn", "before.norm"),
            ("1_conv", "reduce.conv"),
            ("1_bn", "reduce.norm"),
            ("2_conv", "conv"),
        )
    ),
    *(
        (rf"pool{number + 1}_{theirs}", f"backbone.transition{number}.{ours}")
        for number in range(1, 4)
        for theirs, ours in (("bn", "norm"), ("conv", "conv"))
    ),
    (r"bn", "backbone.top.norm"),
    (r"predictions|fc1000", "head.classifier"),
)

FORMATS = (
    KeyRules("torchvision's and timm's DenseNets", r"densenet\d+", "features.conv0.weight", _TORCHVISION),
    KeyRules("Keras's DenseNets", r"densenet\d+", "pool2_conv.weight", _KERAS, settings={"norm_eps": 1.001e-5}),
)
