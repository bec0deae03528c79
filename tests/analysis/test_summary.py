"""Layer tables against the papers, torchvision's published figures and other counters."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hubel
from hubel.analysis.summary import LayerRow, Summary, count_multiplications, summarize
from hubel.errors import ModelError
from hubel.models import architecture, create_model
from hubel.models.factory import build
from published_figures import PUBLISHED


def _torchvision(name: str) -> nn.Module:
    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None)


def test_lenet5_is_the_papers_table() -> None:
    """LeCun et al. 1998, section II.B: maps, sizes, trainable parameters; connections without the biases'."""
    rows = summarize(create_model("lenet5"), (1, 32, 32)).rows
    seen = [(row.kind, row.output, row.kernel, row.stride, row.activation, row.parameters) for row in rows]
    assert seen == [
        ("convolution", (6, 28, 28), (5, 5), (1, 1), "tanh", 156),
        ("subsampling", (6, 14, 14), (2, 2), (2, 2), "tanh", 12),
        ("convolution", (16, 10, 10), (5, 5), (1, 1), "tanh", 1516),
        ("subsampling", (16, 5, 5), (2, 2), (2, 2), "tanh", 32),
        ("convolution", (120, 1, 1), (5, 5), (1, 1), "tanh", 48120),
        ("fully connected", (84,), None, None, "tanh", 10164),
        ("radial basis", (10,), None, None, None, 0),
    ]
    assert [row.name.split(".")[-1] for row in rows[:6]] == ["c1", "s2", "c3", "s4", "c5", "f6"]
    # The paper's 122,304, 151,600, 48,120 and 10,164 connections, less one bias a unit.
    by_name = {row.name.split(".")[-1]: row.multiplications for row in rows}
    assert by_name["c1"] == 122_304 - 6 * 28 * 28
    assert by_name["c3"] == 151_600 - 16 * 10 * 10
    assert by_name["c5"] == 48_120 - 120
    assert by_name["f6"] == 10_164 - 84
    assert [row.receptive_field for row in rows] == [5, 6, 14, 16, 32, 32, 32]


def test_the_textbooks_costs_of_one_layer() -> None:
    """200 maps of 5×5 on a 150×100 RGB image: 15,200 parameters, 225 million multiplications, 12 MB."""
    layer = nn.Conv2d(3, 200, 5, padding="same")
    one = summarize(layer, (3, 100, 150))
    (row,) = one.rows
    assert (row.parameters, row.multiplications) == (15_200, 225_000_000)
    assert row.output == (200, 100, 150)
    assert row.activation_bytes == 12_000_000
    hundred = summarize(layer, (3, 100, 150), batch=100)
    assert hundred.rows[0].activation_bytes == 1_200_000_000
    assert hundred.multiplications == 225_000_000
    assert summarize(layer, (3, 100, 150), dtype="float16").rows[0].activation_bytes == 6_000_000


# Ours that torchvision has too, under its name; and the size it evaluates at, where that is not ours.
SAME_AS_TORCHVISIONS = {
    **{name: name for name in (
        "densenet121", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
        "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "inception_v3",
        "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet34", "resnet50", "resnet101",
        "resnet152", "resnext50_32x4d", "resnext101_32x8d", "vgg11", "vgg13", "vgg16", "vgg19",
    )},
    "alexnet_owt": "alexnet",
    "googlenet_bn": "googlenet",
}  # fmt: skip
EVALUATED_AT = {"efficientnet_b2": 288}
FROM_TORCHVISION = ["shufflenet_v2_x1_0", "squeezenet1_1", "mnasnet1_0", "convnext_tiny"]


def _published(data_folder: Path) -> dict[str, tuple[int, float]]:
    """Parameters and billions of multiplications by torchvision's metadata."""
    with (data_folder / "tables" / "torchvision_0.29.1_weights_metrics.csv").open() as file:
        return {row["arch"].lower(): (int(row["num_params"]), float(row["gflops"])) for row in csv.DictReader(file)}


@pytest.mark.data
@pytest.mark.parametrize("name", SAME_AS_TORCHVISIONS)
def test_multiplications_are_torchvisions_published_ones(name: str, data_folder: Path) -> None:
    _, gflops = _published(data_folder)[SAME_AS_TORCHVISIONS[name]]
    channels, size, _ = architecture(name).input
    size = EVALUATED_AT.get(name, size)
    summary = hubel.summary(name, (channels, size, size))
    assert summary.multiplications == pytest.approx(gflops * 1e9, rel=0.01)
    assert sum(row.multiplications for row in summary.rows) == summary.multiplications
    in_rows = sum(row.parameters for row in summary.rows)
    assert in_rows == PUBLISHED[name].parameters  # those of auxiliary classifiers are in no row
    assert (in_rows == summary.parameters) == (name not in ("googlenet_bn", "inception_v3"))


