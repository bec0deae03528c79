"""Runs a network with torch, prepared once: folded, fused, channels-last, in the precision the machine is good at.

Also ``torch.export`` programs as exported files. torch is imported when it is used.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.base import Backend, FileEngine, Precision, Run, RunOptions
from hubel.inference.engines.torch_program import check_program

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hubel.inference.engines.normalized_model import NormalizedModel

_BATCH = {"cpu": 16, "mps": 32, "cuda": 64}


def open_file(path: Path, threads: int = 0) -> tuple[list[str], Run]:
    """The names of the classes, and what runs the file: from uint8 pixels (N, H, W, C) to outputs by name."""
    import torch

    if threads:  # else all cores
        torch.set_num_threads(threads)
    extra = {"metadata.json": ""}
    network = torch.export.load(path, extra_files=extra).module()
    about = json.loads(extra["metadata.json"])

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(pixels))
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return {name: output.numpy() for name, output in zip(about["outputs"], outputs, strict=True)}

    return about["classes"], run


class TorchBackend(Backend):
    """Runs modules as they are; writes ``torch.export`` programs."""

    name = "torch"
    converts = False
    packages = ("torch",)
    # float16 on CPUs is emulated or slow.
    precisions: Mapping[str, tuple[str, ...]] = {
        "cpu": ("fp32", "bf16"),
        **dict.fromkeys(("cuda", "mps"), ("fp32", "bf16", "fp16")),
    }
    export_file = "model.pt2"
    example_package = "torch"
    weight_precisions = ("fp32", "fp16", "bf16")
    not_exported: Mapping[str, str] = {"int8": "quantization and its accuracy check require OpenVINO"}
    opener = staticmethod(open_file)

    def convert(self, model: NormalizedModel) -> torch.export.ExportedProgram:
        """Export the graph, without the names of this machine's files."""
        from hubel.inference.engines.normalized_model import capture

        program = capture(model)
        program.example_inputs = None
        for module in program.graph_module.modules():
            for node in getattr(getattr(module, "graph", None), "nodes", ()):
                node.meta.pop("stack_trace", None)
        return program

    def save(self, converted: Any, folder: Path, facts: Mapping[str, Any] | None = None, half: bool = False) -> None:
        """Write ``model.pt2``."""
        import torch

        written = io.BytesIO()
        # By way of memory: given a file, torch aborts the whole process when the disk is full.
        torch.export.save(
            converted, written, extra_files={"metadata.json": json.dumps(facts or {}, ensure_ascii=False)}
        )
        (folder / self.export_file).write_bytes(written.getbuffer())

    def engine(self, network: Any, preprocessing: Preprocessing, options: RunOptions) -> TorchEngine:
        """Prepare the module ``network``."""
        import torch

        from hubel.inference.precision import choose_precision

        if options.threads is not None:
            torch.set_num_threads(options.threads)
        device = options.device or torch.device("cpu")
        precision = choose_precision(device, options.precision)
        return TorchEngine(network, preprocessing, device, precision, options.batch or _BATCH[device.type])

    def read_facts(self, path: Path) -> Mapping[str, Any]:
        """The archive's ``metadata.json``.

        Raises:
            ModelError: the archive could run code of its own when it is loaded.
        """
        facts: Mapping[str, Any] = json.loads(check_program(path))
        return facts

    def file_engine(
        self, path: Path, precision: Precision, outputs: tuple[str, ...], options: RunOptions
    ) -> FileEngine:
        """Load the program."""
        _, run = open_file(path, options.threads or 0)
        return FileEngine(self.name, run, precision, outputs, options.threads, options.batch)


def dtype_of(precision: str) -> torch.dtype:
    """torch's type of a precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


class TorchEngine:
    """Runs a copy of a module, with ``precision`` for weights and feature maps; decoding is computed in float32."""

    name = "torch"

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: Precision, batch: int
    ) -> None:
        import torch

        from hubel.inference.engines.normalized_model import decoding_of
        from hubel.inference.fusion import fuse

        self.device = str(device)
        self.precision = precision
        self.threads = torch.get_num_threads()
        self.batch = batch
        self._preprocessing = preprocessing
        self._size = (preprocessing.height, preprocessing.width)
        self._dtype = dtype_of(precision.name)
        self.outputs, self._decode = decoding_of(model)
        network = fuse(model, device, self._dtype)
        self._network: Callable[[torch.Tensor], Any] = Compiled(network, batch) if device.type == "cuda" else network

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        return (self._predictions(pixels) for pixels in batches)

    def _predictions(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            # (N, H, W, C) in memory, seen as (N, C, H, W), is torch's channels-last: nothing is copied.
            images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
            outputs = self._network(self._preprocessing.normalize(images).to(self._dtype))
            predictions = self._decode(outputs, self._size)
            return {name: predictions[name].float().cpu().numpy() for name in self.outputs}


class Compiled:
    """A network that ``torch.compile`` has made faster for batches of one size; any number of images is taken.

    Fewer images than the ``batch`` are filled up, as each further size would be compiled anew. Where it cannot compile
    (no Triton, no C++ compiler, an operation it does not know), the network runs as it is.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        import torch

        self._plain = network
        self._batch = batch
        self._compiled: Callable[[torch.Tensor], Any] | None = torch.compile(network, dynamic=False)

    def __call__(self, images: torch.Tensor) -> Any:
        """The network's output (N, …), or a tuple or dict of such, of images (N, C, H, W)."""
        import torch

        if self._compiled is None or not 0 < len(images) <= self._batch:
            return self._plain(images)
        filled = images.new_zeros((self._batch, *images.shape[1:])).contiguous(memory_format=torch.channels_last)
        filled[: len(images)] = images
        try:
            outputs = self._compiled(filled)
            return torch.utils._pytree.tree_map(lambda output: output[: len(images)], outputs)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the compiler may raise anything: what it cannot do must not cost the predictions
            self._compiled = None
            return self(images)
