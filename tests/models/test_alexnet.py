"""AlexNet's edition with one tower against torchvision's; the original against the paper, and against two towers."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from hubel.errors import ModelError
from hubel.models import architecture, create_model
from hubel.weights.key_mapping import rename
from published_figures import PUBLISHED
from reference_networks import largest_difference


def sides_of(name: str) -> dict[str, tuple[int, int]]:
    """Channels and side of the map that each part of the backbone gives for the native input."""
    sides = {}
    with torch.device("meta"):
        signal = torch.empty(1, *architecture(name).input)
        for part, module in create_model(name).backbone.named_children():
            signal = module(signal)
            sides[part] = (signal.shape[1], signal.shape[2])
    return sides


def test_scores_equal_torchvisions_at_any_size() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet().eval()
    renamed = rename(theirs.state_dict(), "alexnet_owt")
    ours = create_model("alexnet_owt", image_size=100, **renamed.settings).eval()
    ours.load_state_dict(renamed.state)
    for size in (63, 224, 259):
        images = 10 * torch.randn(2, 3, size, size)
        with torch.no_grad():
            expected = theirs(images)
            assert expected.std() > 0.01
            assert largest_difference(ours(images), expected) < 1e-4


def test_dropout_stands_where_torchvision_has_it() -> None:
    theirs = torchvision.models.alexnet(num_classes=7)
    ours = create_model("alexnet_owt", num_classes=7, grid=6)
    ours.load_state_dict(rename(theirs.state_dict(), "alexnet_owt").state)
    images = torch.randn(4, 3, 63, 63)
    with torch.no_grad():
        torch.manual_seed(1)
        expected = theirs.train()(images)
        torch.manual_seed(1)
        assert largest_difference(ours.train()(images), expected) < 1e-5


def test_sizes_and_neurons_are_those_of_the_paper() -> None:
    assert sides_of("alexnet") == {
        "stage1": (96, 55), "pool1": (96, 27),
        "stage2": (256, 27), "pool2": (256, 13),
        "stage3": (256, 13), "pool3": (256, 6),
    }  # fmt: skip
    # Figure 2 counts neurons: 186,624 in the second layer, 43,264 in the fifth, about 650,000 in all (abstract).
    assert (256 * 27**2, 256 * 13**2) == (186_624, 43_264)
    neurons = 96 * 55**2 + 256 * 27**2 + 2 * 384 * 13**2 + 256 * 13**2 + 2 * 4096 + 1000
    assert neurons == pytest.approx(650_000, rel=0.02)


def test_parameters_are_what_the_papers_layers_imply() -> None:
    # Section 3.5: kernels with the depth that they see, of which the groups halve some; a bias each.
    convolutions = 96 * (11 * 11 * 3 + 1) + 256 * (5 * 5 * 48 + 1) + 384 * (3 * 3 * 256 + 1)
    convolutions += 384 * (3 * 3 * 192 + 1) + 256 * (3 * 3 * 192 + 1)
    dense = 4096 * (6 * 6 * 256 + 1) + 4096 * (4096 + 1) + 1000 * (4096 + 1)
    assert convolutions + dense == PUBLISHED["alexnet"].parameters == pytest.approx(60e6, rel=0.02)  # the abstract's


def normalized_by_hand(maps: Tensor) -> Tensor:
    """The formula of section 3.3 with its constants, map by map."""
    damped = []
    for i in range(maps.shape[1]):
        neighbours = maps[:, max(0, i - 2) : i + 3]
        damped.append(maps[:, i] / (2 + 1e-4 * neighbours.square().sum(1)) ** 0.75)
    return torch.stack(damped, dim=1)


def two_towers(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Figure 2, a tower for each GPU: they see each other after the second convolution and in the dense layers."""
    convolutions = [(state[f"{key}.weight"], state[f"{key}.bias"]) for key in (
        "backbone.stage1.0.conv", "backbone.stage2.0.conv",
        "backbone.stage3.0.conv", "backbone.stage3.1.conv", "backbone.stage3.2.conv",
    )]  # fmt: skip

    def towers(number: int, maps: Tensor, padding: int) -> Tensor:
        weight, bias = (tensor.chunk(2) for tensor in convolutions[number])
        halves = zip(maps.chunk(2, dim=1), weight, bias, strict=True)
        return torch.cat([F.conv2d(half, w, b, padding=padding) for half, w, b in halves], dim=1).relu()

    maps = normalized_by_hand(F.conv2d(images, *convolutions[0], stride=4).relu())
    maps = normalized_by_hand(towers(1, F.max_pool2d(maps, 3, 2), padding=2))
    maps = F.conv2d(F.max_pool2d(maps, 3, 2), *convolutions[2], padding=1).relu()
    maps = towers(4, towers(3, maps, padding=1), padding=1)
    signal = F.max_pool2d(maps, 3, 2).flatten(1)
    for key in ("head.fc1", "head.fc2"):
        signal = F.linear(signal, state[f"{key}.weight"], state[f"{key}.bias"]).relu()
    return F.linear(signal, state["head.classifier.weight"], state["head.classifier.bias"])


def test_scores_equal_a_network_of_two_towers() -> None:
    torch.manual_seed(0)
    model = create_model("alexnet", num_classes=10, image_size=99).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(0.01 * torch.randn_like(parameter))
        images = 50 * torch.randn(2, 3, 99, 99)  # pixels' scale: strong enough for the normalization to matter
        expected = two_towers(model.state_dict(), images)
        assert model.backbone.stage1[1](torch.full((1, 96, 1, 1), 100.0)).max() < 30
        assert largest_difference(model(images), expected) < 1e-4 * expected.abs().max()
        assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()


def test_half_of_what_the_hidden_layers_give_is_dropped() -> None:
    model = create_model("alexnet", num_classes=2, image_size=67).train()
    seen: list[Tensor] = []
    for layer in (model.head.fc2, model.head.classifier):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        model.head.fc2.weight.mul_(0.1)
        model(torch.randn(8, 3, 67, 67))
    # With biases of 1 next to nothing is 0 but for dropout.
    assert [float((signal == 0).float().mean()) for signal in seen] == pytest.approx([0.5, 0.5], abs=0.02)


def test_weights_start_as_in_section_5() -> None:
    layers = [m for m in create_model("alexnet", image_size=67).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == architecture("alexnet").depth == 8
    assert all(layer.weight.std().item() == pytest.approx(0.01, rel=0.03) for layer in layers)
    assert [set(layer.bias.tolist()) for layer in layers] == [{0}, {1}, {0}, {1}, {1}, {1}, {1}, {0}]


@pytest.mark.parametrize(("name", "smallest"), [("alexnet", 67), ("alexnet_owt", 63)])
def test_too_small_images_are_refused(name: str, smallest: int) -> None:
    with pytest.raises(ModelError, match=f"images larger than {smallest - 1} pixels") as refused:
        create_model(name, image_size=smallest - 1)
    assert str(smallest) in refused.value.hint
    for size in (smallest, 130, 163):
        with torch.device("meta"):
            model = create_model(name, image_size=size)
            maps = model.backbone(torch.empty(1, 3, size, size))
        assert maps.shape[2] == math.isqrt(model.head.fc1.in_features // 256)
