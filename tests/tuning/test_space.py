"""The space of a search: YAML files, their faults, and the default of each task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hubel.config import RECIPES, TrainingConfig
from hubel.errors import UsageError
from hubel.training.train import complete_config
from hubel.tuning.space import Choices, Range, Space, default_space, make_space, plain, read_space, searchable


def check(settings: Mapping[str, Any]) -> TrainingConfig:
    return complete_config(Path("shapes"), {"task": "classify", "model": "simple_cnn", **settings})


def read(folder: Path, text: str, given: tuple[str, ...] = ()) -> Space:
    path = folder / "space.yaml"
    path.write_text(text)
    return read_space(path, given, check)


def test_values_are_those_that_a_configuration_has(tmp_path: Path) -> None:
    text = """
learning-rate: {low: 1e-4, high: 0.01, log: true}
epochs: {low: 3, high: 9}
label_smoothing: {low: 0, high: 0.2}
batch: [8, "16"]
augmentation: [none, "flip,crop", [crop, flip], alexnet]
"""
    assert read(tmp_path, text) == {
        "learning_rate": Range(1e-4, 0.01, log=True),  # YAML takes 1e-4 for text
        "epochs": Range(3, 9),
        "label_smoothing": Range(0.0, 0.2),
        "batch": Choices((8, 16)),
        "augmentation": Choices(("none", "crop,flip", "window,flip,lighting")),
    }
    assert isinstance(read(tmp_path, "epochs: {low: 3, high: 9}")["epochs"].low, int)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("learning_rte: [0.1]", "learning_rte: there is no such option", "did you mean learning_rate?"),
        ("learning_rte: 0.1", "learning_rte: there is no such option", "did you mean learning_rate?"),
        ("learning_rate: {low: -1, high: 1}", "learning_rate = -1: it is greater than 0", ""),
        ("label_smoothing: [0.1, 1.5]", "label_smoothing = 1.5: it is less than 1", ""),
        ("epochs: {low: 1.5, high: 3}", "epochs = 1.5: it is not a whole number", ""),
        ("schedule: [cosine, linear]", "schedule = 'linear': it is one of 'cosine', 'one-cycle', 'constant'", ""),
        ("augmentation: [crop, watercolor]", "unknown augmentation 'watercolor'", "choose from: "),
        ("unfreeze_from: [stem]", "--unfreeze-from stem: the network has no layer of that name", "choose from "),
        ("epochs: {low: 9, high: 3}", "epochs: low, 9, is not below high, 3", "write a range"),
        ("learning_rate: {low: 0.1, high: .inf}", "learning_rate: a range to inf is too wide", "end it at"),
        ("epochs: {low: 3}", "epochs: a range has low and high", "write a range"),
        ("epochs: {low: 3, high: 9, step: 2}", "epochs: a range has low and high", "write a range"),
        ("weight_decay: {low: 0, high: 1, log: true}", "a range from 0 has no logarithm", "start above 0"),
        ("schedule: {low: cosine, high: constant}", "schedule: only numbers have a range", "schedule: [cosine, …]"),
        ("epochs: 3", "epochs: 3 is neither a range nor a list of choices", "write a range"),
        ("epochs: []", "epochs", ""),
        ("seed: [1, 2]", "seed cannot be searched", "choose from model, "),
        ("batch: [8, 16]", "batch is also given as an option", "leave one of the two out"),
        ("- epochs", "is not a mapping of settings", "write a range"),
        ("epochs: [3", "is not valid YAML", "write a range"),
    ],
)
def test_faults_are_a_sentence_that_names_the_file(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, text, given=("batch",))
    assert raised.value.message.startswith(f"--space {tmp_path / 'space.yaml'}")
    assert message in raised.value.message and hint in raised.value.hint


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="space.yaml cannot be read: No such file"):
        read_space(tmp_path / "space.yaml", (), check)


@pytest.mark.parametrize("task", list(RECIPES))
@pytest.mark.parametrize("weights", ["default", None])
def test_the_default_space_is_possible_and_contains_the_defaults(task: str, weights: str | None) -> None:
    def of_task(settings: Mapping[str, Any]) -> TrainingConfig:
        return complete_config(Path("data"), {"task": task, "weights": weights, **settings})

    default = of_task({})
    space = default_space(default, ())
    described = {name: values.to_json() for name, values in space.items()}
    assert make_space(described, (), of_task) == space, "the file that is written is read as the same space"
    assert set(space) <= set(searchable())
    for name, values in space.items():
        assert plain(getattr(default, name)) in values, name
    assert ("unfreeze_from" in space) == ("head_learning_rate" in space) == bool(default.head_epochs)
    assert ("layer_decay" in space) == bool(default.head_epochs)
    assert set(default_space(default, ["epochs", "average"])) == set(space) - {"epochs", "average"}


def test_settings_without_effect_are_not_searched() -> None:
    head_only = complete_config(
        Path("data"), {"task": "classify", "epochs": 6, "head_epochs": 6, "cache_features": True}
    )
    space = default_space(head_only, ["epochs", "head_epochs", "cache_features"])
    assert set(space) == {"head_learning_rate", "schedule", "weight_decay", "average", "label_smoothing"}
