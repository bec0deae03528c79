"""ResNets as torchvision and timm name them."""

from __future__ import annotations

from hubel.weights.formats.format import Format, Rules

_RESNET: Rules = (
    (r"conv1", "backbone.stem.conv"),
    (r"bn1", "backbone.stem.norm"),
    (r"layer(\d)\.(\d+)\.conv(\d)", r"backbone.stage\1.\2.conv\3.conv"),
    (r"layer(\d)\.(\d+)\.bn(\d)", r"backbone.stage\1.\2.conv\3.norm"),
    (r"layer(\d)\.(\d+)\.downsample\.0", r"backbone.stage\1.\2.shortcut.conv"),
    (r"layer(\d)\.(\d+)\.downsample\.1", r"backbone.stage\1.\2.shortcut.norm"),
    (r"fc", "head.classifier"),
)

FORMATS = (Format("torchvision's and timm's ResNets", r"resnet\d+", "layer1.0.conv1.weight", _RESNET),)
