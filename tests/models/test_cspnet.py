"""The CSPNets against timm's on the same weights, and against what the authors' Darknet files say."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.models import architecture, create_model
from hubel.models.classification.cspnet import CrossStagePartial
from hubel.models.factory import build
from hubel.weights.key_mapping import rename
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = ("cspresnet50", "cspresnext50", "cspdarknet53")
SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param("cspresnet50", marks=SLOW), "cspresnext50", "cspdarknet53"])
def test_scores_equal_timms(name: str) -> None:
    theirs = with_live_statistics(timm.create_model(name))
    ours = create_model(name).eval()
    ours.load_state_dict(rename(theirs.state_dict(), name).state)
    with torch.no_grad():
        for size in (64, 75):
            images = torch.randn(2, 3, size, size)
            expected = theirs(images)
            assert expected.std() > 0.05
            assert largest_difference(ours(images), expected) < 1e-4


@pytest.mark.parametrize("option", [{"activation": "mish"}, pytest.param({"leaky_slope": 0.1}, marks=SLOW)])
def test_darknets_activations(option: dict[str, str | float]) -> None:
    theirs = timm.create_model("cspdarknet53", act_layer=option.get("activation", "leaky_relu"))
    for module in theirs.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1
    with_live_statistics(theirs)
    ours, default = (create_model("cspdarknet53", **each).eval() for each in (option, {}))
    for model in (ours, default):
        model.load_state_dict(rename(theirs.state_dict(), "cspdarknet53").state)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert largest_difference(ours(images), theirs(images)) < 1e-4
        assert largest_difference(default(images), theirs(images)) > 1e-2


def test_an_unknown_activation_is_an_error_with_a_way_out() -> None:
    with pytest.raises(ModelError, match="activation='relu'") as caught:
        create_model("cspdarknet53", activation="relu")
    assert "mish" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["cspresnet50", pytest.param("cspresnext50", marks=SLOW), pytest.param("cspdarknet53", marks=SLOW)]
)
def test_pyramid_equals_timms(name: str) -> None:
    indices = (1, 2, 3, 4, 5) if name == "cspdarknet53" else None  # timm's begins at stride 1 there
    theirs = timm.create_model(name, features_only=True, **({"out_indices": indices} if indices else {}))
    with_live_statistics(theirs)
    # timm's list of parts has "_" for the first "." and no classifier.
    state = {
        key.replace("stem_", "stem.", 1).replace("stages_", "stages.", 1): tensor
        for key, tensor in theirs.state_dict().items()
    }
    ours = create_model(name).eval()
    ours.load_state_dict(rename(state, name).state, strict=False)
    assert_same_pyramid(ours, theirs, torch.randn(1, 3, 65, 96))
    assert list(ours.feature_channels) == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("name", NAMES)
def test_depth_counts_convolutions_and_the_dense_layer(name: str) -> None:
    with torch.device("meta"):
        model = build(architecture(name), 1000, 3, 256, {}, for_loading=True)
    weights = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert architecture(name).depth == len(weights)


def _darknet(model: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """CSPDarknet53 as ``csdarknet53.cfg`` writes it, on our weights: two convolutions in place of each split."""

    def unit(conv: nn.Conv2d, norm: nn.BatchNorm2d, maps: Tensor, filters: slice = slice(None)) -> Tensor:
        maps = nn.functional.conv2d(maps, conv.weight[filters], None, conv.stride, conv.padding)
        statistics = (norm.running_mean[filters], norm.running_var[filters], norm.weight[filters], norm.bias[filters])
        return nn.functional.leaky_relu(nn.functional.batch_norm(maps, *statistics, eps=norm.eps), 0.1)

    def whole(part: nn.Module, maps: Tensor) -> Tensor:
        return unit(part.conv, part.norm, maps)

    maps, outputs = whole(model.backbone.stem, images), {}
    for number in range(1, 6):
        stage = model.backbone.get_submodule(f"stage{number}")
        maps = whole(stage.downsample, maps)
        split, half = stage.partial.split, stage.partial.split.conv.out_channels // 2
        cross = unit(split.conv, split.norm, maps, slice(None, half))
        through = unit(split.conv, split.norm, maps, slice(half, None))
        for residual in stage.partial.block:
            through = through + whole(residual.conv2, whole(residual.conv1, through))
        through = whole(stage.partial.transition, through)
        # route = -1, -7: the block's maps first. The merge's weights are ours in Darknet's order.
        merge = stage.partial.merge
        weight = torch.cat((merge.conv.weight[:, half:], merge.conv.weight[:, :half]), dim=1)
        maps = nn.functional.conv2d(torch.cat((through, cross), dim=1), weight)
        norm = merge.norm
        maps = nn.functional.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        maps = outputs[2**number] = nn.functional.leaky_relu(maps, 0.1)
    return outputs


def test_cspdarknet53_is_the_authors_darknet_file() -> None:
    model = with_live_statistics(create_model("cspdarknet53", leaky_slope=0.1))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, ours = _darknet(model, images), model.features(images)
    assert expected.keys() == ours.keys()
    for stride, maps in ours.items():
        assert largest_difference(maps, expected[stride]) < 1e-4


class _Doubling(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat((maps, 2 * maps), dim=1)


def test_the_wrapper_around_any_block() -> None:
    partial = CrossStagePartial(7, 5, _Doubling(), block_channels=8).eval()
    seen: dict[str, Tensor] = {}
    partial.transition.register_forward_hook(lambda module, inputs, output: seen.update(block=inputs[0], after=output))
    partial.merge.register_forward_hook(lambda module, inputs, output: seen.update(merged=inputs[0]))
    maps = torch.randn(2, 7, 6, 5)
    with torch.no_grad():
        assert partial(maps).shape == (2, 5, 6, 5)
    # Figure 2b: the first maps cross untouched, the rest go through block and transition.
    assert torch.equal(seen["block"], torch.cat((maps[:, 3:], 2 * maps[:, 3:]), dim=1))
    assert torch.equal(seen["merged"], torch.cat((maps[:, :3], seen["after"]), dim=1))
