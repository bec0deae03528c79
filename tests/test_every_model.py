"""One sweep: the same demands on every registered architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hubel.models import (
    ModelCard,
    architecture,
    create_model,
    default_preprocessing,
    list_models,
    load_model,
    save_model,
)

# As published: the papers, torchvision's metadata, timm's tables, the textbook's summary.
PUBLISHED_PARAMETERS = {
    "lenet5": 60_000,
    "lenet5_modern": 61_706,
    "simple_cnn": 1_413_834,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}
LARGE = {"resnet34", "resnet101", "resnet152", "efficientnet_lite3", "efficientnet_lite4"}
SIZES = (32, 61)

every_model = pytest.mark.parametrize("name", list_models())
small_ones_first = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in list_models()]
)


def small(name: str, image_size: int = 32, **options: Any) -> tuple[nn.Module, Tensor]:
    """A seeded model for small images, and two of them."""
    torch.manual_seed(0)
    model = create_model(name, image_size=image_size, **options)
    channels = options.get("in_channels") or architecture(name).input[0]
    return model, torch.randn(2, channels, image_size, image_size)


def test_every_architecture_has_a_published_figure() -> None:
    assert set(list_models("classify")) == set(PUBLISHED_PARAMETERS)


@every_model
def test_parameters_are_as_published(name: str) -> None:
    assert sum(parameter.numel() for parameter in create_model(name).parameters()) == PUBLISHED_PARAMETERS[name]


@every_model
def test_two_image_sizes_in_training_and_evaluation(name: str) -> None:
    classes = architecture(name).num_classes
    for size in SIZES:
        model, images = small(name, size)
        for mode in (True, False):
            with torch.no_grad():
                scores = model.train(mode)(images)
            assert type(scores) is Tensor
            assert scores.shape == (2, classes)
            assert bool(scores.isfinite().all())
        # Different images are told apart, each by itself: in evaluation the batch has no influence.
        with torch.no_grad():
            alone = model(images[:1])
        torch.testing.assert_close(alone, scores[:1], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(scores[0], scores[1])


@every_model
def test_odd_numbers_of_classes_and_channels(name: str) -> None:
    for channels in (1, 4):
        model, images = small(name, num_classes=7, in_channels=channels)
        with torch.no_grad():
            scores = model.eval()(images)
            assert scores.shape == (2, 7)
            for channel in range(channels):  # every channel counts
                changed = images.clone()
                changed[:, channel] += 1
                assert not torch.equal(model(changed), scores)


@every_model
def test_gradients_reach_every_parameter(name: str) -> None:
    model, images = small(name, 64, num_classes=7)
    nn.functional.cross_entropy(model(images), torch.tensor([1, 5])).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert without == []


@every_model
def test_pyramid_is_as_announced(name: str) -> None:
    for size in SIZES:
        model, images = small(name, size)
        with torch.no_grad():
            maps = model.eval().features(images)
        assert {stride: tensor.shape[1] for stride, tensor in maps.items()} == model.feature_channels
        assert list(maps) == sorted(maps)
        # LeNet-5's convolutions do not pad: up to 4 + 8 + ... pixels of the border are lost on the way.
        lost = 16 if name.startswith("lenet") else 0
        for stride, tensor in maps.items():
            assert (size - lost) // stride <= tensor.shape[2] <= -(-size // stride)


@every_model
def test_a_saved_model_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    model, images = small(name, num_classes=7)
    for key, buffer in model.named_buffers():  # as if it had been trained
        if key.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    row = architecture(name)
    card = ModelCard(
        task=row.task,
        architecture=name,
        num_classes=7,
        in_channels=row.input[0],
        image_size=32,
        classes=[f"class {number}" for number in range(7)],
        preprocessing=default_preprocessing(name, 32),
    )
    save_model(tmp_path / "saved", model.to(memory_format=torch.channels_last), card)
    again, card_again = load_model(tmp_path / "saved")
    assert card_again == card
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(images), model.to(memory_format=torch.contiguous_format).eval()(images))


@small_ones_first
def test_exported_graph_equals_the_model(name: str) -> None:
    model, images = small(name, 33)
    exported = torch.export.export(
        model.eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    ).module()
    with torch.no_grad():
        for batch in (images, torch.randn(5, *images.shape[1:])):
            torch.testing.assert_close(exported(batch), model(batch), rtol=1e-4, atol=1e-5)


@every_model
def test_backbone_and_head_are_separate(name: str) -> None:
    model, images = small(name, num_classes=7)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.head(model.backbone(images)), model(images))
    other, _ = small(name, num_classes=5)
    fixed = [
        key
        for key, tensor in model.state_dict().items()
        if tensor.shape != other.state_dict()[key].shape and not key.startswith("head.classifier.")
    ]
    assert fixed == []
