"""Training, the files of a run, and what is done with a run: evaluation, prediction, resuming, export."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import Any

import yaml

from behaviour_probes.drawings import objects, shapes
from behaviour_probes.sandbox import Sandbox, page_numbers

_FIXED = "--seed 0 --threads 1 --workers 0 --precision float32 --device cpu"
_SSD = "--model ssd --backbone efficientnet_lite0 --image-size 64 --batch 4 --learning-rate 5e-3"
_FORMATS = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
_ENGINE = ("--precision", "fp32", "--threads", "1", "--engine")


def trained(sandbox: Sandbox, data: str, out: str, options: str) -> Any:
    """Train on ``data`` into the folder ``out``; returns what ``--json`` prints.

    Which memory layout is faster is measured, and rounding depends on it. So a run that has decided for the other one
    is killed, the decision is replaced, and the run resumed from its beginning.
    """
    decisions = sandbox.folder / out / "decisions.json"
    process = sandbox.start_hubel("train", data, "--out", out, *options.split(), *_FIXED.split(), "--json")
    while process.poll() is None and not decisions.exists():
        time.sleep(0.02)
    if not decisions.exists() or json.loads(decisions.read_text())["execution"]["channels_last"]:
        return sandbox.printed(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    decided = json.loads(decisions.read_text())
    decided["execution"]["channels_last"] = True
    decisions.write_text(json.dumps(decided))
    for name in ("checkpoint.pt", "metrics.csv"):  # of epochs that are finished already
        (sandbox.folder / out / name).unlink(missing_ok=True)
    return sandbox.json("train", data, "--out", out, "--resume")


def run_files(sandbox: Sandbox, run: str) -> dict[str, Any]:
    """Everything in a run's folder that does not depend on the clock."""
    folder = sandbox.folder / run
    metrics = (folder / "metrics.csv").read_text()
    return {
        "files": [name for name in sandbox.names(run) if not name.startswith(".")],
        "config": sandbox.clean(yaml.safe_load((folder / "config.yaml").read_text())),
        "splits": sandbox.clean(json.loads((folder / "splits.json").read_text())),
        "columns": metrics.splitlines()[0],
        "metrics": sandbox.table(f"{run}/metrics.csv"),
        "predictions": sandbox.rows(f"{run}/predictions.jsonl"),
        "report": page_numbers((folder / "report.html").read_text(), metrics.splitlines()[0].split(",")),
        "card": sandbox.clean(json.loads((folder / "best" / "model.json").read_text())),
        "best": sandbox.python("tensors", f"{run}/best/model.safetensors"),
        "last": sandbox.python("tensors", f"{run}/last/model.safetensors"),
    }


def resumed(sandbox: Sandbox, data: str, run: str, epochs: int) -> dict[str, Any]:
    """A copy of a finished run that goes on to a later epoch."""
    again = sandbox.folder / f"{run}-resumed"
    shutil.copytree(sandbox.folder / run, again)
    config = yaml.safe_load((again / "config.yaml").read_text())
    (again / "config.yaml").write_text(yaml.safe_dump({**config, "epochs": epochs}, sort_keys=False))
    printed = sandbox.json("train", data, "--out", again.name, "--resume")
    best = sandbox.python("tensors", f"{again.name}/best/model.safetensors")
    return {"json": printed, "metrics": sandbox.table(f"{again.name}/metrics.csv"), "best": best}


def evaluated(sandbox: Sandbox, run: str, data: str, *options: str) -> dict[str, Any]:
    """``hubel evaluate``, with a report."""
    report = f"{run}-report"
    printed = sandbox.json("evaluate", run, data, "--threads", "1", "--report", report, *options)
    return {"json": printed, "report": page_numbers((sandbox.folder / report / "report.html").read_text(), ())}


def train_classify(sandbox: Sandbox) -> Any:
    """A classifier from scratch, and all that is done with its run."""
    shapes(sandbox.folder / "shapes", {"cross": 20, "disc": 20, "frame": 20})
    shapes(sandbox.folder / "more", {"cross": 4, "disc": 4, "frame": 4}, seed=1)
    options = "--model lenet5 --epochs 10 --batch 8 --from-scratch --average 0.5 --augment crop,flip"
    found = {"json": trained(sandbox, "shapes", "run", options), "run": run_files(sandbox, "run")}
    found["evaluate"] = evaluated(sandbox, "run", "shapes")
    found["evaluate more"] = sandbox.json("evaluate", "run", "more", "--split", "all", "--threads", "1")
    for engine in ("torch", "openvino", "onnx"):
        found[f"predict {engine}"] = sandbox.json("predict", "more", "--model", "run", *_ENGINE, engine)
    return {**found, "resumed": resumed(sandbox, "shapes", "run", 12)}


