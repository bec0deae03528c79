"""The EfficientNets against torchvision's, timm's and Keras's on the same weights, and against the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import hubel
from hubel.layers.mbconv import StochasticDepth
from hubel.models import architecture, create_model
from hubel.models.classification.mobilenet import Stage, scaled
from hubel.weights.key_mapping import rename
from keras_networks import KINDS, keras, keras_application, keras_file, keras_logits
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = [f"efficientnet_b{number}" for number in range(8)]
GOOGLES = {"norm_eps": 1e-3, "same": True}  # what timm's "tf_" weights need


def assert_same_scores(name: str, theirs: nn.Module, options: dict[str, Any]) -> None:
    """At even and odd sizes, to a ten-thousandth of the scores' spread."""
    with_live_statistics(theirs)
    renamed = rename(theirs.state_dict(), name)
    ours = create_model(name, **{**renamed.settings, **options}).eval()
    ours.load_state_dict(renamed.state)
    with torch.no_grad():
        for size in ((64, 64), (75, 97)):
            images = torch.randn(2, 3, *size)
            expected = theirs(images)
            assert largest_difference(ours(images), expected) < 1e-4 * expected.std()


def slow_but(name: str) -> Any:
    return pytest.param(name, marks=[] if name == NAMES[0] else pytest.mark.slow)


@pytest.mark.parametrize("name", [slow_but(name) for name in NAMES])
def test_scores_equal_torchvisions_and_timms(name: str) -> None:
    assert_same_scores(name, torchvision.models.get_model(name, weights=None), {})
    assert_same_scores(name, timm.create_model(name), {})
    assert_same_scores(name, timm.create_model(f"tf_{name}"), GOOGLES)


@pytest.mark.parametrize("name", [slow_but(name) for name in NAMES])
def test_files_of_keras_load(name: str, tmp_path: Path) -> None:
    network = keras_application(name.replace("efficientnet_b", "EfficientNetB"), size=33)
    images = torch.randn(1, 3, 33, 33)
    expected = keras_logits(network, images)
    for kind in KINDS if name == "efficientnet_b1" else (".weights.h5",):
        ours = create_model(name, weights=keras_file(network, tmp_path, kind)).eval()
        with torch.no_grad():
            assert largest_difference(ours(images), expected) < 1e-4 * expected.std()


def test_what_keras_does_to_pixels_is_imagenets_normalization() -> None:
    """Its file has deviations where the layer takes variances; a layer that comes with the weights divides again."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Normalization(mean=mean, variance=deviation),
            keras.layers.Rescaling([1 / np.sqrt(each) for each in deviation]),
        ]
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype(np.float32)
    found = network(pixels).detach()
    expected = torchvision.transforms.functional.normalize(
        torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, mean, deviation
    )
    assert largest_difference(found.permute(0, 3, 1, 2), expected) < 1e-5


def test_pyramid_equals_timms() -> None:
    network = with_live_statistics(timm.create_model("efficientnet_b0", features_only=True))
    renamed = rename(network.state_dict(), "efficientnet_b0")
    ours = create_model("efficientnet_b0", **renamed.settings).eval()
    ours.load_state_dict(renamed.state, strict=False)  # timm's ends earlier
    assert_same_pyramid(ours, network, torch.randn(1, 3, 70, 97))


# Tan and Le 2019, table 2: millions of parameters, billions of multiplications.
PRINTED = zip(NAMES, (5.3, 7.8, 9.2, 12, 19, 30, 43, 66), (0.39, 0.70, 1.0, 1.8, 4.2, 9.9, 19, 37), strict=True)


@pytest.mark.parametrize(
    ("name", "millions", "billions"),
    [pytest.param(*row, marks=[] if row[0] in NAMES[:3] else pytest.mark.slow) for row in PRINTED],
)
def test_cost_is_what_the_paper_prints(name: str, millions: float, billions: float) -> None:
    found = hubel.summary(name)
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.02)
    assert found.multiplications / 1e9 == pytest.approx(billions, rel=0.05)


def test_depth_is_the_number_of_layers_on_the_path() -> None:
    layers = [
        part
        for part, module in create_model("efficientnet_b1").named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and ".squeeze." not in part
    ]
    assert len(layers) == architecture("efficientnet_b1").depth


def test_units_are_rounded_up() -> None:
    for units, depth, expected in ((1, 1.1, 2), (2, 1.0, 2), (4, 1.2, 5), (4, 3.1, 13)):
        assert scaled([Stage(1, 8, units, 1)], 1.0, depth)[0].units == expected


def test_stochastic_depth_equals_torchvisions() -> None:
    """The same share for each unit, and the same images for the same seed."""
    theirs = torchvision.models.efficientnet_b0(weights=None, dropout=0.0)
    ours = create_model("efficientnet_b0", dropout=0.0, norm_eps=1e-5)
    ours.load_state_dict(rename(theirs.state_dict(), "efficientnet_b0").state)
    shares = [unit.p for unit in theirs.modules() if isinstance(unit, torchvision.ops.StochasticDepth)]
    assert [unit.drop for unit in ours.modules() if isinstance(unit, StochasticDepth)] == pytest.approx(shares)
    images = torch.randn(4, 3, 64, 64)
    scores = []
    for model in (ours, theirs):
        torch.manual_seed(5)
        scores.append(model.train()(images))
    assert largest_difference(*scores) < 1e-4 * scores[1].std()
    assert largest_difference(ours(images), ours(images)) > 0.1 * scores[1].std()


def test_stochastic_depth_keeps_the_mean_and_leaves_prediction_alone() -> None:
    maps = torch.ones(4000, 2, 3, 3)
    layer = StochasticDepth(0.2)
    torch.manual_seed(0)
    seen = layer(maps)
    assert seen.unique().tolist() == [0, 1.25]
    assert seen.flatten(1).std(dim=1).max() == 0  # an image's maps all or none
    assert seen.mean().item() == pytest.approx(1, abs=0.02)
    assert layer.eval()(maps) is maps


def test_the_lites_have_it_as_an_option() -> None:
    def shares(**options: float) -> list[float]:
        model = create_model("efficientnet_lite0", **options)
        return [unit.drop for unit in model.modules() if isinstance(unit, StochasticDepth)]

    assert set(shares()) == {0}
    assert shares(stochastic_depth=0.2) == pytest.approx([0.2 * unit / 16 for unit in range(16)])


def test_weights_start_as_the_authors() -> None:
    model = create_model("efficientnet_b0", num_classes=100)
    weight = model.get_submodule("backbone.stage7.0.depthwise.conv").weight
    assert weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.03)
    assert model.head.classifier.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)
