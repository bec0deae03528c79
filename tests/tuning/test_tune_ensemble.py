"""`hubel tune --ensemble`: the networks of the best settings as one model, against networks trained apart."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hubel
from drawn_shapes import write_shapes
from hubel.cli.main import main
from hubel.data.splits import Splits
from hubel.errors import UsageError
from hubel.inference import Predictor
from hubel.inference.int8 import find_calibration_files
from hubel.models import load_model
from hubel.training.run_data import read_run_data
from hubel.training.train import complete_config
from hubel.tuning import fold_training
from hubel.tuning.fold_training import FoldTask, Shared, train_fold
from hubel.tuning.folds import read_folds
from hubel.tuning.result import TuneResult
from hubel.tuning.tune import tune

SEARCH: dict[str, Any] = {
    "folds": 2, "trials": 3, "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}, "model": "lenet5",
    "epochs": 2, "batch": 16, "precision": "float32", "workers": 0, "augmentation": "flip",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The network is too small for more, which wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without splits: the search holds its test images out by itself."""
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", {"cross": 24, "disc": 24})


def _kept(folder: Path) -> set[int]:
    return {int(path.name.split("-")[1]) for path in (folder / "networks").iterdir()}


@pytest.fixture(scope="module")
def result(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    """A search, in which only the networks of the best trial so far and of the one under way are on the disk."""
    out, scores = tmp_path_factory.mktemp("runs") / "search", dict[int, list[float]]()
    real = fold_training.train_fold

    def watched(*arguments: Any) -> tuple[float, float] | None:
        number = int(arguments[1].folder.name.split("-")[1])
        ended = {trial: sum(values) for trial, values in scores.items() if trial < number and len(values) == 2}
        best = {max(ended, key=lambda trial: ended[trial])} if ended else set()
        assert best <= _kept(out) <= {*best, number}
        scored = real(*arguments)
        if scored is not None:
            scores.setdefault(number, []).append(scored[0])
        return scored

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_training, "train_fold", watched)
        return tune(data, out=out, ensemble=True, **SEARCH)


def _weights(folder: Path) -> bytes:
    return (folder / "ensemble" / "model.safetensors").read_bytes()


def test_it_predicts_the_mean_of_networks_trained_apart(result: TuneResult, data: Path, tmp_path: Path) -> None:
    """Each without one fold, with the best settings; its score on the fold is the recorded one."""
    assert result.ensemble == result.folder / "ensemble"
    options = {name: value for name, value in SEARCH.items() if name not in ("folds", "trials", "space")}
    config = complete_config(data, {**options, **result.best})
    run_data = read_run_data(config, None)
    folds = read_folds(result.folder, (*run_data.splits.train, *run_data.splits.val), data)
    images = [np.asarray(Image.open(sample.path)) for sample in run_data.splits.test]
    each = []
    for fold in range(2):
        path = tmp_path / f"fold-{fold}"
        task = FoldTask(path, config, Splits(*folds.split(fold)))
        scored = train_fold(Shared(tmp_path), task, run_data.samples, lambda: None, lambda: None, lambda *_: False)
        assert scored is not None and scored[0] == result.estimate.scores[fold]
        network, metadata = load_model(path / "last")
        pixels = [metadata.preprocessing.pixels(Image.fromarray(image)) for image in images]
        with torch.no_grad():
            raw = network(metadata.preprocessing.normalize(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)))
        exponentials = np.exp(raw.double().numpy())
        each.append(exponentials / exponentials.sum(1, keepdims=True))
    found = [
        [entry.score for entry in sorted(row.classes, key=lambda entry: entry.index)]
        for row in Predictor(result.ensemble, engine="torch", precision="fp32")(images)
    ]
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_what_is_left_and_what_is_said(result: TuneResult, data: Path, capsys: Any) -> None:
    assert not list(result.folder.glob(".trial*")) and not (result.folder / "networks").exists()
    assert result.to_json()["ensemble"] == str(result.ensemble)
    sentence = result.sentences[-1]
    assert sentence.startswith(
        "The ensemble of the 2 networks of the best settings costs as many times what one costs."
    )
    assert "only the test set can tell the ensemble's score" in sentence and sentence in repr(result)
    capsys.readouterr()
    scored = hubel.evaluate(result.folder, data)  # as `hubel evaluate runs/search DATA`
    assert (scored.split, scored.scores.images) == ("test", result.test_images) and result.test_images
    assert "note" not in capsys.readouterr().err
    hubel.evaluate(result.ensemble, data, split="all")
    assert f"note: {result.images} of 48 images were trained on by 1 of the 2 networks" in capsys.readouterr().err


