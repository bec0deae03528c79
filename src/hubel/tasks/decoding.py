"""From decoded predictions to results, by the functions ``results`` of ``tasks/NAME/decode.py``; without torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np

from hubel.boxes import nms, soft_nms
from hubel.config import CONF, IOU
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError, UsageError
from hubel.models.metadata import ModelMetadata
from hubel.results import Prediction

FOLDERS = {
    "classify": "classification",
    "localize": "localization",
    "detect": "detection",
    "segment": "segmentation",
    "instances": "instances",
    "super-resolve": "super_resolution",
}
"""Task → its folder in ``hubel.tasks``. Its module ``task`` defines the class of that name, as classes are spelled."""


class SourceImage(Protocol):
    """The image that a prediction is about."""

    @property
    def source(self) -> str | None:
        """File name."""

    @property
    def width(self) -> int:
        """Pixels of the upright original."""

    @property
    def height(self) -> int:
        """Pixels of the upright original."""

    @property
    def frame(self) -> int | None:
        """Number of the video frame, from 1."""

    @property
    def time(self) -> float | None:
        """Seconds since the start of the video."""


@dataclass(frozen=True)
class Suppression:
    """What happens to the worse of two boxes that overlap.

    Attributes:
        class_wise: only boxes of the same class suppress each other.
        distance: overlap is the distance IoU (:func:`hubel.boxes.nms`), not the IoU.
        decay: scores fall as in :func:`hubel.boxes.soft_nms`, by equation 3 or 2 of its paper; ``None``: it is dropped.
    """

    class_wise: bool = True
    distance: bool = False
    decay: Literal["gaussian", "linear"] | None = None


SUPPRESSIONS = {
    "standard": Suppression(),
    "agnostic": Suppression(class_wise=False),
    "diou": Suppression(distance=True),
    "soft": Suppression(decay="gaussian"),
    "soft-linear": Suppression(decay="linear"),
}
"""Rules of non-maximum suppression, by their names as ``--nms`` takes them."""


@dataclass(frozen=True)
class Thresholds:
    """Limits on the predictions that become results.

    Attributes:
        conf: minimum score of an object, 0..1.
        iou: of two boxes of a class that overlap by more, the worse is dropped, 0..1; see ``nms``.
        max_detections: maximum number of objects in an image.
        topk_candidates: number of the best boxes of a class that NMS looks at.
        top_k: maximum number of classes in a classifier's result.
        nms: one of :data:`SUPPRESSIONS`.

    Raises:
        UsageError: no suppression has this name.
    """

    conf: float = CONF
    iou: float = IOU
    max_detections: int = 300
    topk_candidates: int = 1000
    top_k: int = 5
    nms: str = "standard"

    def __post_init__(self) -> None:
        if self.nms not in SUPPRESSIONS:
            raise UsageError(f"unknown suppression {self.nms!r}", f"use {', '.join(SUPPRESSIONS)}")

    @property
    def suppression(self) -> Suppression:
        """What :attr:`nms` names."""
        return SUPPRESSIONS[self.nms]


def suppress(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, thresholds: Thresholds
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the boxes (K, 4) of one image that are left, best first, and their scores, which may have fallen."""
    rule, limit = thresholds.suppression, thresholds.max_detections
    rivals = labels if rule.class_wise else None
    if rule.decay is None:
        kept = nms(boxes, scores, rivals, thresholds.iou, limit, rule.distance)
        return kept, scores[kept]
    overlap = thresholds.iou if rule.decay == "linear" else None
    return soft_nms(boxes, scores, rivals, overlap, threshold=thresholds.conf, limit=limit)


