"""Results outside the process: rows of JSON Lines, and annotated images. Imports nothing heavy."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.data.file_listing import OUTPUT_MARK
from hubel.errors import HubelError, UsageError
from hubel.fileio import remedy

if TYPE_CHECKING:
    from hubel.data.sources import ImageSource
    from hubel.inference.pipeline import FailedImage
    from hubel.results import Prediction

# File systems allow 255 bytes; a number, the suffix and the temporary file's name need some.
_MAX_NAME_BYTES = 200


def json_row(outcome: Prediction | FailedImage, model: str) -> dict[str, Any]:
    """``{"source", "width", "height", "model", "task", …}``, or ``{"source", "error"}`` if it could not be read.

    Frames of a video also have ``"frame"`` and ``"time"``.
    """
    from hubel.inference.pipeline import FailedImage

    row: dict[str, Any] = {"source": None if outcome.source is None else encodable(outcome.source)}
    if outcome.frame is not None:
        row |= {"frame": outcome.frame, "time": outcome.time}
    if isinstance(outcome, FailedImage):
        return {**row, "error": encodable(outcome.error.message)}
    size = {"width": outcome.width, "height": outcome.height}
    return {**row, **size, "model": model, "task": outcome.task, **outcome.to_json()}


def encodable(name: str) -> str:
    """A file name with replacement characters for bytes that are not UTF-8, which JSON and terminals cannot show."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


class AnnotatedFiles:
    """A folder for annotated images.

    ``holiday/beach.png`` becomes ``beach.jpg``, a second ``beach`` becomes ``beach-2.jpg``, frame 7 of ``clip.mp4``
    ``clip-000007.jpg``. Existing files, sources among them, are never overwritten.

    Raises:
        HubelError: the folder cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers: dict[str, int] = {}
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--save {folder} is a file", "pass a folder: a file is written into it for each image")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                (folder / OUTPUT_MARK).touch()  # so that a data set around it does not take it for a class
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise self._not_writable(folder, error) from error

    def path_for(self, result: Prediction) -> Path:
        """A path that does not exist, and is returned only once."""
        stem = Path(result.source or "image").stem
        stem = stem.encode(errors="surrogateescape")[:_MAX_NAME_BYTES].decode(errors="ignore") or "image"
        if result.frame is not None:
            stem = f"{stem}-{result.frame:06d}"
        while True:
            number = self._numbers[stem] = self._numbers.get(stem, 0) + 1
            path = self.folder / (f"{stem}.jpg" if number == 1 else f"{stem}-{number}.jpg")
            if not path.exists() and not path.is_symlink():
                return path

    def save(self, path: Path, image: ImageSource, result: Prediction) -> None:
        """Read the image again, draw the result on it and save it; may be called from any thread."""
        from hubel.drawing import save_image

        annotated = result.draw(image.read())
        try:
            save_image(path, annotated)
        except OSError as error:
            raise self._not_writable(path, error) from error

    def holds(self, source: str | None) -> bool:
        """Check if a source is in this folder or below it."""
        # Not Path.resolve, which raises for a link that points to itself.
        return source is not None and Path(os.path.realpath(source)).is_relative_to(os.path.realpath(self.folder))

    @staticmethod
    def _not_writable(path: Path, error: OSError) -> HubelError:
        return HubelError(f"{path} cannot be written: {error.strerror or error}.", f"{remedy(error)} (--save).")