def test_int8_is_calibrated_on_the_images_of_the_folds(result: TuneResult) -> None:
    for name in (str(result.folder), str(result.ensemble)):
        files = find_calibration_files(name, ["cross", "disc"], None, tolerance=0.3)
        splits = json.loads((result.folder / "ensemble" / "splits.json").read_text())
        used = {*files.calibration, *files.held_out}
        assert {path.parent.name + "/" + path.name for path in used} == set(splits["train"])
        assert (len(files.calibration), len(files.held_out)) == (32, len(used) - 32), "as calibration needs 32"


def test_a_search_that_was_begun_without_trains_the_networks_again(
    result: TuneResult, data: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(result.folder, tmp_path / "search")
    shutil.rmtree(tmp_path / "search" / "ensemble")
    with pytest.raises(SystemExit) as ended:
        main(["tune", str(data), "--out", str(tmp_path / "search"), "--resume", "--ensemble"])
    assert not ended.value.code
    assert _weights(tmp_path / "search") == _weights(result.folder)
    evaluate = f"hubel evaluate {tmp_path}/search/ensemble {data} --split test"
    assert f"or, with the ensemble: {evaluate}" in capsys.readouterr().err


def test_one_of_the_best_settings_stays_and_another_does_not(
    result: TuneResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the search goes on without being asked for it again."""
    shutil.copytree(result.folder, tmp_path / "search")
    ensemble = tmp_path / "search" / "ensemble"
    (ensemble / "model.safetensors").write_bytes(b"as it is")
    with monkeypatch.context() as patch:
        patch.setattr(fold_training, "train_fold", None)
        assert tune(data, out=tmp_path / "search", resume=True).ensemble == ensemble
    assert _weights(tmp_path / "search") == b"as it is"
    record = json.loads((ensemble / "trial.json").read_text())
    assert record == {"trial": result.best_trial.number, "scores": list(result.estimate.scores)}
    (ensemble / "trial.json").write_text(json.dumps({**record, "trial": 7}))
    tune(data, out=tmp_path / "search", resume=True)
    assert _weights(tmp_path / "search") == _weights(result.folder)


def _damage(networks: Path) -> None:
    for path in networks.rglob("model.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("then", [lambda networks: None, _damage], ids=["whole", "damaged"])
def test_an_interrupted_search_goes_on_to_the_same_ensemble(
    result: TuneResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: Callable[[Path], None]
) -> None:
    """Within the last fold, after its first epoch; a kept network that was damaged since is trained again."""
    shutil.copytree(result.folder, tmp_path / "search")
    shutil.rmtree(tmp_path / "search" / "ensemble")
    trained = 0
    real = fold_training.train_fold

    def interrupted(*arguments: Any) -> tuple[float, float] | None:
        nonlocal trained
        trained += 1
        *others, on_epoch, ask = arguments

        def stop() -> None:
            if trained == 2:
                signal.raise_signal(signal.SIGTERM)
            on_epoch()

        return real(*others, stop, ask)

    with monkeypatch.context() as patch:
        patch.setattr(fold_training, "train_fold", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(data, out=tmp_path / "search", resume=True, ensemble=True)
    networks = tmp_path / "search" / "networks"
    assert _kept(tmp_path / "search") == {result.best_trial.number} and not (tmp_path / "search" / "ensemble").exists()
    then(networks)
    tune(data, out=tmp_path / "search", resume=True)
    assert _weights(tmp_path / "search") == _weights(result.folder) and not networks.exists()


def test_the_first_repetition_gives_the_networks(data: Path, tmp_path: Path) -> None:
    found = tune(data, out=tmp_path / "search", ensemble=True, repeats=2, **{**SEARCH, "trials": 1, "epochs": 1})
    assert len(found.estimate.scores) == 4 and load_model(tmp_path / "search" / "ensemble")[1].members == 2


def test_more_folds_than_networks_is_a_sentence(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folds = 101: an ensemble has at most 100 networks"):
        tune(data, out=tmp_path / "search", ensemble=True, **{**SEARCH, "folds": 101})
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(("task", "model"), [("detect", "faster_rcnn"), ("instances", "mask_rcnn")])
def test_two_stage_detectors_are_refused_before_they_are_trained(task: str, model: str, tmp_path: Path) -> None:
    """Their boxes cannot be averaged: the ensemble would predict nothing."""
    with pytest.raises(UsageError, match=f"--ensemble cannot average the boxes of several {model}"):
        tune(tmp_path, out=tmp_path / "search", task=task, model=model, ensemble=True, trials=2)
    assert not (tmp_path / "search").exists()
