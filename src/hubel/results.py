"""Results of predictions: small frozen records that open their image, draw themselves and turn into JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hubel.errors import HubelError
from hubel.image_result import ImageResult as ImageResult
from hubel.image_result import InMemory as InMemory

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from hubel.masks import RunLengthMask

_DIGITS = 6


def rounded(value: float) -> float:
    """A score or fraction with the six significant digits that are written to JSON."""
    return float(f"{value:.{_DIGITS}g}")


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
        masks: of each object, in pixels of the upright original image, as run lengths (:func:`hubel.masks.decode`);
            ``None`` where the model predicts boxes only.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: tuple[RunLengthMask, ...] | None = None
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
        columns = (self.labels.tolist(), self.names, self.scores.tolist(), self.boxes.tolist())
        objects: list[dict[str, Any]] = [
            {"index": index, "name": name, "score": rounded(score), "box": [round(value, 2) for value in box]}
            for index, name, score, box in zip(*columns, strict=True)
        ]
        if self.masks is not None:
            for row, mask in zip(objects, self.masks, strict=True):
                row["mask"] = mask.to_coco()
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
        pixels = None
        if self.masks is not None:
            from hubel.masks import decode

            pixels = numpy.array([decode(mask) for mask in self.masks], bool).reshape(-1, self.height, self.width)
        return supervision.Detections(self.boxes, pixels, self.scores, self.labels.astype(int), data=data)

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        texts = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        return self._with_objects(image, texts, self.labels.tolist())

    def _with_objects(self, image: Image.Image, texts: Sequence[str], colours: Sequence[int]) -> Image.Image:
        from hubel.drawing import BoxLabel, draw_boxes, draw_instances

        rows = zip(self.boxes.tolist(), texts, colours, strict=True)
        labels = [BoxLabel(tuple(box), text, colour) for box, text, colour in rows]
        return draw_boxes(image, labels) if self.masks is None else draw_instances(image, labels, self.masks)


@dataclass(frozen=True, repr=False)
class Instances(Detections):
    """Objects found in one image with their masks, best first."""

    task = "instances"


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
        ids = self.ids.tolist()
        texts = [f"{id_} {name}".strip() for id_, name in zip(ids, self.names, strict=True)]
        return self._with_objects(image, texts, ids)


@dataclass(frozen=True, repr=False)
class SegmentationMap(ImageResult):
    """The class of every pixel of one image.

    Attributes that are not listed are those of :class:`Classification`.

    Attributes:
        classes: uint8 (height, width), indices into ``names``.
        names: of all classes.
        mask: file that :meth:`save_mask` has written, if it was for this result; ``None`` if there is none.
    """

    classes: np.ndarray
    names: tuple[str, ...]
    frame: int | None = None
    time: float | None = None
    mask: str | None = None

    task = "segment"

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the pixels of each class that occurs, largest first."""
        import numpy

        # In parts, as NumPy counts in copies of eight bytes a pixel.
        flat, part, names = self.classes.ravel(), 1 << 22, len(self.names)
        counted = [numpy.bincount(flat[at : at + part], minlength=names) for at in range(0, flat.size, part)]
        counts = sum(counted, numpy.zeros(names)) / max(1, flat.size)
        order = numpy.argsort(-counts, kind="stable")
        return {self.names[index]: float(counts[index]) for index in order.tolist() if counts[index]}

    def describe(self) -> str:
        """``road 41%, sky 22%, car 3%``: classes from 1 % on."""
        return ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items() if share >= 0.01)

    def to_json(self) -> dict[str, Any]:
        """The task's part of a JSON row: ``{"mask": path, "classes": [{"index", "name", "share"}]}``, largest first.

        The path is ``null`` where no mask has been written.
        """
        index = {name: i for i, name in enumerate(self.names)}
        shares = [{"index": index[n], "name": n, "share": rounded(share)} for n, share in self.shares.items()]
        return {"mask": self.mask, "classes": shares}

    def save_mask(self, path: str | Path) -> Path:
        """Write the class map as a PNG, grey, in which the value of a pixel is the index of its class.

        Raises:
            DataError: the file cannot be written.
        """
        from hubel.png import block_height, write_png

        height, width = self.classes.shape
        rows = block_height(width)
        blocks = (self.classes[start : start + rows] for start in range(0, height, rows))
        write_png(Path(path), width, height, 1, blocks)
        return Path(path)

    def save_copy(self, path: Path, original: Callable[[], Image.Image]) -> Self:
        """See :meth:`ImageResult.save_copy`; the mask is written beside the image, as ``NAME_mask.png``."""
        super().save_copy(path, original)
        return self._with_mask(path)

    def _with_mask(self, beside: Path) -> Self:
        path, number = beside.with_name(f"{beside.stem}_mask.png"), 1
        while path.exists() or path.is_symlink():
            number += 1
            path = beside.with_name(f"{beside.stem}_mask-{number}.png")
        return replace(self, mask=str(self.save_mask(path)))

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        from hubel.drawing import draw_class_map

        return draw_class_map(image, self.classes, self.names)


