"""Appearance vectors of the objects in a picture, by the fast engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hubel.errors import UsageError
from hubel.inference.engines.convert import Converted, conversion_key, read_converted, store_converted
from hubel.inference.engines.openvino_format import OpenVinoFormat
from hubel.models.metadata import find_model
from hubel.tracking.appearance import stripe_colours

if TYPE_CHECKING:
    from torch import nn

    from hubel.inference.engines.base import Engine
    from hubel.models.metadata import ModelMetadata

# To be counted up when vectors change while networks and their weights do not.
_EDITION = "appearance 2"
_EMBEDDING = ("deepsort_reid",)
# Share of the colours in a squared vector, and of both beside the fixed component.
_COLOURS = 0.4
_VARIABLE = 0.7
# Crops at once that are kept in memory.
_MOST = 256


class Embedder:
    """Makes appearance vectors: what :class:`~hubel.tracking.deepsort.DeepSort` compares.

    ::

        embed = Embedder("efficientnet_lite0")
        vectors = embed(picture, boxes)

    Args:
        model: a registered network with weights, or a run folder. ``deepsort_reid``, trained on folders of identities,
            gives its own vectors; of any other, a middle feature map and the colours of four stripes are taken
            (:mod:`hubel.models.classification.deepsort_reid`).
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        threads: CPU threads; all by default.

    Attributes:
        name: the model's.

    Raises:
        ModelError: the model cannot be found, is damaged, or has no feature pyramid.
        WeightsError: the weights could not be had.
    """

    def __init__(self, model: str | Path, device: str = "auto", threads: int | None = None) -> None:
        self.name = str(model)
        self._engine, metadata = _engine(model, device, threads)
        self._size = metadata.preprocessing.width, metadata.preprocessing.height
        self._channels = metadata.preprocessing.channels
        self._with_colours = not gives_vectors(metadata.architecture)

    def __call__(self, picture: np.ndarray | Image.Image, boxes: np.ndarray) -> np.ndarray:
        """The vectors of objects.

        Args:
            picture: upright, RGB; uint8 (H, W, 3) or a ``PIL`` image.
            boxes: (N, 4), x1, y1, x2, y2 in its pixels. What lies outside is left out; of a box that lies outside
                altogether, or is not finite, the pixels at the nearest border count.

        Returns:
            float32 (N, D), each of length 1.

        Raises:
            UsageError: the picture or the boxes have the wrong shape.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4) if np.size(boxes) == 0 else np.asarray(boxes, np.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise UsageError(f"boxes have the shape {boxes.shape}", "use (N, 4): x1, y1, x2, y2")
        image = picture if isinstance(picture, Image.Image) else _image(picture)
        inside = _inside(boxes, image.width, image.height)
        colours: list[np.ndarray] = []

        def chunks() -> Iterator[np.ndarray]:
            for start in range(0, max(1, len(boxes)), _MOST):
                crops = self._crops(image, inside[start : start + _MOST])
                if self._with_colours:
                    colours.append(stripe_colours(crops))
                yield crops

        vectors = np.concatenate([output for (output,) in self._engine.run(chunks())])
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


def gives_vectors(architecture: str) -> bool:
    """Whether a network was made to give appearance vectors itself; told without torch."""
    return architecture in _EMBEDDING


def _with_colours(vectors: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Both in one vector, with a fixed component that makes all distances 0.7 times as large.

    They vary from frame to frame as people walk, more than those of a network trained to recognize people. So
    DeepSORT's limit of 0.2 is right for them, too.
    """
    variable, fixed = _VARIABLE**0.5, np.full((len(vectors), 1), (1 - _VARIABLE) ** 0.5, np.float32)
    parts = (vectors * variable * (1 - _COLOURS) ** 0.5, colours * variable * _COLOURS**0.5, fixed)
    return np.concatenate(parts, axis=1)


def _image(picture: np.ndarray) -> Image.Image:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise UsageError(f"the picture is {picture.dtype} {picture.shape}", "use uint8 (H, W, 3), RGB")
    return Image.fromarray(picture)


def _inside(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes clipped to the picture, at least a pixel wide and high."""
    limits = np.array([width, height, width, height], np.float64)
    clipped = np.clip(np.nan_to_num(boxes), 0, limits)
    clipped[:, :2] = np.minimum(clipped[:, :2], limits[:2] - 1)
    clipped[:, 2:] = np.maximum(clipped[:, 2:], clipped[:, :2] + 1)
    return clipped


def _engine(model: str | Path, device: str, threads: int | None) -> tuple[Engine, ModelMetadata]:
    """OpenVINO, or torch where there is a GPU; in float32, so that who is who does not depend on the processor."""
    from hubel.inference.engines.openvino import OpenVinoEngine, choose_format
    from hubel.inference.engines.selection import gpu

    chosen = gpu(device)
    if chosen is not None:
        from hubel.inference.engines.torch import TorchEngine
        from hubel.inference.precision import choose_precision

        network, metadata = _load(model)
        return TorchEngine(network, metadata.preprocessing, chosen, choose_precision(chosen, "fp32"), 32), metadata
    converted = _converted(model)
    return OpenVinoEngine(converted.network, choose_format("fp32"), threads), converted.metadata


def _converted(model: str | Path) -> Converted:
    """The network in OpenVINO's form, from the cache of conversions if it is there."""
    found, form = find_model(model), OpenVinoFormat()
    key = conversion_key(found, form, calibration=_EDITION) if found is not None else ""
    kept = read_converted(key, form) if key else None
    if kept is not None:
        return kept
    from hubel.inference.engines.openvino_conversion import to_openvino

    network, metadata = _load(model)
    made = Converted(to_openvino(network, metadata.preprocessing, ("vectors",)), metadata, "converted")
    if found is not None:
        store_converted(found, form, made, key)  # where it cannot be kept, it is made anew next time
    return made


def _load(model: str | Path) -> tuple[nn.Module, ModelMetadata]:
    """What makes vectors of crops, and the card with how it wants them."""
    from hubel.models.checkpoint import resolve_model
    from hubel.models.classification.deepsort_reid import CROP_SIZE, embedding_of

    network, metadata = resolve_model(model)
    embedding = embedding_of(network).eval()
    size: dict[str, Any] = (
        {} if gives_vectors(metadata.architecture) else {"height": CROP_SIZE[0], "width": CROP_SIZE[1]}
    )
    return embedding, replace(metadata, preprocessing=replace(metadata.preprocessing, resize="stretch", **size))
