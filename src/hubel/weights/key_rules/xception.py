"""Xception as Keras and timm name it."""

from __future__ import annotations

from hubel.weights.key_rules.key_rules import KeyRules, Rules

# The units in the paper's order. timm counts them from 1, and the layers in them; to Keras the stem is block 1.
_UNITS = ("stage1.0", "stage2.0", *(f"stage3.{number}" for number in range(9)), "stage4.0")
_SEPARABLE = tuple((number, unit, index) for number, unit in enumerate(_UNITS, start=1) for index in range(3))
# Units whose shortcut is a convolution, to which Keras gives no name.
_SHORTCUTS = ("stage1.0", "stage2.0", "stage3.0", "stage4.0")

_KERAS: Rules = (
    *((rf"block1_conv{i + 1}", f"backbone.stem.{i}.conv") for i in range(2)),
    *((rf"block1_conv{i + 1}_bn", f"backbone.stem.{i}.norm") for i in range(2)),
    *(
        (theirs + suffix, f"backbone.{ours}.{part}")
        for theirs, ours in (
            *((f"block{number + 1}_sepconv{i + 1}", f"{unit}.convs.{i}") for number, unit, i in _SEPARABLE),
            *((f"block14_sepconv{i + 1}", f"top.{i}") for i in range(2)),
        )
        for suffix, part in (
            (r"\.depthwise", "depthwise"),
            (r"\.pointwise", "pointwise.conv"),
            ("_bn", "pointwise.norm"),
        )
    ),
    *((f"conv2d_{number}", f"backbone.{unit}.shortcut.conv") for number, unit in enumerate(_SHORTCUTS)),
    *((f"batch_normalization_{number}", f"backbone.{unit}.shortcut.norm") for number, unit in enumerate(_SHORTCUTS)),
    ("predictions", "head.classifier"),
)

_TIMM: Rules = (
    *((f"conv{i + 1}", f"backbone.stem.{i}.conv") for i in range(2)),
    *((f"bn{i + 1}", f"backbone.stem.{i}.norm") for i in range(2)),
    *(
        (rf"block{number}\.rep\.{3 * i + offset + (number > 1)}{suffix}", f"backbone.{unit}.convs.{i}.{part}")
        for number, unit, i in _SEPARABLE
        for offset, suffix, part in (  # all but the first unit begin with a ReLU
            (0, r"\.conv1", "depthwise"),
            (0, r"\.pointwise", "pointwise.conv"),
            (1, "", "pointwise.norm"),
        )
    ),
    *(
        (rf"block{number}\.skip{suffix}", f"backbone.{unit}.shortcut.{part}")
        for number, unit in enumerate(_UNITS, start=1)
        for suffix, part in (("", "conv"), ("bn", "norm"))
    ),
    *(
        (f"{theirs}{i + 3}{suffix}", f"backbone.top.{i}.{part}")
        for i in range(2)
        for theirs, suffix, part in (
            ("conv", r"\.conv1", "depthwise"),
            ("conv", r"\.pointwise", "pointwise.conv"),
            ("bn", "", "pointwise.norm"),
        )
    ),
    (r"fc", "head.classifier"),
)

FORMATS = (
    KeyRules("Keras's Xception", "xception", "block2_sepconv1.depthwise.weight", _KERAS),
    KeyRules(
        "timm's legacy_xception",
        "xception",
        "block1.rep.0.conv1.weight",
        _TIMM,
        settings={"same": False, "norm_eps": 1e-5},
    ),
)
