"""Results of predictions: small frozen records that open their image, draw themselves and turn into JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.errors import HubelError, ImageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

_NOTEBOOK_SIDE = 640  # pixels of the longer side of an image in a notebook
_DIGITS = 6


def rounded(value: float) -> float:
    """A score or fraction with the six significant digits that are written to JSON."""
    return float(f"{value:.{_DIGITS}g}")


class InMemory:
    """Reads an image that is in memory only. A pickled one has lost it, so that results stay small between processes.

    Args:
        read: returns the image.
    """

    def __init__(self, read: Callable[[], Image.Image]) -> None:
        self._read = read

    def __call__(self) -> Image.Image:
        """The image."""
        return self._read()

    def __reduce__(self) -> tuple[Any, ...]:
        return InMemory, (_lost,)

    def __deepcopy__(self, memo: Any) -> InMemory:
        return self


def _lost() -> Image.Image:
    message = "the image of this result was in memory, and was not sent to this process with it"
    raise ImageError(message, "pass the image: result.draw(image)")


@dataclass(frozen=True, repr=False)
class ImageResult(ABC):
    """What all results have in common.

    Attributes:
        source: file name; ``None`` for arrays and images in memory.
        width: of the upright original image, in pixels.
        height: of the upright original image, in pixels.
        reader: reads the image again from its file, or holds the image where there is no file; ``None`` if the result
            does not know its image.
    """

    source: str | None
    width: int
    height: int
    reader: Callable[[], Image.Image] | None = field(default=None, kw_only=True, compare=False)

    @property
    def image(self) -> Image.Image:
        """The upright original, RGB: the one that was passed in, or read again from its file (or video).

        Raises:
            ImageError: the file is no longer there, or the result does not know its image.
        """
        if self.reader is None:
            raise ImageError("this result does not know its image", "pass the image: result.draw(image)")
        return self.reader()

    @abstractmethod
    def describe(self) -> str:
        """The result in a few words."""

    @abstractmethod
    def _drawn_on(self, image: Image.Image) -> Image.Image:
        """A copy of the image (RGB) with the result drawn on it."""

    def draw(self, image: Image.Image | None = None) -> Image.Image:
        """Return a copy of ``image`` (RGB, any size; by default :attr:`image`) with the result drawn on it.

        Raises:
            ImageError: see :attr:`image`.
        """
        return self._drawn_on(self.image if image is None else image)

    def save(self, path: str | Path) -> Path:
        """Write the annotated image, in the format of the path's suffix, and return the path.

        Raises:
            ImageError: see :attr:`image`; or the suffix is not that of an image.
            DataError: the file cannot be written.
        """
        from hubel.drawing import save_image

        save_image(path, self.draw())
        return Path(path)

    def show(self) -> None:
        """Show the annotated image: in the notebook, else in this computer's image viewer.

        Raises:
            HubelError: there is no viewer here.
            ImageError: see :attr:`image`.
        """
        from hubel.drawing.canvas import show_image

        show_image(self.draw())

    def __repr__(self) -> str:
        name = "image in memory" if self.source is None else self.source
        if (frame := getattr(self, "frame", None)) is not None:
            name += f", frame {frame}"
        return f"<{type(self).__name__} of {name}, {self.width} × {self.height}: {self.describe()}>"

    def _repr_png_(self) -> bytes | None:
        """The annotated image for notebooks; None where there is no image to draw on."""
        from hubel.drawing.canvas import png_bytes

        try:
            return png_bytes(self.draw(), _NOTEBOOK_SIDE)
        except ImageError:
            return None


@dataclass(frozen=True)
class ClassScore:
    """One class: its index in the model's list, from 0, its name and its probability, 0..1."""

    index: int
    name: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """``{"index", "name", "score"}``."""
        return {"index": self.index, "name": self.name, "score": rounded(self.score)}


@dataclass(frozen=True, repr=False)
class Classification(ImageResult):
    """Classes of one image.

    It draws itself on its image, which it reads again: :meth:`draw`, :meth:`save`, :meth:`show`.

    Attributes that are not listed are those of :class:`ImageResult`.

    Attributes:
        classes: best first.
        frame: number of the video frame, from 1; ``None`` for images.
        time: seconds from the start of the video; ``None`` for images.
    """

    classes: tuple[ClassScore, ...]
    frame: int | None = None
    time: float | None = None

    task = "classify"

    @property
    def best(self) -> ClassScore:
        """The most probable class."""
        return self.classes[0]

    def describe(self) -> str:
        """``palace 82.1%  (bell cote 3%, monastery 1%)``: classes from 1 % on, each by the first of its synonyms."""
        best, *others = self.classes
        line = f"{best.name.split(',')[0]} {best.score:.1%}"
        rest = ", ".join(f"{each.name.split(',')[0]} {each.score:.0%}" for each in others if each.score >= 0.01)
        return f"{line}  ({rest})" if rest else line

    def to_json(self) -> dict[str, Any]:
        """The task's part of a JSON row: ``{"classes": [...]}``."""
        return {"classes": [score.to_json() for score in self.classes]}

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        from hubel.drawing import draw_class_scores

        return draw_class_scores(image, [(each.name, each.score) for each in self.classes])


