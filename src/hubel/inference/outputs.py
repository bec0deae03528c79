"""Annotated images on disk: written atomically, under names that overwrite nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hubel.data.sources import ImageSource
from hubel.drawing import save_image
from hubel.errors import HubelError
from hubel.results import Prediction

# File systems allow 255 bytes; a number, the suffix and the temporary file's name need some.
_MAX_NAME_BYTES = 200


class AnnotatedFiles:
    """A folder for annotated images.

    ``holiday/beach.png`` becomes ``beach.jpg``, a second ``beach`` becomes ``beach-2.jpg``, frame 7 of ``clip.mp4``
    ``clip-000007.jpg``. Existing files, sources among them, are never overwritten.

    Args:
        folder: created, with its parents, if it does not exist.

    Raises:
        HubelError: it cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
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
        """Read the image again, draw the result on it and save it; may be called from any thread.

        Raises:
            ImageError: the image is not there any more.
            HubelError: the file cannot be written.
        """
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
        return HubelError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Free some space, or name another folder with --save.",
        )
