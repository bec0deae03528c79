"""What an image shows of one class, on a transparent background."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import fields

import numpy as np

from hubel.errors import UsageError
from hubel.inference.pipeline import FailedImage
from hubel.masks import decode_part
from hubel.models.metadata import ModelMetadata
from hubel.results import Cutout, Instances, Prediction, SegmentationMap
from hubel.tasks.decoding import decoder_of

BACKGROUND = "background"
"""What class maps of objects call the pixels of none."""

_KEPT = 0.6  # of the mask of the frames before, in each frame of a video


def class_index(name: str, metadata: ModelMetadata, model: str) -> int:
    """The class of that name; raises :class:`UsageError` if there is none, or the model does not segment images."""
    decoder = decoder_of(metadata.task, model)
    if decoder.TILES != "maps" and "masks" not in decoder.OUTPUTS:
        raise UsageError(
            f"{model} does not say which pixels are of a class", "omit --cutout: it is for segmentation and instances"
        )
    if name not in metadata.classes:
        raise UsageError(f"--cutout {name}: {model} has no such class", f"choose from {', '.join(metadata.classes)}")
    return metadata.classes.index(name)


def cut_out(
    outcomes: Iterable[Prediction | FailedImage], index: int, metadata: ModelMetadata
) -> Generator[Prediction | FailedImage, None, None]:
    """The same results with what is to be seen of a class, of all its objects together.

    In the frames of a video the mask is an exponential moving average, so that outlines do not flicker.
    """
    before: np.ndarray | None = None
    source: str | None = None
    for outcome in outcomes:
        if isinstance(outcome, FailedImage):
            yield outcome
            continue
        chosen, task = index, outcome.task
        if isinstance(outcome, Instances):
            outcome, chosen = _class_map(outcome, index, metadata.classes[index]), 1
        assert isinstance(outcome, SegmentationMap)
        mask = (outcome.classes == chosen).astype(np.float32)
        if outcome.frame is not None:
            if before is not None and outcome.source == source and before.shape == mask.shape:
                mask = _KEPT * before + (1 - _KEPT) * mask
            before, source = mask, outcome.source
        own = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
        yield Cutout(**own, alpha=np.rint(255 * mask).astype(np.uint8), task=task)


def _class_map(found: Instances, index: int, name: str) -> SegmentationMap:
    """Where objects of a class are, 1, and where not, 0."""
    classes = np.zeros((found.height, found.width), np.uint8)
    for mask, label in zip(found.masks or (), found.labels.tolist(), strict=True):
        if label == index:
            part, x, y = decode_part(mask)
            classes[y : y + part.shape[0], x : x + part.shape[1]] |= part
    size = found.source, found.width, found.height
    return SegmentationMap(*size, classes, (BACKGROUND, name), found.frame, found.time, reader=found.reader)
