"""What travels in an exported file besides the network."""

from __future__ import annotations

import inspect
import json
from typing import Any

import jinja2

import hubel
from hubel import boxes
from hubel.data.preprocessing import crop_box
from hubel.inference.engines.normalized_model import INPUT_NAME
from hubel.models.metadata import ModelMetadata
from hubel.tasks.detection import decode as found_objects

# What the arithmetic of a file is meant to be, in the words of OpenVINO's hint. Half floats are a way of storing
# weights: asked to compute with them, OpenVINO takes bfloat16 on processors that have that, with its larger errors.
_ARITHMETIC = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}


def metadata_of(metadata: ModelMetadata, name: str, precision: str, outputs: tuple[str, ...]) -> dict[str, Any]:
    """Facts that a program without hubel needs, or a person who finds the file.

    Args:
        card: of the model.
        name: what the model was called by whoever exported it.
        precision: of the file: fp32, fp16, bf16 or int8.
        outputs: their names.

    Returns:
        Text, lists and dictionaries. ``weights`` and ``license`` are there if the catalog knows the weights that the
        model is or started from.
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
        facts["weights"] = metadata.weights
        license = _license(metadata)
        facts |= {"license": license} if license else {}
    return facts


def _license(metadata: ModelMetadata) -> str | None:
    from hubel.weights import entries_for

    return next((entry.license for entry in entries_for(metadata.architecture) if entry.name == metadata.weights), None)


def as_text(facts: dict[str, Any]) -> dict[str, str]:
    """The same for files whose metadata are text only: text as it is, everything else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in facts.items()
    }


EXAMPLE = "use.py"
# Of hubel.boxes: what a detector's example takes over.
_GEOMETRY = (boxes._columns, boxes.clip, boxes.decode, boxes._nms)
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def example(format: str, file: str, metadata: ModelMetadata, nms: bool = False) -> str:
    """A short program that answers for pictures with the exported file, NumPy, Pillow and the format's own runtime.

    How it crops and finds objects are this installation's own functions, word for word: a second description would
    drift from them.

    Args:
        format: onnx, openvino or torch.
        file: name of the model's file, in the same folder.
        card: the model's.
        nms: a detector's graph ends in objects.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hubel.exporters", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    return templates.get_template("use.py.jinja").render(
        format=format,
        file=file,
        package=_PACKAGES[format],
        hubel=hubel.__version__,
        crop=metadata.preprocessing.resize == "crop",
        crop_box=inspect.getsource(crop_box).rstrip(),
        detects=metadata.task == "detect",
        decodes=metadata.task == "detect" and not nms,
        geometry="\n\n\n".join(inspect.getsource(function).rstrip() for function in _GEOMETRY),
        found_objects="@dataclass" + inspect.getsource(found_objects).partition("@dataclass")[2].rstrip(),
    )
