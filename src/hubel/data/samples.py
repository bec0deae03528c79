"""Labelled images on disk, their labels as a network sees them, and batches: one of each for every task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hubel.data.file_listing import listing
from hubel.errors import DataError
from hubel.masks import RunLengthMask, Shape, scale_shape, shape_mask

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = -1
"""The stratum of images without objects."""

UNLABELLED = -1
"""The label of an image as a whole where its objects or pixels are labelled."""

IGNORE_INDEX = 255
"""The class of pixels that do not count, in class maps."""

_NO_BOXES, _NO_LABELS = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
_NO_FLAGS, _NO_AREAS = np.zeros(0, bool), np.zeros(0, np.float32)


class ClassMap(ABC):
    """The class of every pixel of an image on disk, read when it is needed; as text, what a message calls it.

    Attributes:
        of_objects: its classes are those of the sample's objects, and a background; else only the pixels tell.
        names_ignored: the data set says which pixels do not count.
    """

    of_objects: ClassVar[bool]
    names_ignored: bool

    @abstractmethod
    def read(self) -> np.ndarray:
        """Classes, uint8 (H, W), or :data:`IGNORE_INDEX`; raises :class:`~hubel.errors.ImageError`."""

    @abstractmethod
    def relabel(self, new: np.ndarray) -> ClassMap:
        """The same with the ``new`` index, int (classes,), of each class; of -1, its pixels do not count."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image on disk; what its labels do not specify is empty.

    Attributes:
        path: the image file.
        label: the class of the whole image, from 0, or :data:`UNLABELLED`.
        width: of the upright image in pixels, as the height; 0 where neither a label file nor the image gives it.
        boxes: float32 (M, 4), x1, y1, x2, y2 in pixels of the upright image, inside it, of positive width and height.
        labels: int64 (M,), classes of the objects, from 0.
        crowd: bool (M,): a group of objects, or one to be ignored; finding it is neither right nor wrong, and it does
            not train: neither as an object nor as background.
        difficult: bool (M,): hard to recognize, according to the annotator. It trains; Pascal VOC's scores skip it.
        areas: float32 (M,), pixels that each covers: as its file says, else of its mask, outline or box.
        shapes: outlines or masks of the objects, in order, not drawn yet; ``None`` where the task has no use for them.
        class_map: the class of every pixel.
        stratum: images of one stratum are divided by the fractions of a split: the label, else the rarest class among
            the objects, or :data:`BACKGROUND`.
        labelled: int64 (L,), the classes all of whose objects are labelled, ascending; ``None`` for all. Of the others
            there may be more than the image's labels have: nothing is background for them.
    """

    path: Path
    label: int = UNLABELLED
    width: int = 0
    height: int = 0
    boxes: np.ndarray = field(default_factory=lambda: _NO_BOXES)
    labels: np.ndarray = field(default_factory=lambda: _NO_LABELS)
    crowd: np.ndarray = field(default_factory=lambda: _NO_FLAGS)
    difficult: np.ndarray = field(default_factory=lambda: _NO_FLAGS)
    areas: np.ndarray = field(default_factory=lambda: _NO_AREAS)
    class_map: ClassMap | None = None
    shapes: tuple[Shape, ...] | None = None
    stratum: int = BACKGROUND
    labelled: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.label != UNLABELLED:
            object.__setattr__(self, "stratum", self.label)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sample) and all(
            _equal(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)
        )

    def __hash__(self) -> int:
        return hash((self.path, self.label))

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The classes in the image, each once."""
        return tuple(np.unique(self.labels).tolist()) if self.label == UNLABELLED else (self.label,)

    def select(self, chosen: np.ndarray) -> Sample:
        """The same image with some of its objects: indices or bools (M,)."""
        names = ("boxes", "labels", "crowd", "difficult", "areas")
        shapes = None
        if self.shapes is not None:
            shapes = tuple(self.shapes[index] for index in np.arange(len(self.shapes))[chosen].tolist())
        return replace(self, shapes=shapes, **{name: getattr(self, name)[chosen] for name in names})

    def rescale(self, width: int, height: int) -> Sample:
        """The same objects in an image that is really of this size."""
        x, y = width / self.width, height / self.height
        boxes = self.boxes * np.array([x, y, x, y], np.float32)
        shapes = self.shapes and tuple(scale_shape(shape, x, y, height, width) for shape in self.shapes)
        areas = self.areas * np.float32(x * y)
        return replace(self, width=width, height=height, boxes=boxes, areas=areas, shapes=shapes)

    def masks(self) -> tuple[RunLengthMask, ...]:
        """The pixels of the objects, with those of crowds, in the upright image, as the COCO API rasterizes outlines.

        Raises :class:`ValueError` for shapes that are impossible, and if there are none.
        """
        if self.shapes is None:
            raise ValueError(f"{self.path} has objects without shapes")
        return tuple(shape_mask(shape, self.height, self.width) for shape in self.shapes)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(one, other)
    return one == other