def train_variants(sandbox: Sandbox) -> Any:
    """Transfer learning, auxiliary heads, skewed classes, cached features."""
    shapes(sandbox.folder / "shapes", {"cross": 20, "disc": 20, "frame": 20})
    shapes(sandbox.folder / "skewed", {"cross": 6, "disc": 12, "frame": 24}, seed=2)
    runs = {
        "transfer": ("shapes", "--epochs 2 --head-epochs 1 --image-size 64 --batch 16 --augment crop,flip,mixup"),
        "smote": ("skewed", "--epochs 2 --image-size 32 --augment none --balance smote --batch 8"),
        "auxiliary": (
            "shapes",
            "--model googlenet --epochs 1 --image-size 32 --batch 16 --from-scratch --average 0 --optimizer sgd "
            "--augment window,randaugment,cutmix --schedule one-cycle --learning-rate 0.001",
        ),
        "weighted": (
            "skewed",
            "--model simple_cnn --epochs 2 --batch 8 --from-scratch --balance loss --accumulate 2 --augment flip,shift "
            "--schedule constant --label-smoothing 0",
        ),
    }
    found = {}
    for name, (data, options) in runs.items():
        printed = trained(sandbox, data, name, options)
        metrics, best = (
            sandbox.table(f"{name}/metrics.csv"),
            sandbox.python("tensors", f"{name}/best/model.safetensors"),
        )
        found[name] = {"json": printed, "metrics": metrics, "best": best}
    return found


def _objects_run(sandbox: Sandbox, options: str, epochs: int, conf: str, engines: tuple[str, ...]) -> dict[str, Any]:
    objects(sandbox.folder / "objects", {"train": 24, "val": 10})
    printed = trained(sandbox, "objects", "run", f"{options} --epochs {epochs}")
    found = {"json": printed, "run": run_files(sandbox, "run"), "evaluate": evaluated(sandbox, "run", "objects")}
    for engine in engines:
        found[f"predict {engine}"] = sandbox.json(
            "predict", "objects/val/images", "--model", "run", "--conf", conf, *_ENGINE, engine
        )
    return found


def train_detect(sandbox: Sandbox) -> Any:
    """SSD on a small backbone: trained, evaluated, applied, resumed."""
    found = _objects_run(
        sandbox, f"{_SSD} --average 0.5 --augment mosaic,zoom,flip,color", 8, "0.25", ("torch", "openvino")
    )
    return {**found, "resumed": resumed(sandbox, "objects", "run", 9)}


def train_localize(sandbox: Sandbox) -> Any:
    """One box an image."""
    options = "--task localize --model localizer --backbone lenet5_modern --image-size 32 --batch 8 --from-scratch"
    return _objects_run(sandbox, options, 3, "0.25", ("torch",))


def train_sliding_window(sandbox: Sandbox) -> Any:
    """Windows of a small classifier."""
    options = "--model sliding_window --backbone lenet5 --set window=32 --set hidden=8 --image-size 64 --batch 8"
    return _objects_run(sandbox, f"{options} --from-scratch", 3, "0.02", ("torch",))


def export(sandbox: Sandbox) -> Any:
    """A classifier and a detector in every format; the ONNX files and the programs beside them are run."""
    shapes(sandbox.folder / "shapes", {"cross": 12, "disc": 12})
    objects(sandbox.folder / "objects", {"train": 16, "val": 4})
    trained(sandbox, "shapes", "classifier", "--model lenet5 --epochs 1 --batch 8 --from-scratch")
    trained(sandbox, "objects", "detector", f"{_SSD} --epochs 4 --average 0 --augment flip")
    found: dict[str, Any] = {}
    for run, kinds in (("classifier", tuple(_FORMATS)), ("detector", ("onnx", "openvino"))):
        for kind in kinds:
            out = f"{run}-{kind}"
            printed = sandbox.json("export", run, "--format", kind, "--out", out)
            del printed["bytes"]
            found[out] = {"json": printed, "files": sandbox.names(out)}
            preprocessing = (sandbox.folder / out / "preprocessing.json").read_text()
            found[out]["preprocessing"] = json.loads(preprocessing)
        found[f"{run}-onnx"]["runs"] = sandbox.python("onnx", f"{run}-onnx/model.onnx")
    sandbox.json("export", "detector", "--format", "onnx", "--nms", "--conf", "0.1", "--out", "objects-onnx")
    found["nms"] = sandbox.python("onnx", "objects-onnx/model.onnx")
    image = str(sandbox.folder / "objects" / "val" / "images" / "0.png")
    found["program"] = sandbox.program("objects-onnx/use.py", image)
    return found