class Decoder(Protocol):
    """A module ``tasks/NAME/decode.py``.

    Attributes:
        OUTPUTS: names of the predictions that it needs.
        NMS: they are dense, and objects are selected from them by non-maximum suppression.
        TILES: what is joined where the network sees tiles of an image: ``"objects"``, ``"maps"``; ``None``: it cannot.
        AVERAGED_IN_NETWORK: they are decisions, which cannot be averaged over several views of an image: the network
            has to do it before it decides. There is no :meth:`merge_mirrored` then, nor where predictions of two views
            cannot be joined.
    """

    OUTPUTS: tuple[str, ...]
    NMS: bool
    TILES: Literal["objects", "maps"] | None
    AVERAGED_IN_NETWORK: bool

    def results(
        self,
        predictions: Mapping[str, np.ndarray],
        images: Sequence[SourceImage],
        metadata: ModelMetadata,
        thresholds: Thresholds,
    ) -> Sequence[Prediction]:
        """Results of images (N), in order, from a model's predictions (N, …) by name."""

    def merge_mirrored(
        self,
        predictions: Mapping[str, np.ndarray],
        mirrored: Mapping[str, np.ndarray],
        metadata: ModelMetadata,
        thresholds: Thresholds,
    ) -> dict[str, np.ndarray]:
        """Predictions (N, …) from those for the images and those for their mirror images, which are mirrored back."""


def decoder_of(task: str, model: str) -> Decoder:
    """The decoder of the task of a model; raises :class:`ModelError` if such models make no predictions of images."""
    if task not in FOLDERS:
        raise ModelError(
            f"{model}: predicting with a model of the task {task!r} is not available",
            f"use a model that can {' or '.join(FOLDERS)}",
        )
    return cast(Decoder, importlib.import_module(f"hubel.tasks.{FOLDERS[task]}.decode"))


def require_detector(task: str, model: str, option: str) -> None:
    """Raise :class:`UsageError` for an option of detectors unless the model selects objects by NMS."""
    if not decoder_of(task, model).NMS:
        raise UsageError(f"{model} is not a detector", f"omit {option}: it is for detectors")


def require_tiles(task: str, model: str) -> None:
    """Raise :class:`UsageError` for ``--tile`` with a model that sees whole images only."""
    if decoder_of(task, model).TILES is None:
        raise UsageError(f"{model} sees whole images", "omit --tile: it is for detectors and for segmentation")


def require_outputs(task: str, model: str, outputs: Sequence[str]) -> None:
    """Raise :class:`ModelError` if a model lacks predictions that its task needs."""
    missing = [name for name in decoder_of(task, model).OUTPUTS if name not in outputs]
    if missing:
        raise ModelError(
            f"{model} has the task {task!r} but does not predict {' and '.join(missing)}",
            "make it with hubel.create_model, or add a method predictions() and prediction_names to the module",
        )


def require_finite(predictions: Mapping[str, np.ndarray], sources: Sequence[str | None], model: str) -> None:
    """Raise :class:`ModelError` if a prediction for one of the images (N) is not a number, which no decision shows.

    A detector whose scores are NaN would find nothing, a classifier its first class. Infinite boxes are left: those of
    hopeless anchors may overflow, and are clipped.
    """
    for name, values in predictions.items():
        if wrong := images_with_nan(values):
            source = (sources[wrong[0]] if wrong[0] < len(sources) else None) or "an image"
            raise ModelError(
                f"{model} gives {name} that are not numbers (NaN) for {source}",
                "try --precision fp32, in case its weights overflow in a short precision, or train again",
            )


def images_with_nan(values: np.ndarray) -> list[int]:
    """Indices of the images with a NaN among their predictions (N, …)."""
    # A sum costs a fraction of looking at each value, and is NaN if one of them is.
    with np.errstate(invalid="ignore", over="ignore"):
        if values.dtype.kind != "f" or not np.isnan(values.sum()):
            return []
    # There may be infinities of both signs only.
    return [index for index, of_image in enumerate(values) if np.isnan(of_image).any()]


def scale_to_original(boxes: np.ndarray, preprocessing: Preprocessing, width: int, height: int) -> np.ndarray:
    """Boxes (K, 4) in pixels of the network's input as float32 boxes of a ``width`` × ``height`` original."""
    moved = in_plane_of_original(boxes, preprocessing, width, height)
    return np.asarray(moved.clip(0, [width, height] * 2), np.float32)


def in_plane_of_original(boxes: np.ndarray, preprocessing: Preprocessing, width: int, height: int) -> np.ndarray:
    """As :func:`scale_to_original`, float64, but what lies in the padding of the input stays: beyond the image."""
    left, top, right, bottom = preprocessing.crop_box(width, height)
    scale = np.array([(right - left) / preprocessing.width, (bottom - top) / preprocessing.height] * 2)
    return np.asarray(boxes * scale + np.array([left, top] * 2))
