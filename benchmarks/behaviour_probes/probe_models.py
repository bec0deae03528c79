"""Networks: weights, outputs, costs, and the command line's own names."""

from __future__ import annotations

from typing import Any

from behaviour_probes.photographs import sample_photographs
from behaviour_probes.sandbox import Sandbox

FAMILIES = """
    lenet5 lenet5_modern simple_cnn alexnet zfnet vgg11 googlenet bn_inception inception_v3 inception_v4
    inception_resnet_v2 resnet18 resnext50_32x4d se_resnet50 senet154 xception densenet121 mobilenet_v1 mobilenet_v2
    mobilenet_v3_small cspresnet50 cspdarknet53 efficientnet_b0 efficientnet_lite0 deepsort_reid localizer
    sliding_window ssd ssd300_vgg16 ssdlite320_mobilenet_v3_large
"""


def weights(sandbox: Sandbox) -> Any:
    """Names of the networks; keys and hashes of their seeded weights."""
    return sandbox.python("weights")


def forward(sandbox: Sandbox) -> Any:
    """What every classifier computes; what untrained detectors find."""
    (sandbox.folder / "models.json").write_text(sandbox.hubel("models", "--json"))
    photograph = sample_photographs(sandbox.folder / "photographs")[0]
    return {"classifiers": sandbox.python("forward", "models.json"), "others": sandbox.python("untrained", photograph)}


def summary(sandbox: Sandbox) -> Any:
    """The layers of a network of each family."""
    found = {"commands": sandbox.python("summary_commands", *FAMILIES.split())}
    found["large batch"] = sandbox.json("summary", "resnet50", "--batch", "32", "--dtype", "bfloat16")
    return {**found, "python": sandbox.python("summaries", "lenet5", "resnet50", "ssd")}


def models(sandbox: Sandbox) -> Any:
    """The choice table."""
    return {"all": sandbox.json("models"), "resnets": sandbox.json("models", "--match", "resnet*", "--all-weights")}


def commands(sandbox: Sandbox) -> Any:
    """Names of commands and options."""
    return sandbox.python("commands")


def boxes(sandbox: Sandbox) -> Any:
    """The boxes' arithmetic."""
    return sandbox.python("boxes")
