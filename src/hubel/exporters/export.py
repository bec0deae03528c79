"""``hubel.export``: writes a folder that any program can use, or none at all."""

from __future__ import annotations

import copy
import inspect
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import hubel
from hubel.boxes import clip
from hubel.config import CONF, IOU, TOLERANCE
from hubel.console import log
from hubel.data.preprocessing import Preprocessing, crop_box, fit_box, scaled_2x2
from hubel.errors import UsageError
from hubel.exporters.darknet import export_darknet, require_darknet
from hubel.exporters.parity import (
    check_detections,
    check_masks,
    check_parity,
    reference_outputs,
    sample_inputs,
    selecting,
)
from hubel.fileio import rename_unique, staged_directory, write_json, write_text
from hubel.inference.engines.base import PRECISIONS, Backend
from hubel.inference.engines.convert import ModelSource, failing_as
from hubel.inference.engines.normalized_model import INPUT_NAME, SMALLEST_INPUT, NormalizedModel
from hubel.inference.engines.selection import BACKENDS
from hubel.inference.engines.torch import dtype_of
from hubel.inference.int8 import quantized_for
from hubel.models.metadata import ENSEMBLE, ModelMetadata
from hubel.tasks.decoding import Thresholds, decoder_of, require_detector
from hubel.tasks.instances.decode import as_torchvision

DARKNET = "darknet"
PREPROCESSING_FILE, EXAMPLE = "preprocessing.json", "use.py"

