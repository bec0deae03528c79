"""GoogLeNet (Szegedy et al. 2014, "Going Deeper with Convolutions", arXiv 1409.4842).

The paper's table 1, for 224 × 224 input. The columns after the output are channels; "weights" and "multiplications"
are what these layers imply, then what the paper prints (K is 1024, M is 10⁶, biases do not count):

=========== ========== ===== ===== ===== ===== ===== ===== ===== ============== ================
part        output     depth #1×1  #3×3  #3×3  #5×5  #5×5  pool  weights (K)    multiplications
..          ..         ..    ..    red.  ..    red.  ..    proj. computed paper computed paper
=========== ========== ===== ===== ===== ===== ===== ===== ===== ============== ================
stem 7×7/2  112×112×64 1                                         9.2      2.7   118.0 M  34 M
pool1 3×3/2 56×56×64   0
conv2 3×3   56×56×192  2           64    192                     112.0    112   359.7 M  360 M
pool2 3×3/2 28×28×192  0
inception3a 28×28×256  2     64    96    128   16    32    32    159.5    159   128.0 M  128 M
inception3b 28×28×480  2     128   128   192   32    96    64    379.0    380   304.3 M  304 M
pool3 3×3/2 14×14×480  0
inception4a 14×14×512  2     192   96    208   16    48    64    366.8    364   73.6 M   73 M
inception4b 14×14×512  2     160   112   224   24    64    64    438.0    437   87.9 M   88 M
inception4c 14×14×512  2     128   128   256   24    64    64    497.5    463   99.9 M   100 M
inception4d 14×14×528  2     112   144   288   32    64    64    590.5    580   118.5 M  119 M
inception4e 14×14×832  2     256   160   320   32    128   128   847.0    840   170.0 M  170 M
pool4 3×3/2 7×7×832    0
inception5a 7×7×832    2     256   160   320   32    128   128   1018.0   1072  51.1 M   54 M
inception5b 7×7×1024   2     384   192   384   48    128   128   1409.0   1388  70.7 M   71 M
head        1×1×1000   1                                         1000.0   1000  1.0 M    1 M
=========== ========== ===== ===== ===== ===== ===== ===== ===== ============== ================

All pooling is by the maximum; the head is average pooling, dropout of 40 %, a dense layer.

6,998,552 parameters with biases; 13,378,280 with the two auxiliary classifiers on inception4a and inception4d
(section 5), whose losses count 0.3 in training and which prediction leaves out.

Errors in the paper: the figures of the stem are those of a separable convolution with 8 filters a channel
(7·7·3·8 + 24·64 = 2712 weights, which 112² positions make 34.0 M), as its authors used for their next network,
BN-Inception; the layer that the table names has 9408. Inception5a's figures are both too large, 4c's and 4d's
parameters too small, those of 4a, 4b, 4e, 5b slightly so.

Not specified in the paper: the constants of the local response normalization (AlexNet's here), where it lies (after
pool1 and after conv2: figure 3), how pooling rounds (up, by reaching past the end, for table 1's sizes), how weights
start (in both editions He's initialization by the fan-in, arXiv 1502.01852, equation 10, as nothing else keeps the
signal's size through 22 layers; classifiers Gaussian with standard deviation 0.01; biases 0).

``googlenet_bn`` is the edition that torchvision's weights belong to: batch normalization (epsilon 0.001) instead of
biases and local response normalization, 3×3 in place of 5×5, a last pooling of 2×2, dropout of 20 %, auxiliary
classifiers that average 4×4 regions; 6,624,904 parameters, 13,004,888 with auxiliary classifiers. Those weights read
pixels from -1 to 1: torchvision's ``transform_input`` makes that of its usual mean and deviation.

Deviations: auxiliary classifiers of other images than the paper's pool to 4×4 all the same, so that their
dense layers fit.

BN-Inception (Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
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
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU, local_response_norm
from hubel.layers.inception import InceptionModule
from hubel.layers.init import he_fan_in, initialize
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import OddSide, ShareBelowOne

_Modules = dict[str, tuple[int, tuple[int, int], tuple[int, int], int]]

# Table 1: 1×1; 3×3 narrowed, 3×3; 5×5 narrowed, 5×5; projection after pooling.
_MODULES: _Modules = {
    "inception3a": (64, (96, 128), (16, 32), 32),
    "inception3b": (128, (128, 192), (32, 96), 64),
    "inception4a": (192, (96, 208), (16, 48), 64),
    "inception4b": (160, (112, 224), (24, 64), 64),
    "inception4c": (128, (128, 256), (24, 64), 64),
    "inception4d": (112, (144, 288), (32, 64), 64),
    "inception4e": (256, (160, 320), (32, 128), 128),
    "inception5a": (256, (160, 320), (32, 128), 128),
    "inception5b": (384, (192, 384), (48, 128), 128),
}
_AUXILIARY = ("inception4a", "inception4d")
_PYRAMID = {2: "stem", 4: "conv2", 8: "inception3b", 16: "inception4e", 32: "inception5b"}


@dataclass(frozen=True)
class GoogLeNetConfig:
    """Differences between the paper's network and torchvision's.

    Attributes:
        batch_norm: after each convolution, instead of biases and local response normalization.
        kernel: of the branch that has 5×5 in the paper; odd.
        last_pool: side of the windows of the last max pooling.
        auxiliary_pool: ``"5x5"`` (stride 3, on 14×14 maps) or ``"adaptive"`` (4×4 regions of any maps).
        se: squeeze and excitation after each module (Hu et al. 2018, arXiv 1709.01507).
    """

    batch_norm: bool = False
    kernel: OddSide = 5
    last_pool: Literal[2, 3] = 3
    dropout: ShareBelowOne = 0.4
    auxiliary: bool = True
    auxiliary_pool: Literal["5x5", "adaptive"] = "5x5"
    se: bool = False


class AuxiliaryClassifier(nn.Module):
    """Classifies maps from the middle of the network, which teaches what lies below to tell classes apart (section 5).

    5×5 average pooling with stride 3 (14×14 maps to 4×4), 1×1 convolution, dense layer, 70 % dropout, classifier. Maps
    of another size, or with ``adaptive`` all maps, are averaged over 4×4 regions instead.
    """

    def __init__(self, in_channels: int, num_classes: int, adaptive: bool, unit: Any) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.conv = unit(in_channels, 128, 1)
        self.dense = nn.Linear(128 * 4 * 4, 1024)
        self.activation = ReLU()
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Linear(1024, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Raw class scores (N, num_classes) of maps (N, in_channels, H, W)."""
        if self.adaptive or maps.shape[-2:] != (14, 14):
            pooled = functional.adaptive_avg_pool2d(maps, 4)
        else:
            pooled = functional.avg_pool2d(maps, 5, stride=3)
        features = self.activation(self.dense(self.conv(pooled).flatten(1)))
        scores: Tensor = self.classifier(self.dropout(features))
        return scores


