"""From a localizer's raw numbers to classes and boxes, in NumPy: whatever engine has computed them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hubel.tasks.classification.decode import probabilities


class FoundLocation(NamedTuple):
    """What is said of one image.

    Attributes:
        probabilities: float32 (classes,).
        box: (4,), x1, y1, x2, y2 in pixels of the network's input, which it may leave.
    """

    probabilities: np.ndarray
    box: np.ndarray


def uses_sqrt_size(options: Mapping[str, Any]) -> bool:
    """Whether height and width are given as square roots, by the options that a localizer was made with."""
    return bool(options.get("sizes", "root") == "root")


def read_boxes(raw: np.ndarray, roots: bool) -> np.ndarray:
    """The boxes of raw numbers, as :func:`hubel.tasks.localization.decoded` gives them: float64 (N, 4)."""
    raw = raw.astype(np.float64)
    centre, sizes = 1 / (1 + np.exp(-raw[:, :2])), raw[:, :1:-1]
    half = (sizes**2 if roots else sizes.clip(0)) / 2
    return np.concatenate((centre - half, centre + half), 1)


def read_locations(output: np.ndarray, roots: bool, size: tuple[int, int]) -> Iterator[FoundLocation]:
    """What raw outputs say of each image.

    Args:
        output: (N, classes + 4).
        roots: height and width are square roots.
        size: width and height of the network's input in pixels.
    """
    boxes = read_boxes(output[:, -4:], roots) * np.array(size * 2)
    yield from map(FoundLocation, probabilities(output[:, :-4]), boxes)
