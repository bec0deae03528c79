"""ONNX: converts networks to ONNX files and runs them with ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.data.preprocessing import Preprocessing
from hubel.errors import MissingExtraError
from hubel.inference.engines.base import Backend, Precision, Run, RunOptions, canonical, metadata_text, quiet
from hubel.inference.pipeline import ordered_parallel_map
from hubel.system import cpu_count

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from hubel.inference.engines.normalized_model import NormalizedModel

OPSET = 18
"""Version of the operators: what torch's exporter writes without converting, known to runtimes since 2023."""

_AHEAD = 2  # batches that wait for the network


def open_file(path: Path, threads: int = 0) -> tuple[list[str], Run]:
    """The names of the classes, and what runs the file: from uint8 pixels (N, H, W, C) to outputs by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0: all cores
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    names = [output.name for output in session.get_outputs()]
    return json.loads(about["classes"]), lambda pixels: dict(
        zip(names, session.run(names, {"pixels": pixels}), strict=True)
    )


class OnnxBackend(Backend):
    """ONNX Runtime on the CPU, and ONNX files."""

    name = "onnx"
    packages = ("onnx", "torch")
    precisions: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32",)}
    export_file = "model.onnx"
    example_package = "onnxruntime"
    weight_precisions = ("fp32", "fp16")
    not_exported: Mapping[str, str] = {
        "bf16": "ONNX Runtime supports few operations in bfloat16 on CPUs",
        "int8": "quantization and its accuracy check require OpenVINO",
    }
    opener = staticmethod(open_file)

    def require(self, feature: str) -> None:
        """Three packages are needed."""
        if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
            raise MissingExtraError(feature, "onnx")

    def convert(self, model: NormalizedModel) -> ModelProto:
        """A model with the input ``pixels``, uint8 (N, H, W, C), and the predictions by name."""
        import torch

        from hubel.inference.engines.normalized_model import INPUT_NAME, capture

        program = capture(model)
        with quiet():  # the exporter reports its progress, and what will change in torch
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=list(model.output_names),
            )
        assert exported is not None  # it is, unless a file is asked for
        proto: ModelProto = exported.model_proto
        _tidy(proto.graph, model.static_batch)
        return proto

    def save(self, converted: Any, folder: Path, facts: Mapping[str, Any] | None = None, half: bool = False) -> None:
        """Write ``model.onnx``, weights included."""
        for key, value in metadata_text(facts or {}).items():
            converted.metadata_props.add(key=key, value=value)
        (folder / self.export_file).write_bytes(converted.SerializeToString())

    def load(self, folder: Path) -> bytes:
        """The bytes of ``model.onnx``."""
        return (folder / self.export_file).read_bytes()

    def engine(self, network: ModelProto | bytes, preprocessing: Preprocessing, options: RunOptions) -> OnnxEngine:
        """Open a session."""
        content = network if isinstance(network, bytes) else network.SerializeToString()
        return OnnxEngine(content, choose_precision(options.precision), options.threads, options.batch or 1)

    def read_facts(self, path: Path) -> Mapping[str, Any]:
        """The file's ``metadata_props``."""
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}

    def file_engine(
        self, path: Path, precision: Precision, outputs: tuple[str, ...], options: RunOptions
    ) -> OnnxEngine:
        """Open a session."""
        return OnnxEngine(path.read_bytes(), precision, options.threads, options.batch or 1)


def _tidy(graph: GraphProto, static_batch: bool) -> None:
    """Remove the file and line that each operator comes from; call the batch dimension by its name."""
    values = [*graph.input, *graph.output, *graph.value_info]
    for part in (*graph.node, *graph.initializer, *values):
        del part.metadata_props[:]
    if static_batch:
        return
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in values:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == batch:
                dimension.dim_param = "batch"


def choose_precision(precision: str = "auto") -> Precision:
    """float32: ONNX Runtime has fast kernels for nothing else on CPUs.

    Raises:
        UsageError: another precision is asked for.
    """
    name = canonical(precision, OnnxBackend.precisions["cpu"])
    return Precision("fp32", "the precision of ONNX Runtime on CPUs") if name == "auto" else Precision(name)


class OnnxEngine:
    """Runs the bytes of an ONNX file with one input, uint8 (N, H, W, C); on all cores by default."""

    name = "onnx"
    device = "cpu"

    def __init__(self, model: bytes, precision: Precision, threads: int | None = None, batch: int = 1) -> None:
        import onnxruntime

        self.precision = precision
        self.threads = threads or cpu_count()
        self.batch = batch
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Threads that spin while they wait would take the cores from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # to the same provider, after lines on stdout about what is wrong with a file
        )
        self._input = self._session.get_inputs()[0].name
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        # One thread: the session spreads over the cores itself.
        return ordered_parallel_map(self._predictions, batches, _AHEAD, workers=1)

    def _predictions(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        starts = range(0, max(1, len(pixels)), self.batch)
        parts = [self._session.run(None, {self._input: pixels[start : start + self.batch]}) for start in starts]
        arrays = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return dict(zip(self.outputs, arrays, strict=True))
