"""Appearance vectors of the objects in an image, by the fast engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hubel.errors import UsageError
from hubel.inference.engines.base import RunOptions
from hubel.inference.engines.convert import Converted, ModelSource, find_converted, store
from hubel.inference.engines.openvino import OpenVinoBackend
from hubel.inference.engines.selection import gpu
from hubel.inference.engines.torch import TorchBackend
from hubel.tracking.appearance import stripe_colours

if TYPE_CHECKING:
    from torch import nn

    from hubel.inference.engines.base import Engine
    from hubel.models.metadata import ModelMetadata

# Raised when vectors change while networks and their weights do not.
_VERSION = "appearance 3"
# Fraction of the colours in a squared vector, and of both together next to the fixed component.
_COLOURS = 0.4
_VARIABLE = 0.7
_CHUNK = 256  # crops in memory at once


class Embedder:
    """Makes the appearance vectors that :class:`~hubel.tracking.deepsort.DeepSort` compares.

    ::

        embed = Embedder("efficientnet_lite0")
        vectors = embed(image, boxes)

    Args:
        model: a registered network with weights, or a run folder. ``deepsort_reid``, trained on folders of identities,
            gives its own vectors; of any other, a middle feature map
            (:class:`~hubel.models.classification.deepsort_reid.StripeEmbedding`) and the colours of four stripes are
            taken.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.

    Raises:
        ModelError: the model cannot be found, is damaged, or has no feature pyramid.
        WeightsError: the weights are not available.
    """

    def __init__(self, model: str | Path, device: str = "auto", threads: int | None = None) -> None:
        self._engine, metadata = _engine(model, device, threads)
        self._size = metadata.preprocessing.width, metadata.preprocessing.height
        self._channels = metadata.preprocessing.channels
        (self._output,) = self._engine.outputs
        self._with_colours = self._output != "vectors"  # else the network was made to embed

    def __call__(self, image: np.ndarray | Image.Image, boxes: np.ndarray) -> np.ndarray:
        """Vectors, float32 (N, D), each of length 1, of the objects in an upright RGB image, uint8 (H, W, 3).

        Boxes (N, 4), x1, y1, x2, y2 in its pixels, are clipped to the image; of one that lies outside altogether, or is
        not finite, the pixels at the nearest border are used.

        Raises:
            UsageError: the image or the boxes have the wrong shape.
        """
        boxes = np.asarray(boxes, np.float64)
        boxes = boxes if boxes.size else boxes.reshape(-1, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise UsageError(f"boxes have the shape {boxes.shape}", "use (N, 4): x1, y1, x2, y2")
        if not isinstance(image, Image.Image):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise UsageError(f"the image is {image.dtype} {image.shape}", "use uint8 (H, W, 3), RGB")
            image = Image.fromarray(image)
        original = image
        inside = _inside(boxes, original.width, original.height)
        colours: list[np.ndarray] = []

        def chunks() -> Iterator[np.ndarray]:
            for start in range(0, max(1, len(boxes)), _CHUNK):
                crops = self._crops(original, inside[start : start + _CHUNK])
                if self._with_colours:
                    colours.append(stripe_colours(crops))
                yield crops

        vectors = np.concatenate([predictions[self._output] for predictions in self._engine.run(chunks())])
        return _with_colours(vectors, np.concatenate(colours)) if self._with_colours else vectors

    def _crops(self, image: Image.Image, boxes: np.ndarray) -> np.ndarray:
        """uint8 (N, height, width, channels)."""
        width, height = self._size
        crops = np.empty((len(boxes), height, width, self._channels), np.uint8)
        if self._channels == 1:
            image = image.convert("L")
        for crop, box in zip(crops, boxes.tolist(), strict=True):
            scaled = image.resize(self._size, Image.Resampling.BILINEAR, box=tuple(box))
            crop[:] = np.asarray(scaled).reshape(crop.shape)
        return crops


def _with_colours(vectors: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Both in one vector, with a fixed component that makes all distances 0.7 times as large.

    They vary more from frame to frame, as people walk, than those of a network trained to recognize people; scaled so,
    DeepSORT's limit of 0.2 is right for them, too.
    """
    variable, fixed = _VARIABLE**0.5, np.full((len(vectors), 1), (1 - _VARIABLE) ** 0.5, np.float32)
    parts = (vectors * variable * (1 - _COLOURS) ** 0.5, colours * variable * _COLOURS**0.5, fixed)
    return np.concatenate(parts, axis=1)


def _inside(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes clipped to the image, at least a pixel wide and high."""
    limits = np.array([width, height, width, height], np.float64)
    clipped: np.ndarray = np.clip(np.nan_to_num(boxes), 0, limits)
    clipped[:, :2] = np.minimum(clipped[:, :2], limits[:2] - 1)
    clipped[:, 2:] = np.maximum(clipped[:, 2:], clipped[:, :2] + 1)
    return clipped


def _engine(model: str | Path, device: str, threads: int | None) -> tuple[Engine, ModelMetadata]:
    """OpenVINO, or torch on a GPU; in float32, so that tracks do not depend on the processor."""
    chosen = gpu(device)
    options = RunOptions("fp32", chosen, threads, batch=None if chosen is None else 32)
    if chosen is not None:
        network, metadata = _load(model)
        return TorchBackend().engine(network, metadata.preprocessing, options), metadata
    source, backend = ModelSource(model), OpenVinoBackend()
    converted = find_converted(source, backend, calibration=_VERSION)
    if converted is None:
        from hubel.inference.engines.normalized_model import NormalizedModel

        network, metadata = _load(model)
        graph = backend.convert(NormalizedModel(network, metadata.preprocessing))
        converted = Converted(graph, metadata, "converted")
        store(source, backend, converted, calibration=_VERSION)  # where it cannot be, it is made anew next time
    metadata = converted.metadata
    return backend.engine(converted.network, metadata.preprocessing, options), metadata


def _load(model: str | Path) -> tuple[nn.Module, ModelMetadata]:
    """The module that makes vectors of crops, and its metadata with their preprocessing."""
    from hubel.models.checkpoint import resolve_model
    from hubel.models.classification.deepsort_reid import CROP_SIZE, Vectors, embedding_of

    network, metadata = resolve_model(model)
    embedding = embedding_of(network).eval()
    size: dict[str, Any] = {} if isinstance(embedding, Vectors) else {"height": CROP_SIZE[0], "width": CROP_SIZE[1]}
    return embedding, replace(metadata, preprocessing=replace(metadata.preprocessing, resize="stretch", **size))
