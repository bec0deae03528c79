"""Checks that an exported file predicts what the model predicts."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hubel.data.image_io import read_image
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import sample_photographs
from hubel.errors import ModelError
from hubel.inference.engines.base import Run
from hubel.inference.engines.normalized_model import decoding_of
from hubel.metrics.coco import PredictedObjects
from hubel.tasks.decoding import Thresholds
from hubel.tasks.detection.decode import select_objects

Predictions = dict[str, np.ndarray]

TOLERANCE = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.1, "int8": 0.3}
"""By how much a probability, or a box as a fraction of the image's size, may differ from the model's."""

_HINT = "export in another format or precision; if it is in fp32, this is a bug in hubel: report it"


def sample_inputs(preprocessing: Preprocessing) -> np.ndarray:
    """scikit-learn's two photographs and noise, uint8 (3, height, width, channels)."""
    photographs = [preprocessing.pixels(read_image(path)) for path in sample_photographs()]
    noise = np.random.default_rng(0).integers(0, 256, photographs[0].shape, dtype=np.uint8)
    return np.stack([*photographs, noise])


@torch.inference_mode()
def reference_outputs(network: nn.Module, preprocessing: Preprocessing, pixels: np.ndarray) -> Predictions:
    """A model's own predictions, float32 (N, …) by name, of pixels (N, H, W, C), as plain torch computes them."""
    names, decode = decoding_of(network)
    images = preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    predictions = decode(network(images), (images.shape[2], images.shape[3]))
    return {name: predictions[name].float().numpy() for name in names}


def check_parity(run: Run, pixels: np.ndarray, expected: Predictions, precision: str, file: str) -> float:
    """Run a file on one image, then on all of them, and return the greatest difference from the model's predictions.

    In float32 each probability has to be the model's up to 1e-4, each box up to 1e-4 of the image's size, and the class
    of all but one of 1000 pixels. In other precisions the limit is wider (:data:`TOLERANCE`) and the most probable
    class of each image has to be the model's, or one that the model finds as probable within that limit.

    ``run`` runs the file, ``expected`` are the model's predictions of the ``pixels``, uint8 (N, H, W, C).

    Raises:
        ModelError: the file predicts something else.
    """
    worst, file = 0.0, f"{file} ({precision})"
    for count in (1, len(pixels)):
        outputs = run(np.ascontiguousarray(pixels[:count]))
        for name, every in expected.items():
            actual, reference = outputs.get(name), every[:count]
            if actual is None or actual.shape != reference.shape:
                shape = None if actual is None else actual.shape
                raise ModelError(f"{file} has an output of shape {shape}, the model of {reference.shape}", _HINT)
            if not np.isfinite(actual).all():
                raise ModelError(f"{file} produces Inf or NaN", _HINT)
            compare = _COMPARISONS.get(name, _compare_probabilities)
            difference, is_allowed, text = compare(actual, reference, pixels.shape[1:3], TOLERANCE[precision])
            if not is_allowed:
                raise ModelError(f"{file} differs from the model {text}", _HINT)
            worst = max(worst, difference)
    return worst


def _compare_boxes(
    actual: np.ndarray, reference: np.ndarray, size: tuple[int, ...], tolerance: float
) -> tuple[float, bool, str]:
    """Difference of boxes clipped to the input, as a fraction of its size; if it is allowed; both in words."""
    sides = np.array([size[1], size[0]] * 2)
    difference = float((np.abs(actual.clip(0, sides) - reference.clip(0, sides)) / sides).max())
    text = f"by up to {difference:.2g} of the image's size in a box (allowed: {tolerance:g})"
    return difference, difference <= tolerance, text


def _compare_probabilities(
    actual: np.ndarray, reference: np.ndarray, size: tuple[int, ...], tolerance: float
) -> tuple[float, bool, str]:
    """The same of probabilities (N, classes) or scores (N, A, classes)."""
    difference, lead = float(np.abs(actual - reference).max()), 0.0
    text = f"by up to {difference:.2g} in probability (allowed: {tolerance:g})"
    if reference.ndim == 2:
        best = actual.argmax(axis=1)
        # By how much the model prefers its own best class to the file's.
        lead = float((reference.max(axis=1) - reference[np.arange(len(reference)), best]).max())
        count = int(np.sum(best != reference.argmax(axis=1)))
        text += f" and names another best class for {count} of {len(reference)} images"
    return difference, max(difference, lead) <= tolerance, text


def _compare_class_maps(
    actual: np.ndarray, reference: np.ndarray, size: tuple[int, ...], tolerance: float
) -> tuple[float, bool, str]:
    """The same of class maps (N, H, W): the fraction of the pixels that differ, as nearly equal scores may swap."""
    difference, allowed = float((actual != reference).mean()), max(tolerance, 1e-3)
    return difference, difference <= allowed, f"in the class of {difference:.2%} of the pixels (allowed: {allowed:.2%})"


