"""A prepared network computes what the original does: plain torch layers, with real statistics, are the oracle."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.inference import fusion
from hubel.inference.fusion import FoldedConvolution, OneDnnConvolution, fuse
from hubel.inference.precision import choose_precision
from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6
from hubel.models import create_model

_CPU = torch.device("cpu")


def _with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch normalizations as after training: each channel with its own mean, deviation, scale and shift."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
    return model.eval()


def _kinds(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules()}


@pytest.fixture(params=["onednn", "folded only"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways: with oneDNN's fused calls, and as on machines that lack them."""
    if request.param == "folded only":
        monkeypatch.setattr(fusion, "_onednn_fuses", lambda dtype: False)
        return False
    if not fusion._onednn_fuses(torch.float32):
        pytest.skip("this torch has no fused oneDNN convolutions")
    return True


@pytest.mark.parametrize(
    "name", ["cspresnet50", "efficientnet_b0", "efficientnet_lite0", "mobilenet_v3_small", "resnet50"]
)
def test_prepared_networks_give_the_same_scores(name: str, onednn: bool) -> None:
    torch.manual_seed(0)
    model = _with_statistics(create_model(name))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        prepared = fuse(model, _CPU, torch.float32)
        difference = (prepared(images) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-5
    kinds = _kinds(prepared)
    assert ("OneDnnConvolution" in kinds) is onednn and "BatchNorm2d" not in kinds
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())  # left as it was


@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "same", "activation"),
    [
        (3, 1, 1, False, nn.ReLU),
        (1, 2, 1, False, None),
        (3, 2, 16, True, ReLU6),
        (5, 2, 16, True, ReLU6),
        (3, 1, 4, True, nn.SiLU),
        (1, 1, 1, False, nn.Hardswish),
        (3, 1, 4, False, nn.LeakyReLU),
        (3, 2, 1, True, partial(nn.LeakyReLU, 0.2, inplace=True)),
        (3, 1, 1, False, nn.Mish),
        (2, 1, 1, True, nn.ReLU),
        (5, 3, 1, True, nn.Tanh),
    ],
)
def test_every_kind_of_unit(
    kernel: int, stride: int, groups: int, same: bool, activation: type[nn.Module] | None, onednn: bool
) -> None:
    torch.manual_seed(kernel)
    unit = ConvNormActivation(16, 32, kernel, stride, groups=groups, same=same, activation=activation)
    unit = _with_statistics(unit)
    prepared = fuse(nn.Sequential(unit), _CPU, torch.float32)
    with torch.inference_mode():
        for height, width in ((17, 24), (12, 11), (17, 24)):  # each size has its own padding
            images = 3 * torch.randn(2, 16, height, width)
            if same:
                expected = _tensorflow_same(unit, images)
            else:
                expected = functional.conv2d(images, unit.conv.weight, None, stride, kernel // 2, groups=groups)
            expected = functional.batch_norm(
                expected, unit.norm.running_mean, unit.norm.running_var, unit.norm.weight, unit.norm.bias, eps=1e-5
            )
            expected = expected if activation is None else activation()(expected)
            torch.testing.assert_close(prepared(images), expected, atol=1e-4, rtol=1e-4)


def _tensorflow_same(unit: ConvNormActivation, images: Tensor) -> Tensor:
    """TensorFlow's SAME padding, the odd pixel at the end, by the rule in its documentation."""
    kernel, stride = unit.conv.kernel_size[0], unit.conv.stride[0]
    pads = []
    for size in (images.shape[3], images.shape[2]):
        total = max(kernel - stride if size % stride == 0 else kernel - size % stride, 0)
        pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(images, pads), unit.conv.weight, None, stride, groups=unit.conv.groups)


@pytest.mark.parametrize(("name", "left"), [("cspresnet50", 13), ("efficientnet_b0", 0), ("resnet50", 0)])
def test_activations_are_computed_by_convolutions(name: str, left: int) -> None:
    """All but those that follow the sum of one of the 13 bottleneck units, where oneDNN knows ReLU alone."""
    if not fusion._onednn_fuses(torch.float32):
        pytest.skip("this torch has no fused oneDNN convolutions")
    prepared = fuse(create_model(name).eval(), _CPU, torch.float32)
    calls = [prepared.get_submodule(str(node.target)) for node in prepared.graph.nodes if node.op == "call_module"]
    units = [module for module in calls if isinstance(module, OneDnnConvolution)]
    assert units and all(unit._left_over is None for unit in units)
    assert sum(isinstance(module, nn.ReLU | nn.LeakyReLU | nn.SiLU) for module in calls) == left