@pytest.mark.data
@pytest.mark.parametrize("name", FROM_TORCHVISION)
def test_parameters_and_multiplications_of_networks_that_are_not_ours(name: str, data_folder: Path) -> None:
    parameters, gflops = _published(data_folder)[name]
    summary = summarize(_torchvision(name), (3, 224, 224))
    assert summary.parameters == parameters
    assert summary.multiplications == pytest.approx(gflops * 1e9, rel=0.01)
    assert sum(row.parameters for row in summary.rows) == parameters
    assert sum(row.multiplications for row in summary.rows) == summary.multiplications


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "simple_cnn", "lenet5_modern"])
def test_multiplications_are_those_of_torchs_own_counter(name: str) -> None:
    model, shape = create_model(name).eval(), architecture(name).input
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, *shape))
    assert summarize(model, shape).multiplications == counter.get_total_flops() // 2
    assert count_multiplications(model, shape) == counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("layer", "multiplications", "kind", "output"),
    [
        (nn.Conv2d(8, 12, 3, groups=4), 12 * 8 * 8 * 2 * 9, "grouped convolution", (12, 8, 8)),
        (nn.Conv2d(8, 16, 3, groups=8, stride=2), 16 * 4 * 4 * 9, "depthwise convolution", (16, 4, 4)),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), 10 * 10 * 8 * 4 * 4, "transposed convolution", (4, 20, 20)),
        (nn.Sequential(nn.Flatten(), nn.Linear(800, 3)), 2400, "fully connected", (3,)),
    ],
)
def test_multiplications_by_hand(layer: nn.Module, multiplications: int, kind: str, output: tuple[int, ...]) -> None:
    (row,) = summarize(layer, (8, 10, 10), batch=2).rows
    assert (row.multiplications, row.kind, row.output) == (multiplications, kind, output)


