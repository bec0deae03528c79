"""Whether an exported file says what the model says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hubel.boxes import SSD_VARIANCES, clip, decode
from hubel.data.image_io import read_image
from hubel.data.preprocessing import Preprocessing
from hubel.data.sample_images import sample_photographs
from hubel.errors import ModelError
from hubel.tasks.classification.decode import probabilities

Answers = dict[str, np.ndarray]

TOLERANCE = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.1, "int8": 0.3}
"""By how much a probability may differ from the model's."""


REMEDY = "Export in another format or precision; if it is in fp32, this is a fault of hubel's: report it."


def sample_inputs(preprocessing: Preprocessing) -> np.ndarray:
    """What files are tried with: scikit-learn's two photographs and noise, uint8 (3, height, width, channels)."""
    photographs = [preprocessing.pixels(read_image(path)) for path in sample_photographs()]
    noise = np.random.default_rng(0).integers(0, 256, photographs[0].shape, dtype=np.uint8)
    return np.stack([*photographs, noise])


def check_parity(
    run: Callable[[np.ndarray], Answers], pixels: np.ndarray, expected: Answers, precision: str, file: str
) -> float:
    """Run a file on one image, then on all of them, and compare with the model.

    In float32 each probability has to be the model's up to 1e-4. In other precisions the limit is wider
    (:data:`TOLERANCE`) and the best class of each image has to be the model's, or one that the model finds as
    probable within that limit.

    Args:
        run: from pixels (N, H, W, C) to outputs by name.
        pixels: uint8 (N, H, W, C).
        expected: what the model says of them.
        precision: the file's.
        file: its name, for the message.

    Returns:
        The greatest difference of a probability.

    Raises:
        ModelError: it says something else.
    """
    worst = 0.0
    for count in (1, len(pixels)):
        got = run(np.ascontiguousarray(pixels[:count]))
        for name, wanted in expected.items():
            answer = _sound(got.get(name), wanted[:count], f"{file} ({precision})")
            worst = max(worst, _difference(answer, wanted[:count], TOLERANCE[precision], f"{file} ({precision})"))
    return worst


def check_objects(
    run: Callable[[np.ndarray], Answers],
    pixels: np.ndarray,
    expected: Answers,
    anchors: np.ndarray,
    precision: str,
    file: str,
) -> float:
    """As :func:`check_parity`, for a detector: its probabilities, and its boxes as shares of the picture's sides.

    Args:
        run: from pixels (N, H, W, C) to outputs by name.
        pixels: uint8 (N, H, W, C).
        expected: what the model says of them: raw ``scores`` (N, A, 1 + classes) and ``offsets`` (N, A, 4).
        anchors: float32 (A, 4), in pixels.
        precision: the file's.
        file: its name, for the message.

    Returns:
        The greatest difference of a probability or a share.

    Raises:
        ModelError: it says something else.
    """
    worst, size = 0.0, (pixels.shape[1], pixels.shape[2])
    for count in (1, len(pixels)):
        got = run(np.ascontiguousarray(pixels[:count]))
        for name, wanted in expected.items():
            _sound(got.get(name), wanted[:count], f"{file} ({precision})")
        for image in range(count):
            meant = [_meaning(answers, image, anchors, size) for answers in (got, expected)]
            differences = [float(np.abs(one - other).max()) for one, other in zip(*meant, strict=True)]
            for what, difference in zip(("probability", "of a box's place"), differences, strict=True):
                if difference > TOLERANCE[precision]:
                    raise ModelError(
                        f"{file} ({precision}) differs from the model by up to {difference:.2g} {what} (allowed: "
                        f"{TOLERANCE[precision]:g}).",
                        REMEDY,
                    )
            worst = max(worst, *differences)
    return worst


def _meaning(answers: Answers, image: int, anchors: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (A, 1 + classes), and boxes (A, 4) as shares of the picture's sides."""
    boxes = clip(decode(answers["offsets"][image], anchors, SSD_VARIANCES), size[1], size[0])
    return probabilities(answers["scores"][image]), boxes / (size[1], size[0], size[1], size[0])


def _sound(got: np.ndarray | None, wanted: np.ndarray, file: str) -> np.ndarray:
    """An output, if it has the shape of the model's and holds numbers."""
    if got is None or got.shape != wanted.shape:
        raise ModelError(
            f"{file} gives an output {getattr(got, 'shape', None)} for the model's {wanted.shape}.", REMEDY
        )
    if not np.isfinite(got).all():
        raise ModelError(f"{file} gives numbers that are infinite or none.", REMEDY)
    return got


def _difference(got: np.ndarray, wanted: np.ndarray, tolerance: float, file: str) -> float:
    difference = float(np.abs(got - wanted).max())
    rows = np.arange(len(wanted))
    # By how much the model prefers its own best class to the file's.
    lead = float((wanted.max(axis=1) - wanted[rows, got.argmax(axis=1)]).max())
    if difference > tolerance or lead > tolerance:
        other = int(np.sum(got.argmax(axis=1) != wanted.argmax(axis=1)))
        raise ModelError(
            f"{file} differs from the model by up to {difference:.2g} in probability (allowed: {tolerance:g}) and "
            f"names another best class for {other} of {len(wanted)} images.",
            REMEDY,
        )
    return difference
