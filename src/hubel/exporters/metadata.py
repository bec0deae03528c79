"""What an exported folder contains besides the network: metadata of the file, and an example program."""

from __future__ import annotations

import inspect
from typing import Any

import jinja2

import hubel
from hubel.data.preprocessing import crop_box
from hubel.inference.engines.base import Backend
from hubel.inference.engines.normalized_model import INPUT_NAME
from hubel.models.metadata import ModelMetadata
from hubel.tasks.decoding import decoder_of

# Precision that a file is meant to compute in, in the words of OpenVINO's hint. Half floats only store weights: asked
# to compute with them, OpenVINO takes bfloat16 on processors that have it, with its larger errors.
_ARITHMETIC = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}


def metadata_of(metadata: ModelMetadata, name: str, precision: str, outputs: tuple[str, ...]) -> dict[str, Any]:
    """Facts that a program without hubel needs, or a person who finds the file.

    Args:
        metadata: of the model.
        name: of the model, as it was given to ``hubel.export``.
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


EXAMPLE = "use.py"


def example(backend: Backend, metadata: ModelMetadata, outputs: tuple[str, ...]) -> str:
    """A short program that predicts images with the exported file, NumPy, Pillow and the format's own runtime.

    How it crops and how it opens the file are this installation's own functions, word for word: a second description
    would drift from them.

    Args:
        backend: of the format.
        metadata: of the model.
        outputs: names of the file's outputs.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("hubel.exporters", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    return templates.get_template("use.py.jinja").render(
        file=backend.export_file,
        package=backend.example_package,
        open_file=backend.example(),
        hubel=hubel.__version__,
        crop=metadata.preprocessing.resize == "crop",
        crop_box=inspect.getsource(crop_box).rstrip(),
        outputs=outputs,
        selects=decoder_of(metadata.task, metadata.architecture).NMS and "labels" not in outputs,
    )
