"""Squeeze and excitation, SE-ResNets and SENet-154 against torchvision's block and timm's networks, old and new."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from hubel.inference.fusion import fuse
from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models import architecture, create_model, list_models
from hubel.models.classification.densenet import DenseLayer
from hubel.weights.key_mapping import rename
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

slow = pytest.mark.slow
# Ours, timm's.
PAIRS = (
    ("se_resnet50", "seresnet50"),
    ("se_resnet50", "legacy_seresnet50"),
    pytest.param("se_resnet101", "seresnet101", marks=slow),
    pytest.param("se_resnet101", "legacy_seresnet101", marks=slow),
    pytest.param("se_resnet152", "seresnet152", marks=slow),
    pytest.param("se_resnet152", "legacy_seresnet152", marks=slow),
    pytest.param("senet154", "senet154", marks=slow),
    pytest.param("senet154", "legacy_senet154", marks=slow),
    pytest.param("resnext50_32x4d", "seresnext50_32x4d", marks=slow),
    pytest.param("resnext50_32x4d", "legacy_seresnext50_32x4d", marks=slow),
)


@pytest.mark.parametrize("gate", [nn.Sigmoid, nn.Hardsigmoid])
def test_block_equals_torchvisions(gate: type[nn.Module]) -> None:
    theirs = torchvision.ops.SqueezeExcitation(32, 8, scale_activation=gate)
    ours = SqueezeExcitation(32, 8, gate=gate)
    for part, counterpart in ((ours.reduce, theirs.fc1), (ours.expand, theirs.fc2)):
        part.load_state_dict(counterpart.state_dict())
    maps = 3 * torch.randn(2, 32, 5, 7)
    torch.testing.assert_close(ours(maps), theirs(maps))


def test_block_follows_the_papers_equations() -> None:
    block, maps = SqueezeExcitation(64).double(), torch.randn(2, 64, 5, 7).double()
    w1, w2 = block.reduce.weight.flatten(1), block.expand.weight.flatten(1)
    assert w1.shape == (64 // 16, 64)
    z = maps.sum((2, 3)) / (5 * 7)  # equation 2
    s = torch.sigmoid(torch.relu(z @ w1.T + block.reduce.bias) @ w2.T + block.expand.bias)  # equation 3, with biases
    torch.testing.assert_close(block(maps), torch.einsum("nchw,nc->nchw", maps, s))  # equation 4


@pytest.mark.parametrize(("name", "counterpart"), PAIRS)
def test_scores_equal_timms(name: str, counterpart: str, tmp_path: Path) -> None:
    theirs = with_live_statistics(timm.create_model(counterpart))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = create_model(name, weights=tmp_path / "model.safetensors").eval()
    with torch.no_grad():
        for size in (64, 75):
            images = torch.randn(2, 3, size, size)
            expected = theirs(images)
            assert expected.std() > 0.05
            assert largest_difference(ours(images), expected) < 1e-4
        # What prediction runs, with normalizations and sums computed by the convolutions, too.
        prepared = fuse(ours, torch.device("cpu"), torch.float32)
        assert largest_difference(prepared(images), expected) < 1e-4


def test_editions_differ(tmp_path: Path) -> None:
    theirs = with_live_statistics(timm.create_model("legacy_seresnet50"))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 64, 64)
    for option in ({"stride_in": "3x3"}, {"pool_ceil_mode": False}):
        other = create_model("se_resnet50", weights=tmp_path / "model.safetensors", **option).eval()
        with torch.no_grad():
            assert largest_difference(other(images), theirs(images)) > 1e-2


def test_blocks_go_into_any_resnet(tmp_path: Path) -> None:
    # timm's seresnet18 rounds 64 / 16 up to 8; its legacy one has a further ReLU before the block.
    block = partial(timm.layers.SqueezeExcite, rd_divisor=1)
    theirs = with_live_statistics(timm.create_model("seresnet18", block_args={"attn_layer": block}))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = create_model("resnet18", se=True, weights=tmp_path / "model.safetensors").eval()
    images = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        assert largest_difference(ours(images), theirs(images)) < 1e-4


# What a block follows, by the paper: the ReLU of each convolution (section 3.3: VGG), a residual branch (figure 3),
# a depthwise separable unit, a module of Inception (figure 2); by MobileNet-v3's figure 4 the depthwise convolution.
INCEPTION_MODULE = r"backbone\.(stage\d\.units\.\d|stage[34]\.reduce)"
FOLLOWED: dict[str, Callable[[str, nn.Module], bool]] = {
    "vgg11": lambda name, module: isinstance(module, ConvNormActivation),
    "inception_resnet_v2": lambda name, module: name.endswith(".project"),
    "mobilenet_v1": lambda name, module: re.fullmatch(r"backbone\.stage\d\.\d", name) is not None,
    "xception": lambda name, module: re.fullmatch(r"backbone\.stage\d\.\d\.pool", name) is not None,
    "cspresnet50": lambda name, module: name.endswith(".conv3"),
    "cspdarknet53": lambda name, module: name.endswith(".conv2"),
    "densenet121": lambda name, module: isinstance(module, DenseLayer),
    "inception_v3": lambda name, module: re.fullmatch(INCEPTION_MODULE, name) is not None,
    "inception_v4": lambda name, module: re.fullmatch(INCEPTION_MODULE, name) is not None,
    "mobilenet_v2": lambda name, module: name.endswith(".depthwise"),
    "efficientnet_lite0": lambda name, module: name.endswith(".depthwise"),
}


FEWER_UNITS = {"inception_resnet_v2": {"units": [1, 1, 1]}, "densenet121": {"depths": [2, 2, 2, 2]}}


@pytest.mark.parametrize(("name", "options"), [(n, FEWER_UNITS.get(n, {})) for n in FOLLOWED])
def test_blocks_go_into_other_families(name: str, options: dict[str, object]) -> None:
    """The plain network whose maps are weighed from outside, by the paper's equations, gives the same scores."""
    plain = with_live_statistics(create_model(name, num_classes=5, image_size=75, **options), size=75)
    weighed = create_model(name, num_classes=5, image_size=75, se=True, **options).eval()
    blocks = [module for module in weighed.modules() if isinstance(module, SqueezeExcitation)]
    assert not any(bool(layer.bias.any()) for block in blocks for layer in (block.reduce, block.expand))
    inside = {id(tensor) for block in blocks for tensor in block.parameters()}
    shared = [tensor for tensor in weighed.state_dict(keep_vars=True).values() if id(tensor) not in inside]
    followed = [module for key, module in plain.named_modules() if FOLLOWED[name](key, module)]
    images = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        for mine, theirs in zip(shared, plain.state_dict().values(), strict=True):
            mine.copy_(theirs)
        unweighed = plain(images)
        for block, module in zip(blocks, followed, strict=True):
            module.register_forward_hook(partial(weighed_by, block))
        expected = plain(images)
        assert largest_difference(unweighed, expected) > 1e-3 * expected.abs().max()
        assert largest_difference(weighed(images), expected) < 1e-4 * max(1, expected.abs().max())


