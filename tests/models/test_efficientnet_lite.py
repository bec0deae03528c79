"""The EfficientNet-Lites against timm's on the same weights, and the pretrained one against its own package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hubel.layers.mbconv import make_divisible
from hubel.models import architecture, create_model, resolve_model
from hubel.weights import default_entry, fetch, read_state_dict
from hubel.weights.key_mapping import rename
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = [f"efficientnet_lite{number}" for number in range(5)]


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_timms_at_even_and_odd_sizes(name: str) -> None:
    theirs = with_live_statistics(timm.create_model(f"tf_{name}"))
    ours = create_model(name).eval()
    ours.load_state_dict(rename(theirs.state_dict(), name).state)
    with torch.no_grad():
        for height, width in ((64, 64), (97, 75)):
            images = torch.randn(2, 3, height, width)
            expected = theirs(images)
            assert expected.std() > 0.01
            assert largest_difference(ours(images), expected) < 1e-4


def test_pyramid_equals_timms() -> None:
    theirs = timm.create_model("tf_efficientnet_lite2", features_only=True)
    with_live_statistics(theirs)
    ours = create_model("efficientnet_lite2").eval()
    ours.load_state_dict(rename(theirs.state_dict(), "efficientnet_lite2").state, strict=False)  # timm's ends earlier
    images = torch.randn(1, 3, 70, 97)
    assert_same_pyramid(ours, theirs, images)


def test_depth_counts_convolutions_and_the_dense_layer() -> None:
    for name in NAMES:
        model = create_model(name)
        weights = [key for key, tensor in model.state_dict().items() if tensor.ndim in (2, 4)]
        assert architecture(name).depth == len(weights)


def test_channels_never_shrink_by_more_than_a_tenth() -> None:
    # 24 × 1.1 = 26.4 rounds to 24; 16 × 1.4 = 22.4 to 24; 12 × 1.0 to 16, since 8 would lose a third.
    assert [make_divisible(*pair) for pair in ((24, 1.1), (16, 1.4), (12, 1.0), (40, 1.1))] == [24, 24, 16, 48]


@pytest.fixture(scope="module")
def package_network() -> torch.nn.Module:
    """The network that the weights' own package family publishes, with those weights."""
    from efficientnet_lite_pytorch import EfficientNet

    entry = default_entry("efficientnet_lite0")
    assert entry is not None
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(read_state_dict(fetch(entry)))
    return network.eval()


def photographs() -> dict[str, Image.Image]:
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    names = [Path(name).stem for name in samples.filenames]
    return {name: Image.fromarray(pixels) for name, pixels in zip(names, samples.images, strict=True)}


def test_pretrained_scores_equal_the_packages_on_photographs(package_network: torch.nn.Module) -> None:
    model, metadata = resolve_model("efficientnet_lite0")
    pixels = np.stack([metadata.preprocessing.pixels(image) for image in photographs().values()])
    images = metadata.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        scores, expected = model(images), package_network(images)
    assert expected.max() > 5
    assert largest_difference(scores, expected) < 1e-3


def test_it_sees_a_palace() -> None:
    model, metadata = resolve_model("efficientnet_lite0")
    pixels = torch.tensor(metadata.preprocessing.pixels(photographs()["china"])).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = model(metadata.preprocessing.normalize(pixels))
    assert metadata.classes[int(scores.argmax())] == "palace"


@pytest.mark.data
def test_pretrained_scores_equal_an_independent_forward_pass(data_folder: Path) -> None:
    with np.load(data_folder / "weights_pypi" / "oracle_logits_12img.npz") as oracle:
        pixels, expected = torch.from_numpy(oracle["images_uint8"]), torch.from_numpy(oracle["lite0_logits"])
    model, metadata = resolve_model("efficientnet_lite0")
    with torch.no_grad():
        scores = model(metadata.preprocessing.normalize(pixels.permute(0, 3, 1, 2)))
    assert largest_difference(scores, expected) < 1e-3


@pytest.mark.data
def test_top5_on_real_imagenet_photographs(data_folder: Path) -> None:
    folder = data_folder / "imagenet_samples"
    rows = [line.split(",") for line in (folder / "labels.csv").read_text("utf-8").splitlines()[1:]]
    model, metadata = resolve_model("efficientnet_lite0")
    hits = 0
    for row in rows[::4]:
        with Image.open(folder / row[0]) as image:
            pixels = torch.tensor(metadata.preprocessing.pixels(image.convert("RGB"))).permute(2, 0, 1)[None]
        with torch.no_grad():
            best = model(metadata.preprocessing.normalize(pixels))[0].topk(5).indices
        hits += int(row[1]) in best.tolist()
    assert hits >= 0.95 * len(rows[::4])
