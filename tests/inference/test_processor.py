"""What engines compute with on which instruction set, and that int8 is exact where hubel says so.

A limit on the instruction set in the environment makes any newer processor an older one, so a machine tests every kind
of x86 processor up to its own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

import engine_report
from engine_report import PREPROCESSING, RUNS, small_network
from hubel.inference import quantize
from hubel.inference.accuracy_control import probabilities, runner
from hubel.inference.engines.normalized_model import NormalizedModel
from hubel.inference.engines.openvino import to_openvino
from hubel.inference.engines.processor import exact_weight_bits, share_isa_limit
from hubel.inference.engines.selection import BACKENDS
from hubel.inference.quantize import layers_that_may_overflow, post_training_quantization, without_softmax

AVX512 = ("avx512_f", "avx512_bw", "avx512_dq", "avx512_vl")
# By limit: features of the processor that it needs, kernels that it forbids, torch's own limit and what torch then
# reports, precisions that OpenVINO refuses, bits of weights in int8 that are exact.
LIMITS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str, str, tuple[str, ...], int]] = {
    "SSE41": (("sse4_1",), ("avx",), "default", "DEFAULT", ("bf16", "fp16"), 7),
    "AVX2": (("avx2",), ("avx512", "amx"), "avx2", "AVX2", ("bf16", "fp16"), 7),
    "AVX2_VNNI": (("avx_vnni",), ("avx512", "amx"), "avx2", "AVX2", ("bf16", "fp16"), 8),
    "AVX512_CORE": (AVX512, ("amx",), "avx512", "AVX512", ("bf16", "fp16"), 7),
    "AVX512_CORE_VNNI": ((*AVX512, "avx512_vnni"), ("amx",), "avx512", "AVX512", ("bf16", "fp16"), 8),
    "AVX512_CORE_BF16": ((*AVX512, "avx512_vnni", "avx512_bf16"), ("amx",), "avx512", "AVX512", ("fp16",), 8),
    "AVX512_CORE_FP16": ((*AVX512, "avx512_vnni", "avx512_bf16", "avx512_fp16"), ("amx",), "avx512", "AVX512", (), 8),
    "AVX512_CORE_AMX": ((*AVX512, "avx512_fp16", "amx_int8", "amx_bf16"), (), "avx512", "AVX512", (), 8),
}
TOLERANCES = {"fp32": 1e-5, "bf16": 0.02, "fp16": 0.002}


def _pixels(count: int, seed: int) -> np.ndarray:
    """Bright images, whose feature maps have large values."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(100, 255, (count, 1, 1, 3))
    return (colours + rng.normal(0, 40, (count, 32, 32, 3))).clip(0, 255).astype(np.uint8)


def _simulated(quantized: openvino.Model) -> openvino.Model:
    """The quantized network with its weights as floats: computed in float32, without sums that overflow."""
    copy = quantized.clone()
    for layer in copy.get_ordered_ops():
        if layer.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            weights = quantize._constant(layer.input_value(1).get_node())
            layer.input(1).replace_source_output(openvino.opset13.constant(weights).output(0))
    copy.validate_nodes_and_infer_types()
    return copy


def _scores(model: openvino.Model, precision: str, pixels: np.ndarray) -> np.ndarray:
    return probabilities(runner(without_softmax(model), precision), pixels)


def _error(scores: np.ndarray, exact: np.ndarray) -> float:
    """Squared error over squared scores: about 1e-9 where a value between two levels is rounded the other way."""
    return float(np.square(scores - exact).mean() / np.square(exact).mean())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """The folder of ``engine_report``, and the right answers: of torch in double precision, and simulated in int8."""
    folder = tmp_path_factory.mktemp("small")
    network, pixels = small_network(), _pixels(16, seed=1)
    torch.save(network.state_dict(), folder / "network.pt")
    np.save(folder / "pixels.npy", pixels)
    graph = NormalizedModel(network, PREPROCESSING)
    for name in ("openvino", "onnx"):
        backend = BACKENDS[name]
        backend.save(backend.convert(graph), folder)
        for path in folder.glob("model.*"):
            path.rename(path.with_stem("network"))
    converted = to_openvino(network, PREPROCESSING)
    with torch.no_grad():
        images = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)).double()
        answers = {"float": torch.softmax(network.double()(images), 1).numpy()}
    for bits in (7, 8):
        quantized = post_training_quantization(converted, _pixels(64, seed=0), weight_bits=bits)
        openvino.save_model(quantized, folder / f"{bits}-bit.xml", compress_to_fp16=False)
        answers[f"int8, {bits} bits"] = _scores(_simulated(quantized), "fp32", pixels)
    return folder, answers


