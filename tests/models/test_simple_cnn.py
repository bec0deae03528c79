"""The textbook's network against its printed summary and a plain stack of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hubel.errors import ModelError
from hubel.models import create_model
from hubel.training.train import complete_config


def plain_stack(dropout: float = 0.5) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 64, 7, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding="same"), nn.ReLU()),
        *(nn.Conv2d(128, 128, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(128, 256, 3, padding="same"), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(2304, 128), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(128, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 10)),
    )


def test_parameters_are_those_of_the_books_summary() -> None:
    counts = [
        sum(parameter.numel() for parameter in module.parameters())
        for module in create_model("simple_cnn").modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert counts == [3200, 73856, 147584, 295168, 590080, 295040, 8256, 650]
    assert sum(counts) == 1413834


def test_scores_equal_a_plain_stack_of_layers() -> None:
    model, plain = create_model("simple_cnn"), plain_stack()
    for theirs, ours in zip(plain.parameters(), model.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(model.eval()(images), plain.eval()(images))
    # The same random numbers drop the same units.
    torch.manual_seed(3)
    ours = model.train()(images)
    torch.manual_seed(3)
    torch.testing.assert_close(ours, plain.train()(images))


def test_weights_start_as_hes() -> None:
    model = create_model("simple_cnn")
    layer = model.get_submodule("backbone.stage3.1.conv")
    assert layer.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert not bool(layer.bias.any())


def test_dense_layers_follow_the_image_size() -> None:
    model = create_model("simple_cnn", image_size=64)
    assert model.head.dense1.in_features == 256 * 8 * 8
    with pytest.raises(ModelError, match="7 pixels"):
        create_model("simple_cnn", image_size=7)


def test_it_trains_by_its_own_recipe_unless_told_otherwise() -> None:
    config = complete_config(Path("data"), {"task": "classify", "model": "simple_cnn"})
    assert (config.epochs, config.batch, config.schedule) == (34, 128, "one-cycle")
    assert (config.learning_rate, config.label_smoothing, config.augmentation) == (0.0015, 0.03, ("flip", "cutmix"))
    told = complete_config(
        Path("data"),
        {"task": "classify", "model": "simple_cnn", "weights": None, "epochs": None, "batch": 8, "schedule": "cosine"},
    )
    assert (told.epochs, told.batch, told.schedule, told.augmentation) == (34, 8, "cosine", ("flip", "cutmix"))
    other = complete_config(Path("data"), {"task": "classify", "model": "resnet18", "weights": None})
    assert (other.epochs, other.batch, other.augmentation) == (60, 32, ("crop", "flip", "mixup", "cutmix"))
