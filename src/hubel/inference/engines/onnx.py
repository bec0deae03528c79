"""Runs a network with ONNX Runtime on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from hubel.inference.engines.base import NumberFormat, canonical
from hubel.system import cpu_count

_AHEAD = 2  # batches that wait for the network


def choose_onnx_format(precision: str = "auto") -> NumberFormat:
    """The number format: ONNX Runtime has kernels for float32 alone that are fast on CPUs.

    Raises:
        UsageError: any other is asked for.
    """
    name = canonical(precision, ("fp32",))
    return NumberFormat("fp32", "what ONNX Runtime computes in on CPUs" if name == "auto" else "as asked")


class OnnxEngine:
    """From batches of pixels to raw outputs.

    Args:
        model: the bytes of an ONNX file with one input, uint8 (N, H, W, C).
        precision: from :func:`choose_onnx_format`.
        threads: CPU threads; all cores by default.
        batch: pictures that go through the network at once.
    """

    name = "onnx"
    device = "cpu"

    def __init__(self, model: bytes, precision: NumberFormat, threads: int | None = None, batch: int = 1) -> None:
        import onnxruntime

        self.precision = precision
        self.threads = threads or cpu_count()
        self.batch = batch
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Threads that turn in a loop while they wait would take the cores from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, batches: Iterable[np.ndarray]) -> Generator[tuple[np.ndarray, ...], None, None]:
        """See :meth:`hubel.inference.engines.base.Engine.run`."""
        pending: deque[Future[tuple[np.ndarray, ...]]] = deque()
        # One thread: the session spreads over the cores itself.
        with ThreadPoolExecutor(1, "hubel-onnx") as network:
            try:
                for pixels in batches:
                    pending.append(network.submit(self._outputs, pixels))
                    if len(pending) > _AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _outputs(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        starts = range(0, max(1, len(pixels)), self.batch)
        parts = [self._session.run(None, {self._input: pixels[start : start + self.batch]}) for start in starts]
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
