"""Chooses the engine that runs a model: the one that is asked for, else by the work that is coming."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubel.errors import ModelError, UsageError
from hubel.inference.engines.base import Backend, Engine, RunOptions
from hubel.inference.engines.convert import ConversionError, Converted, ModelSource, convert, find_converted, has_kept
from hubel.inference.engines.onnx import OnnxBackend
from hubel.inference.engines.openvino import OpenVinoBackend
from hubel.inference.engines.process import claim_process
from hubel.inference.engines.torch import TorchBackend
from hubel.models.metadata import ModelMetadata

if TYPE_CHECKING:
    import torch

_BACKENDS: tuple[Backend, ...] = (TorchBackend(), OpenVinoBackend(), OnnxBackend())
BACKENDS = {backend.name: backend for backend in _BACKENDS}
"""The engines by name, in the order in which they are preferred; none of their libraries is imported yet."""

MIN_IMAGES_TO_CONVERT = 16
"""Number of images from which a conversion, which takes seconds once, is worth its time."""


class EngineChoice:
    """Chooses an engine for a model and prepares it, again when more work comes than it was chosen for.

    What the arguments mean and raise says :class:`hubel.inference.predictor.Predictor`. ``reason`` says why this
    engine, for the log line.
    """

    def __init__(
        self, source: ModelSource, engine: str, options: RunOptions, calibrate: str | Path | None, tolerance: float
    ) -> None:
        if engine not in ("auto", *BACKENDS):
            raise UsageError(f"unknown engine {engine!r}", f"use auto, {', '.join(BACKENDS)}")
        if calibrate is not None and options.precision != "int8":
            raise UsageError(f"{calibrate} is to calibrate int8, but the precision is {options.precision}", "use int8")
        self._source, self._options = source, options
        self._calibrate, self._tolerance = calibrate, tolerance
        # Those that are ready: with a conversion or without, for one image at a time or for several. A program that
        # predicts now one image and now many has both; an engine without a conversion goes when there is one.
        self._engines: dict[tuple[bool, bool], Engine] = {}
        self._converted: Converted | None = None
        self.reason = self._why = ""
        self._direct, self._converting = self._backends(engine)
        if self._converting is not None:
            self._converted = self._find(self._converting)
        self.metadata: ModelMetadata = source.load()[1] if self._converted is None else self._converted.metadata

    def refine(self, batch: int) -> None:
        """For networks whose output is an image: so many at once, and float32 where nothing else is asked for.

        bfloat16 has eight bits: it would round pixels to one or two of their 255 levels.
        """
        precision = "fp32" if self._options.precision == "auto" else self._options.precision
        self._options = replace(self._options, precision=precision, batch=self._options.batch or batch)

    def _backends(self, engine: str) -> tuple[Backend | None, Backend | None]:
        """The backends without and with conversion to choose from; one of them if the arguments leave no choice."""
        device, precision = self._options.device, self._options.precision
        kind = "cpu" if device is None else device.type
        on_device = [backend for backend in BACKENDS.values() if kind in backend.precisions]
        if engine != "auto":
            fixed = BACKENDS[engine]
            if fixed not in on_device:
                others = " or ".join(backend.name for backend in on_device)
                raise UsageError(f"{engine} does not run on {device}", f"use --engine {others}, or --device cpu")
            fixed.require(f"The engine {engine}")
            self._why = "as requested"
        else:
            usable = [each for each in on_device if precision in ("auto", *each.precisions[kind])]
            direct = next((each for each in usable if not each.converts), None)
            converting = next((each for each in usable if each.converts), None)
            if device is None and direct is not None:
                return direct, converting
            fixed = converting or on_device[0]
            self._why = f"the engine for {precision}" if device is None else "the engine for GPUs"
        return (None, fixed) if fixed.converts else (fixed, None)

    def _find(self, backend: Backend) -> Converted | None:
        """The conversion that the arguments ask for, or else one that is cached."""
        if self._options.precision == "int8":
            from hubel.inference.int8 import find_or_quantize

            if "int8" not in backend.precisions["cpu"]:
                raise UsageError(f"int8 is not available with the engine {backend.name}", "use openvino or auto")
            converted = find_or_quantize(self._source, self._calibrate, self._tolerance)
            return replace(converted, network=converted.network[0])
        if self._options.precision == "auto" and "int8" in backend.precisions["cpu"] and has_kept(self._source, "int8"):
            from hubel.inference.int8 import find_accepted

            if (accepted := find_accepted(self._source, self._tolerance)) is not None:
                self._options = replace(self._options, precision="int8")
                return accepted
        return convert(self._source, backend) if self._direct is None else find_converted(self._source, backend)

    def engine_for(self, images: int, at_once: int | None = None) -> Engine:
        """The engine for so many images, ready to run; above :data:`MIN_IMAGES_TO_CONVERT` the number does not matter.

        ``at_once`` of them come together (all, if not said): where it is one, all threads work on it, however many
        others came before; as one of the streams of an engine for many it would have a single thread.

        Raises:
            ConversionError: the engine that was asked for cannot run the model; ``"auto"`` then takes torch.
        ModelError: this process was forked from one in which networks ran.
        """
        claim_process()
        backend = self._converting
        if self._direct is not None and self._converted is None and images < MIN_IMAGES_TO_CONVERT:
            backend = None
        if backend is not None and self._converted is None:
            try:
                self._converted = convert(self._source, backend)
            except ConversionError:
                if self._direct is None:
                    raise
                self._why = f"{backend.name} cannot convert the model"
                backend = self._converting = None
        several = (images if at_once is None else at_once) > 1
        ready = (backend is not None, several or backend is None or not backend.parallel)
        if backend is not None:
            assert self._converted is not None
            network, metadata, note = self._converted.network, self._converted.metadata, self._converted.note
            self.reason = f"{self._why}, {note}" if self._why else note
        else:
            self.reason = self._why or f"not worth converting for fewer than {MIN_IMAGES_TO_CONVERT} images"
        if ready not in self._engines:
            if backend is None:
                assert self._direct is not None
                backend, (network, metadata) = self._direct, self._source.load()
            self._engines = {key: engine for key, engine in self._engines.items() if key[0] == ready[0]}
            self._engines[ready] = backend.engine(
                network, metadata.preprocessing, replace(self._options, many=ready[1])
            )
        return self._engines[ready]


def gpu(device: str) -> torch.device | None:
    """The GPU of that name, None for the CPU; found out without torch where it can be.

    Raises:
        ModelError: there is no such device.
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device) is None:
        raise ModelError(f"unknown device {device!r}", "use auto, cpu, cuda, cuda:N or mps")
    if device == "auto" and sys.platform.startswith("linux"):  # only there a missing driver shows in its files
        # NVIDIA's driver, AMD's, and NVIDIA's within Windows.
        drivers = map(Path, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
        device = "auto" if any(os.access(path, os.F_OK) for path in drivers) else "cpu"
    if device == "cpu":
        return None
    from hubel.inference.precision import choose_device

    chosen = choose_device(device)
    return None if chosen.type == "cpu" else chosen
