"""ResNets, ResNeXts, SE-ResNets, DenseNets and CSPNets as torchvision, timm and Keras name them."""

from __future__ import annotations

from hubel.weights.key_rules import KeyRules, Rules, conv_norm, fold_convolution_biases, reversed_input

_STAGES: Rules = (
    *conv_norm(
        {
            r"stage\1.\2.conv\3": (r"layer(\d)\.(\d+)\.conv(\d)", r"layer(\d)\.(\d+)\.bn(\d)"),
            r"stage\1.\2.shortcut": (r"layer(\d)\.(\d+)\.downsample\.0", r"layer(\d)\.(\d+)\.downsample\.1"),
        }
    ),
    (r"layer(\d)\.(\d+)\.se(?:_module)?\.fc1", r"backbone.stage\1.\2.se.reduce"),
    (r"layer(\d)\.(\d+)\.se(?:_module)?\.fc2", r"backbone.stage\1.\2.se.expand"),
)
STEM_AND_STAGES: Rules = (*conv_norm({"stem": ("conv1", "bn1")}), *_STAGES)
_RESNET: Rules = (*STEM_AND_STAGES, ("fc", "head.classifier"))
# SENet-154's and ResNet-D's stems have three convolutions; ResNet-D's projections begin with a pooling.
_SENET: Rules = (
    *conv_norm(
        {
            "stem.0": (r"conv1\.0", r"conv1\.1"),
            "stem.1": (r"conv1\.3", r"conv1\.4"),
            "stem.2": (r"conv1\.6", "bn1"),
        }
    ),
    *_STAGES,
    ("fc", "head.classifier"),
)
_RESNET_D: Rules = (
    *conv_norm({r"stage\1.\2.shortcut.1": (r"layer(\d)\.(\d+)\.downsample\.1", r"layer(\d)\.(\d+)\.downsample\.2")}),
    *_SENET,
)
# timm's ``legacy_*``, which the authors trained in Caffe.
_CAFFE_ENDS: Rules = (*_STAGES, ("last_linear", "head.classifier"))
_CAFFE: Rules = (*conv_norm({"stem": (r"layer0\.conv1", r"layer0\.bn1")}), *_CAFFE_ENDS)
_CAFFE_SENET: Rules = (
    *conv_norm({f"stem.{n - 1}": (rf"layer0\.conv{n}", rf"layer0\.bn{n}") for n in (1, 2, 3)}),
    *_CAFFE_ENDS,
)
# Keras counts stages from 2 and units from 1; part 0 of a unit is the projection. Its published files say "probs".
_KERAS: Rules = (
    *conv_norm(
        {
            "stem": ("conv1_conv", "conv1_bn"),
            **{
                f"stage{stage}.0.shortcut": (f"conv{stage + 1}_block1_0_conv", f"conv{stage + 1}_block1_0_bn")
                for stage in range(1, 5)
            },
            **{
                rf"stage{stage}.{unit - 1}.conv\1": (
                    rf"conv{stage + 1}_block{unit}_(\d)_conv",
                    rf"conv{stage + 1}_block{unit}_(\d)_bn",
                )
                for stage, most in enumerate((3, 8, 36, 3), start=1)
                for unit in range(1, most + 1)
            },
        }
    ),
    (r"predictions|probs", "head.classifier"),
)
_CAFFE_POOL = {"pool_ceil_mode": True}


# torchvision's published files are from when parts were named "norm.1"; it now says "norm1".
_DENSE_LAYER = r"features\.denseblock(\d)\.denselayer(\d+)\."
_DENSENET: Rules = (
    *conv_norm({"stem": (r"features\.conv0", r"features\.norm0")}),
    (_DENSE_LAYER + r"norm\.?1", r"backbone.stage\1.layer\2.before.norm"),
    *conv_norm({r"stage\1.layer\2.reduce": (_DENSE_LAYER + r"conv\.?1", _DENSE_LAYER + r"norm\.?2")}),
    (_DENSE_LAYER + r"conv\.?2", r"backbone.stage\1.layer\2.conv"),
    (r"features\.transition(\d)\.(norm|conv)", r"backbone.transition\1.\2"),
    (r"features\.norm5", "backbone.top.norm"),
    (r"classifier", "head.classifier"),
)

# Keras counts the stem as stage 1. Its older files say "conv1/conv" and "fc1000".
_DENSENET_KERAS: Rules = (
    *conv_norm({"stem": (r"conv1[_/]conv", r"conv1[_/]bn")}),
    *(
        (rf"conv{stage + 1}_block(\d+)_{theirs}", rf"backbone.stage{stage}.layer\1.{ours}")
        for stage in range(1, 5)
        for theirs, ours in (
            ("0_bn", "before.norm"),
            ("1_conv", "reduce.conv"),
            ("1_bn", "reduce.norm"),
            ("2_conv", "conv"),
        )
    ),
    *conv_norm({f"transition{number}": (f"pool{number + 1}_conv", f"pool{number + 1}_bn") for number in range(1, 4)}),
    (r"bn", "backbone.top.norm"),
    (r"predictions|fc1000", "head.classifier"),
)


_CSP_PARTS = {
    "downsample": "conv_down",
    "partial.split": "conv_exp",
    "partial.transition": "conv_transition_b",
    "partial.merge": "conv_transition",
}


def _csp_rules() -> Rules:
    units = {"stem": r"stem\.conv1"}
    for stage in range(5):
        units |= {f"stage{stage + 1}.{ours}": rf"stages\.{stage}\.{theirs}" for ours, theirs in _CSP_PARTS.items()}
        units[rf"stage{stage + 1}.partial.block.\1.conv\2"] = rf"stages\.{stage}\.blocks\.(\d+)\.conv(\d)"
    rules = conv_norm({ours: (rf"{theirs}\.conv", rf"{theirs}\.bn") for ours, theirs in units.items()})
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
        "timm's CSPNets", r"csp(resnet50|resnext50|darknet53)", "stages.0.conv_transition_b.conv.weight", _csp_rules()
    ),
)
