"""ResNets, ResNeXts, SE-ResNets, DenseNets and CSPNets as torchvision, timm and Keras name them."""

from __future__ import annotations

from hubel.weights.key_rules.base import KeyRules, Rules, fold_convolution_biases, reversed_input

_STAGES: Rules = (
    (r"layer(\d)\.(\d+)\.conv(\d)", r"backbone.stage\1.\2.conv\3.conv"),
    (r"layer(\d)\.(\d+)\.bn(\d)", r"backbone.stage\1.\2.conv\3.norm"),
    (r"layer(\d)\.(\d+)\.se(?:_module)?\.fc1", r"backbone.stage\1.\2.se.reduce"),
    (r"layer(\d)\.(\d+)\.se(?:_module)?\.fc2", r"backbone.stage\1.\2.se.expand"),
    (r"layer(\d)\.(\d+)\.downsample\.0", r"backbone.stage\1.\2.shortcut.conv"),
    (r"layer(\d)\.(\d+)\.downsample\.1", r"backbone.stage\1.\2.shortcut.norm"),
)
_RESNET: Rules = (
    (r"conv1", "backbone.stem.conv"),
    (r"bn1", "backbone.stem.norm"),
    *_STAGES,
    (r"fc", "head.classifier"),
)
# SENet-154's and ResNet-D's stems have three convolutions; ResNet-D's projections begin with a pooling.
_DEEP_STEM: Rules = (
    (r"conv1\.0", "backbone.stem.0.conv"),
    (r"conv1\.1", "backbone.stem.0.norm"),
    (r"conv1\.3", "backbone.stem.1.conv"),
    (r"conv1\.4", "backbone.stem.1.norm"),
    (r"conv1\.6", "backbone.stem.2.conv"),
    (r"bn1", "backbone.stem.2.norm"),
)
_SENET: Rules = (*_DEEP_STEM, *_STAGES, (r"fc", "head.classifier"))
_RESNET_D: Rules = (
    (r"layer(\d)\.(\d+)\.downsample\.1", r"backbone.stage\1.\2.shortcut.1.conv"),
    (r"layer(\d)\.(\d+)\.downsample\.2", r"backbone.stage\1.\2.shortcut.1.norm"),
    *_SENET,
)
# timm's ``legacy_*``, which the authors trained in Caffe.
_CAFFE: Rules = (
    (r"layer0\.conv1", "backbone.stem.conv"),
    (r"layer0\.bn1", "backbone.stem.norm"),
    *_STAGES,
    (r"last_linear", "head.classifier"),
)
_CAFFE_SENET: Rules = (
    *((rf"layer0\.conv{n}", f"backbone.stem.{n - 1}.conv") for n in (1, 2, 3)),
    *((rf"layer0\.bn{n}", f"backbone.stem.{n - 1}.norm") for n in (1, 2, 3)),
    *_STAGES,
    (r"last_linear", "head.classifier"),
)
# Keras counts stages from 2 and units from 1; part 0 of a unit is the projection. Its published files say "probs".
_KERAS: Rules = (
    (r"conv1_conv", "backbone.stem.conv"),
    (r"conv1_bn", "backbone.stem.norm"),
    *(
        (rf"conv{stage + 1}_block1_0_{theirs}", f"backbone.stage{stage}.0.shortcut.{ours}")
        for stage in range(1, 5)
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    ),
    *(
        (rf"conv{stage + 1}_block{unit}_(\d)_{theirs}", rf"backbone.stage{stage}.{unit - 1}.conv\1.{ours}")
        for stage, most in enumerate((3, 8, 36, 3), start=1)
        for unit in range(1, most + 1)
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    ),
    (r"predictions|probs", "head.classifier"),
)

_CAFFE_POOL = {"pool_ceil_mode": True}


