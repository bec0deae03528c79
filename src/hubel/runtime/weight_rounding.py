"""Rounding of convolutions' weights to eight bits so that each kernel keeps its sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hubel.runtime.openvino_library import openvino

if TYPE_CHECKING:
    from openvino import Model

_STEPS = 127  # from zero to the largest weight of a filter, as NNCF quantizes symmetrically


def with_kernel_sums_kept(model: Model) -> Model:
    """A copy whose spatial kernels lie on the grid of int8, so that quantization leaves them as they are.

    Neighbouring pixels are alike, so what a kernel's rounding errors do to its output is mostly their sum. Rounded to
    nearest, 9 errors add up by chance; here as many weights of each kernel as are needed are rounded the other way,
    those that this moves least, until the sum is right to half a step. On EfficientNet-Lite0, whose first depthwise
    layer made a third of all errors, it nearly halves the mean squared error of the int8 network's scores, at no cost
    in speed.

    Args:
        model: in float; it is left as it is.
    """
    opset = openvino().opset13
    copy = model.clone()
    for layer in copy.get_ordered_ops():
        grouped = layer.get_type_name() == "GroupConvolution"
        if not grouped and layer.get_type_name() != "Convolution":
            continue
        constant = layer.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            continue
        # (filters, input maps, taps); a group convolution's are (groups, filters of it, input maps, …).
        filters = int(np.prod(constant.shape[: 2 if grouped else 1]))
        maps = constant.shape[2 if grouped else 1]
        weights = np.array(constant.data, np.float32).reshape(filters, maps, -1)
        if weights.shape[2] > 1:
            rounded = opset.constant(round_keeping_sums(weights).reshape(list(constant.shape)))
            layer.input(1).replace_source_output(rounded.output(0))
    return copy


def round_keeping_sums(weights: np.ndarray) -> np.ndarray:
    """Round to the 255 levels between plus and minus the largest weight of each filter.

    Args:
        weights: float32 (filters, input maps, taps of a kernel).

    Returns:
        The same shape. The sum of each kernel is right to half a level, unless that would take it out of the levels.
    """
    step = np.abs(weights).max(axis=(1, 2), keepdims=True) / _STEPS
    step[step == 0] = 1.0
    exact = weights / step
    levels = np.rint(exact)
    error = exact - levels
    owed = np.rint(error.sum(axis=2, keepdims=True))
    up = _rank(-error) < owed
    down = _rank(error) < -owed
    levels = np.clip(levels + up - down.astype(np.float32), -_STEPS, _STEPS)
    return (levels * step).astype(np.float32)


def _rank(values: np.ndarray) -> np.ndarray:
    """The place of each value among those of its kernel, smallest first."""
    ranks: np.ndarray = values.argsort(axis=2, kind="stable").argsort(axis=2, kind="stable")
    return ranks