class _Functional(nn.Module):
    """What networks do between their modules."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(6, 3, 3, 3))
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.norm(nn.functional.conv2d(images, self.kernel, padding=1)))
        both = torch.cat([maps, nn.functional.max_pool2d(maps, 3, 1, 1)], dim=1)
        return nn.functional.adaptive_avg_pool2d(both + both.tanh(), 1)


def test_operations_between_modules_have_rows() -> None:
    rows = summarize(_Functional(), (3, 9, 9)).rows
    assert [(row.kind, row.output, row.activation) for row in rows] == [
        ("convolution", (6, 9, 9), "ReLU"),
        ("max pooling", (6, 9, 9), None),
        ("concatenation", (12, 9, 9), "tanh"),
        ("addition", (12, 9, 9), None),
        ("global average pooling", (12, 1, 1), None),
    ]
    assert rows[0].parameters == 6 * 27 + 12
    assert [row.receptive_field for row in rows] == [3, 5, 5, 5, None]


def test_normalization_and_activation_join_their_convolution_and_residual_sums_stand_alone() -> None:
    rows = {row.name: row for row in summarize(create_model("resnet18"), (3, 224, 224)).rows}
    stem = rows["backbone.stem"]
    assert (stem.kind, stem.activation, stem.padding) == ("convolution", "ReLU", (3, 3))
    assert stem.parameters == 64 * 3 * 49 + 2 * 64
    total = rows["backbone.stage1.0"]
    assert (total.kind, total.activation, total.parameters) == ("addition", "ReLU", 0)
    lite = {row.name: row for row in summarize(create_model("efficientnet_lite0"), (3, 224, 224)).rows}
    assert lite["backbone.stem"].padding == "same"
    assert lite["backbone.stem"].activation == "ReLU6"


def _row_of(summary: Summary, name: str, kind: str) -> LayerRow:
    (found,) = [row for row in summary.rows if row.name == name and row.kind == kind]
    return found


def test_squeeze_and_excitation_is_a_mean_two_layers_and_a_product() -> None:
    """Hu et al. 2018, figure 3, and the piecewise linear gate of Howard et al. 2019, section 5.2 and figure 4."""
    for name, module, activation, gate in (
        ("se_resnet50", "stage1.0.se", "ReLU", "sigmoid"),
        ("efficientnet_b0", "stage1.0.squeeze", "SiLU", "sigmoid"),
        ("mobilenet_v3_small", "stage1.0.squeeze", "ReLU", "hard sigmoid"),
    ):
        summary, path = hubel.summary(name), f"backbone.{module}"
        rows = [row for row in summary.rows if row.name.startswith(path)]
        kinds = ["global average pooling", "convolution", "convolution", "channel-wise multiplication"]
        assert [row.kind for row in rows] == kinds
        assert [row.activation for row in rows] == [None, activation, gate, None]
        assert [row.receptive_field is None for row in rows] == [True, True, True, False]
        assert rows[3].output[1:] != (1, 1) == rows[0].output[1:]


def test_what_the_newer_networks_have_is_called_by_its_name() -> None:
    dense = hubel.summary("densenet121")
    before = _row_of(dense, "backbone.stage1.layer2.before", "batch normalization")
    assert (before.output, before.activation, before.parameters) == ((96, 56, 56), "ReLU", 2 * 96)
    joined = [row.output[0] for row in dense.rows if row.kind == "concatenation" and row.name == "backbone.stage1"]
    assert joined == [96, 128, 160, 192, 224, 256]
    pool = _row_of(dense, "backbone.transition1.pool", "average pooling")
    assert (pool.kernel, pool.stride, pool.padding, pool.output) == ((2, 2), (2, 2), (0, 0), (128, 28, 28))
    mobile = hubel.summary("mobilenet_v3_small")
    assert _row_of(mobile, "backbone.stem", "convolution").activation == "hard swish"
    assert _row_of(mobile, "backbone.stage1.0.depthwise", "depthwise convolution").kernel == (3, 3)
    assert _row_of(hubel.summary("cspdarknet53"), "backbone.stem", "convolution").activation == "leaky ReLU"
    mish = summarize(create_model("cspdarknet53", activation="mish"), (3, 64, 64))
    assert {row.activation for row in mish.rows if row.kind == "convolution"} == {"Mish"}
    alexnet = hubel.summary("alexnet")
    assert [row.kind for row in alexnet.rows[:4]] == [
        "convolution", "local response normalization", "max pooling", "grouped convolution",
    ]  # fmt: skip
    # Szegedy et al. 2015, table 1: 112 pixels to 56 by 3×3 with stride 2, which only windows over the edge give.
    pool = next(row for row in hubel.summary("googlenet").rows if row.kind == "max pooling")
    assert (pool.padding, pool.output) == ("same", (64, 56, 56))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (5, 3, 2)])
def test_sizes_of_poolings_are_torchs(kernel: int, stride: int, padding: int, ceil_mode: bool) -> None:
    for kind in (nn.MaxPool2d, nn.AvgPool2d):
        pooling = kind(kernel, stride, padding, ceil_mode=ceil_mode)
        for size in range(2, 14):
            try:
                expected = pooling(torch.zeros(1, 1, size, size)).shape[2]
            except RuntimeError:
                with pytest.raises(ModelError):
                    summarize(pooling, (1, size, size))
            else:
                assert summarize(pooling, (1, size, size)).rows[0].output[1:] == (expected, expected)


def test_tensors_that_cannot_be_joined_are_an_error_with_a_way_out() -> None:
    class Join(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat((images, nn.functional.avg_pool2d(images, 2)), dim=1)

    with pytest.raises(ModelError, match="1×3×8×8 and 1×3×4×4 cannot be concatenated"):
        summarize(Join(), (3, 8, 8))


def _measured_field(module: nn.Module, size: int) -> int:
    """Width of the window of pixels that the centre unit's value depends on, by its gradient."""
    image = torch.zeros(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    maps = module.double()(image)
    maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2].sum().backward()
    assert image.grad is not None
    columns = image.grad.abs().sum(dim=(0, 1, 2)).nonzero()
    return int(columns.max() - columns.min()) + 1


def _positive(module: nn.Module) -> nn.Module:
    """No weight cancels another, and no maximum or ReLU hides a path."""
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.01)
    return module


class _Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 3, padding=2, dilation=2))
        self.last = nn.Conv2d(4, 4, 3, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.narrow(images) + self.wide(images))


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3, 2)),
        nn.Sequential(nn.Conv2d(3, 4, 3, dilation=3), nn.AvgPool2d(2), nn.Conv2d(4, 4, 5)),
        nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ConvTranspose2d(4, 4, 4, 2), nn.Conv2d(4, 4, 3)),
        _Branches(),
    ],
    ids=["chain", "dilated", "transposed", "branches"],
)
def test_receptive_fields_are_what_gradients_reach(module: nn.Module) -> None:
    stated = summarize(module, (3, 95, 95)).rows[-1].receptive_field
    assert stated == _measured_field(_positive(module), 95)


def _fields(name: str, **options: str) -> list[int]:
    """Receptive fields of one of our architectures, layer after layer, where they are not the whole image."""
    row = architecture(name)
    with torch.device("meta"):
        model = build(row, 1000, row.input[0], row.input[1], options, for_loading=True)
    return [field.receptive_field for field in summarize(model, row.input).rows if field.receptive_field]


