"""GoogLeNet as torchvision names it."""

from __future__ import annotations

from hubel.weights.key_rules.key_rules import KeyRules, Rules

_GOOGLENET: Rules = (
    (r"conv1\.conv", "backbone.stem.conv"),
    (r"conv1\.bn", "backbone.stem.norm"),
    *(
        rule
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
        for rule in (
            (rf"conv2\.{theirs}", f"backbone.conv2.0.{ours}"),
            (rf"conv3\.{theirs}", f"backbone.conv2.1.{ours}"),
            (rf"(inception\w+)\.branch1\.{theirs}", rf"backbone.\1.branches.1x1.{ours}"),
            (rf"(inception\w+)\.branch2\.(\d)\.{theirs}", rf"backbone.\1.branches.3x3.\2.{ours}"),
            (rf"(inception\w+)\.branch3\.(\d)\.{theirs}", rf"backbone.\1.branches.5x5.\2.{ours}"),
            (rf"(inception\w+)\.branch4\.(\d)\.{theirs}", rf"backbone.\1.branches.pool.\2.{ours}"),
            (rf"aux1\.conv\.{theirs}", f"auxiliary.inception4a.conv.{ours}"),
            (rf"aux2\.conv\.{theirs}", f"auxiliary.inception4d.conv.{ours}"),
        )
    ),
    (r"aux1\.fc1", "auxiliary.inception4a.dense"),
    (r"aux1\.fc2", "auxiliary.inception4a.classifier"),
    (r"aux2\.fc1", "auxiliary.inception4d.dense"),
    (r"aux2\.fc2", "auxiliary.inception4d.classifier"),
    (r"fc", "head.classifier"),
)

FORMATS = (KeyRules("torchvision's GoogLeNet", "googlenet_bn", "inception3a.branch1.conv.weight", _GOOGLENET),)
