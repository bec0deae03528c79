"""One sweep: the same demands on every registered architecture."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from hubel.layers.mbconv import StochasticDepth
from hubel.models import (
    Classifier,
    ModelMetadata,
    architecture,
    create_model,
    default_preprocessing,
    list_models,
    load_model,
    save_model,
)
from hubel.models.factory import build
from hubel.models.metadata import Backbone
from published_figures import PUBLISHED, representatives


def swept() -> list[Any]:
    fast = representatives()
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.slow) for name in list_models("classify")]


def sizes_for(name: str) -> tuple[int, int]:
    """Two sides of images in pixels, one of them odd."""
    smallest = PUBLISHED[name].smallest
    return smallest, 2 * smallest - 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Images this small are done before a second thread has woken up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=swept())
def name(request: pytest.FixtureRequest) -> str:
    """Each architecture in turn; pytest runs all tests of one before the next."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def shared(name: str) -> Classifier:
    """A seeded model for the smallest images, with 7 classes, that no test may change."""
    torch.manual_seed(0)
    return create_model(name, num_classes=7, image_size=PUBLISHED[name].smallest)


def at_size(model: Classifier, name: str, size: int) -> Classifier:
    """The shared model, or one of its kind where another image size needs another."""
    if size == PUBLISHED[name].smallest or not PUBLISHED[name].fixed_size:
        return model
    return create_model(name, num_classes=7, image_size=size)


def sides_of(name: str, size: int) -> tuple[int, int]:
    """Height and width of images of that height, in the shape of the native input."""
    _, height, width = architecture(name).input
    return size, round(size * width / height)


def images_for(name: str, size: int, count: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, architecture(name).input[0], *sides_of(name, size))


def test_every_architecture_has_a_published_figure() -> None:
    assert set(list_models("classify")) == set(PUBLISHED)


@pytest.mark.parametrize("row", [name for name in PUBLISHED if " " in PUBLISHED[name].source])
def test_published_figures_stand_where_they_are_cited(row: str) -> None:
    library, _, theirs = PUBLISHED[row].source.partition(" ")
    if library == "torchvision":
        counts = {weights.meta["num_params"] for weights in torchvision.models.get_model_weights(theirs)}
    else:
        with torch.device("meta"):
            counts = {sum(parameter.numel() for parameter in timm.create_model(theirs).parameters())}
    assert counts == {PUBLISHED[row].parameters}


def test_parameters_are_as_published(name: str) -> None:
    row = architecture(name)
    model = build(row, row.num_classes, row.input[0], row.input[1], {}, for_loading=True)
    model.auxiliary.clear()
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name].parameters


@pytest.mark.parametrize("which", [0, 1])
def test_scores_in_training_and_evaluation(name: str, shared: Classifier, which: int) -> None:
    size = sizes_for(name)[which]
    model, images = copy.deepcopy(at_size(shared, name, size)), images_for(name, size)
    with torch.no_grad():
        for mode in (True, False):
            scores = model.train(mode)(images)
            assert type(scores) is Tensor
            assert scores.shape == (2, 7)
            assert bool(scores.isfinite().all())
        # Different images are told apart, each by itself: in evaluation the batch has no influence.
        torch.testing.assert_close(model(images[:1]), scores[:1], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(scores[0], scores[1])


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(name: str, channels: int) -> None:
    size = PUBLISHED[name].smallest
    model = create_model(name, num_classes=3, in_channels=channels, image_size=size).eval()
    images = torch.randn(1, channels, *sides_of(name, size)).repeat(channels + 1, 1, 1, 1)
    for channel in range(channels):
        images[channel + 1, channel] += 1
    with torch.no_grad():
        scores = model(images)
    assert scores.shape == (channels + 1, 3)
    # Each channel counts, and each in its own way.
    assert len({tuple(row.tolist()) for row in scores}) == channels + 1


def test_gradients_reach_every_parameter(name: str, shared: Classifier) -> None:
    size = max(64, PUBLISHED[name].smallest)
    model, images = at_size(shared, name, size), images_for(name, size)
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.drop = 0.0  # it may pass a unit by for both images
    outputs = model.training_outputs(images)
    scores = [outputs] if isinstance(outputs, torch.Tensor) else outputs.values()
    losses = [nn.functional.cross_entropy(each, torch.tensor([1, 5])) for each in scores]
    sum(losses).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert without == []


def test_localizer_stands_on_every_classifier(name: str) -> None:
    row, localizer = architecture(name), architecture("localizer")
    with torch.device("meta"):
        model = build(localizer, 3, row.input[0], 224, {}, Backbone(name), for_loading=True)
        outputs = model(torch.empty(2, *row.input))
    assert (outputs["scores"].shape, outputs["box"].shape) == ((2, 3), (2, 4))


@pytest.mark.parametrize("which", [0, 1])
def test_pyramid_is_as_announced(name: str, shared: Classifier, which: int) -> None:
    size = sizes_for(name)[which]
    model = at_size(shared, name, size).eval()
    with torch.no_grad():
        maps = model.features(images_for(name, size))
    assert {stride: tensor.shape[1] for stride, tensor in maps.items()} == model.feature_channels
    assert list(maps) == sorted(maps)
    lost = PUBLISHED[name].lost
    for stride, tensor in maps.items():
        assert (size - lost) // stride <= tensor.shape[2] <= -(-size // stride)


def test_a_saved_model_gives_the_same_scores(name: str, shared: Classifier, tmp_path: Path) -> None:
    model, images = copy.deepcopy(shared).eval(), images_for(name, PUBLISHED[name].smallest)
    for key, buffer in model.named_buffers():  # as if it had been trained
        if key.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    metadata = ModelMetadata(
        task="classify",
        architecture=name,
        num_classes=7,
        in_channels=architecture(name).input[0],
        image_size=PUBLISHED[name].smallest,
        classes=[f"class {number}" for number in range(7)],
        preprocessing=default_preprocessing(name, PUBLISHED[name].smallest),
    )
    with torch.no_grad():
        expected = model(images)
        save_model(tmp_path / "saved", model.to(memory_format=torch.channels_last), metadata)
        again, card_again = load_model(tmp_path / "saved")
        assert torch.equal(again(images), expected)
    assert card_again == metadata
    assert not again.training


def test_exported_graph_equals_the_model(name: str, shared: Classifier) -> None:
    size = PUBLISHED[name].smallest + 1
    model, images = at_size(shared, name, size).eval(), images_for(name, size)
    exported = torch.export.export(
        model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    ).module()
    with torch.no_grad():
        for batch in (images, images_for(name, size, count=5)):
            torch.testing.assert_close(exported(batch), model(batch), rtol=1e-4, atol=1e-5)


def test_backbone_and_head_are_separate(name: str, shared: Classifier) -> None:
    images = images_for(name, PUBLISHED[name].smallest)
    shared.eval()
    with torch.no_grad():
        assert torch.equal(shared.head(shared.backbone(images)), shared(images))