# Araujo, Norris and Sim 2019, Distill, "Computing Receptive Fields of Convolutional Neural Networks", table 1, and
# github.com/google-research/receptive_field, RECEPTIVE_FIELD_TABLE.md. Its networks are TF-Slim's: alexnet_v2 is
# torchvision's edition of AlexNet, inception_v2 is BN-Inception, inception_resnet_v2 the wider one, which its weights
# belong to. TF-Slim's ResNets stride at the end of a stage, which gives the fields of the paper's first 1×1, not of
# v1.5.
PUBLISHED_FIELDS = [
    ("alexnet_owt", {}, 195),
    ("vgg11", {}, 150),
    ("vgg16", {}, 212),
    ("bn_inception", {}, 699),
    ("inception_v3", {}, 1311),
    ("inception_v4", {}, 2071),
    ("inception_resnet_v2", {}, 3039),
    ("mobilenet_v1", {}, 315),
    ("resnet50", {"stride_in": "1x1"}, 483),
    ("resnet101", {"stride_in": "1x1"}, 1027),
    ("resnet152", {"stride_in": "1x1"}, 1507),
]


@pytest.mark.parametrize(("name", "options", "field"), PUBLISHED_FIELDS)
def test_receptive_fields_are_the_published_ones(name: str, options: dict[str, str], field: int) -> None:
    assert _fields(name, **options)[-1] == field


def test_receptive_fields_within_bn_inception_are_the_published_ones() -> None:
    rows = {row.name.removeprefix("backbone."): row.receptive_field for row in hubel.summary("bn_inception").rows}
    # The table's MaxPool_2a, MaxPool_3a, Mixed_3b, 3c, 4a to 4e, 5a to 5c.
    parts = (
        "pool1 pool2 inception3a inception3b inception3c inception4a inception4b inception4c inception4d inception4e"
    )
    seen = [rows[part] for part in (*parts.split(), "inception5a", "inception5b")]
    assert seen == [11, 27, 59, 91, 123, 187, 251, 315, 379, 443, 571, 699]


def test_receptive_fields_where_nobody_publishes_them() -> None:
    """By the kernels: k - 1 pixels of the map each, which are so many pixels of the image."""
    # Stem 7 and pool 2 × 2; then 3×3 in each layer, and 2×2 in each transition, at strides 4, 8, 16, 32.
    assert _fields("densenet121")[-1] == 11 + 6 * 2 * 4 + 4 + 12 * 2 * 8 + 8 + 24 * 2 * 16 + 16 + 16 * 2 * 32
    # 3×3 in stem and units, and one with stride 2 before each stage, which sees the stride before it.
    assert _fields("cspdarknet53")[-1] == 3 + 2 * (1 + 2 + 4 + 8 + 16) + 2 * (2 + 2 * 4 + 8 * 8 + 8 * 16 + 4 * 32)
    # The first stages of both are small enough to measure.
    for name, parts in (("densenet121", 4), ("cspdarknet53", 3)):
        part = create_model(name).backbone[:parts].eval()
        if name == "densenet121":
            part[1] = nn.AvgPool2d(3, 2, 1)  # of a maximum's window the gradient reaches one pixel
        assert summarize(part, (3, 95, 95)).rows[-1].receptive_field == _measured_field(_positive(part), 95)


def test_json_has_the_interfaces_keys() -> None:
    row = json.loads(json.dumps(summarize(create_model("lenet5"), (1, 32, 32), name="lenet5").to_json()))
    assert row["model"] == "lenet5" and row["input"] == [1, 32, 32]
    assert {"layers", "parameters", "multiplications", "inference_bytes", "training_bytes"} <= row.keys()
    assert row["layers"][0] == {
        "name": "backbone.c1", "kind": "convolution", "output": [6, 28, 28], "kernel": [5, 5], "stride": [1, 1],
        "padding": [0, 0], "activation": "tanh", "parameters": 156, "multiplications": 117_600,
        "activation_bytes": 18_816, "receptive_field": 5,
    }  # fmt: skip


def test_the_module_is_left_as_it_was() -> None:
    model = create_model("lenet5").train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    summarize(model, (1, 32, 32))
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_shared_modules_count_their_parameters_once() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    summary: Summary = summarize(nn.Sequential(shared, shared), (4, 8, 8))
    rows: tuple[LayerRow, ...] = summary.rows
    assert [row.parameters for row in rows] == [148, 0]
    assert summary.parameters == 148
    assert summary.multiplications == 2 * 64 * 4 * 4 * 9


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 2, 2)])
def test_an_input_that_does_not_fit_is_an_error_with_a_way_out(shape: tuple[int, int, int]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ModelError, match="does not fit Sequential") as caught:
        summarize(network, shape)
    assert "channels, height and width" in caught.value.hint
    with pytest.raises(ModelError, match="dtype"):
        summarize(network, (3, 5, 5), dtype="int8")