def _report(folder: Path, limits: dict[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The report of a process with these limits, and the kernels of torch's oneDNN in it."""
    free = {key: value for key, value in os.environ.items() if not key.endswith(("MAX_CPU_ISA", "CPU_CAPABILITY"))}
    command = [sys.executable, engine_report.__file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**free, **limits})
    assert done.returncode == 0, done.stderr
    *verbose, report = done.stdout.splitlines()
    kernels = {line.split(",")[6] for line in verbose if ",exec,cpu,convolution," in line}
    return json.loads(report), kernels


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="limits are those of x86")
@pytest.mark.parametrize("limit", LIMITS)
def test_every_engine_and_precision_on_every_instruction_set(
    limit: str, small: tuple[Path, dict[str, np.ndarray]]
) -> None:
    needed, forbidden, torch_limit, capability, refused, weight_bits = LIMITS[limit]
    has = torch.cpu.get_capabilities()
    if missing := [feature for feature in needed if not has.get(feature)]:
        pytest.skip(f"untested here: this processor has no {', '.join(missing)}")
    folder, answers = small
    # Half of OpenVINO's limit: hubel sets the other.
    report, kernels = _report(folder, {"ONEDNN_MAX_CPU_ISA": limit, "ATEN_CPU_CAPABILITY": torch_limit})
    assert report["torch"] == capability
    for engine, precision in RUNS:
        run = report["runs"][f"{engine} {precision}"]
        if engine == "openvino" and precision in refused:
            assert run == {"refused": f"this processor ({platform.machine()}) has no instructions for {precision}"}
            continue
        assert np.abs(np.array(run["scores"]) - answers["float"]).max() < TOLERANCES[precision], (engine, precision)
        if engine == "openvino":
            assert precision.replace("fp", "f") in run["precisions"]
    for bits in (7, 8):
        run = report["runs"][f"openvino int8, {bits} bits"]
        assert len(run["kernels"]) == 4 and {"u8", "i8"}.issuperset(run["precisions"]), "int8 indeed"
        error = _error(np.array(run["scores"]), answers[f"int8, {bits} bits"])
        # Overflows bring an error of 6e-4.
        assert (error < 1e-6) == (bits <= weight_bits), (bits, error)
    assert report["weight_bits"] == weight_bits
    assert kernels, "torch's own"
    kernels |= {kernel for run in report["runs"].values() for kernel in run.get("kernels", ())}
    assert not [kernel for kernel in kernels if any(name in kernel for name in forbidden)]


def test_the_bits_that_are_exact_are_those_of_the_processors_features() -> None:
    has = torch.cpu.get_capabilities()
    if has["architecture"] != "x86_64" or any(name.endswith("MAX_CPU_ISA") for name in os.environ):
        pytest.skip("torch tells the features of x86 processors, without limits on the instruction set")
    dot_products = has["avx512_vnni"] or has["avx_vnni"] or has["amx_int8"]
    assert exact_weight_bits() == (8 if dot_products else 7)


def test_one_limit_of_openvino_holds_for_both_of_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("OV_CPU_MAX_ISA", "ONEDNN_MAX_CPU_ISA")
    for given in ({}, {both[0]: "AVX2"}, {both[1]: "AVX2"}, {"DNNL_MAX_CPU_ISA": "AVX2"}, dict.fromkeys(both, "AVX2")):
        with monkeypatch.context() as environment:
            for name in (*both, "DNNL_MAX_CPU_ISA"):
                environment.delenv(name, raising=False)
            for name, value in given.items():
                environment.setenv(name, value)
            share_isa_limit()
            limits = {os.environ.get(both[0]), os.environ.get(both[1], os.environ.get("DNNL_MAX_CPU_ISA"))}
            assert limits == ({"AVX2"} if given else {None})
            for name in both:
                os.environ.pop(name, None)


def _integers(model: openvino.Model) -> dict[str, int]:
    """The largest weight of each quantized layer, by the layer's type, the largest layer counting."""
    largest: dict[str, int] = {}
    for layer in model.get_ordered_ops():
        if layer.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            node = layer.input_value(1).get_node()
            while node.get_type_name() != "Constant":
                node = node.input_value(0).get_node()
            if node.get_element_type() == openvino.Type.i8:
                name = layer.get_type_name()
                largest[name] = max(largest.get(name, 0), int(np.abs(node.data.astype(int)).max()))
    return largest


def test_weights_have_seven_bits_where_pairs_of_products_are_added(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, _ = small
    seven, eight = (openvino.Core().read_model(folder / f"{bits}-bit.xml") for bits in (7, 8))
    assert all(_integers(seven)[name] in (63, 64) for name in ("Convolution", "MatMul"))
    assert _integers(seven)["GroupConvolution"] == 127, "products of a depthwise convolution are added one by one"
    assert _integers(eight) == {"Convolution": 127, "GroupConvolution": 127, "MatMul": 127}
    assert layers_that_may_overflow(seven) == ()
    assert len(layers_that_may_overflow(eight)) == 3, "all but the depthwise one"


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions_with_several_filters_a_map_stay_in_float(multiplier: int) -> None:
    """NNCF takes them for depthwise ones, with 8 bits; OpenVINO computes them by matrix products, which overflow."""
    torch.manual_seed(0)
    depthwise = torch.nn.Conv2d(8, 8 * multiplier, 3, groups=8)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), depthwise, torch.nn.Flatten())
    model = to_openvino(network.eval(), PREPROCESSING)
    quantized = post_training_quantization(model, _pixels(32, seed=0), weight_bits=7)
    assert _integers(quantized)["Convolution"] in (63, 64)
    assert layers_that_may_overflow(quantized) == ()
    assert ("GroupConvolution" in _integers(quantized)) == (multiplier == 1)
    pixels = _pixels(8, seed=1)
    assert _error(_scores(quantized, "int8", pixels), _scores(_simulated(quantized), "fp32", pixels)) < 1e-6
