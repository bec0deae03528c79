"""Functions that run in a process of their own and use hubel's documented Python API; each returns JSON."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import platform
import typing
from pathlib import Path
from typing import Any

import numpy as np

_MOST_MACS = 5e9


def environment() -> dict[str, str]:
    """Which hubel is found, and what its numbers depend on."""
    import torch

    import hubel

    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    # Not "hubel", which is left out of what is recorded.
    return {
        "version": hubel.__version__,
        "path": str(Path(hubel.__file__).parent),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": processor,
    }


def weights() -> dict[str, Any]:
    """Keys, shapes, types and a hash of the seeded initial weights of every network; names by task."""
    import torch

    import hubel

    tasks = ("classify", "localize", "detect", "track")
    found: dict[str, Any] = {"names": {task: hubel.list_models(task) for task in tasks}, "all": hubel.list_models()}
    for name in found["all"]:
        torch.manual_seed(0)
        model = hubel.create_model(name)
        found[name] = _state({key: value.numpy() for key, value in model.state_dict().items()})
        del model
        gc.collect()
    return found


def tensors(path: str) -> dict[str, Any]:
    """Keys, shapes, types, a hash and two sums of each tensor of a safetensors file."""
    from safetensors.numpy import load_file

    state = load_file(path)
    return {**_state(state), "sums": {key: _sums(value) for key, value in state.items()}}


def _state(state: dict[str, np.ndarray]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(state[key]).reshape(-1).view(np.uint8).data)
    shapes = {key: f"{value.dtype} {value.shape}" for key, value in state.items()}
    return {"tensors": shapes, "sha256": digest.hexdigest()[:32]}


def _sums(values: np.ndarray) -> list[float]:
    values = np.asarray(values, dtype=np.float64)
    return [float(values.sum()), float(np.abs(values).sum())]


def forward(models: str) -> dict[str, Any]:
    """What every classifier with seeded weights computes of one image, and the feature maps of all but the largest.

    Args:
        models: a file of what ``hubel models --json`` prints.
    """
    import torch

    import hubel

    torch.set_num_threads(1)
    found = {}
    for row in json.loads(Path(models).read_text()):
        if row["task"] != "classify":
            continue
        name = row["name"]
        torch.manual_seed(0)
        model = hubel.create_model(name).eval()
        image = torch.rand(1, *row["input"], generator=torch.Generator().manual_seed(1)) * 2 - 1
        with torch.inference_mode():
            scores = model(image)
            maps = model.features(image) if row["macs"] < _MOST_MACS else {}
        found[name] = {
            "scores": scores[0, :5].tolist(),
            "sums": _sums(scores),
            "features": {stride: [list(each.shape), *_sums(each)] for stride, each in maps.items()},
        }
        del model, maps, scores
        gc.collect()
    return found


def summaries(*names: str) -> dict[str, Any]:
    """Rows and totals of :func:`hubel.summary`."""
    import hubel

    found = {}
    for name in names:
        whole = hubel.summary(name)
        totals = ("parameters", "multiplications", "inference_bytes", "training_bytes")
        found[name] = {"rows": len(whole.rows), **{each: getattr(whole, each) for each in totals}}
    return found


def summary_commands(*names: str) -> dict[str, Any]:
    """What ``hubel summary NAME --json`` prints, of several networks in one process."""
    from hubel.cli.main import main

    found = {}
    for name in names:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            main(["summary", name, "--json"])
        found[name] = json.loads(printed.getvalue())
    return found


def untrained(photograph: str) -> dict[str, Any]:
    """What detectors and localizers with seeded weights find in a photograph."""
    import torch

    import hubel

    found = {}
    for name in (*hubel.list_models("detect"), *hubel.list_models("localize")):
        torch.manual_seed(0)
        model = hubel.create_model(name, num_classes=3)
        # A network that tells nothing apart would leave the order of its boxes to rounding.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    parameter.mul_(1.3)
        predict = hubel.Predictor(model, engine="torch", precision="fp32", threads=1, conf=0.01)
        found[name] = _objects(next(iter(predict([photograph]))))
        del model, predict
        gc.collect()
    return found


def _objects(result: Any) -> dict[str, Any]:
    boxes = result.boxes.astype(float)
    return {
        "count": len(boxes),
        "boxes": boxes[:10].tolist(),
        "scores": result.scores[:10].tolist(),
        "names": list(result.names)[:10],
        "sums": [boxes.sum(0).tolist(), float(result.scores.sum())],
    }


def results(photograph: str, run: str) -> dict[str, Any]:
    """The attributes of results, for files, arrays and images in memory, and the pixels that they draw."""
    from PIL import Image

    import hubel
    from behaviour_probes.sandbox import pixels_of

    found: dict[str, Any] = {}
    image = Image.open(photograph).convert("RGB")
    predict = hubel.Predictor("efficientnet_lite0", engine="torch", precision="fp32", threads=1)
    sources = [photograph, np.asarray(image), image, np.asarray(image.convert("L")), image.rotate(90, expand=True)]
    for kind, result in zip(("file", "array", "image", "grey", "rotated"), predict(sources), strict=True):
        found[kind] = [[each.index, each.name, each.score] for each in result.classes]
        if kind == "file":
            found["json"], found["drawn"] = result.to_json(), pixels_of(result.draw(image))
    detect = hubel.Predictor(run, engine="torch", precision="fp32", threads=1, conf=0.02)
    (result,) = detect([image.resize((64, 64))])
    found["objects"] = {**_objects(result), "labels": result.labels.tolist(), "json": result.to_json()}
    found["objects"]["drawn"] = pixels_of(result.draw(image.resize((64, 64))))
    return found


def boxes() -> dict[str, Any]:
    """IoU and NMS of drawn boxes, as arrays and as tensors."""
    import torch

    import hubel

    rng = np.random.default_rng(0)
    corners = rng.integers(0, 400, (60, 2)).astype(np.float32)
    drawn = np.concatenate((corners, corners + rng.integers(5, 200, (60, 2))), 1).astype(np.float32)
    scores, labels = (rng.permutation(60) / 64).astype(np.float32), rng.integers(0, 3, 60)
    found = {}
    for kind, made in (("arrays", np.asarray), ("tensors", torch.as_tensor)):
        given, ranked, classes = made(drawn), made(scores), made(labels)
        found[kind] = {
            "iou": hubel.boxes.iou(given[:10], given[10:40]).tolist(),
            "nms": hubel.boxes.nms(given, ranked, iou=0.4).tolist(),
            "by_class": hubel.boxes.nms(given, ranked, classes, iou=0.4).tolist(),
            "default": hubel.boxes.nms(given, ranked).tolist(),
        }
    return found


def commands() -> dict[str, Any]:
    """The arguments and options of every command: names, ranges, choices, defaults; no wording."""
    from typer.main import get_command

    from hubel.cli.main import app

    return dict(_commands("hubel", get_command(app)))


def _commands(name: str, command: Any) -> Any:
    yield name, {_name(each): _parameter(each) for each in command.params}
    for part, below in getattr(command, "commands", {}).items():
        yield from _commands(f"{name} {part}", below)


def _name(parameter: Any) -> str:
    named = parameter.param_type_name == "option"
    return " ".join((*parameter.opts, *parameter.secondary_opts)) if named else f"argument {parameter.name}"


def _parameter(parameter: Any) -> dict[str, Any]:
    return {
        "required": parameter.required,
        "several": parameter.multiple or parameter.nargs != 1,
        "flag": bool(getattr(parameter, "is_flag", False)),
        "choices": _choices(parameter.type_descriptor.annotation),
        "range": [parameter.min, parameter.max],
        "default": None if callable(parameter.default) else repr(parameter.default),
    }


def _choices(annotation: Any) -> list[str]:
    """The words of a ``Literal``, within unions and lists too."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(map(str, typing.get_args(annotation)))
    return [word for part in typing.get_args(annotation) for word in _choices(part)]


def onnx(path: str) -> dict[str, Any]:
    """Inputs, outputs and metadata of an ONNX file, and what ONNX Runtime computes with it of fixed pixels."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    shape = [each if isinstance(each, int) else 1 for each in entry.shape]
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    outputs = session.run(None, {entry.name: pixels})
    return {
        "input": [entry.name, entry.type, list(map(str, entry.shape))],
        "metadata": _parsed(session.get_modelmeta().custom_metadata_map),
        "outputs": {
            each.name: [list(value.shape), value.reshape(-1)[:12].tolist(), float(np.abs(value).sum(dtype=float))]
            for each, value in zip(session.get_outputs(), outputs, strict=True)
        },
    }


def _parsed(metadata: dict[str, str]) -> dict[str, Any]:
    """Values that are JSON, such as a list of classes or anchors, as such."""
    found: dict[str, Any] = {}
    for key, text in metadata.items():
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found
