"""Exported folders as models: their file runs on its own engine, with the classes and preprocessing that it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hubel.bounded import load_json
from hubel.console import log
from hubel.errors import HubelError, ModelError, UsageError
from hubel.inference.engines.base import Backend, Engine, FileEngine, Run, RunOptions, quiet
from hubel.inference.engines.exported_checks import CheckedEngine, damaged
from hubel.inference.engines.processor import EXACT_ON, exact_weight_bits
from hubel.inference.engines.selection import BACKENDS
from hubel.models.metadata import METADATA_FILE, ModelMetadata
from hubel.tasks.decoding import decoder_of, require_outputs
from hubel.weights.catalog import default_entry

_BY_FILE = {backend.export_file: backend for backend in BACKENDS.values()}
_UNTOLD_BITS = 8  # of weights in int8, as earlier versions quantized


@dataclass(frozen=True)
class ExportedModel:
    """The file of an exported model, and what it says of itself.

    Attributes:
        file: ``model.onnx``, ``model.xml`` or ``model.pt2``.
        precision: in which it was exported.
        outputs: names of its predictions.
        weight_bits: in int8, the bits of its weights; 0 in floats.
    """

    file: Path
    backend: Backend
    metadata: ModelMetadata
    precision: str
    outputs: tuple[str, ...]
    weight_bits: int

    @property
    def ends_in_objects(self) -> bool:
        """The file selects the objects of one image itself (``--nms``)."""
        return "labels" in self.outputs

    def engine(self, options: RunOptions) -> Engine:
        """The file, ready to run.

        Raises:
            ModelError: its library cannot run it.
        """
        precision, classes = self.backend.file_precision(self.precision), len(self.metadata.classes)
        try:
            with quiet():  # torch logs whole tracebacks of damaged files
                if self.ends_in_objects:
                    _, run = self.backend.open_file(self.file, options.threads or 0)
                    names, run = decoder_of("detect", "").OUTPUTS, _dense(run, classes)
                    engine: Engine = FileEngine(self.backend.name, run, precision, names, options.threads)
                else:
                    engine = self.backend.file_engine(self.file, precision, self.outputs, options)
        except (HubelError, MemoryError):
            raise
        except Exception as error:  # the libraries raise whatever they like
            raise damaged(self.file, error) from error
        require_outputs(self.metadata.task, str(self.file), engine.outputs)
        return CheckedEngine(engine, self.file, self.metadata.task, classes)


def find_exported(reference: Any) -> ExportedModel | None:
    """The exported model in a folder, or in one of its files; None if the reference is something else.

    Raises:
        MissingExtraError: its library is not installed.
        ModelError: the file is damaged, or not one of ``hubel export``.
    """
    if not isinstance(reference, str | Path) or (isinstance(reference, str) and default_entry(reference) is not None):
        return None
    path = Path(reference)
    if path.is_dir():
        if (path / METADATA_FILE).exists() or (path / "best").is_dir():
            return None
        found = [path / name for name in _BY_FILE if (path / name).is_file()]
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            raise ModelError(f"{path} holds {names}", f"name the one to use: {found[0]}")
        path = found[0] if found else path
    backend = _BY_FILE.get(path.name)
    if backend is None or not path.is_file():
        return None
    backend.require(f"Running {path.name}")
    try:
        facts = {name: _value(name, value) for name, value in backend.read_facts(path).items()}
    except (HubelError, MemoryError):
        raise
    except Exception as error:  # the libraries raise whatever they like
        raise damaged(path, error) from error
    return _described(path, backend, facts)


_LISTS = ("classes", "preprocessing", "outputs", "quantization")


def _value(name: str, value: Any) -> Any:
    """Files that hold text alone have lists and dictionaries as JSON."""
    return load_json(value) if name in _LISTS and isinstance(value, str) else value


def _described(path: Path, backend: Backend, facts: dict[str, Any]) -> ExportedModel:
    classes, pixels, outputs, task = (facts.get(name) for name in ("classes", "preprocessing", "outputs", "task"))
    if not (isinstance(classes, list) and isinstance(pixels, dict) and isinstance(outputs, list) and task):
        raise ModelError(
            f"{path} does not name its task, classes, preprocessing and outputs: it is not from hubel export",
            "pass a model that hubel export wrote, or load weights with hubel.create_model(NAME, weights=FILE)",
        )
    record = {
        "task": task,
        "architecture": facts.get("architecture"),
        "num_classes": len(classes),
        "in_channels": pixels.get("channels"),
        "image_size": pixels.get("height"),
        "classes": classes,
        "preprocessing": pixels,
        "options": {},
        "hubel": facts.get("hubel"),
        "weights": facts.get("weights"),
    }
    metadata = ModelMetadata.from_json(record, str(path))
    precision = str(facts.get("precision"))
    if precision not in ("fp32", "fp16", "bf16", "int8"):
        raise ModelError(f"{path}: precision cannot be {precision!r:.60}", "export the model again")
    if not all(isinstance(name, str) and name.isprintable() for name in outputs):
        raise ModelError(f"{path}: outputs are not names", "export the model again")
    quantization = facts.get("quantization")
    bits = quantization.get("weight_bits", _UNTOLD_BITS) if isinstance(quantization, dict) else 0
    if bits not in (0, *EXACT_ON) or isinstance(bits, bool):
        raise ModelError(f"{path}: weight_bits cannot be {bits!r:.60}", "export the model again")
    return ExportedModel(path, backend, metadata, precision, tuple(outputs), bits)


class ExportedChoice:
    """The engine of an exported model, as :class:`~hubel.inference.engines.selection.EngineChoice` for others.

    Raises:
        UsageError: another engine, device or precision is asked for than the file has.
    """

    def __init__(self, model: ExportedModel, reference: str, engine: str, options: RunOptions) -> None:
        name, given = model.backend.name, options.precision
        if engine not in ("auto", name):
            if engine not in BACKENDS:
                raise UsageError(f"unknown engine {engine!r}", f"use auto, {', '.join(BACKENDS)}")
            raise UsageError(f"{reference} runs on the engine {name}, not on {engine}", "omit --engine")
        if given not in ("auto", model.precision):
            message = f"{reference} was exported in {model.precision}, which {given} cannot replace"
            raise UsageError(message, f"omit --precision, or export the model in {given}")
        self._model, self._options = model, replace(options, device=None)
        self._engines: dict[bool, Engine] = {}  # for one image at a time, for several
        self.metadata = model.metadata
        self.reason = "an exported file"
        if model.weight_bits > min(EXACT_ON) and model.weight_bits > exact_weight_bits():
            log(
                f"note: {reference} is exact on {EXACT_ON[model.weight_bits]}; on this processor its sums overflow, "
                "and its predictions are worse: export it with --portable"
            )

    def refine(self, batch: int) -> None:
        """As of :class:`~hubel.inference.engines.selection.EngineChoice`; a file has its precision."""
        self._options = replace(self._options, batch=self._options.batch or batch)

    def engine_for(self, images: int, at_once: int | None = None) -> Engine:
        """The engine for so many images, of which ``at_once`` come together (all, if not said), ready to run."""
        many = (images if at_once is None else at_once) > 1
        if many not in self._engines:
            self._engines[many] = self._model.engine(replace(self._options, many=many))
        return self._engines[many]


def _dense(run: Run, classes: int, limit: int = 300) -> Run:
    """From the objects of one image to boxes (N, 300, 4) and scores (N, 300, classes), as detectors predict them."""

    def dense(pixels: np.ndarray) -> dict[str, np.ndarray]:
        boxes = np.zeros((len(pixels), limit, 4), np.float32)
        scores = np.zeros((len(pixels), limit, classes), np.float32)
        for index in range(len(pixels)):
            found = run(pixels[index : index + 1])
            count = min(limit, len(found["scores"]))
            boxes[index, :count] = found["boxes"][:count]
            scores[index, np.arange(count), found["labels"][:count]] = found["scores"][:count]
        return {"boxes": boxes, "scores": scores}

    return dense
