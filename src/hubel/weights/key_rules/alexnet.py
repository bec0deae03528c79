"""AlexNet as torchvision names it; neither timm nor Keras has one."""

from __future__ import annotations

from hubel.weights.key_rules.key_rules import KeyRules, Rules

_CONVOLUTIONS = {0: "stage1.0", 3: "stage2.0", 6: "stage3.0", 8: "stage3.1", 10: "stage3.2"}
_RULES: Rules = (
    *((rf"features\.{theirs}", f"backbone.{ours}.conv") for theirs, ours in _CONVOLUTIONS.items()),
    (r"classifier\.1", "head.fc1"),
    (r"classifier\.4", "head.fc2"),
    (r"classifier\.6", "head.classifier"),
)

# A grid of 6 whatever the image size: the dense layers read as much in every such file.
FORMATS = (KeyRules("torchvision's AlexNet", "alexnet_owt", "features.10.weight", _RULES, settings={"grid": 6}),)
