"""Nested cross-validation: on labels of pure noise it is chance, where the score of the best settings is not."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

from drawn_shapes import write_shapes
from hubel.data.loader import seed_for
from hubel.errors import UsageError
from hubel.tuning import fold_training
from hubel.tuning.fold_training import FoldTask
from hubel.tuning.tune import tune

SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
CHANCE, NOISE = 0.5, 0.05

trained: list[tuple[float, frozenset[str], frozenset[str]]] = []


def learns_nothing(shared: Any, task: FoldTask, *others: Any) -> tuple[float, float]:
    """The accuracy on labels of pure noise: chance, and an error that depends on the settings and the images."""
    config, splits = task.config, task.splits
    train, held_out = (frozenset(sample.path.name for sample in part) for part in (splits.train, splits.val))
    trained.append((config.learning_rate or 0, train, held_out))
    rng = np.random.default_rng(seed_for(config.seed, f"{config.learning_rate}", *sorted(held_out), len(train)))
    return float(rng.normal(CHANCE, NOISE)), 1.0


@pytest.fixture(autouse=True)
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    trained.clear()
    monkeypatch.setattr(fold_training, "train_fold", learns_nothing)


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's record without its file, whose tables take a second to make for each search."""

    class WithEngine(optuna.storages.InMemoryStorage):
        engine = SimpleNamespace(dispose=lambda: None)

    class InMemory:
        def __new__(cls, url: str) -> Any:
            return WithEngine()

    monkeypatch.setattr(optuna.storages, "RDBStorage", InMemory)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    for number, kind in enumerate(("cross", "disc")):
        write_shapes(root / "train", {kind: 16}, seed=number)
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(f"{path.parent.name}-{path.name}"))
    return root


def test_on_noise_it_is_chance_and_the_naive_score_is_not(data: Path, tmp_path: Path, in_memory: None) -> None:
    found = [
        tune(data, out=tmp_path / "s", nested=True, trials=8, folds=4, space=SPACE, model="lenet5", seed=seed)
        for seed in range(6)
    ]
    nested = [each.nested.scores for each in found if each.nested is not None]
    error = NOISE / np.sqrt(np.size(nested))
    assert np.size(nested) == 24 and abs(np.mean(nested) - CHANCE) < 2.5 * error
    naive = float(np.mean([each.estimate.mean for each in found]))
    assert naive > CHANCE + 3 * error
    assert not any("better than the defaults" in sentence for each in found for sentence in each.sentences)


def test_no_image_of_a_fold_has_a_part_in_the_search_without_it(data: Path, tmp_path: Path, in_memory: None) -> None:
    result = tune(data, out=tmp_path / "search", nested=True, trials=2, folds=3, space=SPACE, model="lenet5")
    folds = [
        frozenset(Path(n).name for n in names)
        for names in json.loads((result.folder / "folds.json").read_text()).values()
    ]
    everything = frozenset.union(*folds)
    inner = [each for each in trained if each[1] | each[2] != everything]
    for fold in folds:
        of_this = [each for each in inner if each[1] | each[2] == everything - fold]
        held_out = {each[2] for each in of_this}
        assert len(held_out) == 3 and frozenset.union(*held_out) == everything - fold
        assert [each for each in trained if each[2] == fold][-1][1] == everything - fold, "then it scores the fold"
    assert result.nested is not None and len(result.nested.scores) == 3
    assert result.to_json()["nested"]["mean"] == pytest.approx(result.nested.mean)
    sentence = "Nested, on images that had no part in choosing the settings, a search reaches top-1"
    assert any(each.startswith(f"{sentence} {result.nested}: ") for each in result.sentences)
    assert sentence in (result.folder / "report.html").read_text()


def test_it_goes_on_without_training_anything_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"trials": 2, "folds": 2, "space": SPACE, "model": "lenet5"}
    unbroken = tune(data, out=tmp_path / "a", nested=True, **options)
    counts = Counter(trained)
    trained.clear()

    def interrupted(*arguments: Any) -> tuple[float, float]:
        if len(trained) == 7:
            raise KeyboardInterrupt
        return learns_nothing(*arguments)

    monkeypatch.setattr(fold_training, "train_fold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(data, out=tmp_path / "b", nested=True, **options)
    monkeypatch.setattr(fold_training, "train_fold", learns_nothing)
    resumed = tune(data, out=tmp_path / "b", resume=True, trials=2)
    assert resumed.nested == unbroken.nested and Counter(trained) == counts
    trained.clear()
    again = tune(data, out=tmp_path / "b", resume=True, nested=True, trials=2)
    assert again.nested == unbroken.nested and not trained
    shutil.rmtree(tmp_path / "b" / "without-fold-1")
    with pytest.raises(UsageError, match="was begun without --nested"):
        tune(data, out=tmp_path / "b", resume=True, nested=True)


def test_repetitions_and_groups_are_those_of_all_its_searches(
    data: Path, tmp_path: Path, in_memory: None, capsys: Any
) -> None:
    names = [path.relative_to(data).as_posix() for path in data.rglob("*.png")]
    groups = {name: f"{name.split('-')[0]}-{int(name.split('-')[-1][:-4]) // 3}" for name in names}
    options: dict[str, Any] = {"trials": 2, "folds": 2, "space": SPACE, "model": "lenet5"}
    result = tune(data, out=tmp_path / "search", nested=True, repeats=3, groups=groups, **options)
    assert (result.folds, result.repeats) == (2, 3)
    assert {len(trial.scores) for trial in result.ranked()} == {6} and len(result.nested.scores) == 2
    assert result.headline().startswith("2 trials on 3 times 2 folds of 32 images")
    assert "3 times 2 folds of 32 images; 31 of them stay together, in 10 groups" in capsys.readouterr().err
    comparison = result._against_defaults(result.nested, 1)
    assert comparison.difference == pytest.approx(result.nested.mean - np.mean(result.default.scores[:2]))
    group_of = {Path(name).name: group for name, group in groups.items()}
    for _, train, held_out in trained:
        assert not {group_of[name] for name in train} & {group_of[name] for name in held_out}
    inner = json.loads((result.folder / "without-fold-1" / "folds.json").read_text())
    assert len(inner) == 6, "a search without a fold divides as often"
    header = (result.folder / "trials.csv").read_text().splitlines()[0]
    assert "repetition_1_fold_1,repetition_1_fold_2,repetition_2_fold_1," in header
    again = tune(data, out=tmp_path / "search", resume=True, trials=2)
    assert [trial.scores for trial in again.ranked()] == [trial.scores for trial in result.ranked()]


def test_it_has_no_time_budget(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a nested search has a number of trials"):
        tune(data, out=tmp_path / "search", nested=True, minutes=5, model="lenet5")