_CHROMA_KEY = (0, 177, 64)


@dataclass(frozen=True, repr=False)
class Cutout(SegmentationMap):
    """A class map, and how much of each pixel is kept of the image: ``alpha``, uint8 (height, width), 255 for all.

    ``task`` is that of the model, as instances are cut out, too.
    """

    alpha: np.ndarray = field(kw_only=True)
    task: str = field(default=SegmentationMap.task, kw_only=True)

    copy_suffix = ".png"

    def cut(self, image: Image.Image | None = None) -> Image.Image:
        """The image (RGB, of this size; by default :attr:`image`) with a transparent background, RGBA."""
        from PIL import Image

        whole = (self.image if image is None else image).convert("RGB")
        whole.putalpha(Image.fromarray(self.alpha).resize(whole.size, Image.Resampling.BILINEAR))
        return whole

    def save_copy(self, path: Path, original: Callable[[], Image.Image]) -> Self:
        """Write the image with a transparent background as a PNG, and the mask beside it."""
        from hubel.fileio import atomic_write

        with atomic_write(path) as partial_file:
            self.cut(original()).save(partial_file, "PNG", compress_level=1)
        return self._with_mask(path)

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        """On green, as videos have no transparency."""
        from PIL import Image

        background = Image.new("RGB", image.size, _CHROMA_KEY)
        background.paste(image, mask=self.cut(image).getchannel("A"))
        return background


@dataclass(frozen=True, repr=False)
class Enlarged(ImageResult):
    """An enlarged image; ``width`` and ``height`` are those of the original.

    Attributes that are not listed are those of :class:`Classification`.

    Attributes:
        scale: how many times as wide and high it is.
        enlarged: gives the image, RGB, or RGBA where the original has transparent parts.
        write_png: writes it as a PNG file, a few rows at a time, where it is too large to be in memory at once.
        path: of the file that it has been written to; ``None`` if it has not.
    """

    scale: int
    enlarged: Callable[[], Image.Image]
    write_png: Callable[[Path], None] | None = None
    path: str | None = None
    frame: int | None = None
    time: float | None = None

    task = "super-resolve"
    copy_suffix = ".png"

    @property
    def image(self) -> Image.Image:
        """The enlarged image."""
        return self.enlarged()

    def draw(self, image: Image.Image | None = None) -> Image.Image:
        """The enlarged image, as :attr:`image`."""
        return self.enlarged()

    def _drawn_on(self, image: Image.Image) -> Image.Image:
        return self.enlarged()

    def save(self, path: str | Path) -> Path:
        """Write the enlarged image, in the format of the path's suffix; see :meth:`ImageResult.save`."""
        if self.write_png is None or Path(path).suffix.lower() != ".png":
            return super().save(path)
        self.write_png(Path(path))
        return Path(path)

    def save_copy(self, path: Path, original: Callable[[], Image.Image]) -> Enlarged:
        """As :meth:`ImageResult.save_copy`; the original is not needed."""
        self.save(path)
        return replace(self, path=str(path))

    def describe(self) -> str:
        """``320 × 240 enlarged to 640 × 480``, and the file, if there is one."""
        written = f": {self.path}" if self.path else ""
        return (
            f"{self.width} × {self.height} enlarged to {self.scale * self.width} × {self.scale * self.height}{written}"
        )

    def to_json(self) -> dict[str, Any]:
        """The task's part of a JSON row: ``{"image": path}``, with ``null`` where it has not been written."""
        return {"image": self.path}


Prediction = Classification | Detections | SegmentationMap | Enlarged
"""Result of any task."""