def _initialize(model: Classifier) -> None:
    """He's initialization by the fan-in; classifiers begin undecided. Biases are 0."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if name.endswith("classifier"):
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(config: GoogLeNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A GoogLeNet for any image size: ``image_size`` changes no shape."""
    unit = partial(ConvNormActivation, norm=partial(nn.BatchNorm2d, eps=1e-3) if config.batch_norm else None)
    halve = partial(nn.MaxPool2d, stride=2, ceil_mode=True)

    def normalized(*layers: nn.Module) -> nn.Sequential:
        return nn.Sequential(*layers) if config.batch_norm else nn.Sequential(*layers, local_response_norm())

    backbone = nn.Sequential()
    backbone.add_module("stem", unit(in_channels, 64, 7, 2))
    backbone.add_module("pool1", normalized(halve(3)))
    backbone.add_module("conv2", normalized(unit(64, 64, 1), unit(64, 192, 3)))
    backbone.add_module("pool2", halve(3))
    channels = {"stem": 64, "conv2": 192}
    before = 192
    for name, columns in _MODULES.items():
        module = InceptionModule(before, *columns, kernels=(config.kernel,), se=config.se, unit=unit)
        backbone.add_module(name, module)
        channels[name] = before = module.out_channels
        if name == "inception3b":
            backbone.add_module("pool3", halve(3))
        elif name == "inception4e":
            backbone.add_module("pool4", halve(config.last_pool))
    adaptive = config.auxiliary_pool == "adaptive"
    where = _AUXILIARY if config.auxiliary else ()
    auxiliary = {name: AuxiliaryClassifier(channels[name], num_classes, adaptive, unit) for name in where}
    feature_info = {stride: (name, channels[name]) for stride, name in _PYRAMID.items()}
    head = ClassificationHead(before, num_classes, config.dropout)
    model = Classifier(backbone, head, feature_info, auxiliary, auxiliary_weight=0.3)
    _initialize(model)
    return model


