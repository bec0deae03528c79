"""EfficientDets as the package effdet names them, on a backbone as timm names it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubel.weights.key_rules import KeyRules, Rules, fold_convolution_biases, x_before_y
from hubel.weights.key_rules.mbconv import TIMM_EFFICIENTNET

if TYPE_CHECKING:
    from torch import Tensor

# The nodes of a layer in the order of computation: P6 to P3, then P4 to P7.
_NODES = (*(f"top_down.{index}" for index in range(4)), *(f"bottom_up.{index}" for index in range(4)))
_NODE_PARTS = {
    r"combine": "",
    r"combine\.resample\.\d\.conv\.conv": ".project.conv",
    r"combine\.resample\.\d\.conv\.bn": ".project.norm",
    r"after_combine\.conv\.conv_dw": ".conv.depthwise",
    r"after_combine\.conv\.conv_pw": ".conv.pointwise.conv",
    r"after_combine\.conv\.bn": ".conv.pointwise.norm",
}
_HEAD_PARTS = {
    r"conv_rep\.(\d+)\.conv_dw": r"convs.\1.depthwise",
    r"conv_rep\.(\d+)\.conv_pw": r"convs.\1.pointwise.conv",
    r"bn_rep\.(\d+)\.(\d+)\.bn": r"norms.\1.\2",
    r"predict\.conv_dw": "predictor.depthwise",
    r"predict\.conv_pw": "predictor.pointwise.conv",
}
_RULES: Rules = (
    *((rf"backbone\.{theirs}", ours) for theirs, ours in TIMM_EFFICIENTNET),
    (r"fpn\.resample\.3\.conv\.conv", "pyramid.coarser.conv"),
    (r"fpn\.resample\.3\.conv\.bn", "pyramid.coarser.norm"),
    *(
        (rf"fpn\.cell\.(\d+)\.fnode\.{number}\.{theirs}", rf"pyramid.layers.\1.{node}{ours}")
        for number, node in enumerate(_NODES)
        for theirs, ours in _NODE_PARTS.items()
    ),
    *(
        (rf"{their_net}\.{theirs}", f"head.{our_net}.{ours}")
        for their_net, our_net in (("class_net", "classifier"), ("box_net", "regressor"))
        for theirs, ours in _HEAD_PARTS.items()
    ),
)


def _fold_shared_biases(state: dict[str, Tensor]) -> None:
    """As :func:`fold_convolution_biases`, of the heads' convolutions, which have a normalization for each level."""
    for key in list(state):
        layer = re.fullmatch(r"(head\.\w+)\.convs\.(\d+)\.pointwise\.conv\.bias", key)
        if layer is not None:
            bias = state.pop(key)
            for mean in [
                key for key in state if re.fullmatch(rf"{layer[1]}\.norms\.{layer[2]}\.\d+\.running_mean", key)
            ]:
                state[mean] = state[mean] - bias


def _offsets_x_first(state: dict[str, Tensor]) -> None:
    for part in ("weight", "bias"):
        key = f"head.regressor.predictor.pointwise.conv.{part}"
        state[key] = x_before_y(state[key])


_GOOGLE = {"same": True, "backbone.same": True, "backbone.norm_eps": 1e-3}
_OWN = {"same": False, "backbone.same": False, "backbone.norm_eps": 1e-5}

KEY_RULES = (
    # Google's, which have biases before normalizations, and those that effdet's author trained with PyTorch's padding.
    KeyRules(
        "effdet's EfficientDets of Google",
        r"efficientdet_d\d",
        "fpn.resample.3.conv.conv.bias",
        _RULES,
        (fold_convolution_biases, _fold_shared_biases, _offsets_x_first),
        _GOOGLE,
    ),
    KeyRules(
        "effdet's EfficientDets",
        r"efficientdet_d\d",
        "class_net.predict.conv_pw.weight",
        _RULES,
        (_offsets_x_first,),
        _OWN,
    ),
)
