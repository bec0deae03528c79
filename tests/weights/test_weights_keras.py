"""Keras's files: broken and hostile ones are refused, older names are understood, pixels arrive as Keras wants them."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import keras
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hubel import Predictor, create_model
from hubel.errors import MissingExtraError, WeightsError
from hubel.weights import entries_for, find_entry, read_state_dict
from hubel.weights.catalog import keras_layers
from keras_networks import keras_application, keras_file, keras_logits

LAYER = "layers/conv2d/vars"  # of a file of Keras 3, without the number of the array


def _network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name="block1_conv1"),
            keras.layers.BatchNormalization(name="block1_norm"),
            keras.layers.SeparableConv2D(6, 3, use_bias=False),
            keras.layers.Flatten(),
            keras.layers.Dense(5, name="predictions"),
        ]
    )


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return _network()


@pytest.fixture(scope="module")
def state(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return read_state_dict(keras_file(network, tmp_path_factory.mktemp("keras")))


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_names_and_layout_are_torchs(network: keras.Model, state: dict[str, Tensor]) -> None:
    kernel = torch.as_tensor(network.get_layer("block1_conv1").kernel.numpy())
    assert torch.equal(state["block1_conv1.weight"], kernel.permute(3, 2, 0, 1))
    depthwise, pointwise = (torch.as_tensor(array) for array in network.layers[2].get_weights())
    assert torch.equal(state["separable_conv2d_0.depthwise.weight"], depthwise.permute(2, 3, 0, 1))
    assert torch.equal(state["separable_conv2d_0.pointwise.weight"], pointwise.permute(3, 2, 0, 1))
    assert state["predictions.weight"].shape == (5, 96)
    assert torch.equal(state["block1_norm.running_var"], torch.ones(4))


# --- older files -------------------------------------------------------------------------------------------------

_KERAS_1_LAYER = {
    "Conv2D": "convolution2d",
    "DepthwiseConv2D": "depthwiseconvolution2d",
    "SeparableConv2D": "separableconvolution2d",
    "BatchNormalization": "batchnormalization",
    "Dense": "dense",
}
_KERAS_1_ARRAY = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}


def _keras_1(layer: Any, number: int) -> tuple[str, Callable[[str], str]]:
    """Counted layers and their arrays, as in the Xception that Keras publishes (keras-team/keras, issue 9683)."""
    name = f"{_KERAS_1_LAYER.get(type(layer).__name__, 'normalization')}_{number + 1}"
    mixed = {} if "Separable" in type(layer).__name__ else _KERAS_1_ARRAY
    return name, lambda array: f"{name}_{mixed.get(array, array)}:0"


def _published_vgg(layer: Any, number: int) -> tuple[str, Callable[[str], str]]:
    return layer.name, lambda array: f"{layer.name}_{_KERAS_1_ARRAY.get(array, array)}_1:0"


def _with_slashes(layer: Any, number: int) -> tuple[str, Callable[[str], str]]:
    """As tf.keras named DenseNet's and MobileNet-v3's layers."""
    name = layer.name.replace("_bn", "/BatchNorm").replace("conv_", "conv/", 1)
    return name, lambda array: f"{name}/{array}:0"


def _older_file(model: keras.Model, path: Path, style: Callable[[Any, int], tuple[str, Callable[[str], str]]]) -> Path:
    """Keras 1's and 2's format: a group a layer, with the names of layers and arrays in order as attributes."""
    names = []
    with h5py.File(path, "w") as file:
        for number, layer in enumerate(each for each in model.layers if each.weights):
            name, array_name = style(layer, number)
            names.append(name)
            group = file.create_group(name)
            kinds = [_kind(layer, weight) for weight in layer.weights]
            group.attrs["weight_names"] = [array_name(kind).encode() for kind in kinds]
            for kind, values in zip(kinds, layer.get_weights(), strict=True):
                group[array_name(kind)] = values
        file.attrs["layer_names"] = [name.encode() for name in names]
    return path


def _kind(layer: Any, weight: Any) -> str:
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) and weight.name == "kernel"
    return "depthwise_kernel" if depthwise else weight.name


@pytest.mark.parametrize("style", [_keras_1, _published_vgg])
def test_older_names_of_arrays(network: keras.Model, state: dict[str, Tensor], style: Any, tmp_path: Path) -> None:
    found = read_state_dict(_older_file(network, tmp_path / "net.h5", style))
    layers = list(dict.fromkeys(key.partition(".")[0] for key in found))
    today = ("block1_conv1", "block1_norm", "separable_conv2d_0", "predictions")
    names = dict(zip(layers, today, strict=True))
    _assert_same({names[key.partition(".")[0]] + "." + key.partition(".")[2]: found[key] for key in found}, state)


def test_model_within_a_model_and_long_lists_of_names(network: keras.Model, tmp_path: Path) -> None:
    inner = _network()
    outer = keras.Sequential([keras.layers.Input((8, 8, 3)), inner, keras.layers.Dense(2, name="mine")])
    outer.save(tmp_path / "net.h5")
    found = read_state_dict(tmp_path / "net.h5")
    assert {"block1_conv1.weight", "block1_norm.running_mean", "predictions.bias", "mine.weight"} <= found.keys()
    with h5py.File(tmp_path / "net.h5", "a") as file:  # a list longer than 64 kB is cut into pieces
        attributes = file["model_weights"].attrs
        names = attributes["layer_names"]
        del attributes["layer_names"]
        attributes["layer_names0"], attributes["layer_names1"] = names[:1], names[1:]
    _assert_same(read_state_dict(tmp_path / "net.h5"), found)


@pytest.mark.parametrize(
    ("application", "architecture", "style"),
    [
        ("MobileNetV2", "mobilenet_v2", _keras_1),
        ("MobileNetV3Small", "mobilenet_v3_small", _with_slashes),
        pytest.param("Xception", "xception", _keras_1, marks=pytest.mark.slow),
        pytest.param("DenseNet121", "densenet121", _with_slashes, marks=pytest.mark.slow),
        pytest.param("InceptionResNetV2", "inception_resnet_v2", _keras_1, marks=pytest.mark.slow),
        pytest.param("EfficientNetB0", "efficientnet_b0", _keras_1, marks=pytest.mark.slow),
    ],
)
def test_older_names_of_layers_go_by_position_as_in_keras(
    application: str, architecture: str, style: Any, tmp_path: Path
) -> None:
    size = 96
    theirs = keras_application(application, size)
    path = _older_file(theirs, tmp_path / "old.h5", style)
    again = keras_application(application, size, seed=1)
    again.load_weights(path)  # the judge: Keras itself
    ours = create_model(architecture, weights=path).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = keras_logits(again, images)
        torch.testing.assert_close(ours(images), logits, atol=1e-4 * max(1.0, float(logits.abs().max())), rtol=0)


@pytest.mark.slow
def test_layers_are_named_in_keras_order() -> None:
    """Every application's, so that what goes by position arrives where Keras would put it."""
    from weights_tables import keras_layers as asked_of_keras

    for architecture, layers in asked_of_keras():
        assert keras_layers(architecture) == tuple(layers), architecture
    assert keras_layers("alexnet") == ()


