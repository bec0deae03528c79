"""`hubel tune` end to end, on images that a small network learns in seconds."""

from __future__ import annotations

import csv
import inspect
import json
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import torch
import yaml

import hubel
from drawn_shapes import write_shapes
from hubel.cli.main import main
from hubel.console import ProgressBar
from hubel.errors import DataError, MissingExtraError, UsageError
from hubel.models import load_model
from hubel.training import feature_cache
from hubel.training.run_data import read_run_data
from hubel.training.train import complete_config
from hubel.tuning import fold_training
from hubel.tuning.fold_training import FoldTask, Shared, early_epoch, train_fold
from hubel.tuning.result import TuneResult
from hubel.tuning.space import NOT_TAKEN
from hubel.tuning.tune import tune

QUICK: dict[str, Any] = {
    "model": "lenet5", "epochs": 2, "batch": 16, "precision": "float32", "workers": 0, "augmentation": "flip",
    "threads": 1,
}  # fmt: skip
SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "label_smoothing": [0.0, 0.1]}
SEARCH: dict[str, Any] = {"trials": 3, "folds": 2, "space": SPACE, **QUICK}


@pytest.fixture(scope="module", autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images for training, for validation, and for a test that no search uses."""
    root = write_shapes(tmp_path_factory.mktemp("data") / "shapes" / "train", {"cross": 20, "disc": 20}).parent
    write_shapes(root / "val", {"cross": 4, "disc": 4}, seed=1)
    write_shapes(root / "test", {"cross": 3, "disc": 3}, seed=2)
    return root


@pytest.fixture(scope="module")
def result(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    return tune(data, out=tmp_path_factory.mktemp("runs") / "search", **SEARCH)


def test_the_result_is_what_the_folds_say(result: TuneResult, data: Path) -> None:
    assert (len(result.trials), result.folds, result.images, result.test_images) == (3, 2, 48, 6)
    rows = list(csv.DictReader((result.folder / "trials.csv").open()))
    means = [sum(float(row[f"fold_{n}"]) for n in (1, 2)) / 2 for row in rows if row["state"] == "finished"]
    assert result.estimate.mean == pytest.approx(max(means)) and result.default.mean == pytest.approx(means[0])
    assert result.default.scores == tuple(float(rows[0][f"fold_{n}"]) for n in (1, 2))
    assert set(result.best) == set(SPACE)
    assert optuna.load_study(study_name=None, storage=f"sqlite:///{result.folder}/study.db").best_value == max(means)
    document = json.loads(json.dumps(result.to_json()))
    assert document["best"] == result.best and document["estimate"]["mean"] == result.estimate.mean
    assert str(result.default) in repr(result) and result.sentences[0] in repr(result)
    assert "<table>" in result._repr_html_()


def test_the_folds_are_of_training_and_validation_images_only(result: TuneResult, data: Path) -> None:
    folds = json.loads((result.folder / "folds.json").read_text())
    names = sorted(name for part in folds.values() for name in part)
    expected = [
        path.relative_to(data).as_posix() for split in ("train", "val") for path in (data / split).rglob("*.png")
    ]
    assert names == sorted(expected) and len(names) == 48


def never(score: float, seconds: float) -> bool:
    return False


def test_a_score_is_that_of_the_last_epoch(data: Path, tmp_path: Path) -> None:
    """Of all epochs, whatever ``patience`` says, and in the precision that the search decided for."""
    config = complete_config(data, {**QUICK, "epochs": 3, "patience": 1, "learning_rate": 1e-5, "precision": "auto"})
    run_data = read_run_data(config, None)
    decided = {"execution": {"precision": "float32", "channels_last": False, "reason": "by the first fold"}}
    (tmp_path / "decisions.json").write_text(json.dumps(decided))
    splits = replace(run_data.splits, test=())
    epochs: list[int] = []
    folder = tmp_path / "fold"
    task = FoldTask(folder, config, splits)
    scored = train_fold(Shared(tmp_path), task, run_data.samples, lambda: None, lambda: epochs.append(1), never)
    assert scored is not None
    score, seconds = scored
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert len(rows) == len(epochs) == 3 and score == float(rows[-1]["val_top1"])
    assert seconds == pytest.approx(sum(float(row["seconds"]) for row in rows))
    assert json.loads((tmp_path / "decisions.json").read_text())["execution"] == decided["execution"]


def test_the_first_fold_asks_early_whether_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the row of metrics.csv after a third of the last phase, also where it is resumed behind that."""
    monkeypatch.setattr(fold_training, "_SAVING_INTERVAL", 0.0)
    config = complete_config(data, {**QUICK, "epochs": 6, "head_epochs": 1, "learning_rate": 1e-3})
    assert early_epoch(config) == 1 + 2
    assert early_epoch(replace(config, epochs=2)) is None and early_epoch(replace(config, head_epochs=6)) == 2
    run_data = read_run_data(config, None)
    task = FoldTask(tmp_path / "fold", replace(config, epochs=4), replace(run_data.splits, test=()), early_epoch=3)
    asked: list[tuple[float, float]] = []
    epochs: list[int] = []

    def interrupted() -> None:
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    def stop(score: float, seconds: float) -> bool:
        asked.append((score, seconds))
        return True

    def train(on_epoch: Any) -> tuple[float, float] | None:
        return train_fold(Shared(tmp_path), task, run_data.samples, lambda: None, on_epoch, stop)

    with pytest.raises(KeyboardInterrupt):  # after the checkpoint of the third epoch, before it asks
        train(interrupted)
    assert not asked and train(interrupted) is None and len(epochs) == 3
    rows = list(csv.DictReader((tmp_path / "fold" / "metrics.csv").open()))
    assert asked == [(float(rows[2]["val_top1"]), pytest.approx(sum(float(row["seconds"]) for row in rows)))]
    shutil.rmtree(tmp_path / "fold")
    assert train(lambda: epochs.append(1)) is None and len(epochs) == 6 and asked[1][0] == asked[0][0]


def test_features_of_a_frozen_backbone_are_computed_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the scores of trainings that compute them themselves, also where the backbone is another."""
    frozen = {**QUICK, "head_epochs": 2, "augmentation": "none", "head_learning_rate": 1e-2}
    run_data = read_run_data(complete_config(data, frozen), None)
    computed: list[int] = []
    real = feature_cache.compute_features

    def counted(images: Any, *others: Any) -> Any:
        computed.append(len(images.dataset))
        return real(images, *others)

    monkeypatch.setattr(feature_cache, "compute_features", counted)
    splits = replace(run_data.splits, test=())

    def train(shared: Shared, name: str, **changes: Any) -> float:
        config = complete_config(data, {**frozen, **changes})
        task = FoldTask(tmp_path / name, config, splits)
        scored = train_fold(shared, task, run_data.samples, lambda: None, lambda: None, never)
        assert scored is not None
        return scored[0]

    for name in ("shared", "alone"):
        (tmp_path / name).mkdir()
    shared = Shared(tmp_path / "shared")
    for number, changes in enumerate([{}, {"head_learning_rate": 3e-3}, {"seed": 1}, {"seed": 1, "average": 0.5}]):
        alone = train(Shared(tmp_path / "alone"), f"alone-{number}", **changes)
        assert computed == [40, 8]
        computed.clear()
        assert train(shared, f"shared-{number}", **changes) == alone
        assert computed == ([40, 8] if number in (0, 2) else [])  # another seed: another network
        computed.clear()


def test_train_takes_the_best_settings(result: TuneResult, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", str(data), "--config", str(result.folder / "config.yaml"), "--out", str(tmp_path / "run")])
    assert not ended.value.code
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert {name: config[name] for name in SPACE} == result.best
    assert (config["model"], config["epochs"], config["augmentation"]) == ("lenet5", 2, ["flip"])


def test_the_page_says_it_all(result: TuneResult) -> None:
    page = (result.folder / "report.html").read_text()
    assert page.count("<img") == 2 and result.sentences[0].split(" (")[0] in page
    assert f"{result.default.mean:.4f} ± {result.default.spread:.4f}" in page.replace("</td><td>", " ± ")
    assert all(f"<td>{name}</td>" in page for name in SPACE)


def test_an_interrupted_search_goes_on_to_the_same_end(
    result: TuneResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    epochs = 0
    real = fold_training.train_fold

    def interrupted(*arguments: Any) -> tuple[float, float]:
        *others, on_epoch, ask = arguments

        def counted() -> None:
            nonlocal epochs
            epochs += 1
            if epochs == 4:  # within the second fold of trial 0, after its first epoch
                signal.raise_signal(signal.SIGTERM)
            on_epoch()

        return real(*others, counted, ask)

    monkeypatch.setattr(fold_training, "train_fold", interrupted)
    out = tmp_path / "search"
    epochs = 1
    with pytest.raises(KeyboardInterrupt):
        tune(data, out=out, **SEARCH)
    assert f"continue with: hubel tune {data} --resume --out {out} --trials 3" in capsys.readouterr().err
    again = tune(data, out=out, resume=True)
    assert [trial.scores for trial in again.trials] == [trial.scores for trial in result.trials], "as many as before"
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in result.trials]
    assert again.sentences[0] == result.sentences[0]
    assert not list(out.glob(".trial*")), "trained folds leave nothing"


def test_a_killed_worker_is_a_sentence_and_the_search_goes_on(
    result: TuneResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fold_training.train_fold

    def with_killed_workers(*arguments: Any) -> tuple[float, float]:
        *others, on_epoch, ask = arguments

        def kill() -> None:
            on_epoch()
            for worker in psutil.Process().children():
                worker.kill()

        return real(*others, kill, ask)

    out = tmp_path / "search"
    with monkeypatch.context() as patch:
        patch.setattr(fold_training, "train_fold", with_killed_workers)
        with pytest.raises(DataError, match="a data-loading worker exited unexpectedly") as raised:
            tune(data, out=out, **{**SEARCH, "workers": 1})
    assert "continue with --resume" in raised.value.hint
    again = tune(data, out=out, resume=True, trials=3)
    assert [trial.scores for trial in again.trials] == [trial.scores for trial in result.trials]


@pytest.mark.slow
def test_several_folds_at_a_time_give_the_same_trials(
    result: TuneResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after one of the processes was killed, in the second fold of trial 0."""
    out = tmp_path / "search"
    advance = ProgressBar.advance
    epochs = 0

    def kill(bar: ProgressBar, count: int = 1, note: str = "") -> None:
        nonlocal epochs
        epochs += count if bar._label.startswith("trial") else 0
        if epochs == 3:
            for child in psutil.Process().children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
        advance(bar, count, note)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "advance", kill)
        with pytest.raises(
            DataError, match="a process that trains a fold ended unexpectedly: killed by SIGKILL"
        ) as raised:
            tune(data, out=out, parallel=2, ensemble=True, **SEARCH)
    assert "continue with --resume" in raised.value.hint
    again = tune(data, out=out, parallel=2, resume=True)
    assert [trial.scores for trial in again.trials] == [trial.scores for trial in result.trials]
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in result.trials]
    assert not list(out.glob(".trial*")) and not multiprocessing.active_children()
    assert load_model(out / "ensemble")[1].members == 2 and not (out / "networks").exists()


