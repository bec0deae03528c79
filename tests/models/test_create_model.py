"""From a name to a module: names, options, weights of other libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision

import hubel
from hubel.errors import ModelError, WeightsError
from hubel.models import architecture, create_model, default_preprocessing, list_models
from hubel.weights.catalog import catalog
from hubel.weights.key_mapping import rename
from reference_networks import largest_difference, with_live_statistics


def test_names_are_in_natural_order() -> None:
    assert list_models(match="resnet*") == ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    assert list_models(task="detect", match="resnet*") == []
    assert hubel.list_models("classify", "*lite?") == [f"efficientnet_lite{number}" for number in range(5)]


def test_an_unknown_name_is_met_with_close_ones() -> None:
    with pytest.raises(ModelError) as raised:
        create_model("resnet5O")
    assert "'resnet5O'" in raised.value.message
    assert "resnet50" in raised.value.hint
    with pytest.raises(ModelError, match="hubel models"):
        architecture("qqq")


def test_options_that_cannot_be_are_named() -> None:
    with pytest.raises(ModelError) as raised:
        create_model("resnet50", dilation=2)
    assert "'dilation'" in raised.value.message
    assert "stride_in" in raised.value.hint
    with pytest.raises(ModelError, match="num_classes=0"):
        create_model("resnet18", num_classes=0)
    with pytest.raises(ModelError, match="does not accept a backbone"):
        create_model("resnet18", backbone="resnet50")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("vgg16", "width", "half"),
        ("vgg16", "width", -1),
        ("vgg16", "batch_norm", "yes"),
        ("vgg16", "depths", [1, 2]),
        ("resnet50", "depths", 3),
        ("resnet50", "dropout", 2),
        ("resnet50", "base_width", 1.5),
        ("resnet50", "se", "maybe"),
        ("cspresnet50", "groups", 7),
        ("densenet121", "growth", True),
    ],
)
def test_values_that_an_option_cannot_have_are_named(name: str, option: str, value: object) -> None:
    with pytest.raises(ModelError) as raised, torch.device("meta"):
        create_model(name, **{option: value})
    shown = tuple(value) if isinstance(value, list) else value
    assert f"{option}={value!r}" in raised.value.message or f"{option}={shown!r}" in raised.value.message
    assert f"{option}={getattr(architecture(name).config, option)!r}" in raised.value.hint


def test_native_channels_are_the_default() -> None:
    assert create_model("lenet5").get_submodule("backbone.c1.conv").in_channels == 1
    assert create_model("resnet18").get_submodule("backbone.stem.conv").in_channels == 3


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A ResNet-18 as torchvision publishes them, and its file."""
    network = with_live_statistics(torchvision.models.resnet18(weights=None))
    path = tmp_path_factory.mktemp("weights") / "resnet18-torchvision.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_a_file_of_torchvision_gives_its_network(torchvision_file: tuple[torch.nn.Module, Path]) -> None:
    network, path = torchvision_file
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for given in (path, str(path)):
            ours = create_model("resnet18", weights=given).eval()
            assert largest_difference(ours(images), network(images)) < 1e-4


