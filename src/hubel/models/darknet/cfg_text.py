"""Darknet's published cfgs by their layers, without the settings of training: pieces that the families put together."""

from __future__ import annotations

from collections.abc import Mapping

ANCHORS_TINY = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
ANCHORS_V3 = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
ANCHORS_V4 = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
_CLASSES = 80


def section(kind: str, **options: object) -> str:
    """A section."""
    return f"[{kind}]\n" + "".join(f"{name}={value}\n" for name, value in options.items())


def net(side: int) -> str:
    """``[net]`` for square images."""
    return section("net", width=side, height=side, channels=3)


def conv(filters: int, size: int, stride: int = 1, activation: str = "leaky") -> str:
    """A convolution with normalization, which keeps the size at stride 1."""
    return section(
        "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation=activation
    )


POOL = section("maxpool", size=2, stride=2)


def tiny_body() -> str:
    """Six 3×3 convolutions from 16 channels up, each with a pool, the last one of which has stride 1."""
    last = section("maxpool", size=2, stride=1)
    return "".join(conv(16 << number, 3) + (last if number == 5 else POOL) for number in range(6))


def detect(mask: str, anchors: str, options: Mapping[str, object], activation: str = "linear") -> str:
    """A 1×1 convolution and the boxes of COCO's classes that it stands for."""
    filters = len(mask.split(",")) * (5 + _CLASSES)
    last = section("convolutional", size=1, stride=1, pad=1, filters=filters, activation=activation)
    count = len(anchors.split(",")) // 2
    return last + section("yolo", mask=mask, anchors=anchors, classes=_CLASSES, num=count, **options)


def spp() -> str:
    """Spatial pyramid pooling: maxima in windows of 13, 9 and 5 pixels beside the maps themselves."""
    pools = [section("maxpool", stride=1, size=size) for size in (5, 9, 13)]
    between = [section("route", layers=-2), section("route", layers=-4), section("route", layers="-1,-3,-5,-6")]
    return "".join(pool + route for pool, route in zip(pools, between, strict=True))
