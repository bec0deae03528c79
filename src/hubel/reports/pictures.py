"""Photographs in a report: thumbnails of mistakes and the sheet of augmented samples."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hubel.drawing import draw_boxes
from hubel.errors import ImageError
from hubel.reports.records import AugmentationSample, DetectionMistake, Mistake

SAMPLE_SIDE = 160
"""Side of an augmented sample's cell in pixels."""


def read_mistakes(
    mistakes: Sequence[Mistake] | Sequence[DetectionMistake], side: int
) -> tuple[list[tuple[Mistake | DetectionMistake, bytes]], list[str]]:
    """Read the pictures of mistakes.

    Args:
        mistakes: which.
        side: longest of a thumbnail, in pixels.

    Returns:
        Each mistake with its thumbnail as a JPEG file, and the names of pictures that cannot be read (any more).
    """
    from hubel.data.image_io import read_image

    pictured: list[tuple[Mistake | DetectionMistake, bytes]] = []
    unreadable: list[str] = []
    for mistake in mistakes:
        try:
            picture = read_image(mistake.path)
        except ImageError:
            unreadable.append(mistake.path.name)
            continue
        if mistake.boxes:
            picture = draw_boxes(picture, mistake.boxes)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        pictured.append((mistake, to_jpeg(picture)))
    return pictured, unreadable


def sample_rows(samples: Sequence[AugmentationSample]) -> list[list[Image.Image]]:
    """The original and its augmented versions of each sample, scaled to fit a cell of the sheet."""
    return [[_cell(pixels) for pixels in (sample.original, *sample.augmented)] for sample in samples]


def augmentation_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """All samples in one picture: a row an image, the original first and set apart."""
    gap, apart = 6, 18
    columns = max(len(row) for row in rows)
    width = columns * (SAMPLE_SIDE + gap) + gap + apart
    sheet = Image.new("RGB", (width, len(rows) * (SAMPLE_SIDE + gap) + gap), "white")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            left = gap + x * (SAMPLE_SIDE + gap) + (apart if x else 0) + (SAMPLE_SIDE - cell.width) // 2
            sheet.paste(cell, (left, gap + y * (SAMPLE_SIDE + gap) + (SAMPLE_SIDE - cell.height) // 2))
    return sheet


def to_jpeg(picture: Image.Image) -> bytes:
    """A JPEG file for embedding."""
    return _encoded(picture, format="JPEG", quality=82)


def to_png(picture: Image.Image) -> bytes:
    """A PNG file."""
    return _encoded(picture, format="PNG", optimize=True)


def _encoded(picture: Image.Image, **settings: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, **settings)  # type: ignore[arg-type]
    return file.getvalue()


def _cell(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    scale = SAMPLE_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC)
