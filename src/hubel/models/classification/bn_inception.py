"""BN-Inception (Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift", arXiv 1502.03167, appendix) and SE-Inception (Hu et al. 2018, "Squeeze-and-Excitation Networks",
arXiv 1709.01507, figure 2), which is BN-Inception with squeeze and excitation, reduction 16, after each module.

The table of figure 5, for 224 × 224 input; each convolution is followed by batch normalization. In the third branch
two 3×3 take the place of GoogLeNet's 5×5; modules of stride 2 have no 1×1 branch, and pass their pooled maps
through. The last column is where figure 5's own "output" differs from what its other columns give:

=========== ========== ===== ===== ===== ====== ====== ================== ==========
part        output     #1×1  #3×3  #3×3  double double pool + proj        figure 5
..          ..         ..    red.  ..    red.   3×3    ..                 ..
=========== ========== ===== ===== ===== ====== ====== ================== ==========
stem 7×7/2  112×112×64
pool1 3×3/2 56×56×64
conv2 3×3   56×56×192        64    192
pool2 3×3/2 28×28×192
inception3a 28×28×256  64    64    64    64     96     average + 32
inception3b 28×28×320  64    64    96    64     96     average + 64
inception3c 14×14×576        128   160   64     96     max + pass through 28×28×576
inception4a 14×14×576  224   64    96    96     128    average + 128
inception4b 14×14×576  192   96    128   96     128    average + 128
inception4c 14×14×608  160   128   160   128    160    average + 128      14×14×576
inception4d 14×14×608  96    128   192   160    192    average + 128      14×14×576
inception4e 7×7×1056         128   192   192    256    max + pass through 14×14×1024
inception5a 7×7×1024   352   192   320   160    224    average + 128
inception5b 7×7×1024   352   192   320   192    224    max + 128
head        1×1×1000
=========== ========== ===== ===== ===== ====== ====== ================== ==========

The head is average pooling and a dense layer; there is no dropout.

``bn_inception`` has the paper's first layer: a separable convolution that filters each colour 8 times (the appendix's
last sentence; GoogLeNet's table counts it so, too). ``se_inception`` has a plain 7×7 there, as its authors' definition
(github.com/hujie-frank/SENet, ``SE-BN-Inception.prototxt``), which also reads figure 5's columns, not its outputs:
608 and 1056 channels. With a projection of 96 instead of 128 in 4c and 4d the outputs would be as printed.

================================== ========== ==========================
network                            parameters multiplications at 224×224
================================== ========== ==========================
bn_inception                       11,278,528 1.949 G
bn_inception, separable_stem=False 11,285,224 2.033 G
se_inception                       11,931,622 2.033 G
================================== ========== ==========================

Hu et al. count 2.03 G for BN-Inception and 2.04 G with SE (table 2), which is the blocks' pooling and scaling counted
in, and publish a file of 46 M.
Ioffe and Szegedy's 13.6 million parameters (section 4.2) are not those of figure 5.

Not specified in the papers: epsilon (torch's 1e-5 here) and how weights start (He's initialization by the fan-in).

Deviations: pooling pads one pixel on each side, as the parallel convolutions of stride 2 do, so that the
branches agree at any image size. Caffe, in which SE-Inception's authors trained, pads the end of even maps instead,
and cannot stack the branches of odd ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.inception import InceptionModule
from hubel.layers.init import he_fan_in, initialize
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import ShareBelowOne

# Figure 5: 1×1; 3×3 narrowed, 3×3; double 3×3 narrowed, double 3×3; projection after pooling (0: passed through).
_MODULES: dict[str, tuple[int, tuple[int, int], tuple[int, int], int]] = {
    "inception3a": (64, (64, 64), (64, 96), 32),
    "inception3b": (64, (64, 96), (64, 96), 64),
    "inception3c": (0, (128, 160), (64, 96), 0),
    "inception4a": (224, (64, 96), (96, 128), 128),
    "inception4b": (192, (96, 128), (96, 128), 128),
    "inception4c": (160, (128, 160), (128, 160), 128),
    "inception4d": (96, (128, 192), (160, 192), 128),
    "inception4e": (0, (128, 192), (192, 256), 0),
    "inception5a": (352, (192, 320), (160, 224), 128),
    "inception5b": (352, (192, 320), (192, 224), 128),
}
_HALVING = ("inception3c", "inception4e")
_MAX_POOLED = (*_HALVING, "inception5b")
_PYRAMID = {2: "stem", 4: "conv2", 8: "inception3b", 16: "inception4d", 32: "inception5b"}
_STEM_MULTIPLIER = 8


@dataclass(frozen=True)
class BNInceptionConfig:
    """Options of the family.

    Attributes:
        se: squeeze and excitation after each module.
        separable_stem: filter each channel of the images 8 times by itself, then mix by a 1×1; otherwise a plain 7×7.
        dropout: fraction of features dropped before the dense layer; the papers have none.
    """

    se: bool = False
    separable_stem: bool = True
    dropout: ShareBelowOne = 0.0


def _stem(config: BNInceptionConfig, in_channels: int) -> nn.Module:
    if not config.separable_stem:
        return ConvNormActivation(in_channels, 64, 7, 2)
    wide = in_channels * _STEM_MULTIPLIER
    filters = nn.Conv2d(in_channels, wide, 7, 2, padding=3, groups=in_channels, bias=False)
    return nn.Sequential(filters, ConvNormActivation(wide, 64, 1))


def build(config: BNInceptionConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A BN-Inception for any image size: ``image_size`` changes no shape."""
    halve = partial(nn.MaxPool2d, 3, stride=2, padding=1)
    backbone = nn.Sequential()
    backbone.add_module("stem", _stem(config, in_channels))
    backbone.add_module("pool1", halve())
    backbone.add_module("conv2", nn.Sequential(ConvNormActivation(64, 64, 1), ConvNormActivation(64, 192, 3)))
    backbone.add_module("pool2", halve())
    channels = {"stem": 64, "conv2": 192}
    before = 192
    for name, columns in _MODULES.items():
        module = InceptionModule(
            before,
            *columns,
            kernels=(3, 3),
            pool="max" if name in _MAX_POOLED else "average",
            stride=2 if name in _HALVING else 1,
            se=config.se,
        )
        backbone.add_module(name, module)
        channels[name] = before = module.out_channels
    feature_info = {stride: (name, channels[name]) for stride, name in _PYRAMID.items()}
    model = Classifier(backbone, ClassificationHead(before, num_classes, config.dropout), feature_info)
    initialize(model, he_fan_in)
    return model


_FIGURE = "Ioffe and Szegedy 2015, arXiv 1502.03167, figure 5"
_HU = "Hu et al. 2018, arXiv 1709.01507, figure 2"
_SE = BNInceptionConfig(se=True, separable_stem=False)

ARCHITECTURES = (
    Architecture("bn_inception", build, BNInceptionConfig(), 34, _FIGURE),
    Architecture("se_inception", build, _SE, 34, f"{_HU}; {_FIGURE}"),
)