# Precision that a file is meant to compute in, in the words of OpenVINO's hint. Half floats only store weights: asked
# to compute with them, OpenVINO takes bfloat16 on processors that have it, with its larger errors.
_ARITHMETIC = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        path: of the model's file; OpenVINO's weights are beside it, and count as ``bytes``.
        max_difference: the greatest difference of a probability from the model's, as measured with the written file;
            for detectors and localizers also of a box, as a fraction of the image's size; for class maps the fraction
            of the pixels with another class; for images that of a pixel, as a fraction of 255.
        quantization: for int8, what it costs in the task's score, on how many held-out images, and as ``exact_on`` the
            processors that this holds for.
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
    portable: bool = False,
) -> Exported:
    """Write a model for use without hubel: ``model.onnx``, ``model.xml`` and ``model.bin``, or ``model.pt2``.

    The file takes uint8 pixels (N, height, width, channels), any N, and gives probabilities in float32, of a detector
    or localizer boxes (N, A, 4) in pixels of the network's input and scores (N, A, classes), of objects with masks also
    the probability of each part of a box that it belongs to the object (N, A, S, S), of segmentation networks class
    maps (N, height, width), of those that enlarge images (N, scale · height, scale · width, channels), 0..255.
    The last two take any height and width, of at least 33 pixels for segmentation, unless they are in int8. Classes,
    preprocessing, task, versions and the weights' licence are in its metadata. Beside it are ``preprocessing.json`` and
    ``use.py``, a short program that uses it. Before the folder appears the file is run by its own runtime and compared
    with the model.

    Args:
        model: a registered name, a name with weights, a run folder, a saved model's folder; or a module, as
            :func:`hubel.create_model` makes it, or any other together with its ``metadata``.
        format: ``"onnx"``, ``"openvino"`` or ``"torch"``; or ``"darknet"``, for what came from a Darknet cfg:
            ``model.cfg``, ``model.weights`` and ``model.names`` alone.
        precision: ``"fp32"``, ``"fp16"``, for OpenVINO and torch ``"bf16"``, for OpenVINO ``"int8"``.
        calibrate: for int8, a folder of images like those that the model will see; a run has its own data.
        out: the folder; ``exports/MODEL-FORMAT`` by default, with the precision at its end unless that is fp32. If it
            exists, the folder gets a number: ``…-2``.
        tolerance: for int8, the loss of the task's score that is allowed, as a fraction.
        nms: a detector's graph ends in objects: it takes one image at a time and gives their boxes (K, 4) in pixels of
            the network's input, scores (K,) and labels (K,), best first, 300 at most. They have at least the score
            ``conf``, and of two boxes of a class with an IoU above ``iou`` the better one stays.
        portable: int8 whose sums never overflow on any processor, as by default only on those like this one: with
            weights of 7 bits instead of 8 where this one has VNNI.

    Raises:
        UsageError: an argument is invalid, or the format does not have the precision.
        MissingExtraError: packages that the format needs are not installed.
        ModelError: the model cannot be found or exported, int8 costs too much, or the file differs from the model.
        WeightsError: the weights are not available.
        DataError: the folder cannot be written.
    """
    if format == DARKNET:
        return _for_darknet(ModelSource(model, metadata), precision, out, nms)
    backend = _backend(format, precision, calibrate, portable)
    source = ModelSource(model, metadata)
    network, metadata = source.load()
    if isinstance(model, nn.Module):  # it stays as it is
        network = copy.deepcopy(network).to("cpu", torch.float32).eval()
    name = source.name
    folder_name = _folder(out, name, format, precision)
    if getattr(network, "selects_regions", False):
        backend.check_selection(precision, name)
    weights = dtype_of(precision if precision in backend.weight_precisions else "fp32")
    if nms:
        thresholds = _nms_thresholds(backend, precision, metadata.task, conf, iou, name)
        graph: NormalizedModel = DetectorWithNMS(network, metadata.preprocessing, weights, thresholds)
    else:
        graph = NormalizedModel(network, metadata.preprocessing, weights, _takes_any_size(network, metadata, precision))
    facts = metadata_of(metadata, name, precision, graph.output_names)
    if nms:
        facts |= {"input": facts["input"].replace("(N,", "(1,"), "conf": conf, "iou": iou}
    pixels = sample_inputs(metadata.preprocessing)
    expected = reference_outputs(network, metadata.preprocessing, pixels)
    with staged_directory(folder_name.absolute()) as folder:
        converted = None
        if precision == "int8":
            if isinstance(model, nn.Module):
                message = "int8 requires a model with a name or a folder"
                raise UsageError(message, "save the module first: hubel.models.save_model")
            converted, quantization = quantized_for(model, calibrate, tolerance, portable=portable)
            facts["quantization"] = {**asdict(quantization), "exact_on": quantization.exact_on}
        failure = f"{name} cannot be exported to {format} in {precision}"
        with failing_as(failure, "Try another --format or --precision."):
            backend.save(converted or _converted(backend, graph), folder, facts, half=precision == "fp16")
            _, run = backend.open_file(folder / backend.export_file)
            file = f"{name} as {backend.export_file}"
            if nms:
                difference = check_detections(run, pixels, expected, thresholds, precision, file)
            elif graph.selects_regions:
                selected = selecting(run, pixels.shape[1:3], Thresholds())
                difference = check_detections(selected, pixels, expected, Thresholds(), precision, file)
                if "masks" in expected:
                    difference = max(difference, check_masks(run, pixels, expected, precision, file))
                del selected
            else:
                difference = check_parity(run, pixels, expected, precision, file)
                if graph.any_size:
                    part = np.ascontiguousarray(pixels[:, : 3 * pixels.shape[1] // 4, : 2 * pixels.shape[2] // 3])
                    of_part = reference_outputs(network, metadata.preprocessing, part)
                    difference = max(difference, check_parity(run, part, of_part, precision, f"{file} of other sizes"))
            del run  # it holds the file
        size = sum(path.stat().st_size for path in folder.iterdir())
        write_json(folder / PREPROCESSING_FILE, metadata.preprocessing.to_json())
        write_text(folder / EXAMPLE, example(backend, metadata, graph))
        placed = rename_unique(folder, folder_name)
    path, cost = placed / backend.export_file, facts.get("quantization")
    return Exported(path, format, precision, size, difference, name, metadata.task, graph.output_names, cost)


def _takes_any_size(network: nn.Module, metadata: ModelMetadata, precision: str) -> bool:
    """Whether the graph can take images of any size; what is quantized is of one size already."""
    shown = metadata.preprocessing
    large = 2 * min(shown.height, shown.width) // 3 >= SMALLEST_INPUT  # for a smaller one to compare, too
    return precision != "int8" and large and getattr(network, "takes_any_input", False)


def _converted(backend: Backend, graph: NormalizedModel) -> Any:
    """The conversion; of one size where the format cannot say how a network's steps follow from the size."""
    try:
        return backend.convert(graph)
    except Exception:  # torch.export and the libraries' converters raise whatever they like
        if not graph.any_size or graph.of_tiles:
            raise
        height, width, _ = graph.input_size
        log(f"note: {backend.name} has no words for this network at any size: it takes {width}x{height} pixels alone")
        graph.any_size = False
        return backend.convert(graph)


def _for_darknet(source: ModelSource, precision: str, out: str | Path | None, nms: bool) -> Exported:
    if precision != "fp32" or nms:
        raise UsageError("files of Darknet hold float32 weights alone", "omit --precision and --nms")
    network, metadata = source.load()
    require_darknet(network, source.name)
    folder = _folder(out, source.name, DARKNET, precision)
    path, size, difference = export_darknet(network, metadata, folder)
    return Exported(path, DARKNET, precision, size, difference, source.name, metadata.task, ())


def _backend(format: str, precision: str, calibrate: str | Path | None, portable: bool) -> Backend:
    if format not in BACKENDS:
        raise UsageError(f"unknown format {format!r}", f"use {', '.join(sorted((*BACKENDS, DARKNET)))}")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", f"use {', '.join(PRECISIONS)}")
    backend = BACKENDS[format]
    if precision in backend.not_exported:
        others = sorted(other.name for other in BACKENDS.values() if precision not in other.not_exported)
        raise UsageError(
            f"{format} cannot be exported in {precision}: {backend.not_exported[precision]}",
            f"use --format {' or '.join(others)} for {precision}, or --precision fp32 or fp16",
        )
    if precision != "int8":
        if calibrate is not None:
            raise UsageError("calibration images are for int8 only", "omit --calibrate, or use --precision int8")
        if portable:
            message = f"{precision} needs no --portable: only int8 depends on the processor's instructions"
            raise UsageError(message, "omit it, or use --precision int8")
    backend.require(f"Exporting to {format.upper()}")
    return backend


def _folder(out: str | Path | None, name: str, format: str, precision: str) -> Path:
    """``out``, or ``resnet50:timm/a1_in1k`` in onnx → ``resnet50-timm-a1_in1k-onnx``, ``runs/a/best`` → ``a-onnx``."""
    if out is not None:
        folder = Path(out)
        folder = folder if folder.name.strip(".") else folder.resolve()  # "." and ".." have no name to number
        if not folder.name:
            raise UsageError(f"--out {out} is the root of a disk", "choose a folder on it")
        return folder
    if ":" in name and not Path(name).exists():
        stem = name
    else:
        path = Path(name).absolute()
        stem = path.parent.name if path.name in ("best", "last", ENSEMBLE) else path.name
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "model"
    return Path("exports", "-".join([stem, format] if precision == "fp32" else [stem, format, precision]))


def _nms_thresholds(backend: Backend, precision: str, task: str, conf: float, iou: float, name: str) -> Thresholds:
    """The thresholds of a graph that ends in objects, if there can be one."""
    require_detector(task, name, "--nms")
    if "masks" in decoder_of(task, name).OUTPUTS:
        message = f"{name} finds masks, which a file that ends in boxes would leave out"
        raise UsageError(message, "omit --nms: the network has suppressed what overlaps already")
    backend.check_nms(precision)
    for option, fraction in (("conf", conf), ("iou", iou)):
        if not 0 <= fraction <= 1:
            raise UsageError(f"{option} is {fraction:g}", "use a fraction from 0 to 1")
    return Thresholds(conf, iou, topk_candidates=sys.maxsize)


class DetectorWithNMS(NormalizedModel):
    """As :func:`hubel.tasks.detection.decode.select_objects` in a graph of a detector, of one image.

    ``thresholds`` say what is selected; classes have no limit of candidates.
    """

    static_batch = True

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, dtype: torch.dtype, thresholds: Thresholds
    ) -> None:
        super().__init__(model, preprocessing, dtype)
        self.output_names = ("boxes", "scores", "labels")
        self._thresholds = thresholds

    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """Boxes (K, 4) in pixels of the input, scores (K,), labels (K,), best first, of pixels (1, H, W, C)."""
        dense = super().predict(pixels)
        all_boxes, all_scores = dense["boxes"][0], dense["scores"][0]
        box, labels = torch.nonzero(all_scores >= self._thresholds.conf, as_tuple=True)
        scores = all_scores[box, labels]
        height, width, _ = self.input_size
        boxes = clip(all_boxes, width, height)[box]
        # Classes lie side by side, so that boxes of different ones never overlap.
        apart = boxes + (labels * (max(height, width) + 1)).unsqueeze(1)
        kept = torchvision.ops.nms(apart, scores, self._thresholds.iou)[: self._thresholds.max_detections]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def metadata_of(metadata: ModelMetadata, name: str, precision: str, outputs: tuple[str, ...]) -> dict[str, Any]:
    """Facts that a program without hubel needs, or a person who finds the file: text, lists and dictionaries.

    ``weights`` and ``license`` are among them if the catalog knows the weights that the model is or started from.
    """
    facts = {
        "task": metadata.task,
        "model": name,
        "architecture": metadata.architecture,
        "classes": metadata.classes,
        "preprocessing": metadata.preprocessing.to_json(),
        "input": f"{INPUT_NAME}: uint8 (N, height, width, channels), 0..255; normalized inside the network",
        "outputs": list(outputs),
        "precision": precision,
        "inference_precision": _ARITHMETIC[precision],
        "hubel": hubel.__version__,
    }
    if metadata.weights is not None:
        from hubel.weights import entries_for

        facts["weights"] = metadata.weights
        entries = entries_for(metadata.architecture)
        license = next((entry.license for entry in entries if entry.name == metadata.weights), None)
        facts |= {"license": license} if license else {}
    return facts


def example(backend: Backend, metadata: ModelMetadata, graph: NormalizedModel) -> str:
    """A short program that predicts images with the exported file, NumPy, Pillow and the format's own runtime.

    How it crops and how it opens the file are this installation's own functions, word for word: a second description
    would drift from them.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hubel.exporters", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    outputs = graph.output_names
    return templates.get_template("use.py.jinja").render(
        file=backend.export_file,
        package=backend.example_package,
        open_file=backend.example(),
        hubel=hubel.__version__,
        crop=metadata.preprocessing.resize == "crop",
        fit=metadata.preprocessing.resize == "fit",
        background=tuple(metadata.preprocessing.background.tolist()),
        fit_box=re.sub(r'\n    """.*?"""', "", inspect.getsource(fit_box), flags=re.DOTALL).rstrip(),
        crop_box=inspect.getsource(crop_box).rstrip(),
        scaled_2x2=inspect.getsource(scaled_2x2).rstrip() if metadata.preprocessing.is_2x2 else "",
        outputs=outputs,
        whole_pixels="masks" in outputs and as_torchvision(metadata),
        torchvision=backend.example_package == "torch" and (graph.selects_regions or "labels" in outputs),
        tiles=metadata.preprocessing.resize == "tiles",
        selects=decoder_of(metadata.task, metadata.architecture).NMS and "labels" not in outputs,
    )