def test_another_number_of_classes_leaves_the_classifier_fresh(
    torchvision_file: tuple[torch.nn.Module, Path],
) -> None:
    network, path = torchvision_file
    torch.manual_seed(1)
    model = create_model("resnet18", num_classes=5, weights=path)
    assert torch.equal(model.backbone.stem.conv.weight, network.conv1.weight)
    assert torch.equal(model.backbone.stage4[1].conv2.norm.running_var, network.layer4[1].bn2.running_var)
    # As torch.nn.Linear starts: uniform in ±1 / sqrt(512).
    assert model.head.classifier.weight.shape == (5, 512)
    assert model.head.classifier.weight.std().item() == pytest.approx(512**-0.5 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_adapt_the_first_convolution_as_timm_does(
    channels: int, torchvision_file: tuple[torch.nn.Module, Path]
) -> None:
    network, path = torchvision_file
    model = create_model("resnet18", in_channels=channels, weights=path)
    expected = timm.models.adapt_input_conv(channels, network.conv1.weight.detach())
    torch.testing.assert_close(model.backbone.stem.conv.weight.detach(), expected)


def test_old_files_without_batch_counters_load(torchvision_file: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    network, _ = torchvision_file
    old = {key: value for key, value in network.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(old, tmp_path / "old.pth")
    model = create_model("resnet18", weights=tmp_path / "old.pth").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_difference(model(images), network(images)) < 1e-4
    assert int(model.backbone.stem.norm.num_batches_tracked) == 0


def test_weights_that_do_not_fit_are_named(torchvision_file: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    network, path = torchvision_file
    with pytest.raises(WeightsError, match="resnet18-torchvision.pth does not fit.*misses backbone.stage1.2"):
        create_model("resnet34", weights=path)
    with pytest.raises(WeightsError, match="resnet18-torchvision.pth contains weights of .*ResNets, not of eff"):
        create_model("efficientnet_lite0", weights=path)
    state = network.state_dict()
    state["layer9.0.conv1.weight"] = state.pop("layer3.0.conv1.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError) as raised:
        create_model("resnet18", weights=tmp_path / "odd.pth")
    assert "misses backbone.stage3.0.conv1.conv.weight" in raised.value.message
    assert "unknown backbone.stage9.0.conv1.conv.weight" in raised.value.message
    with pytest.raises(WeightsError, match="nowhere.pth"):
        create_model("resnet18", weights=tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match="lenet5"):
        create_model("lenet5", weights="default")


def test_foreign_keys_of_no_known_format_are_named() -> None:
    with pytest.raises(WeightsError, match=r"keys of an unknown format \(the first: encoder.weight\)"):
        rename({"encoder.weight": torch.zeros(1)}, "resnet18")


@pytest.mark.parametrize("number", range(5))
def test_both_publishers_numberings_of_the_lites_meet(number: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    name = f"efficientnet_lite{number}"
    with torch.device("meta"):
        of_timm = timm.create_model(f"tf_{name}").state_dict()
        of_package = EfficientNet.from_name(f"efficientnet-lite{number}").state_dict()
    renamed = [rename(state, name).state for state in (of_timm, of_package)]
    shapes = [{key: tuple(tensor.shape) for key, tensor in state.items()} for state in renamed]
    ours = {key: tuple(tensor.shape) for key, tensor in create_model(name).state_dict().items()}
    assert shapes == [ours, ours]


def test_images_keep_their_shape_in_torchvisions_two_stage_detectors_whose_weights_come_from_a_file() -> None:
    fitted = [entry for entry in catalog() if "rcnn" in entry.architecture]
    assert len(fitted) >= 6
    for entry in fitted:
        ours, published = default_preprocessing(entry.architecture), entry.preprocessing
        assert (ours.resize, ours.height, ours.width) == (published.resize, published.height, published.width)
        assert ours.resize == "fit"
    assert default_preprocessing("faster_rcnn").resize == "stretch"


def test_default_preprocessing_is_imagenets_for_colour_and_plain_for_grey() -> None:
    colour, grey = default_preprocessing("efficientnet_lite1"), default_preprocessing("lenet5", image_size=28)
    assert (colour.height, colour.width, colour.channels) == (240, 240, 3)
    images = torch.tensor([[[[124]], [[116]], [[104]]]], dtype=torch.uint8)  # ImageNet's mean colour
    assert colour.normalize(images).abs().max() < 0.01
    assert (grey.height, grey.width, grey.channels) == (28, 28, 1)
    assert grey.normalize(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).flatten().tolist() == [-1, 1]
    assert default_preprocessing("resnet18", in_channels=1).channels == 1
    with pytest.raises(ModelError, match="4 channels"):
        default_preprocessing("resnet18", in_channels=4)
