"""What results of predictions have in common: they know their image, and draw themselves on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hubel.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

_NOTEBOOK_SIDE = 640  # pixels of the longer side of an image in a notebook


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

    copy_suffix: ClassVar[str] = ".jpg"
    """Of the file that ``hubel predict --save`` writes."""

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

    def save_copy(self, path: Path, original: Callable[[], Image.Image]) -> Self:
        """As :meth:`save`, on the image that ``original`` reads; returns the result, which may know of the file."""
        from hubel.drawing import save_image

        save_image(path, self.draw(original()))
        return self

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
