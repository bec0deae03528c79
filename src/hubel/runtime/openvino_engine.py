"""Runs a network with OpenVINO: a picture a request, as many requests at once as the processor has streams."""

from __future__ import annotations

import platform
import threading
from collections import deque
from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.errors import UsageError
from hubel.runtime.number_formats import NumberFormat, canonical
from hubel.runtime.openvino_library import core, openvino

if TYPE_CHECKING:
    from openvino import Model

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}


def choose_format(precision: str = "auto") -> NumberFormat:
    """The number format in which OpenVINO is to run a network on this processor.

    Args:
        precision: ``"auto"`` takes bfloat16 where the processor has instructions for it.

    Raises:
        UsageError: no such format, or this processor cannot compute in it.
    """
    name = canonical(precision)
    has = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if name == "auto":
        if _CAPABILITIES["bf16"] in has:
            return NumberFormat("bf16", "this processor has instructions for it")
        return NumberFormat("fp32", "this processor has no bfloat16 instructions")
    if _CAPABILITIES[name] not in has:
        ours = ", ".join(format for format, capability in _CAPABILITIES.items() if capability in has)
        raise UsageError(
            f"this processor ({platform.machine()}) has no instructions for {name}", f"use auto, or one of {ours}"
        )
    return NumberFormat(name, "as asked")


class OpenVinoEngine:
    """From batches of pixels to raw outputs.

    Each picture is a request of its own: its feature maps then stay in the processor's cache, which made
    EfficientNet-Lite0 three times as fast here as 16 pictures at once.

    Args:
        model: with the input ``pixels``, uint8 (N, H, W, C), as :func:`~hubel.runtime.openvino_conversion.to_openvino`
            gives it, or the path of its XML file; it is left as it is.
        precision: the number format, from :func:`choose_format`.
        threads: CPU threads; all cores by default.
        batch: pictures that go through the network at once.
        many: whether pictures come in numbers, so that several go side by side; otherwise all threads work on one.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        model: Model | Path,
        precision: NumberFormat,
        threads: int | None = None,
        batch: int = 1,
        many: bool = True,
    ) -> None:
        network = core().read_model(model) if isinstance(model, Path) else model.clone()
        _, *size = network.inputs[0].partial_shape
        network.reshape([batch, *size])
        self.precision = precision
        self.batch = batch
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT" if many else "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision.name],
            # Decoding threads need the cores too.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._compiled = core().compile_model(network, "CPU", options)
        self.threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        self._requests = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._queue: Any = None

    def run(self, batches: Iterable[np.ndarray]) -> Generator[tuple[np.ndarray, ...], None, None]:
        """See :meth:`hubel.runtime.engine.Engine.run`."""
        if self._queue is None:
            self._queue = openvino().AsyncInferQueue(self._compiled, self._requests)
            self._queue.set_callback(_store)
        pending: deque[_Answer] = deque()
        try:
            for pixels in batches:
                pending.append(self._start(pixels))
                # While the caller has the first, there is work for all requests.
                while len(pending) > 1 and sum(answer.parts for answer in islice(pending, 1, None)) >= self._requests:
                    yield pending.popleft().outputs()
            while pending:
                yield pending.popleft().outputs()
        finally:
            self._queue.wait_all()

    def _start(self, pixels: np.ndarray) -> _Answer:
        """Hand a batch to the requests, in parts; waits until the last part has found a free one."""
        starts = range(0, len(pixels), self.batch)
        answer = _Answer(self._compiled, len(pixels), len(starts))
        for start in starts:
            part = pixels[start : start + self.batch]
            if missing := self.batch - len(part):
                part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
            self._queue.start_async({0: part}, (answer, start))
        return answer


class _Answer:
    """The outputs of a batch, filled in by the requests that work on its ``parts``."""

    def __init__(self, compiled: Any, images: int, parts: int) -> None:
        shapes = [tuple(output.get_partial_shape())[1:] for output in compiled.outputs]
        self._arrays = tuple(np.empty((images, *(side.get_length() for side in shape)), np.float32) for shape in shapes)
        self.parts = self._missing = parts
        self._lock = threading.Lock()
        self._complete = threading.Event()
        if not parts:
            self._complete.set()

    def put(self, start: int, outputs: Iterable[np.ndarray]) -> None:
        """Take the outputs of the part that begins at picture ``start``; any thread may call it."""
        for array, part in zip(self._arrays, outputs, strict=True):
            kept = min(len(part), len(array) - start)
            array[start : start + kept] = part[:kept]
        with self._lock:
            self._missing -= 1
            if self._missing == 0:
                self._complete.set()

    def outputs(self) -> tuple[np.ndarray, ...]:
        """All arrays, once they are complete."""
        self._complete.wait()
        return self._arrays


def _store(request: Any, place: tuple[_Answer, int]) -> None:
    answer, start = place
    answer.put(start, (tensor.data for tensor in request.output_tensors))
