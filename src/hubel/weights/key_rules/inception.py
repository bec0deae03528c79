"""GoogLeNet, the Inception networks of 2015 and 2016 and Xception as torchvision, timm and Keras name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hubel.weights.key_rules import Adaptation, KeyRules, Rules, conv_norm

if TYPE_CHECKING:
    from torch import Tensor


def _units(units: Mapping[str, str]) -> Rules:
    """Rules for convolutions with their normalizations, from patterns of their names."""
    return tuple(
        (rf"{theirs}\.{part}", rf"backbone.{ours}.{our_part}")
        for theirs, ours in units.items()
        for part, our_part in (("conv", "conv"), ("bn", "norm"))
    )


_GOOGLENET: Rules = (
    *_units(
        {
            "conv1": "stem",
            "conv2": "conv2.0",
            "conv3": "conv2.1",
            r"(inception\w+)\.branch1": r"\1.branches.1x1",
            r"(inception\w+)\.branch2\.(\d)": r"\1.branches.3x3.\2",
            r"(inception\w+)\.branch3\.(\d)": r"\1.branches.5x5.\2",
            r"(inception\w+)\.branch4\.(\d)": r"\1.branches.pool.\2",
        }
    ),
    *(
        (rf"{theirs}\.{part}", f"auxiliary.{ours}.{our_part}")
        for theirs, ours in (("aux1", "inception4a"), ("aux2", "inception4d"))
        for part, our_part in (
            (r"conv\.conv", "conv.conv"),
            (r"conv\.bn", "conv.norm"),
            ("fc1", "dense"),
            ("fc2", "classifier"),
        )
    ),
    (r"fc", "head.classifier"),
)


def _counted(units: Iterable[str]) -> Adaptation:
    """Keras's application names its layers by counting: ``units`` are ours in that order."""

    def adapt(state: dict[str, Tensor]) -> None:
        for number, unit in enumerate(units):
            state[f"backbone.{unit}.conv.weight"] = state.pop(f"conv2d_{number}.weight")
            for kind in ("weight", "bias", "running_mean", "running_var"):
                state[f"backbone.{unit}.norm.{kind}"] = state.pop(f"batch_normalization_{number}.{kind}")

    return adapt


# Inception-v3. Both libraries have the modules, their branches and those branches' convolutions in our order.
_V3_ENTRY = {
    "Conv2d_1a_3x3": "stem.0",
    "Conv2d_2a_3x3": "stem.1",
    "Conv2d_2b_3x3": "stem.2",
    "Conv2d_3b_1x1": "stage1.0",
    "Conv2d_4a_3x3": "stage1.1",
}
_V3_A = {
    "branch1x1": "branch0.0",
    **{f"branch5x5_{number + 1}": f"branch1.{number}" for number in range(2)},
    **{f"branch3x3dbl_{number + 1}": f"branch2.{number}" for number in range(3)},
    "branch_pool": "branch3.1",
}
_V3_REDUCTION_A = {
    "branch3x3": "branch0.0",
    **{f"branch3x3dbl_{number + 1}": f"branch1.{number}" for number in range(3)},
}
_V3_B = {
    "branch1x1": "branch0.0",
    **{f"branch7x7_{number + 1}": f"branch1.{number}" for number in range(3)},
    **{f"branch7x7dbl_{number + 1}": f"branch2.{number}" for number in range(5)},
    "branch_pool": "branch3.1",
}
_V3_REDUCTION_B = {
    **{f"branch3x3_{number + 1}": f"branch0.{number}" for number in range(2)},
    **{f"branch7x7x3_{number + 1}": f"branch1.{number}" for number in range(4)},
}
_V3_C = {
    "branch1x1": "branch0.0",
    "branch3x3_1": "branch1.0",
    "branch3x3_2a": "branch1.1.branch0",
    "branch3x3_2b": "branch1.1.branch1",
    "branch3x3dbl_1": "branch2.0",
    "branch3x3dbl_2": "branch2.1",
    "branch3x3dbl_3a": "branch2.2.branch0",
    "branch3x3dbl_3b": "branch2.2.branch1",
    "branch_pool": "branch3.1",
}
_V3_MODULES = (
    *((f"Mixed_5{'bcd'[number]}", f"stage2.units.{number}", _V3_A) for number in range(3)),
    ("Mixed_6a", "stage3.reduce", _V3_REDUCTION_A),
    *((f"Mixed_6{'bcde'[number]}", f"stage3.units.{number}", _V3_B) for number in range(4)),
    ("Mixed_7a", "stage4.reduce", _V3_REDUCTION_B),
    *((f"Mixed_7{'bc'[number]}", f"stage4.units.{number}", _V3_C) for number in range(2)),
)
_V3_UNITS = _V3_ENTRY | {
    rf"{their_module}\.{theirs}": f"{our_module}.{ours}"
    for their_module, our_module, names in _V3_MODULES
    for theirs, ours in names.items()
}
_V3_AUXILIARY: Rules = (
    (r"AuxLogits\.conv0.conv", "auxiliary.stage3.reduce.conv"),
    (r"AuxLogits\.conv0.bn", "auxiliary.stage3.reduce.norm"),
    (r"AuxLogits\.conv1.conv", "auxiliary.stage3.conv.conv"),
    (r"AuxLogits\.conv1.bn", "auxiliary.stage3.conv.norm"),
    (r"AuxLogits\.fc", "auxiliary.stage3.classifier"),
)