def weighed_by(block: SqueezeExcitation, module: nn.Module, inputs: object, maps: Tensor) -> Tensor:
    """Equations 2, 3 and 4, with biases."""
    w1, w2 = block.reduce.weight.flatten(1), block.expand.weight.flatten(1)
    z = maps.sum((2, 3)) / (maps.shape[2] * maps.shape[3])
    s = torch.sigmoid(torch.relu(z @ w1.T + block.reduce.bias) @ w2.T + block.expand.bias)
    return torch.einsum("nchw,nc->nchw", maps, s)


# Channels that are weighed → how often, by the papers' tables.
WEIGHED = {
    "vgg16": {64: 2, 128: 2, 256: 3, 512: 6},
    "resnet18": {64: 2, 128: 2, 256: 2, 512: 2},
    "resnext50_32x4d": {256: 3, 512: 4, 1024: 6, 2048: 3},
    "googlenet": {256: 1, 480: 1, 512: 3, 528: 1, 832: 2, 1024: 1},
    "bn_inception": {256: 1, 320: 1, 576: 3, 608: 2, 1056: 1, 1024: 2},
    "inception_v3": {256: 1, 288: 2, 768: 5, 1280: 1, 2048: 2},
    "inception_v4": {384: 4, 1024: 8, 1536: 4},
    "inception_resnet_v2": {320: 10, 1088: 20, 2080: 10},
    "xception": {128: 1, 256: 1, 728: 9, 1024: 1},
    "densenet121": {32: 6 + 12 + 24 + 16},
    "cspresnet50": {128: 3, 256: 3, 512: 5, 1024: 2},
    "cspdarknet53": {64: 3, 128: 8, 256: 8, 512: 4},
    "mobilenet_v1": {64: 1, 128: 2, 256: 2, 512: 6, 1024: 2},
    "mobilenet_v2": {32: 1, 96: 1, 144: 2, 192: 3, 384: 4, 576: 3, 960: 3},
    "efficientnet_lite0": {32: 1, 96: 1, 144: 2, 240: 2, 480: 3, 672: 3, 1152: 4},
}


