"""From an engine's raw outputs to results: what each task makes of them, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from hubel.inference.pipeline import PreparedImage
from hubel.models.metadata import ModelMetadata
from hubel.results import Classification, Detections, Localization, Prediction
from hubel.tasks.classification.decode import probabilities, top_k
from hubel.tasks.decoding import scale_to_original
from hubel.tasks.detection.decode import NMSConfig, decode_detections
from hubel.tasks.localization.decode import read_locations, uses_sqrt_size


class Answers(Protocol):
    """Makes results of pictures (N) from the raw outputs (N, …) of a network."""

    def __call__(self, images: Sequence[PreparedImage], outputs: tuple[np.ndarray, ...]) -> Iterator[Prediction]:
        """One result a picture, in order."""
        ...


class ClassAnswers:
    """The most probable classes.

    Args:
        card: the model's.
        top: how many classes a result names.
    """

    def __init__(self, metadata: ModelMetadata, top: int) -> None:
        self._classes, self._top = metadata.classes, top

    def __call__(self, images: Sequence[PreparedImage], outputs: tuple[np.ndarray, ...]) -> Iterator[Classification]:
        """See :class:`Answers`."""
        for image, row in zip(images, probabilities(outputs[0]), strict=True):
            classes = top_k(row, self._classes, self._top)
            yield Classification(image.source, image.width, image.height, classes, image.frame, image.time)


class LocationAnswers:
    """The most probable class and its box, in pixels of the upright original.

    Args:
        card: the model's.
    """

    def __init__(self, metadata: ModelMetadata) -> None:
        self._classes, self._preprocessing, self._roots = (
            metadata.classes,
            metadata.preprocessing,
            uses_sqrt_size(metadata.options),
        )

    def __call__(self, images: Sequence[PreparedImage], outputs: tuple[np.ndarray, ...]) -> Iterator[Localization]:
        """See :class:`Answers`."""
        size = (self._preprocessing.width, self._preprocessing.height)
        for image, found in zip(images, read_locations(np.concatenate(outputs, 1), self._roots, size), strict=True):
            (best,) = top_k(found.probabilities, self._classes, 1)
            yield Localization(
                image.source,
                image.width,
                image.height,
                scale_to_original(found.box[None], self._preprocessing, image.width, image.height),
                np.array([best.score], np.float32),
                np.array([best.index], np.int64),
                (best.name,),
                frame=image.frame,
                time=image.time,
            )


class ObjectAnswers:
    """The objects, in pixels of the upright original.

    Args:
        card: the model's.
        anchors: of the network's input: float32 (A, 4), x1, y1, x2, y2 in pixels.
        rule: thresholds.
    """

    def __init__(self, metadata: ModelMetadata, anchors: np.ndarray, rule: NMSConfig) -> None:
        self._classes, self._preprocessing, self._anchors, self._rule = (
            metadata.classes,
            metadata.preprocessing,
            anchors,
            rule,
        )

    def __call__(self, images: Sequence[PreparedImage], outputs: tuple[np.ndarray, ...]) -> Iterator[Detections]:
        """See :class:`Answers`."""
        size = (self._preprocessing.height, self._preprocessing.width)
        for image, scores, offsets in zip(images, *outputs, strict=True):
            found = decode_detections(scores, offsets, self._anchors, size, self._rule)
            boxes = scale_to_original(found.boxes, self._preprocessing, image.width, image.height)
            names = tuple(self._classes[label] for label in found.labels)
            yield Detections(
                image.source,
                image.width,
                image.height,
                boxes,
                found.scores,
                found.labels,
                names,
                frame=image.frame,
                time=image.time,
            )
