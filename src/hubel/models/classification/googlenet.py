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
(7·7·3·8 + 24·64 = 2712 weights, which 112² positions make 34.0 M), as its authors used for their next network
(:mod:`hubel.models.classification.bn_inception`); the layer that the table names has 9408. Inception5a's figures are
both too large, 4c's and 4d's parameters too small, those of 4a, 4b, 4e, 5b slightly so.

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
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU, local_response_norm
from hubel.layers.inception import InceptionModule
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import OddSide, ShareBelowOne

# Table 1: 1×1; 3×3 narrowed, 3×3; 5×5 narrowed, 5×5; projection after pooling.
_MODULES: dict[str, tuple[int, tuple[int, int], tuple[int, int], int]] = {
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
_AUXILIARY_WEIGHT = 0.3
_PYRAMID = {2: "stem", 4: "conv2", 8: "inception3b", 16: "inception4e", 32: "inception5b"}


@dataclass(frozen=True)
class GoogLeNetConfig:
    """Differences between the paper's network and torchvision's.

    Attributes:
        batch_norm: after each convolution, instead of biases and local response normalization.
        kernel: of the branch that has 5×5 in the paper; odd.
        last_pool: side of the windows of the last max pooling.
        auxiliary: whether the two auxiliary classifiers are there.
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
    model = Classifier(backbone, head, feature_info, auxiliary, _AUXILIARY_WEIGHT)
    _initialize(model)
    return model


_PAPER = "Szegedy et al. 2014, arXiv 1409.4842"
_BATCH_NORM = GoogLeNetConfig(batch_norm=True, kernel=3, last_pool=2, dropout=0.2, auxiliary_pool="adaptive")

ARCHITECTURES = (
    Architecture("googlenet", build, GoogLeNetConfig(), 22, f"{_PAPER}, table 1"),
    Architecture("googlenet_bn", build, _BATCH_NORM, 22, f"torchvision.models.googlenet; {_PAPER}"),
)
