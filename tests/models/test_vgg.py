"""The VGGs against torchvision's, timm's and Keras's on the same weights, and against the paper's tables 1 and 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from test_alexnet import sides_of
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.models import Classifier, architecture, create_model
from hubel.weights.key_mapping import rename
from keras_networks import keras_application, keras_file, keras_logits
from published_figures import PUBLISHED
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = ("vgg11", "vgg13", "vgg16", "vgg19")


def torchvisions(name: str) -> nn.Module:
    """torchvision's with random weights and biases, drawn faster than by itself."""
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)
    theirs.to_empty(device="cpu")
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                bound = (6 / module.weight[0].numel()) ** 0.5
                module.weight.uniform_(-bound, bound)
                module.bias.normal_(std=0.1)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
    return with_live_statistics(theirs)


def as_timms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's weights under timm's names, whose dense layers are convolutions."""
    theirs = {"classifier.0": ("pre_logits.fc1", 7), "classifier.3": ("pre_logits.fc2", 1)}
    renamed = {key: tensor for key, tensor in state.items() if key.startswith("features.")}
    for key, (name, side) in theirs.items():
        renamed[f"{name}.weight"] = state[f"{key}.weight"].unflatten(1, (-1, side, side))
        renamed[f"{name}.bias"] = state[f"{key}.bias"]
    return renamed | {f"head.fc.{kind}": state[f"classifier.6.{kind}"] for kind in ("weight", "bias")}


def with_weights(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    """A network around tensors that there are already."""
    with torch.device("meta"):
        model = make()
    model.load_state_dict(state, assign=True)
    return model


def ours_with(state: dict[str, Tensor], name: str) -> nn.Module:
    renamed = rename(state, name)
    return with_weights(lambda: create_model(name, **renamed.settings), renamed.state)


@pytest.fixture(scope="module")
def vgg11() -> nn.Module:
    return torchvisions("vgg11")


@pytest.mark.parametrize("size", [64, pytest.param(224, marks=pytest.mark.slow)])
def test_scores_equal_torchvisions_and_timms(vgg11: nn.Module, size: int) -> None:
    compare(vgg11.eval(), "vgg11", size)


@pytest.mark.parametrize(
    "theirs_name",
    ["vgg11_bn", *(pytest.param(n, marks=pytest.mark.slow) for n in (*NAMES[1:], *(f"{n}_bn" for n in NAMES[1:])))],
)
def test_the_deeper_and_normalized_ones(theirs_name: str) -> None:
    compare(torchvisions(theirs_name), theirs_name, 75)


def compare(theirs: nn.Module, theirs_name: str, size: int) -> None:
    """Up to 224 pixels: at larger ones timm slides its head over the image."""
    name, _, bn = theirs_name.partition("_")
    state = theirs.state_dict()
    of_timm = with_weights(lambda: timm.create_model(theirs_name), as_timms(state)).eval()
    assert rename(state, name).settings == {"grid": 7, "batch_norm": bool(bn)}
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 0.1
        bar = 1e-4 * max(1, expected.abs().max().item())
        assert largest_difference(of_timm(images), expected) < bar
        for published in (state, of_timm.state_dict()):
            assert largest_difference(ours_with(published, name).eval()(images), expected) < bar


def test_dropout_stands_where_torchvision_has_it(vgg11: nn.Module) -> None:
    ours = ours_with(vgg11.state_dict(), "vgg11").train()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.manual_seed(1)
        expected = vgg11.train()(images)
        torch.manual_seed(1)
        assert largest_difference(ours(images), expected) < 1e-4


def test_pyramid_equals_timms(vgg11: nn.Module) -> None:
    state = vgg11.state_dict()
    features = {key.replace(".", "_", 1): tensor for key, tensor in state.items() if key.startswith("features.")}
    theirs = with_weights(lambda: timm.create_model("vgg11", features_only=True), features)
    ours = ours_with(state, "vgg11")
    assert isinstance(ours, Classifier)
    assert_same_pyramid(ours, theirs, torch.randn(1, 3, 65, 96))


@pytest.mark.parametrize(
    ("application", "kind", "size"),
    [
        ("VGG16", ".weights.h5", 64),
        pytest.param("VGG19", "_published.h5", 224, marks=pytest.mark.slow),
        pytest.param("VGG16", ".keras", 96, marks=pytest.mark.slow),
    ],
)
def test_scores_equal_kerass(application: str, kind: str, size: int, tmp_path: Path) -> None:
    theirs = keras_application(application, size, classes=10)
    path = keras_file(theirs, tmp_path, kind)
    ours = create_model(application.lower(), weights=path, grid=size // 32).eval()
    images = torch.randn(2, 3, size, size)
    expected = keras_logits(theirs, images.flip(1))  # Keras's take blue, green, red
    assert expected.std() > 0.1
    with torch.no_grad():
        assert largest_difference(ours(images), expected) < 1e-4 * max(1, expected.abs().max().item())


def test_output_sizes_are_those_of_table_1() -> None:
    sides = sides_of("vgg11")
    assert list(sides.values())[::2] == [(64, 224), (128, 112), (256, 56), (512, 28), (512, 14)]
    assert sides["pool5"] == (512, 7)


@pytest.mark.parametrize(("name", "millions"), [*zip(NAMES, (133, 133, 138, 144), strict=True)])
def test_parameters_and_depth_are_those_of_the_paper(name: str, millions: int) -> None:
    with torch.device("meta"):
        model, normalized = create_model(name), create_model(name, batch_norm=True)
        theirs = torchvision.models.get_model(f"{name}_bn")
    assert round(PUBLISHED[name].parameters / 1e6) == millions  # table 2
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == architecture(name).depth == int(name.removeprefix("vgg"))
    superfluous = sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))  # torchvision's biases
    ours = sum(parameter.numel() for parameter in normalized.parameters())
    assert ours == sum(parameter.numel() for parameter in theirs.parameters()) - superfluous


def test_weights_start_as_glorots() -> None:
    model = create_model("vgg16", image_size=32)
    for part, fans in (("backbone.stage3.1.conv", 2 * 9 * 256), ("head.fc2", 2 * 4096)):
        layer = model.get_submodule(part)
        limit = (6 / fans) ** 0.5
        assert 0.99 * limit < layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
        assert not bool(layer.bias.any())


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelError, match="images larger than 31 pixels") as refused:
        create_model("vgg16", image_size=31)
    assert "32" in refused.value.hint
    with pytest.raises(ModelError, match="grid=0"):
        create_model("vgg16", grid=0)
