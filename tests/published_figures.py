"""What is published of each architecture, and what the sweep has to know of it. One row an architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row.

    Attributes:
        parameters: of the network with its own number of classes, without auxiliary classifiers; from the paper,
            torchvision's metadata, timm's tables or Keras's. Where no one publishes a figure, what the paper's
            layers imply.
        smallest: side of the smallest images that the sweep gives it, in pixels.
        lost: pixels of a map's side that convolutions and pooling without padding cost, at most, seen at the
            image's scale.
        fixed_size: its dense layers are made for one image size.
    """

    parameters: int
    smallest: int = 32
    lost: int = 0
    fixed_size: bool = False


PUBLISHED = {
    "lenet5": Published(60_000, lost=12, fixed_size=True),
    "lenet5_modern": Published(61_706, lost=12, fixed_size=True),
    "simple_cnn": Published(1_413_834, fixed_size=True),
    "alexnet": Published(60_965_224, smallest=67, lost=35),
    "alexnet_owt": Published(61_100_840, smallest=63, lost=31),
    "zfnet": Published(62_357_608, smallest=47, lost=15),
    "vgg11": Published(132_863_336),
    "vgg13": Published(133_047_848),
    "vgg16": Published(138_357_544),
    "vgg19": Published(143_667_240),
    "googlenet": Published(6_998_552),
    "googlenet_bn": Published(6_624_904),
    "bn_inception": Published(11_278_528),
    "se_inception": Published(11_931_622),
    "inception_v3": Published(23_834_568, smallest=75, lost=43),
    "inception_v4": Published(42_679_816, smallest=75, lost=43),
    "inception_resnet_v2": Published(55_843_464, smallest=75, lost=43),
    "inception_resnet_v2_paper": Published(32_433_928, smallest=75, lost=43),
    "xception": Published(22_855_952, lost=5),
    "resnet18": Published(11_689_512),
    "resnet34": Published(21_797_672),
    "resnet50": Published(25_557_032),
    "resnet101": Published(44_549_160),
    "resnet152": Published(60_192_808),
    "resnext50_32x4d": Published(25_028_904),
    "resnext101_32x8d": Published(88_791_336),
    "se_resnet50": Published(28_088_024),
    "se_resnet101": Published(49_326_872),
    "se_resnet152": Published(66_821_848),
    "senet154": Published(115_088_984),
    "densenet121": Published(7_978_856),
    "densenet169": Published(14_149_480),
    "densenet201": Published(20_013_928),
    "densenet264": Published(33_337_704),
    "cspresnet50": Published(21_616_168),
    "cspresnext50": Published(20_569_896),
    "cspdarknet53": Published(27_642_184),
    "mobilenet_v1": Published(4_231_976),
    "mobilenet_v2": Published(3_504_872),
    "mobilenet_v3_small": Published(2_542_856),
    "mobilenet_v3_large": Published(5_483_032),
    "efficientnet_b0": Published(5_288_548),
    "efficientnet_b1": Published(7_794_184),
    "efficientnet_b2": Published(9_109_994),
    "efficientnet_b3": Published(12_233_232),
    "efficientnet_b4": Published(19_341_616),
    "efficientnet_b5": Published(30_389_784),
    "efficientnet_b6": Published(43_040_704),
    "efficientnet_b7": Published(66_347_960),
    "efficientnet_lite0": Published(4_652_008),
    "efficientnet_lite1": Published(5_416_680),
    "efficientnet_lite2": Published(6_092_072),
    "efficientnet_lite3": Published(8_197_096),
    "efficientnet_lite4": Published(13_006_568),
}