def test_the_command_prints_json(result: TuneResult, tmp_path: Path, data: Path, capsys: Any) -> None:
    shutil.copytree(result.folder, tmp_path / "search")
    with pytest.raises(SystemExit) as ended:
        main(["tune", str(data), "--out", str(tmp_path / "search"), "--resume", "--trials", "3", "--json"])
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["best"] == result.best and len(document["trials"]) == 3


def test_a_time_budget_ends_the_search_after_the_defaults(data: Path, tmp_path: Path, capsys: Any) -> None:
    found = tune(data, out=tmp_path / "search", minutes=1e-4, **{**SEARCH, "trials": None})
    assert [len(trial.scores) for trial in found.trials] == [2, 0]
    assert found.sentences[0] == "No settings scored higher than the defaults."
    assert "the 0.0001 minutes are over; --resume goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"folds": 1}, UsageError, "folds = 1: it is at least 2"),
        (
            {"folds": 30},
            DataError,
            "class cross has 24 images in only 23 groups of images",
        ),
        ({"repeats": 0}, UsageError, "repeats = 0: it is at least 1"),
        ({"groups": {"c/1.png": "k"}}, DataError, "groups names 1 image that .* does not have: c/1.png"),
        ({"trials": 0}, UsageError, "trials = 0: it is at least 1"),
        ({"minutes": -1.0}, UsageError, "minutes = -1.0: it is a number greater than 0"),
        ({"space": {"learning_rte": [1]}}, UsageError, "learning_rte: there is no such option"),
        ({"patience": 3}, UsageError, "patience is for hubel train"),
        ({"resume": True}, DataError, "there is no search to resume"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_leaves_no_folder(
    data: Path, tmp_path: Path, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tune(data, out=tmp_path / "search", **{**SEARCH, **options})
    assert not (tmp_path / "search").exists()


def test_editors_complete_its_options() -> None:
    names = inspect.signature(hubel.tune).parameters
    assert {"trials", "learning_rate", "augmentation"} <= set(names) and not set(NOT_TAKEN) & set(names)


@pytest.mark.parametrize(
    "damage",
    [
        "data: 3",
        "options: {}\nspace: {}",
        "- a",
        "data: x\nspace: {epochs: 3}\noptions: {}",
        "data: x\nspace: {3: [1]}\noptions: {}",
        "data: x\nspace: {}\noptions: {}\ntrials: [9]",
    ],
)
def test_a_damaged_search_is_a_sentence(result: TuneResult, data: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(result.folder, tmp_path / "search")
    (tmp_path / "search" / "search.yaml").write_text(damage)
    with pytest.raises(DataError) as raised:
        tune(data, out=tmp_path / "search", resume=True)
    assert "search.yaml" in raised.value.message


def test_without_optuna_the_extra_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert callable(hubel.tune)
    with pytest.raises(MissingExtraError) as raised:
        hubel.tune(data)
    assert raised.value.message == "hubel tune needs packages that are not installed"
    assert raised.value.hint == "pip install 'hubel[tune]'"