def _compare_images(
    actual: np.ndarray, reference: np.ndarray, size: tuple[int, ...], tolerance: float
) -> tuple[float, bool, str]:
    """The same of images (N, H, W, C), 0..255: the greatest difference of a pixel, as a fraction of 255."""
    difference = float(np.abs(actual - reference).max()) / 255
    return difference, difference <= tolerance, f"by up to {difference:.2g} of 255 in a pixel (allowed: {tolerance:g})"


_COMPARISONS = {"boxes": _compare_boxes, "class_map": _compare_class_maps, "image": _compare_images}


def check_detections(
    run: Run, pixels: np.ndarray, expected: Predictions, thresholds: Thresholds, precision: str, file: str
) -> float:
    """Run a file that ends in objects on each image, and compare them with those selected from the model's predictions.

    As :func:`check_parity`, but the file takes one image at a time and gives its ``"boxes"``, ``"scores"`` and
    ``"labels"``, selected by the ``thresholds``. Returns the greatest difference of a score, or of a box as a fraction
    of the image's size, among the objects that both have.

    Raises:
        ModelError: the file finds other objects.
    """
    size, worst = (pixels.shape[1], pixels.shape[2]), 0.0
    for index in range(len(pixels)):
        reference = select_objects(expected["boxes"][index], expected["scores"][index], size, thresholds)
        outputs = run(np.ascontiguousarray(pixels[index : index + 1]))
        actual = PredictedObjects(outputs["boxes"], outputs["scores"], outputs["labels"])
        # An object about as probable as the threshold may be found or not.
        sure = thresholds.conf + TOLERANCE[precision]
        differences = [
            _nearest(one, i, other, size)
            for one, other in ((reference, actual), (actual, reference))
            for i in np.flatnonzero(one.scores > sure).tolist()
        ]
        met = [difference for difference in differences if difference <= TOLERANCE[precision]]
        # Some may: a rounding decides which of two boxes suppresses the other.
        may_differ = 0.02 if precision == "fp32" else 0.1
        if len(differences) - len(met) > may_differ * len(differences):
            found = f"finds {len(actual.scores)} objects where the model finds {len(reference.scores)}"
            others = f"{1 - len(met) / len(differences):.0%} of them differ"
            raise ModelError(f"{file} ({precision}) {found}, and {others}", _HINT)
        worst = max([worst, *met])
    return worst


def check_masks(run: Run, pixels: np.ndarray, expected: Predictions, precision: str, file: str) -> float:
    """Run a file on all images, and compare the masks of objects that it and the model find.

    Pixels of the masks above 0.5 have to be the model's, up to an IoU of 0.99 (0.9 in other precisions than float32),
    for all but 2 % of the objects (10 %). Returns the greatest difference of a probability among the others.

    Raises:
        ModelError: the file's masks are others.
    """
    outputs, sizes = run(np.ascontiguousarray(pixels)), (pixels.shape[1], pixels.shape[2])
    count, differ, worst = 0, 0, 0.0
    for index in range(len(pixels)):
        reference, actual = (
            PredictedObjects(each["boxes"][index], (scores := each["scores"][index]).max(1), scores.argmax(1))
            for each in (expected, outputs)
        )
        for row in np.flatnonzero(reference.scores > Thresholds().conf).tolist():
            distances = _differences(reference, row, actual, sizes)
            if distances.min(initial=np.inf) > TOLERANCE[precision]:
                continue  # another object, which the check of boxes has counted
            mask, found = expected["masks"][index, row], outputs["masks"][index, int(distances.argmin())]
            count += 1
            shared, union = ((mask > 0.5) & (found > 0.5)).sum(), ((mask > 0.5) | (found > 0.5)).sum()
            if shared < (0.99 if precision == "fp32" else 0.9) * union:
                differ += 1
            else:
                worst = max(worst, float(np.abs(mask - found).max()))
    if differ > (0.02 if precision == "fp32" else 0.1) * count:
        raise ModelError(f"{file} ({precision}) gives other masks for {differ} of {count} objects", _HINT)
    return worst


def selecting(run: Run, size: tuple[int, ...], thresholds: Thresholds) -> Run:
    """What runs a file of a detector and selects the objects of one image, as a file that ends in objects."""

    def with_selection(pixels: np.ndarray) -> Predictions:
        dense = run(pixels)
        objects = select_objects(dense["boxes"][0], dense["scores"][0], (size[0], size[1]), thresholds)
        return {"boxes": objects.boxes, "scores": objects.scores, "labels": objects.labels}

    return with_selection


def _nearest(reference: PredictedObjects, index: int, actual: PredictedObjects, size: tuple[int, int]) -> float:
    """By how much the most similar object of the same class differs from an object; infinite if there is none."""
    return float(_differences(reference, index, actual, size).min(initial=np.inf))


def _differences(
    reference: PredictedObjects, index: int, actual: PredictedObjects, size: tuple[int, int]
) -> np.ndarray:
    """By how much each object differs from one of the reference; infinite for those of other classes."""
    sides = np.array([size[1], size[0]] * 2)
    boxes = np.abs((actual.boxes - reference.boxes[index]) / sides).max(axis=1, initial=0)
    scores = np.abs(actual.scores - reference.scores[index])
    return np.where(actual.labels == reference.labels[index], np.maximum(boxes, scores), np.inf)
