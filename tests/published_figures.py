"""What is published of each architecture, and what the sweep has to know of it. One row an architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row.

    Attributes:
        parameters: of the network with its own number of classes, without auxiliary classifiers; from the paper,
            torchvision's metadata, or timm. Where no one publishes a figure, what the paper's layers imply.
        source: where the figure stands: ``"torchvision NAME"``: that network's ``meta["num_params"]``; ``"timm NAME"``:
            the size of that network (``test_every_model.py`` looks both up); else the file of tests that adds it up
            from the layers that the paper prints.
        smallest: side of the smallest images that the sweep gives it, in pixels.
        lost: pixels of a map's side that convolutions and pooling without padding cost, at most, seen at the
            image's scale.
        fixed_size: its dense layers are made for one image size.
    """

    parameters: int
    source: str
    smallest: int = 32
    lost: int = 0
    fixed_size: bool = False


PUBLISHED = {
    "lenet5": Published(60_000, "test_lenet.py", lost=12, fixed_size=True),
    "lenet5_modern": Published(61_706, "test_lenet.py", lost=12, fixed_size=True),
    "simple_cnn": Published(1_413_834, "test_simple_cnn.py", fixed_size=True),
    "alexnet": Published(60_965_224, "test_alexnet.py", smallest=67, lost=35),
    "alexnet_owt": Published(61_100_840, "torchvision alexnet", smallest=63, lost=31),
    "zfnet": Published(62_357_608, "test_zfnet.py", smallest=47, lost=15),
    # The paper's 2,800,864, which count no scales of normalizations (960), and 1,261 identities with their κ.
    "deepsort_reid": Published(2_963_233, "test_reid.py", fixed_size=True),
    "vgg11": Published(132_863_336, "torchvision vgg11"),
    "vgg13": Published(133_047_848, "torchvision vgg13"),
    "vgg16": Published(138_357_544, "torchvision vgg16"),
    "vgg19": Published(143_667_240, "torchvision vgg19"),
    "googlenet": Published(6_998_552, "test_googlenet.py"),
    "googlenet_bn": Published(6_624_904, "torchvision googlenet"),
    "bn_inception": Published(11_278_528, "test_se_inception.py"),
    "se_inception": Published(11_931_622, "test_se_inception.py"),
    "inception_v3": Published(23_834_568, "timm inception_v3", smallest=75, lost=43),
    "inception_v4": Published(42_679_816, "timm inception_v4", smallest=75, lost=43),
    "inception_resnet_v2": Published(55_843_464, "timm inception_resnet_v2", smallest=75, lost=43),
    "inception_resnet_v2_paper": Published(32_433_928, "test_inception_v4.py", smallest=75, lost=43),
    "xception": Published(22_855_952, "timm legacy_xception", lost=5),
    "resnet18": Published(11_689_512, "torchvision resnet18"),
    "resnet34": Published(21_797_672, "torchvision resnet34"),
    "resnet50": Published(25_557_032, "torchvision resnet50"),
    "resnet101": Published(44_549_160, "torchvision resnet101"),
    "resnet152": Published(60_192_808, "torchvision resnet152"),
    "resnext50_32x4d": Published(25_028_904, "torchvision resnext50_32x4d"),
    "resnext101_32x8d": Published(88_791_336, "torchvision resnext101_32x8d"),
    "se_resnet50": Published(28_088_024, "timm seresnet50"),
    "se_resnet101": Published(49_326_872, "timm seresnet101"),
    "se_resnet152": Published(66_821_848, "timm seresnet152"),
    "senet154": Published(115_088_984, "timm senet154"),
    "densenet121": Published(7_978_856, "torchvision densenet121"),
    "densenet169": Published(14_149_480, "torchvision densenet169"),
    "densenet201": Published(20_013_928, "torchvision densenet201"),
    "densenet264": Published(33_337_704, "test_densenet.py"),
    "cspresnet50": Published(21_616_168, "timm cspresnet50"),
    "cspresnext50": Published(20_569_896, "timm cspresnext50"),
    "cspdarknet53": Published(27_642_184, "timm cspdarknet53"),
    "mobilenet_v1": Published(4_231_976, "timm mobilenetv1_100"),
    "mobilenet_v2": Published(3_504_872, "torchvision mobilenet_v2"),
    "mobilenet_v3_small": Published(2_542_856, "torchvision mobilenet_v3_small"),
    "mobilenet_v3_large": Published(5_483_032, "torchvision mobilenet_v3_large"),
    "efficientnet_b0": Published(5_288_548, "torchvision efficientnet_b0"),
    "efficientnet_b1": Published(7_794_184, "torchvision efficientnet_b1"),
    "efficientnet_b2": Published(9_109_994, "torchvision efficientnet_b2"),
    "efficientnet_b3": Published(12_233_232, "torchvision efficientnet_b3"),
    "efficientnet_b4": Published(19_341_616, "torchvision efficientnet_b4"),
    "efficientnet_b5": Published(30_389_784, "torchvision efficientnet_b5"),
    "efficientnet_b6": Published(43_040_704, "torchvision efficientnet_b6"),
    "efficientnet_b7": Published(66_347_960, "torchvision efficientnet_b7"),
    "efficientnet_lite0": Published(4_652_008, "timm tf_efficientnet_lite0"),
    "efficientnet_lite1": Published(5_416_680, "timm tf_efficientnet_lite1"),
    "efficientnet_lite2": Published(6_092_072, "timm tf_efficientnet_lite2"),
    "efficientnet_lite3": Published(8_197_096, "timm tf_efficientnet_lite3"),
    "efficientnet_lite4": Published(13_006_568, "timm tf_efficientnet_lite4"),
}
