"""How exactly this processor computes in int8, and limits on its instruction set that hold for a process."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

# OpenVINO's own kernels read the first, its oneDNN the second (and the third, its name before 2022).
_OPENVINO_LIMIT, *_ONEDNN_LIMITS = ("OV_CPU_MAX_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_MAPS = 64

EXACT_ON = {
    8: "x86 with VNNI (AVX-512 VNNI, AVX-VNNI or AMX) and ARM with dot products",
    7: "every processor",
}
"""By bits of the weights: the processors on which sums of int8 products never overflow."""


def share_isa_limit() -> None:
    """Let a limit on the instruction set, such as ``ONEDNN_MAX_CPU_ISA=AVX2``, hold for all of OpenVINO.

    It reads the limit of its own kernels and that of oneDNN's from two variables, and computes wrong results where they
    differ. Has an effect before OpenVINO is loaded.
    """
    onednn = next((os.environ[name] for name in _ONEDNN_LIMITS if os.environ.get(name)), "")
    if limit := os.environ.get(_OPENVINO_LIMIT) or onednn:
        os.environ.setdefault(_OPENVINO_LIMIT, limit)
        if not onednn:
            os.environ[_ONEDNN_LIMITS[0]] = limit


@cache
def exact_weight_bits() -> int:
    """Bits that weights in int8 may have for OpenVINO's sums of products to be exact on this processor: 8, or 7.

    x86 processors without VNNI add two products of an unsigned and a signed 8-bit integer in 16 bits, where they
    saturate: 255 · 127 · 2 does not fit, 255 · 64 · 2 does. OpenVINO does not tell which instructions it takes, so a
    convolution and a matrix product of the largest integers are computed, which takes about 0.1 s. The answer is true
    for any processor, operating system and limit.
    """
    from hubel.inference.engines.openvino import core, openvino

    library = openvino()
    opset = library.opset13
    pixels = opset.parameter([1, _MAPS, 4, 4], np.float32)
    limits = [np.float32(limit) for limit in (0, 255, 0, 255)]
    convolved = opset.convolution(
        opset.fake_quantize(pixels, *limits, 256), _largest(opset, 4), [1, 1], [0, 0], [0, 0], [1, 1]
    )
    features = opset.parameter([4, _MAPS], np.float32)
    multiplied = opset.matmul(opset.fake_quantize(features, *limits, 256), _largest(opset, 2), False, True)
    model = library.Model([convolved, multiplied], [pixels, features], "sums of int8 products")
    network = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    outputs = network([np.full(port.shape, 255, np.float32) for port in model.inputs])
    exact = all(np.array_equal(found, np.full_like(found, _MAPS * 255 * 127)) for found in outputs.values())
    return 8 if exact else 7


def _largest(opset: Any, dimensions: int) -> Any:
    """Weights of 127 with a scale of 1, as NNCF stores them."""
    ones = (1,) * (dimensions - 2)
    integers = opset.constant(np.full((_MAPS, _MAPS, *ones), 127, np.int8))
    return opset.multiply(opset.convert(integers, np.float32), opset.constant(np.ones((_MAPS, 1, *ones), np.float32)))
