"""``hubel.export``: a model into a folder that any program can use, or no folder at all."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hubel.config import CONF, IOU, TOLERANCE
from hubel.data.preprocessing import Preprocessing
from hubel.errors import HubelError, ModelError, UsageError
from hubel.exporters import onnx_file, openvino_file, torch_file, wrappers
from hubel.exporters.metadata import EXAMPLE, example, metadata_of
from hubel.exporters.parity import check_objects, check_parity, sample_inputs
from hubel.exporters.wrappers import OUTPUTS, Answers, answers_of
from hubel.fileio import rename_unique, staged_directory, write_json, write_text
from hubel.inference.engines.base import FORMATS as PRECISIONS
from hubel.inference.engines.lazy_model import ModelSource
from hubel.inference.engines.onnx_conversion import require_onnx, to_onnx
from hubel.inference.engines.openvino_conversion import to_openvino
from hubel.inference.engines.openvino_runtime import core
from hubel.inference.int8 import quantized_for
from hubel.models.metadata import ModelMetadata
from hubel.tasks.detection.decode import NMSConfig

if TYPE_CHECKING:
    from openvino import Model

FORMATS = {"onnx": onnx_file.FILE, "openvino": openvino_file.FILE, "torch": torch_file.FILE}
PREPROCESSING_FILE = "preprocessing.json"

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_NOT_OFFERED = {
    ("onnx", "bf16"): "ONNX Runtime computes hardly anything in bfloat16 on CPUs",
    ("onnx", "int8"): "quantization, and the check of what it costs, are made with OpenVINO",
    ("torch", "int8"): "quantization, and the check of what it costs, are made with OpenVINO",
}

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: of the model's file; OpenVINO's weights are beside it.
        format: onnx, openvino or torch.
        precision: fp32, fp16, bf16 or int8.
        bytes: of the model's file or files.
        max_difference: the greatest difference of a probability from the model's, as measured with the written file;
            for detectors also of a box's place, as a share of the picture's side.
        model: what was exported.
        task: the model's.
        outputs: names of the file's outputs.
        quantization: for int8, what it costs in the task's score, on how many held-out images.
    """

    path: Path
    format: str
    precision: str
    bytes: int
    max_difference: float
    model: str
    task: str
    outputs: tuple[str, ...]
    quantization: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, as ``hubel export --json`` prints it."""
        return {**asdict(self), "path": str(self.path), "outputs": list(self.outputs)}


def export(
    model: str | Path | nn.Module,
    format: str,
    precision: str = "fp32",
    calibrate: str | Path | None = None,
    out: str | Path | None = None,
    metadata: ModelMetadata | None = None,
    tolerance: float = TOLERANCE,
    nms: bool = False,
    conf: float = CONF,
    iou: float = IOU,
) -> Exported:
    """Write a model for use without hubel: ``model.onnx``, ``model.xml`` and ``model.bin``, or ``model.pt2``.

    The file takes uint8 pixels (N, height, width, channels), any N, and gives probabilities in float32, a detector's
    raw scores and offsets from anchors; classes, preprocessing, anchors, task, versions and the weights' licence are in
    its metadata. Beside it are ``preprocessing.json`` and ``use.py``, a short program that uses it. Before the folder
    appears the file is run by its own runtime and compared with the model.

    Args:
        model: a registered name, a name with weights, a run folder, a saved model's folder; or a module, as
            :func:`hubel.create_model` makes it, or any other together with its ``metadata``.
        format: ``"onnx"``, ``"openvino"`` or ``"torch"``.
        precision: ``"fp32"``; ``"fp16"``; ``"bf16"`` for OpenVINO and torch; ``"int8"`` for OpenVINO.
        calibrate: for int8, a folder of images like those that the model will see; a run has its own data.
        out: the folder; ``exports/MODEL-FORMAT`` by default, with the precision at its end unless that is fp32. If
            there is something already, the folder gets a number: ``…-2``.
        card: what describes ``model`` if that is a module.
        tolerance: for int8, by how much the task's score may fall, a fraction.
        nms: a detector's graph ends in objects: it takes one image at a time and gives their boxes (K, 4) in pixels of
            the network's input, scores (K,) and labels (K,), best first, 300 at most.
        conf: with ``nms``, objects of a lower score are left out, 0..1.
        iou: with ``nms``, of two boxes of a class that overlap by more, the better one stays, 0..1.

    Raises:
        UsageError: an argument is not what it may be, or the format does not have the precision.
        MissingExtraError: packages that the format needs are not installed.
        ModelError: the model cannot be found or exported, int8 costs too much, or the file differs from the model.
        WeightsError: the weights could not be had.
        DataError: the folder cannot be written.
    """
    _check_request(format, precision, calibrate)
    source = ModelSource(model, metadata)
    network, metadata = source.load()
    if metadata.task == "localize":
        raise ModelError(f"{source.name}: exporting a localizer is not available", "use it with hubel predict")
    if isinstance(model, nn.Module):  # it stays as it is
        network = copy.deepcopy(network).to("cpu", torch.float32).eval()
    name = source.name
    wanted = _asked_for(out) or Path("exports", _folder_name(name, format, precision))
    anchors = source.anchors()
    rule = _rule(format, precision, anchors, conf, iou, name) if nms else None
    facts = metadata_of(
        metadata, name, precision, OUTPUTS[metadata.task] if rule is None else wrappers.DETECTION_OUTPUTS
    )
    if rule is not None:
        facts |= {"input": facts["input"].replace("(N,", "(1,"), "conf": conf, "iou": iou}
    pixels = sample_inputs(metadata.preprocessing)
    expected = answers_of(network, metadata.preprocessing, pixels, OUTPUTS[metadata.task])
    with staged_directory(wanted.absolute()) as folder:
        quantized = None
        if precision == "int8":
            quantized, facts["quantization"] = _quantized(model, calibrate, tolerance)
        with _failing_as(f"{name} cannot be exported to {format} in {precision}"):
            answers: nn.Module = Answers(network, torch.float32 if format == "openvino" else _DTYPES[precision])
            if anchors is not None and rule is not None:
                answers = wrappers.DetectorWithNMS(answers, anchors, (pixels.shape[1], pixels.shape[2]), rule)
            elif anchors is not None:
                facts["anchors"] = anchors.astype(float).round(4).tolist()
            run = _written(answers, metadata.preprocessing, format, precision, facts, folder, quantized)
            file = f"{name} as {FORMATS[format]}"
            difference = _difference(run, pixels, expected, anchors, rule, precision, file)
            del run  # it holds the file
        size = sum(path.stat().st_size for path in folder.iterdir())
        write_json(folder / PREPROCESSING_FILE, metadata.preprocessing.to_json())
        write_text(folder / EXAMPLE, example(format, FORMATS[format], metadata, nms))
        placed = rename_unique(folder, wanted)
    path, report = placed / FORMATS[format], facts.get("quantization")
    return Exported(path, format, precision, size, difference, name, metadata.task, tuple(facts["outputs"]), report)


def _check_request(format: str, precision: str, calibrate: str | Path | None) -> None:
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", f"use {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", f"use {', '.join(PRECISIONS)}")
    if (format, precision) in _NOT_OFFERED:
        others = [other for other in FORMATS if (other, precision) not in _NOT_OFFERED]
        raise UsageError(
            f"{format} is not exported in {precision}: {_NOT_OFFERED[format, precision]}.",
            f"Take --format {' or '.join(others)} for {precision}, or --precision fp32 or fp16.",
        )
    if calibrate is not None and precision != "int8":
        raise UsageError(f"calibration images are of no use for {precision}", "leave --calibrate out, or ask for int8")
    if format == "onnx":
        require_onnx("Exporting to ONNX")


def _asked_for(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    folder = folder if folder.name.strip(".") else folder.resolve()  # "." and ".." have no name to put a number to
    if not folder.name:
        raise UsageError(f"--out {out} is the root of a disk", "name a folder on it")
    return folder


def _folder_name(name: str, format: str, precision: str) -> str:
    """``resnet50:timm/a1_in1k`` in onnx → ``resnet50-timm-a1_in1k-onnx``, ``runs/flowers/best`` → ``flowers-onnx``."""
    if ":" in name and not Path(name).exists():
        stem = name
    else:
        path = Path(name).absolute()
        stem = path.parent.name if path.name in ("best", "last") else path.name
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "model"
    return "-".join([stem, format] if precision == "fp32" else [stem, format, precision])


def _difference(
    run: Run,
    pixels: np.ndarray,
    expected: dict[str, np.ndarray],
    anchors: np.ndarray | None,
    rule: NMSConfig | None,
    precision: str,
    file: str,
) -> float:
    """By how much the file differs from the model, by what it gives; more than may be is raised."""
    if anchors is None:
        return check_parity(run, pixels, expected, precision, file)
    if rule is None:
        return check_objects(run, pixels, expected, anchors, precision, file)
    return wrappers.check_detections(run, pixels, expected, anchors, rule, precision, file)


def _quantized(
    model: str | Path | nn.Module, calibrate: str | Path | None, tolerance: float
) -> tuple[Model, dict[str, Any]]:
    """The model in int8, ending in probabilities, and what that costs."""
    if isinstance(model, nn.Module):
        raise UsageError("int8 is for models with a name or a folder", "save the module first: hubel.models.save_model")
    scoring, report = quantized_for(model, calibrate, tolerance)
    return openvino_file.ending_in_probabilities(scoring), asdict(report)


def _written(
    answers: nn.Module,
    preprocessing: Preprocessing,
    format: str,
    precision: str,
    facts: dict[str, Any],
    folder: Path,
    quantized: Model | None,
) -> Run:
    """Write the model's file and read it back."""
    alone = isinstance(answers, wrappers.DetectorWithNMS)
    if format == "openvino":
        if alone:  # OpenVINO reads suppression from ONNX alone
            graph = to_onnx(answers, preprocessing, facts["outputs"], alone).SerializeToString()
            converted = core().read_model(graph)
        else:
            converted = quantized or to_openvino(answers, preprocessing, facts["outputs"])
        openvino_file.name_outputs(converted, facts["outputs"])
        openvino_file.write(converted, precision == "fp16", facts, folder)
        return openvino_file.load(folder)
    if format == "onnx":
        onnx_file.write(to_onnx(answers, preprocessing, facts["outputs"], alone), facts, folder)
        return onnx_file.load(folder)
    torch_file.write(answers, preprocessing, facts, folder, alone)
    return torch_file.load(folder, facts["outputs"])


def _rule(format: str, precision: str, anchors: np.ndarray | None, conf: float, iou: float, name: str) -> NMSConfig:
    """The thresholds of a graph that ends in objects, if there can be one."""
    if anchors is None:
        raise UsageError(f"{name} finds no objects", "leave --nms out: it is for detectors")
    if format == "openvino":
        if precision == "bf16":
            raise UsageError(
                "bf16 cannot hold where boxes are, and OpenVINO would compute all of the graph in it",
                "leave --nms out, or take fp32 or fp16",
            )
        require_onnx("Exporting to OpenVINO with --nms")
    for what, share in (("conf", conf), ("iou", iou)):
        if not 0 <= share <= 1:
            raise UsageError(f"{what} is {share:g}", "use a fraction from 0 to 1")
    return NMSConfig(conf, iou, candidates=anchors.size)


@contextmanager
def _failing_as(message: str) -> Iterator[None]:
    """Exporters and runtimes raise whatever comes to their libraries' minds: it becomes one line."""
    try:
        yield
    except (HubelError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{message}: {reason:.300}", "Try another --format or --precision.") from error
