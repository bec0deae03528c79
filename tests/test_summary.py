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

from hubel.errors import ModelError
from hubel.insight.summary import LayerRow, Summary, count_multiplications, summarize
from hubel.models import architecture, create_model


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


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "resnet152", "resnext50_32x4d", "vgg16", "alexnet", "densenet121", "mobilenet_v2",
     "efficientnet_b0", "shufflenet_v2_x1_0"],
)  # fmt: skip
def test_parameters_and_multiplications_are_torchvisions_published_ones(name: str, data_folder: Path) -> None:
    published = {}
    with (data_folder / "tables" / "torchvision_0.29.1_weights_metrics.csv").open() as file:
        for row in csv.DictReader(file):
            published[row["arch"].lower()] = (int(row["num_params"]), float(row["gflops"]))
    parameters, gflops = published[name]
    summary = summarize(_torchvision(name), (3, 224, 224))
    assert summary.parameters == parameters
    assert summary.multiplications == pytest.approx(gflops * 1e9, rel=0.005)
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


def test_receptive_field_of_the_papers_resnet50_is_the_published_one() -> None:
    """Araujo et al. 2019, table 1: 483. Striding in the 3×3 (v1.5), as TF-Slim's do not, gives less."""
    paper = summarize(create_model("resnet50", stride_in="1x1"), (3, 224, 224))
    assert [row.receptive_field for row in paper.rows if row.receptive_field][-1] == 483
    assert paper.rows[-1].receptive_field is None
    # Its backbone's first stages, small enough to measure.
    part = create_model("resnet50").backbone[:4]
    assert summarize(part, (3, 224, 224)).rows[-1].receptive_field == 91
    # VGG-16's figure of the same table.
    vgg = [row.receptive_field for row in summarize(_torchvision("vgg16"), (3, 224, 224)).rows]
    assert [field for field in vgg if field][-1] == 212


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
    with pytest.raises(ModelError, match="does not go through Sequential") as caught:
        summarize(network, shape)
    assert "channels, height and width" in caught.value.remedy
    with pytest.raises(ModelError, match="dtype"):
        summarize(network, (3, 5, 5), dtype="int8")