# Figure 5: 1×1; 3×3 narrowed, 3×3; double 3×3 narrowed, double 3×3; projection after pooling (0: passed through).
_BN_MODULES: _Modules = {
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
_BN_PYRAMID = {2: "stem", 4: "conv2", 8: "inception3b", 16: "inception4d", 32: "inception5b"}


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
    wide = 8 * in_channels
    filters = nn.Conv2d(in_channels, wide, 7, 2, padding=3, groups=in_channels, bias=False)
    return nn.Sequential(filters, ConvNormActivation(wide, 64, 1))


def build_bn(config: BNInceptionConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A BN-Inception for any image size: ``image_size`` changes no shape."""
    halve = partial(nn.MaxPool2d, 3, stride=2, padding=1)
    backbone = nn.Sequential()
    backbone.add_module("stem", _stem(config, in_channels))
    backbone.add_module("pool1", halve())
    backbone.add_module("conv2", nn.Sequential(ConvNormActivation(64, 64, 1), ConvNormActivation(64, 192, 3)))
    backbone.add_module("pool2", halve())
    channels = {"stem": 64, "conv2": 192}
    before = 192
    for name, columns in _BN_MODULES.items():
        pool: Literal["max", "average"] = "max" if name in _MAX_POOLED else "average"
        stride = 2 if name in _HALVING else 1
        module = InceptionModule(before, *columns, kernels=(3, 3), pool=pool, stride=stride, se=config.se)
        backbone.add_module(name, module)
        channels[name] = before = module.out_channels
    feature_info = {stride: (name, channels[name]) for stride, name in _BN_PYRAMID.items()}
    model = Classifier(backbone, ClassificationHead(before, num_classes, config.dropout), feature_info)
    initialize(model, he_fan_in)
    return model


_PAPER = "Szegedy et al. 2014, arXiv 1409.4842"
_BATCH_NORM = GoogLeNetConfig(batch_norm=True, kernel=3, last_pool=2, dropout=0.2, auxiliary_pool="adaptive")
_FIGURE = "Ioffe and Szegedy 2015, arXiv 1502.03167, figure 5"
_HU = "Hu et al. 2018, arXiv 1709.01507, figure 2"
_SE = BNInceptionConfig(se=True, separable_stem=False)

ARCHITECTURES = (
    Architecture("googlenet", build, GoogLeNetConfig(), 22, f"{_PAPER}, table 1"),
    Architecture("googlenet_bn", build, _BATCH_NORM, 22, f"torchvision.models.googlenet; {_PAPER}"),
    Architecture("bn_inception", build_bn, BNInceptionConfig(), 34, _FIGURE),
    Architecture("se_inception", build_bn, _SE, 34, f"{_HU}; {_FIGURE}"),
)