# --- broken and hostile files ------------------------------------------------------------------------------------


@pytest.fixture
def good(network: keras.Model, tmp_path: Path) -> Path:
    return keras_file(network, tmp_path)


def _external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.zeros(3)
    file[f"{LAYER}/2"] = h5py.ExternalLink(str(folder / "other.h5"), "secret")


def _soft_link(file: h5py.File, folder: Path) -> None:
    file[f"{LAYER}/2"] = h5py.SoftLink(f"/{LAYER}/0")


def _external_data(file: h5py.File, folder: Path) -> None:
    (folder / "secret.bin").write_bytes(bytes(12))
    file.create_dataset(f"{LAYER}/2", (3,), "f4", external=[(str(folder / "secret.bin"), 0, 12)])


def _virtual_data(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.zeros(3, "f4")
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (3,))
    file.create_virtual_dataset(f"{LAYER}/2", layout)


def _huge_array(file: h5py.File, folder: Path) -> None:
    file.create_dataset(f"{LAYER}/2", (1 << 40,), "f4", chunks=(1 << 20,))


def _bomb(file: h5py.File, folder: Path) -> None:
    file.create_dataset(f"{LAYER}/2", data=np.zeros(1 << 24, "f4"), compression="gzip", compression_opts=9)


def _many_small_bombs(file: h5py.File, folder: Path) -> None:
    """Each is small enough not to be looked at alone."""
    for number in range(2, 9):
        file.create_dataset(f"{LAYER}/{number}", data=np.zeros(1 << 20, "f4"), compression="gzip")


