"""Training in stages: each from the best weights of the one before, resumed where it stopped, refused elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.config_file import read_config
from hubel.errors import DataError, UsageError
from hubel.models import load_model
from hubel.training import train as training
from hubel.training.callbacks import Callback, RunStart
from hubel.training.train import train

QUICK: dict[str, Any] = {
    "model": "fcn16s",
    "staged": True,
    "backbone": "resnet18",
    "weights": None,
    "image_size": 64,
    "augmentation": "flip",
    "epochs": 2,
    "batch": 2,
    "average": 0,
    "precision": "float32",
    "threads": 1,
    "workers": 0,
}


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that are dark on one side and light on the other, with masks."""
    root = tmp_path_factory.mktemp("data") / "halves"
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            mask = (np.mgrid[:64, :64][number % 2] > rng.integers(20, 44)).astype(np.uint8)
            pixels = 60 + 120 * mask[..., None] + rng.integers(0, 30, (64, 64, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("0 dark\n1 light\n")
    return root


class Follower(Callback):
    """Notes the networks and epochs, and interrupts after the epoch of a network."""

    def __init__(self, stop: tuple[str, int] | None = None) -> None:
        self.stop, self.model = stop, ""
        self.epochs: list[tuple[str, int]] = []

    def on_run_start(self, run: RunStart) -> None:
        self.model = run.config.model

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        self.epochs.append((self.model, row["epoch"]))
        if self.epochs[-1] == self.stop:
            raise KeyboardInterrupt


def test_stages_follow_each_other_and_go_on_where_they_stopped(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: dict[str, dict[str, torch.Tensor]] = {}
    fit = training.fit

    def noted(run: Any) -> Any:
        starts[run.config.model] = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
        return fit(run)

    monkeypatch.setattr(training, "fit", noted)
    monkeypatch.setattr("hubel.training.results.write_report", lambda folder, *_: (folder / "report.html").touch())
    whole = train(halves, out=tmp_path / "whole", **QUICK)
    first = whole.folder / "stages" / "fcn32s"
    assert whole.model == "fcn16s" and load_model(whole.folder / "best")[1].architecture == "fcn16s"

    # The second starts from what the first has learned, and its new layer at zero.
    best, start = load_model(first / "best")[0].state_dict(), starts["fcn16s"]
    assert best["head.classifier.weight"].abs().max() > 0 == starts["fcn32s"]["head.classifier.weight"].abs().max()
    for key, tensor in best.items():
        torch.testing.assert_close(start.pop(key), tensor, rtol=0, atol=0)
    added = ("skip_classifiers.0.weight", "skip_classifiers.0.bias", "upsamplings.0.weight")
    assert set(start) == {f"head.{name}" for name in added}
    assert start["head.skip_classifiers.0.weight"].abs().max() == 0

    # The first is a run like any other; the rates of the second are a tenth.
    alone = train(halves, out=tmp_path / "alone", **{**QUICK, "model": "fcn32s", "staged": False})
    found = json.loads((first / "results.json").read_text())
    assert found["validation"] == alone.to_json()["validation"]
    rows = (whole.folder / "metrics.csv").read_text(), (first / "metrics.csv").read_text()
    rates = [
        float(text.splitlines()[1].split(",")[text.splitlines()[0].split(",").index("learning_rate")]) for text in rows
    ]
    assert rates[0] == pytest.approx(rates[1] / 10)
    assert found["seconds"] < whole.seconds
    assert read_config(whole.folder / "config.yaml").learning_rate == read_config(first / "config.yaml").learning_rate

    # Interrupted in the first stage, then in the second: nothing is trained twice, and the result is the same.
    for stop, expected in (
        (("fcn32s", 1), [("fcn32s", 1)]),
        (("fcn16s", 1), [("fcn32s", 2), ("fcn16s", 1)]),
    ):
        follower = Follower(stop)
        resumed = stop[0] == "fcn16s"
        with pytest.raises(KeyboardInterrupt):
            train(halves, out=tmp_path / "stopped", resume=resumed, callbacks=[follower], **({} if resumed else QUICK))
        assert follower.epochs == expected
    with pytest.raises(DataError, match="is a stage of a run"):
        train(halves, out=tmp_path / "stopped" / "stages" / "fcn32s", resume=True)
    follower = Follower()
    again = train(halves, out=tmp_path / "stopped", resume=True, callbacks=[follower])
    assert follower.epochs == [("fcn16s", 2)]
    assert again.to_json()["validation"] == whole.to_json()["validation"]
    (kept, _), (other, _) = (load_model(result.folder / "best") for result in (whole, again))
    for key, tensor in kept.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changed", "message", "hint"),
    [
        ({"model": "deeplabv3plus"}, "--staged: deeplabv3plus is not trained in stages", "--model fcn8s or fcn16s"),
        ({"model": "fcn32s"}, "--staged: fcn32s is not trained in stages", "--model fcn8s or fcn16s"),
        ({"options": ["stride=16"]}, "with stride=16 all stages are the same network", "omit --staged"),
    ],
)
def test_networks_without_stages_are_refused(
    halves: Path, tmp_path: Path, changed: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as error:
        train(halves, out=tmp_path / "run", **{**QUICK, **changed})
    assert message in error.value.message and hint in error.value.hint
    assert not (tmp_path / "run").exists()
