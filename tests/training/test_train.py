"""Training end to end, on images that a small network learns in seconds."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, log_loss

from drawn_shapes import write_shapes
from hubel.errors import DataError, ModelError, UsageError
from hubel.models import load_model
from hubel.training.evaluate import evaluate
from hubel.training.train import train

# A network and rates that learn the shapes within seconds on one core.
QUICK = {
    "model": "simple_cnn",
    "image_size": 28,
    "epochs": 6,
    "batch": 16,
    "learning_rate": 1e-3,
    "augmentation": "flip",
    "precision": "float32",
    "workers": 0,
}


def quick_arguments(**changes: object) -> list[str]:
    """QUICK as the command's options."""
    options = {**QUICK, **changes}
    renamed = {"image_size": "image-size", "learning_rate": "learning-rate", "augmentation": "augment"}
    return [word for key, value in options.items() for word in (f"--{renamed.get(key, key)}", str(value))]


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run of all defaults but for the small network."""
    return train(shapes, out=tmp_path_factory.mktemp("runs") / "shapes", **{**QUICK, "epochs": 16, "average": 0.9})


def test_it_learns_what_it_has_not_seen(run) -> None:
    assert run.scores["test"].images == 18 and run.scores["val"].images == 27
    assert run.scores["test"].top1 >= 0.85 and run.scores["val"].top1 >= 0.85  # chance: 0.33


def test_run_folder_holds_what_is_promised(run) -> None:
    names = {path.name for path in run.folder.iterdir()}
    promised = {"config.yaml", "best", "last", "metrics.csv", "report.html", "figures", "predictions.jsonl"}
    assert promised <= names
    # No half-written file is left, only the one by whose lock two trainings are kept apart.
    assert {name for name in names if name.startswith(".")} <= {".lock"}
    rows = list(csv.DictReader((run.folder / "metrics.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 17))
    kept, highest = 0, (0.0, 0.0)
    for row in rows:  # of 27 validation images
        scores = float(row["val_top1"]), -float(row["val_loss"])
        error = (highest[0] * (1 - highest[0]) / 27) ** 0.5
        kept = int(row["epoch"]) if scores > highest or scores[0] > highest[0] - error else kept
        highest = max(highest, scores)
    assert kept == run.best_epoch


def test_scores_are_those_of_the_predictions(run) -> None:
    """The printed figures, recomputed by scikit-learn from predictions.jsonl."""
    rows = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    names = ["cross", "disc", "frame"]
    probabilities = [[next(c["score"] for c in row["classes"] if c["name"] == name) for name in names] for row in rows]
    truth = [row["truth"] for row in rows]
    predicted = [row["classes"][0]["name"] for row in rows]
    probabilities = np.array(probabilities) / np.sum(probabilities, axis=1, keepdims=True)  # float32 rounding
    metrics = run.to_json()["validation"]
    assert metrics["top1"] == pytest.approx(accuracy_score(truth, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert metrics["loss"] == pytest.approx(log_loss(truth, probabilities, labels=names), rel=1e-4)
    assert all(Path(row["source"]).parent.name == row["truth"] for row in rows)


def test_evaluate_repeats_the_runs_own_split(run, shapes: Path) -> None:
    again = evaluate(run.folder, shapes)
    assert again.split == "test"
    assert again.to_json()["metrics"] == pytest.approx(run.to_json()["metrics"], abs=1e-5)
    assert evaluate(run.folder, shapes, split="all").scores.images == 180
    with pytest.raises(DataError, match="valdiation"):
        evaluate(run.folder, shapes, split="valdiation")


def test_evaluate_agrees_with_a_plain_loop(run, shapes: Path) -> None:
    """The same accuracy from the saved model with nothing but Pillow and numpy around it."""
    model, metadata = load_model(run.folder / "best")
    samples = json.loads((run.folder / "splits.json").read_text())
    names = samples.get("splits", samples)["test"]
    right = 0
    for name in names:
        image = Image.open(shapes / name).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(image).copy()).float()[None, None]
        with torch.no_grad():
            right += metadata.classes[int(model((pixels - 127.5) / 127.5).argmax())] == name.split("/")[0]
    assert right / len(names) == pytest.approx(run.scores["test"].top1)


def test_json_is_what_the_interface_says(run) -> None:
    row = run.to_json()
    assert {"task", "model", "data", "split", "images", "seconds", "metrics", "per_class"} <= set(row)
    assert {"top1", "top5", "loss", "macro_f1", "ece"} <= set(row["metrics"])
    assert [entry["name"] for entry in row["per_class"]] == ["cross", "disc", "frame"]
    assert sum(entry["images"] for entry in row["per_class"]) == row["images"] == 18


def learned(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what depends on the clock."""
    rows = csv.DictReader((folder / "metrics.csv").open())
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def start(shapes: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hubel", "train", str(shapes), "--out", str(out), "--threads", "1", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, start_new_session=True)


def wait_for_epoch(out: Path, epoch: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        path = out / "metrics.csv"
        if path.exists() and len(path.read_text().splitlines()) > epoch:
            return
        time.sleep(0.02)
    pytest.fail(f"no epoch {epoch}: {process.communicate()[1]}")


_BLOWS = ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129))