def _group_in_itself(file: h5py.File, folder: Path) -> None:
    file["layers/loop"] = file["layers"]
    file["layers/loop2"] = file["layers"]


def _root_in_itself(file: h5py.File, folder: Path) -> None:
    file["layers/root"] = file["/"]


def _many_names_of_one_array(file: h5py.File, folder: Path) -> None:
    for number in range(2, 9):
        file[f"{LAYER}/{number}"] = file[f"{LAYER}/0"]


def _ladder_of_groups(file: h5py.File, folder: Path) -> None:
    """Forty steps with two names each: 2 to the 40th ways down."""
    step = file.create_group("ladder")
    for _ in range(40):
        below = step.create_group("a")
        step["b"] = below
        step = below


HOSTILE = {
    _external_link: "refers to something elsewhere",
    _soft_link: "refers to something elsewhere",
    _external_data: "lies in another file",
    _virtual_data: "lies in another file",
    _huge_array: "has more numbers than the file",
    _bomb: "has more numbers than the file",
    _many_small_bombs: "more than it is long",
    _group_in_itself: "in it twice",
    _root_in_itself: "in it twice",
    _many_names_of_one_array: "in it twice",
    _ladder_of_groups: "in it twice",
}


def _refusal(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("attack", HOSTILE, ids=lambda attack: attack.__name__.strip("_"))
def test_hostile_file_is_refused(attack: Any, suffix: str, good: Path, tmp_path: Path) -> None:
    with h5py.File(good, "a") as file:
        attack(file, tmp_path)
    path = good
    if suffix == ".keras":
        path = tmp_path / "net.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(good, "model.weights.h5")
    assert HOSTILE[attack] in _refusal(path).message


def test_names_that_are_not_there_are_a_damage(network: keras.Model, tmp_path: Path) -> None:
    path = _older_file(network, tmp_path / "net.h5", _keras_1)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [b"convolution2d_1", b"../../etc/passwd"]
    assert "damaged" in _refusal(path).message


@pytest.mark.parametrize("kind", [".weights.h5", ".keras", ".h5", "_published.h5"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_truncated_file_is_named(network: keras.Model, kind: str, kept: float, tmp_path: Path) -> None:
    path = keras_file(network, tmp_path, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert "download the file again" in _refusal(path).hint


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html>404 Not Found</html>", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04rest"]
)
def test_other_files_are_no_weights(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    assert "damaged or not a Keras file" in _refusal(path).message


def test_archive_that_unpacks_to_anything_is_refused(good: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(50_000_000))
    assert (tmp_path / "net.keras").stat().st_size < 100_000
    assert "compressed" in _refusal(tmp_path / "net.keras").message


def test_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "contains no model.weights.h5" in _refusal(tmp_path / "net.keras").message


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_model_without_weights_is_refused(suffix: str, tmp_path: Path) -> None:
    keras.Sequential([keras.layers.Input((8,)), keras.layers.ReLU()]).save(tmp_path / f"net{suffix}")
    assert "contains no layers with weights" in _refusal(tmp_path / f"net{suffix}").message


def test_configuration_is_not_looked_at(network: keras.Model, state: dict[str, Tensor], tmp_path: Path) -> None:
    """It could name code to run; Keras itself asks for ``safe_mode=False`` before it does."""
    whole = keras_file(network, tmp_path, ".keras")
    with zipfile.ZipFile(whole) as archive:
        weights = archive.read("model.weights.h5")
    hostile = tmp_path / "hostile.keras"
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("config.json", '{"class_name": "Lambda", "config": {"function": "import os"')
        archive.writestr("../outside.txt", "x")
        archive.writestr("model.weights.h5", weights)
    _assert_same(read_state_dict(hostile), state)
    assert not (tmp_path.parent / "outside.txt").exists()
    older = keras_file(network, tmp_path, ".h5")
    with h5py.File(older, "a") as file:
        file.attrs["model_config"] = "no JSON at all"
    _assert_same(read_state_dict(older), state)


def test_absent_h5py_gives_the_install_command(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError) as caught:
        read_state_dict(good)
    assert caught.value.hint == "pip install 'hubel[keras]'"


# --- pixels ------------------------------------------------------------------------------------------------------

CAFFE = {"vgg16", "vgg19", "resnet50", "resnet101", "resnet152"}
MODULES = {
    "resnet": "resnet50",
    "densenet": "densenet121",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "xception": "xception",
    "inception_v3": "inception_v3",
    "inception_resnet_v2": "inception_resnet_v2",
    "mobilenet": "mobilenet_v1",
    "mobilenet_v2": "mobilenet_v2",
}


@pytest.mark.parametrize("module", MODULES)
def test_pixels_arrive_as_keras_preprocesses_them(module: str) -> None:
    """``caffe`` turns channels around, which our first convolution's weights do instead."""
    entry = find_entry("keras/imagenet", MODULES[module])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    code = importlib.import_module(f"keras.applications.{module}")
    theirs = code.preprocess_input(pixels.astype(np.float32), data_format="channels_last")
    if entry.architecture in CAFFE:
        theirs = theirs[..., ::-1]
    ours = entry.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-5)


def test_pixels_of_networks_that_preprocess_inside() -> None:
    """MobileNet-v3 rescales; EfficientNet's published weights subtract ImageNet's mean and divide by its deviation.

    EfficientNet divides by 255, by the square root of a "variance" that its file has (it is the deviation), and with
    ``weights="imagenet"`` by the root of the deviation again (tensorflow/tensorflow, issue 49930).
    """
    layer = next(each for each in _on_meta("MobileNetV3Small").layers if isinstance(each, keras.layers.Rescaling))
    ready = find_entry("keras/imagenet", "mobilenet_v3_small").preprocessing
    assert (1 / ready.std[0], -ready.mean[0] / ready.std[0]) == pytest.approx((layer.scale, layer.offset))
    code = importlib.import_module("keras.src.applications.efficientnet")
    for entry in entries_for("efficientnet_b0"):
        if entry.source == "keras":
            assert entry.preprocessing.std == pytest.approx([255 * value for value in code.IMAGENET_STDDEV_RGB])


def _on_meta(application: str) -> keras.Model:
    with keras.device("meta"):
        return getattr(keras.applications, application)(weights=None, input_shape=(224, 224, 3))


@pytest.mark.parametrize(
    ("application", "architecture"),
    [("MobileNet", "mobilenet_v1"), pytest.param("ResNet50", "resnet50", marks=pytest.mark.slow)],
)
def test_local_file_is_fed_as_keras_feeds_it(application: str, architecture: str, tmp_path: Path) -> None:
    """From pixels to probabilities, without a word on where the file is from."""
    theirs = keras_application(application, 64)
    model = create_model(architecture, image_size=64, weights=keras_file(theirs, tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (73, 73, 3), dtype=np.uint8)
    (result,) = Predictor(model, engine="torch", precision="float32")([Image.fromarray(pixels)])
    code = importlib.import_module("keras.applications." + ("resnet" if "Res" in application else "mobilenet"))
    crop = code.preprocess_input(pixels[None, 4:68, 4:68].astype(np.float32), data_format="channels_last")
    scores = keras_logits(theirs, torch.from_numpy(crop.copy()).permute(0, 3, 1, 2)).softmax(1)[0]
    for each in result.classes:
        assert each.score == pytest.approx(float(scores[each.index]), abs=1e-4)
    assert result.classes[0].index == int(scores.argmax())


@pytest.mark.parametrize("kind", ["empty", "packed"])
def test_arrays_of_more_numbers_than_the_file_holds_are_refused(kind: str, tmp_path: Path) -> None:
    """HDF5 may state any shape: what is not stored reads as zeros, and compressed zeros take no space."""
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        if kind == "empty":
            file.create_dataset("layers/conv2d/vars/0", shape=(1 << 20, 1 << 20), dtype="f4")
        else:
            file.create_dataset("layers/conv2d/vars/0", data=np.zeros((4096, 4096), "f4"), compression="gzip")
    with pytest.raises(WeightsError, match="has more numbers than the file"):
        read_state_dict(path)
