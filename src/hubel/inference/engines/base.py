"""What every engine does, whoever's kernels it uses."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hubel.errors import UsageError

FORMATS = ("fp32", "bf16", "fp16", "int8")
_LONG_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class NumberFormat:
    """A number format and why it was taken.

    Attributes:
        name: one of :data:`FORMATS`.
        reason: for the log line, with the measured figure where there is one.
    """

    name: str
    reason: str


def canonical(precision: str, allowed: Sequence[str] = FORMATS) -> str:
    """The short name of a number format; ``"auto"`` stays.

    Args:
        precision: ``"auto"``, one of ``allowed``, or its long name (``"float32"``, ``"bfloat16"``, ``"float16"``).
        allowed: short names.

    Raises:
        UsageError: it is none of these.
    """
    name = _LONG_NAMES.get(precision, precision)
    if name != "auto" and name not in allowed:
        message = "is not available with this engine and device" if name in FORMATS else "is not known"
        raise UsageError(f"precision {precision!r} {message}", f"use auto, {', '.join(allowed)}")
    return name


NAMES = ("torch", "openvino", "onnx")


class Engine(Protocol):
    """A network made ready to run, from uint8 pixels to its raw outputs.

    What the outputs mean (probabilities, boxes) is for the task to say, in NumPy: engines know neither the task nor
    torch's types.

    Attributes:
        name: one of :data:`NAMES`.
        device: ``"cpu"``, ``"cuda:0"``, ….
        precision: the number format that it runs in, and why.
        threads: CPU threads that it uses.
        batch: pictures that go through the network at once. Batches of any other size are taken too.
    """

    name: str
    device: str
    precision: NumberFormat
    threads: int
    batch: int

    def run(self, batches: Iterable[np.ndarray]) -> Generator[tuple[np.ndarray, ...], None, None]:
        """The outputs of each batch, in order.

        Batches are taken one by one, in the caller's thread, and only a few more than were answered: so they may be
        endless.

        Args:
            batches: uint8 (N, height, width, channels) each, of any N from 0, as
                :meth:`~hubel.data.preprocessing.Preprocessing.pixels` gives them, stacked.

        Yields:
            float32 arrays (N, …), one for each output of the network.
        """
        ...