@pytest.mark.parametrize("name", WEIGHED)
def test_blocks_cost_what_the_paper_says(name: str) -> None:
    """Section 4: 2/r · Σ N·C² with r = 16, and the biases that equation 3 leaves out; fractions of units are cut."""
    with torch.device("meta"):
        with_blocks, plain = (sum(p.numel() for p in create_model(name, se=se).parameters()) for se in (True, False))
    blocks = sum(count * (2 * channels * (channels // 16)) for channels, count in WEIGHED[name].items())
    biases = sum(count * (channels // 16 + channels) for channels, count in WEIGHED[name].items())
    assert with_blocks - plain == blocks + biases


def test_every_family_that_may_have_blocks_is_tested() -> None:
    rows = [architecture(name) for name in list_models("classify")]
    optional = {type(row.config) for row in rows if hasattr(row.config, "se")}
    assert optional == {type(architecture(name).config) for name in WEIGHED}
    # Blocks of their own kind, or nothing to put one into (docs/models.md).
    without = {row.name.partition("_")[0].rstrip("5") for row in rows if type(row.config) not in optional}
    assert without == {"lenet", "alexnet", "zfnet", "simple", "mobilenet", "efficientnet", "deepsort", "darknet"}


def test_se_mobilenet_has_the_papers_parameters() -> None:
    # Table 3: 4.2 million, 4.7 with the blocks.
    with torch.device("meta"):
        counts = [sum(p.numel() for p in create_model("mobilenet_v1", se=se).parameters()) for se in (False, True)]
    assert [round(count / 1e6, 1) for count in counts] == [4.2, 4.7]


def test_pyramid_equals_timms() -> None:
    theirs = with_live_statistics(timm.create_model("seresnet50", features_only=True))
    ours = create_model("se_resnet50").eval()
    ours.load_state_dict(rename(theirs.state_dict(), "se_resnet50").state, strict=False)  # timm's has no classifier
    assert_same_pyramid(ours, theirs, torch.randn(1, 3, 65, 96))


def test_senet154_is_as_the_appendix_says() -> None:
    with torch.device("meta"):
        model = create_model("senet154")
    row = architecture("senet154")
    counted = [
        part
        for part, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and ".shortcut." not in part and ".se." not in part
    ]
    assert len(counted) == row.depth == 154
    stem = [(each.conv.kernel_size[0], each.conv.stride[0], each.conv.out_channels) for each in model.backbone.stem]
    assert stem == [(3, 2, 64), (3, 1, 64), (3, 1, 128)]
    for number, width in enumerate((256, 512, 1024, 2048), start=1):
        unit = model.get_submodule(f"backbone.stage{number}.0")
        assert (unit.conv1.conv.out_channels, unit.conv2.conv.out_channels) == (width // 2, width)
        assert unit.conv2.conv.groups == 64
        assert unit.shortcut.conv.kernel_size[0] == (1 if number == 1 else 3)
        assert (unit.se.reduce.out_channels, unit.se.expand.out_channels) == (width // 16, width)
    assert model.head.dropout.p == 0.2


def test_blocks_start_as_hes() -> None:
    block = create_model("se_resnet50").backbone.stage4[1].se
    assert block.expand.weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.03)
    assert not block.reduce.bias.any() and not block.expand.bias.any()
