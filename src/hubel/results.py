"""What a prediction says: small frozen records that draw themselves and turn into JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class ClassScore:
    """One class with its probability.

    Attributes:
        index: position of the class in the model's list, from 0.
        name: the class as a person would say it.
        score: probability, 0..1.
    """

    index: int
    name: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """``{"index", "name", "score"}``."""
        return {"index": self.index, "name": self.name, "score": self.score}


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one image.

    Attributes:
        source: file name, or ``None`` for arrays and images handed over in memory.
        width: width of the upright original image in pixels.
        height: height of the upright original image in pixels.
        classes: the best classes, best first.
        frame: number of the video frame, from 1; ``None`` for still images.
        time: seconds from the start of the video; ``None`` for still images.
    """

    source: str | None
    width: int
    height: int
    classes: tuple[ClassScore, ...]
    frame: int | None = None
    time: float | None = None

    task = "classify"

    @property
    def best(self) -> ClassScore:
        """The most probable class."""
        return self.classes[0]

    def to_json(self) -> dict[str, Any]:
        """The task's part of a JSON row: ``{"classes": [...]}``."""
        return {"classes": [score.to_json() for score in self.classes]}

    def draw(self, image: Image.Image) -> Image.Image:
        """Return a copy of ``image`` (RGB, any size) with the classes and their probabilities written on it."""
        from hubel.drawing import draw_class_scores

        return draw_class_scores(image, self.classes)