@pytest.mark.parametrize("blows", [_BLOWS[:2], pytest.param(_BLOWS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_killed_and_interrupted_runs_end_as_if_nothing_had_happened(
    shapes: Path, tmp_path: Path, blows: tuple[tuple[int, int], ...]
) -> None:
    """kill -9, SIGTERM, Ctrl-C, a closed terminal, each in the middle of an epoch; the weights are equal to the bit.

    The blows hit the whole process group, decoding processes included, as a terminal or a supervisor deals them.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = quick_arguments(epochs=len(blows) + 1, workers=1)
    process = start(shapes, whole, *arguments)
    assert process.wait(200) == 0, process.stderr.read()
    process = start(shapes, broken, *arguments)
    for epoch, (blow, code) in enumerate(blows, start=1):
        wait_for_epoch(broken, epoch, process)
        os.killpg(process.pid, blow)
        message = process.communicate(timeout=60)[1]
        assert process.returncode == code, message
        assert "Traceback" not in message
        if blow != signal.SIGKILL:
            assert "--resume" in message
        process = start(shapes, broken, "--resume")
    assert process.wait(200) == 0, process.stderr.read()
    assert learned(broken) == learned(whole)
    for kept in ("best", "last"):
        ours, theirs = (load_model(folder / kept)[0].state_dict() for folder in (broken, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((broken / "results.json").read_text())["metrics"] == pytest.approx(
        json.loads((whole / "results.json").read_text())["metrics"], abs=1e-6
    )


def test_accumulated_gradients_are_those_of_the_large_batch(tmp_path: Path) -> None:
    """Two steps of 8 images make the update of one step of 16: the loss is a mean, there is no BatchNorm."""
    data = write_shapes(tmp_path / "data", {"cross": 22, "disc": 21})
    weights = []
    for batch, accumulate in ((16, 1), (8, 2)):
        settings = {**QUICK, "epochs": 1, "batch": batch, "accumulate": accumulate, "optimizer": "sgd", "average": 0.0}
        settings |= {"model": "lenet5_modern", "image_size": 32, "augmentation": "none", "schedule": "constant"}
        result = train(data, out=tmp_path / "run", warmup=0, split="0.75,0.25,0", **settings)
        weights.append(load_model(result.folder / "last")[0].state_dict())
    for name, value in weights[0].items():
        assert (value - weights[1][name]).abs().max() < 1e-5, name


def test_a_second_training_in_one_process_may_compute_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook: accelerate keeps what the first chose; the second has autocast nevertheless, or has none."""
    monkeypatch.setattr("hubel.training.train.finish", lambda training, *rest: training)  # no reports
    data = write_shapes(tmp_path / "data", {"cross": 8, "disc": 8})
    for precision, mixed in (("bfloat16", "bf16"), ("float32", "no"), ("bfloat16", "bf16")):
        run = train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1, "precision": precision})
        assert run.accelerator.mixed_precision == mixed


def test_transfer_starts_from_the_weights_given_and_keeps_what_is_frozen(tmp_path: Path) -> None:
    from hubel.models import create_model

    data = write_shapes(tmp_path / "data", {"cross": 12, "disc": 12})
    torch.manual_seed(1)
    pretrained = create_model("resnet18", num_classes=10)
    torch.save(pretrained.state_dict(), tmp_path / "weights.pth")
    settings = {
        **QUICK,
        "model": "resnet18",
        "epochs": 2,
        "head_epochs": 1,
        "image_size": 32,
        "unfreeze_from": "stage4",
    }
    result = train(data, out=tmp_path / "run", weights=str(tmp_path / "weights.pth"), **settings)
    trained = load_model(result.folder / "last")[0].state_dict()
    before = pretrained.state_dict()
    for name, value in trained.items():
        moved = not torch.equal(value, before[name]) if value.shape == before[name].shape else True
        statistic = name.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked")
        assert moved == (name.startswith(("backbone.stage4", "head.")) and not statistic), name


def test_skewed_classes_are_balanced_and_it_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_shapes(tmp_path / "data", {"cross": 40, "disc": 8})
    train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1})
    output = capsys.readouterr().err
    assert "class balance" in output and "drawn" in output


