"""Device and precision of a network in torch: the precision is decided by measuring the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hubel.errors import ModelError
from hubel.inference.engines.base import Precision, canonical
from hubel.timing import computing_clock, seconds_per_run, speedup

# bfloat16 keeps 8 bits of the significand: it must pay clearly before probabilities change in their third digit.
_WORTHWHILE = 1.3
_EMULATED = 0.25  # of the speed of float32, by a small matrix product: 0.02 where emulated, from 0.74 with AMX


def choose_precision(device: torch.device, precision: str = "auto") -> Precision:
    """The requested precision, or for ``"auto"`` the one that a short probe finds faster.

    Raises:
        UsageError: torch does not compute in it: ``"fp32"``, ``"bf16"``, and on a GPU ``"fp16"`` are available.
    """
    name = canonical(precision, ("fp32", "bf16") if device.type == "cpu" else ("fp32", "bf16", "fp16"))
    if name != "auto":
        return Precision(name)
    gain = bfloat16_gain(device)
    if gain == 0:
        return Precision("fp32", f"bf16 does not run on {device}")
    reason = f"bf16 runs at {gain:.2g} times the speed of fp32 here"
    return Precision("bf16" if gain >= _WORTHWHILE else "fp32", reason)


def bfloat16_pays(device: torch.device) -> bool:
    """Check if bfloat16 is clearly faster than float32 on ``device``; takes a few hundredths of a second."""
    return bfloat16_gain(device) >= _WORTHWHILE


def bfloat16_gain(device: torch.device) -> float:
    """Speed of bfloat16 over that of float32 on a CPU or CUDA ``device``; 0 elsewhere and where it does not run.

    A processor without bfloat16 instructions emulates them up to 500 times slower. A small matrix product is timed
    first, and a convolution of a network's size only if that has not ruled bfloat16 out. One thread measures, as
    threads that wait for each other on a busy machine would hide the difference.
    """
    if device.type not in ("cpu", "cuda"):
        return 0.0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = torch.randn(128, 128, device=device)
        gain = _gain(device, lambda a, b: a @ b, matrix, matrix)
        if gain < _EMULATED:
            return gain
        signal = torch.randn(4, 128, 28, 28, device=device).contiguous(memory_format=torch.channels_last)
        kernels = torch.randn(128, 128, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
        return _gain(device, partial(functional.conv2d, padding=1), signal, kernels)
    except RuntimeError:  # the device has no bfloat16 kernels
        return 0.0
    finally:
        torch.set_num_threads(threads)


def _gain(device: torch.device, operation: Callable[[Tensor, Tensor], Tensor], *operands: Tensor) -> float:
    """Seconds in float32 over seconds in bfloat16, each the best of a few runs after one to warm up."""
    clock = computing_clock() if device.type == "cpu" else time.perf_counter

    def seconds(dtype: torch.dtype) -> float:
        first, second = (operand.to(dtype) for operand in operands)

        def run() -> None:
            operation(first, second)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        with torch.inference_mode():
            return seconds_per_run(run, clock)

    return speedup(seconds(torch.float32), seconds(torch.bfloat16))


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``; ``"auto"`` takes a GPU where there is one.

    Raises:
        ModelError: the name is none of these, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"unknown device {name!r}", "use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"{name}: this machine has {torch.cuda.device_count()} CUDA devices", "use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("mps: this machine has no Metal device", "use --device cpu")
    return device
