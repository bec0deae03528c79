"""Peaks of this machine's processor, measured: multiplications and bytes per second.

The peak of a precision is that of the best of a few kernels that do nothing but multiply: a product of two large
matrices and a convolution as in the middle of a residual network, in torch, and the same convolution in OpenVINO, which
alone has kernels of int8. The bandwidth is that of a copy of an array much larger than the caches, by all threads,
the bytes read and the bytes written both counted (as STREAM counts them, McCalpin 1995).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from hubel.analysis.roofline import MachineLimits
from hubel.inference.engines.openvino import core, openvino
from hubel.inference.engines.torch import dtype_of
from hubel.inference.precision import bfloat16_gain
from hubel.timing import per_second

_SIDE = 1536  # of the matrices
_CHANNELS, _MAP, _IMAGES = 256, 28, 4
_CONVOLUTION_MACS = _MAP * _MAP * _CHANNELS * _CHANNELS * 9  # of one image, with weights of 3 × 3
_LAYERS = 4  # of OpenVINO's network, so that its input and output do not matter
_COPIED_BYTES = 256 << 20


class Kernel(NamedTuple):
    """A computation, and the multiply-accumulates that it takes."""

    run: Callable[[], Any]
    macs: int


def measure_limits(threads: int | None, seconds: float) -> MachineLimits:
    """Measure the processor's peaks and its bandwidth, ``seconds`` for each kernel.

    A precision that is not faster than float32 is only emulated by the processor; it is left out. ``threads`` are set
    for the whole process, as torch has it; all cores by default.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    threads = torch.get_num_threads()
    peaks = {"fp32": _peak([*torch_kernels("fp32"), *openvino_kernels("fp32", threads)], seconds)}
    if bfloat16_gain(torch.device("cpu")) > 1:
        peaks["bf16"] = _peak([*torch_kernels("bf16"), *openvino_kernels("bf16", threads)], seconds)
    if kernels := openvino_kernels("int8", threads):
        peaks["int8"] = _peak(kernels, seconds)
    limits = {name: peak for name, peak in peaks.items() if name == "fp32" or peak > peaks["fp32"]}
    return MachineLimits(limits, copy_bandwidth(_COPIED_BYTES, seconds), threads)


def torch_kernels(precision: str) -> list[Kernel]:
    """Torch's matrix product and convolution."""
    dtype = dtype_of(precision)
    matrix = torch.randn(_SIDE, _SIDE).to(dtype)
    maps = torch.randn(_IMAGES, _CHANNELS, _MAP, _MAP).to(dtype, memory_format=torch.channels_last)
    weights = torch.randn(_CHANNELS, _CHANNELS, 3, 3).to(dtype, memory_format=torch.channels_last)
    return [
        Kernel(partial(torch.matmul, matrix, matrix), _SIDE**3),
        Kernel(partial(functional.conv2d, maps, weights, padding=1), _IMAGES * _CONVOLUTION_MACS),
    ]


def openvino_kernels(precision: str, threads: int) -> list[Kernel]:
    """OpenVINO's convolution; none if OpenVINO is missing or its plugin does not compute in the precision."""
    try:
        if precision.upper() not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return []
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        request = core().compile_model(_convolutions(precision == "int8"), "CPU", options).create_infer_request()
    except (ImportError, RuntimeError):
        return []
    maps = np.random.default_rng(0).uniform(0, 255, (1, _CHANNELS, _MAP, _MAP)).astype(np.float32)
    return [Kernel(partial(request.infer, [maps]), _LAYERS * _CONVOLUTION_MACS)]


def copy_bandwidth(size: int, seconds: float) -> float:
    """Bytes per second, read and written, of the fastest copy of ``size`` bytes by all threads."""
    source, target = torch.zeros(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)
    return per_second(2 * size, _fastest(partial(target.copy_, source), seconds))


def _convolutions(quantized: bool) -> Any:
    """A chain of convolutions with ReLU; quantized as NNCF would, so that OpenVINO runs it in int8."""
    ov = openvino()
    from openvino import opset13 as op

    size = (_CHANNELS, _CHANNELS, 3, 3)
    weights = np.random.default_rng(0).integers(-127, 128, size, dtype=np.int8)
    scale = np.full((_CHANNELS, 1, 1, 1), 1e-4, np.float32)
    pixels = op.parameter([1, _CHANNELS, _MAP, _MAP], ov.Type.f32)
    maps = pixels
    for _ in range(_LAYERS):
        if quantized:
            ends = np.float32(0), np.float32(255)
            maps = op.fake_quantize(maps, *ends, *ends, 256)
            kernel = op.multiply(op.convert(op.constant(weights), "f32"), op.constant(scale))
        else:
            kernel = op.constant(weights * scale)
        maps = op.relu(op.convolution(maps, kernel, [1, 1], [1, 1], [1, 1], [1, 1]))
    return ov.Model([maps], [pixels], "convolutions")


def _peak(kernels: list[Kernel], seconds: float) -> float:
    return max(per_second(kernel.macs, _fastest(kernel.run, seconds)) for kernel in kernels)


def _fastest(run: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest of the runs that fit in ``seconds``, after one to warm up; of two at least.

    The fastest, not the median: what is asked for is what the processor can do when nothing else is on it.
    """
    times: list[float] = []
    with torch.inference_mode():
        run()
        while len(times) < 2 or sum(times) < seconds:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return min(times)
