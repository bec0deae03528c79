"""What hubel itself has written, and reads again: models, exports, runs, jobs, caches. Others may have changed it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from fuzz.target import Target
from hubel.config import make_config
from hubel.config_file import read_config, write_config
from hubel.data.splits import read_splits

_KEY = "k" * 40
_IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def _write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _json(folder: Path, name: str, content: Any) -> Path:
    return _write(folder, name, json.dumps(content, indent=1).encode())


def _records(folder: Path) -> list[Path]:
    write_config(folder / "config.yaml", make_config(data="data", epochs=3, options={"width": 0.5}))
    (folder / "config.yaml").open("a").write("# &a *a << : [x]\n")
    names = {split: [f"{split}/cat/{n}.jpg" for n in range(5)] for split in ("train", "val", "test")}
    return [folder / "config.yaml", _json(folder, "splits.json", names)]


def _read_record(path: Path) -> None:
    read_config(path) if path.suffix == ".yaml" else read_splits(path)


def _small_model(folder: Path) -> Path:
    import torch

    from hubel.models import create_model, describe
    from hubel.models.checkpoint import save_model

    torch.manual_seed(0)
    model = create_model("lenet5", 3)
    save_model(folder, model, describe(model))
    return folder


def _saved_model(folder: Path) -> list[Path]:
    run = _small_model(folder / "run")
    return [run / "model.json", run / "model.safetensors"]


def _predict(model: Path) -> None:
    """Predict an image; no result may hold anything but numbers."""
    from hubel.inference.predictor import Predictor

    for result in Predictor(str(model), "torch", "fp32", "cpu", threads=1)([_IMAGE]):
        json.dumps(result.to_json(), allow_nan=False)


def _read_model(path: Path) -> None:
    _predict(path.parent)


def _exported(folder: Path) -> list[Path]:
    import torch
    from torch import nn

    import hubel
    from hubel.data.preprocessing import Preprocessing
    from hubel.models import ModelMetadata

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    metadata = ModelMetadata("classify", "tiny", 3, 3, 8, ["a", "b", "c"], Preprocessing(8, 8))
    formats = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
    for name in formats:
        hubel.export(model, name, out=folder / name, metadata=metadata)
    return [folder / name / file for name, file in formats.items()]


def _read_exported(path: Path) -> None:
    from hubel.inference.predictor import Predictor

    for result in Predictor(str(path), device="cpu", threads=1)([_IMAGE]):
        json.dumps(result.to_json(), allow_nan=False)


def _decisions(folder: Path) -> list[Path]:
    (folder / "weights").mkdir()
    rows = {
        "execution": {"precision": "bfloat16", "channels_last": True, "reason": "twice as fast"},
        "workers": {"count": 2, "reason": "2 workers: 30 images per second"},
    }
    return [_json(folder, "decisions.json", rows), _json(folder / "weights", "measurements.json", rows)]


def _read_decisions(path: Path) -> None:
    """What was decided is of the declared types and ranges, or is decided anew."""
    from hubel.training.autotune import ExecutionPlan
    from hubel.training.data_module import Workers
    from hubel.training.run_records import decided_once, measured_once

    kept = path.read_bytes()
    for name, kind, new in (
        ("execution", ExecutionPlan, ExecutionPlan("float32", True, "")),
        ("workers", Workers, Workers(0, "")),
    ):
        if path.name == "decisions.json":
            record: Any = decided_once(path.parent, name, kind, lambda new=new: new)  # type: ignore[misc]
        else:
            with patch.dict(os.environ, {"HUBEL_CACHE": str(path.parent.parent)}):
                record = measured_once(name, kind, lambda new=new: new)  # type: ignore[misc]
        values = asdict(record)
        assert values.get("precision", "float32") in ("float32", "bfloat16", "float16")
        assert 0 <= values.get("count", 0) <= 1024 and isinstance(values.get("channels_last", True), bool)
        assert type(values.get("count", 0)) is int and len(values["reason"]) <= 500
        path.write_bytes(kept)


def _checkpoint(folder: Path) -> list[Path]:
    import torch
    from torch import nn

    from hubel.training.checkpoint import Progress, save_checkpoint

    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    history = [
        {"epoch": n + 1, "phase": "all", "train_loss": 1.0 / (n + 1), "val_top1": 0.5, "seconds": 1.5} for n in range(2)
    ]
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(folder / "checkpoint.pt", Progress(2, history, 1), state)
    return [folder / "checkpoint.pt"]


def _read_checkpoint(path: Path) -> None:
    """Restore a run, and go on with it."""
    import torch
    from torch import nn

    from hubel.training.checkpoint import load_checkpoint, restore

    progress, state = load_checkpoint(path, monitor=("top1",))
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    restore(path, state, optimizer, model=model)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert 0 <= progress.best_epoch <= progress.epoch
    progress.add({"epoch": progress.epoch + 1, "val_top1": 0.6}, ("top1",))
    progress.should_stop_early(5, ("top1",))


def _notes(folder: Path) -> list[Path]:
    rows = "epoch,phase,step,loss,learning_rate\n" + "".join(f"{n},all,{n},0.5,0.1\n" for n in range(1, 5))
    digest = hashlib.sha256(b"").hexdigest()
    return [
        _write(folder, "steps.csv", rows.encode()),
        _write(folder, "wandb-id", b"a1b2c3\n"),
        _write(folder, "a.pth.sha256", f"{digest}  a.pth\n".encode()),
    ]


def _read_notes(path: Path) -> None:
    from hubel.training.callbacks import RunStart, StepLog, _remembered
    from hubel.weights.checksums import read_sidecar

    if path.name == "steps.csv":
        log = StepLog()
        try:
            log.on_run_start(RunStart(path.parent, make_config(data="data"), ["a"], {}, 2))
        finally:
            log.on_run_end(None)
    elif path.name == "wandb-id":
        _remembered(path, lambda: "new")
    else:
        read_sidecar(path.with_suffix(""))


def _cache(folder: Path) -> list[Path]:
    from hubel.inference.engines.cache import ConvertedCache
    from hubel.models.metadata import read_metadata

    run = _small_model(folder / "run")
    cache = ConvertedCache(folder / "converted")
    facts = {"version": "3", "model": "run", "engine": "onnx", "precision": "fp32", "origin": "0" * 64}
    metadata = read_metadata(run / "model.json").to_json()
    cache.put(_KEY, lambda to: shutil.copy(run / "model.json", to), facts | {"metadata": metadata})
    shutil.copytree(cache.folder / _KEY, folder / "sound")
    return [cache.folder / _KEY / "entry.json"]


def _read_cache(path: Path) -> None:
    """List the entries, and use the damaged one where it is believed."""
    from hubel.inference.engines.cache import ConvertedCache
    from hubel.models.metadata import ModelMetadata

    cache = ConvertedCache(path.parent.parent)
    path.chmod(0o600)
    try:
        entries = cache.entries()
        json.dumps([entry.to_json() for entry in entries], allow_nan=False)
        if (entry := cache.get(_KEY)) is not None:
            ModelMetadata.from_json(entry.metadata)
    finally:
        if not path.parent.is_dir():  # a damaged entry is removed
            shutil.copytree(path.parent.parent.parent / "sound", path.parent)


def _job(folder: Path) -> list[Path]:
    import pyarrow
    import pyarrow.parquet as parquet

    settings = {"hubel": "0", "model": "m", "digest": "", "top": 5, "chosen": {"engine": "torch", "precision": "fp32"}}
    rows = [{"block": n, "rows": 3, "errors": 1} for n in range(3)]
    shard = [{"source": "a.jpg", "error": "x"}, {"source": "b.jpg"}]
    table = pyarrow.table({"source": ["a.jpg", "b.jpg"], "error": ["x", None]})
    parquet.write_table(table, folder / "part-000001.parquet")
    return [
        _json(folder, "job.json", settings),
        _write(folder, "finished.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode()),
        _write(folder, "part-000000.jsonl", "".join(f"{json.dumps(row)}\n" for row in shard).encode()),
        folder / "part-000001.parquet",
    ]


def _read_job(path: Path) -> None:
    from hubel.batch_predict.job import read_finished, read_manifest
    from hubel.batch_predict.shards import Shards

    if path.name == "job.json":
        settings = {"hubel": "0", "model": "m", "digest": "", "top": 5}
        chosen = read_manifest(path.parent, settings)
        assert chosen is not None and all(isinstance(value, str) for value in chosen.values())
        return
    if path.name == "finished.jsonl":
        found = list(read_finished(path).values())
    else:
        found = [Shards(path.parent, path.suffix[1:]).count(int(path.stem[-6:]))]
    for written in found:
        assert 0 <= written.errors <= written.rows < 1 << 62


SAVED: dict[str, Target] = {
    "run-records": Target(_records, _read_record),
    "run-notes": Target(_notes, _read_notes),
    "decisions": Target(_decisions, _read_decisions),
    "checkpoint": Target(_checkpoint, _read_checkpoint),
    "job": Target(_job, _read_job),
    "converted-cache": Target(_cache, _read_cache),
    "model-folder": Target(_saved_model, _read_model, megabytes=500),
    "exported": Target(_exported, _read_exported, megabytes=500),
}