def test_early_stopping_ends_a_run_that_learns_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_shapes(tmp_path / "data", {"cross": 8, "disc": 8})
    settings = {**QUICK, "epochs": 30, "patience": 2, "learning_rate": 1e-12, "average": 0.0, "schedule": "constant"}
    result = train(data, out=tmp_path / "run", **settings)
    assert len(learned(result.folder)) < 30
    assert "stopping early" in capsys.readouterr().err


def test_bad_data_sets_are_refused_before_a_run_begins(tmp_path: Path) -> None:
    write_shapes(tmp_path / "one", {"cross": 8})
    with pytest.raises(DataError, match="one class"):
        train(tmp_path / "one", out=tmp_path / "run", **QUICK)
    write_shapes(tmp_path / "single", {"cross": 1, "disc": 1})
    with pytest.raises(DataError, match="too few"):
        train(tmp_path / "single", out=tmp_path / "run", **QUICK)
    both = write_shapes(tmp_path / "both", {"cross": 8, "disc": 8})
    (both / "disc" / "copy.png").write_bytes((both / "cross" / "0.png").read_bytes())
    with pytest.raises(DataError, match="two classes.*copy.png"):
        train(both, out=tmp_path / "run", **QUICK)
    with pytest.raises(DataError, match="does not exist"):
        train(tmp_path / "nowhere", out=tmp_path / "run", **QUICK)
    good = write_shapes(tmp_path / "good", {"cross": 8, "disc": 8})
    with pytest.raises(ModelError, match="resnet_18"):
        train(good, out=tmp_path / "run", **{**QUICK, "model": "resnet_18"})
    with pytest.raises(UsageError, match="stage9"):
        train(good, out=tmp_path / "run", **QUICK, unfreeze_from="stage9")
    assert not (tmp_path / "run").exists()


def test_empty_class_and_unreadable_images_are_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shapes(tmp_path / "data", {"cross": 10, "disc": 10})
    (data / "empty").mkdir()
    (data / "cross" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    result = train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1})
    output = capsys.readouterr().err
    assert "torn.jpg" in output and "empty" in output
    assert load_model(result.folder / "best")[1].classes == ["cross", "disc"]
    with pytest.raises(DataError, match="torn.jpg"):
        train(data, out=tmp_path / "strict", strict=True, **QUICK)


def test_folders_named_as_splits_are_used_as_they_are(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data" / "train", {"cross": 20, "disc": 20}, seed=1)
    write_shapes(tmp_path / "data" / "valid", {"cross": 4, "disc": 4}, seed=2)
    result = train(tmp_path / "data", out=tmp_path / "run", **{**QUICK, "epochs": 1})
    assert set(result.scores) == {"val"} and result.scores["val"].images == 8


@pytest.mark.data
def test_flowers_with_the_head_alone(data_folder: Path, tmp_path: Path) -> None:
    """One epoch of a new head on frozen ImageNet features; logistic regression on them gives 0.928."""
    result = train(data_folder / "flowers5", out=tmp_path / "run", epochs=1, head_epochs=1, precision="float32")
    assert result.scores["val"].images == 250 and result.scores["val"].top1 >= 0.85
