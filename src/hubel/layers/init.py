"""The initialization that TensorFlow's networks start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_variadic

_END = math.erf(2 / math.sqrt(2))


def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill a tensor from a normal distribution around 0 that is cut off at two standard deviations.

    It is what TensorFlow's ``truncated_normal`` draws; the variance is 0.774 times that of the whole distribution.
    The same as :func:`torch.nn.init.trunc_normal_` with these ends, but several times as fast: that one draws again
    until all fit.

    Args:
        tensor: changed in place.
        std: standard deviation before cutting off.

    Returns:
        The same tensor.
    """
    if has_torch_function_variadic(tensor):  # as torch.nn.init does: a mode may leave out initializations
        ends = (-2 * std, 2 * std)
        return handle_torch_function(nn.init.trunc_normal_, (tensor,), tensor, 0.0, std, *ends)
    nn.init.uniform_(tensor, -_END, _END)
    with torch.no_grad():
        return tensor.erfinv_().mul_(std * math.sqrt(2))