# torchvision's published files are from when parts were named "norm.1"; it now says "norm1".
_DENSE_LAYER = r"features\.denseblock(\d)\.denselayer(\d+)\."
_DENSENET: Rules = (
    (r"features\.conv0", "backbone.stem.conv"),
    (r"features\.norm0", "backbone.stem.norm"),
    (_DENSE_LAYER + r"norm\.?1", r"backbone.stage\1.layer\2.before.norm"),
    (_DENSE_LAYER + r"conv\.?1", r"backbone.stage\1.layer\2.reduce.conv"),
    (_DENSE_LAYER + r"norm\.?2", r"backbone.stage\1.layer\2.reduce.norm"),
    (_DENSE_LAYER + r"conv\.?2", r"backbone.stage\1.layer\2.conv"),
    (r"features\.transition(\d)\.(norm|conv)", r"backbone.transition\1.\2"),
    (r"features\.norm5", "backbone.top.norm"),
    (r"classifier", "head.classifier"),
)

# Keras counts the stem as stage 1. Its older files say "conv1/conv" and "fc1000".
_DENSENET_STAGES = {f"conv{number + 1}": f"backbone.stage{number}" for number in range(1, 5)}
_DENSENET_KERAS: Rules = (
    (r"conv1[_/]conv", "backbone.stem.conv"),
    (r"conv1[_/]bn", "backbone.stem.norm"),
    *(
        (rf"{theirs}_block(\d+)_{part}", rf"{ours}.layer\1.{our_part}")
        for theirs, ours in _DENSENET_STAGES.items()
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


_CSP_UNIT = {"conv": "conv", "bn": "norm"}
_CSP_PARTS = {
    "conv_down": "downsample",
    "conv_exp": "partial.split",
    "conv_transition_b": "partial.transition",
    "conv_transition": "partial.merge",
}


def _csp_rules(stages: int) -> Rules:
    rules = [(rf"stem\.conv1\.{theirs}", f"backbone.stem.{ours}") for theirs, ours in _CSP_UNIT.items()]
    for stage in range(stages):
        for theirs, ours in _CSP_UNIT.items():
            rules += [
                (rf"stages\.{stage}\.{part}\.{theirs}", f"backbone.stage{stage + 1}.{our_part}.{ours}")
                for part, our_part in _CSP_PARTS.items()
            ]
            unit = rf"stages\.{stage}\.blocks\.(\d+)\.conv(\d)\.{theirs}"
            rules.append((unit, rf"backbone.stage{stage + 1}.partial.block.\1.conv\2.{ours}"))
    return (*rules, (r"head\.fc", "head.classifier"))


KEY_RULES = (
    KeyRules(
        "timm's legacy SE-ResNets",
        r"se_resnet\d+",
        "layer1.0.se_module.fc1.weight",
        _CAFFE,
        settings={"stride_in": "1x1", **_CAFFE_POOL},
    ),
    KeyRules(
        "timm's legacy SE-ResNeXts",
        r"resnext.*",
        "layer1.0.se_module.fc1.weight",
        _CAFFE,
        settings={"se": True, **_CAFFE_POOL},
    ),
    KeyRules("timm's legacy SENet-154", "senet154", "layer0.conv3.weight", _CAFFE_SENET, settings=_CAFFE_POOL),
    KeyRules("timm's SENet-154", "senet154", "conv1.6.weight", _SENET),
    KeyRules(
        "timm's ResNet-Ds",
        r"resnet\d+|resnext.*",
        "layer2.0.downsample.2.weight",
        _RESNET_D,
        settings={"stem": "deep", "avg_down": True},
    ),
    KeyRules("timm's SE-ResNets", r"se_resnet\d+|resnext.*", "layer1.0.se.fc1.weight", _RESNET, settings={"se": True}),
    KeyRules("torchvision's and timm's ResNets", r"resnet\d+|resnext.*", "layer1.0.conv1.weight", _RESNET),
    KeyRules(
        "Keras's ResNets",
        r"resnet\d+",
        "conv2_block1_3_bn.weight",
        _KERAS,
        adaptations=(fold_convolution_biases, reversed_input("backbone.stem.conv.weight")),
        settings={"stride_in": "1x1", "norm_eps": 1.001e-5},
    ),
    KeyRules("torchvision's and timm's DenseNets", r"densenet\d+", "features.conv0.weight", _DENSENET),
    KeyRules(
        "Keras's DenseNets", r"densenet\d+", "pool2_conv.weight", _DENSENET_KERAS, settings={"norm_eps": 1.001e-5}
    ),
    KeyRules(
        "timm's CSPNets", r"csp(resnet50|resnext50|darknet53)", "stages.0.conv_transition_b.conv.weight", _csp_rules(5)
    ),
)
