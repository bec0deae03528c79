"""Prediction and the results of the Python API."""

from __future__ import annotations

import shutil
from typing import Any

from behaviour_probes.drawings import objects
from behaviour_probes.photographs import bad_files, in_many_forms, sample_photographs
from behaviour_probes.probe_train import trained
from behaviour_probes.sandbox import Sandbox

ENGINES = ("torch", "openvino", "onnx")
_IMAGENET = 6


def predict(sandbox: Sandbox) -> Any:
    """Classes of photographs by every engine; bad files; annotated images; a detector's objects in memory."""
    folder = sandbox.folder
    first, _ = sample_photographs(folder / "photographs")
    in_many_forms(first, folder / "forms")
    bad_files(first, folder / "bad")
    (folder / "imagenet").mkdir()
    for path in sorted((sandbox.data / "imagenet_samples" / "images").iterdir())[:_IMAGENET]:
        shutil.copy(path, folder / "imagenet")
    options = ("--precision", "fp32", "--threads", "1", "--engine")
    sources = ("photographs", "imagenet", "forms/*")
    found = {engine: sandbox.json("predict", *sources, *options, engine, "--top", "3") for engine in ENGINES}
    found["bad files"] = sandbox.json("predict", "bad", "nowhere.jpg", *options, "torch", status=1)
    found["strict"] = sandbox.json("predict", "bad", "--strict", *options, "torch", status=1)
    found["unknown model"] = sandbox.hubel("predict", "bad", "--model", "resnet19", status=1)
    found["unknown engine"] = sandbox.hubel("predict", "bad", "--engine", "steam", status=2)
    sandbox.hubel("predict", "photographs", "forms/turned.jpg", "--save", "saved", *options, "torch")
    found["saved"] = sandbox.contents("saved")
    return found


def results(sandbox: Sandbox) -> Any:
    """The attributes and drawings of results in Python."""
    first, _ = sample_photographs(sandbox.folder / "photographs")
    objects(sandbox.folder / "objects", {"train": 16, "val": 8})
    options = "--model sliding_window --backbone lenet5 --set window=32 --set hidden=8 --image-size 64 --epochs 2"
    trained(sandbox, "objects", "run", options)
    return sandbox.python("results", first, "run")