class _Sums(nn.Module):
    """Sums of all sorts: of two convolutions, with what is used again, of a module with itself, with a smaller map."""

    def __init__(self) -> None:
        super().__init__()
        self.one = ConvNormActivation(8, 8, 3, activation=None)
        self.two = ConvNormActivation(8, 8, 3, activation=None)
        self.three = ConvNormActivation(8, 8, 1, activation=None)
        self.twice = ConvNormActivation(8, 8, 1, activation=None)
        self.active = ConvNormActivation(8, 8, 1)
        self.pooled = ConvNormActivation(8, 8, 1, activation=None)
        self.skip = nn.Identity()
        self.relu = nn.ReLU()
        self.tanh = nn.Tanh()

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.relu(self.one(maps) + self.two(maps))
        again = self.three(maps)
        maps = self.relu(again + self.skip(maps)) * again
        maps = self.tanh(self.twice(maps) - self.relu(maps + self.twice(maps * 2)))
        maps = self.relu(self.active(maps) + maps)
        maps = self.relu(maps + self.pooled(maps.mean(dim=(2, 3), keepdim=True)))
        return maps + 1


def test_sums_keep_their_meaning(onednn: bool) -> None:
    torch.manual_seed(0)
    model = _with_statistics(_Sums())
    images = torch.randn(2, 8, 9, 9)
    with torch.inference_mode():
        expected = model(images)
        torch.testing.assert_close(fuse(model, _CPU, torch.float32)(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "sums"), [("resnet50", 16), ("mobilenet_v2", 10), ("efficientnet_b0", 9)])
def test_sums_of_residual_networks_are_computed_by_convolutions(name: str, sums: int) -> None:
    if not fusion._onednn_fuses(torch.float32):
        pytest.skip("this torch has no fused oneDNN convolutions")
    prepared = fuse(create_model(name).eval(), _CPU, torch.float32)
    assert isinstance(prepared, torch.fx.GraphModule)
    calls = [node.name for node in prepared.graph.nodes if node.op == "call_function"]
    assert not [name for name in calls if "add" in name], "a sum was left to itself"
    assert sum(len(node.args) == 2 for node in prepared.graph.nodes if node.op == "call_module") == sums


class _Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unit = ConvNormActivation(4, 4, 3)

    def forward(self, maps: Tensor) -> Tensor:
        return self.unit(maps) if maps.mean() > 0 else maps


def test_networks_with_control_flow_are_prepared_too() -> None:
    model = _with_statistics(_Untraceable())
    prepared = fuse(model, _CPU, torch.float32)
    with torch.inference_mode():
        for images in (torch.rand(1, 4, 5, 5), -torch.rand(1, 4, 5, 5)):
            torch.testing.assert_close(prepared(images), model(images), atol=1e-5, rtol=1e-5)


def test_bfloat16_follows_float32() -> None:
    torch.manual_seed(0)
    model = _with_statistics(ConvNormActivation(3, 8, 3, 2, same=True))
    images = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        output = fuse(nn.Sequential(model), _CPU, torch.bfloat16)(images.bfloat16())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), model(images).detach(), atol=0.05, rtol=0.05)


def test_normalization_without_statistics_is_left_alone() -> None:
    unit = ConvNormActivation(3, 4, 3, norm=lambda channels: nn.BatchNorm2d(channels, track_running_stats=False)).eval()
    images = torch.randn(2, 3, 6, 6)
    prepared = fuse(nn.Sequential(unit), _CPU, torch.float32)
    torch.testing.assert_close(prepared(images), unit(images))
    assert not {FoldedConvolution, OneDnnConvolution} & {type(module) for module in prepared.modules()}


def test_a_fixed_precision_is_taken_and_an_unknown_one_refused() -> None:
    assert choose_precision(_CPU, "bfloat16").name == choose_precision(_CPU, "bf16").name == "bf16"
    assert choose_precision(_CPU, "float32").name == "fp32"
    with pytest.raises(Exception, match="float8"):
        choose_precision(_CPU, "float8")


@pytest.mark.parametrize(("gain", "name"), [(2.0, "bf16"), (1.05, "fp32"), (0.002, "fp32"), (0.0, "fp32")])
def test_bfloat16_must_pay_clearly(gain: float, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.inference.precision.bfloat16_gain", lambda device: gain)
    assert choose_precision(_CPU).name == name
