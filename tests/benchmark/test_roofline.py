"""Costs against torch's own counter and a count by hand; bounds against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hubel.analysis.roofline import Bound, MachineLimits, NetworkCost, bound, cost
from hubel.benchmark.hardware_peaks import copy_bandwidth, measure_limits, openvino_kernels, torch_kernels
from hubel.inference.engines.openvino import core


def _flops(run: object) -> int:
    with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()  # type: ignore[operator]
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "efficientnet_b0"])
def test_multiplications_are_half_of_what_torch_counts_as_operations(name: str) -> None:
    network = getattr(torchvision.models, name)(weights=None).eval()
    assert 2 * cost(network, (3, 96, 96)).macs == _flops(lambda: network(torch.zeros(1, 3, 96, 96)))


def test_what_is_moved_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 5)
    ).eval()
    found = cost(network, (3, 8, 8))
    assert found.macs == 8 * 8 * 8 * 3 * 9 + 128 * 5
    # Kernels and biases; scale, shift, mean, variance and a counter of batch normalization; the dense layer.
    assert found.weights == pytest.approx(8 * 27 + 8 + 4 * 8 + 128 * 5 + 5, abs=2)
    # Read: 3 maps. Written and read again: 8 maps of the convolution with what follows it, 8 pooled ones, 5 scores.
    assert found.moved == 3 * 64 + 2 * (8 * 64 + 8 * 16 + 5)
    assert found.bytes_an_image("fp32", 1) == 4 * (found.moved + found.weights)
    assert found.bytes_an_image("int8", 4) == found.moved + found.weights / 4


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.first(maps)
        return torch.cat([maps, maps + self.second(maps)], 1)


def test_sums_and_concatenations_move_nothing_of_their_own() -> None:
    found = cost(_Residual().eval(), (4, 6, 6))
    assert found.moved == 4 * 36 + 2 * (4 * 36 + 4 * 36)
    assert found.weights == 4 * 4 * 9 + 4 + 4 * 4


def test_the_slower_of_the_two_binds() -> None:
    machine = MachineLimits({"fp32": 100e9, "bf16": 200e9}, 10e9, threads=2)
    network = NetworkCost(macs=1_000_000_000, weights=10_000_000, moved=20_000_000)
    # 1 GMAC at 100 GMAC/s: 10 ms. 30 million numbers of 4 bytes at 10 GB/s: 12 ms; 2.5 million less for 8 of each.
    assert bound(network, machine, "fp32", 1) == Bound(pytest.approx(1 / 0.012), "memory")
    assert bound(network, machine, "fp32", 8) == Bound(pytest.approx(1 / 0.010), "compute")
    # 5 ms against 6 ms and 4.25 ms.
    assert bound(network, machine, "bf16", 1) == Bound(pytest.approx(1 / 0.006), "memory")
    assert bound(network, machine, "bf16", 8) == Bound(pytest.approx(1 / 0.005), "compute")
    assert bound(network, machine, "int8") is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kernels_multiply_as_often_as_they_say(precision: str) -> None:
    for kernel in torch_kernels(precision):
        assert 2 * kernel.macs == _flops(kernel.run)


def test_openvino_multiplies_in_the_format_that_is_asked_for() -> None:

    has = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, capability, run_in in (("fp32", "FP32", "f32"), ("bf16", "BF16", "bf16"), ("int8", "INT8", "u8")):
        kernels = openvino_kernels(precision, threads=1)
        assert bool(kernels) == (capability in has)
        for kernel in kernels:
            request = kernel.run.func.__self__  # type: ignore[attr-defined]
            layers = [node.get_rt_info() for node in request.get_compiled_model().get_runtime_model().get_ops()]
            convolutions = [row for row in layers if row["layerType"].astype(str) == "Convolution"]
            assert {row["runtimePrecision"].astype(str) for row in convolutions} == {run_in}
            # Output pixels of all layers, each with 256 × 3 × 3 weights.
            assert kernel.macs == sum(256 * 28 * 28 for _ in convolutions) * 256 * 9


def test_measured_limits_hang_together() -> None:
    threads = torch.get_num_threads()
    try:
        limits = measure_limits(1, seconds=0.0)
    finally:
        torch.set_num_threads(threads)
    assert limits.threads == 1
    assert "fp32" in limits.macs_per_second
    # A format that is no faster than float32 is left out, and an abacus or a supercomputer is a mistake in units.
    assert all(1e8 < speed < 1e14 for speed in limits.macs_per_second.values())
    assert min(limits.macs_per_second.values()) == limits.macs_per_second["fp32"]
    assert 1e8 < copy_bandwidth(1 << 20, 0.0) < 1e13
