"""CSPNets as timm names them."""

from __future__ import annotations

from hubel.weights.key_rules.key_rules import KeyRules, Rules

_UNIT = {"conv": "conv", "bn": "norm"}
_PARTS = {
    "conv_down": "downsample",
    "conv_exp": "partial.split",
    "conv_transition_b": "partial.transition",
    "conv_transition": "partial.merge",
}


def _rules(stages: int) -> Rules:
    rules = [(rf"stem\.conv1\.{theirs}", f"backbone.stem.{ours}") for theirs, ours in _UNIT.items()]
    for stage in range(stages):
        for theirs, ours in _UNIT.items():
            rules += [
                (rf"stages\.{stage}\.{part}\.{theirs}", f"backbone.stage{stage + 1}.{our_part}.{ours}")
                for part, our_part in _PARTS.items()
            ]
            unit = rf"stages\.{stage}\.blocks\.(\d+)\.conv(\d)\.{theirs}"
            rules.append((unit, rf"backbone.stage{stage + 1}.partial.block.\1.conv\2.{ours}"))
    return (*rules, (r"head\.fc", "head.classifier"))


FORMATS = (
    KeyRules(
        "timm's CSPNets", r"csp(resnet50|resnext50|darknet53)", "stages.0.conv_transition_b.conv.weight", _rules(5)
    ),
)
