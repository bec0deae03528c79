"""Which engine runs a model: what was asked for, else what the work that is coming is worth."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubel.config import TOLERANCE
from hubel.errors import UsageError
from hubel.inference.engines.base import NAMES, Engine, NumberFormat, canonical
from hubel.inference.engines.convert import Converted, Format, convert, find_converted
from hubel.inference.engines.lazy_model import ModelSource, require_supported_task
from hubel.models.metadata import ModelMetadata

if TYPE_CHECKING:
    import numpy as np
    import torch

MIN_IMAGES_TO_CONVERT = 16
"""So many pictures are worth the seconds that a conversion takes once; fewer are sooner answered by torch."""

_BATCH = {"cpu": 16, "mps": 32, "cuda": 64}
_ONLY_CONVERTED = ("fp16", "int8")  # formats that torch does not run fast, or not at all, on CPUs


class EngineChoice:
    """Chooses an engine for a model and makes it ready, again when more work comes than it was chosen for.

    Args:
        source: the model.
        engine: ``"auto"`` or one of :data:`hubel.inference.engines.base.NAMES`.
        precision: ``"auto"`` or a number format.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        batch: pictures that go through the network at once; by default what the engine likes best.
        threads: CPU threads; all by default.
        calibrate: for int8, a folder of images or of class folders to quantize with; a run folder knows its own.
        tolerance: for int8, by how much the task's score may fall.

    Attributes:
        card: the model's.
        reason: why this engine, for the log line.

    Raises:
        ModelError: the model cannot be found or is damaged, or this machine has no such device.
        UsageError: an argument is not what it may be.
        WeightsError: the weights could not be had.
    """

    def __init__(
        self,
        source: ModelSource,
        engine: str,
        precision: str,
        device: str,
        batch: int | None,
        threads: int | None,
        calibrate: str | Path | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        if engine not in ("auto", *NAMES):
            raise UsageError(f"unknown engine {engine!r}", f"use auto, {', '.join(NAMES)}")
        self._source = source
        self._precision = canonical(precision)
        self._calibrate, self._tolerance = calibrate, tolerance
        if calibrate is not None and self._precision != "int8":
            raise UsageError(f"{calibrate} is to calibrate int8, but the precision is {precision}", "use int8")
        self._batch, self._threads = batch, threads
        self._device = gpu(device)
        self._ready: tuple[str, bool] | None = None
        self._engine: Engine | None = None
        self._converted: Converted | None = None
        self.reason = ""
        self._asked = self._asked_for(engine)
        self._form: Format = _form(self._asked or "openvino")
        if self._asked in (None, "openvino", "onnx"):
            self._converted = self._find()
        if self._converted is not None:
            self.metadata: ModelMetadata = require_supported_task(self._converted.metadata, source.name)
        else:
            self.metadata = source.load()[1]

    def _asked_for(self, engine: str) -> str | None:
        """The engine that the arguments leave no choice about; None if the work decides."""
        if self._device is not None:
            if engine in ("openvino", "onnx"):
                raise UsageError(f"{engine} does not run on {self._device}", "use --engine torch, or --device cpu")
            self.reason = "as asked" if engine == "torch" else "the engine for GPUs"
            return "torch"
        if engine == "auto":
            if self._precision not in _ONLY_CONVERTED:
                return None
            self.reason = f"the engine for {self._precision}"
            return "openvino"
        self.reason = "as asked"
        return engine

    def _find(self) -> Converted | None:
        if self._precision == "int8":
            return self._quantized()
        if self._asked is not None:
            return convert(self._source, self._form)
        return find_converted(self._source, self._form)

    def _quantized(self) -> Converted:
        from hubel.inference.int8 import find_or_quantize

        if self._asked != "openvino":
            raise UsageError(f"int8 is not available with the engine {self._asked}", "use openvino or auto")
        converted = find_or_quantize(self._source, self._calibrate, self._tolerance)
        return replace(converted, network=converted.network[0])

    def engine_for(self, pictures: int) -> Engine:
        """The engine for so many pictures, ready to run.

        Args:
            pictures: how many are known to come; above :data:`MIN_IMAGES_TO_CONVERT` it does not matter how many.
        """
        many = pictures >= MIN_IMAGES_TO_CONVERT
        if self._asked == "torch":
            wanted = ("torch", True)
        elif self._asked is not None or self._converted is not None or many:
            wanted = ("converted", pictures > 1)
        else:
            wanted = ("torch", False)
            self.reason = f"fewer than {MIN_IMAGES_TO_CONVERT} pictures are not worth a conversion"
        if self._engine is None or self._ready != wanted:
            self._engine = self._torch_engine() if wanted[0] == "torch" else self._converted_engine(wanted[1])
            self._ready = wanted
        return self._engine

    def anchors(self) -> np.ndarray | None:
        """A detector's anchors, without torch where the conversion knows them; None for other tasks."""
        return self._source.anchors() if self._converted is None else self._converted.anchors

    def _torch_engine(self) -> Engine:
        import torch

        from hubel.inference.engines.torch import TorchEngine
        from hubel.inference.precision import choose_precision

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        device = self._device or torch.device("cpu")
        network, metadata = self._source.load()
        batch = self._batch or _BATCH[device.type]
        return TorchEngine(network, metadata.preprocessing, device, choose_precision(device, self._precision), batch)

    def _converted_engine(self, many: bool) -> Engine:
        if self._converted is None:
            self._converted = convert(self._source, self._form)
        note = self._converted.note
        self.reason = f"{self.reason}, {note}" if self._asked else note
        precision = self._precision
        if self._form.engine == "onnx":
            from hubel.inference.engines.onnx import OnnxEngine, choose_onnx_format

            return OnnxEngine(self._converted.network, choose_onnx_format(precision), self._threads, self._batch or 1)
        from hubel.inference.engines.openvino import OpenVinoEngine, choose_format

        chosen: NumberFormat = choose_format(precision)
        return OpenVinoEngine(self._converted.network, chosen, self._threads, self._batch or 1, many)


def _form(engine: str) -> Format:
    if engine == "onnx":
        from hubel.inference.engines.onnx_format import OnnxFormat

        return OnnxFormat()
    from hubel.inference.engines.openvino_format import OpenVinoFormat

    return OpenVinoFormat()


def gpu(device: str) -> torch.device | None:
    """The GPU that a device's name stands for; None for the CPU, which is told without torch where it can be."""
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return None
    from hubel.inference.precision import choose_device

    chosen = choose_device(device)
    return None if chosen.type == "cpu" else chosen


def _may_have_gpu() -> bool:
    """Whether it takes torch to say that there is no GPU: only Linux shows by its files that no driver is there."""
    if not sys.platform.startswith("linux"):
        return True
    # NVIDIA's driver, AMD's, and NVIDIA's within Windows.
    return any(os.access(path, os.F_OK) for path in map(Path, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))
