"""Which convolution kernels OpenVINO takes on processors with AVX2 and without AVX-512, decided by measuring both.

OpenVINO prefers oneDNN's newer kernels (``brgconv``), which keep the channels of a pixel together. On AVX2 its older
ones, for channels in blocks of eight, can be faster (``benchmarks/convolution_kernels.py``, docs/results.md). What they
compute differs by rounding alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_ATTRIBUTE = "primitives_priority"
_KEY = f"{_ATTRIBUTE}_0"  # as OpenVINO stores it in memory: with its version
_DEFAULT = "brgconv_avx2"  # in the names of the kernels that are compared; those for AVX-512 are named for it
_BLOCKED = "cpu:jit_avx2_1x1"  # the others of this kind follow
_SLOW = ("gemm", "ref")  # in the names of kernels that stand in where there is none of the kind
_RUNS = 15
_WORTHWHILE = 1.03

# Shapes of the weights of layers as in MobileNets and ResNets: the first, then 1 × 1, depthwise, 1 × 1 and 3 × 3.
_LAYERS = (48, 3, 3, 3), (192, 48, 1, 1), (192, 1, 1, 3, 3), (64, 192, 1, 1), (64, 64, 3, 3)

# A file that carries the preference: from Python, OpenVINO takes its attribute, but does not make one.
_CARRIER = f"""<?xml version="1.0"?>
<net name="carrier" version="11"><layers>
<layer id="0" name="maps" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<rt_info><attribute name="{_ATTRIBUTE}" version="0" value="{_BLOCKED}"/></rt_info>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="result" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"""


def compile_fastest(core: Any, network: Any, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Compile an OpenVINO model in float32 for the CPU, with the convolution kernels that are fastest here.

    Returns it, and a note for the log if they are not OpenVINO's own choice, else "".
    """
    if blocked_pays(core):
        preferring = network.clone()
        prefer_blocked(core, preferring)
        compiled = core.compile_model(preferring, "CPU", options)
        if not any(slow in kernel for kernel in kernels(compiled) for slow in _SLOW):
            return compiled, "convolutions in blocks of eight channels, which were faster here"
    return core.compile_model(network, "CPU", options), ""


def prefer_blocked(core: Any, network: Any) -> None:
    """Let the convolutions of an OpenVINO model use the kernels for channels in blocks of eight.

    Grouped convolutions other than depthwise ones are left as they are: they have none of this kind.
    """
    preference = _preference(core)
    for operation in network.get_ops() if preference is not None else ():
        kind = operation.get_type_name()
        if kind == "Convolution" or (kind == "GroupConvolution" and _is_depthwise(operation)):
            operation.set_rt_info(preference, _KEY)


def _is_depthwise(convolution: Any) -> bool:
    weights = convolution.get_input_partial_shape(1)  # (groups, 1, 1, height, width)
    return bool(weights.is_static) and list(weights.to_shape())[1:3] == [1, 1]


@cache
def _preference(core: Any) -> Any:
    """The value of the attribute; None if this version of OpenVINO does not know it."""
    try:
        (carrier,) = core.read_model(_CARRIER.encode()).get_parameters()
        return carrier.get_rt_info()[_KEY]
    except (KeyError, RuntimeError):
        return None


def kernels(compiled: Any) -> set[str]:
    """Names of the kernels of a compiled model's convolutions, as ``"brgconv_avx2_1x1_f32"``."""
    found = set()
    for operation in compiled.get_runtime_model().get_ops():
        about = operation.get_rt_info()
        if about["layerType"].value in ("Convolution", "GroupConvolution"):
            found.add(about["primitiveType"].value)
    return found


@cache
def blocked_pays(core: Any) -> bool:
    """Check, once in a process, if the kernels for blocked channels are faster here.

    False at once where OpenVINO would not take the others: with AVX-512, on ARM. Else the same layers are timed with
    both, which takes 0.2 s, in the seconds that this process computes: other work on the machine changes both alike.
    """
    if _has_avx512():
        return False
    usual = _compiled(core, blocked=False)
    if not any(name.startswith(_DEFAULT) for name in kernels(usual)):
        return False
    runs = [model.create_infer_request() for model in (usual, _compiled(core, blocked=True))]
    pixels = np.zeros(runs[0].get_input_tensor().shape, np.float32)
    seconds = [[_seconds(run, pixels) for run in runs] for _ in range(1 + _RUNS)][1:]
    before, after = (min(column) for column in zip(*seconds, strict=True))
    return bool(0 < after * _WORTHWHILE < before)


def _has_avx512() -> bool:
    """What Linux says, which saves compiling anything; elsewhere the names of the kernels tell."""
    try:
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _seconds(run: Any, pixels: np.ndarray) -> float:
    start = time.process_time()
    run.infer([pixels], share_inputs=True)
    return time.process_time() - start


def _compiled(core: Any, blocked: bool) -> Any:
    import openvino

    opset = openvino.opset13
    generator = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return opset.constant(generator.uniform(-0.1, 0.1, shape).astype(np.float32))

    maps = pixels = opset.parameter([1, 3, 56, 56], np.float32)
    for kernel in _LAYERS:
        pads, strides = [kernel[-1] // 2] * 2, [2, 2] if maps is pixels else [1, 1]
        convolve = opset.group_convolution if len(kernel) == 5 else opset.convolution
        maps = opset.relu(convolve(maps, weights(*kernel), strides, pads, pads, [1, 1]))
    model = openvino.Model([maps], [pixels], "convolutions")
    if blocked:
        prefer_blocked(core, model)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    return core.compile_model(model, "CPU", options)
