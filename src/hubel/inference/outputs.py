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


def _stem(source: str | None, default: str) -> str:
    stem = Path(source or default).stem
    return stem.encode(errors="surrogateescape")[:_MAX_NAME_BYTES].decode(errors="ignore") or default


def free_folder(folder: Path) -> Path:
    """The folder, or ``NAME-2``, ``NAME-3``, … if it exists."""
    free, number = folder, 1
    while free.exists() or free.is_symlink():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


class AnnotatedFiles:
    """A folder for annotated images and videos.

    ``holiday/beach.png`` becomes ``beach.jpg``, a second ``beach`` becomes ``beach-2.jpg``, ``clip.avi`` becomes
    ``clip.mp4``, or its frame 7 ``clip-000007.jpg``. Existing files, sources among them, are never overwritten.

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
        stem = _stem(result.source, "image")
        return self._free(stem if result.frame is None else f"{stem}-{result.frame:06d}", result.copy_suffix)

    def video_path_for(self, source: str | None) -> Path:
        """As :meth:`path_for`, for the annotated video of a video or webcam: ``clip.mp4``."""
        return self._free(_stem(source, "video").replace(" ", "-"), ".mp4")

    def _free(self, stem: str, suffix: str) -> Path:
        while True:
            number = self._numbers[stem + suffix] = self._numbers.get(stem + suffix, 0) + 1
            path = self.folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
            if not path.exists() and not path.is_symlink():
                return path

    def save(self, path: Path, image: ImageSource, result: Prediction) -> Prediction:
        """Read the image again, draw the result on it and save it; may be called from any thread."""
        try:
            return result.save_copy(path, image.read)
        except OSError as error:
            raise self._not_writable(path, error) from error

    def holds(self, source: str | None) -> bool:
        """Check if a source is in this folder or below it."""
        # Not Path.resolve, which raises for a link that points to itself.
        return source is not None and Path(os.path.realpath(source)).is_relative_to(os.path.realpath(self.folder))

    @staticmethod
    def _not_writable(path: Path, error: OSError) -> HubelError:
        return HubelError(f"{path} cannot be written: {error.strerror or error}", f"{remedy(error)} (--save)")
