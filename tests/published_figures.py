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
    "resnet18": Published(11_689_512),
    "resnet34": Published(21_797_672),
    "resnet50": Published(25_557_032),
    "resnet101": Published(44_549_160),
    "resnet152": Published(60_192_808),
    "efficientnet_lite0": Published(4_652_008),
    "efficientnet_lite1": Published(5_416_680),
    "efficientnet_lite2": Published(6_092_072),
    "efficientnet_lite3": Published(8_197_096),
    "efficientnet_lite4": Published(13_006_568),
}
