"""The number of data-loading workers does not change a bit of what is learned."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from hubel.data.loader import BatchDataset
from hubel.data.samples import Batch
from hubel.training.callbacks import Callback, StepEnd
from hubel.training.train import train

# torch adds up the mean of an image in parts only if it has more than 2^15 pixels and there are several threads.
SIDE, TRAINING, VALIDATION = 192, 8, 2

TRAINED: dict[str, dict[str, Any]] = {
    "classify": {"model": "mobilenet_v3_small", "augmentation": "color"},
    "detect": {"model": "ssd", "backbone": "mobilenet_v3_small", "augmentation": "color"},
    "localize": {"model": "localizer", "backbone": "mobilenet_v3_small", "augmentation": "color", "task": "localize"},
    "segment": {"model": "fcn32s", "backbone": "mobilenet_v3_small", "augmentation": "color"},
}


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are made in this process find two threads, as on a user's machine; the tests have one."""
    own, parent = BatchDataset.__getitems__, os.getpid()

    def with_two(self: BatchDataset, keys: Sequence[tuple[int, int]]) -> Batch:
        if os.getpid() != parent:
            return own(self, keys)
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            return own(self, keys)
        finally:
            torch.set_num_threads(before)

    monkeypatch.setattr(BatchDataset, "__getitems__", with_two)


def write_data(root: Path, task: str) -> Path:
    """Images of noise with labels of the task: 8 to train on, 2 to validate."""
    random = np.random.default_rng(0)
    for number in range(TRAINING + VALIDATION):
        split = root / ("train" if number < TRAINING else "val")
        image = Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        folder = split / ("ab"[number % 2] if task == "classify" else "images")
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png", compress_level=1)
        if task in ("detect", "localize"):
            (split / "labels").mkdir(exist_ok=True)
            (split / "labels" / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.4\n")
        elif task == "segment":
            (split / "masks").mkdir(exist_ok=True)
            mask = Image.fromarray(random.integers(0, 2, (SIDE, SIDE), dtype=np.uint8))
            mask.save(split / "masks" / f"{number}.png", compress_level=1)
    if task == "segment":
        (root / "classes.txt").write_text("0 a\n1 b\n")
    return root


def learned(data: Path, out: Path, workers: int, **options: Any) -> tuple[list[dict[str, str]], dict[str, Tensor]]:
    """The losses of every epoch and the last weights of a run."""
    options |= {"weights": None, "image_size": SIDE, "epochs": 1, "batch": 4, "precision": "float32"}
    train(data, out=out, workers=workers, **options)
    with (out / "metrics.csv").open(newline="") as file:
        rows = [{name: row[name] for name in row if name.endswith("_loss")} for row in csv.DictReader(file)]
    return rows, load_file(out / "last" / "model.safetensors")


@pytest.mark.parametrize("task", TRAINED)
def test_workers_do_not_change_a_bit(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.training.results.write_report", lambda *_: None)
    data = write_data(tmp_path / "data", task)
    losses, weights = learned(data, tmp_path / "0", 0, **TRAINED[task])
    assert all(losses) and losses
    for workers in (1, 2) if task == "classify" else (2,):
        others = learned(data, tmp_path / str(workers), workers, **TRAINED[task])
        assert others[0] == losses
        assert all(torch.equal(others[1][name], tensor) for name, tensor in weights.items())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not forked")
def test_validation_is_loaded_by_processes_from_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked later, they would hold a copy of all memory that the steps before had used."""
    monkeypatch.setattr("hubel.training.results.write_report", lambda *_: None)
    at_steps: list[set[int]] = []

    class Watch(Callback):
        def on_step_end(self, step: StepEnd) -> None:
            at_steps.append({child.pid for child in psutil.Process().children()} - others)

    data = write_data(tmp_path / "data", "classify")
    others = {child.pid for child in psutil.Process().children()}
    options = {"weights": None, "image_size": SIDE, "epochs": 2, "batch": 4, "precision": "float32", "workers": 1}
    train(data, out=tmp_path / "run", model="lenet5", callbacks=[Watch()], **options)
    assert len(at_steps[0]) == 2 and all(pids == at_steps[0] for pids in at_steps)
