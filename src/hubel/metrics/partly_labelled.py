"""Scores of images in which only some classes are labelled.

As LVIS has it (Gupta, Dollár and Girshick 2019, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", arXiv
1908.03195): what is found of a class that an image does not label is neither right nor wrong, unless it matches an
object that is labelled nevertheless. A crowd of that class all over the image is another word for it, and what all
metrics know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hubel.masks import encode
from hubel.metrics.coco import GroundTruth, PredictedObjects


def with_crowds(truths: Sequence[GroundTruth], predictions: Sequence[PredictedObjects]) -> list[GroundTruth]:
    """Labelled objects, and after them a crowd all over the image for each class that was found and is not labelled."""
    return [_with_crowds(*each) for each in zip(truths, predictions, strict=True)]


def _with_crowds(truth: GroundTruth, predicted: PredictedObjects) -> GroundTruth:
    if truth.labelled is None:
        return truth
    unknown = np.setdiff1d(predicted.labels, truth.labelled)
    if not len(unknown):
        return replace(truth, labelled=None)
    found = np.asarray(predicted.boxes, np.float64)
    region = np.concatenate((found[:, :2].min(0) - 1, found[:, 2:].max(0) + 1))
    regions = np.tile(region, (len(unknown), 1))
    before = np.zeros(len(truth.labels), bool) if truth.crowd is None else truth.crowd
    areas, masks = truth.areas, truth.masks
    if areas is not None:
        areas = np.append(areas, np.full(len(unknown), (region[2:] - region[:2]).prod()))
    if masks is not None and predicted.masks:
        whole = encode(np.ones(predicted.masks[0]["size"], bool)).to_coco()
        masks = [*masks, *len(unknown) * [whole]]
    return GroundTruth(
        np.concatenate((np.asarray(truth.boxes).reshape(-1, 4), regions)),
        np.concatenate((truth.labels, unknown)).astype(np.int64),
        np.append(before, np.ones(len(unknown), bool)),
        areas,
        masks,
    )