@dataclass(frozen=True, repr=False)
class Detections(ImageResult):
    """Objects found in one image, best first.

    Attributes that are not listed are those of :class:`Classification`.

    Attributes:
        boxes: float32 (N, 4), x1, y1, x2, y2 in pixels of the upright original image.
        scores: float32 (N,), 0..1.
        labels: int64 (N,), indices of the classes in the model's list, from 0.
        names: the class of each object.
        masks: bool (N, height, width), or ``None`` where the model predicts boxes only.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | None = None
    frame: int | None = None
    time: float | None = None

    task = "detect"

    def __len__(self) -> int:
        return len(self.scores)

    def describe(self) -> str:
        """``14 RBC, 1 WBC``: the number of objects of each class, most first; :meth:`details` has each object."""
        # A counter keeps the order of equal counts: that of the best scores.
        return ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common()) or "nothing found"

    def details(self) -> list[str]:
        """A line for each object, best first: ``person 98%  at 12, 40 to 96, 310``, in pixels."""
        return [
            f"{name} {score:.0%}  at {x1:.0f}, {y1:.0f} to {x2:.0f}, {y2:.0f}"
            for name, score, (x1, y1, x2, y2) in zip(self.names, self.scores, self.boxes.tolist(), strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """The task's part of a JSON row: ``{"objects": [{"index", "name", "score", "box"[, "mask"]}]}``.

        A mask is COCO's compressed run-length encoding: ``{"size": [height, width], "counts": text}``.
        """
        from hubel import masks

        columns = (self.labels.tolist(), self.names, self.scores.tolist(), self.boxes.tolist())
        objects: list[dict[str, Any]] = [
            {"index": index, "name": name, "score": rounded(score), "box": [round(value, 2) for value in box]}
            for index, name, score, box in zip(*columns, strict=True)
        ]
        if self.masks is not None:
            for row, mask in zip(objects, self.masks, strict=True):
                row["mask"] = masks.encode(mask).to_coco()
        return {"objects": objects}

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Rows of a COCO result file; ``category_ids`` are those of the model's classes."""
        rows = []
        for (x1, y1, x2, y2), entry in zip(self.boxes.tolist(), self.to_json()["objects"], strict=True):
            row = {"image_id": image_id, "category_id": category_ids[entry["index"]], "score": entry["score"]}
            row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            if "mask" in entry:
                row["segmentation"] = entry["mask"]
            rows.append(row)
        return rows

    def to_supervision(self) -> Any:
        """Convert to ``supervision.Detections``.

        Raises:
            HubelError: the package ``supervision`` is not installed.
        """
        try:
            import numpy
            import supervision
        except ImportError as error:
            raise HubelError("supervision is not installed", "pip install supervision") from error
        data = {"class_name": numpy.array(self.names)}
        return supervision.Detections(self.boxes, self.masks, self.scores, self.labels.astype(int), data=data)

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        from hubel.drawing import BoxLabel, draw_boxes

        rows = zip(self.boxes.tolist(), self.scores, self.labels, self.names, strict=True)
        labels = [BoxLabel(tuple(box), f"{name} {score:.2f}", int(index)) for box, score, index, name in rows]
        return draw_boxes(image, labels)


@dataclass(frozen=True, repr=False)
class Localization(Detections):
    """The object found in one image."""

    task = "localize"

    def describe(self) -> str:
        """``raccoon 98%``."""
        return ", ".join(f"{name} {score:.0%}" for name, score in zip(self.names, self.scores, strict=True))


@dataclass(frozen=True, repr=False)
class Tracks(Detections):
    """Tracked objects of one frame, oldest track first; ``ids``, int64 (N,), count from 1 and are never reused."""

    ids: np.ndarray = field(kw_only=True)

    task = "track"

    def to_json(self) -> dict[str, Any]:
        """As for detections, each object with its ``"id"``."""
        objects = super().to_json()["objects"]
        return {"objects": [{"id": int(id_), **row} for id_, row in zip(self.ids, objects, strict=True)]}

    def to_supervision(self) -> Any:
        """As for detections, with ``tracker_id``."""
        detections = super().to_supervision()
        detections.tracker_id = self.ids.astype(int)
        return detections

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        from hubel.drawing import BoxLabel, draw_boxes

        rows = zip(self.boxes.tolist(), self.ids.tolist(), self.names, strict=True)
        return draw_boxes(image, [BoxLabel(tuple(box), f"{id_} {name}".strip(), id_) for box, id_, name in rows])


@dataclass(frozen=True, repr=False)
class SegmentationMap(ImageResult):
    """The class of every pixel of one image.

    Attributes that are not listed are those of :class:`Classification`.

    Attributes:
        classes: uint8 (height, width), indices into ``names``.
        names: of all classes.
    """

    classes: np.ndarray
    names: tuple[str, ...]
    frame: int | None = None
    time: float | None = None

    task = "segment"

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the pixels of each class that occurs, largest first."""
        import numpy

        counts = numpy.bincount(self.classes.ravel(), minlength=len(self.names)) / max(1, self.classes.size)
        order = numpy.argsort(-counts, kind="stable")
        return {self.names[index]: float(counts[index]) for index in order.tolist() if counts[index]}

    def describe(self) -> str:
        """``road 41%, sky 22%, car 3%``: classes from 1 % on."""
        return ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items() if share >= 0.01)

    def to_json(self) -> dict[str, Any]:
        """The task's part of a JSON row: ``{"classes": [{"index", "name", "share"}]}``, largest first."""
        index = {name: i for i, name in enumerate(self.names)}
        return {
            "classes": [{"index": index[n], "name": n, "share": rounded(share)} for n, share in self.shares.items()]
        }

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        from hubel.drawing import draw_class_map

        return draw_class_map(image, self.classes, self.names)


Prediction = Classification | Detections | SegmentationMap
"""Result of any task."""
