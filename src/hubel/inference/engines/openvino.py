"""Runs a network with OpenVINO: a picture a request, as many requests at once as the processor has streams."""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.errors import UsageError
from hubel.inference.engines.base import NumberFormat, canonical
from hubel.inference.engines.openvino_runtime import core

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
        model: with the input ``pixels``, uint8 (N, H, W, C), as
            :func:`~hubel.inference.engines.openvino_conversion.to_openvino` gives it, or the path of its XML
            file; it is left as it is.
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
            # Where many pictures come, the threads that decode them need the cores too.
            "ENABLE_CPU_PINNING": not many,
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._compiled = core().compile_model(network, "CPU", options)
        self.threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        # One more than there are streams waits its turn: none is idle while this thread takes an answer away. Where
        # there is only one, for pictures that come one at a time, handing it over to another thread would cost time.
        streams = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._most = streams + 1 if many else 1
        shapes = [tuple(output.get_partial_shape())[1:] for output in self._compiled.outputs]
        self._shapes = [tuple(side.get_length() for side in shape) for shape in shapes]
        self._free: list[_Request] = []

    def run(self, batches: Iterable[np.ndarray]) -> Generator[tuple[np.ndarray, ...], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        running: deque[_Request] = deque()
        answers: deque[_Answer] = deque()
        try:
            for pixels in batches:
                answers.append(_Answer(len(pixels), self._shapes))
                for start in range(0, len(pixels), self.batch):
                    if len(running) == self._most:
                        self._collect(running)
                    running.append(self._free.pop() if self._free else _Request(self._compiled, self._most > 1))
                    running[-1].start(pixels[start : start + self.batch], answers[-1], start)
                # While the caller has an answer, all requests have work.
                while answers[0].missing == 0 and len(answers) > 1:
                    yield answers.popleft().arrays
            while answers:
                while answers[0].missing:
                    self._collect(running)
                yield answers.popleft().arrays
        finally:
            while running:
                self._collect(running)

    def _collect(self, running: deque[_Request]) -> None:
        """Wait for the oldest request; it is then free for other pictures."""
        request = running.popleft()
        request.finish()
        self._free.append(request)


class _Answer:
    """The outputs of a batch: ``missing`` counts the pictures that have none yet."""

    def __init__(self, images: int, shapes: Iterable[tuple[int, ...]]) -> None:
        self.arrays = tuple(np.empty((images, *shape), np.float32) for shape in shapes)
        self.missing = images


class _Request:
    """One of the requests that go side by side, with its own memory for pixels and outputs.

    It is waited for by the thread that started it. A callback, which OpenVINO calls in a thread of its own, would cost
    more, and where the interpreter ends before that thread has left it, the process aborts.

    Args:
        compiled: the network.
        beside: whether to let the caller go on meanwhile.
    """

    def __init__(self, compiled: Any, beside: bool) -> None:
        self._request = compiled.create_infer_request()
        self._beside = beside
        self._pixels = self._request.get_input_tensor().data
        self._outputs = [tensor.data for tensor in self._request.output_tensors]

    def start(self, pixels: np.ndarray, answer: _Answer, start: int) -> None:
        """Compute the outputs of some pictures, which belong into ``answer`` from row ``start`` on."""
        self._pixels[: len(pixels)] = pixels
        self._answer, self._rows = answer, slice(start, start + len(pixels))
        if self._beside:
            self._request.start_async()
        else:
            self._request.infer(share_outputs=True)

    def finish(self) -> None:
        """Wait, and put the outputs into the answer."""
        if self._beside:
            self._request.wait()
        rows = self._rows.stop - self._rows.start
        for array, output in zip(self._answer.arrays, self._outputs, strict=True):
            array[self._rows] = output[:rows]
        self._answer.missing -= rows