@dataclass(frozen=True)
class ImageDataset:
    """A data set as it lies on disk.

    Attributes:
        root: its folder; all images are below it.
        classes: names, which labels are indices of. Those of class folders are sorted by code point.
        splits: the samples of ``"train"``, ``"val"``, ``"test"``, as far as they exist, or of ``"all"``.
        warnings: what the reader guessed and what it left out, one line each.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    warnings: tuple[str, ...] = ()

    def remap_classes(self, classes: Sequence[str]) -> ImageDataset:
        """The same samples with labels that are indices into a model's list of classes.

        Raises :class:`DataError` if a class that has images, objects or a mask's index is not in the list. Where the
        background of objects is not, it does not count.
        """
        index = {name: position for position, name in enumerate(classes)}
        new = np.array([index.get(name, BACKGROUND) for name in self.classes], np.int64)
        samples = [sample for each in self.splits.values() for sample in each]
        maps = [sample.class_map for sample in samples if sample.class_map is not None]
        whole = any(sample.label != UNLABELLED for sample in samples) or any(not each.of_objects for each in maps)
        used = set(range(len(self.classes))) if whole else {label for each in samples for label in each.class_ids}
        if unknown := [self.classes[label] for label in sorted(used) if new[label] == BACKGROUND]:
            what = "classes" if whole else "objects of classes"
            message = f"{self.root} has {what} that the model does not know: {listing(unknown)}"
            which = " classes" if maps else " folders" if whole else "m"
            hint = f"rename or remove the{which}: the model knows {listing(list(classes))}"
            raise DataError(message, hint)

        def remapped(sample: Sample) -> Sample:
            if sample.label != UNLABELLED:
                return replace(sample, label=int(new[sample.label]))
            stratum = int(new[sample.stratum]) if len(sample.labels) else BACKGROUND
            class_map = None if sample.class_map is None else sample.class_map.relabel(new)
            labelled = None if sample.labelled is None else new[sample.labelled]
            labelled = None if labelled is None else np.sort(labelled[labelled != BACKGROUND])
            labels = new[sample.labels]
            return replace(sample, labels=labels, stratum=stratum, class_map=class_map, labelled=labelled)

        splits = {split: tuple(map(remapped, each)) for split, each in self.splits.items()}
        return replace(self, classes=tuple(classes), splits=splits)


@dataclass(frozen=True, eq=False)
class Target:
    """The labels of one image as a network sees it; what a task does not use is empty or ``None``.

    Attributes:
        label: the class of the whole image, from 0, or :data:`UNLABELLED`.
        boxes: float32 (M, 4), x1, y1, x2, y2 in pixels of the network's input, of positive width and height.
        labels: int64 (M,), classes of the objects, from 0; without boxes (0, 4) the class of the whole image.
        ignored: float32 (I, 4), likewise: where crowds are, and objects to be ignored.
        masks: uint8 (M, H, W), 1 where an object is, in pixels of the network's input; each has some.
        class_map: uint8 (H, W), the class of every pixel, or :data:`IGNORE_INDEX`.
        image: uint8 (H', W', C), what the network should make of its input.
        labelled: int64 (L,), the classes all of whose objects are labelled, as those of a :class:`Sample`.
    """

    label: int = UNLABELLED
    boxes: np.ndarray = field(default_factory=lambda: _NO_BOXES)
    labels: np.ndarray = field(default_factory=lambda: _NO_LABELS)
    masks: np.ndarray | None = None
    class_map: np.ndarray | None = None
    image: np.ndarray | None = None
    ignored: np.ndarray = field(default_factory=lambda: _NO_BOXES)
    labelled: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        # From a worker, masks come as bits: as bytes they would take longer to hand over than to draw.
        state = dict(vars(self))
        if self.masks is not None:
            state["masks"] = self.masks.shape, np.packbits(self.masks)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["masks"] is not None:
            shape, bits = state["masks"]
            state["masks"] = np.unpackbits(bits, count=math.prod(shape)).reshape(shape)
        vars(self).update(state)


@dataclass(frozen=True)
class Batch:
    """Images and targets as a loader gives them.

    Attributes:
        pixels: uint8 (N, C, H, W) in channels-last memory; N may be 0 where no image of the batch could be read.
        indices: int64 (N,), positions in the data set; -1 for images that are not in it.
    """

    pixels: Tensor
    targets: list[Target]
    indices: Tensor

    @property
    def labels(self) -> Tensor:
        """The classes of the whole images: int64 (N,)."""
        import torch

        return torch.tensor([target.label for target in self.targets], dtype=torch.int64)