# timm numbers all parts of Inception-v4 through.
_V4_MODULES = {
    4: "stage1",
    **{6 + number: f"stage2.units.{number}" for number in range(4)},
    10: "stage3.reduce",
    **{11 + number: f"stage3.units.{number}" for number in range(7)},
    18: "stage4.reduce",
    **{19 + number: f"stage4.units.{number}" for number in range(3)},
}
_V4_BRANCHES = {
    r"branch(\d)": r"branch\1.0",
    r"branch(\d)[._](\d)": r"branch\1.\2",
    "branch1_1a": "branch1.1.branch0",
    "branch1_1b": "branch1.1.branch1",
    "branch2_3a": "branch2.3.branch0",
    "branch2_3b": "branch2.3.branch1",
}
_V4_UNITS = {
    r"features\.([0-2])": r"stem.\1",
    r"features\.3\.conv": "pool.branch1.0",
    r"features\.5\.conv": "stage2.reduce.branch0.0",
    **{
        rf"features\.{number}\.{theirs}": f"{module}.{ours}"
        for number, module in _V4_MODULES.items()
        for theirs, ours in _V4_BRANCHES.items()
    },
}

# Inception-ResNet-v2 in timm; the last residual module stands apart.
_RESIDUAL_MODULES = {
    r"mixed_5b": "stage2.reduce.1",
    r"mixed_6a": "stage3.reduce",
    r"mixed_7a": "stage4.reduce",
    r"repeat\.(?P<n>\d+)": r"stage2.units.\g<n>.branches",
    r"repeat_1\.(?P<n>\d+)": r"stage3.units.\g<n>.branches",
    r"repeat_2\.(?P<n>\d+)": r"stage4.units.\g<n>.branches",
    r"block8": "stage4.units.9.branches",
}
_RESIDUAL_UNITS = {
    r"conv2d_1a": "stem.0",
    r"conv2d_2a": "stem.1",
    r"conv2d_2b": "stem.2",
    r"conv2d_3b": "stage1.0",
    r"conv2d_4a": "stage1.1",
    r"conv2d_7b": "top",
    **{
        rf"{theirs}\.branch(?P<b>\d)\.(?P<i>\d)": rf"{ours}.branch\g<b>.\g<i>"
        for theirs, ours in _RESIDUAL_MODULES.items()
    },
    **{rf"{theirs}\.branch(?P<b>\d)": rf"{ours}.branch\g<b>.0" for theirs, ours in _RESIDUAL_MODULES.items()},
}
_RESIDUAL_TIMM: Rules = (
    *_units(_RESIDUAL_UNITS),
    (r"repeat\.(\d+)\.conv2d", r"backbone.stage2.units.\1.project.conv"),
    (r"repeat_1\.(\d+)\.conv2d", r"backbone.stage3.units.\1.project.conv"),
    (r"repeat_2\.(\d+)\.conv2d", r"backbone.stage4.units.\1.project.conv"),
    (r"block8\.conv2d", "backbone.stage4.units.9.project.conv"),
    (r"classif", "head.classifier"),
)


def _in_order(module: str, *lengths: int, pooled: bool = False) -> list[str]:
    """The convolutions of a module, given their number per branch; the last branch may begin with a pooling."""
    units = [(number, index) for number, length in enumerate(lengths) for index in range(length)]
    return [f"{module}.branch{n}.{i + (pooled and n == len(lengths) - 1)}" for n, i in units]


# And in Keras, which counts the convolutions in the branches and names the others.
_RESIDUAL_COUNTED = (
    *_V3_ENTRY.values(),
    *_in_order("stage2.reduce.1", 1, 2, 3, 1, pooled=True),
    *(unit for number in range(10) for unit in _in_order(f"stage2.units.{number}.branches", 1, 2, 3)),
    *_in_order("stage3.reduce", 1, 3),
    *(unit for number in range(20) for unit in _in_order(f"stage3.units.{number}.branches", 1, 3)),
    *_in_order("stage4.reduce", 2, 2, 3),
    *(unit for number in range(10) for unit in _in_order(f"stage4.units.{number}.branches", 1, 3)),
)
_RESIDUAL_KERAS: Rules = (
    *(
        (f"block{side}_{number + 1}_conv", f"backbone.stage{stage}.units.{number}.project.conv")
        for stage, side, count in ((2, 35, 10), (3, 17, 20), (4, 8, 10))
        for number in range(count)
    ),
    (r"conv_7b", "backbone.top.conv"),
    (r"conv_7b_bn", "backbone.top.norm"),
    (r"predictions", "head.classifier"),
)


