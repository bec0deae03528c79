"""BN-Inception and SE-Inception: figure 5's layers, the papers' counts, the network written out in torch's functions.

Neither torchvision, timm nor Keras has them.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hubel.layers.inception import InceptionModule
from hubel.models import architecture, create_model
from hubel.models.base import Classifier
from reference_networks import largest_difference, with_live_statistics

# Figure 5: #1×1; #3×3 reduce, #3×3; double #3×3 reduce, double #3×3; pool and projection; and the output that these
# columns give. Printed are 28×28×576 for 3c, 14×14×576 for 4c and 4d, 14×14×1024 for 4e.
FIGURE_5 = {
    "3a": (64, 64, 64, 64, 96, "avg", 32, (256, 28)),
    "3b": (64, 64, 96, 64, 96, "avg", 64, (320, 28)),
    "3c": (0, 128, 160, 64, 96, "max", 0, (576, 14)),
    "4a": (224, 64, 96, 96, 128, "avg", 128, (576, 14)),
    "4b": (192, 96, 128, 96, 128, "avg", 128, (576, 14)),
    "4c": (160, 128, 160, 128, 160, "avg", 128, (608, 14)),
    "4d": (96, 128, 192, 160, 192, "avg", 128, (608, 14)),
    "4e": (0, 128, 192, 192, 256, "max", 0, (1056, 7)),
    "5a": (352, 192, 320, 160, 224, "avg", 128, (1024, 7)),
    "5b": (352, 192, 320, 192, 224, "max", 128, (1024, 7)),
}
# Units of the first dense layers in the authors' SE-BN-Inception.prototxt (github.com/hujie-frank/SENet).
REDUCED = {"3a": 16, "3b": 20, "3c": 36, "4a": 36, "4b": 36, "4c": 38, "4d": 38, "4e": 66, "5a": 64, "5b": 64}


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_and_parameters_of_each_module_are_figure_5s() -> None:
    model = create_model("se_inception").eval()
    signal, sides, modules = torch.zeros(1, 3, 224, 224), {}, {}
    for name, part in model.backbone.named_children():
        before = signal.shape[1]
        with torch.no_grad():
            signal = part(signal)
        if not name.startswith("inception"):
            sides[name] = tuple(signal.shape[1:3])
            continue
        one, narrow3, three, narrow5, double, _, projection, output = FIGURE_5[name.removeprefix("inception")]
        assert tuple(signal.shape[1:3]) == output, name
        channels = output[0]
        weights = before * (one + narrow3 + narrow5 + projection) + 9 * (narrow3 * three + narrow5 * double + double**2)
        norms = 2 * (one + narrow3 + three + narrow5 + 2 * double + projection)
        reduced = REDUCED[name.removeprefix("inception")]
        block = 2 * reduced * channels + reduced + channels
        assert parameters_of(part.excitation) == block, name
        assert parameters_of(part) == weights + norms + block, name
        modules[name] = part
    assert sides == {"stem": (64, 112), "pool1": (64, 56), "conv2": (192, 56), "pool2": (192, 28)}
    assert [name.removeprefix("inception") for name in modules] == list(FIGURE_5)


def test_totals_are_those_that_the_papers_print() -> None:
    """2.03 billion multiplications, 2.04 with SE (Hu et al., table 2); a file of 46 M (their repository)."""
    multiplications = {}
    for se in (False, True):
        model = create_model("se_inception", se=se).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
        multiplications[se] = counter.get_total_flops() / 2
    assert round(multiplications[False] / 1e9, 2) == 2.03
    # Dense layers alone leave 2.03: the block's pooling and its scaling each touch every element of the maps.
    elements = sum(channels * side**2 for *_, (channels, side) in FIGURE_5.values())
    assert round((multiplications[True] + 2 * elements) / 1e9, 2) == 2.04
    file = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.ndim) * 4
    assert round(file / 2**20) == 46
    # Caffe's edition without SE, which also has convolution biases, is known to have 11,295,240.
    plain = create_model("se_inception", se=False)
    assert parameters_of(plain) + sum(m.out_channels for m in plain.modules() if isinstance(m, nn.Conv2d)) == 11295240


def test_the_papers_first_layer_filters_each_colour_eight_times() -> None:
    separable, plain = create_model("bn_inception"), create_model("bn_inception", separable_stem=False)
    # 7·7·3·8 + 24·64 weights in place of 7·7·3·64: GoogLeNet's table 1 prints 2.7K for its first row.
    assert parameters_of(plain) - parameters_of(separable) == 7 * 7 * 3 * 64 - (7 * 7 * 3 * 8 + 24 * 64) == 9408 - 2712
    images = torch.randn(1, 3, 32, 32)
    kernel = separable.backbone.stem[0].weight
    wide = torch.cat([F.conv2d(images[:, c : c + 1], kernel[8 * c : 8 * c + 8], None, 2, 3) for c in range(3)], dim=1)
    assert largest_difference(separable.backbone.stem[0](images), wide) < 1e-5


def unit(state: dict[str, Tensor], name: str, maps: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    maps = F.conv2d(maps, weight, state.get(f"{name}.conv.bias"), stride, weight.shape[-1] // 2)
    statistics = (state[f"{name}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(maps, *statistics, eps=1e-5).relu()


def written_out(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """SE-Inception as the papers describe it, from its tensors: raw scores (N, classes)."""
    maps = F.max_pool2d(unit(state, "backbone.stem", images, 2), 3, 2, 1)
    maps = F.max_pool2d(unit(state, "backbone.conv2.1", unit(state, "backbone.conv2.0", maps)), 3, 2, 1)
    for module, (one, *_, pool, projection, _) in FIGURE_5.items():
        name = f"backbone.inception{module}.branches"
        stride = 1 if one else 2
        stack = [unit(state, f"{name}.1x1", maps)] if one else []
        stack.append(unit(state, f"{name}.3x3.1", unit(state, f"{name}.3x3.0", maps), stride))
        double = unit(state, f"{name}.5x5.1", unit(state, f"{name}.5x5.0", maps))
        stack.append(unit(state, f"{name}.5x5.2", double, stride))
        pooled = F.max_pool2d(maps, 3, stride, 1) if pool == "max" else F.avg_pool2d(maps, 3, stride, 1)
        stack.append(unit(state, f"{name}.pool.1", pooled) if projection else pooled)
        maps = torch.cat(stack, 1)
        block = f"backbone.inception{module}.excitation"
        w1, b1, w2, b2 = (
            state[f"{block}.{key}"] for key in ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
        )
        squeezed = torch.relu(maps.mean((2, 3)) @ w1.flatten(1).T + b1)
        maps = maps * torch.sigmoid(squeezed @ w2.flatten(1).T + b2)[:, :, None, None]
    return maps.mean((2, 3)) @ state["head.classifier.weight"].T + state["head.classifier.bias"]


@pytest.mark.parametrize("size", [64, 75])
def test_scores_equal_the_papers_network_written_out(size: int) -> None:
    model = create_model("se_inception", num_classes=20)
    with_live_statistics(model)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = written_out(model.state_dict(), images)
        assert expected.std() > 0.05
        assert largest_difference(model(images), expected) < 1e-4


def test_depth_is_the_number_of_layers_on_the_longest_path() -> None:
    model = create_model("se_inception")
    modules = [part for part in model.modules() if isinstance(part, InceptionModule)]
    longest = [max(sum(p.ndim == 4 for p in branch.parameters()) for branch in m.branches.values()) for m in modules]
    assert longest == [3] * 10  # figure 5, column "depth"
    assert architecture("se_inception").depth == 3 + sum(longest) + 1


def test_weights_start_as_hes_by_the_fan_in() -> None:
    torch.manual_seed(0)
    model = create_model("se_inception")
    assert isinstance(model, Classifier)
    for part, fan_in in (
        ("stem.conv", 147),
        ("inception5b.branches.5x5.2.conv", 224 * 9),
        ("inception4e.excitation.expand", 66),
    ):
        weight = model.get_submodule(f"backbone.{part}").weight
        assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
