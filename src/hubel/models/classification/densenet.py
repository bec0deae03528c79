"""DenseNet (Huang, Liu, van der Maaten, Weinberger 2016, "Densely Connected Convolutional Networks", arXiv
1608.06993).

The paper's table 1, for 224 × 224 input; k = 32 maps a layer. Inside the blocks and transitions normalization and
ReLU come before the convolution:

=========== ======= =========== ============ =========== ============
part        output  121         169          201         264
=========== ======= =========== ============ =========== ============
stem        112×112 7×7, 64, stride 2
pool        56×56   3×3 max, stride 2
stage1      56×56   [1×1, 128; 3×3, 32] ×6 in all four
transition1 28×28   1×1, half of the maps; 2×2 average pool, stride 2
stage2      28×28   [..] ×12 in all four
transition2 14×14   1×1, half of the maps; 2×2 average pool, stride 2
stage3      14×14   [..] ×24    [..] ×32     [..] ×48    [..] ×64
transition3 7×7     1×1, half of the maps; 2×2 average pool, stride 2
stage4      7×7     [..] ×16    [..] ×32     [..] ×32    [..] ×48
top         7×7     normalization, ReLU
head        1×1     average pool, 1000-d dense
maps               1024        1664         1920        2688
parameters         7,978,856   14,149,480   20,013,928  33,337,704
=========== ======= =========== ============ =========== ============

The paper names its networks by their layers with weights, but DenseNet-264 has 265 by the count that gives the
other names: stem, 2 a dense layer, transitions, dense classifier. ``depth`` in the registry says 265. Its number of
parameters is not published; it follows from the table.

In the feature pyramid, strides 4, 8 and 16 are the concatenated maps as the transitions get them, before any
normalization and ReLU; strides 2 and 32 have both behind them.

No known deviations from the paper. Of the initialization it says that it is He's (He et al. 2015,
arXiv 1502.01852), not which of the two equations; as in the authors' code it is that with the fan-out (14), and the
dense layer's biases start at 0.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.init import he_fan_out, initialize
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import Count, Factor, PositiveShare


@dataclass(frozen=True)
class DenseNetConfig:
    """Options of the family.

    Attributes:
        depths: layers in each dense block.
        growth: maps that each layer adds, the paper's k; the stem has twice as many.
        bottleneck: maps of a layer's 1×1 convolution, in multiples of ``growth``.
        compression: output channels of a transition, as a fraction of its input's; the paper's θ.
        se: squeeze and excitation of the maps that each layer adds (Hu et al. 2018, arXiv 1709.01507).
    """

    depths: tuple[Count, ...]
    growth: Count = 32
    bottleneck: Count = 4
    compression: PositiveShare = 0.5
    norm_eps: Factor = 1e-5
    se: bool = False


class PreActivation(nn.Sequential):
    """``activation(norm(maps))`` before a convolution, not after it (He et al. 2016, arXiv 1603.05027, figure 4e)."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__(OrderedDict(norm=norm(channels), activation=ReLU()))


class DenseLayer(nn.Module):
    """Normalization, ReLU, 1×1 convolution, normalization, ReLU, 3×3 convolution (section 3, "Bottleneck layers").

    The 1×1 convolution has ``bottleneck * growth`` output channels; squeeze and excitation, if any, is of the output.
    """

    def __init__(
        self,
        in_channels: int,
        growth: int,
        bottleneck: int = 4,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        se: bool = False,
    ) -> None:
        super().__init__()
        self.before = PreActivation(in_channels, norm)
        # The second normalization follows the first convolution: together they are a unit that can be fused.
        self.reduce = ConvNormActivation(in_channels, bottleneck * growth, 1, norm=norm)
        self.conv = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)
        self.se = SqueezeExcitation(growth) if se else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, growth, H, W)."""
        out: Tensor = self.se(self.conv(self.reduce(self.before(maps))))
        return out


class DenseBlock(nn.Module):
    """Layers ``layer1``, ``layer2``, … that read the block's input and the outputs of all before them (equation 2).

    Arguments are those of :class:`DenseLayer`, and the number of ``layers``. The output has ``in_channels + layers *
    growth`` channels (:attr:`out_channels`).
    """

    def __init__(
        self,
        in_channels: int,
        layers: int,
        growth: int = 32,
        bottleneck: int = 4,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        se: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = in_channels + layers * growth
        for number in range(layers):
            layer = DenseLayer(in_channels + number * growth, growth, bottleneck, norm, se)
            self.add_module(f"layer{number + 1}", layer)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H, W), of which the input is the first."""
        for layer in self.children():
            maps = torch.cat((maps, layer(maps)), dim=1)
        return maps


class Transition(PreActivation):
    """Normalization, ReLU, 1×1 convolution, 2×2 average pooling (section 3, "Pooling layers" and "Compression").

    Maps (N, in_channels, H, W) become (N, out_channels, H // 2, W // 2).
    """

    def __init__(self, in_channels: int, out_channels: int, norm: partial[nn.BatchNorm2d]) -> None:
        super().__init__(in_channels, norm)
        self.add_module("conv", nn.Conv2d(in_channels, out_channels, 1, bias=False))
        self.add_module("pool", nn.AvgPool2d(2))


def build(config: DenseNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A DenseNet for any image size: ``image_size`` changes nothing, as the head averages over positions."""
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    channels = 2 * config.growth
    backbone = nn.Sequential()
    backbone.add_module("stem", ConvNormActivation(in_channels, channels, 7, stride=2, norm=norm))
    backbone.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    feature_info = {2: ("stem", channels)}
    for number, depth in enumerate(config.depths, start=1):
        block = DenseBlock(channels, depth, config.growth, config.bottleneck, norm, config.se)
        backbone.add_module(f"stage{number}", block)
        channels = block.out_channels
        if number < len(config.depths):
            feature_info[2 ** (number + 1)] = (f"stage{number}", channels)
            compressed = max(1, int(channels * config.compression))
            backbone.add_module(f"transition{number}", Transition(channels, compressed, norm))
            channels = compressed
    backbone.add_module("top", PreActivation(channels, norm))
    feature_info[2 ** (len(config.depths) + 1)] = ("top", channels)
    head = ClassificationHead(channels, num_classes)
    model = Classifier(backbone, head, feature_info)
    initialize(model, he_fan_out)
    nn.init.zeros_(head.classifier.bias)
    return model


def _densenet(number: int, *depths: int) -> Architecture:
    layers = 2 * sum(depths) + len(depths) + 1  # and stem, transitions, dense
    source = "Huang et al. 2016, arXiv 1608.06993, table 1"
    return Architecture(f"densenet{number}", build, DenseNetConfig(depths), layers, source)


ARCHITECTURES = (
    _densenet(121, 6, 12, 24, 16),
    _densenet(169, 6, 12, 32, 32),
    _densenet(201, 6, 12, 48, 32),
    _densenet(264, 6, 12, 64, 48),
)