# The units in the paper's order. timm counts them from 1, and the layers in them; to Keras the stem is block 1.
_XCEPTION_UNITS = ("stage1.0", "stage2.0", *(f"stage3.{number}" for number in range(9)), "stage4.0")
_SEPARABLE = tuple((number, unit, index) for number, unit in enumerate(_XCEPTION_UNITS, start=1) for index in range(3))
# Units whose shortcut is a convolution, to which Keras gives no name.
_SHORTCUTS = ("stage1.0", "stage2.0", "stage3.0", "stage4.0")


def _separable(ours: str, conv: str, norm: str, depthwise: str) -> Rules:
    """A separable convolution, with their names of it, its normalization and its depthwise part."""
    return (
        (rf"{conv}\.{depthwise}", f"backbone.{ours}.depthwise"),
        (rf"{conv}\.pointwise", f"backbone.{ours}.pointwise.conv"),
        (norm, f"backbone.{ours}.pointwise.norm"),
    )


_XCEPTION_KERAS: Rules = (
    *conv_norm({f"stem.{i}": (f"block1_conv{i + 1}", f"block1_conv{i + 1}_bn") for i in range(2)}),
    *(
        rule
        for theirs, ours in (
            *((f"block{number + 1}_sepconv{i + 1}", f"{unit}.convs.{i}") for number, unit, i in _SEPARABLE),
            *((f"block14_sepconv{i + 1}", f"top.{i}") for i in range(2)),
        )
        for rule in _separable(ours, theirs, f"{theirs}_bn", "depthwise")
    ),
    *conv_norm({f"{unit}.shortcut": (f"conv2d_{n}", f"batch_normalization_{n}") for n, unit in enumerate(_SHORTCUTS)}),
    ("predictions", "head.classifier"),
)

_XCEPTION_TIMM: Rules = (
    *conv_norm({f"stem.{i}": (f"conv{i + 1}", f"bn{i + 1}") for i in range(2)}),
    *(
        rule
        for number, unit, i in _SEPARABLE
        for layer in [3 * i + (number > 1)]  # all but the first unit begin with a ReLU
        for rule in _separable(
            f"{unit}.convs.{i}", rf"block{number}\.rep\.{layer}", rf"block{number}\.rep\.{layer + 1}", "conv1"
        )
    ),
    *conv_norm(
        {
            f"{unit}.shortcut": (rf"block{number}\.skip", rf"block{number}\.skipbn")
            for number, unit in enumerate(_XCEPTION_UNITS, start=1)
        }
    ),
    *(rule for i in range(2) for rule in _separable(f"top.{i}", f"conv{i + 3}", f"bn{i + 3}", "conv1")),
    (r"fc", "head.classifier"),
)


KEY_RULES = (
    KeyRules("torchvision's GoogLeNet", "googlenet_bn", "inception3a.branch1.conv.weight", _GOOGLENET),
    KeyRules(
        "torchvision's and timm's Inception-v3",
        "inception_v3",
        "Mixed_6b.branch7x7dbl_1.conv.weight",
        (*_units(_V3_UNITS), *_V3_AUXILIARY, ("fc", "head.classifier")),
        settings={"count_padding": True},
    ),
    KeyRules(
        "Keras's Inception-v3",
        "inception_v3",
        "conv2d_93.weight",
        (("predictions", "head.classifier"),),
        (_counted(_V3_UNITS.values()),),
    ),
    KeyRules(
        "timm's Inception-v4",
        "inception_v4",
        "features.21.branch2_3b.conv.weight",
        (*_units(_V4_UNITS), ("last_linear", "head.classifier")),
    ),
    KeyRules("timm's Inception-ResNet-v2", "inception_resnet_v2", "repeat_1.0.conv2d.weight", _RESIDUAL_TIMM),
    KeyRules(
        "Keras's Inception-ResNet-v2",
        "inception_resnet_v2",
        "block17_1_conv.weight",
        _RESIDUAL_KERAS,
        (_counted(_RESIDUAL_COUNTED),),
    ),
    KeyRules("Keras's Xception", "xception", "block2_sepconv1.depthwise.weight", _XCEPTION_KERAS),
    KeyRules(
        "timm's legacy_xception",
        "xception",
        "block1.rep.0.conv1.weight",
        _XCEPTION_TIMM,
        settings={"same": False, "norm_eps": 1e-5},
    ),
)
