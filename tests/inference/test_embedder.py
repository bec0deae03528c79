"""Appearance vectors against timm's network with the same weights and a plain loop over pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import hubel
from hubel.errors import UsageError
from hubel.inference.embedder import Embedder
from hubel.models.checkpoint import resolve_model
from hubel.models.classification.deepsort_reid import embedding_of
from hubel.tracking.appearance import stripe_colours

BOXES = np.array([[20.0, 30, 120, 230], [300, 40, 380, 200], [200, 100, 260, 400], [10, 10, 400, 420]])


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return load_sample_image("china.jpg")


@pytest.fixture(scope="module")
def embed() -> Iterator[Embedder]:
    yield Embedder("efficientnet_lite0", threads=1)


def crops_of(photograph: np.ndarray) -> np.ndarray:
    image = Image.fromarray(photograph)
    scaled = (image.resize((64, 128), Image.Resampling.BILINEAR, box=tuple(box)) for box in BOXES)
    return np.stack([np.asarray(crop) for crop in scaled])


def colours_by_loop(crop: np.ndarray) -> np.ndarray:
    """What :func:`stripe_colours` says it does, pixel by pixel."""
    histogram = np.zeros((4, 6, 6, 6))
    for y in range(crop.shape[0]):
        for x in range(crop.shape[1]):
            red, green, blue = (float(value) for value in crop[y, x])
            axes = (128 + 1.25 * (red - green), 128 + 0.625 * (red + green - 2 * blue), (red + green + blue) / 3)
            bins = tuple(int(min(max(axis * 6 / 256, 0), 5)) for axis in axes)
            across = (x + 0.5) / crop.shape[1]
            histogram[(y * 4 // crop.shape[0], *bins)] += min(1, 3.2 * min(across, 1 - across))
    vector = np.sqrt(histogram.ravel())
    return vector / np.linalg.norm(vector)


def test_colours_are_those_of_the_pixels(photograph: np.ndarray) -> None:
    crops = crops_of(photograph)[:2]
    for vector, crop in zip(stripe_colours(crops), crops, strict=True):
        np.testing.assert_allclose(vector, colours_by_loop(crop), atol=1e-5)


def timm_vectors(crops: np.ndarray) -> np.ndarray:
    """From timm's network with hubel's weights, matched by their order: the first map of stride 16, two halves."""
    ours, _ = resolve_model("efficientnet_lite0")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    mine = [value for key, value in ours.state_dict().items() if not key.endswith("num_batches_tracked")]
    keys = [key for key in theirs.state_dict() if not key.endswith("num_batches_tracked")]
    theirs.load_state_dict(dict(zip(keys, mine, strict=True)), strict=False)
    images = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        signal = theirs.bn1(theirs.conv_stem(images))
        for blocks in theirs.blocks:
            signal = blocks(signal)
            if signal.shape[2] == 8:
                break
    weights = torch.tensor([min(1.0, 3.2 * min(x, 1 - x)) for x in ((np.arange(4) + 0.5) / 4).tolist()])
    columns = (signal * weights).sum(3) / weights.sum()
    halves = torch.stack((columns[:, :, :4].mean(2), columns[:, :, 4:].mean(2)), dim=2).flatten(1)
    return (halves / halves.norm(dim=1, keepdim=True)).numpy()


def test_the_network_is_timms(photograph: np.ndarray) -> None:
    crops = crops_of(photograph)
    network, metadata = resolve_model("efficientnet_lite0")
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = embedding_of(network)(metadata.preprocessing.normalize(pixels)).numpy()
    np.testing.assert_allclose(found, timm_vectors(crops), atol=1e-4)


def test_vectors_are_the_network_and_the_colours(embed: Embedder, photograph: np.ndarray) -> None:
    """Cosine distances to within 0.0002, a thousandth of what decides."""
    crops = crops_of(photograph)
    fixed = np.full((len(crops), 1), 0.3**0.5)
    colours = np.stack([colours_by_loop(crop) for crop in crops])
    expected = np.concatenate((timm_vectors(crops) * 0.42**0.5, colours * 0.28**0.5, fixed), axis=1)
    found = embed(photograph, BOXES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert (1 - (found * expected).sum(axis=1)).max() < 2e-4
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-4)


def test_a_vector_is_the_same_alone_and_among_hundreds(embed: Embedder, photograph: np.ndarray) -> None:
    many = np.tile(BOXES, (80, 1))
    found = embed(photograph, many)
    assert len(found) == 320
    np.testing.assert_allclose(found, np.tile(embed(photograph, BOXES), (80, 1)), atol=1e-5)
    np.testing.assert_allclose(embed(Image.fromarray(photograph), BOXES[1:2]), found[1:2], atol=1e-5)


def test_boxes_beyond_the_image(embed: Embedder, photograph: np.ndarray) -> None:
    """What is outside does not count; outside altogether, or no number: the nearest pixels."""
    height, width = photograph.shape[:2]
    beyond = embed(photograph, np.array([[-50.0, -80, 60, 90], [width - 60, height - 90, width + 9, height + 99]]))
    inside = embed(photograph, np.array([[0.0, 0, 60, 90], [width - 60, height - 90, width, height]]))
    np.testing.assert_allclose(beyond, inside, atol=1e-5)
    strange = np.array([[-90.0, -90, -50, -50], [np.nan, 1, 2, 3], [1e12, 1e12, 2e12, 2e12], [5, 5, 5, 5]])
    found = embed(photograph, strange)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], embed(photograph, np.array([[0.0, 0, 1, 1]]))[0], atol=1e-5)


def test_nobody_gives_no_vectors(embed: Embedder, photograph: np.ndarray) -> None:
    assert embed(photograph, np.empty((0, 4))).shape == (0, embed(photograph, BOXES).shape[1])


@pytest.mark.parametrize(
    ("image", "boxes", "message"),
    [
        (np.zeros((9, 9), np.uint8), BOXES, "the image"),
        (np.zeros((9, 9, 3)), BOXES, "the image"),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((2, 5)), "boxes"),
    ],
)
def test_wrong_arguments_are_reported(embed: Embedder, image: np.ndarray, boxes: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        embed(image, boxes)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "vgg11"])
def test_other_backbones_give_vectors_too(name: str) -> None:
    """Of length 1, different for different crops."""
    torch.manual_seed(0)
    model = embedding_of(hubel.create_model(name, num_classes=3)).eval()
    with torch.no_grad():
        vectors = model(torch.rand(2, 3, 128, 64))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert vectors.shape[1] % 2 == 0 and not torch.allclose(vectors[0], vectors[1], atol=1e-4)
